//! The loan: extents at the end of the arena that are the cache's for as long as their owner has no
//! use for them.
//!
//! ```text
//! arena  | own ...                        | step | step | step |   (a step is a huge page)
//!
//! away -> unassigned -> of a class, or of slots <-> leaving -> away
//! ```
//!
//! What is taken back *leaves*: it is of no class any more, so nothing new comes to it, and each of
//! its frames ends as soon as it is neither pinned nor loading, at the next look. Memory goes back
//! to the system by steps, once every extent of one is away.
//!
//! Guarantee: nothing waits. [`Extents::loan_bytes`] counts a step until its memory has gone back.
//! Does not: choose what leaves by how cold it is. Who takes back wants memory soon, and popular
//! parts of pages go to slots as they do at every eviction.
//! Under the lock of the frame books. Tested in `pager/tests/loan.rs`.

use std::ops::Range;

use super::{AWAY, EXTENT_UNITS, Evicted, Extent, Extents, SLOTS, UNIT_BYTES};
use crate::frame::Frame;

/// The loan comes and goes by so many units: a huge page.
pub(crate) const LOAN_STEP_UNITS: u32 = 512;
/// Extents of a step.
const STEP_EXTENTS: u32 = LOAN_STEP_UNITS / EXTENT_UNITS;
const STEP_BYTES: usize = LOAN_STEP_UNITS as usize * UNIT_BYTES;
const EXTENT_BYTES: usize = EXTENT_UNITS as usize * UNIT_BYTES;

const _: () = assert!(LOAN_STEP_UNITS.is_multiple_of(EXTENT_UNITS));
// A bit for each extent of a step.
const _: () = assert!(STEP_EXTENTS == u8::BITS);

/// Where the memory of a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// With the owner of the loan.
    Away,
    Here,
    /// Here, and no more than is in use.
    Leaving,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    place: Place,
    /// The extents that took memory since the step was last away.
    touched: u8,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Loan {
    /// The first extent.
    start: u32,
    steps: Vec<Step>,
    /// The steps that are not away, and those of them that are leaving.
    present: usize,
    leaving: usize,
    /// The extents that take memory.
    touched: usize,
}

impl Loan {
    /// All of `count` extents are the cache's own.
    pub(super) fn none(count: u32) -> Self {
        Self { start: count, steps: Vec::new(), present: 0, leaving: 0, touched: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.steps.capacity() * size_of::<Step>()
    }

    /// An extent is about to be used.
    pub(super) fn touch(&mut self, extent: u32) {
        let Some(number) = extent.checked_sub(self.start) else { return };
        let step = &mut self.steps[(number / STEP_EXTENTS) as usize];
        let bit = 1 << (number % STEP_EXTENTS);
        self.touched += usize::from(step.touched & bit == 0);
        step.touched |= bit;
    }

    fn set(&mut self, step: usize, place: Place) {
        let step = &mut self.steps[step];
        let before = std::mem::replace(&mut step.place, place);
        self.present += usize::from(place != Place::Away);
        self.present -= usize::from(before != Place::Away);
        self.leaving += usize::from(place == Place::Leaving);
        self.leaving -= usize::from(before == Place::Leaving);
        if place == Place::Away {
            self.touched -= step.touched.count_ones() as usize;
            step.touched = 0;
        }
    }
}

impl Extents {
    /// What lies after the first `own_units` is a loan, and away. To be called once, before the
    /// first allocation.
    pub(crate) fn set_loan(&mut self, own_units: u32) {
        if own_units == self.units {
            return;
        }
        assert!(self.extent_units == EXTENT_UNITS, "extents of {} units", self.extent_units);
        let whole = [own_units, self.units].iter().all(|it| it.is_multiple_of(LOAN_STEP_UNITS));
        assert!(whole, "{own_units} of {} units are whole steps", self.units);
        let start = own_units / EXTENT_UNITS;
        let count = (self.all().end - start) / STEP_EXTENTS;
        let steps = vec![Step { place: Place::Away, touched: 0 }; count as usize];
        self.loan = Loan { start, steps, ..Loan::none(0) };
        self.unassigned.retain(|extent| *extent < start);
        self.extents[start as usize..].fill(Extent::new(AWAY));
    }

    /// Every extent.
    pub(crate) fn all(&self) -> Range<u32> {
        0..u32::try_from(self.extents.len()).expect("as many as were asked for")
    }

    /// The extents that are no loan.
    pub(crate) fn own(&self) -> Range<u32> {
        0..self.loan.start
    }

    /// Whole extents that are the cache's, and stay so for now.
    pub(crate) fn present(&self) -> usize {
        let own = self.own().end.min(self.units / self.extent_units);
        own as usize + (self.loan.present - self.loan.leaving) * STEP_EXTENTS as usize
    }

    /// Bytes of the loan whose memory is the cache's.
    pub(crate) fn loan_bytes(&self) -> usize {
        self.loan.present * STEP_BYTES
    }

    /// Those of them that go as soon as they can.
    pub(crate) fn leaving_bytes(&self) -> usize {
        self.loan.leaving * STEP_BYTES
    }

    /// Bytes of the loan that take no memory: they are away, or the cache had no use for them.
    pub(crate) fn untouched_bytes(&self) -> usize {
        self.loan.steps.len() * STEP_BYTES - self.loan.touched * EXTENT_BYTES
    }

    /// Makes so much of the loan part of the cache, what it has included, as far as whole steps go;
    /// what was leaving stays.
    pub(crate) fn take_loan(&mut self, bytes: usize) {
        let mut left = bytes.saturating_sub(self.loan_bytes()) / STEP_BYTES;
        for step in 0..self.loan.steps.len() {
            match self.loan.steps[step].place {
                Place::Here => {}
                Place::Leaving => self.loan.set(step, Place::Here),
                Place::Away if left == 0 => {}
                Place::Away => {
                    left -= 1;
                    self.loan.set(step, Place::Here);
                }
            }
        }
        let mut back = Vec::new();
        let steps = (0..self.loan.steps.len()).rev();
        let here = steps.filter(|step| self.loan.steps[*step].place == Place::Here);
        let here: Vec<u32> = here.flat_map(|step| self.step(step).rev()).collect();
        for extent in here {
            let Extent { frame_units, leaving, free } = self.extents[extent as usize];
            if frame_units == AWAY {
                self.extents[extent as usize] = Extent::new(0);
                back.push(extent);
            } else if leaving {
                self.extents[extent as usize].leaving = false;
                let class = self.class(frame_units);
                class.extents.push(extent);
                if free != 0 {
                    class.open.push(extent);
                }
            }
        }
        // Before the others, which are taken from the end: memory that is there goes first.
        self.unassigned.splice(0..0, back);
    }

    /// The number of the last step in this place below `before`.
    pub(crate) fn last_step(&self, place: Place, before: usize) -> Option<usize> {
        self.loan.steps.iter().take(before).rposition(|step| step.place == place)
    }

    /// The extents of a step.
    pub(crate) fn step(&self, step: usize) -> Range<u32> {
        let step = u32::try_from(step).expect("below the number of extents");
        let start = self.loan.start + step * STEP_EXTENTS;
        start..start + STEP_EXTENTS
    }

    /// Where in the arena a step lies.
    pub(crate) fn step_bytes(&self, step: usize) -> Range<usize> {
        let start = self.step(step).start as usize * EXTENT_BYTES;
        start..start + STEP_BYTES
    }

    /// Whether slots have extents of a step.
    pub(crate) fn has_slots(&self, step: usize) -> bool {
        self.step(step).any(|extent| self.extents[extent as usize].frame_units == SLOTS)
    }

    /// Whether no frame of a step is pinned or loading at this moment. Of slots nothing is said.
    pub(crate) fn is_at_rest(&self, step: usize, frames: &[Frame]) -> bool {
        self.step(step).all(|extent| {
            let in_class = !matches!(self.extents[extent as usize].frame_units, 0 | SLOTS | AWAY);
            !in_class || self.is_movable(extent, frames)
        })
    }

    /// Takes the frames of a step from the cache, as far as they are not in use. What slots have is
    /// left to them.
    pub(crate) fn leave(&mut self, step: usize, frames: &[Frame], evicted: &mut Evicted) {
        self.loan.set(step, Place::Leaving);
        for extent in self.step(step) {
            let Extent { frame_units, leaving, .. } = self.extents[extent as usize];
            match frame_units {
                AWAY | SLOTS => continue,
                0 => {
                    self.unassigned.retain(|other| *other != extent);
                    self.extents[extent as usize] = Extent::new(AWAY);
                    continue;
                }
                _ if !leaving => {
                    self.take_from_class(extent);
                    self.extents[extent as usize].leaving = true;
                }
                _ => {}
            }
            let count = self.slots(extent, frame_units);
            let free = (0..count)
                .filter(|slot| self.clear_frame((extent, *slot), frames, evicted))
                .count();
            if free == count as usize {
                self.extents[extent as usize] = Extent::new(AWAY);
            }
        }
    }

    /// An extent that slots had and do not have any more.
    pub(crate) fn leave_slots(&mut self, extent: u32) {
        let entry = &mut self.extents[extent as usize];
        assert!(entry.frame_units == SLOTS, "extent {extent} was not lent");
        *entry = Extent::new(AWAY);
    }

    /// Whether nothing is left of a step, so that its memory may go back.
    pub(crate) fn is_empty(&self, step: usize) -> bool {
        self.step(step).all(|extent| self.extents[extent as usize].frame_units == AWAY)
    }

    /// The memory of a step has gone back.
    pub(crate) fn end_step(&mut self, step: usize) {
        assert!(self.is_empty(step), "step {step} is in use");
        self.loan.set(step, Place::Away);
    }
}
