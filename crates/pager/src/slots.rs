//! Slots: small parts of pages that stay when their page goes.
//!
//! ```text
//! record -> hash -> directory of its slot size -> block -> set of eight slots
//!
//! block   | 256 KiB of the arena, cut into slots of one size          | an extent of the books
//! entries | state, owner | state, owner | ...  16 bytes for each slot | for entries for ever
//! ```
//!
//! A slot has an entry like a frame's: the same state word with the same transitions. So a hit is
//! what it is on a frame: find the entry, pin it, compare state and owner. The record of an entry
//! is the key of its file and the number of the part, which are unique among open files; a file
//! that is dropped takes its slots along before its key is used again (`file.rs`).
//!
//! Guarantee: bytes of a slot do not change while it is pinned; a block keeps its bytes as long as
//! any of its slots is pinned. A hit takes no lock and makes no allocation. Entries, once made, are
//! entries until the cache goes: a getter that follows an old directory writes a passing pin into
//! an entry and nowhere else.
//! Ordering: the directory is a hint, so Relaxed would do; what makes a hit right is the entry. The
//! extent of a block is stored before its slots are published (Release) and read under a pin that
//! saw one of them (Acquire); it changes when none is.
//! Does not: decide what is kept. That is `retention.rs`, under the lock of the frame books.
//! Checked by the loom model `slots` with planted bugs, and by `retention/tests.rs`.

use std::sync::OnceLock;

use crate::extents::EXTENT_UNITS;
use crate::frame::{Frame, FrameNo, Owner, UNIT_BYTES};
use crate::frame_array::FrameArray;
use crate::planted::planted;
use crate::sync::{AtomicU32, Ordering};

/// Slots that a record may lie in.
pub(crate) const WAYS: usize = if cfg!(loom) { 1 } else { 8 };
/// Sizes of slots. Parts are between an eighth of a page and half of one.
pub(crate) const SLOT_BYTES: [usize; 6] = [512, 640, 768, 1024, 1344, 2048];
/// The memory of a block.
pub(crate) const BLOCK_BYTES: usize = EXTENT_UNITS as usize * UNIT_BYTES;
/// Numbers of a block: as many as it has slots of the smallest size.
pub(crate) const BLOCK_SLOTS: usize = if cfg!(loom) { 1 } else { BLOCK_BYTES / SLOT_BYTES[0] };
/// Directory entries for each block that there may be.
const SPREAD: usize = 4;
/// Set in the numbers of slots, which are frame numbers otherwise.
const SLOT: u32 = 1 << 31;
/// No block.
const NONE: u32 = u32::MAX;

/// All slots of one cache.
#[derive(Debug)]
pub(crate) struct Slots {
    blocks: Box<[Block]>,
    /// For each size of slots: the block for each share of the hashes.
    directories: Box<[Box<[AtomicU32]>]>,
}

#[derive(Debug)]
struct Block {
    entries: OnceLock<FrameArray>,
    /// Where its bytes are now.
    extent: AtomicU32,
}

/// Where a record belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) block: u32,
    pub(crate) number: usize,
}

impl FrameNo {
    /// Whether this is the number of a slot.
    #[inline]
    pub(crate) fn is_slot(self) -> bool {
        self.0 & SLOT != 0
    }
}

impl Slots {
    /// Room for so many blocks, of which there is none yet.
    pub(crate) fn new(block_count: usize) -> Self {
        let block = |_| Block { entries: OnceLock::new(), extent: AtomicU32::new(NONE) };
        let directory = |_| (0..block_count * SPREAD).map(|_| AtomicU32::new(NONE)).collect();
        let sizes = if block_count == 0 { 0 } else { SLOT_BYTES.len() };
        let blocks = (0..block_count).map(block).collect();
        Self { blocks, directories: (0..sizes).map(directory).collect() }
    }

    /// The memory of directories and list of blocks.
    pub(crate) fn bytes(&self) -> usize {
        let directories = self.directories.iter().map(|directory| size_of_val(&**directory));
        directories.sum::<usize>() + size_of_val(&*self.blocks)
    }

    pub(crate) fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// The entry of a slot that exists.
    #[inline]
    pub(crate) fn entry(&self, slot: FrameNo) -> &Frame {
        let number = (slot.0 & !SLOT) as usize;
        &self.entries(number / BLOCK_SLOTS)[number % BLOCK_SLOTS]
    }

    fn entries(&self, block: usize) -> &FrameArray {
        self.blocks[block].entries.get().expect("a block has entries before it is named")
    }

    /// The set of a record, if there are slots of this size.
    pub(crate) fn set_of(&self, size: usize, record: Owner) -> Option<Set> {
        let (low, high) = halves(record.wide_hash());
        let directory = self.directories.get(size)?;
        let block = directory.get(share(low, directory.len()))?.load(Ordering::Acquire);
        (block != NONE).then(|| Set { block, number: share(high, sets(size)) })
    }

    /// The slots of a set with their entries.
    pub(crate) fn ways(&self, set: Set) -> impl Iterator<Item = (FrameNo, &Frame)> {
        let start = set.number * WAYS;
        let first = set.block as usize * BLOCK_SLOTS + start;
        let entries = &self.entries(set.block as usize)[start..start + WAYS];
        (first..).zip(entries).map(|(number, entry)| (slot_no(number), entry))
    }

    /// The slot of a record: a hint.
    pub(crate) fn find(&self, size: usize, record: Owner) -> Option<(FrameNo, &Frame)> {
        let holds = |entry: &Frame| entry.owner() == record && entry.state.peek().is_readable();
        self.ways(self.set_of(size, record)?).find(|(_, entry)| holds(entry))
    }

    /// Pins the slot of a record; `Err` is a pin that must be dropped, as it found something else.
    pub(crate) fn pin(&self, size: usize, record: Owner) -> Option<Result<FrameNo, FrameNo>> {
        let (slot, entry) = self.find(size, record)?;
        let before = entry.state.pin();
        let ours = planted("slot_unchecked") || entry.owner() == record;
        if before.is_readable() && !before.is_over_ceiling() && ours {
            entry.state.count_use(before, 0);
            return Some(Ok(slot));
        }
        Some(Err(slot))
    }

    /// Where in the arena a slot lies. The caller holds a pin of it, or owns it.
    pub(crate) fn offset_bytes(&self, size: usize, slot: FrameNo) -> usize {
        let number = (slot.0 & !SLOT) as usize;
        let extent = self.blocks[number / BLOCK_SLOTS].extent.load(Ordering::Relaxed);
        extent as usize * BLOCK_BYTES + number % BLOCK_SLOTS * SLOT_BYTES[size]
    }

    /// Writes a record into a slot whose entry the caller owns (free or evicting), and publishes
    /// it.
    pub(crate) fn fill(&self, slot: FrameNo, record: Owner, write: impl FnOnce()) {
        let entry = self.entry(slot);
        entry.state.begin_load(1);
        entry.assign(record);
        write();
        entry.state.finish_load(0);
        // Not flagged: nobody waits for slots, and files go under the lock that the caller holds.
        entry.state.unpin().expect("a slot that was just filled has no flag");
    }

    /// Gives a block its entries, once.
    pub(crate) fn make(&self, block: u32, entries: FrameArray) {
        assert!(self.blocks[block as usize].entries.set(entries).is_ok(), "block {block} twice");
    }

    /// Gives a block its bytes. None of its slots is in use.
    pub(crate) fn settle(&self, block: u32, extent: u32) {
        self.blocks[block as usize].extent.store(extent, Ordering::Relaxed);
    }

    /// The extent of a block.
    pub(crate) fn extent_of(&self, block: u32) -> u32 {
        self.blocks[block as usize].extent.load(Ordering::Relaxed)
    }

    /// Whether no slot of a block is pinned at this moment.
    pub(crate) fn is_at_rest(&self, block: u32) -> bool {
        self.entries(block as usize).iter().all(|entry| {
            let word = entry.state.peek();
            word.is_free() || word.is_evictable()
        })
    }

    /// Empties a block: every slot is free afterwards. `false` when one is pinned; then some are
    /// free and the others as they were.
    pub(crate) fn empty(&self, block: u32) -> bool {
        self.entries(block as usize).iter().all(|entry| {
            if entry.state.peek().is_free() {
                return true;
            }
            let claimed = entry.state.claim().is_some();
            if claimed {
                entry.state.release();
            }
            claimed
        })
    }

    /// Spreads the hashes of a slot size evenly over these blocks, and moves as few as that takes.
    pub(crate) fn spread(&self, size: usize, live: &[u32]) {
        let directory = &self.directories[size];
        let count = live.len().max(1);
        let (each, more) = (directory.len() / count, directory.len() % count);
        let mut rooms = vec![0; self.blocks.len()];
        for (number, block) in live.iter().enumerate() {
            rooms[*block as usize] = each + usize::from(number < more);
        }
        let mut homeless = Vec::new();
        for share in directory {
            match rooms.get_mut(share.load(Ordering::Relaxed) as usize) {
                Some(room) if *room != 0 => *room -= 1,
                _ => homeless.push(share),
            }
        }
        let room =
            live.iter().flat_map(|block| std::iter::repeat_n(*block, rooms[*block as usize]));
        for (share, block) in homeless.into_iter().zip(room.chain(std::iter::repeat(NONE))) {
            share.store(block, Ordering::Release);
        }
    }

    /// Every entry that was ever made, with its number.
    pub(crate) fn all(&self) -> impl Iterator<Item = (FrameNo, &Frame)> {
        let made = self
            .blocks
            .iter()
            .enumerate()
            .filter_map(|(block, it)| Some((block * BLOCK_SLOTS, it.entries.get()?)));
        made.flat_map(|(first, entries)| {
            (first..).zip(&**entries).map(|(number, entry)| (slot_no(number), entry))
        })
    }
}

/// The sets of a block of slots of this size.
pub(crate) fn sets(size: usize) -> usize {
    if cfg!(loom) { 1 } else { BLOCK_BYTES / SLOT_BYTES[size] / WAYS }
}

/// The smallest size of slots that holds so many bytes.
pub(crate) fn size_for(bytes: usize) -> Option<usize> {
    SLOT_BYTES.iter().position(|slot_bytes| bytes <= *slot_bytes)
}

fn slot_no(number: usize) -> FrameNo {
    FrameNo(u32::try_from(number).expect("below 2^31: the arena bounds the blocks") | SLOT)
}

fn halves(hash: u64) -> (u32, u32) {
    let low = u32::try_from(hash & 0xffff_ffff).expect("32 bits");
    (low, u32::try_from(hash >> 32).expect("32 bits"))
}

/// A number below `count`, by the upper bits of `half`.
fn share(half: u32, count: usize) -> usize {
    usize::try_from((u64::from(half) * count as u64) >> 32).expect("below the count")
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn every_block_gets_its_share_of_the_hashes_and_few_move() {
        let slots = Slots::new(128);
        let shares = || {
            let directory = slots.directories[0].iter();
            directory.map(|share| share.load(Ordering::Relaxed)).collect::<Vec<u32>>()
        };
        let mut before = shares();
        let most_blocks = if cfg!(miri) { 9 } else { 115 }; // an interpreter takes minutes for all
        for count in 1..=most_blocks {
            let live: Vec<u32> = (0..count).collect();
            slots.spread(0, &live);
            let after = shares();
            let mut each = vec![0; live.len()];
            after.iter().for_each(|share| each[*share as usize] += 1);
            let (least, most) = (*each.iter().min().unwrap(), *each.iter().max().unwrap());
            assert!(most <= least + 1, "{count} blocks: {least} to {most}");
            let moved = before.iter().zip(&after).filter(|(old, new)| old != new).count();
            assert!(moved <= 2 * most, "{moved} for block {count}");
            before = after;
        }
    }
}
