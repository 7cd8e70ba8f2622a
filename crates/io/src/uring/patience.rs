//! How long a driver puts up with a kernel from which nothing comes.
//!
//! Guarantee: the time runs from the first moment of a silence to its end, however often the wait
//! is interrupted in between: a storm of signals does not restart it.
//! Reads the clock only while there is a silence, which is at a drain or when the kernel is short
//! of memory; never for a transfer.
//! Tested with a scripted kernel in `tests/silence.rs`.

use std::time::{Duration, Instant};

/// Refusals after which it is not the scheduler's turn that the kernel needs, but time.
const YIELDS: u32 = 100;

/// Between two attempts from then on.
const PAUSE: Duration = Duration::from_millis(1);

pub(super) struct Patience {
    limit: Duration,
    since: Option<Instant>,
    pauses: u32,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, since: None, pauses: 0 }
    }

    /// What is left of the time, which begins to run if it does not run yet.
    pub(super) fn left(&mut self) -> Duration {
        let since = *self.since.get_or_insert_with(now);
        self.limit.saturating_sub(now().saturating_duration_since(since))
    }

    /// Whether the time has begun to run and is up.
    pub(super) fn is_over(&mut self) -> bool {
        self.since.is_some() && self.left() == Duration::ZERO
    }

    /// The silence has ended.
    pub(super) fn renew(&mut self) {
        (self.since, self.pauses) = (None, 0);
    }

    /// Gives the kernel time before it is asked again.
    #[expect(
        clippy::disallowed_methods,
        reason = "there is no event for memory that the kernel lacks, and a park could take a \
                  wake-up that was meant for the caller's own"
    )]
    pub(super) fn pause(&mut self) {
        if self.pauses < YIELDS {
            self.pauses += 1;
            std::thread::yield_now();
        } else {
            std::thread::sleep(PAUSE);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a ring is of a real machine, with real time")]
fn now() -> Instant {
    Instant::now()
}
