//! Trace of reads: what was read of which page, for `nephrite cache-replay`.
//!
//! The readers tell the file what they have read ([`crate::CachedFile::trace_read`]); without a
//! recorder that is one branch. With one, a read goes into a buffer that somebody else empties with
//! [`TraceRecorder::take`].
//!
//! Guarantee: a reader never waits. A buffer that is full, or all being locked by other threads,
//! drops the read and counts it: each read is taken once or counted as dropped once. Memory is
//! bounded by the capacity. Reads of one thread are taken in their order, and those of several in
//! the order in which they drew their numbers.
//! Checked by the loom model `trace`, with an uncounted drop as planted bug, and below.

use std::sync::atomic::AtomicU32 as Number;
use std::sync::atomic::Ordering::Relaxed;

use crate::hit_counter::thread_number;
use crate::planted::planted;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// Buffers, so that threads seldom meet in one.
const SHARDS: usize = if cfg!(loom) { 1 } else { 16 };

/// The unit of places in a page, in bytes: vectors begin at multiples of it.
pub const TRACE_UNIT_BYTES: u32 = 64;

/// One read: which part of which page.
#[expect(clippy::exhaustive_structs, reason = "a plain record, made by whoever reads a trace")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageRead {
    /// The file, numbered in the order of opening.
    pub file: u32,
    /// The page in the file.
    pub page: u32,
    /// Where in the page what was read begins, in units of [`TRACE_UNIT_BYTES`].
    pub start: u16,
    /// How long it is, in the same units.
    pub length: u16,
    /// The length of the page in units of 4096 bytes, 1 to 16.
    pub page_units: u8,
}

/// A read and its place in the order of all.
type Numbered = (u64, PageRead);

/// Takes the reads of one cache.
#[derive(Debug)]
pub struct TraceRecorder {
    shards: Box<[Mutex<Vec<Numbered>>]>,
    shard_capacity: usize,
    next_read: AtomicU64,
    dropped: AtomicU64,
    next_file: Number,
}

impl TraceRecorder {
    /// A recorder that holds at most `capacity` reads (24 bytes each) until they are taken.
    pub fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_capacity: capacity.div_ceil(SHARDS),
            next_read: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            next_file: Number::new(0),
        }
    }

    /// Moves what was recorded to the end of `reads`, in order; returns how many reads were dropped
    /// since the last time.
    pub fn take(&self, reads: &mut Vec<PageRead>) -> u64 {
        let mut taken = Vec::new();
        for shard in &self.shards {
            taken.append(&mut *lock(shard));
        }
        taken.sort_unstable_by_key(|(number, _)| *number);
        reads.extend(taken.into_iter().map(|(_, read)| read));
        // Relaxed: a count; which batch a drop is told with does not matter.
        self.dropped.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn number_file(&self) -> u32 {
        self.next_file.fetch_add(1, Relaxed)
    }

    pub(crate) fn record(&self, read: PageRead) {
        let first = thread_number().unwrap_or(0) % self.shards.len();
        let (before, after) = self.shards.split_at(first);
        // The next one when its buffer is being emptied just now.
        for shard in after.iter().chain(before) {
            let Ok(mut reads) = shard.try_lock() else { continue };
            if self.shard_capacity <= reads.len() {
                break;
            }
            // Relaxed: numbers only sort; each is drawn once.
            let number = self.next_read.fetch_add(1, Ordering::Relaxed);
            reads.push((number, read));
            return;
        }
        if planted("trace_uncounted") {
            return;
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn read(page: u32) -> PageRead {
        PageRead { file: 0, page, start: 0, length: 8, page_units: 1 }
    }

    #[test]
    fn reads_come_out_in_order_and_once() {
        let recorder = TraceRecorder::new(100);
        (0..5).for_each(|page| recorder.record(read(page)));

        let mut reads = Vec::new();
        assert_eq!(recorder.take(&mut reads), 0);
        assert_eq!(recorder.take(&mut reads), 0);

        assert_eq!(reads, (0..5).map(read).collect::<Vec<_>>());
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let recorder = TraceRecorder::new(SHARDS * 3);
        (0..10).for_each(|page| recorder.record(read(page)));

        let mut reads = Vec::new();

        assert_eq!((recorder.take(&mut reads), reads.len()), (7, 3));
        recorder.record(read(11));
        assert_eq!((recorder.take(&mut reads), reads.len()), (0, 4));
    }

    #[test]
    fn no_read_of_many_threads_is_lost_uncounted() {
        let (threads, each) = (8, if cfg!(miri) { 20 } else { 5000 });
        let recorder = TraceRecorder::new(20_000);
        let (mut reads, mut dropped) = (Vec::new(), 0);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..each).for_each(|page| recorder.record(read(page))));
            }
            dropped += recorder.take(&mut reads);
        });
        dropped += recorder.take(&mut reads);

        assert_eq!(reads.len() as u64 + dropped, u64::from(threads * each));
    }
}
