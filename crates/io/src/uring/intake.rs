//! The way into a ring's thread: bounded lanes of batches, one per class.
//!
//! Classes have lanes of their own so that a full lane of writes holds up no read. A lane carries
//! batches of one class; a mixed batch is split. I/O threads, which must not wait for room, use a
//! side door whose length is bounded by the operations whose completions they are running.
//!
//! Guarantee: what `submit` took in before the close is seen by the thread before it ends: the gate
//! counts submitters inside, and the thread ends only when it is closed and empty.
//! Ordering: the gate is one atomic word; lanes are lock-free queues; `room` is a plain mutex and
//! condition for submitters that wait, with the fences named where they stand.
//! Checked by the loom models `intake` and `driver`, with planted bugs.

use std::collections::VecDeque;

use super::wake::Wake;
use crate::batch::Batch;
use crate::planted::planted;
use crate::request::{Class, Request};
use crate::stats::Counters;
use crate::sync::{ArrayQueue, AtomicUsize, Condvar, Mutex, Ordering, fence, lock, wait};
use crate::threads;

/// Batches that one lane holds.
const LANE_BATCHES: usize = if cfg!(loom) { 1 } else { 256 };

/// The gate's bit for "closed"; the bits below count submitters inside.
const CLOSED: usize = 1 << (usize::BITS - 1);

pub(super) struct Intake {
    gate: AtomicUsize,
    lanes: [ArrayQueue<Batch>; 3],
    side_door: Mutex<VecDeque<Request>>,
    room: Mutex<()>,
    room_made: Condvar,
    waiting: AtomicUsize,
    wake: Wake,
}

impl Intake {
    pub(super) fn new(wake: Wake) -> Self {
        Self {
            gate: AtomicUsize::new(0),
            lanes: std::array::from_fn(|_| ArrayQueue::new(LANE_BATCHES)),
            side_door: Mutex::new(VecDeque::new()),
            room: Mutex::new(()),
            room_made: Condvar::new(),
            waiting: AtomicUsize::new(0),
            wake,
        }
    }

    pub(super) fn wake(&self) -> &Wake {
        &self.wake
    }

    /// Takes in a batch; gives it back when the gate is closed.
    pub(super) fn submit(&self, batch: impl Into<Batch>, counters: &Counters) -> Option<Batch> {
        let batch = batch.into();
        if batch.as_slice().is_empty() {
            return None;
        }
        // Relaxed: entering and closing are changes of one word, so they have an order; what this
        // submitter publishes is ordered by its leaving.
        let entered = self.gate.fetch_add(1, Ordering::Relaxed);
        if entered & CLOSED != 0 && !planted("gate_unchecked") {
            self.leave(counters);
            return Some(batch);
        }
        if threads::is_io_thread() {
            lock(&self.side_door).extend(batch);
        } else {
            self.push_by_class(batch, counters);
        }
        self.rouse(counters);
        self.leave(counters);
        None
    }

    /// Wakes the thread if it sleeps, and counts that.
    pub(super) fn rouse(&self, counters: &Counters) {
        if self.wake.wake() {
            counters.ring_wakes.add(1);
        }
    }

    /// Lets nobody in from now on.
    pub(super) fn close(&self, counters: &Counters) {
        // Relaxed: closing publishes nothing but itself, and `wake` has the fence.
        self.gate.fetch_or(CLOSED, Ordering::Relaxed);
        self.rouse(counters);
    }

    pub(super) fn is_closed(&self) -> bool {
        // Relaxed: nothing is read on the strength of it.
        self.gate.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Whether nothing is here and nothing can come any more.
    pub(super) fn is_over(&self) -> bool {
        // The gate first. Acquire pairs with the Release of `leave`, through the changes of other
        // submitters too: what was pushed by those who have left is then visible in the lanes.
        let order = if planted("over_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
        self.gate.load(order) == CLOSED && self.is_empty()
    }

    /// For the thread, with something in flight: enters the kernel, and tells `enter` whether it
    /// may sleep there. It may when there is nothing to take for the given classes.
    pub(super) fn rest<T>(&self, room: [bool; 3], enter: impl FnOnce(bool) -> T) -> T {
        self.wake.announce_ring();
        // After the announcement: whoever publishes something that is not seen here wakes.
        let outcome = enter(!self.offers(room) || planted("rest_unchecked"));
        self.wake.awake();
        outcome
    }

    /// For the thread, with nothing in flight: sleeps until there is something to take, or nothing
    /// can come any more.
    pub(super) fn park(&self) {
        self.wake.park_unless(|| self.offers([true; 3]) || self.is_over());
    }

    /// Whether there is anything that a thread with room for the given classes could take.
    fn offers(&self, room: [bool; 3]) -> bool {
        let lane_offers = |class: Class| room[class as usize] && !self.lane(class).is_empty();
        Class::ALL.into_iter().any(lane_offers) || !lock(&self.side_door).is_empty()
    }

    /// For the thread: the next batch of a class.
    pub(super) fn pop(&self, class: Class) -> Option<Batch> {
        let batch = self.lane(class).pop()?;
        // Pairs with the fence in `push`: a waiter saw this lane full, or is seen waiting here.
        if !planted("room_unfenced") {
            fence(Ordering::SeqCst);
        }
        if self.waiting.load(Ordering::Relaxed) > 0 {
            drop(lock(&self.room));
            self.room_made.notify_all();
        }
        Some(batch)
    }

    /// For the thread: what other I/O threads, or its own completions, have left.
    pub(super) fn pop_side_door(&self) -> VecDeque<Request> {
        std::mem::take(&mut *lock(&self.side_door))
    }

    /// Splits a batch by class if it must; usually it has only one.
    fn push_by_class(&self, batch: Batch, counters: &Counters) {
        let first = batch.as_slice()[0].operation.class();
        if batch.as_slice().iter().all(|request| request.operation.class() == first) {
            return self.push(first, batch, counters);
        }
        let mut split = Class::ALL.map(|class| (class, Vec::new()));
        for request in batch {
            split[request.operation.class() as usize].1.push(request);
        }
        for (class, batch) in split {
            if !batch.is_empty() {
                self.push(class, batch.into(), counters);
            }
        }
    }

    fn push(&self, class: Class, batch: Batch, counters: &Counters) {
        let Err(mut batch) = self.lane(class).push(batch) else { return };
        counters.submit_waits.add(1);
        let mut room = lock(&self.room);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `pop`.
        fence(Ordering::SeqCst);
        while let Err(refused) = self.lane(class).push(batch) {
            batch = refused;
            self.rouse(counters);
            room = wait(&self.room_made, room);
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        drop(room);
    }

    fn leave(&self, counters: &Counters) {
        // Release: see `is_over`.
        let last = self.gate.fetch_sub(1, Ordering::Release) == CLOSED + 1;
        if last && !planted("leave_silent") {
            // The thread may have looked while this submitter was inside.
            self.rouse(counters);
        }
    }

    fn is_empty(&self) -> bool {
        self.lanes.iter().all(ArrayQueue::is_empty) && lock(&self.side_door).is_empty()
    }

    fn lane(&self, class: Class) -> &ArrayQueue<Batch> {
        &self.lanes[class as usize]
    }
}
