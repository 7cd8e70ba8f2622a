//! What a rival must be able to do, and the vectors that all of them store.
//!
//! A vector is made from its id, so nothing has to be kept in memory to check it: its first two
//! values name the id, and every read compares them. Reads load one value of every cache line.

use std::{path::Path, thread};

use hdrhistogram::Histogram;

use crate::{Outcome, clock::Stopwatch, rows::Random};

/// Digits of a latency that are kept. With three each of 64 readers would have 150 KiB for them,
/// and all together a sixth of the memory that is theirs and the store's when cold.
pub(super) const DIGITS: u8 = 2;
/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// What is stored, and with how much memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) vectors: u64,
    pub(super) dimension: usize,
    /// Asked of those who have a choice.
    pub(super) page_bytes: Option<u32>,
    /// For everything that a rival keeps, its share of the system's cache included.
    pub(super) memory_bytes: u64,
}

impl Shape {
    pub(super) fn vector_bytes(&self) -> usize {
        self.dimension * size_of::<f32>()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.vectors * self.vector_bytes() as u64
    }

    /// Appends the vector of an id.
    pub(super) fn make(&self, id: u64, into: &mut Vec<f32>) {
        let mut random = Random::new(id);
        into.extend(marks(id));
        into.extend((2..self.dimension).map(|_| random.next_f32()));
    }

    /// Loads every cache line of a stored vector; an error if it is another id's.
    pub(super) fn touch(&self, id: u64, stored: &[u8]) -> Outcome<()> {
        let marked = marks(id).iter().flat_map(|mark| mark.to_ne_bytes()).eq(stored[..8].to_vec());
        if stored.len() != self.vector_bytes() || !marked {
            return Err(format!("what is stored under id {id} is another vector").into());
        }
        let sum = stored.iter().step_by(LINE_BYTES).fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        std::hint::black_box(sum);
        Ok(())
    }
}

/// Two values that name an id below 2^48.
fn marks(id: u64) -> [f32; 2] {
    let half = |bits: u64| u32::try_from(bits & 0xff_ffff).expect("24 bits are left") as f32;
    [half(id), half(id >> 24)]
}

/// How long a write waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Until it is accepted.
    Accepted,
    /// Until it is on disk.
    Durable,
}

/// A store of vectors under `u64` ids that is open.
pub(super) trait Rival: Sync {
    /// Stores a batch; `vectors` has as many vectors as there are ids.
    fn put(&self, ids: &[u64], vectors: &[f32], wait: Wait) -> Outcome<()>;

    /// Finds a vector and touches it.
    fn get(&self, id: u64) -> Outcome<()>;

    /// Finds and touches every one of the ids.
    fn get_many(&self, ids: &[u64]) -> Outcome<()> {
        ids.iter().try_for_each(|id| self.get(*id))
    }

    /// Touches every vector; how many there were.
    fn scan(&self) -> Outcome<u64>;

    /// Returns when everything that was put is on disk.
    fn sync(&self) -> Outcome<()>;

    /// Each worker gets its ids, one after the other; latencies in nanoseconds.
    fn get_by_workers(&self, plans: &[Vec<u64>]) -> Outcome<Histogram<u64>> {
        by_threads(plans, |id| self.get(id))
    }

    /// Each worker stores its ids, one durable write after the other.
    fn put_by_workers(&self, plans: &[Vec<u64>], shape: &Shape) -> Outcome<Histogram<u64>> {
        by_threads(plans, |id| {
            let mut vector = Vec::with_capacity(shape.dimension);
            shape.make(id, &mut vector);
            self.put(&[id], &vector, Wait::Durable)
        })
    }
}

/// A thread per plan: what a blocking store can do.
fn by_threads(
    plans: &[Vec<u64>],
    step: impl Fn(u64) -> Outcome<()> + Sync,
) -> Outcome<Histogram<u64>> {
    let run = |plan: &[u64]| -> Outcome<Histogram<u64>> {
        let mut latencies = Histogram::new(DIGITS)?;
        for id in plan {
            let watch = Stopwatch::start();
            step(*id)?;
            latencies.record(watch.nanoseconds())?;
        }
        Ok(latencies)
    };
    let mut latencies = Histogram::new(DIGITS)?;
    let of_threads: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = plans.iter().map(|plan| scope.spawn(|| run(plan))).collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    for of_thread in of_threads {
        latencies.add(of_thread.map_err(|_| "a worker panicked")??)?;
    }
    Ok(latencies)
}

/// Opens the store in a directory, or makes an empty one there.
pub(super) type Open = fn(&Path, &Shape) -> Outcome<Box<dyn Rival>>;

/// A kind of rival.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// What it keeps when it is dropped: one that keeps nothing only takes part when hot.
    pub(super) persists: bool,
    /// None for the device itself.
    pub(super) open: Option<Open>,
}
