//! The hash table of a memtable's index: from the hash of an id to the number of its newest entry.
//!
//! Open addressing with linear probing. A slot is the upper half of the hash and the entry number,
//! so that growing needs no ids, and asking compares few. Slots lie in the order of their hashes:
//! growing reads and writes both tables from front to back.
//!
//! Guarantee: an id that was inserted is found. At most three slots of four are taken.
//! Does not: remove, hash, or know the ids: the caller compares them by entry number.

use super::column::Block;

/// Slots of the smallest table.
const SLOTS_MIN: usize = 8;
const EMPTY: u64 = 0;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct IdTable {
    slots: Block<u64>,
    used: usize,
}

impl IdTable {
    pub(super) fn new() -> Self {
        Self { slots: Block::zeroed(0), used: 0 }
    }

    /// Ids in the table.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// The entry of the id with this hash for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        if self.used == 0 {
            return None;
        }
        match self.probe(hash, is_it) {
            Ok(at) => Some(entry_of(self.slots.values()[at])),
            Err(_) => None,
        }
    }

    /// Makes `entry` the newest one of its id; gives the one that was. Entry numbers are below
    /// `u32::MAX`.
    pub(super) fn replace(
        &mut self,
        hash: u64,
        entry: u32,
        is_it: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        if self.slots.values().len() * 3 <= self.used * 4 {
            self.grow();
        }
        let found = self.probe(hash, is_it);
        let (Ok(at) | Err(at)) = found;
        let slot = &mut self.slots.values_mut()[at];
        let before = found.is_ok().then(|| entry_of(*slot));
        *slot = slot_of(tag(hash), entry);
        self.used += usize::from(before.is_none());
        before
    }

    /// The newest entries of all ids, in no order that means anything.
    pub(super) fn entries(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.values().iter().filter(|slot| **slot != EMPTY).map(|slot| entry_of(*slot))
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        self.slots.bytes()
    }

    /// Where the id is, or the empty slot where it would go.
    #[inline]
    fn probe(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Result<usize, usize> {
        let slots = self.slots.values();
        let tag = tag(hash);
        let mut at = home(tag, slots.len());
        loop {
            let slot = slots[at];
            if slot == EMPTY {
                return Err(at);
            }
            if slot >> 32 == u64::from(tag) && is_it(entry_of(slot)) {
                return Ok(at);
            }
            at = if at + 1 < slots.len() { at + 1 } else { 0 };
        }
    }

    fn grow(&mut self) {
        let len = (self.slots.values().len() * 2).max(SLOTS_MIN);
        let mut grown = Block::zeroed(len);
        let slots: &mut [u64] = grown.values_mut();
        for slot in self.slots.values().iter().filter(|slot| **slot != EMPTY) {
            let mut at = home(tag(*slot), len);
            while slots[at] != EMPTY {
                at = if at + 1 < len { at + 1 } else { 0 };
            }
            slots[at] = *slot;
        }
        self.slots = grown;
    }
}

fn slot_of(tag: u32, entry: u32) -> u64 {
    let entry = entry.checked_add(1).expect("entry numbers are below u32::MAX");
    u64::from(tag) << 32 | u64::from(entry)
}

/// Of a slot that is taken.
#[inline]
fn entry_of(slot: u64) -> u32 {
    u32::try_from(slot & 0xffff_ffff).expect("32 bits are left") - 1
}

/// Upper half of a hash or of a slot.
#[inline]
fn tag(hash: u64) -> u32 {
    u32::try_from(hash >> 32).expect("32 bits are left")
}

/// Where probing begins: slots of ascending tags have ascending homes.
#[inline]
fn home(tag: u32, slots: usize) -> usize {
    usize::try_from((u64::from(tag) * slots as u64) >> 32).expect("below the number of slots")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash whose upper half has many equal values.
    fn poor_hash(entry: u32) -> u64 {
        u64::from(entry % 97) << 60 | u64::from(entry % 13) << 32
    }

    #[test]
    fn entries_with_equal_hashes_are_told_apart() {
        let mut table = IdTable::new();
        for entry in 0..1000 {
            assert_eq!(table.replace(poor_hash(entry), entry, |other| other == entry), None);
        }

        assert_eq!(table.len(), 1000);
        for entry in 0..1000 {
            assert_eq!(table.find(poor_hash(entry), |other| other == entry), Some(entry));
        }
        assert_eq!(table.find(poor_hash(5), |_| false), None);
    }

    #[test]
    fn a_newer_entry_takes_the_place_of_the_one_before() {
        let mut table = IdTable::new();
        assert_eq!(table.find(7, |_| true), None);
        assert_eq!(table.replace(7, 0, |_| false), None);
        assert_eq!(table.replace(7, 1, |entry| entry == 0), Some(0));
        assert_eq!(table.find(7, |_| true), Some(1));
        assert_eq!(table.entries().collect::<Vec<_>>(), [1]);
    }
}
