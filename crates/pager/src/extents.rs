//! Frame books: which part of the arena is cut into frames of which size, and which are free.
//!
//! ```text
//! arena   | extent 0        | extent 1        | extent 2        | ...   (256 KiB each)
//!         | 4K 4K 4K 4K ... | 12K 12K 12K ... | unassigned      |
//! ```
//!
//! Each extent belongs to one size class at a time (frames of 1 to 16 units of 4096 bytes) or to
//! none. A class that needs a frame takes, in this order: one of its free frames; an unassigned
//! extent; an extent of another class that has gone cold (asked once for every extent's worth of
//! its own evictions, so that a class that is busy grows and an idle one shrinks); a victim of its
//! own by the eviction policy; any extent of another class without pinned frames. A scan that has
//! had its share takes a frame that a scan filled, before all but unassigned extents.
//!
//! Guarantee: no memory is taken after the start but for lists of extent numbers and what a policy
//! remembers, both bounded by the number of frames; a frame that is pinned or loading is never
//! moved, so its extent stays as it is. Fragmentation is bounded: the space of an extent that no
//! frame fits into (19 % for 52 KiB frames, 0 to 6 % for most sizes).
//! Does not: guarantee a victim to a class when every extent holds a pinned frame of another class;
//! such a page is read past the cache (`bypass.rs`).
//! All methods run under one lock, taken for misses and for frames freed, never for hits.
//! Tested below; the loom model `free_list` runs two allocators and one that frees.

use self::class_ring::ClassRing;
use self::loan::Loan;
pub(crate) use self::loan::{LOAN_STEP_UNITS, Place};
use crate::frame::{Frame, FrameNo, Owner, UNIT_BYTES};
use crate::frame_state::Word;
use crate::planted::planted;
use crate::policy::{AnyPolicy, BATCH_MAX, CachePolicy, Policy, Ring, Use, batch_of, is_cold};
use crate::scan_queue::ScanQueue;

/// The largest frame in units: 64 KiB.
pub(crate) const UNITS_MAX: u8 = 16;

/// An extent in a cache that is large enough to have some.
pub(crate) const EXTENT_UNITS: u32 = 64;

/// A cache has at least this many extents before they shrink below [`EXTENT_UNITS`].
const EXTENTS_WANTED: u32 = 16;

/// The `frame_units` of an extent that is cut into slots, or describes some (`retention.rs`).
const SLOTS: u8 = u8::MAX;
/// The `frame_units` of an extent that is no part of the cache now (`loan.rs`).
const AWAY: u8 = u8::MAX - 1;

/// Among this many extents that could be taken from other classes the coldest one goes.
const STEAL_CANDIDATES: usize = 8;

// One bit per frame of an extent.
const _: () = assert!(EXTENT_UNITS <= u64::BITS);

/// The frame books of one cache.
#[derive(Debug)]
pub(crate) struct Extents {
    extent_units: u32,
    units: u32,
    extents: Vec<Extent>,
    unassigned: Vec<u32>,
    /// Of frames of one unit, two units, ...
    classes: Vec<Class>,
    hand: usize,
    /// Of the search that is going on; empty otherwise.
    victims: Vec<(FrameNo, Word)>,
    loan: Loan,
}

/// What a frame is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    pub(crate) units: u8,
    pub(crate) page: Owner,
    /// The part of it that is wanted (`retention.rs`).
    pub(crate) part: u32,
    pub(crate) purpose: Use,
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    /// The units of its frames; zero when unassigned, [`SLOTS`] when lent to slots, [`AWAY`] when
    /// it is no part of the cache.
    frame_units: u8,
    /// Of no class any more: its frames end one by one (`loan.rs`).
    leaving: bool,
    /// A bit for each frame that is free.
    free: u64,
}

impl Extent {
    const fn new(frame_units: u8) -> Self {
        Self { frame_units, leaving: false, free: 0 }
    }
}

#[derive(Debug)]
struct Class {
    extents: Vec<u32>,
    /// Exactly the extents of the class that have free frames.
    open: Vec<u32>,
    policy: AnyPolicy,
    scans: ScanQueue,
    evictions_since_growth: u32,
    lend_hand: usize,
}

impl Class {
    fn new(policy: CachePolicy) -> Self {
        Self {
            extents: Vec::new(),
            open: Vec::new(),
            policy: AnyPolicy::new(policy),
            scans: ScanQueue::default(),
            evictions_since_growth: 0,
            lend_hand: 0,
        }
    }
}

/// What an allocation did.
#[derive(Debug, Default)]
pub(crate) struct Evicted {
    /// Pages that lost their frame.
    pub(crate) pages: u64,
    /// Units of the pin budget that came with them. The caller gives them back.
    pub(crate) charged_units: u64,
    /// Which pages, if somebody wants to know: while the lock is held their bytes are still there.
    pub(crate) named: Option<Vec<Gone>>,
}

/// A page that lost its frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gone {
    pub(crate) frame: FrameNo,
    pub(crate) page: Owner,
    /// The state word of the frame when it was claimed.
    pub(crate) before: Word,
}

/// The state of one size class, for statistics.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ClassCounts {
    pub(crate) extents: usize,
    pub(crate) frames: usize,
    pub(crate) free: usize,
}

impl Extents {
    /// Books for an arena of `units`, of which the largest frame takes `largest_units`.
    pub(crate) fn new(units: u32, largest_units: u8, policy: CachePolicy) -> Self {
        let extent_units = extent_units(units, largest_units);
        let count = units.div_ceil(extent_units);
        Self {
            extent_units,
            units,
            extents: vec![Extent::new(0); count as usize],
            unassigned: (0..count).rev().collect(),
            classes: (0..UNITS_MAX).map(|_| Class::new(policy)).collect(),
            hand: 0,
            victims: Vec::with_capacity(BATCH_MAX),
            loan: Loan::none(count),
        }
    }

    /// Finds a frame, free or evicting: the caller owns it. What was evicted on the way is added to
    /// `evicted`, also when no frame was found.
    pub(crate) fn allocate(
        &mut self,
        frames: &[Frame],
        demand: Demand,
        evicted: &mut Evicted,
    ) -> Option<FrameNo> {
        let units = demand.units;
        if self.extent_units < u32::from(units) {
            return None; // a cache that is smaller than this page
        }
        let found = self
            .reuse_scanned(frames, demand, evicted)
            .or_else(|| self.take_free(units))
            .or_else(|| self.assign_extent(units))
            .or_else(|| self.grow(frames, units, evicted))
            .or_else(|| self.evict(frames, units, evicted))
            .or_else(|| self.steal(frames, units, evicted))?;
        self.with_class(frames, units, |class, ring| {
            class.policy.inserted(found, demand.page, ring);
            if demand.purpose == Use::Scan {
                class.scans.inserted(found, ring);
            }
        });
        Some(found)
    }

    /// Takes back a frame that the caller owns (state evicting). Returns its units.
    pub(crate) fn free(&mut self, frames: &[Frame], frame: FrameNo) -> u8 {
        frames[frame.index()].state.release();
        self.mark_frame_free(frame)
    }

    fn mark_frame_free(&mut self, frame: FrameNo) -> u8 {
        let extent = frame.0 / self.extent_units;
        let frame_units = self.extents[extent as usize].frame_units;
        let slot = (frame.0 % self.extent_units) / u32::from(frame_units);
        self.mark_free(extent, slot);
        frame_units
    }

    /// Takes back a frame that `allocate` has just found.
    pub(crate) fn put_back(&mut self, frames: &[Frame], frame: FrameNo) {
        if frames[frame.index()].state.peek().is_free() {
            self.mark_frame_free(frame);
        } else {
            self.free(frames, frame);
        }
    }

    /// The frames of `frame_units` bytes each.
    pub(crate) fn counts(&self, frame_units: u8) -> ClassCounts {
        let class = &self.classes[usize::from(frame_units) - 1];
        let mut counts = ClassCounts { extents: class.extents.len(), ..ClassCounts::default() };
        for &extent in &class.extents {
            counts.frames += self.slots(extent, frame_units) as usize;
            counts.free += self.extents[extent as usize].free.count_ones() as usize;
        }
        counts
    }

    /// The number of extents of a class.
    pub(crate) fn count_of(&self, frame_units: u8) -> usize {
        self.classes[usize::from(frame_units) - 1].extents.len()
    }

    /// The number of extents that belong to no class.
    pub(crate) fn unassigned(&self) -> usize {
        self.unassigned.len()
    }

    /// The length of an extent in bytes.
    pub(crate) fn extent_bytes(&self) -> usize {
        self.extent_units as usize * UNIT_BYTES
    }

    /// The memory of the books themselves.
    pub(crate) fn bytes(&self) -> usize {
        let lists: usize =
            self.classes.iter().map(|class| class.extents.capacity() + class.open.capacity()).sum();
        let policies: usize =
            self.classes.iter().map(|class| class.policy.bytes() + class.scans.bytes()).sum();
        policies
            + (lists + self.unassigned.capacity()) * size_of::<u32>()
            + self.extents.capacity() * size_of::<Extent>()
            + self.loan.bytes()
            + self.classes.capacity() * size_of::<Class>()
    }

    fn class(&mut self, frame_units: u8) -> &mut Class {
        &mut self.classes[usize::from(frame_units) - 1]
    }

    /// How many frames of `frame_units` fit into an extent; the last extent may be short.
    fn slots(&self, extent: u32, frame_units: u8) -> u32 {
        let start = extent * self.extent_units;
        self.extent_units.min(self.units - start) / u32::from(frame_units)
    }

    fn frame_no(&self, extent: u32, slot: u32, frame_units: u8) -> FrameNo {
        FrameNo(extent * self.extent_units + slot * u32::from(frame_units))
    }

    fn take_free(&mut self, frame_units: u8) -> Option<FrameNo> {
        let class = &mut self.classes[usize::from(frame_units) - 1];
        let extent = *class.open.last()?;
        let free = &mut self.extents[extent as usize].free;
        let slot = free.trailing_zeros();
        if !planted("free_list_keeps") {
            *free &= *free - 1;
        }
        if *free == 0 {
            class.open.pop();
        }
        Some(self.frame_no(extent, slot, frame_units))
    }

    fn mark_free(&mut self, extent: u32, slot: u32) {
        let entry = &mut self.extents[extent as usize];
        let frame_units = entry.frame_units;
        let first = entry.free == 0;
        assert!(entry.free & (1 << slot) == 0, "frame {slot} of extent {extent} freed twice");
        entry.free |= 1 << slot;
        if first && !entry.leaving {
            self.class(frame_units).open.push(extent);
        }
    }

    fn assign_extent(&mut self, frame_units: u8) -> Option<FrameNo> {
        // The short last extent may have no room for a large frame: look for one that has.
        let index =
            self.unassigned.iter().rposition(|&extent| 0 < self.slots(extent, frame_units))?;
        let extent = self.unassigned.swap_remove(index);
        self.adopt(extent, frame_units);
        self.take_free(frame_units)
    }

    /// Gives an empty extent to a class.
    fn adopt(&mut self, extent: u32, frame_units: u8) {
        let slots = self.slots(extent, frame_units);
        let free = u64::MAX >> (u64::BITS - slots);
        self.extents[extent as usize] = Extent { free, ..Extent::new(frame_units) };
        self.loan.touch(extent);
        let class = self.class(frame_units);
        class.extents.push(extent);
        class.open.push(extent);
    }

    /// Once for each extent's worth of own evictions: takes the next foreign extent if it is cold.
    fn grow(
        &mut self,
        frames: &[Frame],
        frame_units: u8,
        evicted: &mut Evicted,
    ) -> Option<FrameNo> {
        let due = self.extent_units / u32::from(frame_units);
        if self.class(frame_units).evictions_since_growth < due {
            return None;
        }
        self.class(frame_units).evictions_since_growth = 0;
        let extent = self.next_foreign(frame_units)?;
        let warm = self.frames_of(extent, frames).filter(|frame| !is_cold(frame)).count();
        if warm != 0 || !self.is_movable(extent, frames) {
            return None;
        }
        self.take_over(extent, frames, frame_units, evicted)
    }

    /// For a scan: a frame that a scan filled, once scans have their share.
    fn reuse_scanned(
        &mut self,
        frames: &[Frame],
        demand: Demand,
        evicted: &mut Evicted,
    ) -> Option<FrameNo> {
        if demand.purpose == Use::Point || !self.unassigned.is_empty() {
            return None;
        }
        let reuse = |class: &mut Class, ring: &ClassRing<'_>| class.scans.reuse(ring);
        let (frame, before) = self.with_class(frames, demand.units, reuse)?;
        evicted.count(frames, frame, before, demand.units);
        Some(frame)
    }

    /// Takes a victim, and frees a few more ahead of demand.
    fn evict(
        &mut self,
        frames: &[Frame],
        frame_units: u8,
        evicted: &mut Evicted,
    ) -> Option<FrameNo> {
        let mut victims = std::mem::take(&mut self.victims);
        self.with_class(frames, frame_units, |class, ring| {
            let wanted = batch_of(ring.positions());
            class.policy.victims(ring, wanted, &mut |frame, before| victims.push((frame, before)));
        });
        for &(frame, before) in &victims {
            evicted.count(frames, frame, before, frame_units);
            self.class(frame_units).evictions_since_growth += 1;
            if frame != victims[0].0 {
                self.free(frames, frame);
            }
        }
        let first = victims.first().map(|&(frame, _)| frame);
        victims.clear();
        self.victims = victims;
        first
    }

    /// Runs `work` on a class, which looks at the books meanwhile.
    fn with_class<R>(
        &mut self,
        frames: &[Frame],
        frame_units: u8,
        work: impl FnOnce(&mut Class, &ClassRing<'_>) -> R,
    ) -> R {
        let stand_in = Class::new(CachePolicy::Clock);
        let mut class = std::mem::replace(self.class(frame_units), stand_in);
        let extents = std::mem::take(&mut class.extents);
        let ring = ClassRing { books: self, extents: &extents, frames, frame_units };
        let result = work(&mut class, &ring);
        class.extents = extents;
        *self.class(frame_units) = class;
        result
    }
}

impl Evicted {
    fn count(&mut self, frames: &[Frame], frame: FrameNo, before: Word, units: u8) {
        self.pages += 1;
        if let Some(named) = &mut self.named {
            named.push(Gone { frame, page: frames[frame.index()].owner(), before });
        }
        if before.is_charged() {
            self.charged_units += u64::from(units);
        }
    }
}

/// 256 KiB, or the largest power of two that still cuts a small arena into [`EXTENTS_WANTED`], but
/// never less than the largest frame nor more than the arena.
fn extent_units(units: u32, largest_units: u8) -> u32 {
    let wanted = (units / EXTENTS_WANTED).clamp(1, EXTENT_UNITS);
    let power = if wanted.is_power_of_two() { wanted } else { wanted.next_power_of_two() / 2 };
    power.max(u32::from(largest_units)).min(units).max(1)
}

mod class_ring;
mod hand_over;
mod lend;
mod loan;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
