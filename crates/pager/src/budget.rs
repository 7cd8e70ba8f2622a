//! Pin budget: how much of the cache may be pinned at one time, in units of 4096 bytes.
//!
//! A frame that is pinned or loading is *charged*: its units are taken from here. The charge stays
//! with the frame after its last pin is gone and is collected only when the budget runs dry, so a
//! hit on a frame that was hit before touches nothing here.
//!
//! Guarantee: units taken and not given back never exceed the limit.
//! Does not: wait. Waiting is `frame_wait.rs`; `shared.rs` joins the two.
//! Ordering: the number is its own protocol (Relaxed compare-and-swap keeps the sum). `give` is
//! Release and `take` Acquire only so that the model of the waiters stays simple to reason about.
//! The room for reads past the cache is another one of these (`bypass.rs`).
//! Checked by the loom models `pin_budget` and `frame_wait`.

use crate::planted::planted;
use crate::sync::{AtomicU64, Ordering};

/// The units that may still be pinned.
#[derive(Debug)]
pub(crate) struct PinBudget {
    available: AtomicU64,
    limit: u64,
}

impl PinBudget {
    pub(crate) fn new(limit_units: u64) -> Self {
        Self { available: AtomicU64::new(limit_units), limit: limit_units }
    }

    /// The limit in units.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes `units`, all or nothing.
    pub(crate) fn take(&self, units: u8) -> bool {
        let units = u64::from(units);
        let mut seen = self.available.load(Ordering::Relaxed);
        loop {
            let Some(rest) = seen.checked_sub(units) else { return false };
            if planted("budget_store") {
                self.available.store(rest, Ordering::Relaxed);
                return true;
            }
            let outcome = self.available.compare_exchange_weak(
                seen,
                rest,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            match outcome {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
    }

    /// Gives back `units`.
    pub(crate) fn give(&self, units: u64) {
        let before = self.available.fetch_add(units, Ordering::Release);
        debug_assert!(before + units <= self.limit, "gave back {units} to {before}");
    }

    /// What is left now.
    pub(crate) fn available(&self) -> u64 {
        self.available.load(Ordering::Relaxed)
    }
}
