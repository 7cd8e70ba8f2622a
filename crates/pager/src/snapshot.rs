//! Snapshot cell: one value that is replaced as a whole and read by everybody.
//!
//! [`Snapshot::peek`] lends the value for a moment and [`Snapshot::load`] shares it, each for a few
//! nanoseconds; a [`SnapshotReader`] keeps the value it saw last and costs one atomic load while
//! nothing changed. Publishing is for once per flush, not once per
//! page: its cost grows with the number of threads that ever read any snapshot.
//!
//! Guarantee: a load that begins after a store has returned sees that store or a later one. Loads
//! of one reader never go back.
//! Does not: reclaim promptly. An idle reader keeps the value it saw last alive until its next
//! load, so a value should hold metadata and shared chunks, and nobody may wait for it to be
//! dropped.
//!
//! The shipped cell is `arc-swap`, whose protocol the model checker cannot follow (it needs SeqCst
//! in a way that loom does not model). With `--cfg loom` the same interface is a generation cell: a
//! number and a locked `Arc`; the model `snapshot_cell` checks it with a planted bug. This file is
//! the only one that knows.

#[cfg(not(loom))]
pub use swapped::{Snapshot, SnapshotPeek, SnapshotReader};

#[cfg(loom)]
pub use generation::{Snapshot, SnapshotPeek, SnapshotReader};

#[cfg(not(loom))]
mod swapped {
    use std::fmt;
    use std::ops::Deref;
    use std::sync::Arc;

    use arc_swap::ArcSwap;
    use arc_swap::cache::Cache;

    /// A value that is replaced as a whole. Clones share the cell.
    pub struct Snapshot<T> {
        cell: Arc<ArcSwap<T>>,
    }

    /// A reader of a [`Snapshot`] with the value it saw last. One for each thread or task.
    pub struct SnapshotReader<T> {
        cache: Cache<Arc<ArcSwap<T>>, Arc<T>>,
    }

    /// The value of a [`Snapshot`], lent for a moment: no reference count that other readers share
    /// is touched. For use within one call; a thread that keeps several makes its next ones dear.
    #[derive(Debug)]
    pub struct SnapshotPeek<T>(arc_swap::Guard<Arc<T>>);

    impl<T> Deref for SnapshotPeek<T> {
        type Target = T;

        #[inline]
        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T> Snapshot<T> {
        /// A cell with its first value.
        pub fn new(value: Arc<T>) -> Self {
            Self { cell: Arc::new(ArcSwap::new(value)) }
        }

        /// The current value, for a moment.
        #[inline]
        pub fn peek(&self) -> SnapshotPeek<T> {
            SnapshotPeek(self.cell.load())
        }

        /// The current value.
        pub fn load(&self) -> Arc<T> {
            self.cell.load_full()
        }

        /// Replaces the value. Concurrent stores end in some order.
        pub fn store(&self, value: Arc<T>) {
            self.cell.store(value);
        }

        /// A new reader of this cell.
        pub fn reader(&self) -> SnapshotReader<T> {
            SnapshotReader { cache: Cache::new(Arc::clone(&self.cell)) }
        }
    }

    impl<T> SnapshotReader<T> {
        /// The current value; one atomic load when it is still the last one.
        pub fn load(&mut self) -> &Arc<T> {
            self.cache.load()
        }
    }

    impl<T> Clone for Snapshot<T> {
        fn clone(&self) -> Self {
            Self { cell: Arc::clone(&self.cell) }
        }
    }

    impl<T> Clone for SnapshotReader<T> {
        fn clone(&self) -> Self {
            Self { cache: self.cache.clone() }
        }
    }

    impl<T: fmt::Debug> fmt::Debug for Snapshot<T> {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.debug_tuple("Snapshot").field(&self.load()).finish()
        }
    }

    impl<T> fmt::Debug for SnapshotReader<T> {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.debug_struct("SnapshotReader").finish_non_exhaustive()
        }
    }
}

/// Ordering: `store` replaces the value before it counts the generation on (Release); a reader that
/// sees the number (Acquire) finds that value or a later one under the lock. It reads the number
/// again under the lock, so that it never notes a number newer than its value.
#[cfg(loom)]
mod generation {
    use std::fmt;
    use std::ops::Deref;
    use std::sync::Arc;

    use crate::planted::planted;
    use crate::sync::{AtomicU64, Mutex, Ordering, lock};

    /// A value that is replaced as a whole. Clones share the cell.
    pub struct Snapshot<T> {
        cell: Arc<Cell<T>>,
    }

    struct Cell<T> {
        generation: AtomicU64,
        value: Mutex<Arc<T>>,
    }

    /// A reader of a [`Snapshot`] with the value it saw last. One for each thread or task.
    pub struct SnapshotReader<T> {
        cell: Arc<Cell<T>>,
        seen: u64,
        value: Arc<T>,
    }

    /// The value of a [`Snapshot`], lent for a moment.
    #[derive(Debug)]
    pub struct SnapshotPeek<T>(Arc<T>);

    impl<T> Deref for SnapshotPeek<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T> Snapshot<T> {
        /// The current value, for a moment.
        pub fn peek(&self) -> SnapshotPeek<T> {
            SnapshotPeek(self.load())
        }

        /// A cell with its first value.
        pub fn new(value: Arc<T>) -> Self {
            let cell = Cell { generation: AtomicU64::new(0), value: Mutex::new(value) };
            Self { cell: Arc::new(cell) }
        }

        /// The current value.
        pub fn load(&self) -> Arc<T> {
            Arc::clone(&lock(&self.cell.value))
        }

        /// Replaces the value. Concurrent stores end in some order.
        pub fn store(&self, value: Arc<T>) {
            if planted("snapshot_early") {
                self.cell.generation.fetch_add(1, Ordering::Release);
                *lock(&self.cell.value) = value;
                return;
            }
            let mut current = lock(&self.cell.value);
            *current = value;
            self.cell.generation.fetch_add(1, Ordering::Release);
        }

        /// A new reader of this cell.
        pub fn reader(&self) -> SnapshotReader<T> {
            let (seen, value) = self.cell.current();
            SnapshotReader { cell: Arc::clone(&self.cell), seen, value }
        }
    }

    impl<T> Cell<T> {
        fn current(&self) -> (u64, Arc<T>) {
            let value = lock(&self.value);
            // Relaxed: the number changes under the lock only.
            (self.generation.load(Ordering::Relaxed), Arc::clone(&value))
        }
    }

    impl<T> SnapshotReader<T> {
        /// The current value; one atomic load when it is still the last one.
        pub fn load(&mut self) -> &Arc<T> {
            if self.cell.generation.load(Ordering::Acquire) != self.seen {
                (self.seen, self.value) = self.cell.current();
            }
            &self.value
        }
    }

    impl<T> Clone for Snapshot<T> {
        fn clone(&self) -> Self {
            Self { cell: Arc::clone(&self.cell) }
        }
    }

    impl<T> Clone for SnapshotReader<T> {
        fn clone(&self) -> Self {
            Self { cell: Arc::clone(&self.cell), seen: self.seen, value: Arc::clone(&self.value) }
        }
    }

    impl<T: fmt::Debug> fmt::Debug for Snapshot<T> {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.debug_tuple("Snapshot").field(&self.load()).finish()
        }
    }

    impl<T> fmt::Debug for SnapshotReader<T> {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.debug_struct("SnapshotReader").finish_non_exhaustive()
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn readers_see_the_newest_value_and_never_go_back() {
        let rounds: u64 = if cfg!(miri) { 20 } else { 2_000 };
        let snapshot = Snapshot::new(Arc::new(0_u64));

        std::thread::scope(|scope| {
            for _ in 0..2 {
                let mut reader = snapshot.reader();
                scope.spawn(move || {
                    let mut last = 0;
                    while last < rounds {
                        let now = **reader.load();
                        assert!(last <= now, "{last} then {now}");
                        last = now;
                        std::thread::yield_now();
                    }
                });
            }
            (1..=rounds).for_each(|value| snapshot.store(Arc::new(value)));
        });

        assert_eq!((*snapshot.load(), **snapshot.reader().load()), (rounds, rounds));
    }

    #[test]
    fn a_peek_keeps_its_value_while_it_lasts() {
        let snapshot = Snapshot::new(Arc::new(1));
        let before = snapshot.peek();

        snapshot.store(Arc::new(2));

        assert_eq!((*before, *snapshot.peek()), (1, 2));
    }

    #[test]
    fn an_idle_reader_keeps_its_value_until_its_next_load() {
        let first = Arc::new(1);
        let snapshot = Snapshot::new(Arc::clone(&first));
        let mut reader = snapshot.reader();
        reader.load();

        snapshot.store(Arc::new(2));
        assert_eq!(Arc::strong_count(&first), 2);

        assert_eq!(**reader.load(), 2);
        assert_eq!(Arc::strong_count(&first), 1);
    }
}
