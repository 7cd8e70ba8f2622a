//! Append-only memory: one [`Appender`] writes, any number of readers see a growing prefix.
//!
//! ```text
//! | committed: immutable, readable by all | free: touched by the appender only |
//! 0                                    committed                          capacity
//! ```
//!
//! Guarantee: bytes below `committed` never change again, so a reader's slice stays valid while
//! the appender goes on. There is exactly one appender, and it is not cloneable.
//! Ordering: the appender's store to `committed` is Release and pairs with the Acquire load in
//! `Chunk::committed`; that makes the bytes below visible before the number is.
//! Tested below, with readers running beside the appender, also under Miri.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::allocation::Allocation;
use super::{ChunkPool, MemoryError};

/// From this size on a chunk gets its own mapping: it is filled once and then goes back to the
/// system, where an allocator would keep it for a thread that may not ask again.
const MAPPED_CHUNK_BYTES: usize = 64 << 10;

/// The readable side of an append-only buffer.
pub struct Chunk {
    memory: Allocation,
    capacity: usize,
    committed: AtomicUsize,
    /// Where the memory goes when the last reader is gone.
    pool: Option<Arc<ChunkPool>>,
    /// The memory was another chunk's before: what is free holds anything.
    recycled: bool,
}

impl Chunk {
    /// A new chunk of `len` bytes with nothing committed, and its only appender.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] when there is no memory.
    pub fn new(len: usize) -> Result<(Appender, Arc<Self>), MemoryError> {
        let memory = if len < MAPPED_CHUNK_BYTES {
            Allocation::small(len)?
        } else {
            Allocation::large(len)?
        };
        Ok(Self::in_memory(memory, len, None, false))
    }

    /// A chunk of `capacity` bytes in memory of at least as many, initialised.
    pub(super) fn in_memory(
        memory: Allocation,
        capacity: usize,
        pool: Option<Arc<ChunkPool>>,
        recycled: bool,
    ) -> (Appender, Arc<Self>) {
        assert!(capacity <= memory.bytes(), "a chunk lies in its memory");
        let committed = AtomicUsize::new(0);
        let chunk = Arc::new(Self { memory, capacity, committed, pool, recycled });
        (Appender { chunk: Arc::clone(&chunk) }, chunk)
    }

    /// How many bytes are readable. Never shrinks.
    pub fn committed(&self) -> usize {
        self.committed.load(Ordering::Acquire)
    }

    /// The committed bytes.
    pub fn bytes(&self) -> &[u8] {
        let committed = self.committed();
        // SAFETY: `committed <= capacity`; these bytes are initialised and nobody writes below
        // `committed` again, so the shared slice is sound while the appender goes on above it.
        unsafe { std::slice::from_raw_parts(self.memory.base().as_ptr(), committed) }
    }

    /// The length in bytes that the chunk may grow to.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of memory that it takes, full or not.
    pub fn memory_bytes(&self) -> usize {
        self.memory.bytes()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.take_back(std::mem::replace(&mut self.memory, Allocation::empty()));
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Chunk")
            .field("committed", &self.committed())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// The only writer of a [`Chunk`].
#[derive(Debug)]
pub struct Appender {
    chunk: Arc<Chunk>,
}

impl Appender {
    /// Appends `bytes` and makes them readable.
    ///
    /// # Panics
    ///
    /// When they do not fit: check [`Appender::remaining`] first.
    pub fn append(&mut self, bytes: &[u8]) {
        self.append_with(bytes.len(), |free| free.copy_from_slice(bytes));
    }

    /// Lets `fill` write the next `len` bytes in place, then makes them readable.
    ///
    /// The slice holds zeros, unless an earlier `fill` panicked half-way: then nothing of it became
    /// readable, and what it wrote is still there.
    ///
    /// # Panics
    ///
    /// When `len` bytes do not fit: check [`Appender::remaining`] first.
    pub fn append_with(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) {
        let (start, remaining) = (self.position(), self.remaining());
        assert!(len <= remaining, "{len} bytes appended to a chunk with {remaining} left");
        // SAFETY: `start <= capacity`.
        let free = unsafe { self.chunk.memory.base().add(start) };
        // SAFETY: `start + len <= capacity`; bytes above `committed` are initialised (zeroed at
        // birth, or written by the chunk whose memory it was), no reader looks at them, and
        // `&mut self` is the only appender.
        let free = unsafe { std::slice::from_raw_parts_mut(free.as_ptr(), len) };
        if self.chunk.recycled {
            free.fill(0);
        }
        fill(free);
        self.chunk.committed.store(start + len, Ordering::Release);
    }

    /// How many bytes still fit.
    pub fn remaining(&self) -> usize {
        self.chunk.capacity() - self.position()
    }

    /// The readable side.
    pub fn chunk(&self) -> &Arc<Chunk> {
        &self.chunk
    }

    /// Relaxed is enough: only this appender stores to `committed`.
    fn position(&self) -> usize {
        self.chunk.committed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::BLOCK_BYTES;
    use super::*;

    #[test]
    fn readers_see_whole_appends_while_the_appender_goes_on() {
        let records: usize = if cfg!(miri) { 64 } else { 20_000 };
        let (mut appender, chunk) = Chunk::new(records * 8).unwrap();

        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut seen = 0;
                    while seen < chunk.capacity() {
                        let bytes = chunk.bytes();
                        assert!(seen <= bytes.len() && bytes.len().is_multiple_of(8));
                        for (index, record) in bytes.chunks(8).enumerate().skip(seen / 8) {
                            assert_eq!(record, (index as u64).to_le_bytes());
                        }
                        seen = bytes.len();
                        std::thread::yield_now();
                    }
                });
            }
            for record in 0..records {
                appender.append(&(record as u64).to_le_bytes());
            }
        });

        assert_eq!((appender.remaining(), chunk.committed()), (0, records * 8));
    }

    #[test]
    fn a_slice_taken_early_stays_valid() {
        let (mut appender, chunk) = Chunk::new(16).unwrap();
        appender.append(b"first");
        let early = chunk.bytes();

        appender.append_with(6, |free| free.copy_from_slice(b"second"));

        assert_eq!((early, chunk.bytes()), (&b"first"[..], &b"firstsecond"[..]));
        assert_eq!(chunk.bytes().as_ptr().addr() % BLOCK_BYTES, 0);
    }

    #[test]
    fn a_fill_that_panics_commits_nothing() {
        let (mut appender, chunk) = Chunk::new(8).unwrap();

        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            appender.append_with(4, |free| {
                free[0] = 1;
                panic!("planned");
            });
        }));

        assert!(outcome.is_err());
        assert_eq!((chunk.committed(), appender.remaining()), (0, 8));
    }

    #[test]
    #[should_panic(expected = "9 bytes appended to a chunk with 8 left")]
    fn an_append_that_does_not_fit_is_refused() {
        let (mut appender, _chunk) = Chunk::new(8).unwrap();

        appender.append(&[0; 9]);
    }

    #[test]
    fn large_chunks_work_like_small_ones() {
        let (mut appender, chunk) = Chunk::new(MAPPED_CHUNK_BYTES + 4096).unwrap();

        appender.append_with(MAPPED_CHUNK_BYTES + 1, |free| free.fill(9));

        assert!(chunk.bytes() == vec![9; MAPPED_CHUNK_BYTES + 1]);
    }
}
