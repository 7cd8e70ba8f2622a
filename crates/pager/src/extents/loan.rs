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
/// Extents of a step; the last one of the arena may have fewer.
const STEP_EXTENTS: u32 = LOAN_STEP_UNITS / EXTENT_UNITS;

const _: () = assert!(LOAN_STEP_UNITS.is_multiple_of(EXTENT_UNITS));

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Loan {
    /// The first extent.
    start: u32,
    /// For each step whether its memory is the cache's.
    here: Vec<bool>,
}

impl Loan {
    /// All of `count` extents are the cache's own.
    pub(super) fn none(count: u32) -> Self {
        Self { start: count, here: Vec::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.here.capacity()
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
        assert!(own_units.is_multiple_of(LOAN_STEP_UNITS), "{own_units} units are whole steps");
        let start = own_units / EXTENT_UNITS;
        let steps = (self.all().end - start).div_ceil(STEP_EXTENTS);
        self.loan = Loan { start, here: vec![false; steps as usize] };
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

    /// Bytes of the loan whose memory is the cache's.
    pub(crate) fn loan_bytes(&self) -> usize {
        let here = |step: &usize| self.loan.here[*step];
        (0..self.steps()).filter(here).map(|step| self.step_bytes(step).len()).sum()
    }

    /// Bytes of the loan that are not the cache's, or for which it had no use so far: what takes no
    /// memory, or is about to go.
    pub(crate) fn untouched_bytes(&self) -> usize {
        let untouched =
            |extent: &u32| matches!(self.extents[*extent as usize].frame_units, 0 | AWAY);
        let loan = (self.loan.start..self.all().end).filter(untouched);
        loan.map(|extent| self.slots(extent, 1) as usize * UNIT_BYTES).sum()
    }

    /// Makes so much of the loan part of the cache, what it has included, as far as whole steps go;
    /// what was leaving stays.
    pub(crate) fn take_loan(&mut self, bytes: usize) {
        let mut left = bytes.saturating_sub(self.loan_bytes());
        for step in 0..self.steps() {
            if self.loan.here[step] {
                continue; // perhaps it is leaving, behind others that have gone
            }
            let Some(less) = left.checked_sub(self.step_bytes(step).len()) else { break };
            left = less;
            self.loan.here[step] = true;
        }
        let mut back = Vec::new();
        let here = (0..self.steps()).rev().filter(|step| self.loan.here[*step]);
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

    /// The number of the last step whose memory is the cache's, below `before`.
    pub(crate) fn last_step(&self, before: usize) -> Option<usize> {
        self.loan.here.iter().take(before).rposition(|here| *here)
    }

    fn steps(&self) -> usize {
        self.loan.here.len()
    }

    /// The extents of a step.
    pub(crate) fn step(&self, step: usize) -> Range<u32> {
        let step = u32::try_from(step).expect("below the number of extents");
        let start = self.loan.start + step * STEP_EXTENTS;
        start..(start + STEP_EXTENTS).min(self.all().end)
    }

    /// Where in the arena a step lies.
    pub(crate) fn step_bytes(&self, step: usize) -> Range<usize> {
        let Range { start, end } = self.step(step);
        let end = (end * EXTENT_UNITS).min(self.units);
        (start * EXTENT_UNITS) as usize * UNIT_BYTES..end as usize * UNIT_BYTES
    }

    /// Takes the frames of a step from the cache, as far as they are not in use. What slots have is
    /// left to them.
    pub(crate) fn leave(&mut self, step: usize, frames: &[Frame], evicted: &mut Evicted) {
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

    /// Whether nothing is left of a step; then its memory is no longer counted, and goes back to
    /// the system.
    pub(crate) fn end_step(&mut self, step: usize) -> bool {
        let away = |extent: u32| self.extents[extent as usize].frame_units == AWAY;
        let ended = self.step(step).all(away);
        if ended {
            self.loan.here[step] = false;
        }
        ended
    }
}
