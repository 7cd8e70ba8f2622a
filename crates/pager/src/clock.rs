//! CLOCK with two-bit counts and cold insertion.
//!
//! A page starts at count zero, a hit counts up to three, the hand counts down and takes the first
//! frame it finds at zero. A page read once goes at the next turn of the hand; a page read again
//! survives up to three turns. No memory but the hand. Tested below and in `policy.rs`.

use crate::frame::{FrameNo, Owner};
use crate::frame_state::Word;
use crate::policy::{Policy, Ring, is_cold};

/// The largest count of the two bits.
const COUNT_MAX: u8 = 3;

/// Positions that are looked at for each further victim of a batch.
const LOOKS_AHEAD: usize = 8;

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    hand: usize,
}

impl Policy for Clock {
    fn inserted(&mut self, _: FrameNo, _: Owner, _: &impl Ring) {
        // A load begins without uses: cold.
    }

    fn victims(&mut self, ring: &impl Ring, wanted: usize, take: &mut dyn FnMut(FrameNo, Word)) {
        let Some((number, before)) = self.first(ring) else { return };
        take(number, before);
        let mut found = 1;
        for _ in 0..(wanted - 1).saturating_mul(LOOKS_AHEAD).min(ring.positions()) {
            if found == wanted {
                return;
            }
            let position = self.advance(ring.positions());
            let Some((number, frame)) = ring.frame_at(position) else { continue };
            if !frame.state.peek().is_evictable() || !is_cold(frame) {
                continue;
            }
            if let Some(before) = frame.state.claim() {
                take(number, before);
                found += 1;
            }
        }
    }

    fn bytes(&self) -> usize {
        0
    }
}

impl Clock {
    fn first(&mut self, ring: &impl Ring) -> Option<(FrameNo, Word)> {
        // The counts reach zero after COUNT_MAX turns; hits in between can keep them up, so the
        // last turn takes whatever is not pinned.
        for turn in 0..=COUNT_MAX + 1 {
            let mut evictable = false;
            for _ in 0..ring.positions() {
                let position = self.advance(ring.positions());
                let Some((number, frame)) = ring.frame_at(position) else { continue };
                if !frame.state.peek().is_evictable() {
                    continue;
                }
                evictable = true;
                if !is_cold(frame) && turn <= COUNT_MAX {
                    continue;
                }
                if let Some(before) = frame.state.claim() {
                    return Some((number, before));
                }
            }
            if !evictable {
                return None;
            }
        }
        None
    }

    fn advance(&mut self, positions: usize) -> usize {
        let position = if self.hand < positions { self.hand } else { 0 };
        self.hand = position + 1;
        position
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::policy::tests::Frames;

    #[test]
    fn a_page_hit_three_times_survives_three_turns() {
        let (mut clock, frames) = (Clock::default(), Frames::new(2));
        (0..2).for_each(|page| frames.load(&mut clock, FrameNo(page), page));
        (0..9).for_each(|_| frames.hit(0));

        for _ in 0..3 {
            assert_eq!(frames.victim(&mut clock), Some(FrameNo(1)));
            frames.load(&mut clock, FrameNo(1), 7);
        }

        assert_eq!(frames.victim(&mut clock), Some(FrameNo(0)));
    }

    #[test]
    fn a_batch_takes_cold_frames_and_leaves_the_others() {
        let (mut clock, frames) = (Clock::default(), Frames::new(64));
        (0..64).for_each(|page| frames.load(&mut clock, FrameNo(page), page));
        (0..64).step_by(2).for_each(|frame| frames.hit(frame));

        let batch = frames.victims(&mut clock, 8);

        assert_eq!(batch, (0..8).map(|at| FrameNo(2 * at + 1)).collect::<Vec<_>>());
    }
}
