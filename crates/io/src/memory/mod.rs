//! Aligned memory that the kernel may read and write: buffers, the frame arena, append-only chunks.
//!
//! - [`AlignedBuf`]: one owned buffer of fixed length.
//! - [`Arena`] and [`Region`]: one reservation cut into windows by an owner that keeps the books.
//! - [`Chunk`] and [`Appender`]: bytes that one writer appends and many readers see grow.
//! - [`ChunkPool`]: large chunks whose memory serves again.
//! - [`prefetch_value`] and [`Arena::prefetch`]: hints to the processor.
//!
//! Guarantee: every start address is a multiple of [`BLOCK_BYTES`], every byte begins as zero, and
//! running out of memory is a [`MemoryError`], never a panic or an abort.
//! Not here: accounting against a limit, any I/O.
//! Unsafe code lives in the files of this folder only, and passes Miri (which sees the portable
//! allocator, since it cannot run `mmap` with `madvise`).

mod aligned;
mod allocation;
mod arena;
mod chunk;
mod chunk_pool;
mod error;
mod prefetch;

pub use aligned::AlignedBuf;
pub use arena::{Arena, Region};
pub use chunk::{Appender, Chunk};
pub use chunk_pool::ChunkPool;
pub use error::MemoryError;
pub use prefetch::prefetch_value;

/// The alignment of all memory here, in bytes: no common device asks direct I/O for more.
pub const BLOCK_BYTES: usize = 4096;

/// The largest base page of a supported platform: 64 KiB.
const SYSTEM_PAGE_BYTES_MAX: usize = 64 * 1024;

/// The size of a huge page, in bytes: mappings of at least this size are aligned to it.
pub const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;
