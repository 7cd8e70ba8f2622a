//! The least that it takes to hand reads to another thread and their completions back.
//!
//! ```text
//! callers: offsets -> desk, wake the server if it sleeps      sleep until their tray has something
//! server:  desk -> ring (eight a call), wait for a completion -> trays, wake each caller once
//! ```
//!
//! No futures, no wakers, no requests, no buffers that change hands, no counters: two locked lists
//! and a flag, and the ring of the bare loop. With something in flight the server is not woken at
//! all: it looks at the desk when something completes. What this misses, a ring thread misses too,
//! however it is written; the rows tell the price of the hand-off on a machine from that of our
//! code.

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

use super::{
    job::{Access, Contender, Job, Measured, Meter, Offsets, histogram},
    raw_ring::{Transfers, open_direct, ring},
};
use crate::{Outcome, clock::Stopwatch};

/// Operations that the server queues before it hands them to the kernel, as our ring threads do.
const AT_ONCE: usize = 8;

/// A server and so many callers, who share the depth.
#[derive(Debug)]
pub(super) struct HandOff {
    pub(super) name: &'static str,
    pub(super) callers: usize,
}

impl Contender for HandOff {
    fn name(&self) -> &str {
        self.name
    }

    fn takes(&self, job: &Job) -> bool {
        job.access == Access::RandomRead && self.callers <= job.depth
    }

    fn run(&self, job: &Job) -> Outcome<Measured> {
        let file = open_direct(job)?;
        let mut latencies = histogram();
        let meter = Meter::start();
        let offsets = job.offsets();
        let trays = (0..self.callers).map(|_| Tray::default()).collect();
        let desk = Desk { trays, ..Desk::default() };
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                let served = serve(&desk, &file, job).map_err(|error| error.to_string());
                desk.end();
                served
            });
            desk.server.get_or_init(|| server.thread().clone());
            let (desk, offsets) = (&desk, &offsets);
            let call = move |number| {
                call(desk, number, job.depth, offsets).map_err(|error| error.to_string())
            };
            let numbers = 0..self.callers;
            let callers: Vec<_> = numbers.map(|number| scope.spawn(move || call(number))).collect();
            let joined: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
            desk.end();
            server.join().map_err(|_| "the server panicked")??;
            for of_caller in joined {
                latencies.add(of_caller.map_err(|_| "a caller panicked")??)?;
            }
            Ok(meter.finish(&latencies))
        })
    }
}

/// What all threads share.
#[derive(Default)]
struct Desk {
    /// Slots that are to read, and from where.
    wanted: Mutex<Vec<(usize, u64)>>,
    /// Nothing is wanted and nothing in flight: whoever wants something wakes the server.
    sleeps: AtomicBool,
    server: OnceLock<Thread>,
    trays: Vec<Tray>,
    ended: AtomicBool,
}

/// What has arrived for one caller: slots.
#[derive(Default)]
struct Tray {
    arrived: Mutex<Vec<usize>>,
    caller: OnceLock<Thread>,
}

impl Desk {
    fn want(&self, batch: Vec<(usize, u64)>) {
        lock(&self.wanted).extend(batch);
        self.wake();
    }

    fn wake(&self) {
        if self.sleeps.load(SeqCst) && self.sleeps.swap(false, SeqCst) {
            self.server.get().into_iter().for_each(Thread::unpark);
        }
    }

    /// Lays what is done on the callers' trays, and wakes each of them once.
    fn tell(&self, done: &[usize]) {
        for (number, tray) in self.trays.iter().enumerate() {
            let mut of_caller = done.iter().filter(|slot| *slot % self.trays.len() == number);
            if let Some(first) = of_caller.next() {
                lock(&tray.arrived).extend([first].into_iter().chain(of_caller));
                tray.wake();
            }
        }
    }

    /// What has arrived, at least one.
    fn take(&self, tray: &Tray) -> Outcome<Vec<usize>> {
        loop {
            let arrived = mem::take(&mut *lock(&tray.arrived));
            if !arrived.is_empty() {
                return Ok(arrived);
            }
            if self.ended.load(SeqCst) {
                return Err("the server has ended".into());
            }
            thread::park();
        }
    }

    fn end(&self) {
        self.ended.store(true, SeqCst);
        self.wake();
        self.trays.iter().for_each(Tray::wake);
    }

    /// What is wanted, which is nothing only at the end: for a server with nothing in flight.
    fn sleep_for_more(&self) -> Vec<(usize, u64)> {
        loop {
            self.sleeps.store(true, SeqCst);
            let wanted = mem::take(&mut *lock(&self.wanted));
            if !wanted.is_empty() || self.ended.load(SeqCst) {
                self.sleeps.store(false, SeqCst);
                return wanted;
            }
            thread::park();
        }
    }
}

impl Tray {
    fn wake(&self) {
        self.caller.get().into_iter().for_each(Thread::unpark);
    }
}

fn serve(desk: &Desk, file: &File, job: &Job) -> Outcome<()> {
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
        desk.tell(&done);
        done.clear();
    }
}

/// Keeps its slots busy; the latencies of its reads.
fn call(desk: &Desk, number: usize, depth: usize, offsets: &Offsets) -> Outcome<Histogram<u64>> {
    let tray = &desk.trays[number];
    tray.caller.get_or_init(thread::current);
    let mut idle: Vec<usize> = (number..depth).step_by(desk.trays.len()).collect();
    let mut started = vec![Stopwatch::start(); depth];
    let (mut latencies, mut in_flight) = (histogram(), 0);
    loop {
        let now = Stopwatch::start();
        let next = |slot| Some((slot, offsets.next()?));
        let batch: Vec<_> = idle.drain(..).map_while(next).collect();
        batch.iter().for_each(|(slot, _)| started[*slot] = now);
        in_flight += batch.len();
        if in_flight == 0 {
            return Ok(latencies);
        }
        desk.want(batch);
        idle = desk.take(tray)?;
        for slot in &idle {
            latencies.record(started[*slot].nanoseconds())?;
        }
        in_flight -= idle.len();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
