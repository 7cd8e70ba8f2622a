//! Large chunks whose memory serves again when their last reader is gone.
//!
//! Memory that was in use is mapped, and on a virtual machine backed by its host: a fresh huge page
//! has to be cleared, and may have to be found by the host first, which was seen to take fifty
//! times as long as filling it.
//!
//! Guarantees: a chunk from the pool is like any other, what is appended to begins as zeros; the
//! pool keeps no more free memory than it was told. Chunks that are not about a huge page long come
//! from the system and go back to it.
//! Does not: give memory back by itself; its owner calls [`ChunkPool::clear`].
//! Tested below and under Miri.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Appender, Chunk, HUGE_PAGE_BYTES, MemoryError, allocation::Allocation};

/// A chunk of at least this length gets a whole huge page: lengths are multiples of pages of any
/// size up to this.
const POOLED_BYTES_MIN: usize = HUGE_PAGE_BYTES - (64 << 10);

/// See the module documentation.
pub struct ChunkPool {
    free: Mutex<Vec<Allocation>>,
    free_max: usize,
}

impl ChunkPool {
    /// Keeps at most `bytes` of free memory.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::default(), free_max: bytes / HUGE_PAGE_BYTES })
    }

    /// As [`Chunk::new`].
    ///
    /// # Errors
    ///
    /// [`MemoryError`] when there is no memory.
    pub fn chunk(self: &Arc<Self>, len: usize) -> Result<(Appender, Arc<Chunk>), MemoryError> {
        if !(POOLED_BYTES_MIN..=HUGE_PAGE_BYTES).contains(&len) {
            return Chunk::new(len);
        }
        let free = self.free().pop();
        let recycled = free.is_some();
        let memory = match free {
            Some(memory) => memory,
            None => Allocation::large(HUGE_PAGE_BYTES)?,
        };
        Ok(Chunk::in_memory(memory, len, Some(Arc::clone(self)), recycled))
    }

    /// Bytes of free memory.
    pub fn bytes(&self) -> usize {
        self.free().len() * HUGE_PAGE_BYTES
    }

    /// Gives all free memory back to the system.
    pub fn clear(&self) {
        let free = std::mem::take(&mut *self.free());
        drop(free); // without the lock
    }

    /// The memory of a chunk that nobody can reach any more.
    pub(super) fn take_back(&self, memory: Allocation) {
        let mut free = self.free();
        if free.len() < self.free_max {
            free.push(memory);
        } else {
            drop(free);
            drop(memory);
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Allocation>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ChunkPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ChunkPool")
            .field("free_bytes", &self.bytes())
            .field("free_max", &self.free_max)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_serves_again_once_its_last_reader_is_gone() {
        let pool = ChunkPool::new(HUGE_PAGE_BYTES);
        let (mut appender, chunk) = pool.chunk(HUGE_PAGE_BYTES).unwrap();
        appender.append(&[7; 100]);
        let address = chunk.bytes().as_ptr();

        drop(appender);
        assert_eq!(pool.bytes(), 0, "it still has a reader");
        drop(chunk);
        assert_eq!(pool.bytes(), HUGE_PAGE_BYTES);

        let (mut appender, chunk) = pool.chunk(HUGE_PAGE_BYTES - 8192).unwrap();
        assert_eq!((pool.bytes(), chunk.capacity()), (0, HUGE_PAGE_BYTES - 8192));
        appender.append_with(200, |bytes| bytes[150] = 1);
        assert_eq!(chunk.bytes().as_ptr(), address);
        assert!(chunk.bytes().iter().enumerate().all(|(at, byte)| *byte == u8::from(at == 150)));
    }

    #[test]
    fn what_is_more_than_the_pool_may_keep_goes_back_to_the_system() {
        let pool = ChunkPool::new(2 * HUGE_PAGE_BYTES + 1);
        let chunks: Vec<_> = (0..3).map(|_| pool.chunk(HUGE_PAGE_BYTES).unwrap()).collect();
        drop(chunks);
        assert_eq!(pool.bytes(), 2 * HUGE_PAGE_BYTES);
        pool.clear();
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn chunks_of_other_lengths_are_not_kept() {
        let pool = ChunkPool::new(64 << 20);
        for len in [4096, 1 << 20, POOLED_BYTES_MIN - 1, HUGE_PAGE_BYTES + 1] {
            let (appender, chunk) = pool.chunk(len).unwrap();
            assert_eq!((appender.remaining(), chunk.memory_bytes()), (len, len));
        }
        assert_eq!(pool.bytes(), 0);
    }
}
