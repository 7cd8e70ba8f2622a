//! Memory of all memtables of a store: what they hold, who waits for it, and why none comes free.
//!
//! Guarantees: large chunks come from a pool that keeps at most what one full memtable lets go at
//! once, and nothing while no memtable holds anything. Does not: decide who may grow
//! (`Core::admit`). Ordering: the number of bytes is a gauge; who waits for it listens first.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use event_listener::Event;
use nephrite_io::memory::ChunkPool;

use crate::{config::Config, error::Error};

/// Bytes of all memtables, and who waits for them to shrink.
#[derive(Debug)]
pub(crate) struct MemtableMemory {
    bytes: Arc<AtomicU64>,
    /// Where their large chunks come from and go back to.
    pub(crate) pool: Arc<ChunkPool>,
    pub(crate) freed: Event,
    /// Why the last flush failed; writers that find no memory get it.
    failure: Mutex<Option<Error>>,
    /// Why segments cannot be written at present (a full disk).
    unwritable: Mutex<Option<Error>>,
}

impl MemtableMemory {
    /// The pool keeps as much as one full memtable lets go at once. Those who write in the
    /// background see the bytes as well.
    pub(crate) fn new(config: &Config, bytes: &Arc<AtomicU64>) -> Self {
        let pooled = usize::try_from(config.memtable_limit()).unwrap_or(usize::MAX);
        Self {
            bytes: Arc::clone(bytes),
            pool: ChunkPool::new(pooled),
            freed: Event::new(),
            failure: Mutex::default(),
            unwritable: Mutex::default(),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) // a gauge
    }

    /// Bytes that wait for the next chunk.
    pub(crate) fn pooled_bytes(&self) -> u64 {
        self.pool.bytes() as u64
    }

    /// Gives back what waits for a next chunk, when nothing is written.
    pub(crate) fn rest(&self) {
        if self.bytes() == 0 {
            self.pool.clear();
        }
    }

    pub(crate) fn grow(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed); // a gauge
    }

    pub(crate) fn shrink(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed); // a gauge
        self.freed.notify(usize::MAX);
    }

    pub(crate) fn failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why segments cannot be written at present.
    pub(crate) fn unwritable(&self) -> Option<Error> {
        self.unwritable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_unwritable(&self, error: Option<Error>) {
        *self.unwritable.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    pub(crate) fn set_failure(&self, error: Option<Error>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = error;
        self.freed.notify(usize::MAX);
    }
}
