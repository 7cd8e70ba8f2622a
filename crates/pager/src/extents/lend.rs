//! Extents that are lent to slots (`retention.rs`), and come back.

use std::ops::Range;

use super::{EXTENT_UNITS, Evicted, Extent, Extents, SLOTS, STEAL_CANDIDATES};
use crate::frame::Frame;

impl Extents {
    /// Lends an extent of a class to slots: of the next few that can be had the one with the fewest
    /// frames in use lately. The class keeps at least `least` extents. `reach` says which may go:
    /// those of [`Extents::all`] or, for good, of [`Extents::own`].
    pub(crate) fn lend(
        &mut self,
        frames: &[Frame],
        frame_units: u8,
        least: usize,
        reach: &Range<u32>,
        evicted: &mut Evicted,
    ) -> Option<u32> {
        let class = self.class(frame_units);
        let count = class.extents.len();
        if count <= least {
            return None;
        }
        class.lend_hand = (class.lend_hand + 1) % count;
        let start = class.lend_hand;
        let in_turn = (start..start + count).map(|at| class.extents[at % count]);
        let near = in_turn.filter(|extent| reach.contains(extent)).take(STEAL_CANDIDATES);
        let near: Vec<u32> = near.collect();
        let whole = |extent: &u32| (extent + 1) * EXTENT_UNITS <= self.units;
        let used = |extent: u32| {
            let frames = self.frames_of(extent, frames);
            frames.map(|frame| u32::from(frame.state.peek().uses())).sum::<u32>()
        };
        let mut fit: Vec<u32> =
            near.into_iter().filter(whole).filter(|it| self.is_movable(*it, frames)).collect();
        fit.sort_by_cached_key(|extent| used(*extent));
        let extent = fit.into_iter().find(|it| self.clear(*it, frames, evicted).is_some())?;
        self.extents[extent as usize] = Extent::new(SLOTS);
        Some(extent)
    }

    /// Takes back an extent that was lent to slots, none of which is in use.
    pub(crate) fn take_back(&mut self, extent: u32) {
        let entry = &mut self.extents[extent as usize];
        assert!(entry.frame_units == SLOTS, "extent {extent} was not lent");
        *entry = Extent::new(0);
        self.unassigned.push(extent);
    }
}
