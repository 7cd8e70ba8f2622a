//! Ending in order on SIGTERM and SIGINT (Ctrl-C and its kin on Windows). Feature `signals`.
//!
//! ```text
//! first signal  -> callbacks in the order of registration -> stores closed -> what is last
//! second signal -> the process ends at once, with exit code 128 + the signal's number
//! ```
//!
//! Opt-in: a library that takes over the signals of its host is a bug, so nothing happens without
//! [`ShutdownSignals::install`]. The handlers themselves only set flags and write to a pipe (the
//! `signal-hook` crate; `ctrlc` on Windows); everything else runs on a thread named
//! `nephrite-signals`. Closing a store flushes it, so nothing acknowledged is lost either way:
//! a second signal only costs the flush, and recovery at the next open does its work.
//!
//! Guarantee: callbacks run once, on the first signal, whether or not one of them panics.
//! Lock rule: the mutex is a leaf; callbacks run without it.
//! Tested in: `tests/it/signals.rs` of the engine, in child processes that get real signals.

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread::{Builder, JoinHandle},
};

use event_listener::Event;

use crate::{Store, error::Error, store::Handle};

/// What asked the process to end.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// SIGINT, or Ctrl-C on Windows.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// The number on Unix; shells report 128 plus this as the exit code.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

type Callback = Box<dyn FnOnce(Signal) + Send>;

/// Ends registered stores on the first signal; see the [module](self).
///
/// Dropping it gives the signals their default action back (on Windows, where a console handler
/// cannot be taken back, they end the process).
#[derive(Debug)]
pub struct ShutdownSignals {
    shared: Arc<Shared>,
    source: source::Source,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Event,
}

#[derive(Default)]
struct State {
    callbacks: Vec<Callback>,
    stores: Vec<Weak<Handle>>,
    last: Option<Callback>,
    received: Option<Signal>,
    finished: bool,
    failure: Option<Error>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        formatter
            .debug_struct("Shared")
            .field("callbacks", &state.callbacks.len())
            .field("stores", &state.stores.len())
            .field("received", &state.received)
            .field("finished", &state.finished)
            .finish_non_exhaustive()
    }
}

impl ShutdownSignals {
    /// Takes over SIGTERM and SIGINT.
    ///
    /// # Errors
    /// What the operating system says to a handler, a pipe or a thread; on Windows also when
    /// another part of the process has taken Ctrl-C through the `ctrlc` crate.
    pub fn install() -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Event::new() });
        let (source, receiver) = source::install()?;
        let own = Arc::clone(&shared);
        let thread = Builder::new().name("nephrite-signals".to_owned()).spawn(move || {
            if let Some(signal) = receiver.wait() {
                own.deliver(signal);
            }
        })?;
        Ok(Self { shared, source, thread: Some(thread) })
    }

    /// Runs `callback` on the first signal, on the thread `nephrite-signals`, after those that
    /// were registered before it and before any store is closed. After the first signal it runs
    /// at once, on the caller's thread.
    pub fn on_signal(&self, callback: impl FnOnce(Signal) + Send + 'static) {
        let mut state = self.shared.lock();
        if let Some(signal) = state.received {
            drop(state);
            callback(signal);
            return;
        }
        state.callbacks.push(Box::new(callback));
    }

    /// Closes `store` on the first signal: calls under way end with [`Error::Closed`], everything
    /// written so far is flushed. Does not keep the store open. A store that is registered after
    /// the first signal stays open; who opened it sees [`Self::received`].
    pub fn close_on_signal(&self, store: &Store) {
        let mut state = self.shared.lock();
        state.stores.retain(|handle| 0 < handle.strong_count());
        state.stores.push(store.downgrade());
    }

    /// Runs `callback` when all stores are closed; the place to end the process when its main
    /// thread waits for something that no signal interrupts. A later call replaces it. When they
    /// are closed already it runs at once, on the caller's thread.
    pub fn when_closed(&self, callback: impl FnOnce(Signal) + Send + 'static) {
        self.shared.set_last(Box::new(callback));
    }

    /// The first signal, if there was one: for loops that want to stop by themselves.
    #[must_use]
    pub fn received(&self) -> Option<Signal> {
        self.shared.lock().received
    }

    /// Resolves with the first signal. Cancel safe.
    pub async fn wait(&self) -> Signal {
        self.shared.when(|state| state.received).await
    }

    /// Resolves once callbacks have run and stores are closed. Cancel safe.
    ///
    /// # Errors
    /// The first failure of closing a store.
    pub async fn closed(&self) -> Result<(), Error> {
        let outcome = |state: &mut State| state.finished.then(|| state.failure.take());
        self.shared.when(outcome).await.map_or(Ok(()), Err)
    }
}

impl Drop for ShutdownSignals {
    fn drop(&mut self) {
        self.source.uninstall();
        let Some(thread) = self.thread.take() else { return };
        // A callback may drop what holds this.
        if thread.thread().id() != std::thread::current().id() {
            // What callbacks panicked with has been printed and kept from ending the thread.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn when<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let listener = self.changed.listen();
            let found = ready(&mut self.lock());
            if let Some(value) = found {
                return value;
            }
            listener.await;
        }
    }

    fn set_last(&self, callback: Callback) {
        let mut state = self.lock();
        match state.received.filter(|_| state.finished) {
            None => state.last = Some(callback),
            Some(signal) => {
                drop(state);
                callback(signal);
            }
        }
    }

    fn deliver(&self, signal: Signal) {
        let callbacks = {
            let mut state = self.lock();
            state.received = Some(signal);
            std::mem::take(&mut state.callbacks)
        };
        self.changed.notify(usize::MAX);
        for callback in callbacks {
            run(callback, signal);
        }
        let stores = std::mem::take(&mut self.lock().stores);
        for store in stores.iter().filter_map(Weak::upgrade).map(Store::from_handle) {
            if let Err(error) = pollster::block_on(store.close()) {
                self.lock().failure.get_or_insert(error);
            }
        }
        let last = {
            let mut state = self.lock();
            state.finished = true;
            state.last.take()
        };
        self.changed.notify(usize::MAX);
        if let Some(callback) = last {
            run(callback, signal);
        }
    }
}

/// Runs a callback whose panic, printed by the panic hook, must not keep stores from being closed.
fn run(callback: Callback, signal: Signal) {
    drop(catch_unwind(AssertUnwindSafe(|| callback(signal))));
}

#[cfg(unix)]
mod source {
    //! Signals through `signal-hook`.

    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use signal_hook::{
        SigId,
        consts::{SIGINT, SIGTERM},
        flag,
        iterator::{Handle, Signals},
        low_level,
    };

    use super::Signal;

    #[derive(Debug)]
    pub(super) struct Source {
        handle: Handle,
        flags: Vec<SigId>,
        removed: Arc<AtomicBool>,
    }

    pub(super) struct Receiver(Signals);

    pub(super) fn install() -> io::Result<(Source, Receiver)> {
        let signals = Signals::new([SIGINT, SIGTERM])?;
        let (received, removed) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut source =
            Source { handle: signals.handle(), flags: Vec::new(), removed: Arc::clone(&removed) };
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down and raises it, the second ends.
            let second =
                flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&received))?;
            let first = flag::register(signal, Arc::clone(&received))?;
            source.flags.extend([second, first]);
            // Stays registered: nothing else gives an uninstalled signal its default action back.
            flag::register_conditional_default(signal, Arc::clone(&removed))?;
        }
        Ok((source, Receiver(signals)))
    }

    impl Source {
        pub(super) fn uninstall(&mut self) {
            // Release: pairs with the handler's load; it guards no other data.
            self.removed.store(true, Ordering::Release);
            for flag in self.flags.drain(..) {
                low_level::unregister(flag);
            }
            self.handle.close();
        }
    }

    impl Receiver {
        /// The first signal; none when the source was uninstalled before one came.
        pub(super) fn wait(mut self) -> Option<Signal> {
            self.0.forever().next().map(|number| match number {
                SIGTERM => Signal::Terminate,
                _ => Signal::Interrupt,
            })
        }
    }
}

#[cfg(windows)]
mod source {
    //! Console events through `ctrlc`.

    use std::{
        io,
        sync::mpsc::{Receiver as Channel, Sender, channel},
    };

    use super::Signal;

    #[derive(Debug)]
    pub(super) struct Source {
        end: Sender<Option<Signal>>,
    }

    pub(super) struct Receiver(Channel<Option<Signal>>);

    pub(super) fn install() -> io::Result<(Source, Receiver)> {
        let (end, receiver) = channel();
        let events = end.clone();
        let mut received = false;
        ctrlc::try_set_handler(move || {
            // Nobody listens any more: the helper was dropped, or this is the second event.
            if received || events.send(Some(Signal::Interrupt)).is_err() {
                std::process::exit(128 + i32::from(Signal::Interrupt.number()));
            }
            received = true;
        })
        .map_err(io::Error::other)?;
        Ok((Source { end }, Receiver(receiver)))
    }

    impl Source {
        pub(super) fn uninstall(&mut self) {
            // The thread that listens has ended already if nobody takes this.
            let _ = self.end.send(None);
        }
    }

    impl Receiver {
        /// The first event; none when the source was uninstalled before one came.
        pub(super) fn wait(self) -> Option<Signal> {
            self.0.recv().ok().flatten()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    /// A signal that came before the callback was there left a process that nothing ended.
    #[test]
    fn what_is_last_runs_also_when_it_comes_after_the_signal() {
        let shared = Shared { state: Mutex::default(), changed: Event::new() };
        let ran = Arc::new(AtomicU8::new(0));
        let last = || {
            let ran = Arc::clone(&ran);
            Box::new(move |signal: Signal| ran.store(signal.number(), Ordering::Relaxed))
        };

        shared.deliver(Signal::Terminate);
        shared.set_last(last());
        assert_eq!(ran.load(Ordering::Relaxed), 15);

        let shared = Shared { state: Mutex::default(), changed: Event::new() };
        shared.set_last(last());
        assert_eq!(ran.swap(0, Ordering::Relaxed), 15);
        shared.deliver(Signal::Interrupt);
        assert_eq!(ran.load(Ordering::Relaxed), 2);
    }
}
