//! Eviction policy: which frame of a size class goes next.
//!
//! [`Policy`] is what the frame books need of a policy; [`Clock`] is the one in use: CLOCK with two
//! bits, cold insertion. A page starts at count zero, a hit counts up to three, the hand counts
//! down and takes the first frame it finds at zero. A page read once goes at the next turn of
//! the hand; a page read again survives up to three turns.
//!
//! Rules for hits: a hit may only count a use in the state word (`FrameState::count_use`), and does
//! so for the first three. Everything else runs under the lock of the frame books. A policy with
//! queues (S3-FIFO) keeps them in itself and learns of new pages through `inserted`.

use std::fmt::Debug;

use crate::frame::{Frame, FrameNo};
use crate::frame_state::Word;

/// The largest count of the two bits.
const COUNT_MAX: u8 = 3;

/// The frames of one size class, in a fixed circular order.
pub(crate) trait Ring {
    /// Positions in the ring; some may hold no frame.
    fn positions(&self) -> usize;
    /// The frame at a position below `positions`.
    fn frame_at(&self, position: usize) -> Option<(FrameNo, &Frame)>;
}

/// An eviction policy for one size class.
pub(crate) trait Policy: Debug + Default {
    /// A page is being loaded into the frame.
    fn inserted(&mut self, frame: &Frame);

    /// Whether the policy would give the frame away now. Counts as a look: ages the frame.
    fn is_cold(frame: &Frame) -> bool;

    /// Claims a frame of the ring; `None` when all are pinned, loading or free.
    fn victim(&mut self, ring: &impl Ring) -> Option<(FrameNo, Word)>;
}

/// CLOCK with two-bit counts and cold insertion.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    hand: usize,
}

impl Policy for Clock {
    fn inserted(&mut self, _frame: &Frame) {
        // A load begins without uses: cold.
    }

    fn is_cold(frame: &Frame) -> bool {
        frame.state.age() == 0
    }

    fn victim(&mut self, ring: &impl Ring) -> Option<(FrameNo, Word)> {
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
                if !Self::is_cold(frame) && turn <= COUNT_MAX {
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
}

impl Clock {
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
    use crate::frame::Owner;

    struct Frames(Vec<Frame>);

    impl Ring for Frames {
        fn positions(&self) -> usize {
            self.0.len()
        }

        fn frame_at(&self, position: usize) -> Option<(FrameNo, &Frame)> {
            let number = FrameNo(u32::try_from(position).unwrap());
            Some((number, &self.0[position]))
        }
    }

    fn resident(count: u32) -> (Clock, Frames) {
        let mut clock = Clock::default();
        let frames: Vec<_> = (0..count).map(|_| Frame::new()).collect();
        for (page, frame) in (0..).zip(&frames) {
            load(&mut clock, frame, page);
        }
        (clock, Frames(frames))
    }

    fn load(clock: &mut Clock, frame: &Frame, page: u32) {
        frame.state.begin_load(1);
        frame.assign(Owner::new(1, page));
        clock.inserted(frame);
        frame.state.finish_load(0);
        frame.state.unpin().unwrap();
    }

    fn hit(frame: &Frame) {
        let before = frame.state.pin();
        frame.state.count_use(before);
        frame.state.unpin().unwrap();
    }

    #[test]
    fn untouched_pages_go_in_order() {
        let (mut clock, frames) = resident(3);

        let order: Vec<_> = (0..3).map(|_| clock.victim(&frames).unwrap().0.0).collect();

        assert_eq!(order, [0, 1, 2]);
        assert_eq!(clock.victim(&frames), None);
    }

    #[test]
    fn a_page_hit_three_times_survives_three_turns() {
        let (mut clock, frames) = resident(2);
        (0..9).for_each(|_| hit(&frames.0[0]));

        for _ in 0..3 {
            assert_eq!(clock.victim(&frames).unwrap().0, FrameNo(1));
            load(&mut clock, &frames.0[1], 7);
        }

        assert_eq!(clock.victim(&frames).unwrap().0, FrameNo(0));
    }

    #[test]
    fn pinned_and_loading_frames_are_no_victims() {
        let (mut clock, frames) = resident(3);
        frames.0[0].state.pin();
        assert!(frames.0[1].state.claim().is_some());
        frames.0[1].state.begin_load(1);

        assert_eq!(clock.victim(&frames).unwrap().0, FrameNo(2));
        assert_eq!(clock.victim(&frames), None);
    }

    #[test]
    fn all_hot_still_yields_a_victim() {
        let (mut clock, frames) = resident(4);
        for frame in &frames.0 {
            (0..3).for_each(|_| hit(frame));
        }

        assert!(clock.victim(&frames).is_some());
    }
}
