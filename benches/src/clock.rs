//! The one place of this program that reads the clocks: wall time, and processor time.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A point in time to measure from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures wall time")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::start().0.saturating_duration_since(self.0)
    }

    pub(crate) fn seconds(self) -> f64 {
        self.elapsed().as_secs_f64()
    }

    /// Whole nanoseconds, for histograms.
    pub(crate) fn nanoseconds(self) -> u64 {
        u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whole microseconds, for histograms.
    pub(crate) fn microseconds(self) -> u64 {
        u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// CPU time of all threads of this process, in user and kernel mode.
pub(crate) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Processor time of the calling thread: what a loop costs, however much else runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadWatch(Duration);

impl ThreadWatch {
    pub(crate) fn start() -> Self {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Self(Duration::try_from(now).unwrap_or_default()) // no thread has run for less than nothing
    }

    pub(crate) fn seconds(self) -> f64 {
        Self::start().0.saturating_sub(self.0).as_secs_f64()
    }
}
