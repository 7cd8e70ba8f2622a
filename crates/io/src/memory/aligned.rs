//! A buffer of fixed length that direct I/O accepts.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::MemoryError;
use super::allocation::Allocation;

/// Buffers from this length on are mapped, so that they go back to the system with their owner: an
/// allocator keeps what it had to fetch for a burst of them (a bulk load, a compaction), and the C
/// library's, once it was given back a large block, keeps twice as much from then on.
const MAPPED_BYTES_MIN: usize = 64 * 1024;

/// An owned buffer: 4096-aligned, of fixed length, zeroed at birth.
///
/// From 64 KiB up it has a mapping of its own, on huge pages where they can be had; such a buffer
/// costs page faults when first touched, so keep and reuse it.
pub struct AlignedBuf {
    memory: Allocation,
}

impl AlignedBuf {
    /// A buffer of `len` zero bytes. `len` may be zero.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] when the allocator or the kernel has no memory left.
    pub fn zeroed(len: usize) -> Result<Self, MemoryError> {
        let memory =
            if len < MAPPED_BYTES_MIN { Allocation::small(len)? } else { Allocation::large(len)? };
        Ok(Self { memory })
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the allocation is `bytes` long, initialised (zeroed), and owned by `self`, which
        // is borrowed shared for as long as the slice lives.
        unsafe { std::slice::from_raw_parts(self.memory.base().as_ptr(), self.memory.bytes()) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.memory.base().as_ptr(), self.memory.bytes()) }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AlignedBuf").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BLOCK_BYTES, HUGE_PAGE_BYTES};
    use super::*;

    #[test]
    fn buffers_of_all_sizes_are_aligned_and_zeroed() {
        for len in [0, 1, 511, 4096, 4097, 65_536, HUGE_PAGE_BYTES, HUGE_PAGE_BYTES + 4096] {
            let buffer = AlignedBuf::zeroed(len).unwrap();

            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr().addr() % BLOCK_BYTES, 0, "length {len}");
            assert!(*buffer == vec![0; len], "length {len}");
        }
    }

    #[test]
    fn bytes_written_are_read_back() {
        let mut buffer = AlignedBuf::zeroed(HUGE_PAGE_BYTES + 1).unwrap();

        buffer[0] = 7;
        buffer[HUGE_PAGE_BYTES] = 9;

        assert_eq!((buffer[0], buffer[1], buffer[HUGE_PAGE_BYTES]), (7, 0, 9));
    }

    #[test]
    fn a_request_beyond_the_address_space_is_an_error() {
        let error = AlignedBuf::zeroed(usize::MAX).unwrap_err();

        assert_eq!(error.bytes(), usize::MAX);
        assert!(error.to_string().contains("lower the memory limit"));
    }

    #[cfg(all(unix, not(miri)))]
    #[test]
    fn a_buffer_of_a_huge_page_starts_at_one() {
        let buffer = AlignedBuf::zeroed(HUGE_PAGE_BYTES).unwrap();

        assert_eq!(buffer.as_ptr().addr() % HUGE_PAGE_BYTES, 0);
    }
}
