//! Word array: many words that begin as zeros, on huge pages where there are some.
//!
//! A table that is looked into at random places misses the processor's address cache at each look
//! when its pages have 4096 bytes, and a virtual machine pays twice for that.
//!
//! Guarantee: the first word begins a block of 4096 bytes; the words live as long as this value.
//! The system gives the memory as it is first touched. Under loom they are on the heap, as its
//! types are no plain words.

use std::ops::Deref;
#[cfg(not(loom))]
use std::{ptr::NonNull, sync::Arc};

#[cfg(not(loom))]
use nephrite_io::memory::Arena;

use crate::sync::AtomicU64;

/// See the module documentation.
pub(crate) struct WordArray {
    #[cfg(not(loom))]
    first: NonNull<AtomicU64>,
    #[cfg(not(loom))]
    count: usize,
    #[cfg(not(loom))]
    _arena: Arc<Arena>,
    #[cfg(loom)]
    words: Vec<AtomicU64>,
}

// SAFETY: it owns its words as a `Box<[AtomicU64]>` would, and those may be sent.
#[cfg(not(loom))]
unsafe impl Send for WordArray {}
// SAFETY: as above; words are atomics.
#[cfg(not(loom))]
unsafe impl Sync for WordArray {}

impl WordArray {
    /// So many zeros; `None` when there is no memory.
    #[cfg(not(loom))]
    pub(crate) fn zeros(count: usize) -> Option<Self> {
        let arena = Arena::new(count.checked_mul(size_of::<AtomicU64>())?).ok()?;
        let first: NonNull<AtomicU64> = arena.start().cast();
        assert!(first.is_aligned(), "an arena begins a block");
        Some(Self { first, count, _arena: arena })
    }

    #[cfg(loom)]
    pub(crate) fn zeros(count: usize) -> Option<Self> {
        Some(Self { words: (0..count).map(|_| AtomicU64::new(0)).collect() })
    }
}

impl Deref for WordArray {
    type Target = [AtomicU64];

    #[cfg(not(loom))]
    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the arena has so many words there, zeros when it was made, which nobody else
        // knows of, and is alive; any bits are a word.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }

    #[cfg(loom)]
    fn deref(&self) -> &[AtomicU64] {
        &self.words
    }
}
