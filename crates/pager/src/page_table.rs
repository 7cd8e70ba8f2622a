//! Page table: for each page of a file, the frame that holds it or once held it.
//!
//! A dense array in chunks of [`CHUNK_PAGES`] entries that are made when a page of theirs is first
//! loaded, and freed with the table. An entry is a *hint*: eviction does not clear it, so the frame
//! may by now hold another page. The reader pins the frame and compares its owner; that comparison,
//! not the entry, is the truth.
//!
//! Ordering: entries are stored Release and loaded Acquire. The hint alone would do with Relaxed;
//! the pairing keeps a fresh entry from leading to a frame whose state is still the older one,
//! which would cost a needless trip through the slow path.
//!
//! Chunks are made with `OnceLock` of std, which orders the making before the use. loom does not
//! know that, so its models start with all chunks made. Tested below and by every test of the
//! cache.

use std::sync::OnceLock;

use nephrite_io::memory::prefetch_value;

use crate::frame::FrameNo;
use crate::sync::{AtomicU32, Ordering};

/// Entries of a chunk: one 4 KiB allocation.
pub(crate) const CHUNK_PAGES: u32 = if cfg!(loom) { 2 } else { 1024 };

/// No frame number: arenas are shorter than this.
const NO_FRAME: u32 = u32::MAX;

type Chunk = Box<[AtomicU32; CHUNK_PAGES as usize]>;

/// The table of one file.
#[derive(Debug)]
pub(crate) struct PageTable {
    chunks: Box<[OnceLock<Chunk>]>,
}

impl PageTable {
    /// A table for `page_count` pages, with no chunk yet. `None` when there is no memory.
    pub(crate) fn new(page_count: u32) -> Option<Self> {
        let chunk_count = page_count.div_ceil(CHUNK_PAGES) as usize;
        let mut chunks = Vec::new();
        chunks.try_reserve_exact(chunk_count).ok()?;
        chunks.resize_with(chunk_count, OnceLock::new);
        if cfg!(loom) {
            for chunk in &chunks {
                chunk.get_or_init(new_chunk);
            }
        }
        Some(Self { chunks: chunks.into_boxed_slice() })
    }

    /// The bytes of a table for `page_count` pages before its first chunk.
    pub(crate) fn directory_bytes(page_count: u32) -> usize {
        page_count.div_ceil(CHUNK_PAGES) as usize * size_of::<OnceLock<Chunk>>()
    }

    /// The bytes that each new chunk adds.
    pub(crate) const fn chunk_bytes() -> usize {
        CHUNK_PAGES as usize * size_of::<u32>()
    }

    /// The frame that held the page last, if any ever did.
    #[inline]
    pub(crate) fn frame_of(&self, page: u32) -> Option<FrameNo> {
        let chunk = self.chunks.get((page / CHUNK_PAGES) as usize)?.get()?;
        let frame = chunk[(page % CHUNK_PAGES) as usize].load(Ordering::Acquire);
        (frame != NO_FRAME).then_some(FrameNo(frame))
    }

    /// Asks the processor for the entry of a page.
    #[inline]
    pub(crate) fn prefetch(&self, page: u32) {
        let chunk = self.chunks.get((page / CHUNK_PAGES) as usize).and_then(OnceLock::get);
        if let Some(chunk) = chunk {
            prefetch_value(&chunk[(page % CHUNK_PAGES) as usize]);
        }
    }

    /// Points the page at a frame; true when a chunk was made for it.
    pub(crate) fn set(&self, page: u32, frame: FrameNo) -> bool {
        let mut made = false;
        let chunk = self.chunks[(page / CHUNK_PAGES) as usize].get_or_init(|| {
            made = true;
            new_chunk()
        });
        chunk[(page % CHUNK_PAGES) as usize].store(frame.0, Ordering::Release);
        made
    }

    /// Every page that has an entry, with it.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u32, FrameNo)> + '_ {
        let made =
            (0_u32..).zip(&self.chunks).filter_map(|(index, chunk)| Some((index, chunk.get()?)));
        made.flat_map(|(index, chunk)| {
            (index * CHUNK_PAGES..).zip(&**chunk).filter_map(|(page, entry)| {
                let frame = entry.load(Ordering::Acquire);
                (frame != NO_FRAME).then_some((page, FrameNo(frame)))
            })
        })
    }

    /// The bytes of the chunks made so far.
    pub(crate) fn chunks_bytes(&self) -> usize {
        self.chunks.iter().filter(|chunk| chunk.get().is_some()).count() * Self::chunk_bytes()
    }
}

fn new_chunk() -> Chunk {
    Box::new(std::array::from_fn(|_| AtomicU32::new(NO_FRAME)))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn entries_appear_only_where_they_were_set() {
        let table = PageTable::new(5 * CHUNK_PAGES).unwrap();

        assert!(table.set(3 * CHUNK_PAGES + 7, FrameNo(42)));
        assert!(!table.set(3 * CHUNK_PAGES + 8, FrameNo(43)));

        assert_eq!(table.frame_of(3 * CHUNK_PAGES + 7), Some(FrameNo(42)));
        assert_eq!(table.frame_of(3 * CHUNK_PAGES + 6), None);
        assert_eq!(table.frame_of(0), None);
        let all: Vec<_> = table.entries().collect();
        assert_eq!(all, [(3 * CHUNK_PAGES + 7, FrameNo(42)), (3 * CHUNK_PAGES + 8, FrameNo(43))]);
    }

    #[test]
    fn memory_is_counted_by_the_chunk() {
        let table = PageTable::new(CHUNK_PAGES + 1).unwrap();
        assert_eq!(table.chunks_bytes(), 0);

        table.set(CHUNK_PAGES, FrameNo(0));

        assert_eq!(table.chunks_bytes(), PageTable::chunk_bytes());
        assert_eq!(PageTable::directory_bytes(CHUNK_PAGES + 1), 2 * size_of::<OnceLock<Chunk>>());
    }

    #[test]
    #[cfg_attr(miri, ignore = "a directory of four million chunks is too much for it")]
    fn the_last_page_number_has_an_entry() {
        let table = PageTable::new(u32::MAX).unwrap();

        table.set(u32::MAX - 1, FrameNo(9));

        assert_eq!(table.frame_of(u32::MAX - 1), Some(FrameNo(9)));
    }
}
