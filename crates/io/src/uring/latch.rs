//! Waiting for the end of a known number of threads, with or without blocking.
//!
//! Each thread holds an [`EndGuard`]; the last one to go releases everybody who waits.
//! Locks: one mutex; no watcher is told under it. Checked by the loom model `latch`, with planted
//! bugs.

use std::sync::Arc;
use std::time::Duration;

use crate::completion::{Receiver, Sender, oneshot};
use crate::planted::planted;
use crate::sync::{Condvar, Mutex, MutexGuard, lock, wait_while};

#[derive(Default)]
pub(super) struct EndLatch {
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Default)]
struct State {
    running: usize,
    /// Operations that the ended threads had to leave behind.
    stuck: usize,
    watchers: Vec<Sender<usize>>,
}

/// Held by a running thread.
pub(super) struct EndGuard {
    latch: Arc<EndLatch>,
}

impl EndLatch {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn enter(self: &Arc<Self>) -> EndGuard {
        self.lock().running += 1;
        EndGuard { latch: Arc::clone(self) }
    }

    /// Resolves to the number of operations left behind, once no thread runs.
    pub(super) fn watch(&self) -> Receiver<usize> {
        let (sender, receiver) = oneshot();
        let mut state = self.lock();
        let running = state.running > 0;
        if planted("latch_unlocked") {
            drop(state);
            state = self.lock();
        }
        if running {
            state.watchers.push(sender);
        } else {
            let stuck = state.stuck;
            drop(state);
            // The receiver is in our hands: nobody can have dropped it.
            let _ = sender.send(stuck);
        }
        receiver
    }

    /// Blocks until no thread runs; false when the time was up first.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        wait_while(&self.over, self.lock(), timeout, |state| state.running > 0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl EndGuard {
    /// Counts operations that this thread leaves behind.
    pub(super) fn leave_behind(&self, operations: usize) {
        self.latch.lock().stuck += operations;
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        let mut state = self.latch.lock();
        state.running -= 1;
        if state.running > 0 && !planted("latch_early") {
            return;
        }
        let (watchers, stuck) = (std::mem::take(&mut state.watchers), state.stuck);
        drop(state);
        self.latch.over.notify_all();
        for watcher in watchers {
            // Who asked may have lost interest.
            let _ = watcher.send(stuck);
        }
    }
}
