//! The ids of a memtable in ascending order, without a copy of them.
//!
//! [`Order`] lists the ids of the index's table: 16 bytes each, in memory that goes back to the
//! system. Runs of consecutive ids ascend as they are. [`super::MemIndex::next_in`] merges both,
//! from a [`Place`] that the caller keeps, so that a long list can be taken in pieces.

use std::cmp::Ordering;

use nephrite_format::Row;

use super::column::Block;

/// Entries of the index's table, in ascending order of their ids.
#[derive(Debug)]
pub(crate) struct Order {
    /// The beginning of each id as a number that sorts like it (numbers: all of it), and its newest
    /// entry with its row above it: so who goes through the ids in order need not visit entries and
    /// numbers, which lie in order of arrival.
    slots: Block<[u64; 2]>,
}

/// One of the ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) beginning: u64,
    pub(super) entry: u32,
    /// Of the newest entry.
    pub(super) row: Row,
}

impl Slot {
    fn packed(self) -> [u64; 2] {
        [self.beginning, u64::from(self.row.get()) << 32 | u64::from(self.entry)]
    }

    fn unpacked([beginning, rest]: [u64; 2]) -> Self {
        Self { beginning, entry: low_half(rest), row: Row::new(low_half(rest >> 32)) }
    }
}

/// How far a list was taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(super) slot: usize,
    pub(super) run: usize,
    pub(super) offset: u32,
}

impl Order {
    /// Of `count` slots; `tie` compares two entries whose beginnings are equal, where they can be.
    pub(super) fn new(
        count: usize,
        listed: impl Iterator<Item = Slot>,
        tie: Option<impl Fn(u32, u32) -> Ordering>,
    ) -> Self {
        let mut slots: Block<[u64; 2]> = Block::zeroed(count);
        slots.values_mut().iter_mut().zip(listed).for_each(|(slot, it)| *slot = it.packed());
        match tie {
            None => slots.values_mut().sort_unstable_by_key(|slot| slot[0]),
            Some(tie) => slots.values_mut().sort_unstable_by(|left, right| {
                let tie = || tie(low_half(left[1]), low_half(right[1]));
                left[0].cmp(&right[0]).then_with(tie)
            }),
        }
        Self { slots }
    }

    /// The slot at a position; none past the last one.
    pub(super) fn slot(&self, at: usize) -> Option<Slot> {
        self.slots.values().get(at).copied().map(Slot::unpacked)
    }

    /// Bytes of memory that an order of so many entries takes.
    pub(crate) fn bytes_for(count: usize) -> u64 {
        (count * size_of::<[u64; 2]>()) as u64
    }
}

fn low_half(bits: u64) -> u32 {
    u32::try_from(bits & 0xffff_ffff).expect("32 bits are left")
}

/// The first eight bytes of a string as a number: numbers sort like the strings, as far as they go.
#[expect(clippy::big_endian_bytes, reason = "byte order that sorts, in memory only")]
pub(super) fn beginning(string: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = string.len().min(8);
    bytes[..len].copy_from_slice(&string[..len]);
    u64::from_be_bytes(bytes)
}
