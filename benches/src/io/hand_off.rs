//! The least that it takes to hand reads to another thread and their completions back.
//!
//! ```text
//! callers: offsets -> desk, wake the server if it sleeps      sleep until something has arrived
//! server:  desk -> ring (eight a call), wait for a completion -> what has arrived, wake callers
//! ```
//!
//! No requests, no buffers that change hands, no counters: locked lists and a flag, and the ring of
//! the bare loop. Callers are threads without futures or wakers ([`threads`]), or tasks on two
//! executors, each of which awaits one read after the other ([`tasks`]). With something in flight
//! the server is not woken at all: it looks at the desk when something completes. What this
//! misses, a ring thread misses too, however it is written; the rows tell the price of the hand-off
//! and of the executors on a machine from that of our code.

mod tasks;
mod threads;

use std::{
    fs::File,
    mem,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, Thread},
};

use hdrhistogram::Histogram;

use self::{tasks::Cells, threads::Trays};
use super::{
    job::{Access, Contender, Job, Measured, Meter},
    raw_ring::{Transfers, open_direct, ring},
};
use crate::Outcome;

/// Operations that the server queues before it hands them to the kernel, as our ring threads do.
const AT_ONCE: usize = 8;

/// A server and its callers, who share the depth.
#[derive(Debug)]
pub(super) struct HandOff {
    pub(super) name: &'static str,
    pub(super) callers: Callers,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Callers {
    Threads(usize),
    TasksOnTwoThreads,
}

impl Callers {
    fn threads(self) -> usize {
        match self {
            Self::Threads(count) => count,
            Self::TasksOnTwoThreads => crate::tasks::THREADS,
        }
    }
}

impl Contender for HandOff {
    fn name(&self) -> &str {
        self.name
    }

    fn takes(&self, job: &Job) -> bool {
        job.access == Access::RandomRead && self.callers.threads() <= job.depth
    }

    fn run(&self, job: &Job) -> Outcome<Measured> {
        let file = open_direct(job)?;
        let meter = Meter::start();
        let latencies = match self.callers {
            Callers::Threads(count) => {
                serving(Trays::new(count), &file, job, |desk| threads::call(desk, job))
            }
            Callers::TasksOnTwoThreads => {
                serving(Cells::new(job.depth), &file, job, |desk| tasks::call(desk, job))
            }
        };
        Ok(meter.finish(&latencies?))
    }
}

/// Where callers find what has arrived for them.
trait Arrivals: Sync {
    /// Tells of the slots that are done, and wakes those who wait for them.
    fn tell(&self, done: &[usize]);

    /// Wakes everybody: nothing will arrive any more.
    fn end(&self);
}

/// What all threads share.
struct Desk<A> {
    /// Slots that are to read, and from where.
    wanted: Mutex<Vec<(usize, u64)>>,
    /// Nothing is wanted and nothing in flight: whoever wants something wakes the server.
    sleeps: AtomicBool,
    server: OnceLock<Thread>,
    arrivals: A,
    ended: AtomicBool,
}

impl<A: Arrivals> Desk<A> {
    fn want(&self, batch: impl IntoIterator<Item = (usize, u64)>) {
        lock(&self.wanted).extend(batch);
        self.wake();
    }

    fn wake(&self) {
        if self.sleeps.load(SeqCst) && self.sleeps.swap(false, SeqCst) {
            self.server.get().into_iter().for_each(Thread::unpark);
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.load(SeqCst)
    }

    fn end(&self) {
        self.ended.store(true, SeqCst);
        self.wake();
        self.arrivals.end();
    }

    /// What is wanted, which is nothing only at the end: for a server with nothing in flight.
    fn sleep_for_more(&self) -> Vec<(usize, u64)> {
        loop {
            self.sleeps.store(true, SeqCst);
            let wanted = mem::take(&mut *lock(&self.wanted));
            if !wanted.is_empty() || self.has_ended() {
                self.sleeps.store(false, SeqCst);
                return wanted;
            }
            thread::park();
        }
    }
}

/// What callers make of it, beside a server that ends when they do.
fn serving<A: Arrivals>(
    arrivals: A,
    file: &File,
    job: &Job,
    call: impl FnOnce(&Desk<A>) -> Outcome<Histogram<u64>>,
) -> Outcome<Histogram<u64>> {
    let (wanted, sleeps, server) = Default::default();
    let desk = Desk { wanted, sleeps, server, arrivals, ended: AtomicBool::default() };
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let served = serve(&desk, file, job);
            desk.end();
            served
        });
        desk.server.get_or_init(|| server.thread().clone());
        let called = call(&desk);
        desk.end();
        server.join().map_err(|_| "the server panicked")??;
        called
    })
}

fn serve<A: Arrivals>(desk: &Desk<A>, file: &File, job: &Job) -> Outcome<()> {
    let mut ring = ring(u32::try_from(job.depth)?)?;
    let mut transfers = Transfers::new(file, job)?;
    let mut done = Vec::with_capacity(job.depth);
    loop {
        let wanted = match transfers.in_flight() {
            0 => desk.sleep_for_more(),
            _ => mem::take(&mut *lock(&desk.wanted)),
        };
        for (position, (slot, offset)) in wanted.into_iter().enumerate() {
            if 0 < position && position % AT_ONCE == 0 {
                ring.submit()?;
            }
            transfers.submit(&mut ring, slot, offset)?;
        }
        if transfers.in_flight() == 0 {
            return Ok(());
        }
        transfers.wait(&mut ring, &mut done)?;
        desk.arrivals.tell(&done);
        done.clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
