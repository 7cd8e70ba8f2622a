//! Extents that change hands: from a class to another one, to slots, or out of the cache.
//!
//! Guarantee: a frame that is pinned or loading is never moved. An extent of which one frame gets
//! pinned meanwhile stays with its class, and those that were evicted so far are free frames.
//! Under the lock of the frame books. Tested with `extents`.

use super::{AWAY, Evicted, Extent, Extents, SLOTS, STEAL_CANDIDATES};
use crate::frame::{Frame, FrameNo};
use crate::policy::is_cold;

impl Extents {
    /// Takes the coldest of a few foreign extents that can be had at all.
    pub(super) fn steal(
        &mut self,
        frames: &[Frame],
        frame_units: u8,
        evicted: &mut Evicted,
    ) -> Option<FrameNo> {
        let mut candidates: Vec<(usize, u32)> = Vec::with_capacity(STEAL_CANDIDATES);
        for _ in 0..self.extents.len() {
            let Some(extent) = self.next_foreign(frame_units) else { break };
            if self.is_movable(extent, frames) && 0 < self.slots(extent, frame_units) {
                let warm = self.frames_of(extent, frames).filter(|frame| !is_cold(frame));
                candidates.push((warm.count(), extent));
            }
            if candidates.len() == STEAL_CANDIDATES {
                break;
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates
            .into_iter()
            .find_map(|(_, extent)| self.take_over(extent, frames, frame_units, evicted))
    }

    /// The next extent in turn that belongs to another class.
    pub(super) fn next_foreign(&mut self, frame_units: u8) -> Option<u32> {
        for _ in 0..self.extents.len() {
            self.hand = (self.hand + 1) % self.extents.len();
            let owner = self.extents[self.hand].frame_units;
            let is_in_class =
                !matches!(owner, 0 | SLOTS | AWAY) && !self.extents[self.hand].leaving;
            if is_in_class && owner != frame_units {
                return u32::try_from(self.hand).ok();
            }
        }
        None
    }

    pub(super) fn frames_of<'a>(
        &'a self,
        extent: u32,
        frames: &'a [Frame],
    ) -> impl Iterator<Item = &'a Frame> + 'a {
        let frame_units = self.extents[extent as usize].frame_units;
        (0..self.slots(extent, frame_units))
            .map(move |slot| &frames[self.frame_no(extent, slot, frame_units).index()])
    }

    pub(super) fn is_movable(&self, extent: u32, frames: &[Frame]) -> bool {
        self.frames_of(extent, frames).all(|frame| {
            let word = frame.state.peek();
            word.is_free() || word.is_evictable()
        })
    }

    /// Evicts every frame of a foreign extent and gives it to the class. When a frame gets pinned
    /// meanwhile, the extent stays with its class and those evicted so far are free frames.
    pub(super) fn take_over(
        &mut self,
        extent: u32,
        frames: &[Frame],
        frame_units: u8,
        evicted: &mut Evicted,
    ) -> Option<FrameNo> {
        if self.slots(extent, frame_units) == 0 {
            return None;
        }
        self.clear(extent, frames, evicted)?;
        self.adopt(extent, frame_units);
        self.take_free(frame_units)
    }

    /// Evicts every frame of an extent and takes it from its class.
    pub(super) fn clear(
        &mut self,
        extent: u32,
        frames: &[Frame],
        evicted: &mut Evicted,
    ) -> Option<()> {
        let old_units = self.extents[extent as usize].frame_units;
        for slot in 0..self.slots(extent, old_units) {
            if !self.clear_frame((extent, slot), frames, evicted) {
                return None;
            }
        }
        self.take_from_class(extent);
        Some(())
    }

    /// Evicts a frame; whether it is free now.
    pub(super) fn clear_frame(
        &mut self,
        (extent, slot): (u32, u32),
        frames: &[Frame],
        evicted: &mut Evicted,
    ) -> bool {
        let Extent { frame_units, free, .. } = self.extents[extent as usize];
        if free & (1 << slot) != 0 {
            return true;
        }
        let number = self.frame_no(extent, slot, frame_units);
        let state = &frames[number.index()].state;
        let Some(before) = state.claim() else { return false };
        evicted.count(frames, number, before, frame_units);
        state.release();
        self.mark_free(extent, slot);
        true
    }

    pub(super) fn take_from_class(&mut self, extent: u32) {
        let class = self.class(self.extents[extent as usize].frame_units);
        class.extents.retain(|&other| other != extent);
        class.open.retain(|&other| other != extent);
    }
}
