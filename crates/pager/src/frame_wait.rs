//! Waiting for a frame or for room in the pin budget, off the path of hits.
//!
//! A getter that finds everything pinned *arms* the waiters, marks every frame as wanted, looks
//! once more, and only then waits. Whoever makes room afterwards finds either the mark in the state
//! word it is just changing, or `armed`, and *notifies*: all waiters wake and try again.
//!
//! Guarantee: no lost wake-up. Arming and notifying change `armed` and the epoch under one lock.
//! Room that appears with the last unpin is announced by the mark in the frame's own word (one
//! atomic, so there is an order). Room that appears in the budget or the free lists is announced
//! after a SeqCst fence ([`FrameWaiters::announce`]); the getter has such a fence between arming
//! and its last look, so one of the two sees the other.
//! Does not: queue fairly. Waiters race with new getters.
//! Cancel safety: a dropped [`FrameWait`] removes its waker.
//! Checked by the loom model `frame_wait`, with the mark left out as planted bug.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::sync::{Arc, AtomicBool, Mutex, Ordering, fence, lock};

/// Those who wait for a frame of one cache.
#[derive(Debug)]
pub(crate) struct FrameWaiters {
    armed: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    epoch: u64,
    next_ticket: u64,
    wakers: HashMap<u64, Waker>,
}

impl FrameWaiters {
    pub(crate) fn new() -> Self {
        Self { armed: AtomicBool::new(false), queue: Mutex::new(Queue::default()) }
    }

    /// Asks for notice of all room that appears from now on. The wait is over at the next notice.
    pub(crate) fn arm(this: &Arc<Self>) -> FrameWait {
        let epoch = {
            let queue = lock(&this.queue);
            this.armed.store(true, Ordering::Relaxed);
            queue.epoch
        };
        // Pairs with the fence in `announce`.
        fence(Ordering::SeqCst);
        FrameWait { waiters: Arc::clone(this), epoch, ticket: None }
    }

    /// Tells about room that the caller has just made in the budget or in the free lists.
    pub(crate) fn announce(&self) {
        // Pairs with the fence in `arm`: either the getter's last look sees the room, or this load
        // sees that it has armed.
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) {
            self.notify();
        }
    }

    /// Wakes everybody who waits. Runs wakers: call it with no lock held.
    pub(crate) fn notify(&self) {
        let wakers = {
            let mut queue = lock(&self.queue);
            queue.epoch += 1;
            self.armed.store(false, Ordering::Relaxed);
            std::mem::take(&mut queue.wakers)
        };
        for waker in wakers.into_values() {
            waker.wake();
        }
    }
}

/// Resolves when a frame or a pin may be available; then look the page up again.
///
/// It may resolve although others were faster; the next look-up then answers with a new wait.
///
/// # Cancel safety
///
/// May be dropped at any time. Holds no page and no place in a queue.
#[derive(Debug)]
#[must_use = "a wait does nothing unless awaited"]
pub struct FrameWait {
    waiters: Arc<FrameWaiters>,
    epoch: u64,
    ticket: Option<u64>,
}

impl Future for FrameWait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // Cloned before and dropped after the lock: both may run code of the waker's owner.
        let waker = context.waker().clone();
        let mut queue = lock(&this.waiters.queue);
        if queue.epoch != this.epoch {
            drop(queue);
            return Poll::Ready(());
        }
        let ticket = *this.ticket.get_or_insert_with(|| {
            queue.next_ticket += 1;
            queue.next_ticket
        });
        let replaced = queue.wakers.insert(ticket, waker);
        drop(queue);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for FrameWait {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            // The waker is dropped after the lock: dropping one may run its owner's code.
            let waker = lock(&self.waiters.queue).wakers.remove(&ticket);
            drop(waker);
        }
    }
}
