//! The waker of a future whose thread sleeps in its own ring, or parks.
//!
//! Guarantee: a wake after the beginning of a poll leads to another poll, whatever the future looks
//! at. The flag is therefore exchanged before a poll, not stored: a store may wait in the
//! processor while the poll already looks, and then wipe out a wake that came in between.
//! Ordering is that of `wake`: set the flag, then wake; announce, then look at the flag.
//! Checked by the loom model `notify`, with the store as planted bug.

use std::sync::Arc;

use super::intake::Intake;
use crate::planted::planted;
use crate::sync::{AtomicBool, Ordering};

pub(super) struct Notify {
    set: AtomicBool,
    intake: Arc<Intake>,
}

impl Notify {
    pub(super) fn new(intake: Arc<Intake>) -> Self {
        Self { set: AtomicBool::new(false), intake }
    }

    /// Before a poll: wakes from now on count.
    pub(super) fn begin_poll(&self) {
        if planted("wake_wiped_out") {
            self.set.store(false, Ordering::Relaxed);
        } else if self.is_set() {
            // A wake that comes after this look sets the flag for another poll, as it should.
            // AcqRel: what was done before a wake that this takes back is seen by the poll.
            self.set.swap(false, Ordering::AcqRel);
        }
    }

    /// Whether the future was woken since the last poll began.
    pub(super) fn is_set(&self) -> bool {
        // Acquire pairs with the exchange in `wake_by_ref`.
        self.set.load(Ordering::Acquire)
    }
}

impl std::task::Wake for Notify {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Release: the poll sees what this waker's owner did. An exchange, as all changes are.
        self.set.swap(true, Ordering::AcqRel);
        self.intake.wake().wake();
    }
}
