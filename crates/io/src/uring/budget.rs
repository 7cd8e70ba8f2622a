//! How many operations of each class may be in flight on one ring.
//!
//! Reads may use every entry but one; writes at most half; syncs a few, since each occupies a
//! kernel worker thread, and one entry is theirs alone. So a flush leaves half the ring to reads, a
//! flood of reads leaves a sync its entry, and reads and writes take turns for what is free.
//!
//! Guarantee: the sum never exceeds the entries, which is what keeps the completion queue from
//! overflowing.

use crate::request::Class;

/// Most syncs in flight on a ring.
const SYNCS_MAX: usize = 8;

/// Entries kept for syncs.
const SYNCS_RESERVED: usize = 1;

#[derive(Debug)]
pub(super) struct Budget {
    entries: usize,
    in_flight: [usize; 3],
}

impl Budget {
    /// `entries` is what operations may use, without the ring's own entries.
    pub(super) fn new(entries: usize) -> Self {
        assert!(2 * SYNCS_RESERVED < entries, "{entries} entries leave no room for transfers");
        Self { entries, in_flight: [0; 3] }
    }

    /// Takes a permit if the class may have one more in flight.
    pub(super) fn acquire(&mut self, class: Class) -> bool {
        let free = self.may(class);
        self.in_flight[class as usize] += usize::from(free);
        free
    }

    pub(super) fn release(&mut self, class: Class) {
        let in_flight = &mut self.in_flight[class as usize];
        *in_flight = in_flight.checked_sub(1).expect("a permit was taken before it is released");
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.iter().sum()
    }

    fn may(&self, class: Class) -> bool {
        let [reads, writes, syncs] = self.in_flight;
        let transfers_fit = reads + writes < self.entries - SYNCS_RESERVED;
        let class_fits = match class {
            Class::Read => transfers_fit,
            Class::Write => transfers_fit && writes < self.entries / 2,
            Class::Sync => syncs < SYNCS_MAX,
        };
        class_fits && self.in_flight() < self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(budget: &mut Budget, class: Class) -> usize {
        std::iter::repeat_with(|| budget.acquire(class)).take_while(|taken| *taken).count()
    }

    #[test]
    fn writes_leave_half_to_reads() {
        let mut budget = Budget::new(31);

        assert_eq!(fill(&mut budget, Class::Write), 15);
        assert_eq!(fill(&mut budget, Class::Read), 15);
        assert_eq!(budget.in_flight(), 30);
    }

    #[test]
    fn reads_may_use_all_but_the_entry_of_a_sync() {
        let mut budget = Budget::new(31);

        assert_eq!(fill(&mut budget, Class::Read), 30);
        assert_eq!(fill(&mut budget, Class::Write), 0);
        assert_eq!(fill(&mut budget, Class::Sync), 1);
        assert_eq!(budget.in_flight(), 31);
    }

    #[test]
    fn a_released_permit_can_be_taken_again() {
        let mut budget = Budget::new(31);
        fill(&mut budget, Class::Write);

        budget.release(Class::Write);

        assert_eq!(fill(&mut budget, Class::Write), 1);
        assert_eq!(fill(&mut budget, Class::Sync), 8);
    }
}
