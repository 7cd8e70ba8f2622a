//! The workers of a workload: threads, the tasks on them, and when each call begins.
//!
//! Closed loop: each worker begins its next call when the one before has ended; the calls are dealt
//! out in turns. Open loop (`--rate`): call `n` is due `n / rate` seconds after the start, whatever
//! happened to the others, and is taken by the next thread that is free. A call that begins late,
//! because all threads were busy, counts from when it was due: what waits behind a slow call is
//! slow itself (the omission of it is called coordinated). Lateness of the thread's own timer is
//! left out.
//!
//! The first failure ends all workers. A closed store ends them, too: every call meets it.
//! Checked by: the tests below and `tests/it/bench.rs`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use async_executor::LocalExecutor;

use super::keys::Random;
use super::operations::{Calls, Worker, Written};
use super::recorder::Recorder;
use super::vectors::VERSIONS;
use super::workload::Workload;
use crate::clock::Stopwatch;
use crate::embeddings::mix;
use crate::failure::Failure;

/// A thread that was woken this much late blames its timer, not the store.
const TIMER_SLACK: Duration = Duration::from_millis(1);
/// The stream of random numbers of the writer beside readers.
const BESIDE: u64 = u64::MAX;

/// How many workers there are, and when they begin and end.
#[derive(Debug)]
pub(super) struct Pace {
    pub(super) threads: u64,
    /// Tasks on each thread; 1 with a rate.
    pub(super) tasks: u64,
    /// Calls of all workers together.
    pub(super) calls: Option<u64>,
    pub(super) duration: Option<Duration>,
    /// Calls per second of an open loop.
    pub(super) rate: Option<u64>,
    pub(super) seed: u64,
}

/// What the workers did.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) recorder: Recorder,
    /// The writer beside readers.
    pub(super) beside: Option<Recorder>,
    pub(super) seconds: f64,
    /// With `--verify`: what may be stored under each id that was written.
    pub(super) written: HashMap<u64, Vec<Option<u64>>>,
}

/// One run of the workers.
struct Run<'a> {
    calls: &'a Calls<'a>,
    pace: &'a Pace,
    started: Stopwatch,
    /// The next call of an open loop.
    next: AtomicU64,
    /// Set by the first failure, or when the readers have ended. Relaxed: it only ends loops, the
    /// results come with the joins.
    over: AtomicBool,
}

/// What a thread hands back.
type Share = Result<(Recorder, Vec<Written>), Failure>;

/// Runs a workload to its end.
pub(super) fn run(calls: &Calls<'_>, pace: &Pace) -> Result<Done, Failure> {
    let run = Run {
        calls,
        pace,
        started: Stopwatch::start(),
        next: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    let (shares, beside, seconds) = thread::scope(|scope| {
        let run = &run;
        let beside = (calls.workload == Workload::ReadWhileWriting)
            .then(|| spawn(scope, || run.until_over()))
            .transpose()?;
        let mut threads = Vec::new();
        for number in 0..pace.threads {
            match spawn(scope, move || run.thread(number)) {
                Ok(thread) => threads.push(thread),
                Err(failure) => {
                    run.over.store(true, Ordering::Relaxed);
                    return Err(failure);
                }
            }
        }
        let shares: Vec<_> = threads.into_iter().map(ScopedJoinHandle::join).collect();
        let seconds = run.started.seconds();
        run.over.store(true, Ordering::Relaxed);
        let beside = beside.map(ScopedJoinHandle::join);
        Ok::<_, Failure>((shares, beside, seconds))
    })?;
    let mut done = Done {
        recorder: Recorder::new(run.started),
        beside: None,
        seconds,
        written: HashMap::new(),
    };
    for share in shares {
        let (recorder, written) = share.map_err(panicked)??;
        done.recorder.add(&recorder);
        done.take_written(written);
    }
    if let Some(share) = beside {
        let (recorder, written) = share.map_err(panicked)??;
        done.beside = Some(recorder);
        done.take_written(written);
    }
    Ok(done)
}

fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> Share + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Share>, Failure> {
    let thread = thread::Builder::new().name("bench".to_owned()).spawn_scoped(scope, work);
    thread.map_err(|error| {
        Failure::error(format_args!("--threads: starting one: {error}; ask for fewer"))
    })
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Failure {
    Failure::error("a thread of the benchmark panicked: this is a bug of the benchmark")
}

impl Done {
    fn take_written(&mut self, all: Vec<Written>) {
        for (id, version) in all.into_iter().flatten() {
            self.written.entry(id).or_default().push(version);
        }
    }
}

impl Run<'_> {
    /// One thread with its tasks.
    fn thread(&self, number: u64) -> Share {
        let recorder = RefCell::new(Recorder::new(self.started));
        let first = number * self.pace.tasks;
        let mut workers: Vec<(u64, Worker<'_>)> = (first..first + self.pace.tasks)
            .map(|number| (number, self.worker(number, &recorder)))
            .collect();
        let outcome = if let [(number, worker)] = &mut workers[..] {
            pollster::block_on(self.work(*number, worker))
        } else {
            let executor = LocalExecutor::new();
            let tasks: Vec<_> = workers
                .iter_mut()
                .map(|(number, worker)| executor.spawn(self.work(*number, worker)))
                .collect();
            pollster::block_on(executor.run(async {
                for task in tasks {
                    task.await?;
                }
                Ok(())
            }))
        };
        self.hand_back(outcome, workers.into_iter().map(|(_, worker)| worker), &recorder)
    }

    /// The writer beside readers: until they have ended.
    fn until_over(&self) -> Share {
        let recorder = RefCell::new(Recorder::new(self.started));
        let mut worker = self.worker(BESIDE, &recorder);
        let outcome = pollster::block_on(async {
            while !self.over.load(Ordering::Relaxed) {
                self.calls.write_beside(&mut worker).await?;
            }
            Ok(())
        });
        self.hand_back(outcome, [worker].into_iter(), &recorder)
    }

    fn worker<'r>(&self, number: u64, recorder: &'r RefCell<Recorder>) -> Worker<'r> {
        let random = Random::new(self.pace.seed, number);
        Worker::new(random, recorder, mix(self.pace.seed ^ mix(number)) % VERSIONS)
    }

    fn hand_back<'r>(
        &self,
        outcome: Result<(), Failure>,
        workers: impl Iterator<Item = Worker<'r>>,
        recorder: &'r RefCell<Recorder>,
    ) -> Share {
        if outcome.is_err() {
            self.over.store(true, Ordering::Relaxed);
        }
        outcome?;
        let written = workers.map(|worker| worker.written).collect();
        Ok((recorder.replace(Recorder::new(self.started)), written))
    }

    /// One worker: one call after the other until there is no more, or no more time.
    async fn work(&self, number: u64, worker: &mut Worker<'_>) -> Result<(), Failure> {
        let workers = self.pace.threads * self.pace.tasks;
        let mut own = number;
        while !self.is_over(worker) {
            let (call, due) = match self.pace.rate {
                None => (own, None),
                // Only uniqueness matters.
                Some(rate) => {
                    let call = self.next.fetch_add(1, Ordering::Relaxed);
                    (call, self.wait_for(call, rate))
                }
            };
            if self.pace.calls.is_some_and(|calls| calls <= call) {
                break;
            }
            self.calls.call(call, worker, due).await?;
            own += workers;
        }
        Ok(())
    }

    fn is_over(&self, worker: &Worker<'_>) -> bool {
        let elapsed = match self.pace.rate {
            None => worker.recorder.borrow().elapsed,
            Some(_) => self.started.elapsed(),
        };
        self.pace.duration.is_some_and(|duration| duration <= elapsed)
            || self.over.load(Ordering::Relaxed)
    }

    /// Waits until a call is due; when it was due, if that is long ago.
    fn wait_for(&self, call: u64, rate: u64) -> Option<Stopwatch> {
        let due = self.started.after(offset(call, rate));
        let mut now = Stopwatch::start();
        let mut waited = false;
        while !due.since(now).is_zero() {
            waited = true;
            thread::park_timeout(due.since(now));
            now = Stopwatch::start();
        }
        let by_timer = waited && now.since(due) < TIMER_SLACK;
        (!by_timer).then_some(due)
    }
}

/// When a call is due after the start.
fn offset(call: u64, rate: u64) -> Duration {
    let nanoseconds = u128::from(call) * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_due_at_their_rate() {
        assert_eq!(offset(0, 7), Duration::ZERO);
        assert_eq!(offset(1_000, 1_000), Duration::from_secs(1));
        assert_eq!(offset(3, 2), Duration::from_millis(1500));
        assert_eq!(offset(u64::MAX, 1), Duration::from_nanos(u64::MAX));
    }
}
