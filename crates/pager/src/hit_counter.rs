//! Hit counters: counting without sharing.
//!
//! Every thread that hits takes a number of its own, and with it a cell on a cache line of its own
//! in each cache. Only that thread writes the cell, so a plain load and store is exact and costs no
//! read-modify-write. Threads beyond [`CELLS`], and threads that are just ending, share one cell
//! with atomic additions.
//!
//! Guarantee: no hit is lost or counted twice; a sum taken while others hit is a moment's view.
//! Ordering: a number passes from a finished thread to a new one through the lock of the free
//! list, which orders their stores to the cell. Readers of the sum are Relaxed: it is a statistic.
//! The types are those of std also under loom, as no protocol depends on them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Threads with a cell of their own.
const CELLS: usize = if cfg!(loom) { 1 } else { 64 };

/// The hits of one cache.
#[derive(Debug)]
pub(crate) struct HitCounter {
    cells: Box<[Cell]>,
    shared: Cell,
}

/// A counter on a cache line of its own (two lines: adjacent ones are fetched in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell(AtomicU64);

impl HitCounter {
    pub(crate) fn new() -> Self {
        Self { cells: (0..CELLS).map(|_| Cell::default()).collect(), shared: Cell::default() }
    }

    /// Counts one hit.
    #[inline]
    pub(crate) fn count(&self) {
        match thread_number().and_then(|number| self.cells.get(number)) {
            // Relaxed load and store: this thread is the only writer of its cell.
            Some(Cell(cell)) => {
                cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            }
            None => {
                self.shared.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// All hits so far.
    pub(crate) fn sum(&self) -> u64 {
        let own: u64 = self.cells.iter().map(|cell| cell.0.load(Ordering::Relaxed)).sum();
        own + self.shared.0.load(Ordering::Relaxed)
    }

    /// The memory of the counters.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.cells)
    }
}

/// The numbers that ended threads have given back, and the first that was never given.
static NUMBERS: Mutex<(Vec<usize>, usize)> = Mutex::new((Vec::new(), 0));

struct ThreadNumber(usize);

/// A number that no other thread has now; none for a thread that is just ending.
#[inline]
pub(crate) fn thread_number() -> Option<usize> {
    THREAD_NUMBER.try_with(|number| number.0).ok()
}

thread_local! {
    static THREAD_NUMBER: ThreadNumber = ThreadNumber::take();
}

impl ThreadNumber {
    fn take() -> Self {
        let mut numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
        let reused = numbers.0.pop();
        Self(reused.unwrap_or_else(|| {
            numbers.1 += 1;
            numbers.1 - 1
        }))
    }
}

impl Drop for ThreadNumber {
    fn drop(&mut self) {
        // The lock orders this thread's stores before those of the next owner of the number.
        NUMBERS.lock().unwrap_or_else(PoisonError::into_inner).0.push(self.0);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn hits_of_many_threads_add_up() {
        let threads: u64 = if cfg!(miri) { 4 } else { 2 * CELLS as u64 };
        let counter = Arc::new(HitCounter::new());

        for _ in 0..2 {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| (0..10).for_each(|_| counter.count()));
                }
            });
        }

        assert_eq!(counter.sum(), 2 * 10 * threads);
    }
}
