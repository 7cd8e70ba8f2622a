//! The loop of one ring's thread.
//!
//! ```text
//! take in -> issue -> enter (submit, sleep if nothing else to do) -> reap -> tell
//! ```
//!
//! With nothing in flight there is nothing to enter the kernel's queue for: the thread parks.
//!
//! Guarantee: every request that reaches the backlog ends exactly once. The thread ends when its
//! intake is closed and empty and the kernel has given everything back; if nothing comes back for
//! the drain timeout, it tells the waiters, leaks what the kernel may still write to, and ends.
//!
//! A ring is **lost** when the kernel refuses to be entered, for want of memory as long as a drain
//! would wait, for any other reason at once; or when it has dropped a completion. Entries
//! that it never saw, and all later requests, go to the positional threads; operations that it has
//! and cannot be asked about fail, and their memory is leaked, never freed.
//! Completions run between reaping and the next submission, on this thread.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::budget::Budget;
use super::fixed::Offers;
use super::flight::{Flight, Verdict};
use super::intake::Intake;
use super::kernel::{Kernel, Reaped};
use super::latch::{EndGuard, EndLatch};
use super::patience::Patience;
use super::ring::Ring;
use super::table::{Table, WAKE_TOKEN};
use crate::error::IoError;
use crate::planted::planted;
use crate::positional::Positional;
use crate::request::{Class, Request};
use crate::stats::Counters;
use crate::ticket::Ticket;
use crate::wakes::WakeBatch;

/// Operations that are queued before those are started. The kernel holds back what it is handed in
/// one call until it has seen all of it, and the device has nothing to do meanwhile.
const START_EVERY: u32 = 8;

/// In flight: with more the device has enough to do while others are queued.
const FEW_IN_FLIGHT: usize = 64;

/// What a ring's thread shares with the rest of the disk.
pub(super) struct DriverContext {
    pub(super) intake: Arc<Intake>,
    pub(super) counters: Arc<Counters>,
    pub(super) positional: Arc<Positional>,
    pub(super) degraded: Arc<OnceLock<String>>,
    pub(super) ends: Arc<EndLatch>,
    pub(super) drain_timeout: Duration,
    pub(super) offers: Arc<Offers>,
}

pub(super) struct Driver<K: Kernel = Ring> {
    context: DriverContext,
    end: EndGuard,
    ring: K,
    table: Table<Flight>,
    budget: Budget,
    backlog: [VecDeque<Request>; 3],
    backlog_max: usize,
    /// Flights that wait for an entry for their next piece.
    resumed: VecDeque<u32>,
    read_turn: bool,
    reaped: Vec<Reaped>,
    /// The state of the offers that this ring has looked at.
    offers_epoch: usize,
    /// Of a drain from which nothing comes back.
    silence: Patience,
    /// Of a kernel that has no memory for an enter.
    refusals: Patience,
    /// Operations queued since the last were handed over.
    queued: u32,
    /// After how many to hand them over, while few are in flight.
    start_every: u32,
    /// Why the kernel refused to start some early; for the next enter to tell.
    refused: Option<io::Error>,
}

/// How a loop ended.
enum End {
    Drained,
    /// The kernel kept some operations although the drain timeout passed.
    Stuck,
    Lost(String),
}

impl<K: Kernel> Driver<K> {
    pub(super) fn new(context: DriverContext, ring: K) -> Self {
        let entries = ring.entries();
        // One entry is the wake-up's.
        let budget = Budget::new(entries as usize - usize::from(!planted("permit_of_the_wake_up")));
        Self {
            end: context.ends.enter(),
            silence: Patience::new(context.drain_timeout),
            refusals: Patience::new(context.drain_timeout),
            context,
            ring,
            table: Table::new(entries),
            budget,
            backlog: Default::default(),
            backlog_max: 2 * entries as usize,
            resumed: VecDeque::new(),
            read_turn: true,
            reaped: Vec::with_capacity(2 * entries as usize),
            offers_epoch: 0,
            queued: 0,
            start_every: START_EVERY,
            refused: None,
        }
    }

    /// Serves until the end.
    pub(super) fn run(mut self) {
        match self.serve() {
            End::Drained => self.disarm(),
            End::Stuck => {
                self.tell();
                self.abandon("the drain timeout passed");
                self.empty_out(|driver, request| driver.refuse(request));
            }
            End::Lost(reason) => {
                self.tell();
                self.lose(reason);
                self.empty_out(Self::forward);
            }
        }
    }

    fn serve(&mut self) -> End {
        loop {
            self.take_in();
            self.take_offers();
            self.issue();
            if self.is_drained() {
                return End::Drained;
            }
            let entered = self.enter();
            // Only a drain has a time limit here.
            if let Some(end) = self.digest(entered, true, usize::MAX) {
                return end;
            }
        }
    }

    /// Reaps what is complete after an enter, and tells the waiters, unless the ring is to be
    /// given up. `last` is whether a time that is up means that the kernel keeps the rest; `most`
    /// is how many completions are taken at once.
    fn digest(&mut self, entered: io::Result<()>, last: bool, most: usize) -> Option<End> {
        if !self.ring.reap(&mut self.reaped, most) {
            return Some(End::Lost("the kernel lost a completion".to_owned()));
        }
        if self.reaped.iter().any(|reaped| reaped.token != WAKE_TOKEN) {
            self.silence.renew();
        }
        let Err(error) = entered else {
            self.refusals.renew();
            self.tell();
            return None;
        };
        match error.raw_os_error() {
            Some(libc::EINTR) if last && self.silence.is_over() => return Some(End::Stuck),
            Some(libc::EINTR) => {}
            // Short of memory, or completions first: those were reaped, so go on.
            Some(libc::EAGAIN | libc::EBUSY) if 0 < self.refusals.left().as_nanos() => {
                self.refusals.pause();
            }
            Some(libc::ETIME) if last && self.reaped.is_empty() => return Some(End::Stuck),
            Some(libc::ETIME) => {}
            _ => return Some(End::Lost(format!("the kernel refuses to be entered: {error}"))),
        }
        self.tell();
        None
    }

    /// Moves requests from the intake to the backlog, as far as it has room for their class.
    fn take_in(&mut self) {
        for class in Class::ALL {
            while self.has_room(class)
                && let Some(batch) = self.context.intake.pop(class)
            {
                self.backlog[class as usize].extend(batch);
            }
        }
        for request in self.context.intake.pop_side_door() {
            self.backlog[request.operation.class() as usize].push_back(request);
        }
    }

    /// Registers arenas that were offered before the requests just taken in.
    fn take_offers(&mut self) {
        let offers = &self.context.offers;
        let epoch = offers.epoch();
        if epoch == self.offers_epoch {
            return;
        }
        self.offers_epoch = epoch;
        let before = self.ring.registered_bytes();
        if let Err(reason) = self.ring.register(&offers.list()) {
            self.context.counters.registrations_refused.add(1);
            offers.note_refusal(reason);
        }
        offers.note(before, self.ring.registered_bytes());
    }

    fn has_room(&self, class: Class) -> bool {
        self.backlog[class as usize].len() < self.backlog_max
    }

    /// Queues entries: resumed flights first, then syncs, then reads and writes in turns.
    fn issue(&mut self) {
        while let Some(index) = self.resumed.pop_front() {
            if !self.push(index) {
                self.resumed.push_front(index);
                return;
            }
        }
        while self.launch(Class::Sync) {}
        while self.start_some() {
            let (first, second) = match self.read_turn {
                true => (Class::Read, Class::Write),
                false => (Class::Write, Class::Read),
            };
            if !self.launch(first) && !self.launch(second) {
                return;
            }
            self.read_turn = !self.read_turn;
        }
    }

    /// If many are queued, lets the device begin while more are. False once the kernel refuses.
    fn start_some(&mut self) -> bool {
        let waits = self.backlog.iter().any(|requests| !requests.is_empty());
        let every = if self.table.len() <= FEW_IN_FLIGHT { self.start_every } else { START_EVERY };
        if waits && every <= self.queued && self.ring.needs_enters() {
            self.queued = 0;
            self.context.counters.ring_enters.add(1);
            self.refused = self.ring.enter(0, None).err();
        }
        self.refused.is_none()
    }

    /// Queues the next request of a class; false when there is none or the budget is used up.
    fn launch(&mut self, class: Class) -> bool {
        if self.backlog[class as usize].is_empty() || !self.budget.acquire(class) {
            return false;
        }
        let request = self.backlog[class as usize].pop_front().expect("checked above");
        let Some(accepted) = Ticket::accept(request, &self.context.counters) else {
            self.budget.release(class);
            return true;
        };
        let Ok(index) = self.table.insert(Flight::new(accepted)) else {
            unreachable!("the budget is smaller than the table");
        };
        if !self.push(index) {
            self.resumed.push_back(index);
        }
        true
    }

    fn push(&mut self, index: u32) -> bool {
        let token = self.table.token(index);
        let flight = self.table.get_mut(index);
        let pushed = self.ring.push(token, flight);
        if pushed {
            self.queued += 1;
            let registered = u64::from(flight.registered);
            self.context.counters.registered_transfers.add(registered);
        }
        if planted("buffer_freed_early") {
            self.table.get_mut(index).buffer = None;
        }
        pushed
    }

    fn is_drained(&self) -> bool {
        self.table.len() == 0
            && self.backlog.iter().all(VecDeque::is_empty)
            && self.context.intake.is_over()
    }

    /// Submits, and sleeps if there is nothing else to do.
    fn enter(&mut self) -> io::Result<()> {
        self.queued = 0;
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        if self.table.len() == 0 {
            self.context.intake.park();
            return Ok(());
        }
        self.context.counters.ring_enters.add(1);
        if self.ring.polls_completions() {
            return self.ring.enter(1, None);
        }
        if !self.resumed.is_empty() {
            return self.ring.enter(0, None);
        }
        let intake = &self.context.intake;
        self.ring.arm_wake(intake.wake().event());
        let room = Class::ALL.map(|class| self.has_room(class));
        let (ring, silence) = (&mut self.ring, &mut self.silence);
        intake.rest(room, |may_sleep| match may_sleep {
            true => ring.enter(1, intake.is_closed().then(|| silence.left())),
            false => ring.enter(0, None),
        })
    }

    /// Takes in the reaped completions, and tells the waiters of those that have ended.
    fn tell(&mut self) {
        if self.ring.has_overflow() {
            self.context.counters.ring_overflows.add(1);
        }
        let _wakes = WakeBatch::begin();
        let mut reaped = std::mem::take(&mut self.reaped);
        for Reaped { token, result } in reaped.drain(..) {
            if token == WAKE_TOKEN {
                self.ring.wake_fired();
            } else if let Some(index) = self.table.resolve(token) {
                self.complete(index, result);
            } else {
                self.context.counters.ring_strays.add(1);
            }
        }
        self.reaped = reaped;
    }

    fn complete(&mut self, index: u32, result: i32) {
        let counters = &self.context.counters;
        match self.table.get_mut(index).complete(result, counters) {
            Verdict::Resume => self.resumed.push_back(index),
            Verdict::Finished(outcome) => {
                let Flight { ticket, buffer, transfer, .. } = self.land(index);
                ticket.finish(&self.context.counters, transfer.action(), outcome, buffer);
            }
            Verdict::HandOver(error) => {
                let flight = self.land(index);
                self.hand_over(flight, Some(error));
            }
        }
    }

    /// Takes a flight that the kernel has given back out of the table.
    fn land(&mut self, index: u32) -> Flight {
        let flight = self.table.remove(index);
        self.budget.release(flight.ticket.class());
        flight
    }

    /// Lets a positional thread do it from the start. If it succeeds where the ring was refused,
    /// the ring is at fault, and everything later goes the same way.
    fn hand_over(&self, flight: Flight, refusal: Option<io::Error>) {
        let mut request = flight.ticket.into_request(flight.buffer);
        if let Some(error) = refusal {
            let (degraded, on_complete) = (Arc::clone(&self.context.degraded), request.on_complete);
            let operation = request.operation.name();
            request.on_complete = Box::new(move |completed| {
                if completed.result.is_ok() {
                    degraded.get_or_init(|| {
                        format!(
                            "the ring refuses a {operation} that a system call performs: {error}"
                        )
                    });
                }
                on_complete(completed);
            });
        }
        self.forward(request);
    }

    fn forward(&self, request: Request) {
        self.context.counters.fallbacks.add(1);
        self.context.positional.submit(request);
    }

    fn refuse(&self, request: Request) {
        Ticket::reject(request, &self.context.counters, |operation, file| {
            IoError::closed(operation, file.path())
        });
    }

    /// Takes back the read of the eventfd, so that the ring holds none of our memory when it goes.
    fn disarm(mut self) {
        if self.ring.is_wake_armed() {
            self.context.intake.wake().event().signal();
        }
        while self.ring.is_wake_armed() {
            self.context.counters.ring_enters.add(1);
            let entered = self.ring.enter(1, Some(self.context.drain_timeout));
            self.ring.reap(&mut self.reaped, usize::MAX);
            if self.reaped.drain(..).any(|reaped| reaped.token == WAKE_TOKEN) {
                self.ring.wake_fired();
            } else if entered.is_err_and(|error| error.raw_os_error() != Some(libc::EINTR)) {
                // The ring and its eight bytes are leaked.
                return;
            }
        }
        self.ring.release();
    }

    /// Tells the waiters of what the kernel did not give back, and leaks its memory.
    fn abandon(&mut self, reason: &str) -> usize {
        let flights = self.table.drain();
        let count = flights.len();
        self.end.leave_behind(count);
        self.context.counters.leaked.add(count as u64);
        for flight in flights {
            let Flight { ticket, buffer, transfer, .. } = flight;
            // The kernel may still write to the buffer and use the file.
            if !planted("drain_frees") {
                std::mem::forget(buffer);
            }
            std::mem::forget(ticket.file.clone());
            self.budget.release(ticket.class());
            let error = io::Error::other(format!("{reason} while the kernel had this operation"));
            ticket.finish(&self.context.counters, transfer.action(), Err(error), None);
        }
        count
    }

    /// Gives up the ring: what the kernel never saw goes to the positional threads.
    fn lose(&mut self, reason: String) -> usize {
        let unsubmitted = self.ring.take_unsubmitted().into_iter();
        let unseen = unsubmitted.filter_map(|token| self.table.resolve(token));
        let unseen: Vec<u32> = unseen.chain(std::mem::take(&mut self.resumed)).collect();
        for index in unseen {
            let flight = self.land(index);
            self.hand_over(flight, None);
        }
        let stuck = self.abandon(&reason);
        self.context.degraded.get_or_init(|| reason);
        stuck
    }

    /// Without a ring: passes all requests to `pass`, until the intake is closed and empty.
    fn empty_out(&mut self, pass: impl Fn(&Self, Request)) {
        let intake = Arc::clone(&self.context.intake);
        while !self.is_drained() {
            self.take_in();
            for class in Class::ALL {
                for request in std::mem::take(&mut self.backlog[class as usize]) {
                    pass(self, request);
                }
            }
            intake.park();
        }
    }
}

mod turns;
pub(super) use turns::Turn;

// Miri cannot execute rings.
#[cfg(test)]
#[cfg(not(miri))]
mod tests;
