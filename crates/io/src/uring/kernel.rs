//! What a ring's thread asks of the kernel, so that tests can put another in its place.
//!
//! [`Ring`](super::ring::Ring) is the real one. The scripted one of the tests performs the same
//! operations with results, an order and refusals that a healthy kernel does not give on demand;
//! that of the loom models has no files at all.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::fixed::Offer;
use super::flight::Flight;

/// One completion: token and raw result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reaped {
    pub(super) token: u64,
    pub(super) result: i32,
}

/// A pair of queues: operations in, completions out. Used by one thread.
///
/// Who calls it keeps every pushed flight in its slot of the table until the token's completion was
/// reaped, or for ever.
pub(super) trait Kernel {
    /// How many operations may be queued at once, the wake-up included.
    fn entries(&self) -> u32;

    /// Registers what of the offers is not registered, and takes off what is offered no more. An
    /// error is why something could not be; everything works without it. A kernel without
    /// registered buffers ignores them.
    fn register(&mut self, offers: &[Arc<Offer>]) -> Result<(), String> {
        let _ = offers;
        Ok(())
    }

    /// Whether completions come only while somebody is inside `enter`, which asks the device for
    /// them. Such a kernel takes direct transfers only, and no read of an event.
    fn polls_completions(&self) -> bool {
        false
    }

    /// How many bytes are registered.
    fn registered_bytes(&self) -> u64 {
        0
    }

    /// Queues the flight's next piece, and notes in it whether that is registered. False when the
    /// submission queue is full.
    fn push(&mut self, token: u64, flight: &mut Flight) -> bool;

    /// Queues the read of the event that ends a sleep, unless it is queued already.
    fn arm_wake(&mut self, event: &Event);

    /// The event was read.
    fn wake_fired(&mut self);

    /// Whether the read of the event is queued or in flight.
    fn is_wake_armed(&self) -> bool;

    /// Hands queued operations over and waits for at least `completions` completions, or until the
    /// time is up (an error with ETIME).
    fn enter(&mut self, completions: u32, timeout: Option<Duration>) -> io::Result<()>;

    /// Moves completions to `reaped`, at most so many. False when one is lost for good.
    fn reap(&mut self, reaped: &mut Vec<Reaped>, most: usize) -> bool;

    /// Whether there are completions that a reap would move.
    fn has_completions(&mut self) -> bool;

    /// Whether somebody has to enter for what is queued to start.
    fn needs_enters(&self) -> bool {
        true
    }

    /// Whether completions wait elsewhere because the queue was full.
    fn has_overflow(&mut self) -> bool;

    /// Tokens of operations that were never handed over. For a kernel that is not entered again.
    fn take_unsubmitted(&mut self) -> VecDeque<u64>;

    /// Gives everything back to the system. Without this call it is leaked, which is what must
    /// happen while something may still be completed.
    fn release(self);
}
