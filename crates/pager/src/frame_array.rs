//! Frame array: one entry for each unit of the arena, in the arena itself, behind the frames.
//!
//! There it lies on huge pages where the frames do, and is part of the one reservation. Half a
//! gigabyte of frames has two megabytes of entries: one entry of the processor's address cache,
//! where pages of 4096 bytes would take five hundred.
//!
//! Guarantee: the entries are made once, at the start, and live as long as this value, which keeps
//! the arena alive. Under loom they are on the heap, as its types are no plain words.

use std::ops::Deref;
#[cfg(not(loom))]
use std::{ptr::NonNull, sync::Arc};

#[cfg(not(loom))]
use nephrite_io::memory::Arena;

use crate::frame::Frame;

/// The entries of all frames.
#[derive(Debug)]
pub(crate) struct FrameArray {
    #[cfg(not(loom))]
    first: NonNull<Frame>,
    #[cfg(not(loom))]
    count: usize,
    #[cfg(not(loom))]
    _arena: Arc<Arena>,
    #[cfg(loom)]
    frames: Vec<Frame>,
}

// SAFETY: it owns its entries as a `Box<[Frame]>` would, and those may be sent.
#[cfg(not(loom))]
unsafe impl Send for FrameArray {}
// SAFETY: as above; entries are atomics.
#[cfg(not(loom))]
unsafe impl Sync for FrameArray {}

impl FrameArray {
    /// The bytes of an array of so many entries.
    pub(crate) const fn bytes(count: usize) -> usize {
        count * size_of::<Frame>()
    }

    /// Makes the entries of `count` free frames at `offset` of the arena, a multiple of 4096.
    ///
    /// # Safety
    ///
    /// The caller lends out none of these bytes, neither before nor after this call.
    #[cfg(not(loom))]
    pub(crate) unsafe fn new(arena: &Arc<Arena>, offset: usize, count: usize) -> Self {
        let end = Self::bytes(count).checked_add(offset);
        assert!(end.is_some_and(|end| end <= arena.len()), "{count} frames at {offset}");
        // SAFETY: inside the arena, as just checked.
        let first: NonNull<Frame> = unsafe { arena.start().add(offset) }.cast();
        assert!(first.is_aligned(), "frames at {offset} of the arena");
        for index in 0..count {
            // SAFETY: as above, for each entry.
            let entry = unsafe { first.add(index) };
            // SAFETY: nobody else uses these bytes (the caller's promise), and they are aligned.
            unsafe { entry.write(Frame::new()) };
        }
        Self { first, count, _arena: Arc::clone(arena) }
    }

    #[cfg(loom)]
    pub(crate) fn on_heap(count: usize) -> Self {
        Self { frames: (0..count).map(|_| Frame::new()).collect() }
    }
}

impl Deref for FrameArray {
    type Target = [Frame];

    #[cfg(not(loom))]
    #[inline]
    fn deref(&self) -> &[Frame] {
        // SAFETY: `count` entries were made there, which nobody else writes but through them, and
        // the arena is alive.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }

    #[cfg(loom)]
    fn deref(&self) -> &[Frame] {
        &self.frames
    }
}
