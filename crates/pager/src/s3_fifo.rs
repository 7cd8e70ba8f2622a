//! S3-FIFO: three queues, first in first out.
//!
//! ```text
//!                 used twice
//!   new --> small ----------> main --+  used since: to the end, one use less
//!             |                ^     |
//!             | not            |     +--> victim
//!             v                |
//!           victim --> ghost --+  asked for again while it is remembered
//! ```
//!
//! New pages wait in a small queue (a tenth of the class). Those that were used twice by the time
//! they reach its end go on to the main queue; the others are evicted, and remembered by a
//! fingerprint for as many evictions as the class has frames. So a page read once costs little
//! room, and a page that comes back is kept. One that is popular for a while only stays too long.
//!
//! Queues name frames with the version of the load they stand for, as frames are freed and reused
//! behind the policy's back (failed loads, dropped files, extents that change hands); an entry
//! whose load is over is skipped. Queues are cleaned when they grow past twice the class, so memory
//! is bounded: 16 bytes a frame and the ghosts' 8. A wrong ghost (two pages with one fingerprint)
//! puts a page into the wrong queue, no more.
//! Tested below and in `policy.rs`.

use std::collections::VecDeque;

use crate::frame::{Frame, FrameNo, Owner};
use crate::frame_state::Word;
use crate::policy::{Policy, Ring};

/// The small queue has one in so many frames.
const SMALL_SHARE: usize = 10;

/// Uses from which a page of the small queue goes on to the main queue.
const USES_TO_STAY: u8 = 2;

/// How often each entry is looked at, at most, before the search takes what it can get.
const ROUNDS_MAX: usize = 5;

/// Entries that are looked at for each further victim of a batch.
const LOOKS_AHEAD: usize = 8;

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct S3Fifo {
    small: VecDeque<Entry>,
    main: VecDeque<Entry>,
    ghosts: Ghosts,
}

/// A load of a frame.
#[derive(Debug, Clone, Copy)]
struct Entry {
    frame: FrameNo,
    version: u8,
}

/// What became of an entry at the head of a queue.
enum Look {
    /// Its load is over.
    Gone,
    /// It cannot be evicted now.
    Busy,
    Used,
    Unused,
}

impl Policy for S3Fifo {
    fn inserted(&mut self, number: FrameNo, page: Owner, ring: &impl Ring) {
        self.ghosts.fit(ring.positions());
        let Some(frame) = ring.frame_of(number) else { return };
        let entry = Entry { frame: number, version: frame.state.peek().next_version() };
        let returned = self.ghosts.remembers(page);
        let queue = if returned { &mut self.main } else { &mut self.small };
        queue.push_back(entry);
        if 2 * ring.positions() + 2 < self.small.len() + self.main.len() {
            self.small.retain(|entry| entry.is_current(ring));
            self.main.retain(|entry| entry.is_current(ring));
        }
    }

    fn victims(&mut self, ring: &impl Ring, wanted: usize, take: &mut dyn FnMut(FrameNo, Word)) {
        for found in 0..wanted {
            // The first victim is needed; for the others a short look will do.
            let entries = self.small.len() + self.main.len();
            let found = if found == 0 {
                self.search(ring, ROUNDS_MAX * entries, true)
            } else {
                self.search(ring, entries.min(LOOKS_AHEAD), false)
            };
            let Some((number, before)) = found else { return };
            take(number, before);
        }
    }

    fn bytes(&self) -> usize {
        (self.small.capacity() + self.main.capacity()) * size_of::<Entry>() + self.ghosts.bytes()
    }
}

impl S3Fifo {
    /// With `must` the last round takes what was used as well.
    fn search(&mut self, ring: &impl Ring, looks: usize, must: bool) -> Option<(FrameNo, Word)> {
        for look in 0..looks {
            let force = must && looks <= look + self.small.len() + self.main.len();
            let from_small =
                self.main.is_empty() || self.main.len() < self.small.len() * (SMALL_SHARE - 1);
            let found = if from_small && !self.small.is_empty() {
                self.look_at_small(ring, force)
            } else {
                self.look_at_main(ring, force)
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn look_at_small(&mut self, ring: &impl Ring, force: bool) -> Option<(FrameNo, Word)> {
        let entry = self.small.pop_front()?;
        match entry.look(ring, USES_TO_STAY) {
            Look::Gone => None,
            Look::Busy => {
                self.small.push_back(entry);
                None
            }
            Look::Used if !force => {
                entry.forget_uses(ring);
                self.main.push_back(entry);
                None
            }
            Look::Used | Look::Unused => {
                let claimed = entry.claim(ring);
                match (&claimed, ring.frame_of(entry.frame)) {
                    (Some(_), Some(frame)) => self.ghosts.remember(frame.owner()),
                    _ => self.small.push_back(entry),
                }
                claimed
            }
        }
    }

    fn look_at_main(&mut self, ring: &impl Ring, force: bool) -> Option<(FrameNo, Word)> {
        let entry = self.main.pop_front()?;
        let claimed = match entry.look(ring, 1) {
            Look::Gone => return None,
            Look::Busy => None,
            Look::Used if !force => {
                entry.age(ring);
                None
            }
            Look::Used | Look::Unused => entry.claim(ring),
        };
        if claimed.is_none() {
            self.main.push_back(entry);
        }
        claimed
    }
}

impl Entry {
    fn frame(self, ring: &impl Ring) -> Option<&Frame> {
        ring.frame_of(self.frame)
    }

    /// The load is running or its page is resident.
    fn is_current(self, ring: &impl Ring) -> bool {
        self.frame(ring).is_some_and(|frame| {
            let word = frame.state.peek();
            word.version() == self.version && (word.is_resident() || word.is_loading())
                || word.next_version() == self.version
        })
    }

    fn look(self, ring: &impl Ring, uses_to_stay: u8) -> Look {
        let Some(frame) = self.frame(ring) else { return Look::Gone };
        let word = frame.state.peek();
        if !self.is_current(ring) {
            return Look::Gone;
        }
        match word.uses() {
            _ if !word.is_evictable() || ring.is_leaving(self.frame) => Look::Busy,
            uses if uses < uses_to_stay => Look::Unused,
            _ => Look::Used,
        }
    }

    fn claim(self, ring: &impl Ring) -> Option<(FrameNo, Word)> {
        Some((self.frame, self.frame(ring)?.state.claim()?))
    }

    fn age(self, ring: &impl Ring) {
        if let Some(frame) = self.frame(ring) {
            frame.state.age();
        }
    }

    fn forget_uses(self, ring: &impl Ring) {
        while self.frame(ring).is_some_and(|frame| 1 < frame.state.age()) {}
    }
}

/// The pages evicted from the small queue of late: fingerprints in a table of fixed size, each with
/// the number of the eviction. What is overwritten is forgotten early, as is what is too old.
#[derive(Debug, Default)]
struct Ghosts {
    table: Vec<Ghost>,
    evictions: u32,
    kept: u32,
}

#[derive(Debug, Default, Clone, Copy)]
struct Ghost {
    fingerprint: u32,
    eviction: u32,
}

impl Ghosts {
    /// Makes the table fit a class of so many frames. A class that grows forgets.
    fn fit(&mut self, frames: usize) {
        let size = frames.next_power_of_two();
        if self.table.len() < size {
            self.table.clear();
            self.table.resize(size, Ghost::default());
        }
        self.kept = u32::try_from(frames).unwrap_or(u32::MAX / 2);
    }

    fn remember(&mut self, page: Owner) {
        // Zero is the number of no eviction.
        self.evictions = self.evictions.wrapping_add(1).max(1);
        let eviction = self.evictions;
        if let Some((ghost, fingerprint)) = self.place(page) {
            *ghost = Ghost { fingerprint, eviction };
        }
    }

    /// Whether the page is remembered; it is forgotten with that.
    fn remembers(&mut self, page: Owner) -> bool {
        let (evictions, kept) = (self.evictions, self.kept);
        let Some((ghost, fingerprint)) = self.place(page) else { return false };
        let found = ghost.eviction != 0
            && ghost.fingerprint == fingerprint
            && evictions.wrapping_sub(ghost.eviction) < kept;
        if found {
            *ghost = Ghost::default();
        }
        found
    }

    fn place(&mut self, page: Owner) -> Option<(&mut Ghost, u32)> {
        let hash = page.wide_hash();
        let mask = (self.table.len() as u64).checked_sub(1)?;
        let fingerprint = u32::try_from(hash >> 32).expect("the upper half");
        let ghost = self.table.get_mut(usize::try_from(hash & mask).ok()?)?;
        Some((ghost, fingerprint))
    }

    fn bytes(&self) -> usize {
        self.table.capacity() * size_of::<Ghost>()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::policy::tests::Frames;

    fn full(count: u32) -> (S3Fifo, Frames) {
        let (mut queues, frames) = (S3Fifo::default(), Frames::new(count as usize));
        (0..count).for_each(|page| frames.load(&mut queues, FrameNo(page), page));
        (queues, frames)
    }

    #[test]
    fn a_page_used_twice_outlives_pages_used_once() {
        let (mut queues, frames) = full(20);
        (0..2).for_each(|_| frames.hit(0));
        (1..20).for_each(|frame| frames.hit(frame));

        let victims: Vec<_> = (0..19).map(|_| frames.victim(&mut queues).unwrap()).collect();

        assert!(!victims.contains(&FrameNo(0)), "{victims:?}");
    }

    /// All victims of a batch but the first were taken whether they were used or not.
    #[test]
    fn a_batch_takes_what_was_not_used_and_leaves_the_rest() {
        let (mut queues, frames) = full(64);
        (0..64).step_by(2).for_each(|frame| (0..3).for_each(|_| frames.hit(frame)));

        let batch = frames.victims(&mut queues, 8);

        assert!(1 < batch.len() && batch.iter().all(|frame| frame.0 % 2 == 1), "{batch:?}");
    }

    #[test]
    fn a_page_that_comes_back_goes_to_the_main_queue() {
        let (mut queues, frames) = full(20);
        assert_eq!(frames.victim(&mut queues), Some(FrameNo(0)));
        frames.load(&mut queues, FrameNo(0), 0);
        assert_eq!((queues.main.len(), queues.small.len()), (1, 19));

        let next = frames.victim(&mut queues).unwrap();
        frames.load(&mut queues, next, 100);

        assert_eq!((queues.main.len(), queues.small.len()), (1, 19), "page 100 is new");
    }

    #[test]
    fn ghosts_fade_after_as_many_evictions_as_there_are_frames() {
        let mut ghosts = Ghosts::default();
        ghosts.fit(4);
        ghosts.remember(Owner::new(1, 1));
        (10..14).for_each(|page| ghosts.remember(Owner::new(1, page)));

        assert!(!ghosts.remembers(Owner::new(1, 1)));
        assert!(ghosts.remembers(Owner::new(1, 13)) && !ghosts.remembers(Owner::new(1, 13)));
    }

    #[test]
    fn loads_that_fail_for_ever_do_not_grow_the_queues() {
        let (mut queues, frames) = full(8);
        let failed = &frames.0[3].state;
        failed.claim().unwrap();
        for page in 0..if cfg!(miri) { 200 } else { 10_000 } {
            queues.inserted(FrameNo(3), Owner::new(1, page), &frames);
            failed.begin_load(1);
            failed.fail_load();
        }

        assert!(queues.small.len() + queues.main.len() <= 2 * 8 + 3, "{queues:?}");
    }
}
