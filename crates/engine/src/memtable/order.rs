//! The ids of a memtable in ascending order, without a copy of them.
//!
//! [`Order`] lists the ids of the index's table: 16 bytes each, in memory that goes back to the
//! system. Runs of consecutive ids ascend as they are. [`super::MemIndex::next_in`] merges both,
//! from a [`Place`] that the caller keeps, so that a long list can be taken in pieces.

use super::column::Block;

/// Entries of the index's table, in ascending order of their ids.
#[derive(Debug)]
pub(crate) struct Order {
    /// The beginning of each id as a number that sorts like it (numbers: all of it), and its newest
    /// entry.
    slots: Block<[u64; 2]>,
}

/// How far a list was taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(super) slot: usize,
    pub(super) run: usize,
    pub(super) offset: u32,
}

impl Order {
    /// Of `count` entries with the beginnings of their ids; `precedes` compares two entries whose
    /// beginnings are equal.
    pub(super) fn new(
        count: usize,
        entries: impl Iterator<Item = (u64, u32)>,
        compare: impl Fn(u32, u32) -> std::cmp::Ordering,
    ) -> Self {
        let mut slots: Block<[u64; 2]> = Block::zeroed(count);
        let listed = slots.values_mut().iter_mut().zip(entries);
        listed.for_each(|(slot, (key, entry))| *slot = [key, u64::from(entry)]);
        slots.values_mut().sort_unstable_by(|left, right| {
            let tie = || compare(entry_of(*left), entry_of(*right));
            left[0].cmp(&right[0]).then_with(tie)
        });
        Self { slots }
    }

    /// The entry at a position; none past the last one.
    pub(super) fn entry(&self, at: usize) -> Option<u32> {
        self.slots.values().get(at).copied().map(entry_of)
    }

    /// Bytes of memory that an order of so many entries takes.
    pub(crate) fn bytes_for(count: usize) -> u64 {
        (count * size_of::<[u64; 2]>()) as u64
    }
}

fn entry_of(slot: [u64; 2]) -> u32 {
    u32::try_from(slot[1]).expect("made from 32 bits")
}

/// The first eight bytes of a string as a number: numbers sort like the strings, as far as they go.
#[expect(clippy::big_endian_bytes, reason = "byte order that sorts, in memory only")]
pub(super) fn beginning(string: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = string.len().min(8);
    bytes[..len].copy_from_slice(&string[..len]);
    u64::from_be_bytes(bytes)
}
