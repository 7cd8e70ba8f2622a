//! Retention by record: what becomes of the parts of a page that were read, when the page goes.
//!
//! With eight vectors to a page and popularity scattered over them, one hot vector keeps seven cold
//! ones in memory. So the parts of a page that were read while it was there are copied to slots
//! (`slots.rs`) when it is evicted; each is then kept or let go by itself. Within its set the part
//! goes that was wanted least often lately (`frequency.rs`), which may be the new one: a part that
//! was read once takes the place of no popular one.
//!
//! How much of the cache is slots follows the misses. Pages and parts that left are remembered for
//! a while (`ghosts.rs`), for as many bytes of each. A miss on such a page is a vote for frames, as
//! with more of them it would have been a hit; one on such a part is a vote for slots. Slots get
//! another extent while they have clearly more votes, and lose one while they have not.
//!
//! Guarantee: slots lie in extents of the arena, their entries as well, so the limit holds. There
//! are none until there are votes for them. Extents of entries (one for 32 of slots) stay for ever,
//! so they are taken from what is no loan (`extents/loan.rs`).
//! A slot is no reason to refuse anything: an allocation that finds no frame takes theirs.
//! Does not: keep what only scans read, nor parts larger than [`SLOT_BYTES`] allows.
//! All under the lock of the frame books. Tested in `retention/tests.rs`; `replay.rs` runs it too.

use std::ops::Range;

use crate::config::FileParts;
use crate::extents::{Evicted, Extents, Gone};
use crate::frame::{Frame, FrameNo, Owner, UNIT_BYTES};
use crate::frame_array::FrameArray;
use crate::frame_memory::FrameMemory;
use crate::frequency::Frequency;
use crate::ghosts::Ghosts;
use crate::slots::{BLOCK_BYTES, BLOCK_SLOTS, SLOT_BYTES, Set, Slots, WAYS};

/// Votes are remembered for so much of the cache.
const WINDOW_SHARE: usize = 8;
/// A new part may have been wanted so many times less than the one it takes the place of: what is
/// popular now comes in before it was wanted as often as what was popular once.
const RECENT: u8 = 1;
/// Votes after which is counted.
const VOTES: u32 = 32;
/// Slots grow when they have this many times the votes of frames, in percent, and shrink below
/// the second.
const GROW_PERCENT: u32 = 175;
const SHRINK_PERCENT: u32 = 125;
/// With so many times the votes they grow faster, by so many steps.
const LEAP_PERCENT: u32 = 350;
const LEAP_STEPS: usize = 4;
/// The share of the cache, with what it has of a loan now, that one step moves, and the most that
/// slots may have of it when they grow.
const STEPS: usize = 32;
const MOST_PERCENT: usize = 90;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Retention {
    /// By the keys of files.
    files: Vec<Option<KnownFile>>,
    /// For each size of slots the blocks in use, oldest first.
    live: [Vec<u32>; SLOT_BYTES.len()],
    /// Blocks whose extents are taken back, with the number of their slot size.
    leaving: Vec<(usize, u32)>,
    /// Blocks that have entries and no extent.
    spare: Vec<u32>,
    /// For each block that was ever made the hands of its sets.
    hands: Vec<Box<[u8]>>,
    /// The extent from which entries of the last blocks were taken, and how many of it.
    entries: Option<(u32, usize)>,
    pages_gone: Ghosts,
    parts_gone: Ghosts,
    /// Of parts: misses, and the hits of those that were kept.
    wanted: Frequency,
    votes_for_frames: u32,
    votes_for_slots: [u32; SLOT_BYTES.len()],
}

#[derive(Clone, Copy, Debug)]
struct KnownFile {
    parts: FileParts,
    /// Whether slots ever held some of it.
    kept: bool,
}

/// What retention works on.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) frames: &'a [Frame],
    pub(crate) slots: &'a Slots,
    /// None in a replay, which has no bytes.
    pub(crate) memory: Option<&'a FrameMemory>,
}

impl Retention {
    /// For a cache of so many units; `None` when it is too small to share.
    pub(crate) fn new(units: u32, slots: &Slots) -> Option<Self> {
        let window = units as usize * UNIT_BYTES / WINDOW_SHARE;
        (slots.block_count() != 0).then(|| Self {
            files: Vec::new(),
            live: Default::default(),
            leaving: Vec::new(),
            spare: Vec::new(),
            hands: Vec::new(),
            entries: None,
            pages_gone: Ghosts::new(window, UNIT_BYTES),
            parts_gone: Ghosts::new(window, SLOT_BYTES[0]),
            wanted: Frequency::new(units as usize * UNIT_BYTES / SLOT_BYTES[0]),
            votes_for_frames: 0,
            votes_for_slots: Default::default(),
        })
    }

    /// A file was opened under this key; its pages have such parts.
    pub(crate) fn register(&mut self, key: u32, parts: FileParts) {
        let at = key as usize;
        if self.files.len() <= at {
            self.files.resize(at + 1, None);
        }
        self.files[at] = Some(KnownFile { parts, kept: false });
    }

    /// The file of this key is going: nothing of it is kept from now on. Whether something was.
    pub(crate) fn forget(&mut self, key: u32) -> bool {
        let known = self.files.get_mut(key as usize).and_then(Option::take);
        known.is_some_and(|known| known.kept)
    }

    /// A part of a page was missed.
    pub(crate) fn missed(&mut self, page: Owner, part: u32) {
        if self.pages_gone.takes_back(page.wide_hash()) {
            self.votes_for_frames += 1;
        }
        let Some(known) = self.known(page) else { return };
        let record = known.parts.record(page, part);
        self.wanted.count(record.wide_hash(), 1);
        if self.parts_gone.takes_back(record.wide_hash()) {
            self.votes_for_slots[known.parts.size()] += 1;
        }
    }

    /// Keeps what was read of pages that were evicted just now, and counts the votes.
    pub(crate) fn settle(
        &mut self,
        ground: Ground<'_>,
        extents: &mut Extents,
        units: u8,
        evicted: &mut Evicted,
    ) {
        self.keep_all(ground, evicted);
        let slots: u32 = self.votes_for_slots.iter().sum();
        if slots + self.votes_for_frames < VOTES {
            return;
        }
        let frames = self.votes_for_frames;
        let most = (0..SLOT_BYTES.len()).max_by_key(|size| self.votes_for_slots[*size]);
        let least = |size: &usize| (self.votes_for_slots[*size], *size);
        let steps = most_blocks(ground.slots, extents).div_ceil(STEPS);
        if let Some(size) = most.filter(|_| frames * GROW_PERCENT < slots * 100) {
            let urgent = frames * LEAP_PERCENT < slots * 100;
            for _ in 0..steps * if urgent { LEAP_STEPS } else { 1 } {
                self.grow(ground, extents, (size, units), evicted);
            }
        } else if slots * 100 < frames * SHRINK_PERCENT {
            let in_use = |size: &usize| !self.live[*size].is_empty();
            if let Some(size) = (0..SLOT_BYTES.len()).filter(in_use).min_by_key(least) {
                let mut shrink = || self.shrink(ground.slots, extents, size);
                (0..steps).all(|_| shrink());
            }
        }
        self.votes_for_frames = 0;
        self.votes_for_slots = Default::default();
    }

    /// Gives an extent back for want of frames; `false` when none can be had.
    pub(crate) fn yield_one(&mut self, slots: &Slots, extents: &mut Extents) -> bool {
        (0..SLOT_BYTES.len()).any(|size| self.shrink(slots, extents, size))
    }

    /// Takes the blocks in these extents from their slot sizes, and gives back those whose slots
    /// are not in use.
    pub(crate) fn leave(&mut self, slots: &Slots, extents: &mut Extents, gone: &Range<u32>) {
        for (size, live) in self.live.iter_mut().enumerate() {
            let goes = |block: &mut u32| gone.contains(&slots.extent_of(*block));
            let before = self.leaving.len();
            self.leaving.extend(live.extract_if(.., goes).map(|block| (size, block)));
            if before != self.leaving.len() {
                slots.spread(size, live);
            }
        }
        let ends = |&mut (_, block): &mut (usize, u32)| {
            gone.contains(&slots.extent_of(block)) && slots.empty(block)
        };
        for (_, block) in self.leaving.extract_if(.., ends) {
            extents.leave_slots(slots.extent_of(block));
            self.spare.push(block);
        }
    }

    /// Whether no slot in these extents is pinned at this moment.
    pub(crate) fn is_at_rest(&self, slots: &Slots, extents: &Range<u32>) -> bool {
        let mut there = self.live.iter().flatten().filter(|block| {
            let extent = slots.extent_of(**block);
            extents.contains(&extent)
        });
        there.all(|block| slots.is_at_rest(*block))
    }

    /// What was leaving stays.
    pub(crate) fn stay(&mut self, slots: &Slots) {
        for (size, block) in self.leaving.drain(..) {
            self.live[size].push(block);
            slots.spread(size, &self.live[size]);
        }
    }

    /// Blocks in use.
    pub(crate) fn blocks(&self) -> usize {
        self.live.iter().map(Vec::len).sum::<usize>() + self.leaving.len()
    }

    /// The memory of the books themselves.
    pub(crate) fn bytes(&self) -> usize {
        let hands: usize = self.hands.iter().map(|hands| hands.len()).sum();
        let blocks = self.live.iter().map(Vec::capacity).sum::<usize>() + self.spare.capacity();
        let leaving = self.leaving.capacity() * size_of::<(usize, u32)>();
        self.pages_gone.bytes()
            + self.parts_gone.bytes()
            + self.wanted.bytes()
            + hands
            + leaving
            + blocks * size_of::<u32>()
            + self.hands.capacity() * size_of::<Box<[u8]>>()
            + self.files.capacity() * size_of::<Option<KnownFile>>()
    }

    fn known(&self, page: Owner) -> Option<KnownFile> {
        *self.files.get(page.key() as usize)?
    }

    pub(crate) fn keep_all(&mut self, ground: Ground<'_>, evicted: &mut Evicted) {
        let Some(mut named) = evicted.named.take() else { return };
        named.drain(..).for_each(|gone| self.keep(ground, gone));
        evicted.named = Some(named);
    }

    fn keep(&mut self, ground: Ground<'_>, gone: Gone) {
        let Gone { frame, page, before } = gone;
        self.pages_gone.note(page.wide_hash(), usize::from(before.units()) * UNIT_BYTES);
        let Some(known) = self.known(page) else { return };
        let parts = known.parts;
        for part in (0..parts.count()).filter(|part| before.parts() & (1 << part) != 0) {
            let record = parts.record(page, part);
            match ground.slots.set_of(parts.size(), record) {
                Some(set) => self.keep_part(ground, record, (parts, part), set, frame),
                None => self.parts_gone.note(record.wide_hash(), parts.slot_bytes()),
            }
        }
    }

    /// Keeps a part in its set, where another goes for it that was wanted less often.
    fn keep_part(
        &mut self,
        ground: Ground<'_>,
        record: Owner,
        (parts, part): (FileParts, u32),
        set: Set,
        frame: FrameNo,
    ) {
        let slots = ground.slots;
        if let Some((_, entry)) = slots.ways(set).find(|(_, entry)| entry.owner() == record) {
            let seen = entry.state.peek();
            if seen.is_readable() {
                return entry.state.use_again(seen);
            }
        }
        let (slot, gone) = self.choose(slots, set, record);
        if let Some(gone) = gone {
            self.parts_gone.note(gone.wide_hash(), parts.slot_bytes());
        }
        let Some(slot) = slot else { return };
        slots.fill(slot, record, || {
            let Some(memory) = ground.memory else { return };
            let from = frame.offset_bytes() + parts.start_of(part) as usize;
            let to = slots.offset_bytes(parts.size(), slot);
            // SAFETY: the page was evicted under this lock, without which its frame is given to
            // nobody, so its bytes are there and nobody writes them; the slot is ours until it is
            // published.
            unsafe { memory.copy(from, to, parts.length_of(part) as usize) };
        });
        if let Some(Some(known)) = self.files.get_mut(record.key() as usize) {
            known.kept = true;
        }
    }

    /// A slot of a set for a part, whose entry the caller then owns, and what has to go: another
    /// part, or this one.
    fn choose(
        &mut self,
        slots: &Slots,
        set: Set,
        record: Owner,
    ) -> (Option<FrameNo>, Option<Owner>) {
        if let Some((slot, _)) = slots.ways(set).find(|(_, entry)| entry.state.peek().is_free()) {
            return (Some(slot), None);
        }
        let hand = usize::from(self.hands[set.block as usize][set.number]);
        let others = slots.ways(set).enumerate().filter_map(|(way, (slot, entry))| {
            let seen = entry.state.peek();
            let owner = entry.owner();
            let count = self.wanted.of(owner.wide_hash()) + seen.uses();
            seen.is_evictable().then_some((count, (way + WAYS - hand) % WAYS, way, slot, owner))
        });
        let least = others.min_by_key(|(count, turn, ..)| (*count, *turn));
        let Some((count, _, way, slot, owner)) = least else { return (None, Some(record)) };
        let state = &slots.entry(slot).state;
        self.wanted.count(owner.wide_hash(), state.take_uses());
        let wanted = self.wanted.of(record.wide_hash()) + RECENT;
        if wanted < count || state.claim().is_none() {
            return (None, Some(record));
        }
        let next = u8::try_from((way + 1) % WAYS).expect("a set is small");
        self.hands[set.block as usize][set.number] = next;
        (Some(slot), Some(owner))
    }

    /// Makes an extent of frames a block of slots.
    pub(crate) fn grow(
        &mut self,
        ground: Ground<'_>,
        extents: &mut Extents,
        (size, units): (usize, u8),
        evicted: &mut Evicted,
    ) {
        let most = most_blocks(ground.slots, extents) * MOST_PERCENT / 100;
        if most <= self.blocks() {
            return;
        }
        let least = extents.count_of(units) / (100 / (100 - MOST_PERCENT));
        let Some(block) =
            self.spare.pop().or_else(|| self.make_block(ground, extents, units, evicted))
        else {
            return;
        };
        let Some(extent) =
            extents.lend(ground.frames, units, least.max(1), &extents.all(), evicted)
        else {
            self.spare.push(block);
            return;
        };
        self.keep_all(ground, evicted); // before the block is there: it lies where they are
        ground.slots.settle(block, extent);
        self.live[size].push(block);
        ground.slots.spread(size, &self.live[size]);
    }

    /// A new block, with entries and without an extent.
    fn make_block(
        &mut self,
        ground: Ground<'_>,
        extents: &mut Extents,
        units: u8,
        evicted: &mut Evicted,
    ) -> Option<u32> {
        let block = u32::try_from(self.hands.len()).ok()?;
        if ground.slots.block_count() <= block as usize {
            return None;
        }
        let bytes = FrameArray::bytes(BLOCK_SLOTS).next_multiple_of(UNIT_BYTES);
        let room = self.entries.filter(|(_, used)| used + bytes <= BLOCK_BYTES);
        let (extent, used) = match room {
            Some(room) => room,
            None => (extents.lend(ground.frames, units, 1, &extents.own(), evicted)?, 0),
        };
        self.keep_all(ground, evicted); // before anything is written over them
        self.entries = Some((extent, used + bytes));
        ground.slots.make(block, entries(ground.memory, extent as usize * BLOCK_BYTES + used)?);
        self.hands.push(vec![0; BLOCK_SLOTS.div_ceil(WAYS)].into());
        Some(block)
    }

    /// Gives the newest extent of a slot size back to frames.
    fn shrink(&mut self, slots: &Slots, extents: &mut Extents, size: usize) -> bool {
        let Some(block) = self.live[size].pop_if(|block| slots.empty(*block)) else { return false };
        slots.spread(size, &self.live[size]);
        extents.take_back(slots.extent_of(block));
        self.spare.push(block);
        true
    }
}

/// Blocks of slots that the cache would hold if it had nothing else: those of a loan only while it
/// is there.
fn most_blocks(slots: &Slots, extents: &Extents) -> usize {
    slots.block_count().min(extents.present())
}

/// Entries of a block, at an offset of the arena that is an extent lent for them.
#[cfg(not(loom))]
fn entries(memory: Option<&FrameMemory>, offset: usize) -> Option<FrameArray> {
    let Some(memory) = memory else {
        let arena = nephrite_io::memory::Arena::new(FrameArray::bytes(BLOCK_SLOTS)).ok()?;
        // SAFETY: nobody else has this arena.
        return Some(unsafe { FrameArray::new(&arena, 0, BLOCK_SLOTS) });
    };
    // SAFETY: frames were here, which are all free, and no region of a free frame is lent out. The
    // extent is never taken back, so none will be.
    Some(unsafe { FrameArray::new(memory.arena(), offset, BLOCK_SLOTS) })
}

#[cfg(loom)]
fn entries(_: Option<&FrameMemory>, _: usize) -> Option<FrameArray> {
    Some(FrameArray::on_heap(BLOCK_SLOTS))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
