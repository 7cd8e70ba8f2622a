//! Frame memory: the one arena in which pages lie, and the two ways to reach it.
//!
//! A loader gets the frame as an exclusive [`Region`]; a guard reads it through
//! [`FrameMemory::bytes`]. Both are promises to the arena that no safe code can break: a region is
//! lent out only while its frame is loading, and the frame leaves that state only after the region
//! has come back (`load.rs`); bytes are read only under a pin that saw the frame resident.
//!
//! With `--cfg loom` each frame also has a witness cell that the model checker watches: lending and
//! completing write it, making a guard reads it, so a protocol that lets a writer meet a reader
//! fails there.

use std::ops::Range;
use std::ptr::NonNull;

use nephrite_io::memory::{Arena, MemoryError, Region};

use crate::frame::{FrameNo, UNIT_BYTES};

/// The memory of all frames.
#[derive(Debug)]
pub(crate) struct FrameMemory {
    arena: std::sync::Arc<Arena>,
    #[cfg(loom)]
    witnesses: Vec<loom::cell::UnsafeCell<u64>>,
}

// SAFETY: the witness cells are written by the thread that owns a frame and read under its pins;
// that this holds is what loom checks.
#[cfg(loom)]
unsafe impl Sync for FrameMemory {}

impl FrameMemory {
    /// Reserves `units` of 4096 bytes.
    pub(crate) fn new(units: u32) -> Result<Self, MemoryError> {
        Ok(Self {
            arena: Arena::new(units as usize * UNIT_BYTES)?,
            #[cfg(loom)]
            witnesses: (0..units).map(|_| loom::cell::UnsafeCell::new(0)).collect(),
        })
    }

    /// Lends a frame to its loader.
    ///
    /// # Safety
    ///
    /// The frame is loading, the caller owns it, and it stays loading until the region is dropped.
    pub(crate) unsafe fn lend(&self, frame: FrameNo, bytes: usize) -> Region {
        #[cfg(loom)]
        self.witnesses[frame.index()].with_mut(|_| ());
        // SAFETY: frames do not overlap; the caller owns this one, so no other region of it and no
        // slice of it exists until the region is dropped.
        unsafe { self.arena.region(frame.offset_bytes(), bytes) }
    }

    /// Whether `region` is the window of this frame.
    pub(crate) fn is_window(&self, region: &Region, frame: FrameNo, bytes: usize) -> bool {
        std::sync::Arc::ptr_eq(region.arena(), &self.arena)
            && region.offset() == frame.offset_bytes()
            && region.len() == bytes
    }

    /// The address of a frame's bytes.
    ///
    /// # Safety
    ///
    /// The caller holds a pin of the frame that saw it resident, and uses the address only while it
    /// holds that pin.
    #[inline]
    pub(crate) unsafe fn bytes(&self, frame: FrameNo, bytes: usize) -> NonNull<u8> {
        #[cfg(loom)]
        self.witnesses[frame.index()].with(|_| ());
        // SAFETY: no region of a resident frame exists; the pin keeps it resident.
        NonNull::from(unsafe { self.arena.bytes(frame.offset_bytes(), bytes) }).cast()
    }

    /// Asks the processor for bytes of a frame, whatever state it is in.
    #[inline]
    pub(crate) fn prefetch(&self, frame: FrameNo, near: Range<u32>) {
        let (start, len) = (near.start as usize, near.len());
        self.arena.prefetch(frame.offset_bytes() + start, len);
    }

    /// Notes in the witness cell which page the loader has written.
    #[cfg(loom)]
    pub(crate) fn stamp(&self, frame: FrameNo, stamp: u64) {
        // SAFETY: the caller owns the frame (loading); loom checks that nobody else looks.
        self.witnesses[frame.index()].with_mut(|cell| unsafe { *cell = stamp });
    }

    /// Reads the witness cell under a pin.
    #[cfg(all(loom, test))]
    pub(crate) fn stamp_of(&self, frame: FrameNo) -> u64 {
        // SAFETY: the caller holds a pin; loom checks that nobody writes meanwhile.
        self.witnesses[frame.index()].with(|cell| unsafe { *cell })
    }

    pub(crate) fn bytes_total(&self) -> usize {
        self.arena.len()
    }

    pub(crate) fn huge_pages(&self) -> bool {
        self.arena.huge_pages()
    }
}
