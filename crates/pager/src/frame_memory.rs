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
use crate::frame_array::FrameArray;

/// The memory of all frames.
#[derive(Debug)]
pub(crate) struct FrameMemory {
    /// The first byte of `arena`, so that a hit need not follow the pointer to it.
    start: NonNull<u8>,
    frame_bytes: usize,
    arena: std::sync::Arc<Arena>,
    #[cfg(loom)]
    witnesses: Vec<loom::cell::UnsafeCell<u64>>,
}

// SAFETY: `start` is an address in `arena`, which may be shared and sent.
unsafe impl Send for FrameMemory {}
// SAFETY: as above; and the witness cells are written by the thread that owns a frame and read
// under its pins; that this holds is what loom checks.
unsafe impl Sync for FrameMemory {}

impl FrameMemory {
    /// Reserves `units` of 4096 bytes and what describes them, in one piece.
    #[cfg(not(loom))]
    pub(crate) fn new(units: u32) -> Result<(Self, FrameArray), MemoryError> {
        let (count, frame_bytes) = (units as usize, units as usize * UNIT_BYTES);
        let array_bytes = FrameArray::bytes(count).next_multiple_of(UNIT_BYTES);
        // A sum beyond the address space is refused by the arena as any other it cannot have.
        let arena = Arena::new(frame_bytes.saturating_add(array_bytes))?;
        // SAFETY: frames, of which regions are lent out, end where the array begins.
        let frames = unsafe { FrameArray::new(&arena, frame_bytes, count) };
        Ok((Self { start: arena.start(), frame_bytes, arena }, frames))
    }

    /// Reserves `units` of 4096 bytes and what describes them.
    #[cfg(loom)]
    pub(crate) fn new(units: u32) -> Result<(Self, FrameArray), MemoryError> {
        let frame_bytes = units as usize * UNIT_BYTES;
        let arena = Arena::new(frame_bytes)?;
        let witnesses = (0..units).map(|_| loom::cell::UnsafeCell::new(0)).collect();
        let memory = Self { start: arena.start(), frame_bytes, arena, witnesses };
        Ok((memory, FrameArray::on_heap(units as usize)))
    }

    /// The memory that frames are windows of.
    pub(crate) fn arena(&self) -> &std::sync::Arc<Arena> {
        &self.arena
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
    /// The frame is one of this memory. The caller holds a pin of it that saw it resident, and uses
    /// the address only while it holds that pin, for as many bytes as the frame is long.
    #[inline]
    pub(crate) unsafe fn bytes(&self, frame: FrameNo) -> NonNull<u8> {
        #[cfg(loom)]
        self.witnesses[frame.index()].with(|_| ());
        debug_assert!(frame.offset_bytes() < self.frame_bytes, "{frame:?} is not of this arena");
        // SAFETY: the frame lies in the arena. No region of a resident frame exists, and the pin
        // keeps it resident.
        unsafe { self.start.add(frame.offset_bytes()) }
    }

    /// Copies bytes of an evicted page into a slot.
    ///
    /// # Safety
    ///
    /// The caller owns frame and slot: meanwhile nobody writes the one, nor touches the other. The
    /// two do not overlap.
    pub(crate) unsafe fn copy(&self, from: usize, to: usize, bytes: usize) {
        let last = self.frame_bytes.checked_sub(bytes).expect("a part is smaller than the cache");
        assert!(from <= last && to <= last, "{bytes} bytes from {from} to {to}");
        // SAFETY: in the arena, as just checked.
        let from = unsafe { self.start.add(from) };
        // SAFETY: as above.
        let to = unsafe { self.start.add(to) };
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), bytes) };
    }

    /// The address of a slot at this offset of the arena.
    ///
    /// # Safety
    ///
    /// The caller holds a pin of the slot that saw it resident, and uses the address only while it
    /// holds that pin, for as many bytes as the slot is long.
    pub(crate) unsafe fn slot_bytes(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset < self.frame_bytes, "{offset} is not in this arena");
        // SAFETY: slots lie in the arena.
        unsafe { self.start.add(offset) }
    }

    /// Gives the memory of frames back to the system until they are used again; whether it has
    /// gone.
    ///
    /// # Safety
    ///
    /// Every frame and slot in it is free, and the caller holds the lock without which none is
    /// given away. The arena is not registered with the kernel.
    pub(crate) unsafe fn give_back(&self, bytes: Range<usize>) -> bool {
        assert!(bytes.end <= self.frame_bytes, "{bytes:?} of {}", self.frame_bytes);
        // SAFETY: regions and guards exist of frames that are not free only.
        unsafe { self.arena.give_back(bytes.start, bytes.len()) }
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

    /// The memory of the frames alone.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    pub(crate) fn huge_pages(&self) -> bool {
        self.arena.huge_pages()
    }
}
