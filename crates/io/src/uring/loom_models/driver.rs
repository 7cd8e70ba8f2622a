//! The whole loop of a ring's thread, over a kernel that completes at once what it was given, or
//! not before it has enough: intake, wake-up, permits, table, tickets and end latch together.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use loom::thread;

use crate::completion::{Sender, block_on, oneshot};
use crate::loom_models::{Ended, check, request};
use crate::positional::{Positional, SystemCalls};
use crate::stats::Counters;
use crate::threads;
use crate::uring::driver::{Driver, DriverContext};
use crate::uring::event::Event;
use crate::uring::flight::Flight;
use crate::uring::intake::Intake;
use crate::uring::kernel::{Kernel, Reaped};
use crate::uring::latch::EndLatch;
use crate::uring::table::WAKE_TOKEN;
use crate::uring::wake::Wake;

/// Few, so that permits and slots are used again.
const ENTRIES: u32 = 4;

struct PromptKernel {
    intake: Arc<Intake>,
    queued: VecDeque<u64>,
    armed: bool,
    completed: Vec<Reaped>,
    /// How many operations it must have before it completes any.
    together: usize,
}

impl Kernel for PromptKernel {
    fn entries(&self) -> u32 {
        ENTRIES
    }

    fn push(&mut self, token: u64, _flight: &mut Flight) -> bool {
        self.queued.push_back(token);
        true
    }

    fn arm_wake(&mut self, _event: &Event) {
        self.armed = true;
    }

    fn wake_fired(&mut self) {
        self.armed = false;
    }

    fn is_wake_armed(&self) -> bool {
        self.armed
    }

    fn enter(&mut self, completions: u32, _timeout: Option<Duration>) -> io::Result<()> {
        if self.together <= self.queued.len() {
            let queued = self.queued.drain(..);
            self.completed.extend(queued.map(|token| Reaped { token, result: 0 }));
        }
        if 0 < completions && self.completed.is_empty() {
            assert!(self.armed, "the thread sleeps and nothing can wake it");
            self.intake.wake().event().wait();
            self.completed.push(Reaped { token: WAKE_TOKEN, result: 8 });
        }
        Ok(())
    }

    fn reap(&mut self, reaped: &mut Vec<Reaped>, _most: usize) -> bool {
        reaped.append(&mut self.completed);
        true
    }

    fn has_completions(&mut self) -> bool {
        !self.completed.is_empty()
    }

    fn has_overflow(&mut self) -> bool {
        false
    }

    fn take_unsubmitted(&mut self) -> VecDeque<u64> {
        std::mem::take(&mut self.queued)
    }

    fn release(self) {
        assert!(!self.armed, "released while something is in flight");
    }
}

struct Model {
    intake: Arc<Intake>,
    counters: Arc<Counters>,
    ends: Arc<EndLatch>,
    ended: Ended,
}

impl Model {
    fn start() -> (Self, thread::JoinHandle<()>) {
        Self::start_with(1)
    }

    /// Over a kernel that completes nothing before it has so many operations.
    fn start_with(together: usize) -> (Self, thread::JoinHandle<()>) {
        let counters = Arc::new(Counters::default());
        let positional = Positional::new(1, Arc::clone(&counters), Box::new(SystemCalls));
        let intake = Arc::new(Intake::new(Wake::new().unwrap()));
        let ends = Arc::new(EndLatch::new());
        let context = DriverContext {
            intake: Arc::clone(&intake),
            counters: Arc::clone(&counters),
            positional: Arc::new(positional),
            degraded: Arc::new(OnceLock::new()),
            ends: Arc::clone(&ends),
            drain_timeout: Duration::MAX,
            offers: Arc::default(),
        };
        let (queued, completed) = (VecDeque::new(), Vec::new());
        let kernel =
            PromptKernel { intake: Arc::clone(&intake), queued, armed: false, completed, together };
        let driver = Driver::new(context, kernel);
        let thread = thread::spawn(move || {
            threads::mark_io_thread();
            driver.run();
        });
        (Self { intake, counters, ends, ended: Ended::default() }, thread)
    }

    fn submit(&self, count: usize) {
        self.counters.submitted.add(count as u64);
        let batch: Vec<_> = (0..count).map(|_| self.ended.request()).collect();
        let refused = self.intake.submit(batch, &self.counters);
        assert!(refused.is_none(), "refused before the close");
    }

    fn submit_one(&self, sender: Sender<()>) {
        self.counters.submitted.add(1);
        let ended = self.ended.clone();
        let told = move |_| {
            ended.note();
            sender.send(()).expect("the model waits for it");
        };
        let refused = self.intake.submit(request(told), &self.counters);
        assert!(refused.is_none(), "refused before the close");
    }

    fn close_and_check(self, thread: thread::JoinHandle<()>) {
        self.intake.close(&self.counters);
        assert_eq!(block_on(self.ends.watch()), Some(0));
        thread.join().unwrap();
        let stats = self.counters.picture();
        assert_eq!(stats.submitted, stats.delivered, "{stats:?}");
        assert_eq!(stats.submitted, self.ended.count() as u64);
        assert_eq!((stats.ring_strays, stats.leaked), (0, 0));
    }
}

#[test]
fn every_request_ends_and_so_does_the_thread() {
    check(|| {
        let (model, thread) = Model::start();

        model.submit(1);

        model.close_and_check(thread);
    });
}

#[test]
fn more_requests_than_permits_pass() {
    check(|| {
        let (model, thread) = Model::start();

        model.submit(4);

        model.close_and_check(thread);
    });
}

#[test]
fn who_awaits_a_completion_is_woken() {
    check(|| {
        let (model, thread) = Model::start();
        let (sender, receiver) = oneshot();

        model.submit_one(sender);

        assert_eq!(block_on(receiver), Some(()));
        model.close_and_check(thread);
    });
}

/// With the first in flight the thread sleeps in its ring, and only the second lets that complete.
#[test]
fn a_thread_that_sleeps_in_its_ring_is_woken() {
    check(|| {
        let (model, thread) = Model::start_with(2);
        let (sender, receiver) = oneshot();

        model.submit(1);
        model.submit_one(sender);

        assert_eq!(block_on(receiver), Some(()));
        model.close_and_check(thread);
    });
}
