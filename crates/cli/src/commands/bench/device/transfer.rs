//! Transfers below the engine: a file, a block size and a depth, for some time.
//!
//! A thread keeps `depth` blocks in flight on a ring of its own, each submitted by a call of its
//! own, as `fio` does it unless told otherwise. Where there can be no such ring, or where it is
//! asked for, the disk's own threads carry them. Random blocks are visited in the order of a
//! permutation, so that nothing that caches helps before all were visited.
//!
//! Checked by: the tests below, and `tests/it/bench.rs` beside `fio`.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use nephrite_io::memory::{AlignedBuf, Arena, HUGE_PAGE_BYTES};
use nephrite_io::{
    CallerRing, Completed, Disk, FileHandle, IoBuffer, Operation, Request, block_on,
};

use super::super::keys::{Random, Shuffle};
use super::super::machine::cpu_seconds;
use super::super::recorder::Latencies;
use crate::clock::Stopwatch;
use crate::failure::Failure;
use crate::figures::{nanoseconds, per_second};

/// In which order, and which way, under fio's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(in super::super) enum Access {
    #[value(name = "randread")]
    RandomRead,
    #[value(name = "randwrite")]
    RandomWrite,
    #[value(name = "read")]
    SequentialRead,
    #[value(name = "write")]
    SequentialWrite,
    /// One block written over a written one and synced, then the next
    #[value(name = "fdatasync")]
    Synced,
}

impl Access {
    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::RandomRead => "randread",
            Self::RandomWrite => "randwrite",
            Self::SequentialRead => "read",
            Self::SequentialWrite => "write",
            Self::Synced => "fdatasync",
        }
    }

    pub(in super::super) fn is_random(self) -> bool {
        matches!(self, Self::RandomRead | Self::RandomWrite)
    }
}

/// Who submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Submitter {
    /// A ring of the calling thread, where there can be one.
    Caller,
    /// The disk's own threads.
    Disk,
    /// The same, with buffers that the kernel knows.
    DiskRegistered,
}

/// One measurement.
#[derive(Clone, Debug)]
pub(in super::super) struct Job {
    pub(in super::super) access: Access,
    pub(in super::super) block_bytes: u64,
    pub(in super::super) depth: usize,
    /// Transfers of this long before the measurement are not counted.
    pub(in super::super) ramp: Duration,
    pub(in super::super) duration: Duration,
    pub(in super::super) submitter: Submitter,
    pub(in super::super) seed: u64,
}

/// The file of a measurement; its length is a multiple of every block size.
#[derive(Clone, Debug)]
pub(in super::super) struct Target {
    pub(in super::super) disk: Arc<dyn Disk>,
    pub(in super::super) file: FileHandle,
    pub(in super::super) bytes: u64,
}

/// What a measurement gave.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Measured {
    pub(in super::super) operations: u64,
    pub(in super::super) seconds: f64,
    pub(in super::super) operations_per_second: f64,
    pub(in super::super) bytes_per_second: f64,
    pub(in super::super) latencies: Latencies,
    pub(in super::super) cpu_seconds: Option<f64>,
    /// Whether a ring of the calling thread carried it.
    pub(in super::super) by_caller: bool,
}

/// Ends a measurement early by a failure, as a signal does.
pub(in super::super) type Interrupt<'a> = &'a dyn Fn() -> Result<(), Failure>;

/// Keeps blocks in flight until the time is over; what a ramp moves is not counted.
pub(in super::super) fn run(
    target: &Target,
    job: &Job,
    interrupt: Interrupt<'_>,
) -> Result<Measured, Failure> {
    let ring = match job.submitter {
        Submitter::Caller => CallerRing::new(&target.disk).ok(),
        Submitter::Disk | Submitter::DiskRegistered => None,
    };
    let mut flight = Flight {
        target,
        job,
        ring: ring.as_ref(),
        arrivals: Arc::default(),
        idle: buffers(target, job)?,
        offsets: Offsets::new(target.bytes, job),
        started: vec![Stopwatch::start(); job.depth],
        in_flight: 0,
    };
    flight.run(job.ramp, interrupt)?;
    let cpu = cpu_seconds();
    let watch = Stopwatch::start();
    let latencies = flight.run(job.duration, interrupt)?;
    let seconds = watch.seconds();
    let used = cpu_seconds().zip(cpu).map(|(after, before)| after - before);
    let operations = latencies.len();
    Ok(Measured {
        operations,
        seconds,
        operations_per_second: per_second(operations, seconds),
        bytes_per_second: per_second(operations * job.block_bytes, seconds),
        latencies: Latencies::of(&latencies),
        cpu_seconds: used,
        by_caller: ring.is_some(),
    })
}

/// Fills a new file: blocks that were never written read faster than any device.
pub(in super::super) fn fill(target: &Target, interrupt: Interrupt<'_>) -> Result<(), Failure> {
    const STEP: u64 = 1 << 20;
    let mut buffer = huge_buffer(STEP)?;
    scramble(&mut buffer);
    for offset in (0..target.bytes).step_by(usize::try_from(STEP).expect("a small constant")) {
        interrupt()?;
        let written = nephrite_io::write(&*target.disk, &target.file, offset, buffer);
        buffer = block_on(written).map_err(Failure::error)?;
    }
    block_on(nephrite_io::sync(&*target.disk, &target.file)).map_err(Failure::error)
}

/// A buffer for each block in flight, with its number.
fn buffers(target: &Target, job: &Job) -> Result<Vec<(usize, IoBuffer)>, Failure> {
    let len = usize::try_from(job.block_bytes).map_err(Failure::error)?;
    if job.submitter == Submitter::DiskRegistered {
        let regions = Arena::lent_out(len, job.depth).map_err(Failure::error)?;
        let arena = regions.first().map(|region| Arc::clone(region.arena()));
        target.disk.register_arena(&arena.expect("a depth is at least 1"));
        return Ok(regions.into_iter().map(IoBuffer::from).enumerate().collect());
    }
    let make = |slot| {
        let mut buffer = match job.access.is_random() || len < HUGE_PAGE_BYTES / 4 {
            true => AlignedBuf::zeroed(len).map_err(Failure::error)?.into(),
            false => huge_buffer(job.block_bytes)?,
        };
        scramble(&mut buffer);
        Ok((slot, buffer))
    };
    (0..job.depth).map(make).collect()
}

/// The beginning of a huge page, which costs the kernel least.
fn huge_buffer(bytes: u64) -> Result<IoBuffer, Failure> {
    let len = usize::try_from(bytes).map_err(Failure::error)?;
    let buffer = AlignedBuf::zeroed(len.next_multiple_of(HUGE_PAGE_BYTES));
    Ok(IoBuffer::Part { buffer: buffer.map_err(Failure::error)?, len })
}

/// Bytes that no device finds easy.
fn scramble(buffer: &mut IoBuffer) {
    let mut random = Random::new(3, 0);
    for word in buffer.as_mut_slice().unwrap_or_default().chunks_exact_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
}

/// A block that was moved: its number, when it arrived, and what became of it.
type Arrival = (usize, Stopwatch, Completed);

/// Blocks that have arrived and were not looked at.
#[derive(Default)]
struct Arrivals {
    state: Mutex<ArrivalState>,
    any: Condvar,
}

#[derive(Default)]
struct ArrivalState {
    arrived: Vec<Arrival>,
    /// Whether the measuring thread sleeps: to notify is a system call, whoever listens.
    is_awaited: bool,
}

impl Arrivals {
    fn push(&self, slot: usize, completed: Completed) {
        let now = Stopwatch::start();
        let mut state = self.lock();
        state.arrived.push((slot, now, completed));
        let is_awaited = std::mem::take(&mut state.is_awaited);
        drop(state);
        if is_awaited {
            self.any.notify_one();
        }
    }

    /// Takes what is there in exchange for an empty list.
    fn take(&self, taken: &mut Vec<Arrival>) {
        std::mem::swap(&mut self.lock().arrived, taken);
    }

    fn is_empty(&self) -> bool {
        self.lock().arrived.is_empty()
    }

    fn wait(&self) {
        let mut state = self.lock();
        state.is_awaited = state.arrived.is_empty();
        let waited = self.any.wait_while(state, |state| state.arrived.is_empty());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, ArrivalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A measurement that runs. Requests own their buffers, so it may be dropped at any time.
struct Flight<'a> {
    target: &'a Target,
    job: &'a Job,
    ring: Option<&'a CallerRing>,
    arrivals: Arc<Arrivals>,
    idle: Vec<(usize, IoBuffer)>,
    offsets: Offsets,
    started: Vec<Stopwatch>,
    in_flight: usize,
}

impl Flight<'_> {
    fn run(
        &mut self,
        duration: Duration,
        interrupt: Interrupt<'_>,
    ) -> Result<Histogram<u32>, Failure> {
        let mut latencies = Histogram::new(3).map_err(Failure::error)?;
        let (watch, mut arrived) = (Stopwatch::start(), Vec::new());
        loop {
            let more = watch.elapsed() < duration;
            while more && let Some((slot, buffer)) = self.idle.pop() {
                let offset = self.offsets.next();
                self.submit(slot, buffer, offset);
            }
            if self.in_flight == 0 {
                return Ok(latencies);
            }
            self.wait();
            self.arrivals.take(&mut arrived);
            for (slot, ended, completed) in arrived.drain(..) {
                self.in_flight -= 1;
                completed.result.map_err(Failure::error)?;
                let latency = ended.since(self.started[slot]);
                latencies.record(nanoseconds(latency).max(1)).map_err(Failure::error)?;
                self.idle.extend(completed.buffer.map(|buffer| (slot, buffer)));
            }
            interrupt()?;
        }
    }

    fn submit(&mut self, slot: usize, buffer: IoBuffer, offset: u64) {
        let operation = match self.job.access {
            Access::RandomRead | Access::SequentialRead => Operation::Read { offset, buffer },
            Access::RandomWrite | Access::SequentialWrite => Operation::Write { offset, buffer },
            Access::Synced => Operation::WriteSynced { offset, buffer },
        };
        let arrivals = Arc::clone(&self.arrivals);
        let request = Request {
            file: self.target.file.clone(),
            operation,
            on_complete: Box::new(move |completed| arrivals.push(slot, completed)),
        };
        self.started[slot] = Stopwatch::start();
        self.in_flight += 1;
        match self.ring {
            Some(ring) => {
                ring.submit(vec![request]);
                ring.poll();
            }
            None => self.target.disk.submit(vec![request]),
        }
    }

    fn wait(&self) {
        match self.ring {
            Some(ring) => {
                // What a poll of a submission has brought needs no waiting.
                if self.arrivals.is_empty() {
                    ring.wait(None);
                }
            }
            None => self.arrivals.wait(),
        }
    }
}

/// The next block, without an end.
struct Offsets {
    number: u64,
    blocks: u64,
    block_bytes: u64,
    order: Option<Shuffle>,
}

impl Offsets {
    fn new(file_bytes: u64, job: &Job) -> Self {
        let blocks = file_bytes / job.block_bytes;
        let order = job.access.is_random().then(|| Shuffle::new(blocks, job.seed));
        Self { number: 0, blocks, block_bytes: job.block_bytes, order }
    }

    fn next(&mut self) -> u64 {
        let number = self.number % self.blocks;
        self.number += 1;
        self.order.map_or(number, |order| order.place(number)) * self.block_bytes
    }
}
