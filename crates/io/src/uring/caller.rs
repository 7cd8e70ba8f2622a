//! A ring that the thread which submits drives itself: no other thread, no hand-off, no wake-up.
//!
//! ```text
//! submit -> inbox -> turn: issue, enter (sleep if asked to), reap, tell -> the next turn
//!              (of eight, or of a large one: issue, enter)
//! ```
//!
//! It is the same driver, table and budget as on the ring threads; only who calls it differs.
//! While it takes a turn, and while a future is polled in [`CallerCore::run`], the disk's `submit`
//! on this thread leads here.
//!
//! Guarantees:
//! - A thread comes back from `run` only when nothing of it is in flight, also by a panic: the
//!   kernel cancels operations of threads that end, and loads that others wait for must not lie
//!   with a thread that is away in its caller's code.
//! - While the thread sleeps in the ring or parks, a waker of its future wakes it; while it is
//!   awake, a waker costs no system call (`notify`).
//! - A sync, alone in the ring, is a plain system call of this thread: in the ring it would go to a
//!   worker thread of the kernel. So is a read, alone, of what the system has in its cache.
//! - When the ring is lost, requests go to the positional threads, as on ring threads.
//! - A forked child finds the ring's memory gone and does not touch it.
//!
//! Does not: limit how long a caller waits for its device, except when the disk is being shut down.
//! Tested in `tests/it/caller_ring.rs`.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::os::fd::RawFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::callers::Callers;
use super::driver::{Driver, DriverContext, Turn};
use super::intake::Intake;
use super::latch::EndLatch;
use super::notify::Notify;
use super::ring::Ring;
use super::wake::Wake;
use crate::batch::Batch;
use crate::completion::block_on;
use crate::file::FileHandle;
use crate::fork;
use crate::request::{Class, IoBuffer, Operation, Request};
use crate::threads;

thread_local! {
    /// The rings of this thread's blocking calls, one per disk.
    static RINGS: RefCell<Vec<Rc<CallerCore>>> = const { RefCell::new(Vec::new()) };
    /// Where submissions of this thread go.
    static CURRENT: RefCell<Option<Rc<CallerCore>>> = const { RefCell::new(None) };
}

/// Completions that are told before the future is polled, so that what it then submits starts while
/// the device still works: the other half of the driver's early starts.
const TOLD_AT_ONCE: usize = 8;

/// Requests that are started when they are submitted, not when their caller waits.
const STARTED_AT_ONCE: usize = 8;

/// A transfer past the system's cache that is started when it is submitted, whatever else there is:
/// the device takes so much longer for it than a system call does that its caller, who may have
/// something else to do for long, should not hold it up.
const LARGE_BYTES: usize = 128 << 10;

pub(crate) struct CallerCore {
    callers: Arc<Callers>,
    intake: Arc<Intake>,
    /// None once the ring is lost.
    driver: RefCell<Option<Driver>>,
    inbox: RefCell<Vec<Request>>,
    load_max: usize,
    busy: Cell<bool>,
    descriptor: RawFd,
    /// The waker of the outermost `run`, kept for the next one.
    notify: Cell<Option<Arc<Notify>>>,
    process: u32,
}

impl CallerCore {
    pub(super) fn new(callers: Arc<Callers>, ring: Ring) -> Result<Rc<Self>, String> {
        let wake = Wake::new().map_err(|error| super::setup::explain(&error))?;
        let intake = Arc::new(Intake::new(wake));
        callers.register(&intake);
        let (descriptor, load_max) = (ring.descriptor(), 4 * ring.facts().entries as usize);
        let context = DriverContext {
            intake: Arc::clone(&intake),
            counters: Arc::clone(&callers.counters),
            positional: Arc::clone(&callers.positional),
            degraded: Arc::clone(&callers.degraded),
            // The driver's own: an idle ring holds up no shutdown, see `callers`.
            ends: Arc::new(EndLatch::new()),
            drain_timeout: callers.drain_timeout,
            // Rings of callers register nothing.
            offers: Arc::default(),
        };
        Ok(Rc::new(Self {
            callers,
            intake,
            driver: RefCell::new(Some(Driver::of_caller(context, ring))),
            inbox: RefCell::default(),
            load_max,
            busy: Cell::new(false),
            descriptor,
            notify: Cell::new(None),
            process: fork::generation(),
        }))
    }

    /// The calling thread's ring for blocking calls on this disk.
    pub(super) fn of_thread(callers: &Arc<Callers>) -> Option<Rc<Self>> {
        // A thread that is ending has no such place any more.
        RINGS
            .try_with(|rings| {
                let known = |core: &&Rc<Self>| Arc::ptr_eq(&core.callers, callers);
                if let Some(core) = rings.borrow().iter().find(known) {
                    return core.is_alive().then(|| Rc::clone(core));
                }
                // Other threads may have closed disks that this one has rings of.
                forget_closed();
                let core = callers.build_for_thread()?;
                rings.borrow_mut().push(Rc::clone(&core));
                Some(core)
            })
            .ok()
            .flatten()
    }

    /// Carries out a read of cached bytes if the calling thread drives an idle ring of this disk.
    pub(super) fn read_at_once(
        callers: &Callers,
        file: &FileHandle,
        offset: u64,
        buffer: &mut IoBuffer,
    ) -> bool {
        let idle = CURRENT.try_with(|current| match &*current.borrow() {
            Some(core) => std::ptr::eq(&*core.callers, callers) && core.is_idle(),
            None => false,
        });
        // Busy meanwhile, so that a shutdown waits for it.
        if !idle.unwrap_or(false) || !callers.enter() {
            return false;
        }
        let is_read = callers.positional.read_at_once(file, offset, buffer);
        callers.leave(0);
        if is_read {
            callers.counters.submitted.add(1);
            callers.counters.caller_driven.add(1);
            callers.counters.delivered.add(1);
        }
        is_read
    }

    /// Whether the ring is there and has nothing queued or in flight; not in a turn.
    fn is_idle(&self) -> bool {
        self.process == fork::generation()
            && self.inbox.borrow().is_empty()
            && self.driver_is_idle()
    }

    fn driver_is_idle(&self) -> bool {
        let driver = self.driver.try_borrow();
        driver.is_ok_and(|driver| driver.as_ref().is_some_and(|driver| driver.load() == 0))
    }

    /// Takes in a batch if the calling thread is driving a ring of this disk; else gives it back.
    pub(super) fn offer(callers: &Callers, batch: Batch) -> Result<(), Batch> {
        let current = CURRENT.try_with(|current| match &*current.borrow() {
            Some(core) if std::ptr::eq(&*core.callers, callers) => Some(Rc::clone(core)),
            _ => None,
        });
        match current {
            Ok(Some(core)) => core.take_in(batch),
            _ => Err(batch),
        }
    }

    fn take_in(&self, batch: Batch) -> Result<(), Batch> {
        if !self.is_alive() || self.load_max <= self.load() {
            return Err(batch);
        }
        if batch.as_slice().is_empty() {
            return Ok(()); // busy with nothing, the ring would hold up a shutdown
        }
        if !self.busy.get() {
            if !self.callers.enter() {
                return Err(batch);
            }
            self.busy.set(true);
        }
        self.callers.counters.caller_driven.add(batch.as_slice().len() as u64);
        let is_large = batch.as_slice().iter().any(is_large);
        let mut inbox = self.inbox.borrow_mut();
        inbox.extend(batch);
        let many = STARTED_AT_ONCE <= inbox.len();
        drop(inbox);
        if many || is_large {
            self.start();
        }
        Ok(())
    }

    /// Lets the device begin with what is queued while the caller prepares more. No completion
    /// runs inside a submission but those of requests that are refused or empty.
    fn start(&self) {
        // Borrowed during a turn, which starts them itself.
        let Ok(mut slot) = self.driver.try_borrow_mut() else { return };
        let Some(driver) = slot.as_mut() else { return };
        let _mark = threads::IoThreadMark::set();
        driver.adopt(self.inbox.take());
        driver.start();
        drop(slot);
        // All of them may have been refused.
        self.settle(0);
    }

    /// How much is queued or in flight.
    pub(super) fn load(&self) -> usize {
        // Borrowed during a turn: then only the inbox can be looked at.
        let driver = self.driver.try_borrow();
        let load = driver.map_or(0, |driver| driver.as_ref().map_or(0, Driver::load));
        load + self.inbox.borrow().len()
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.descriptor
    }

    fn is_alive(&self) -> bool {
        self.process == fork::generation()
            && self.driver.try_borrow().is_ok_and(|driver| driver.is_some())
            || self.is_in_turn()
    }

    fn is_in_turn(&self) -> bool {
        self.driver.try_borrow_mut().is_err()
    }

    /// Runs `work` with this thread's submissions leading here.
    pub(super) fn during<T>(self: &Rc<Self>, work: impl FnOnce() -> T) -> T {
        let _visit = Visit::enter(self, false);
        work()
    }

    /// One round; sleeps in the kernel until something completes, if there is something in flight
    /// and `may_sleep` says so.
    pub(super) fn turn(self: &Rc<Self>, limit: Option<Duration>, may_sleep: impl Fn() -> bool) {
        let _visit = Visit::enter(self, false);
        self.round(limit, usize::MAX, may_sleep);
    }

    /// A turn by itself, for when this thread's submissions lead here already.
    fn round(&self, limit: Option<Duration>, most: usize, may_sleep: impl Fn() -> bool) {
        let _mark = threads::IoThreadMark::set();
        if self.process != fork::generation() {
            return self.disown();
        }
        if self.run_alone() {
            return self.settle(0);
        }
        let Ok(mut slot) = self.driver.try_borrow_mut() else { return };
        let Some(driver) = slot.as_mut() else {
            drop(slot);
            return self.settle(0);
        };
        driver.adopt(self.inbox.take());
        let turn = driver.turn(limit, most, may_sleep);
        let mut stuck_count = 0;
        if let Turn::Over { stuck } = turn {
            stuck_count = stuck;
            *slot = None;
        }
        drop(slot);
        self.settle(stuck_count);
    }

    /// In a forked child: what is queued and in flight is the parent's to carry out. Here it is
    /// dropped, and its waiters learn of that; the ring itself is leaked.
    fn disown(&self) {
        let driver = self.driver.try_borrow_mut().ok().and_then(|mut slot| slot.take());
        let queued = self.inbox.take();
        drop((driver, queued));
    }

    /// A request without company that needs no ring: a sync is a system call of this thread
    /// instead of a hop to a kernel worker, and a read of a buffered file is tried without a wait,
    /// which is cheaper than the ring where the system has the bytes in its cache.
    fn run_alone(&self) -> bool {
        let mut inbox = self.inbox.borrow_mut();
        let lone = inbox.len() == 1
            && match inbox[0].operation.class() {
                Class::Sync => true,
                Class::Read => !inbox[0].file.is_direct(),
                Class::Write => false,
            };
        if !lone || !self.driver_is_idle() {
            return false;
        }
        let request = inbox.pop().expect("there is one");
        drop(inbox);
        let positional = &self.callers.positional;
        if request.operation.class() == Class::Sync {
            positional.run_here(request);
            return true;
        }
        match positional.read_cached_here(request) {
            None => true,
            Some(request) => {
                self.inbox.borrow_mut().push(request);
                false
            }
        }
    }

    /// After a turn: the ring may no longer be busy, or no longer be.
    fn settle(&self, stuck: usize) {
        if self.driver.borrow().is_none() {
            self.callers.pass_on(self.inbox.take());
        }
        if self.busy.get() && self.load() == 0 {
            self.busy.set(false);
            self.callers.leave(stuck);
        }
    }

    /// Runs a future to its end on this thread.
    pub(super) fn run<T>(self: &Rc<Self>, future: impl Future<Output = T>) -> T {
        if self.is_in_turn() {
            // Inside a completion, which must not block; if it does all the same, not on the ring.
            return block_on(future);
        }
        let visit = Visit::enter(self, true);
        let notify = self.notify.take().unwrap_or_else(|| Arc::new(self.new_notify()));
        let waker = Waker::from(Arc::clone(&notify));
        let value = {
            let mut future = pin!(future);
            let mut context = Context::from_waker(&waker);
            loop {
                notify.begin_poll();
                if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                    break value;
                }
                while !notify.is_set() {
                    self.step(&notify);
                }
            }
        };
        drop(visit);
        self.notify.set(Some(notify));
        value
    }

    fn step(self: &Rc<Self>, notify: &Notify) {
        let is_set = || notify.is_set();
        if self.load() == 0 {
            self.intake.wake().park_unless(is_set);
        } else {
            let _visit = Visit::enter(self, false);
            self.round(None, TOLD_AT_ONCE, || !is_set());
        }
    }

    fn new_notify(&self) -> Notify {
        Notify::new(Arc::clone(&self.intake))
    }

    /// Waits for the end of everything in flight.
    fn drain(self: &Rc<Self>) {
        if self.load() == 0 {
            return;
        }
        // Not a visit of the usual kind: that one would drain the ring that is left for this one,
        // and it may be this one that is being drained on the way there.
        let _visit = Visit::beside(self);
        while 0 < self.load() && !self.is_in_turn() {
            self.round(None, usize::MAX, || true);
        }
    }
}

impl Drop for CallerCore {
    fn drop(&mut self) {
        let driver = self.driver.take();
        if self.process != fork::generation() {
            return;
        }
        if let Some(driver) = driver {
            driver.retire();
        }
        self.callers.forget_ring();
    }
}

fn is_large(request: &Request) -> bool {
    let (Operation::Read { buffer, .. } | Operation::Write { buffer, .. }) = &request.operation
    else {
        return false;
    };
    LARGE_BYTES <= buffer.len() && request.file.is_direct()
}

/// The time in which this thread's submissions lead to a ring.
struct Visit {
    core: Rc<CallerCore>,
    outer: Option<Rc<CallerCore>>,
    drains: bool,
}

impl Visit {
    /// `drains`: whether nothing may be in flight when the outermost such visit is over.
    fn enter(core: &Rc<CallerCore>, drains: bool) -> Self {
        let mut visit = Self::beside(core);
        let outer = visit.outer.as_ref();
        if let Some(outer) = outer.filter(|outer| !Rc::ptr_eq(outer, core)) {
            // This thread will sleep elsewhere: what it has in flight must not wait for that.
            outer.drain();
        }
        visit.drains = drains && !outer.is_some_and(|outer| Rc::ptr_eq(outer, core));
        visit
    }

    /// Leaves what is in flight on the ring that was current as it is.
    fn beside(core: &Rc<CallerCore>) -> Self {
        let outer = CURRENT.try_with(|current| current.replace(Some(Rc::clone(core))));
        Self { core: Rc::clone(core), outer: outer.ok().flatten(), drains: false }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.drains {
            self.core.drain();
        }
        let outer = self.outer.take();
        // A thread that is ending has no such place any more.
        let _ = CURRENT.try_with(|current| current.replace(outer));
        if self.drains && self.core.callers.is_closed() {
            forget_closed();
        }
    }
}

/// Gives back this thread's rings of disks that are closed.
fn forget_closed() {
    let closed = RINGS.try_with(|rings| {
        let mut rings = rings.borrow_mut();
        let (closed, open): (Vec<_>, Vec<_>) =
            rings.drain(..).partition(|core| core.callers.is_closed());
        *rings = open;
        closed
    });
    drop(closed);
}

/// Keeps a ring for a host that drives it, and drains it when the host lets it go.
pub(crate) struct Hosted {
    core: Rc<CallerCore>,
}

impl Hosted {
    pub(super) fn new(core: Rc<CallerCore>) -> Self {
        Self { core }
    }

    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.core.run(future)
    }

    pub(crate) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.core.during(work)
    }

    pub(crate) fn turn(&self, limit: Option<Duration>, may_sleep: bool) -> usize {
        // Also when nothing is in flight: a late wake makes the descriptor readable until it is
        // taken in.
        self.core.turn(limit, || may_sleep);
        self.core.load()
    }

    pub(crate) fn load(&self) -> usize {
        self.core.load()
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.core.descriptor()
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.core.drain();
    }
}
