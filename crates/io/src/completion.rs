//! How an outcome gets from an I/O thread to whoever waits: a one-shot cell and its future.
//!
//! Guarantee: the future is `Send`, runs on any executor, and may be dropped at any point; a value
//! sent after that is dropped on the sending thread, and the sender learns of it.
//! Ordering: one mutex per cell, held for a few instructions and never while a waker runs.
//! Tested below, by the drop tests of both backends, and by the loom models `completion` and
//! `ticket`, with planted bugs.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::planted::planted;
use crate::request::{Completed, OnComplete};
use crate::stats::Counters;
use crate::sync::{Mutex, Thread, lock, thread, thread_flag};
use crate::wakes::{release_held, wake_later};

/// Runs a future to its end on the calling thread, which sleeps in between.
///
/// Not for use inside an executor's thread: it would block the others on it.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => {
                release_held();
                thread::park();
            }
        }
    }
}

thread_flag!(ORPHANED);

/// Tells the disk, from inside an `on_complete`, that nobody was left to take the outcome.
pub fn note_orphaned() {
    ORPHANED.with(|orphaned| orphaned.set(true));
}

/// Calls a completion and counts it. A completion that panics ends the process: this thread owns
/// operations of others that the kernel is writing into, and they must not be unwound.
pub(crate) fn deliver(counters: &Counters, on_complete: OnComplete, completed: Completed) {
    let outer = ORPHANED.with(|orphaned| orphaned.replace(false));
    if !planted("counted_late") {
        counters.delivered.add(1);
    }
    abort_on_panic("a completion callback", || on_complete(completed));
    if ORPHANED.with(|orphaned| orphaned.replace(outer)) {
        // In this order no request counts twice, not even for an instant.
        if !planted("orphan_counted_twice") {
            counters.delivered.subtract(1);
        }
        counters.orphaned.add(1);
    }
    if planted("counted_late") {
        counters.delivered.add(1);
    }
}

/// Runs code whose panic would leave the kernel with memory that unwinding frees.
pub(crate) fn abort_on_panic<T>(who: &str, run: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => value,
        Err(_) => {
            eprintln!("nephrite-io: {who} panicked on an I/O thread; the process ends here");
            std::process::abort();
        }
    }
}

/// A cell that one side fills and the other awaits.
pub(crate) fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let cell = Arc::new(Mutex::new(State::Empty(None)));
    (Sender { cell: Arc::clone(&cell) }, Receiver { cell })
}

enum State<T> {
    Empty(Option<Waker>),
    Full(T),
    /// One side is gone, or the value was taken.
    Over,
}

type Slot<T> = Mutex<State<T>>;

pub(crate) struct Sender<T> {
    cell: Arc<Slot<T>>,
}

impl<T> Sender<T> {
    /// Hands the value over; gives it back when the receiver was dropped.
    pub(crate) fn send(self, value: T) -> Result<(), T> {
        let mut state = lock(&self.cell);
        match std::mem::replace(&mut *state, State::Over) {
            State::Empty(waker) => {
                *state = State::Full(value);
                drop(state);
                wake(waker);
                Ok(())
            }
            State::Full(_) | State::Over => Err(value),
        }
    }
}

impl<T> Sender<T> {
    /// Whether the receiver was dropped, so that nobody will take a value.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(*lock(&self.cell), State::Over)
    }
}

impl<T> Drop for Sender<T> {
    /// Without a value the receiver learns that there will be none.
    fn drop(&mut self) {
        let mut state = lock(&self.cell);
        if let State::Empty(waker) = &mut *state {
            let waker = waker.take();
            *state = State::Over;
            drop(state);
            if !planted("sender_goes_silently") {
                wake(waker);
            }
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        wake_later(waker);
    }
}

/// Resolves to the value, or to none when the sender was dropped without sending.
pub(crate) struct Receiver<T> {
    cell: Arc<Slot<T>>,
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.cell);
        match std::mem::replace(&mut *state, State::Over) {
            State::Empty(previous) => {
                let waker = match previous {
                    Some(waker) if waker.will_wake(context.waker()) => waker,
                    _ => context.waker().clone(),
                };
                if planted("waiter_registers_late") {
                    *state = State::Empty(None);
                    drop(state);
                    state = lock(&self.cell);
                }
                *state = State::Empty(Some(waker));
                Poll::Pending
            }
            State::Full(value) => Poll::Ready(Some(value)),
            State::Over => Poll::Ready(None),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *lock(&self.cell), State::Over);
        // A value or a waker may run foreign code when it goes: not under the lock.
        drop(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_sent_from_another_thread_arrives() {
        let (sender, receiver) = oneshot();
        let thread = std::thread::Builder::new().spawn(move || sender.send(5)).unwrap();

        assert_eq!(block_on(receiver), Some(5));
        assert_eq!(thread.join().unwrap(), Ok(()));
    }

    #[test]
    fn a_dropped_receiver_gives_the_value_back() {
        let (sender, receiver) = oneshot();
        assert!(!sender.is_abandoned());
        drop(receiver);

        assert!(sender.is_abandoned());
        assert_eq!(sender.send("kept"), Err("kept"));
    }

    #[test]
    fn a_dropped_sender_ends_the_wait() {
        let (sender, receiver) = oneshot::<u8>();
        let thread = std::thread::Builder::new().spawn(move || drop(sender)).unwrap();

        assert_eq!(block_on(receiver), None);
        thread.join().unwrap();
    }

    #[test]
    fn a_delivery_that_nobody_takes_counts_as_orphaned() {
        let counters = Counters::default();
        let completed = || Completed { result: Ok(()), buffer: None };

        deliver(&counters, Box::new(|_| note_orphaned()), completed());
        deliver(&counters, Box::new(|_| ()), completed());

        assert_eq!((counters.delivered.value(), counters.orphaned.value()), (1, 1));
    }
}
