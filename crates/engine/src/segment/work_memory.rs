//! Memory that flushes and compactions hold while they run, as a number.
//!
//! Guarantee: what was taken by [`WorkMemory::hold`] is given back when its [`Held`] is dropped,
//! with the buffers it stands for. The number is charged to the share of the memtables: while a
//! compaction holds much, writers wait earlier.
//! Does not: refuse anything. Who takes more than a few buffers bounds it before
//! (`SegmentSink::make_room`, the pieces of a merge). The order of the
//! ids that a flush writes is held here too.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct WorkMemory(AtomicU64);

/// Some of it.
#[derive(Debug)]
pub(crate) struct Held {
    memory: Arc<WorkMemory>,
    bytes: u64,
}

impl WorkMemory {
    /// Counts `bytes` until the answer is dropped.
    pub(crate) fn hold(self: &Arc<Self>, bytes: u64) -> Held {
        self.0.fetch_add(bytes, Ordering::Relaxed); // a gauge that guards no memory
        Held { memory: Arc::clone(self), bytes }
    }

    /// Bytes held now.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed) // a gauge
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes, Ordering::Relaxed); // as in `hold`
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let memory = Arc::new(WorkMemory::default());

        let (first, second) = (memory.hold(5), memory.hold(7));
        assert_eq!(memory.bytes(), 12);
        drop(first);

        assert_eq!(memory.bytes(), 7);
        drop(second);
        assert_eq!(memory.bytes(), 0);
    }
}
