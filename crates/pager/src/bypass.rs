//! Reads past the cache: what a getter does when no frame can be had for a page.
//!
//! Frames can all be pinned, for as long as their holders like; the getter itself may be among
//! them, so it must not wait for them. [`Bypass`] is the right to read one page into memory of the
//! getter's own. There is a small budget of such memory, in units of 4096 bytes
//! ([`crate::PagerConfig::bypass_limit_bytes`]). Only reads that are running hold some of it, and
//! those end by themselves, so a wait for it ends, whatever is pinned.
//!
//! Guarantee: bytes of living bypasses never exceed the limit; room that one gives back is told to
//! those who wait (`frame_wait.rs`).
//! Does not: keep two getters from reading the same page past the cache.
//! Ordering: giving back, then the fence of `announce`; arming with its fence, then the last look:
//! as for the pin budget.
//! Checked by the loom model `bypass`, with the announcement left out as planted bug, and by
//! `pager/limits.rs`.

use std::sync::atomic::Ordering::Relaxed;

use crate::planted::planted;
use crate::shared::Shared;
use crate::sync::Arc;

/// The right to read one page past the cache, into memory of the caller's.
///
/// Drop it when that memory is given back. Hold it across the read only: not while waiting for
/// anything else, and not inside a future that nobody may poll; who completes the read drops it.
#[derive(Debug)]
#[must_use = "others may be waiting for this room"]
pub struct Bypass {
    shared: Arc<Shared>,
    units: u8,
}

impl Bypass {
    /// Takes room for a page of so many units, if there is some.
    pub(crate) fn take(shared: &Arc<Shared>, units: u8) -> Option<Self> {
        if !shared.bypass.take(units) {
            return None;
        }
        Some(Self { shared: Arc::clone(shared), units })
    }

    /// Counts the read that this stands for: `PagerStats::bypasses`.
    pub fn count(&self) {
        self.shared.counters.bypasses.fetch_add(1, Relaxed);
    }
}

impl Drop for Bypass {
    fn drop(&mut self) {
        self.shared.bypass.give(u64::from(self.units));
        if !planted("bypass_unannounced") {
            self.shared.announce();
        }
    }
}
