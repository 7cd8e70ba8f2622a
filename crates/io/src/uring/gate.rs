//! The gate by which a shutdown waits for callers' rings that have something in flight.
//!
//! ```text
//! ring: enter (busy) ... leave      close: no ring enters any more
//!       the last of these to happen lets the end guard go
//! ```
//!
//! Guarantee: once the gate is closed no ring becomes busy, and the end guard goes exactly when
//! the gate is closed and the last busy ring has left, not before.
//! Ordering: the gate is one word that is only added to and or-ed, so all agree on its order; what
//! a ring leaves behind is counted before it leaves (AcqRel), so whoever ends sees it.
//! Checked by the loom model `gate`, with planted bugs.

use super::latch::EndGuard;
use crate::planted::planted;
use crate::sync::{AtomicUsize, Mutex, Ordering, lock};

/// The gate's bit for "closed"; the bits below count busy rings.
const CLOSED: usize = 1 << (usize::BITS - 1);

pub(super) struct Gate {
    word: AtomicUsize,
    guard: Mutex<Option<EndGuard>>,
}

impl Gate {
    pub(super) fn new(guard: EndGuard) -> Self {
        Self { word: AtomicUsize::new(0), guard: Mutex::new(Some(guard)) }
    }

    /// For a ring that becomes busy; false when the gate is closed.
    pub(super) fn enter(&self) -> bool {
        let entered = self.word.fetch_add(1, Ordering::AcqRel) & CLOSED == 0;
        if !entered {
            self.leave(0);
        }
        entered || planted("closed_gate_entered")
    }

    /// For a ring that is no longer busy and had to leave `stuck` operations behind.
    pub(super) fn leave(&self, stuck: usize) {
        if 0 < stuck
            && let Some(guard) = lock(&self.guard).as_ref()
        {
            guard.leave_behind(stuck);
        }
        if self.word.fetch_sub(1, Ordering::AcqRel) == CLOSED + 1 && !planted("last_ring_silent") {
            self.end();
        }
    }

    /// Lets no ring become busy from now on.
    pub(super) fn close(&self) {
        let before = self.word.fetch_or(CLOSED, Ordering::AcqRel);
        if before == 0 || planted("close_does_not_wait") {
            self.end();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.word.load(Ordering::Acquire) & CLOSED != 0
    }

    fn end(&self) {
        let guard = lock(&self.guard).take();
        drop(guard);
    }
}
