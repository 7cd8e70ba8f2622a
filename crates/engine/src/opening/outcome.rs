//! What comes of an opening: a store that is handed over, or closed behind a caller that has gone.
//!
//! ```text
//! pending -> ready -> taken by the caller
//!    |         |
//!    +---------+--> abandoned: the task closes the store
//! ```
//! Lock rule: the mutex is a leaf.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;

use crate::{core::Core, error::Error};

/// What comes of an opening, and whether anybody still waits for it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    state: Mutex<State>,
    changed: Event,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Pending,
    Ready(Result<Arc<Core>, Error>),
    /// By the caller, or given up by it.
    Taken,
}

impl Outcome {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the outcome over; `false` when nobody waits for it any more.
    pub(super) fn offer(&self, result: Result<Arc<Core>, Error>) -> bool {
        let mut state = self.lock();
        if matches!(*state, State::Taken) {
            return false;
        }
        *state = State::Ready(result);
        drop(state);
        self.changed.notify(usize::MAX);
        true
    }

    fn take(&self) -> Option<Result<Arc<Core>, Error>> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Ready(result) => Some(result),
            other => {
                *state = other;
                None
            }
        }
    }
}

/// The caller, waiting; dropped before it took the store, it gives it up.
pub(super) struct Waiting(pub(super) Arc<Outcome>);

impl Waiting {
    pub(super) async fn take(&self) -> Result<Arc<Core>, Error> {
        loop {
            let listener = self.0.changed.listen();
            if let Some(result) = self.0.take() {
                return result;
            }
            listener.await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *self.0.lock(), State::Taken);
        if let State::Ready(Ok(core)) = state {
            core.abandon();
        }
    }
}
