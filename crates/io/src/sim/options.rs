//! How a simulated disk behaves: seed, latencies, faults, and when it crashes.

use std::time::Duration;

use super::fault::FaultPlan;
use super::machine::SimClock;

/// How a simulated disk behaves.
#[derive(Debug, Clone)]
pub struct SimOptions {
    pub(super) seed: u64,
    pub(super) clock: SimClock,
    pub(super) latency_max: Duration,
    pub(super) direct: Option<u32>,
    pub(super) capacity: Option<u64>,
    pub(super) faults: FaultPlan,
    pub(super) crash_after: Option<u64>,
    pub(super) write_through: bool,
    pub(super) immediate: bool,
    pub(super) keep_events: bool,
}

impl SimOptions {
    /// A disk whose chances follow from this seed: latencies up to 200 us, direct I/O aligned to
    /// 4096, no limit on space, no faults.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            clock: SimClock::default(),
            latency_max: Duration::from_micros(200),
            direct: Some(4096),
            capacity: None,
            faults: FaultPlan::new(),
            crash_after: None,
            write_through: false,
            immediate: false,
            keep_events: false,
        }
    }

    /// The clock to use. Default: one of its own.
    #[must_use]
    pub fn clock(mut self, clock: SimClock) -> Self {
        self.clock = clock;
        self
    }

    /// The longest that a system call takes; each takes a random time up to it.
    #[must_use]
    pub fn latency_max(mut self, latency: Duration) -> Self {
        self.latency_max = latency;
        self
    }

    /// What direct transfers must be aligned to, a power of two up to 4096; none where files are
    /// always buffered.
    #[must_use]
    pub fn direct(mut self, alignment: Option<u32>) -> Self {
        self.direct = alignment;
        self
    }

    /// A device without a volatile cache: a direct write over bytes that are durable already is
    /// durable when it completes. One that makes the file longer or fills a hole needs a sync as
    /// ever, since the file system has something to write as well; a durable write
    /// ([`crate::Operation::WriteSynced`]) is then one call.
    #[must_use]
    pub fn write_through(mut self) -> Self {
        self.write_through = true;
        self
    }

    /// How many bytes files may take together, in blocks of 4096.
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// What is to go wrong.
    #[must_use]
    pub fn faults(mut self, plan: FaultPlan) -> Self {
        self.faults = plan;
        self
    }

    /// Crashes before the change that comes after this many (see
    /// [`changes`](super::SimDisk::changes)).
    #[must_use]
    pub fn crash_after(mut self, changes: u64) -> Self {
        self.crash_after = Some(changes);
        self
    }

    /// Every call is served before it returns. No two operations are in flight together then,
    /// except those of one batch.
    #[must_use]
    pub fn immediate(mut self) -> Self {
        self.immediate = true;
        self
    }

    /// Keeps every event for [`events`](super::SimDisk::events), not only their hash.
    #[must_use]
    pub fn keep_events(mut self) -> Self {
        self.keep_events = true;
        self
    }
}
