//! The frames of one size class as a ring, for the eviction policy: position by position in the
//! order of the class's extents. Tested with `extents`.

use super::Extents;
use crate::frame::{Frame, FrameNo};
use crate::policy::Ring;

/// The frames of one class in the order of their extents.
pub(super) struct ClassRing<'a> {
    pub(super) books: &'a Extents,
    pub(super) extents: &'a [u32],
    pub(super) frames: &'a [Frame],
    pub(super) frame_units: u8,
}

impl ClassRing<'_> {
    fn slots_per_extent(&self) -> usize {
        (self.books.extent_units / u32::from(self.frame_units)) as usize
    }
}

impl Ring for ClassRing<'_> {
    fn positions(&self) -> usize {
        self.extents.len() * self.slots_per_extent()
    }

    fn frame_at(&self, position: usize) -> Option<(FrameNo, &Frame)> {
        let extent = self.extents[position / self.slots_per_extent()];
        let slot = u32::try_from(position % self.slots_per_extent()).ok()?;
        if self.books.slots(extent, self.frame_units) <= slot {
            return None;
        }
        let number = self.books.frame_no(extent, slot, self.frame_units);
        Some((number, &self.frames[number.index()]))
    }

    fn frame_of(&self, number: FrameNo) -> Option<&Frame> {
        let extent = self.books.extents.get((number.0 / self.books.extent_units) as usize)?;
        let first = (number.0 % self.books.extent_units).is_multiple_of(self.frame_units.into());
        let ours = extent.frame_units == self.frame_units && first;
        ours.then(|| &self.frames[number.index()])
    }

    fn is_leaving(&self, number: FrameNo) -> bool {
        let extent = self.books.extents.get((number.0 / self.books.extent_units) as usize);
        extent.is_some_and(|extent| extent.leaving)
    }
}
