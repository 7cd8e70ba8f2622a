//! What caller-driven rings of one disk share: how many there may be, why there is none, and the
//! gate by which a shutdown waits for those that have something in flight (`gate`).
//!
//! A ring is **busy** from the first request it takes in until the last has ended; the disk's
//! shutdown waits for busy ones, as it does for its ring threads.
//! Tested in `tests/it/caller_ring.rs`.

use std::rc::Rc;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::caller::CallerCore;
use super::gate::Gate;
use super::intake::Intake;
use super::latch::EndLatch;
use super::ring::Ring;
use crate::options::DiskOptions;
use crate::positional::Positional;
use crate::request::Request;
use crate::stats::Counters;
use crate::sync::{AtomicUsize, Mutex, Ordering, lock};

/// Entries of the ring that a blocking call of a thread uses: enough for a hundred reads at once.
/// What a call has beyond a few times of that goes to the ring threads.
const THREAD_RING_ENTRIES: u32 = 128;

pub(crate) struct Callers {
    pub(super) counters: Arc<Counters>,
    pub(super) positional: Arc<Positional>,
    pub(super) degraded: Arc<OnceLock<String>>,
    pub(super) drain_timeout: Duration,
    entries: u32,
    rings_max: usize,
    rings: AtomicUsize,
    gate: Gate,
    /// To wake rings when the disk is closed.
    intakes: Mutex<Vec<Weak<Intake>>>,
    refusal: Mutex<Option<Refusal>>,
}

/// Why no ring could be built for a thread, and when to try again: what was refused may be allowed
/// later (lockable memory, descriptors), but each attempt has its price.
struct Refusal {
    reason: String,
    /// Calls that do without a ring until the next attempt.
    calls_left: u32,
    calls_before: u32,
}

/// Calls between the first attempts of threads that are refused a ring, and between the last.
const CALLS_BETWEEN_ATTEMPTS: [u32; 2] = [32, 1 << 15];

impl Callers {
    pub(super) fn new(
        options: &DiskOptions,
        counters: &Arc<Counters>,
        positional: &Arc<Positional>,
        degraded: &Arc<OnceLock<String>>,
        ends: &Arc<EndLatch>,
    ) -> Self {
        Self {
            counters: Arc::clone(counters),
            positional: Arc::clone(positional),
            degraded: Arc::clone(degraded),
            drain_timeout: options.drain_timeout,
            entries: options.ring_entries,
            rings_max: usize::try_from(options.caller_rings).unwrap_or(usize::MAX),
            rings: AtomicUsize::new(0),
            gate: Gate::new(ends.enter()),
            intakes: Mutex::new(Vec::new()),
            refusal: Mutex::new(None),
        }
    }

    /// A ring for the calling thread's blocking calls, and none where it must do without.
    pub(super) fn build_for_thread(self: &Arc<Self>) -> Option<Rc<CallerCore>> {
        if !self.may_try() {
            return None;
        }
        self.build(|| Ring::build_at_once(self.entries.min(THREAD_RING_ENTRIES))).ok()
    }

    /// A ring with as many entries as those of the ring threads. Waits, as they do, for lockable
    /// memory that others are about to give back.
    pub(super) fn build_for_host(self: &Arc<Self>) -> Result<Rc<CallerCore>, String> {
        self.build(|| Ring::build(self.entries))
    }

    fn build(
        self: &Arc<Self>,
        ring: impl FnOnce() -> Result<Ring, String>,
    ) -> Result<Rc<CallerCore>, String> {
        if let Some(reason) = self.degraded.get() {
            return Err(reason.clone());
        }
        // Relaxed: only a count; nothing is published by it.
        if self.rings_max <= self.rings.fetch_add(1, Ordering::Relaxed) {
            self.rings.fetch_sub(1, Ordering::Relaxed);
            return Err(format!("{} threads have rings of their own already", self.rings_max));
        }
        let built = ring().and_then(|ring| CallerCore::new(Arc::clone(self), ring));
        match &built {
            Ok(_) => *lock(&self.refusal) = None,
            Err(reason) => {
                self.rings.fetch_sub(1, Ordering::Relaxed);
                self.note_refusal(reason);
            }
        }
        built
    }

    /// Whether this call is to try for a ring, or to do without.
    fn may_try(&self) -> bool {
        let mut refusal = lock(&self.refusal);
        let Some(refusal) = refusal.as_mut().filter(|refusal| 0 < refusal.calls_left) else {
            return true;
        };
        refusal.calls_left -= 1;
        false
    }

    fn note_refusal(&self, reason: &str) {
        let mut refusal = lock(&self.refusal);
        let [first, last] = CALLS_BETWEEN_ATTEMPTS;
        let calls = refusal.as_ref().map_or(first, |before| last.min(2 * before.calls_before));
        let reason = reason.to_owned();
        *refusal = Some(Refusal { reason, calls_left: calls, calls_before: calls });
    }

    pub(super) fn register(&self, intake: &Arc<Intake>) {
        let mut intakes = lock(&self.intakes);
        intakes.retain(|intake| 0 < intake.strong_count());
        intakes.push(Arc::downgrade(intake));
        drop(intakes);
        if self.is_closed() {
            intake.close(&self.counters);
        }
    }

    pub(super) fn forget_ring(&self) {
        self.rings.fetch_sub(1, Ordering::Relaxed);
    }

    /// For a ring that becomes busy; false when the disk is closed.
    pub(super) fn enter(&self) -> bool {
        self.gate.enter()
    }

    /// For a ring that is no longer busy and had to leave `stuck` operations behind.
    pub(super) fn leave(&self, stuck: usize) {
        self.gate.leave(stuck);
    }

    /// Lets no ring become busy from now on, and tells those that are.
    pub(super) fn close(&self) {
        self.gate.close();
        for intake in lock(&self.intakes).iter().filter_map(Weak::upgrade) {
            intake.close(&self.counters);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.gate.is_closed()
    }

    /// Requests that a ring cannot take any more.
    pub(super) fn pass_on(&self, requests: Vec<Request>) {
        for request in requests {
            self.counters.fallbacks.add(1);
            self.positional.submit(request);
        }
    }

    /// Why threads have no rings of their own, if the last attempt to build one has failed.
    pub(crate) fn refusal(&self) -> Option<String> {
        lock(&self.refusal).as_ref().map(|refusal| refusal.reason.clone())
    }
}
