//! Syncs of one file that run at the same time, and when one of them may be believed.
//!
//! The kernel tells a lost write once per open file: to the first sync that asks. Another one that
//! waited for the same write hears that all is well. So a sync that went well is told only when
//! every sync that was running at its end has ended too, and as a failure where one of them failed.
//!
//! Guarantee: a sync waits for none that began after its own end, so a steady stream of syncs holds
//! up none of them for long.
//! Locks: one mutex, a leaf; what tells of an end runs outside of it, on the thread of the sync
//! that ended last.
//! Does not: know of other handles of the file, which the kernel tells separately.
//! Tested below and in `tests/it/sim/schedule.rs`.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Tells of the end of a sync that went well.
pub(crate) type Tell = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(crate) struct Syncs {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begun: u64,
    running: BTreeSet<u64>,
    held: Vec<Held>,
}

struct Held {
    /// It waits for the syncs up to this number.
    last: u64,
    tell: Tell,
}

impl Syncs {
    /// A sync is about to be issued. Its number is for [`Syncs::end`], which must follow.
    pub(crate) fn begin(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.begun += 1;
        let number = state.begun;
        state.running.insert(number);
        number
    }

    /// A sync has ended; `tell` if it went well. What is returned may be told now.
    pub(crate) fn end(&self, number: u64, tell: Option<Tell>) -> Vec<Tell> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(state.running.remove(&number), "sync {number} ended twice");
        let last = state.begun;
        state.held.extend(tell.map(|tell| Held { last, tell }));
        let first_running = state.running.first().copied().unwrap_or(u64::MAX);
        let held = std::mem::take(&mut state.held).into_iter();
        let (free, held) = held.partition::<Vec<_>, _>(|held| held.last < first_running);
        state.held = held;
        free.into_iter().map(|held| held.tell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(syncs: &Syncs, number: u64) -> usize {
        syncs.end(number, Some(Box::new(|| ()))).len()
    }

    #[test]
    fn a_sync_alone_is_told_at_once() {
        let syncs = Syncs::default();
        for _ in 0..3 {
            let number = syncs.begin();
            assert_eq!(end(&syncs, number), 1);
        }
    }

    #[test]
    fn a_sync_waits_for_those_that_run_at_its_end_and_for_no_later_one() {
        let syncs = Syncs::default();
        let (first, second) = (syncs.begin(), syncs.begin());
        assert_eq!(end(&syncs, second), 0, "the first one is running");
        let third = syncs.begin();

        assert_eq!(end(&syncs, first), 1, "the second; the first waits for the third");
        assert_eq!(end(&syncs, third), 2);
    }

    #[test]
    fn a_sync_that_failed_lets_the_others_go_on() {
        let syncs = Syncs::default();
        let (first, second) = (syncs.begin(), syncs.begin());
        assert_eq!(end(&syncs, first), 0);

        assert_eq!(syncs.end(second, None).len(), 1);
    }
}
