//! One reservation of memory that an owner cuts into windows: the frames of the page cache.
//!
//! The arena keeps no books. Its owner (the pager) decides which window is free, lent out for
//! writing ([`Region`]) or readable ([`Arena::bytes`]), and promises so in two `unsafe` calls.
//!
//! Guarantee: offsets are checked against the length, windows keep the arena alive, memory starts
//! zeroed. No references to the whole arena are ever formed, so windows cannot alias through it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::allocation::Allocation;
use super::prefetch;
use super::{MemoryError, SYSTEM_PAGE_BYTES_MAX};

/// One reservation of zeroed memory, on huge pages where they can be had.
pub struct Arena {
    memory: Allocation,
}

impl Arena {
    /// Reserves `bytes` (may be zero). Memory is taken from the system as it is first touched.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] when the kernel refuses the reservation.
    pub fn new(bytes: usize) -> Result<Arc<Self>, MemoryError> {
        Ok(Arc::new(Self { memory: Allocation::large(bytes)? }))
    }

    /// A new arena that is wholly lent out: `count` windows of `len` bytes, one after the other.
    ///
    /// # Errors
    ///
    /// When there is not so much memory.
    pub fn lent_out(len: usize, count: usize) -> Result<Vec<Region>, MemoryError> {
        let arena = Self::new(len.saturating_mul(count))?;
        let lend = |number: usize| {
            // SAFETY: the windows do not overlap, and nobody else has seen this arena: who asks for
            // another region over these bytes later has the duties of `region`.
            unsafe { arena.region(number * len, len) }
        };
        Ok((0..count).map(lend).collect())
    }

    /// The length of the reservation in bytes.
    pub fn len(&self) -> usize {
        self.memory.bytes()
    }

    /// Whether the reservation has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the kernel was asked for huge pages here and is configured to give them.
    pub fn huge_pages(&self) -> bool {
        self.memory.huge_pages()
    }

    /// The address of the first byte. Whoever reads or writes through it keeps the rules of
    /// [`Arena::region`] and [`Arena::bytes`], and keeps the arena alive.
    pub fn start(&self) -> NonNull<u8> {
        self.memory.base()
    }

    /// Lends out the window `offset..offset + len` for reading and writing.
    ///
    /// # Panics
    ///
    /// When the window is not inside the arena.
    ///
    /// # Safety
    ///
    /// From this call until the region is dropped, the caller forms no other region over any of
    /// these bytes and holds no slice from [`Arena::bytes`] over them.
    pub unsafe fn region(self: &Arc<Self>, offset: usize, len: usize) -> Region {
        Region { start: self.window(offset, len), len, whole: len, arena: Arc::clone(self) }
    }

    /// Borrows the window `offset..offset + len` for reading.
    ///
    /// # Panics
    ///
    /// When the window is not inside the arena.
    ///
    /// # Safety
    ///
    /// While the slice lives, no [`Region`] over any of these bytes exists.
    pub unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        let start = self.window(offset, len);
        // SAFETY: `window` checked the range; the memory is initialised since birth and lives as
        // long as `self`; the caller keeps writers away.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// Gives the memory of the window `offset..offset + len` back to the system until it is touched
    /// again. Its bytes are zero then. `false` where the platform cannot, or the memory is locked:
    /// then it stays, whatever its bytes are. The system takes whole pages, of 64 KiB at most.
    ///
    /// # Panics
    ///
    /// When the window is not inside the arena, or begins or ends within a page of 64 KiB.
    ///
    /// # Safety
    ///
    /// No [`Region`] over any of these bytes and no slice of them exists, nobody reads or writes
    /// them through [`Arena::start`], and the arena is not registered with the kernel, which would
    /// go on to transfer into the pages that were given back.
    pub unsafe fn give_back(&self, offset: usize, len: usize) -> bool {
        let start = self.window(offset, len);
        let whole = [offset, len].iter().all(|bytes| bytes.is_multiple_of(SYSTEM_PAGE_BYTES_MAX));
        assert!(whole, "{len} bytes at {offset} are no whole pages");
        // SAFETY: in the arena, as just checked, and nobody uses it, as the caller says.
        unsafe { self.memory.give_back(start, len) }
    }

    /// Whether memory of a new arena can be given back to the system. Tries it.
    pub fn can_give_back() -> bool {
        Self::new(SYSTEM_PAGE_BYTES_MAX).is_ok_and(|arena| {
            // SAFETY: nobody else has seen this arena.
            unsafe { arena.give_back(0, SYSTEM_PAGE_BYTES_MAX) }
        })
    }

    /// Asks the processor for the cache lines of `offset..offset + len`, the first sixteen. A hint
    /// about any bytes, whoever uses them; out of range it does nothing of use.
    #[inline]
    pub fn prefetch(&self, offset: usize, len: usize) {
        prefetch::bytes(self.memory.base().as_ptr().wrapping_add(offset), len);
    }

    fn window(&self, offset: usize, len: usize) -> NonNull<u8> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len());
        assert!(inside, "window of {len} bytes at {offset} in an arena of {}", self.len());
        // SAFETY: `offset <= len` of the allocation, checked above.
        unsafe { self.memory.base().add(offset) }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Arena")
            .field("bytes", &self.len())
            .field("huge_pages", &self.huge_pages())
            .finish_non_exhaustive()
    }
}

/// An exclusive window of an [`Arena`], which it keeps alive.
pub struct Region {
    start: NonNull<u8>,
    /// How much of it is shown.
    len: usize,
    whole: usize,
    arena: Arc<Arena>,
}

// SAFETY: a region is the only access to its bytes (contract of `Arena::region`), so it moves
// between threads like a `Box<[u8]>`.
unsafe impl Send for Region {}
// SAFETY: `&Region` gives out `&[u8]` only.
unsafe impl Sync for Region {}

impl Region {
    /// The arena this is a window of.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Shows the first `len` bytes of the window only, or more of it again.
    ///
    /// # Panics
    ///
    /// When the window is not so long.
    pub fn show(&mut self, len: usize) {
        assert!(len <= self.whole, "{len} bytes of a window of {}", self.whole);
        self.len = len;
    }

    /// Where in the arena the window starts, in bytes.
    pub fn offset(&self) -> usize {
        self.start.addr().get() - self.arena.memory.base().addr().get()
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: in range since `Arena::region`, initialised, kept alive by `arena`, and nobody
        // else writes here while this region exists.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Region {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else reads here either.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Region")
            .field("offset", &self.offset())
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::BLOCK_BYTES;
    use super::*;

    #[test]
    fn regions_side_by_side_hold_their_own_bytes() {
        let arena = Arena::new(4 * BLOCK_BYTES).unwrap();
        // SAFETY: the two windows do not overlap, and no slice of the arena is held.
        let mut first = unsafe { arena.region(0, BLOCK_BYTES) };
        // SAFETY: as above.
        let mut second = unsafe { arena.region(BLOCK_BYTES, BLOCK_BYTES) };

        first.fill(1);
        let writer = std::thread::scope(|scope| {
            scope.spawn(|| second.fill(2)).join().unwrap();
            first[BLOCK_BYTES - 1]
        });

        assert_eq!((writer, second[0], second.offset()), (1, 2, BLOCK_BYTES));
    }

    #[test]
    fn an_arena_that_is_lent_out_has_no_bytes_left() {
        let mut regions = Arena::lent_out(4096, 3).unwrap();
        for (number, region) in (1..).zip(&mut regions) {
            region.fill(number);
        }
        assert_eq!(regions.len(), 3);
        assert_eq!(regions[0].arena().len(), 3 * 4096);
        assert!(regions[0].iter().all(|byte| *byte == 1));
        assert!(regions[2].iter().all(|byte| *byte == 3));
        assert!(Arena::lent_out(4096, usize::MAX).is_err());
    }

    #[test]
    fn a_region_shows_as_much_as_it_is_told_to() {
        let mut region = Arena::lent_out(4096, 1).unwrap().remove(0);
        region[4095] = 7;

        region.show(512);
        assert_eq!(region.len(), 512);
        region.show(4096);
        assert_eq!((region.len(), region[4095]), (4096, 7));
    }

    #[test]
    #[should_panic(expected = "4097 bytes of a window of 4096")]
    fn a_region_shows_no_more_than_it_has() {
        Arena::lent_out(4096, 2).unwrap()[0].show(4097);
    }

    #[test]
    fn bytes_show_what_a_dropped_region_wrote() {
        let arena = Arena::new(2 * BLOCK_BYTES).unwrap();
        // SAFETY: the only region; no slice is held.
        let mut region = unsafe { arena.region(BLOCK_BYTES, BLOCK_BYTES) };
        region[5] = 77;
        drop(region);

        // SAFETY: the region is gone.
        let bytes = unsafe { arena.bytes(BLOCK_BYTES, BLOCK_BYTES) };

        assert_eq!(bytes[5], 77);
        assert_eq!(bytes.as_ptr().addr() % BLOCK_BYTES, 0);
    }

    #[test]
    fn what_was_given_back_can_be_used_again() {
        let arena = Arena::new(4 << 20).unwrap();
        let fill = |byte| {
            // SAFETY: the only region; no slice is held.
            unsafe { arena.region(0, 4 << 20) }.fill(byte);
        };
        // SAFETY: no region exists when it is called.
        let byte_at = |offset| unsafe { arena.bytes(offset, 1) }[0];
        fill(7);

        // SAFETY: neither region nor slice exists.
        let gone = unsafe { arena.give_back(2 << 20, 1 << 20) };

        assert_eq!(gone, cfg!(any(target_os = "linux", miri)));
        assert_eq!(Arena::can_give_back(), gone);
        assert_eq!((byte_at((2 << 20) - 1), byte_at(3 << 20)), (7, 7));
        if gone {
            assert_eq!((byte_at(2 << 20), byte_at((3 << 20) - 1)), (0, 0));
        }
        fill(8);
        assert_eq!(byte_at(2 << 20), 8);
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn locked_memory_stays() {
        let arena = Arena::new(SYSTEM_PAGE_BYTES_MAX).unwrap();
        let start = arena.start().as_ptr().cast();
        // SAFETY: our own mapping; locking it changes no byte.
        if unsafe { libc::mlock(start, SYSTEM_PAGE_BYTES_MAX) } != 0 {
            println!("SKIPPED: no memory may be locked");
            return;
        }

        // SAFETY: neither region nor slice exists.
        assert!(!unsafe { arena.give_back(0, SYSTEM_PAGE_BYTES_MAX) });
        // SAFETY: as above.
        assert_eq!(unsafe { libc::munlock(start, SYSTEM_PAGE_BYTES_MAX) }, 0);
        // SAFETY: as above.
        assert!(unsafe { arena.give_back(0, SYSTEM_PAGE_BYTES_MAX) });
    }

    #[test]
    fn a_region_outlives_the_handle_it_came_from() {
        let arena = Arena::new(BLOCK_BYTES).unwrap();
        // SAFETY: the only region; no slice is held.
        let mut region = unsafe { arena.region(0, BLOCK_BYTES) };
        drop(arena);

        region[0] = 3;

        assert_eq!(region[0], 3);
    }

    #[test]
    #[should_panic(expected = "window of 4096 bytes at 1 in an arena of 4096")]
    fn a_window_past_the_end_is_refused() {
        let arena = Arena::new(BLOCK_BYTES).unwrap();

        // SAFETY: the call panics before it forms a region.
        let _ = unsafe { arena.region(1, BLOCK_BYTES) };
    }

    #[cfg(all(unix, not(miri)))]
    #[test]
    fn an_arena_of_a_huge_page_starts_at_one() {
        use super::super::HUGE_PAGE_BYTES;
        let arena = Arena::new(HUGE_PAGE_BYTES + BLOCK_BYTES).unwrap();

        // SAFETY: no region exists.
        let bytes = unsafe { arena.bytes(0, 1) };

        assert_eq!(bytes.as_ptr().addr() % HUGE_PAGE_BYTES, 0);
    }
}
