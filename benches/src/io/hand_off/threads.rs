//! Callers that are threads: each has a tray, and is woken once for all that was laid on it.

use std::{
    mem,
    sync::{Mutex, OnceLock},
    thread::{self, Thread},
};

use hdrhistogram::Histogram;

use super::{Arrivals, Desk, lock};
use crate::{
    Outcome,
    clock::Stopwatch,
    io::job::{Job, Offsets, histogram},
};

/// One for each caller; slots go round.
pub(super) struct Trays(Vec<Tray>);

/// What has arrived for one caller: slots.
#[derive(Default)]
struct Tray {
    arrived: Mutex<Vec<usize>>,
    caller: OnceLock<Thread>,
}

impl Trays {
    pub(super) fn new(callers: usize) -> Self {
        Self((0..callers).map(|_| Tray::default()).collect())
    }
}

impl Arrivals for Trays {
    fn tell(&self, done: &[usize]) {
        for (number, tray) in self.0.iter().enumerate() {
            let mut of_caller = done.iter().filter(|slot| *slot % self.0.len() == number);
            if let Some(first) = of_caller.next() {
                lock(&tray.arrived).extend([first].into_iter().chain(of_caller));
                tray.wake();
            }
        }
    }

    fn end(&self) {
        self.0.iter().for_each(Tray::wake);
    }
}

impl Tray {
    fn wake(&self) {
        self.caller.get().into_iter().for_each(Thread::unpark);
    }
}

/// Starts the callers, and joins them.
pub(super) fn call(desk: &Desk<Trays>, job: &Job) -> Outcome<Histogram<u64>> {
    let (offsets, mut latencies) = (&job.offsets(), histogram());
    thread::scope(|scope| {
        let numbers = 0..desk.arrivals.0.len();
        let callers: Vec<_> = numbers
            .map(|number| scope.spawn(move || call_alone(desk, number, job.depth, offsets)))
            .collect();
        let joined: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        for of_caller in joined {
            latencies.add(of_caller.map_err(|_| "a caller panicked")??)?;
        }
        Ok(latencies)
    })
}

/// Keeps its slots busy; the latencies of its reads.
fn call_alone(
    desk: &Desk<Trays>,
    number: usize,
    depth: usize,
    offsets: &Offsets,
) -> Outcome<Histogram<u64>> {
    let trays = &desk.arrivals.0;
    let tray = &trays[number];
    tray.caller.get_or_init(thread::current);
    let mut idle: Vec<usize> = (number..depth).step_by(trays.len()).collect();
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
        idle = take(desk, tray)?;
        for slot in &idle {
            latencies.record(started[*slot].nanoseconds())?;
        }
        in_flight -= idle.len();
    }
}

/// What has arrived, at least one.
fn take(desk: &Desk<Trays>, tray: &Tray) -> Outcome<Vec<usize>> {
    loop {
        let arrived = mem::take(&mut *lock(&tray.arrived));
        if !arrived.is_empty() {
            return Ok(arrived);
        }
        if desk.has_ended() {
            return Err("the server has ended".into());
        }
        thread::park();
    }
}
