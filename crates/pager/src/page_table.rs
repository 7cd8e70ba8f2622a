//! Page table: for each page of a file, the frame that holds it or once held it.
//!
//! A dense array in chunks of [`CHUNK_PAGES`] entries that are made when a page of theirs is first
//! loaded, and freed with the table. An entry is a *hint*: eviction does not clear it, so the frame
//! may by now hold another page. The reader pins the frame and compares its owner; that comparison,
//! not the entry, is the truth.
//!
//! Pages that were loaded in order mostly lie in frames in order. So a chunk begins with a *guess*
//! ([`Guess`]) for each run of [`RUN_PAGES`] pages: sixteen of them lie in one cache line, as do
//! sixteen entries. Where entries of many files come from far memory, guesses are near: a reader
//! asks for the frame that is guessed while it waits for the entry. A guess is never used for more.
//!
//! Ordering: entries are stored Release and loaded Acquire. The hint alone would do with Relaxed;
//! the pairing keeps a fresh entry from leading to a frame whose state is still the older one,
//! which would cost a needless trip through the slow path. Guesses are Relaxed: they name nothing
//! but what the processor is asked for ahead of time.
//!
//! Chunks are made with `OnceLock` of std, which orders the making before the use. loom does not
//! know that, so its models start with all chunks made; nor does it know guesses, on which no
//! protocol depends. Tested below and by every test of the cache.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU32 as Hint;
use std::sync::atomic::Ordering::Relaxed;

use nephrite_io::memory::prefetch_value;

use crate::frame::FrameNo;
use crate::sync::{AtomicU32, Ordering};

/// Entries of a chunk: an allocation of 4 KiB and a cache line.
pub(crate) const CHUNK_PAGES: u32 = if cfg!(loom) { 2 } else { 1024 };

/// Pages whose frames are guessed from one number: as many as an extent has units.
const RUN_PAGES: u32 = if cfg!(loom) { 2 } else { 64 };

/// No frame number: arenas are shorter than this.
const NO_FRAME: u32 = u32::MAX;

/// The table of one file.
#[derive(Debug)]
pub(crate) struct PageTable {
    chunks: Box<[OnceLock<Box<Chunk>>]>,
    /// Of a frame of this file, and so from one frame in order to the next.
    frame_units: u32,
}

/// Part of a table.
#[derive(Debug)]
#[repr(align(64))]
struct Chunk {
    guesses: [Hint; (CHUNK_PAGES / RUN_PAGES) as usize],
    entries: [AtomicU32; CHUNK_PAGES as usize],
}

/// Where the frames of a run are: the frame that its first page would have, if all were in order,
/// and how often in a row that proved right.
///
/// ```text
/// [ times: 2 | first frame: 30 ]
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Guess(u32);

impl Guess {
    const FRAME: u32 = (1 << 30) - 1;
    const ONCE: u32 = 1 << 30;
    const OFTEN: u32 = 0b11 << 30;

    /// When a page so far from the first of its run has got this frame. What was right before stays
    /// until it was wrong as often.
    fn learn(self, distance: u32, frame: FrameNo) -> Self {
        let first = frame.0.wrapping_sub(distance) & Self::FRAME;
        let times = self.0 & Self::OFTEN;
        if self.0 & Self::FRAME == first {
            Self(first | if times == Self::OFTEN { times } else { times + Self::ONCE })
        } else if times == 0 {
            Self(first)
        } else {
            Self(self.0 - Self::ONCE)
        }
    }

    /// The frame of a page so far from the first of its run; `None` while there is no order.
    #[inline]
    fn frame(self, distance: u32) -> Option<FrameNo> {
        let frame = (self.0 & Self::FRAME).wrapping_add(distance) & Self::FRAME;
        (Self::ONCE <= self.0).then_some(FrameNo(frame))
    }
}

/// The entry of a page, not looked at yet.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    entry: &'a AtomicU32,
    guess: &'a Hint,
    /// From the first page of the run, in units.
    distance: u32,
}

impl Entry<'_> {
    /// The frame that held the page last, if any ever did.
    #[inline]
    pub(crate) fn frame(self) -> Option<FrameNo> {
        let frame = self.entry.load(Ordering::Acquire);
        (frame != NO_FRAME).then_some(FrameNo(frame))
    }

    /// What that frame may be, known sooner. Any number.
    #[inline]
    pub(crate) fn guess(self) -> Option<FrameNo> {
        Guess(self.guess.load(Relaxed)).frame(self.distance)
    }
}

impl PageTable {
    /// A table for `page_count` pages, each of so many units, with no chunk yet. `None` when there
    /// is no memory.
    pub(crate) fn new(page_count: u32, frame_units: u8) -> Option<Self> {
        let chunk_count = page_count.div_ceil(CHUNK_PAGES) as usize;
        let mut chunks = Vec::new();
        chunks.try_reserve_exact(chunk_count).ok()?;
        chunks.resize_with(chunk_count, OnceLock::new);
        if cfg!(loom) {
            for chunk in &chunks {
                chunk.get_or_init(Chunk::new);
            }
        }
        Some(Self { chunks: chunks.into_boxed_slice(), frame_units: frame_units.into() })
    }

    /// The bytes of a table for `page_count` pages before its first chunk.
    pub(crate) fn directory_bytes(page_count: u32) -> usize {
        page_count.div_ceil(CHUNK_PAGES) as usize * size_of::<OnceLock<Box<Chunk>>>()
    }

    /// The bytes that each new chunk adds.
    pub(crate) const fn chunk_bytes() -> usize {
        size_of::<Chunk>()
    }

    /// The entry of a page; `None` when no page near it was ever loaded.
    #[inline]
    pub(crate) fn entry(&self, page: u32) -> Option<Entry<'_>> {
        let chunk = self.chunks.get((page / CHUNK_PAGES) as usize)?.get()?;
        let entry = &chunk.entries[(page % CHUNK_PAGES) as usize];
        let guess = &chunk.guesses[(page % CHUNK_PAGES / RUN_PAGES) as usize];
        Some(Entry { entry, guess, distance: page % RUN_PAGES * self.frame_units })
    }

    /// The frame that held the page last, if any ever did.
    #[inline]
    pub(crate) fn frame_of(&self, page: u32) -> Option<FrameNo> {
        self.entry(page)?.frame()
    }

    /// Asks the processor for the entry of a page.
    #[inline]
    pub(crate) fn prefetch(&self, page: u32) {
        if let Some(Entry { entry, .. }) = self.entry(page) {
            prefetch_value(entry);
        }
    }

    /// Points the page at a frame; true when a chunk was made for it.
    pub(crate) fn set(&self, page: u32, frame: FrameNo) -> bool {
        let mut made = false;
        self.chunks[(page / CHUNK_PAGES) as usize].get_or_init(|| {
            made = true;
            Chunk::new()
        });
        let Entry { entry, guess, distance } = self.entry(page).expect("it was just made");
        // Two who learn at once: one of them is forgotten.
        guess.store(Guess(guess.load(Relaxed)).learn(distance, frame).0, Relaxed);
        entry.store(frame.0, Ordering::Release);
        made
    }

    /// Every page that has an entry, with it.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u32, FrameNo)> + '_ {
        let made =
            (0_u32..).zip(&self.chunks).filter_map(|(index, chunk)| Some((index, chunk.get()?)));
        made.flat_map(|(index, chunk)| {
            (index * CHUNK_PAGES..).zip(&chunk.entries).filter_map(|(page, entry)| {
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

impl Chunk {
    fn new() -> Box<Self> {
        Box::new(Self {
            guesses: std::array::from_fn(|_| Hint::new(0)),
            entries: std::array::from_fn(|_| AtomicU32::new(NO_FRAME)),
        })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn entries_appear_only_where_they_were_set() {
        let table = PageTable::new(5 * CHUNK_PAGES, 1).unwrap();

        assert!(table.set(3 * CHUNK_PAGES + 7, FrameNo(42)));
        assert!(!table.set(3 * CHUNK_PAGES + 8, FrameNo(43)));

        assert_eq!(table.frame_of(3 * CHUNK_PAGES + 7), Some(FrameNo(42)));
        assert_eq!(table.frame_of(3 * CHUNK_PAGES + 6), None);
        assert_eq!(table.frame_of(0), None);
        let all: Vec<_> = table.entries().collect();
        assert_eq!(all, [(3 * CHUNK_PAGES + 7, FrameNo(42)), (3 * CHUNK_PAGES + 8, FrameNo(43))]);
    }

    #[test]
    fn frames_in_order_are_guessed() {
        let table = PageTable::new(CHUNK_PAGES, 3).unwrap();
        let guess = |page| table.entry(page).unwrap().guess();

        table.set(130, FrameNo(50));
        assert_eq!(guess(131), None, "one page is no order");
        table.set(131, FrameNo(53));
        table.set(132, FrameNo(56));

        assert_eq!([128, 131, 191].map(guess), [44, 53, 233].map(|frame| Some(FrameNo(frame))));
        assert_eq!([127, 192].map(guess), [None; 2], "another run");
        assert_eq!(table.frame_of(133), None, "a guess is no entry");
    }

    #[test]
    fn an_order_is_forgotten_when_it_was_wrong_as_often_as_right() {
        let table = PageTable::new(CHUNK_PAGES, 1).unwrap();
        let guess = |page| table.entry(page).unwrap().guess();
        for page in 0..10 {
            table.set(page, FrameNo(1000 + page));
        }

        table.set(3, FrameNo(7));
        table.set(5, FrameNo(70));
        assert_eq!(guess(20), Some(FrameNo(1020)));
        table.set(9, FrameNo(700));
        assert_eq!(guess(20), None);

        table.set(20, FrameNo(2)); // below its distance from the first page
        table.set(21, FrameNo(3));
        assert_eq!([20, 63].map(guess), [2, 45].map(|frame| Some(FrameNo(frame))));
    }

    #[test]
    fn memory_is_counted_by_the_chunk() {
        let table = PageTable::new(CHUNK_PAGES + 1, 1).unwrap();
        assert_eq!(table.chunks_bytes(), 0);

        table.set(CHUNK_PAGES, FrameNo(0));

        assert_eq!(table.chunks_bytes(), PageTable::chunk_bytes());
        assert_eq!(
            PageTable::directory_bytes(CHUNK_PAGES + 1),
            2 * size_of::<OnceLock<Box<Chunk>>>()
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "a directory of four million chunks is too much for it")]
    fn the_last_page_number_has_an_entry() {
        let table = PageTable::new(u32::MAX, 1).unwrap();

        table.set(u32::MAX - 1, FrameNo(9));

        assert_eq!(table.frame_of(u32::MAX - 1), Some(FrameNo(9)));
    }
}
