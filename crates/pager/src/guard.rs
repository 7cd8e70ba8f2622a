//! Page guard: a pin that dereferences to the bytes of the page.
//!
//! A guard is three words and a pin count. It owns no reference count of anything: why its pointers
//! are good as long as it lives, also after cache and file are dropped, is told in `shared.rs`.
//! Alternatives measured with this crate's `hit` benchmark: an `Arc` clone of the file for each
//! guard adds two read-modify-writes on one line shared by all readers of a file.
//!
//! Guarantee: the bytes do not change and stay at their address while the guard lives. May be held
//! across await points and sent to other threads. Counts against the pin budget.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;

use crate::frame::FrameNo;
use crate::shared::Shared;

/// A pinned page: dereferences to its bytes, which are 4096-aligned and `page_bytes` long. Or a
/// part of one that outlived its page ([`crate::CachedFile::part`]).
///
/// Holding many guards for long makes the cache small for everybody else; when the pin budget is
/// used up, look-ups answer with [`crate::Lookup::Full`]. A clone is another pin of the same frame.
///
/// A guard stays good when its [`crate::CachedFile`] and the [`crate::Pager`] are dropped: the
/// frame is freed with the last guard of it, the memory of the cache with the last of all.
pub struct PageGuard(FramePin);

/// What a guard is made of: a pin of a resident frame, not yet or no longer guarded.
#[derive(Clone, Copy)]
pub(crate) struct FramePin {
    shared: NonNull<Shared>,
    bytes: NonNull<u8>,
    length: u32,
    frame: FrameNo,
}

impl FramePin {
    /// # Safety
    ///
    /// The frame is resident and `length` bytes long, and the caller owns (or, as its loader, is
    /// about to make) the pin that this value stands for.
    #[inline]
    pub(crate) unsafe fn new(shared: NonNull<Shared>, frame: FrameNo, length: u32) -> Self {
        // SAFETY: alive because of the pin.
        let memory = unsafe { &(*shared.as_ptr()).memory };
        // SAFETY: the caller's promise.
        let bytes = unsafe { memory.bytes(frame) };
        Self { shared, bytes, length, frame }
    }

    /// # Safety
    ///
    /// The slot is resident and at least `length` bytes long, `offset` bytes into the arena, and
    /// the caller owns the pin that this value stands for.
    pub(crate) unsafe fn in_slot(
        shared: NonNull<Shared>,
        slot: FrameNo,
        offset: usize,
        length: u32,
    ) -> Self {
        // SAFETY: alive because of the pin.
        let memory = unsafe { &(*shared.as_ptr()).memory };
        // SAFETY: the caller's promise.
        let bytes = unsafe { memory.slot_bytes(offset) };
        Self { shared, bytes, length, frame: slot }
    }

    /// # Safety
    ///
    /// The caller owns the pin that this value stands for, and hands it over to the guard.
    #[inline]
    pub(crate) unsafe fn guard(self) -> PageGuard {
        PageGuard(self)
    }
}

// SAFETY: the pointers reach `Shared`, which is made for many threads, and bytes that do not change
// while the pin is held. A pin may be dropped by any thread.
unsafe impl Send for FramePin {}
// SAFETY: as above; `&FramePin` gives nothing but reads.
unsafe impl Sync for FramePin {}

impl PageGuard {
    /// Whether both guards are of the same frame, and so of the same page.
    pub fn same_page(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }

    /// Notes that a part of the page was read: what was is kept longer than the rest.
    pub(crate) fn note_part(&self, part: u32) {
        // SAFETY: alive because of the pin.
        let shared = unsafe { self.0.shared.as_ref() };
        shared.entry(self.0.frame).state.note_part(part);
    }

    /// What the loader of the page wrote into the witness cell.
    #[cfg(all(loom, test))]
    pub(crate) fn stamp(&self) -> u64 {
        // SAFETY: alive because of the pin.
        unsafe { (*self.0.shared.as_ptr()).memory.stamp_of(self.0.frame) }
    }
}

impl Deref for PageGuard {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the address is that of `length` initialised bytes of the arena, which the pin
        // keeps alive and unchanged for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.0.bytes.as_ptr(), self.0.length as usize) }
    }
}

impl Clone for PageGuard {
    fn clone(&self) -> Self {
        // SAFETY: alive because of the pin.
        let shared = unsafe { self.0.shared.as_ref() };
        shared.entry(self.0.frame).state.pin_again();
        Self(self.0)
    }
}

impl Drop for PageGuard {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard owns the pin, and is gone after this.
        unsafe { Shared::unpin(self.0.shared, self.0.frame) };
    }
}

impl fmt::Debug for PageGuard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("PageGuard").field(&self.0).finish()
    }
}

impl fmt::Debug for FramePin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FramePin")
            .field("frame", &self.frame.0)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
