//! Eviction policy: which frames of a size class go next.
//!
//! [`Policy`] is what the frame books need of one; [`CachePolicy`] names those that there are, and
//! [`AnyPolicy`] is the one that a cache was given.
//!
//! Rules for hits: a hit may only count a use in the state word (`FrameState::count_use`), and does
//! so for the first three. Everything else runs under the lock of the frame books.
//!
//! Victims are found ahead of demand: one search claims up to a batch of them, and those that are
//! not needed at once become free frames, so that the next misses find theirs without a search.
//! A batch is small beside the class (a sixty-fourth), and one frame in small caches.

use std::fmt::{self, Debug};
use std::str::FromStr;

use crate::clock::Clock;
use crate::frame::{Frame, FrameNo, Owner};
use crate::frame_state::Word;
use crate::s3_fifo::S3Fifo;

/// The most victims that one search claims.
pub(crate) const BATCH_MAX: usize = 16;

/// How the cache decides which page goes.
///
/// `nephrite cache-replay` compares them on a trace of one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum CachePolicy {
    /// CLOCK with two-bit counts and cold insertion: robust when what is popular changes.
    #[default]
    Clock,
    /// S3-FIFO: keeps more of what is popular when that is stable, and needs 16 bytes a frame.
    S3Fifo,
}

impl CachePolicy {
    /// All policies.
    pub const ALL: [Self; 2] = [Self::Clock, Self::S3Fifo];

    /// The name that `FromStr` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::S3Fifo => "s3-fifo",
        }
    }
}

impl fmt::Display for CachePolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for CachePolicy {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|policy| policy.name() == name);
        found.ok_or_else(|| format!("no cache policy is called {name:?}; there are clock, s3-fifo"))
    }
}

/// Whether a look-up counts as a use of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Point,
    Scan,
}

/// The frames of one size class, in a fixed circular order.
pub(crate) trait Ring {
    /// Positions in the ring; some may hold no frame.
    fn positions(&self) -> usize;
    /// The frame at a position below `positions`.
    fn frame_at(&self, position: usize) -> Option<(FrameNo, &Frame)>;
    /// The frame of a number, if it is one of this class now.
    fn frame_of(&self, number: FrameNo) -> Option<&Frame>;
    /// Whether a frame is about to go with its extent (`extents/loan.rs`): it is in the ring no
    /// more, and may come back.
    fn is_leaving(&self, _number: FrameNo) -> bool {
        false
    }
}

/// An eviction policy for one size class.
pub(crate) trait Policy: Debug {
    /// A page is about to be loaded into a frame of the ring.
    fn inserted(&mut self, number: FrameNo, page: Owner, ring: &impl Ring);

    /// Claims up to `wanted` frames of the ring and hands them to `take`; none when all are pinned,
    /// loading or free. The first one costs what it must, further ones little.
    fn victims(&mut self, ring: &impl Ring, wanted: usize, take: &mut dyn FnMut(FrameNo, Word));

    /// The memory of the policy, in bytes.
    fn bytes(&self) -> usize;
}

/// The policy of one size class of one cache.
#[derive(Debug)]
pub(crate) enum AnyPolicy {
    Clock(Clock),
    S3Fifo(S3Fifo),
}

impl AnyPolicy {
    pub(crate) fn new(policy: CachePolicy) -> Self {
        match policy {
            CachePolicy::Clock => Self::Clock(Clock::default()),
            CachePolicy::S3Fifo => Self::S3Fifo(S3Fifo::default()),
        }
    }
}

impl Policy for AnyPolicy {
    fn inserted(&mut self, number: FrameNo, page: Owner, ring: &impl Ring) {
        match self {
            Self::Clock(clock) => clock.inserted(number, page, ring),
            Self::S3Fifo(queues) => queues.inserted(number, page, ring),
        }
    }

    fn victims(&mut self, ring: &impl Ring, wanted: usize, take: &mut dyn FnMut(FrameNo, Word)) {
        match self {
            Self::Clock(clock) => clock.victims(ring, wanted, take),
            Self::S3Fifo(queues) => queues.victims(ring, wanted, take),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Clock(clock) => clock.bytes(),
            Self::S3Fifo(queues) => queues.bytes(),
        }
    }
}

/// How many victims one search in a class of so many frames claims.
pub(crate) fn batch_of(positions: usize) -> usize {
    (positions / 64).clamp(1, BATCH_MAX)
}

/// Whether a policy would let a frame go now. Counts as a look: ages the frame.
pub(crate) fn is_cold(frame: &Frame) -> bool {
    frame.state.age() == 0
}

#[cfg(test)]
#[cfg(not(loom))]
pub(crate) mod tests {
    use super::*;

    /// A class of frames for the tests of a policy: all of one size, in order.
    pub(crate) struct Frames(pub(crate) Vec<Frame>);

    impl Ring for Frames {
        fn positions(&self) -> usize {
            self.0.len()
        }

        fn frame_at(&self, position: usize) -> Option<(FrameNo, &Frame)> {
            Some((FrameNo(u32::try_from(position).unwrap()), &self.0[position]))
        }

        fn frame_of(&self, number: FrameNo) -> Option<&Frame> {
            self.0.get(number.index())
        }
    }

    impl Frames {
        pub(crate) fn new(count: usize) -> Self {
            Self((0..count).map(|_| Frame::new()).collect())
        }

        /// Loads a page into a frame that is free or was claimed.
        pub(crate) fn load(&self, policy: &mut impl Policy, number: FrameNo, page: u32) {
            policy.inserted(number, Owner::new(1, page), self);
            let frame = &self.0[number.index()];
            frame.state.begin_load(1);
            frame.assign(Owner::new(1, page));
            frame.state.finish_load(0);
            frame.state.unpin().unwrap();
        }

        pub(crate) fn hit(&self, number: usize) {
            let state = &self.0[number].state;
            let before = state.pin();
            state.count_use(before, 0);
            state.unpin().unwrap();
        }

        pub(crate) fn victim(&self, policy: &mut impl Policy) -> Option<FrameNo> {
            self.victims(policy, 1).pop()
        }

        pub(crate) fn victims(&self, policy: &mut impl Policy, wanted: usize) -> Vec<FrameNo> {
            let mut taken = Vec::new();
            policy.victims(self, wanted, &mut |number, _| taken.push(number));
            taken
        }
    }

    /// What every policy must do.
    pub(crate) fn check_policy(new: impl Fn() -> AnyPolicy) {
        let full = |count: u32| {
            let (mut policy, frames) = (new(), Frames::new(count as usize));
            (0..count).for_each(|page| frames.load(&mut policy, FrameNo(page), page));
            (policy, frames)
        };

        // Untouched pages go in order, each once.
        let (mut policy, frames) = full(3);
        let order: Vec<_> = (0..3).map(|_| frames.victim(&mut policy).unwrap().0).collect();
        assert_eq!((order, frames.victim(&mut policy)), (vec![0, 1, 2], None));

        // Pinned and loading frames are no victims.
        let (mut policy, frames) = full(3);
        frames.0[0].state.pin();
        assert!(frames.0[1].state.claim().is_some());
        frames.0[1].state.begin_load(1);
        assert_eq!(frames.victim(&mut policy), Some(FrameNo(2)));
        assert_eq!(frames.victim(&mut policy), None);

        // When all are hot, one goes all the same.
        let (mut policy, frames) = full(40);
        (0..40).for_each(|frame| (0..9).for_each(|_| frames.hit(frame)));
        assert!(frames.victim(&mut policy).is_some());

        // A batch is of different frames, and no larger than was asked for.
        let (mut policy, frames) = full(100);
        let mut batch = frames.victims(&mut policy, 8);
        assert!((1..=8).contains(&batch.len()), "{batch:?}");
        batch.sort_unstable_by_key(|number| number.0);
        batch.dedup();
        assert!(batch.iter().all(|number| frames.0[number.index()].state.claim().is_none()));

        // A frame that was freed and loaded again behind the policy's back is no harm.
        let (mut policy, frames) = full(4);
        assert!(frames.0[2].state.claim().is_some());
        frames.0[2].state.release();
        frames.load(&mut policy, FrameNo(2), 9);
        let mut all: Vec<_> = std::iter::from_fn(|| frames.victim(&mut policy)).collect();
        all.sort_unstable_by_key(|number| number.0);
        assert_eq!(all, [FrameNo(0), FrameNo(1), FrameNo(2), FrameNo(3)]);
    }

    #[test]
    fn every_policy_keeps_the_rules() {
        for policy in CachePolicy::ALL {
            check_policy(|| AnyPolicy::new(policy));
        }
    }

    #[test]
    fn policies_have_names_that_are_read_back() {
        for policy in CachePolicy::ALL {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert!("lru".parse::<CachePolicy>().unwrap_err().contains("clock"));
    }
}
