//! Raw aligned memory: the only place that asks the allocator or the kernel for it.
//!
//! Small blocks come from the global allocator, large ones from an anonymous mapping (unix): it is
//! aligned to a huge page, advised to use huge pages (Linux), and not inherited by a fork, because
//! a copy-on-write page under a running direct read loses the bytes that the device delivers.
//!
//! Guarantee: the memory is zeroed, aligned to [`BLOCK_BYTES`], and freed once, on drop.
//! Does not: hand out references. Who may touch which byte is decided by the types above.

use std::alloc::Layout;
use std::ptr::NonNull;

use super::{BLOCK_BYTES, MemoryError};

/// Owned zeroed memory, reached through its address only.
#[derive(Debug)]
pub(super) struct Allocation {
    base: NonNull<u8>,
    bytes: usize,
    source: Source,
}

/// How to give the memory back.
#[derive(Debug)]
enum Source {
    /// Nothing was allocated: the length is zero.
    Empty,
    Heap(Layout),
    #[cfg(all(unix, not(miri)))]
    Mapped {
        mapped_bytes: usize,
        huge_pages_advised: bool,
    },
}

// SAFETY: an `Allocation` owns its memory and gives out nothing but the address; the types that
// build on it keep the rules on who reads and who writes.
unsafe impl Send for Allocation {}
// SAFETY: as above; the methods that take `&self` read plain fields.
unsafe impl Sync for Allocation {}

impl Allocation {
    /// No memory at all.
    pub(super) fn empty() -> Self {
        Self { base: NonNull::<Block>::dangling().cast(), bytes: 0, source: Source::Empty }
    }

    /// Memory from the global allocator: for blocks that come and go often.
    pub(super) fn small(bytes: usize) -> Result<Self, MemoryError> {
        if bytes == 0 {
            return Ok(Self::empty());
        }
        let layout = Layout::from_size_align(bytes, BLOCK_BYTES)
            .map_err(|_| MemoryError::refused(bytes, None))?;
        // SAFETY: the layout's size is not zero: `bytes` was checked above.
        let pointer = unsafe { std::alloc::alloc_zeroed(layout) };
        let base = NonNull::new(pointer).ok_or_else(|| MemoryError::refused(bytes, None))?;
        Ok(Self { base, bytes, source: Source::Heap(layout) })
    }

    /// Memory from its own mapping where the platform has one: for large, long-lived blocks.
    #[cfg(all(unix, not(miri)))]
    pub(super) fn large(bytes: usize) -> Result<Self, MemoryError> {
        if bytes == 0 {
            return Self::small(bytes);
        }
        let mapping = mapping::map(bytes)?;
        let source = Source::Mapped {
            mapped_bytes: mapping.mapped_bytes,
            huge_pages_advised: mapping.huge_pages_advised,
        };
        Ok(Self { base: mapping.base, bytes, source })
    }

    /// Memory from its own mapping where the platform has one: for large, long-lived blocks.
    #[cfg(any(not(unix), miri))]
    pub(super) fn large(bytes: usize) -> Result<Self, MemoryError> {
        Self::small(bytes)
    }

    /// Gives pages back to the system until they are touched again. Whether they have gone.
    ///
    /// # Safety
    ///
    /// The range lies in this memory, and nobody uses it.
    pub(super) unsafe fn give_back(&self, start: NonNull<u8>, bytes: usize) -> bool {
        match self.source {
            Source::Heap(_) if cfg!(miri) => {
                // As on Linux, so that Miri sees who touches it too early.
                // SAFETY: the caller's promise.
                unsafe { start.write_bytes(0, bytes) };
                true
            }
            Source::Empty | Source::Heap(_) => false,
            #[cfg(all(unix, not(miri)))]
            // SAFETY: the caller's promise; the memory is a mapping of ours.
            Source::Mapped { .. } => unsafe { mapping::give_back(start, bytes) },
        }
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the kernel was told to use huge pages here and is configured to do so. Asks the
    /// system.
    pub(super) fn huge_pages(&self) -> bool {
        match self.source {
            Source::Empty | Source::Heap(_) => false,
            #[cfg(all(unix, not(miri)))]
            Source::Mapped { huge_pages_advised, .. } => {
                huge_pages_advised && mapping::huge_pages_enabled()
            }
        }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        match self.source {
            Source::Empty => {}
            // SAFETY: `base` came from `alloc_zeroed` with this layout and is freed only here.
            Source::Heap(layout) => unsafe { std::alloc::dealloc(self.base.as_ptr(), layout) },
            #[cfg(all(unix, not(miri)))]
            Source::Mapped { mapped_bytes, .. } => {
                // SAFETY: this range is what `map` kept of its mapping, and is unmapped only here.
                let outcome = unsafe { mapping::unmap(self.base, mapped_bytes) };
                debug_assert!(outcome, "munmap refused {mapped_bytes} bytes at {:?}", self.base);
            }
        }
    }
}

/// A type with the alignment of a block, for the address of an empty allocation.
#[repr(align(4096))]
struct Block;

const _: () = assert!(align_of::<Block>() == BLOCK_BYTES);

#[cfg(all(unix, not(miri)))]
mod mapping {
    use std::io;
    use std::ptr::{self, NonNull};

    use super::super::{HUGE_PAGE_BYTES, MemoryError, SYSTEM_PAGE_BYTES_MAX};

    /// Mapped lengths are multiples of this.
    const GRANULE_BYTES: usize = SYSTEM_PAGE_BYTES_MAX;

    pub(super) struct Mapping {
        pub(super) base: NonNull<u8>,
        pub(super) mapped_bytes: usize,
        pub(super) huge_pages_advised: bool,
    }

    /// Maps `bytes` of zeroed memory; from one huge page up its start is aligned to a huge page.
    pub(super) fn map(bytes: usize) -> Result<Mapping, MemoryError> {
        let too_large = || MemoryError::refused(bytes, Some(libc::ENOMEM));
        let kept = bytes.checked_next_multiple_of(GRANULE_BYTES).ok_or_else(too_large)?;
        let slack = if bytes < HUGE_PAGE_BYTES { 0 } else { HUGE_PAGE_BYTES };
        let whole = kept.checked_add(slack).ok_or_else(too_large)?;
        let start = map_anonymous(whole)
            .map_err(|error| MemoryError::refused(bytes, error.raw_os_error()))?;
        let base = trim(start, whole, kept, slack);
        advise_no_fork(base, kept);
        let huge_pages_advised = advise_huge_pages(base, kept);
        Ok(Mapping { base, mapped_bytes: kept, huge_pages_advised })
    }

    /// # Safety
    ///
    /// The range must be a whole mapping made here, and nothing may use it afterwards.
    pub(super) unsafe fn unmap(base: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller owns the range and gives it up.
        unsafe { libc::munmap(base.as_ptr().cast(), bytes) == 0 }
    }

    /// Whether the memory has gone: elsewhere than on Linux the advice is a hint, and Linux refuses
    /// it for locked memory.
    ///
    /// # Safety
    ///
    /// The range lies in a mapping made here, and nobody uses it.
    pub(super) unsafe fn give_back(start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's promise.
        let advised = unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_DONTNEED) };
        cfg!(target_os = "linux") && advised == 0
    }

    fn map_anonymous(bytes: usize) -> io::Result<NonNull<u8>> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory
        // that anyone owns.
        let address = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }

    /// Gives back what lies before the first huge page boundary and after the kept bytes.
    fn trim(start: NonNull<u8>, whole: usize, kept: usize, slack: usize) -> NonNull<u8> {
        if slack == 0 {
            return start;
        }
        let before = start.as_ptr().align_offset(HUGE_PAGE_BYTES);
        assert!(before <= slack, "{before} bytes to the next huge page of {HUGE_PAGE_BYTES}");
        let after = whole - before - kept;
        // SAFETY: `before <= slack` and `whole = kept + slack`: the address is in the mapping.
        let base = unsafe { start.add(before) };
        if before > 0 {
            // SAFETY: these bytes are the unused head of our own new mapping.
            unsafe { unmap(start, before) };
        }
        if after > 0 {
            // SAFETY: `before + kept + after = whole`: still in our own new mapping.
            let tail = unsafe { base.add(kept) };
            // SAFETY: these bytes are its unused tail.
            unsafe { unmap(tail, after) };
        }
        base
    }

    #[cfg(target_os = "linux")]
    fn advise_no_fork(base: NonNull<u8>, bytes: usize) {
        // SAFETY: advice about our own mapping; refusal changes nothing and is no error.
        unsafe { libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_DONTFORK) };
    }

    #[cfg(not(target_os = "linux"))]
    fn advise_no_fork(_base: NonNull<u8>, _bytes: usize) {}

    #[cfg(target_os = "linux")]
    fn advise_huge_pages(base: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: advice about our own mapping; refusal changes nothing and is no error.
        let advised =
            unsafe { libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) } == 0;
        advised && HUGE_PAGE_BYTES <= bytes
    }

    #[cfg(not(target_os = "linux"))]
    fn advise_huge_pages(_base: NonNull<u8>, _bytes: usize) -> bool {
        false
    }

    /// The advice succeeds even where the administrator has switched huge pages off.
    #[cfg(target_os = "linux")]
    pub(super) fn huge_pages_enabled() -> bool {
        std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
            .is_ok_and(|setting| !setting.contains("[never]"))
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn huge_pages_enabled() -> bool {
        false
    }
}
