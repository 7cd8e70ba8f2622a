//! Live rows: how many rows of a segment no newer segment or tombstone hides.
//!
//! A flush counts the rows that it buries while a compaction may be replacing the segment that they
//! lie in. So the count outlives its segment: it is forwarded to the count of the segment that
//! takes its place. Changed under the core's lock on swaps; read at any time as a gauge.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use nephrite_format::FileId;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct LiveRows {
    file: FileId,
    count: AtomicU32,
    forward: Mutex<Option<Arc<Self>>>,
}

impl LiveRows {
    pub(crate) fn new(file: FileId, count: u32) -> Arc<Self> {
        Arc::new(Self { file, count: AtomicU32::new(count), forward: Mutex::default() })
    }

    /// The segment that this is the count of.
    pub(crate) fn file(&self) -> FileId {
        self.file
    }

    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed) // a gauge
    }

    pub(crate) fn set(&self, count: u32) {
        self.count.store(count, Ordering::Relaxed); // a gauge
    }

    /// The count of the segment that holds these rows now.
    pub(crate) fn newest(self: &Arc<Self>) -> Arc<Self> {
        let mut newest = Arc::clone(self);
        loop {
            let forward = newest.forward.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match forward {
                Some(next) => newest = next,
                None => return newest,
            }
        }
    }

    /// This many rows are hidden from now on.
    pub(crate) fn bury(&self, rows: u32) {
        self.set(self.count().saturating_sub(rows));
    }

    /// The rows lie in another segment from now on.
    pub(crate) fn forward_to(&self, output: &Arc<Self>) {
        let mut forward = self.forward.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(forward.is_none(), "a segment is compacted once");
        *forward = Some(Arc::clone(output));
    }
}

impl Drop for LiveRows {
    /// A snapshot may keep the first of a long chain: taken apart without recursion.
    fn drop(&mut self) {
        let mut next = self.forward.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        while let Some(count) = next {
            let Some(mut last) = Arc::into_inner(count) else { return };
            next = last.forward.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_buried_in_a_segment_count_in_the_one_that_replaced_it() {
        let counts: Vec<_> = (0..3).map(|file| LiveRows::new(FileId::new(file), 10)).collect();
        counts[0].forward_to(&counts[1]);
        counts[1].forward_to(&counts[2]);
        counts[0].newest().bury(4);
        assert_eq!((counts[0].count(), counts[2].count()), (10, 6));
        counts[2].bury(7);
        assert_eq!(counts[2].count(), 0);
    }

    #[test]
    fn a_chain_of_any_length_is_dropped_without_recursion() {
        let first = LiveRows::new(FileId::new(0), 0);
        let mut last = Arc::clone(&first);
        for file in 1..200_000 {
            let next = LiveRows::new(FileId::new(file), 0);
            last.forward_to(&next);
            last = next;
        }
        drop(last);
        drop(first);
    }
}
