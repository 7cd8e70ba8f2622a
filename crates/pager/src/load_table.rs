//! Single flight: the loads that are running, by page, and those who wait for each.
//!
//! A page is loaded by one `Load` at a time. Under the lock of the page's shard a getter either
//! joins the running load, or sees the page resident (the table entry is set under the same lock
//! before the load leaves it), or starts the only load. Hits never come here.
//!
//! A waiter that joins is counted; when the load succeeds, the frame becomes resident with one pin
//! for each of them, so no waiter can lose the page before it is polled. A waiter that is dropped
//! is uncounted, or drops the pin it was given.
//! Lock order: shard, then cell. Wakers run after both are released.
//! Checked by the loom models `single_flight` and `whole_path`.

use std::collections::HashMap;
use std::task::{Context, Poll, Waker};

use nephrite_io::wake_later;

use crate::error::LoadError;
use crate::frame::Owner;
use crate::guard::FramePin;
use crate::shared::shard_of;
use crate::sync::{Arc, Mutex, MutexGuard, lock};

const SHARDS: usize = if cfg!(loom) { 1 } else { 32 };

type Shard = HashMap<Owner, Arc<LoadCell>>;

/// The running loads of one cache.
#[derive(Debug)]
pub(crate) struct LoadTable {
    shards: Box<[Mutex<Shard>]>,
}

impl LoadTable {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::new(Shard::new())).collect() }
    }

    /// Locks the loads of the shard that `owner` belongs to.
    pub(crate) fn shard(&self, owner: Owner) -> MutexGuard<'_, Shard> {
        lock(&self.shards[shard_of(owner, self.shards.len())])
    }
}

/// One running load and its waiters.
#[derive(Debug)]
pub(crate) struct LoadCell {
    progress: Mutex<Progress>,
}

#[derive(Debug)]
enum Progress {
    Loading(Vec<Waiter>),
    /// Each waiter still there owns a pin of the frame.
    Ready(FramePin),
    Failed(LoadError),
}

#[derive(Debug)]
enum Waiter {
    Waiting(Option<Waker>),
    Gone,
}

/// Those to wake after a load has ended. Wakes when dropped: drop it after every lock.
#[derive(Debug)]
#[must_use = "the waiters sleep until this is dropped"]
pub(crate) struct Wakers(Vec<Waiter>);

impl LoadCell {
    pub(crate) fn new() -> Self {
        Self { progress: Mutex::new(Progress::Loading(Vec::new())) }
    }

    /// Counts a waiter in; returns its place. The caller holds the shard's lock or the `Load`, so
    /// the load is running.
    pub(crate) fn join(&self) -> usize {
        match &mut *lock(&self.progress) {
            Progress::Loading(waiters) => {
                waiters.push(Waiter::Waiting(None));
                waiters.len() - 1
            }
            ended => panic!("joined a load that had ended: {ended:?}"),
        }
    }

    /// Asks for the outcome. `Ready(Ok)` hands over the waiter's pin: it must not ask again.
    pub(crate) fn poll(
        &self,
        place: usize,
        context: &Context<'_>,
    ) -> Poll<Result<FramePin, LoadError>> {
        // Cloned before and dropped after the lock: both may run code of the waker's owner.
        let mut waker = Some(context.waker().clone());
        match &mut *lock(&self.progress) {
            Progress::Loading(waiters) => {
                let Waiter::Waiting(known) = &mut waiters[place] else {
                    panic!("waiter {place} polled after it was dropped");
                };
                std::mem::swap(known, &mut waker);
                Poll::Pending
            }
            Progress::Ready(pin) => Poll::Ready(Ok(*pin)),
            Progress::Failed(error) => Poll::Ready(Err(error.clone())),
        }
    }

    /// Counts a waiter out that was not answered; returns the pin that it now has to drop, if any.
    pub(crate) fn leave(&self, place: usize) -> Option<FramePin> {
        // Dropped after the lock, as its waker may run code of its owner.
        let mut waiter = Waiter::Gone;
        match &mut *lock(&self.progress) {
            Progress::Loading(waiters) => {
                std::mem::swap(&mut waiters[place], &mut waiter);
                None
            }
            Progress::Ready(pin) => Some(*pin),
            Progress::Failed(_) => None,
        }
    }

    /// Ends the load with a page: `publish` makes the frame resident with a pin for each of so many
    /// waiters. Waiters come and go before or after, not meanwhile.
    pub(crate) fn succeed(&self, pin: FramePin, publish: impl FnOnce(u32)) -> Wakers {
        let mut progress = lock(&self.progress);
        let waiters = progress.end(Progress::Ready(pin));
        let waiting = waiters.iter().filter(|waiter| matches!(waiter, Waiter::Waiting(_))).count();
        publish(u32::try_from(waiting).expect("each waiter is an object in memory"));
        Wakers(waiters)
    }

    /// Ends the load without a page.
    pub(crate) fn fail(&self, error: LoadError) -> Wakers {
        Wakers(lock(&self.progress).end(Progress::Failed(error)))
    }
}

impl Progress {
    fn end(&mut self, outcome: Self) -> Vec<Waiter> {
        match std::mem::replace(self, outcome) {
            Self::Loading(waiters) => waiters,
            ended => panic!("a load ended twice: {ended:?}"),
        }
    }
}

impl Drop for Wakers {
    fn drop(&mut self) {
        for waiter in self.0.drain(..) {
            if let Waiter::Waiting(Some(waker)) = waiter {
                // Many loads of one task often end together.
                wake_later(waker);
            }
        }
    }
}
