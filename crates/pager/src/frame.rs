//! Frames: what the cache knows about each frame of the arena.
//!
//! A frame number is the offset of the frame in the arena in units of 4096 bytes, so the address is
//! one multiplication away and needs no look-up. A frame of several units uses the entry of its
//! first unit; the entries of the others stay free. One array, 16 bytes an entry: at 4096 bytes a
//! page, what describes the frames of half a gigabyte is two megabytes, and stays in the last
//! level of the processor's cache while the pages stream through it.
//!
//! Ordering: `owner` is written by the loader alone (frame in loading) and read under a pin that
//! saw the frame resident; the state word orders it, so it is Relaxed.

use crate::frame_state::FrameState;
use crate::sync::{AtomicU64, Ordering};

/// The unit of frame sizes and of the pin budget, in bytes.
pub(crate) const UNIT_BYTES: usize = 4096;

/// The number of a frame: its offset in the arena in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameNo(pub(crate) u32);

impl FrameNo {
    /// The index of the frame's entry.
    #[inline]
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    /// The offset of the frame in the arena, in bytes.
    #[inline]
    pub(crate) fn offset_bytes(self) -> usize {
        self.index() * UNIT_BYTES
    }
}

// A frame number indexes memory, so it must fit an index.
const _: () = assert!(size_of::<u32>() <= size_of::<usize>());

/// Which page of which file a frame holds: the file's key and the page number.
///
/// Keys are unique among the open files of a cache. A key may be used again after its file is
/// dropped: the new file starts with an empty page table, so it can only find frames that were
/// loaded for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner(u64);

impl Owner {
    /// Of a frame that was never loaded. No file has this key.
    const NOBODY: Self = Self(u64::MAX);

    #[inline]
    pub(crate) const fn new(file_key: u32, page: u32) -> Self {
        Self(((file_key as u64) << 32) | page as u64)
    }

    /// The key of the file.
    pub(crate) fn key(self) -> u32 {
        u32::try_from(self.0 >> 32).expect("32 bits")
    }

    /// The number of the page.
    pub(crate) fn page(self) -> u32 {
        u32::try_from(self.0 & 0xffff_ffff).expect("32 bits")
    }

    /// A number to spread owners over large tables: all of its bits are mixed.
    pub(crate) fn wide_hash(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    /// A number to spread owners over locks.
    pub(crate) fn hash(self) -> u64 {
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
    }
}

/// One entry of the frame array.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(C, align(16)))]
pub(crate) struct Frame {
    pub(crate) state: FrameState,
    owner: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Frame>() == 16);

impl Frame {
    pub(crate) fn new() -> Self {
        Self { state: FrameState::free(), owner: AtomicU64::new(Owner::NOBODY.0) }
    }

    /// Whose page this is. Stable while the caller holds a pin that saw the frame resident.
    #[inline]
    pub(crate) fn owner(&self) -> Owner {
        Owner(self.owner.load(Ordering::Relaxed))
    }

    /// Names the page that is being loaded. The caller owns the frame (loading).
    pub(crate) fn assign(&self, owner: Owner) {
        self.owner.store(owner.0, Ordering::Relaxed);
    }
}
