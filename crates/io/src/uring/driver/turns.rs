//! A driver whose rounds are taken by the thread that submits, when it likes.
//!
//! The rounds are those of a ring's thread: issue, enter, reap, tell. Only the sleep is the
//! caller's: it says whether it may, and for how long. See `caller` for what else holds there.
//! Nothing is handed to another thread, so that what is queued starts sooner: see [`PAIR`].
//! Tested in `uring/tests/silence.rs`, `uring/tests/rounds.rs` and `tests/it/caller_ring.rs`.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::{Driver, DriverContext, End};
use crate::request::{Class, Request};
use crate::uring::kernel::Kernel;

/// Two at once is the most that the kernel starts one by one, without holding them back.
const PAIR: u32 = 2;

/// How a caller's round ended.
pub(in crate::uring) enum Turn {
    Taken,
    /// The ring is no more. Every request that was here has ended or was passed on.
    Over {
        /// How many operations the kernel kept.
        stuck: usize,
    },
}

impl<K: Kernel> Driver<K> {
    /// One that hands over in pairs while few are in flight.
    pub(in crate::uring) fn of_caller(context: DriverContext, ring: K) -> Self {
        Self { start_every: PAIR, ..Self::new(context, ring) }
    }

    /// One round for a caller that drives the ring itself: issues what is queued, submits it,
    /// sleeps until something completes if `may_sleep` says so, and tells.
    ///
    /// At most so many completions are told as `most` says; the rest is for the next round, which
    /// does not sleep then.
    pub(in crate::uring) fn turn(
        &mut self,
        limit: Option<Duration>,
        most: usize,
        may_sleep: impl Fn() -> bool,
    ) -> Turn {
        self.issue();
        let draining = self.context.intake.is_closed();
        let entered = self.enter_as_caller(draining, limit, may_sleep);
        let Some(end) = self.digest(entered, draining && limit.is_none(), most) else {
            return Turn::Taken;
        };
        self.tell();
        let stuck = match end {
            End::Lost(reason) => self.lose(reason),
            End::Stuck | End::Drained => self.abandon("the drain timeout passed"),
        };
        for class in Class::ALL {
            for request in std::mem::take(&mut self.backlog[class as usize]) {
                self.forward(request);
            }
        }
        Turn::Over { stuck }
    }

    /// Hands over what is queued, and leaves what has ended for the next round.
    pub(in crate::uring) fn start(&mut self) {
        self.issue();
        if 0 < self.queued && self.refused.is_none() && self.ring.needs_enters() {
            self.queued = 0;
            self.context.counters.ring_enters.add(1);
            self.refused = self.ring.enter(0, None).err();
        }
    }

    fn enter_as_caller(
        &mut self,
        draining: bool,
        limit: Option<Duration>,
        may_sleep: impl Fn() -> bool,
    ) -> io::Result<()> {
        let queued = std::mem::take(&mut self.queued);
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        let is_idle = self.table.len() == 0;
        let more_to_tell = self.ring.has_completions();
        if is_idle && !self.ring.is_wake_armed() || more_to_tell && queued == 0 {
            return Ok(());
        }
        self.context.counters.ring_enters.add(1);
        if is_idle || more_to_tell || !self.resumed.is_empty() || !may_sleep() {
            return self.ring.enter(0, None);
        }
        let intake = &self.context.intake;
        self.ring.arm_wake(intake.wake().event());
        intake.wake().announce_ring();
        // After the announcement: whoever sets something that is not seen here wakes.
        let outcome = if may_sleep() && intake.is_closed() == draining {
            let silence = &mut self.silence;
            let limit = limit.or_else(|| draining.then(|| silence.left()));
            self.ring.enter(1, limit)
        } else {
            self.ring.enter(0, None)
        };
        intake.wake().awake();
        outcome
    }

    /// Takes in requests of the thread that drives this ring.
    pub(in crate::uring) fn adopt(&mut self, requests: Vec<Request>) {
        for request in requests {
            self.backlog[request.operation.class() as usize].push_back(request);
        }
    }

    /// How many requests wait for an entry or are in flight.
    pub(in crate::uring) fn load(&self) -> usize {
        self.table.len() + self.backlog.iter().map(VecDeque::len).sum::<usize>()
    }

    /// Takes back the ring of a driver without load. What the kernel keeps is leaked.
    pub(in crate::uring) fn retire(self) {
        assert_eq!(self.load(), 0, "a ring is retired only when nothing is in flight");
        self.disarm();
    }
}
