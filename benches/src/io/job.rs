//! What every contender is asked to do, and what it says about it.
//!
//! A [`Job`] names a file, a block size, a depth and a time. Its [`Offsets`] hand out one block
//! after the other to any number of threads until the time is over. Random blocks come from a
//! permutation: none is read twice before all were read, so a system cache that was emptied before
//! cannot help a buffered contender, however small the file.

use std::{
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hdrhistogram::Histogram;

use crate::{
    Outcome,
    clock::{Stopwatch, cpu_seconds},
    rows::Random,
    tasks,
};

/// Four make a permutation that looks random.
const FEISTEL_ROUNDS: u64 = 4;

/// In which order, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    RandomRead,
    SequentialRead,
    SequentialWrite,
}

/// One measurement.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) path: PathBuf,
    pub(crate) file_bytes: u64,
    pub(crate) block_bytes: usize,
    pub(crate) depth: usize,
    pub(crate) access: Access,
    pub(crate) seconds: f64,
    pub(crate) seed: u64,
}

impl Job {
    pub(super) fn writes(&self) -> bool {
        self.access == Access::SequentialWrite
    }

    /// Offsets until the time of the job, which begins now, is over.
    pub(super) fn offsets(&self) -> Offsets {
        let blocks = self.file_bytes / self.block_bytes as u64;
        Offsets {
            number: AtomicU64::new(0),
            blocks,
            half_bits: (u64::BITS - blocks.leading_zeros()).div_ceil(2),
            block_bytes: self.block_bytes as u64,
            random: self.access == Access::RandomRead,
            seed: self.seed,
            once: false,
            watch: Stopwatch::start(),
            seconds: self.seconds,
        }
    }
}

/// Someone who can do jobs.
pub(super) trait Contender {
    fn name(&self) -> &str;
    /// Whether this job is one for it.
    fn takes(&self, job: &Job) -> bool;
    fn run(&self, job: &Job) -> Outcome<Measured>;
    /// What it is meant to reach as a share of the yardstick, if it is ours.
    fn goal(&self, _: &Job) -> Option<Goal> {
        None
    }
}

/// Shares of the yardstick that count as reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    /// Rate, at least.
    pub(super) rate_min: f64,
    /// CPU time per operation, at most.
    pub(super) cpu_max: Option<f64>,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Offsets {
    number: AtomicU64,
    blocks: u64,
    half_bits: u32,
    block_bytes: u64,
    random: bool,
    seed: u64,
    once: bool,
    watch: Stopwatch,
    seconds: f64,
}

impl Offsets {
    /// Ends, too, when every block was handed out: for contenders that the system's cache helps.
    pub(super) fn once(self) -> Self {
        Self { once: true, ..self }
    }

    /// The next offset, or none when the job is over.
    pub(super) fn next(&self) -> Option<u64> {
        let number = self.number.fetch_add(1, Ordering::Relaxed); // only uniqueness matters
        if self.seconds <= self.watch.seconds() || (self.once && self.blocks <= number) {
            return None;
        }
        let number = number % self.blocks;
        let block = if self.random { self.scattered(number) } else { number };
        Some(block * self.block_bytes)
    }

    /// A permutation of the block numbers: a Feistel network over the next even power of two,
    /// walked until it is back in range.
    fn scattered(&self, number: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let mut block = number;
        loop {
            let (mut left, mut right) = (block >> self.half_bits, block & mask);
            for round in 0..FEISTEL_ROUNDS {
                let key = self.seed << 32 | round << 28;
                (left, right) = (right, left ^ (Random::new(key ^ right).next() & mask));
            }
            block = left << self.half_bits | right;
            if block < self.blocks {
                return block;
            }
        }
    }
}

/// Measures wall and CPU time from its start.
#[derive(Debug)]
pub(super) struct Meter {
    watch: Stopwatch,
    cpu_seconds: f64,
}

impl Meter {
    pub(super) fn start() -> Self {
        Self { watch: Stopwatch::start(), cpu_seconds: cpu_seconds() }
    }

    /// What happened since the start; one entry of the histogram (nanoseconds) per operation.
    pub(super) fn finish(self, latencies: &Histogram<u64>) -> Measured {
        let operations = latencies.len() as f64;
        Measured {
            rate: operations / self.watch.seconds(),
            cpu_microseconds: (cpu_seconds() - self.cpu_seconds) * 1e6 / operations,
            p50_microseconds: latencies.value_at_quantile(0.50) as f64 / 1e3,
            p99_microseconds: latencies.value_at_quantile(0.99) as f64 / 1e3,
        }
    }
}

/// Latencies of many tasks that few threads poll. A histogram for each task would be megabytes of
/// new memory, whose first touch costs as much as hundreds of reads in a short measurement.
#[derive(Debug)]
pub(super) struct Latencies {
    shares: [Mutex<Histogram<u64>>; tasks::THREADS],
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self { shares: std::array::from_fn(|_| Mutex::new(histogram())) }
    }

    /// For the task of this number: what it shares a thread with shares a histogram with it.
    pub(super) fn record(&self, task: usize, started: Stopwatch) -> Outcome<()> {
        let mut share = self.share(task);
        Ok(share.record(started.nanoseconds())?)
    }

    pub(super) fn all(&self) -> Outcome<Histogram<u64>> {
        let mut all = histogram();
        for share in 0..self.shares.len() {
            all.add(&*self.share(share))?;
        }
        Ok(all)
    }

    fn share(&self, task: usize) -> MutexGuard<'_, Histogram<u64>> {
        let share = &self.shares[task % self.shares.len()];
        share.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An empty histogram of nanoseconds.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are a valid precision")
}

/// The outcome of a job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Operations per second.
    pub(crate) rate: f64,
    /// CPU time per operation.
    pub(crate) cpu_microseconds: f64,
    pub(crate) p50_microseconds: f64,
    pub(crate) p99_microseconds: f64,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn random_offsets_visit_every_block_once() {
        for (blocks, seed) in [(1, 0), (7, 1), (64, 2), (1000, 3), (1 << 12, 99)] {
            let job = Job {
                path: PathBuf::new(),
                file_bytes: blocks * 4096,
                block_bytes: 4096,
                depth: 1,
                access: Access::RandomRead,
                seconds: f64::INFINITY,
                seed,
            };
            let offsets = job.offsets().once();
            let seen: Vec<u64> = std::iter::from_fn(|| offsets.next()).collect();
            let distinct: BTreeSet<u64> = seen.iter().copied().collect();
            assert_eq!(seen.len() as u64, blocks, "seed {seed}");
            assert_eq!(distinct.len() as u64, blocks, "seed {seed}");
            assert!(distinct.iter().all(|at| at % 4096 == 0 && *at < job.file_bytes));
        }
    }
}
