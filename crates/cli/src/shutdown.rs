//! Stopping on SIGINT and SIGTERM: the store is closed, which flushes it, and the command says how
//! far it came.
//!
//! The signal's thread closes the store; the command's own thread then meets `Closed`, reports and
//! ends. When that thread waits for what no signal interrupts (standard input), the signal's
//! thread ends the process instead. A second signal ends at once.
//!
//! Checked by: `tests/it/interrupted.rs`.

use std::cell::OnceCell;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nephrite::blocking::Store;
use nephrite::signals::{ShutdownSignals, Signal};

use crate::failure::Failure;
use crate::output::complain;

/// Longest wait for the command's thread to say how far it came.
const GRACE: Duration = Duration::from_secs(2);

/// The signals of one command; taken over when it opens its first store.
#[derive(Default)]
pub(crate) struct Shutdown {
    installed: OnceCell<Installed>,
}

struct Installed {
    signals: ShutdownSignals,
    /// Dropped when the command's thread is back.
    _running: Sender<()>,
}

impl Shutdown {
    /// Takes the signals over, for a command that has no store to be closed: it asks
    /// [`Self::check`] now and then.
    pub(crate) fn listen(&self) -> Result<(), Failure> {
        if self.installed.get().is_none() {
            let installed = install()?;
            drop(self.installed.set(installed));
        }
        Ok(())
    }

    /// A failure once a signal has come.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.received() {
            None => Ok(()),
            Some(signal) => Err(Failure::interrupted(signal, None)),
        }
    }

    /// Opens a store that is closed when a signal comes, also while it is being opened.
    pub(crate) fn watch(
        &self,
        open: impl FnOnce() -> Result<Store, nephrite::Error>,
    ) -> Result<Store, Failure> {
        self.listen()?;
        let store = open()?;
        if let Some(installed) = self.installed.get() {
            installed.signals.close_on_signal(store.as_async());
        }
        self.check()?;
        Ok(store)
    }

    /// How the command really ended, once its thread is back: a failure after a signal is that
    /// signal's doing. Waits for the stores to be closed.
    pub(crate) fn settle(self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        let Some(signal) = self.received() else { return outcome };
        let Some(installed) = self.installed.into_inner() else { return outcome };
        let closed = pollster::block_on(installed.signals.closed());
        match outcome {
            Ok(()) => Ok(closed?),
            Err(failure @ Failure::Interrupted { .. }) => Err(failure),
            Err(failure) => Err(Failure::interrupted(signal, failure.sentence())),
        }
    }

    fn received(&self) -> Option<Signal> {
        self.installed.get().and_then(|installed| installed.signals.received())
    }
}

fn install() -> Result<Installed, Failure> {
    let signals = ShutdownSignals::install()
        .map_err(|error| Failure::error(format_args!("taking over SIGINT and SIGTERM: {error}")))?;
    let (running, command) = channel();
    signals.when_closed(move |signal| end_unless_it_ends(&command, signal));
    Ok(Installed { signals, _running: running })
}

fn end_unless_it_ends(command: &Receiver<()>, signal: Signal) {
    if command.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
        let failure = Failure::interrupted(signal, None);
        complain(failure.sentence().unwrap_or_default());
        std::process::exit(i32::from(128 + signal.number()));
    }
}
