//! Registered buffers: parts of an arena whose pages the kernel has pinned once, so that a direct
//! transfer need not look them up and pin them each time.
//!
//! ```text
//! register_arena -> Offers (shared by all rings) -> each ring's thread registers before it issues
//! ```
//!
//! Guarantees:
//! - What is registered is kept alive by the ring until it is taken off the ring, or for ever.
//! - A transfer is named by a slot only if it lies inside the extent that the slot has.
//! - A ring whose registration is refused does without: the bytes are the same.
//!
//! An arena that only its offer still holds is taken off the list with the next offer, and off the
//! rings as they next look. Until then its memory stays.
//! Does not: register anything with rings of callers; their loads are few at a time.
//! Ordering: an offer is in the list before the epoch that announces it (Release, Acquire).
//! Unsafe calls are in `ring.rs`. Tested below and in `tests/it/registered.rs`.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::flight::Flight;
use crate::memory::Arena;
use crate::request::IoBuffer;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, lock};
use crate::transfer::Piece;

/// The kernel takes at most this much as one buffer.
const EXTENT_BYTES_MAX: usize = 1 << 30;

/// Extents that one ring can have.
pub(super) const SLOTS: u16 = 64;

/// An arena that rings may register.
pub(super) struct Offer {
    arena: Arc<Arena>,
}

impl Offer {
    pub(super) fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }
}

/// What all rings of a disk may register, and what came of it.
#[derive(Default)]
pub(super) struct Offers {
    epoch: AtomicUsize,
    list: Mutex<Vec<Arc<Offer>>>,
    /// Sums over the rings.
    bytes: AtomicU64,
    refusal: OnceLock<String>,
}

impl Offers {
    pub(super) fn add(&self, arena: &Arc<Arena>) {
        let mut list = lock(&self.list);
        // Where only the offer itself holds an arena, no region of it can come any more.
        list.retain(|offer| 1 < Arc::strong_count(&offer.arena));
        if !list.iter().any(|offer| Arc::ptr_eq(&offer.arena, arena)) {
            list.push(Arc::new(Offer { arena: Arc::clone(arena) }));
        }
        // Release: whoever sees the new epoch sees the list. Under the lock, so none is skipped.
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// Changes when the list does.
    pub(super) fn epoch(&self) -> usize {
        self.epoch.load(Ordering::Acquire)
    }

    pub(super) fn list(&self) -> Vec<Arc<Offer>> {
        lock(&self.list).clone()
    }

    /// A ring that had `before` bytes registered has `after` now.
    pub(super) fn note(&self, before: u64, after: u64) {
        // Relaxed: figures for the report.
        self.bytes.fetch_add(after, Ordering::Relaxed);
        self.bytes.fetch_sub(before, Ordering::Relaxed);
    }

    /// Keeps the first reason.
    pub(super) fn note_refusal(&self, reason: String) {
        self.refusal.get_or_init(|| reason);
    }

    /// Bytes that are registered, each ring's counted.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.get().cloned()
    }
}

/// What one ring has registered, by slot.
#[derive(Default)]
pub(super) struct FixedBuffers {
    slots: Vec<Option<Extent>>,
}

struct Extent {
    offer: Arc<Offer>,
    /// Offsets in the arena.
    range: Range<usize>,
}

/// One registration to be made: a slot, and offsets in the arena.
pub(super) type Placement = (u16, Range<usize>);

impl FixedBuffers {
    /// Slots whose arena is not offered any more.
    pub(super) fn outdated(&self, offers: &[Arc<Offer>]) -> Vec<u16> {
        let stale = |extent: &Extent| !offers.iter().any(|offer| Arc::ptr_eq(offer, &extent.offer));
        let slots = (0u16..).zip(&self.slots);
        slots
            .filter(|(_, extent)| extent.as_ref().is_some_and(stale))
            .map(|(slot, _)| slot)
            .collect()
    }

    /// Where a new arena goes; none if it is there already, an error if there is no room.
    pub(super) fn plan(&self, offer: &Arc<Offer>) -> Result<Vec<Placement>, String> {
        let known = |extent: &Extent| Arc::ptr_eq(&extent.offer, offer);
        if self.slots.iter().flatten().any(known) {
            return Ok(Vec::new());
        }
        let is_free = |slot: &u16| self.slots.get(usize::from(*slot)).is_none_or(Option::is_none);
        let mut free = (0..SLOTS).filter(is_free);
        let len = offer.arena.len();
        let starts = (0..len).step_by(EXTENT_BYTES_MAX);
        let ranges = starts.map(|start| start..len.min(start + EXTENT_BYTES_MAX));
        let placed = ranges.map(|range| free.next().map(|slot| (slot, range)));
        placed.collect::<Option<_>>().ok_or_else(|| {
            format!(
                "a ring has {SLOTS} slots of 1 GiB for registered buffers, and too few are free \
                 for {len} bytes more"
            )
        })
    }

    pub(super) fn fill(&mut self, offer: &Arc<Offer>, (slot, range): Placement) {
        let slot = usize::from(slot);
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(Extent { offer: Arc::clone(offer), range });
    }

    pub(super) fn clear(&mut self, slot: u16) {
        self.slots[usize::from(slot)] = None;
    }

    pub(super) fn bytes(&self) -> u64 {
        self.slots.iter().flatten().map(|extent| extent.range.len() as u64).sum()
    }

    /// The slot that has all bytes of a piece of a direct transfer.
    pub(super) fn find(&self, flight: &Flight, piece: &Piece) -> Option<u16> {
        if self.slots.is_empty() || !flight.ticket.file.is_direct() {
            return None;
        }
        let Some(IoBuffer::Region(region)) = &flight.buffer else { return None };
        let start = region.offset() + piece.start;
        let has = |extent: &Extent| {
            Arc::ptr_eq(&extent.offer.arena, region.arena())
                && extent.range.start <= start
                && start + piece.len <= extent.range.end
        };
        let mut slots = (0u16..).zip(&self.slots);
        slots.find(|(_, extent)| extent.as_ref().is_some_and(has)).map(|(slot, _)| slot)
    }
}

// The arenas here are larger than what Miri can zero in reasonable time.
#[cfg(test)]
#[cfg(not(any(loom, miri)))]
mod tests {
    use super::*;

    fn offers(sizes: &[usize]) -> (Offers, Vec<Arc<Arena>>) {
        let offers = Offers::default();
        let arenas: Vec<_> = sizes.iter().map(|bytes| Arena::new(*bytes).unwrap()).collect();
        arenas.iter().for_each(|arena| offers.add(arena));
        (offers, arenas)
    }

    fn fill(fixed: &mut FixedBuffers, offer: &Arc<Offer>) {
        for placement in fixed.plan(offer).unwrap() {
            fixed.fill(offer, placement);
        }
    }

    #[test]
    fn an_arena_is_cut_into_extents_that_the_kernel_takes() {
        let (offers, _arenas) = offers(&[EXTENT_BYTES_MAX + 4096]);

        let plan = FixedBuffers::default().plan(&offers.list()[0]).unwrap();

        let second = EXTENT_BYTES_MAX..EXTENT_BYTES_MAX + 4096;
        assert_eq!(plan, [(0, 0..EXTENT_BYTES_MAX), (1, second)]);
    }

    #[test]
    fn an_arena_is_registered_once() {
        let (offers, arenas) = offers(&[8192]);
        offers.add(&arenas[0]);
        let mut fixed = FixedBuffers::default();

        fill(&mut fixed, &offers.list()[0]);

        assert_eq!((offers.list().len(), fixed.bytes()), (1, 8192));
        assert_eq!(fixed.plan(&offers.list()[0]), Ok(Vec::new()));
    }

    #[test]
    fn what_has_no_room_is_refused() {
        let (offers, _arenas) = offers(&[4096; SLOTS as usize + 1]);
        let (mut fixed, list) = (FixedBuffers::default(), offers.list());
        let (last, others) = list.split_last().unwrap();
        others.iter().for_each(|offer| fill(&mut fixed, offer));

        let refusal = fixed.plan(last).unwrap_err();

        assert!(refusal.contains("64 slots"), "{refusal}");
    }

    #[test]
    fn an_arena_that_nobody_else_has_is_taken_off_with_the_next_offer() {
        let (offers, mut arenas) = offers(&[8192, 4096]);
        let mut fixed = FixedBuffers::default();
        offers.list().iter().for_each(|offer| fill(&mut fixed, offer));
        let epoch = offers.epoch();

        drop(arenas.remove(0));
        assert_eq!(fixed.outdated(&offers.list()), Vec::<u16>::new());
        offers.add(&arenas[0]);

        assert_ne!(offers.epoch(), epoch);
        assert_eq!(fixed.outdated(&offers.list()), [0]);
        fixed.clear(0);
        assert_eq!(fixed.bytes(), 4096);
    }
}
