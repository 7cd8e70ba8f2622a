//! Many runs, on as many threads as wanted, and smaller ones that fail in the same way.
//!
//! Each run is on one thread and depends on nothing but its options, so the sums of a campaign are
//! the same on any number of threads.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use nephrite_io::sim::TraceHash;

use crate::{
    options::{Operation, Options},
    run::{RunReport, simulate},
};

/// A run that failed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failure {
    /// What replays it.
    pub options: Options,
    /// The promise that was broken.
    pub text: String,
}

/// What the runs of a campaign did together.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CampaignReport {
    /// Runs.
    pub runs: u64,
    /// Operations that clients carried out.
    pub steps: u64,
    /// Crashes of the machine, each with an image that recovery had to cope with.
    pub crashes: u64,
    /// Times a store was opened and read in every way.
    pub opens: u64,
    /// Calls of the disk that were made to go wrong.
    pub faults: u64,
    /// System calls of the disk.
    pub calls: u64,
    /// The hash of everything that happened in all runs, whatever their order.
    pub trace_hash: u64,
    /// Runs that failed, by seed.
    pub failures: Vec<Failure>,
}

impl CampaignReport {
    fn add(&mut self, options: Options, report: RunReport) {
        self.runs += 1;
        self.steps += report.steps;
        self.crashes += report.crashes;
        self.opens += report.opens;
        self.faults += report.faults;
        self.calls += report.calls;
        let mut hash = TraceHash::default();
        hash.number(options.seed);
        hash.number(report.trace_hash);
        self.trace_hash = self.trace_hash.wrapping_add(hash.value());
        if let Some(text) = report.failure {
            self.failures.push(Failure { options, text });
        }
    }
}

/// How to run many.
#[derive(Debug, Clone)]
pub struct Campaign {
    first: Options,
    runs: u64,
    jobs: usize,
    twice: bool,
}

impl Campaign {
    /// As many runs as these, each with the next seed.
    #[must_use]
    pub fn new(first: Options, runs: u64) -> Self {
        Self { first, runs, jobs: 1, twice: false }
    }

    /// On how many threads. Default: one.
    #[must_use]
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs.max(1);
        self
    }

    /// Carries out each run twice and fails it if the traces differ.
    #[must_use]
    pub fn twice(mut self) -> Self {
        self.twice = true;
        self
    }

    /// Runs until all are done or `go_on` says no. Tells of each failure when it is found.
    ///
    /// # Errors
    /// The operating system's refusal to start a thread.
    pub fn run(
        &self,
        go_on: impl Fn() -> bool + Sync,
        on_failure: impl Fn(&Failure) + Sync,
    ) -> std::io::Result<CampaignReport> {
        let (next, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
        let total = Mutex::new(CampaignReport::default());
        let work = || {
            // Relaxed: both only bound the work; the results are handed over by the mutex.
            while !stopped.load(Ordering::Relaxed) && go_on() {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if self.runs <= number {
                    return;
                }
                let options =
                    Options { seed: self.first.seed.wrapping_add(number), ..self.first.clone() };
                let report = self.one(&options);
                let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                let before = total.failures.len();
                total.add(options, report);
                total.failures[before..].iter().for_each(&on_failure);
            }
        };
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for job in 1..self.jobs {
                let name = format!("simulation-{job}");
                match std::thread::Builder::new().name(name).spawn_scoped(scope, work) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        stopped.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
            work();
            Ok(())
        })?;
        let mut report = total.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.failures.sort_by_key(|failure| failure.options.seed);
        Ok(report)
    }

    fn one(&self, options: &Options) -> RunReport {
        let mut report = simulate(options);
        if self.twice && report.failure.is_none() {
            let again = simulate(options);
            if again.trace_hash != report.trace_hash {
                report.failure = Some(format!(
                    "the same seed gave the traces {:#018x} and {:#018x}",
                    report.trace_hash, again.trace_hash
                ));
            }
        }
        report
    }
}

/// Makes a failing run smaller as long as it fails. Returns what is left of it, and how it fails;
/// none when the options do not fail at all.
#[must_use]
pub fn shrink(options: &Options) -> Option<Failure> {
    let mut best = attempt(options.clone())?;
    loop {
        let before = best.options.clone();
        best = fewer_steps(best);
        let fewer_clients = (1..4).map(|clients| before.clone().clients(clients));
        for smaller in fewer_clients.take_while(|it| it.clients < before.clients.or(Some(4))) {
            let smaller = Options { steps: best.options.steps, ..smaller };
            if let Some(found) = attempt(smaller) {
                best = found;
                break;
            }
        }
        for operation in Operation::ALL {
            if best.options.without.contains(&operation) {
                continue;
            }
            if let Some(found) = attempt(best.options.clone().without(operation)) {
                best = found;
            }
        }
        if best.options == before {
            return Some(best);
        }
    }
}

fn attempt(options: Options) -> Option<Failure> {
    let text = simulate(&options).failure?;
    Some(Failure { options, text })
}

/// Halves, then takes away less and less.
fn fewer_steps(mut best: Failure) -> Failure {
    let mut cut = best.options.steps / 2;
    while 0 < cut {
        let steps = best.options.steps - cut;
        match attempt(best.options.clone().steps(steps)) {
            Some(found) => {
                best = found;
                cut = cut.min(best.options.steps / 2);
            }
            None => cut /= 2,
        }
    }
    best
}
