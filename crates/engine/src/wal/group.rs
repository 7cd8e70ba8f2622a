//! Commit group: the writers whose records share one log write, and how they learn its outcome.
//!
//! pending -> done | failed. The outcome is published once, with Release, before everyone waiting
//! is woken in one round; a waiter reads it with Acquire.

use std::sync::OnceLock;

use event_listener::Event;

use crate::error::Error;

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct CommitGroup {
    outcome: OnceLock<Result<(), Error>>,
    finished: Event,
}

impl CommitGroup {
    /// Publishes the outcome. Only the committer calls it, once per group.
    pub(crate) fn finish(&self, outcome: Result<(), Error>) {
        let first = self.outcome.set(outcome).is_ok();
        assert!(first, "a commit group finishes once");
        self.finished.notify(usize::MAX);
    }

    /// Waits for the outcome. Cancel safe: nothing is taken.
    pub(crate) async fn wait(&self) -> Result<(), Error> {
        loop {
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            let listener = self.finished.listen();
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            listener.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_waiter_learns_the_outcome() {
        let group = Arc::new(CommitGroup::default());
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let group = Arc::clone(&group);
                std::thread::Builder::new().spawn(move || pollster::block_on(group.wait())).unwrap()
            })
            .collect();
        group.finish(Err(Error::Closed));
        for waiter in waiters {
            assert!(matches!(waiter.join().unwrap(), Err(Error::Closed)));
        }
        assert!(pollster::block_on(group.wait()).is_err());
    }
}
