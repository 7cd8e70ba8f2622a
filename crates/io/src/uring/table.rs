//! The table of operations in flight: it owns what the kernel may touch.
//!
//! Each operation travels through the ring as a 64-bit token:
//!
//! ```text
//! | class (8) | generation (24) | index (32) |
//! ```
//!
//! Guarantee: slots never move; a token resolves only while the very operation it was made for
//! occupies its slot, so a late or doubled completion cannot hit the next user of the slot (within
//! 2^24 reuses of it).

use crate::planted::planted;

const CLASS_SHIFT: u32 = 56;
const GENERATION_SHIFT: u32 = 32;
const GENERATION_MASK: u32 = 0x00FF_FFFF;

/// What a completion is about. Never zero, so that a zeroed token is nobody's.
const CLASS_OPERATION: u64 = 1;
const CLASS_WAKE: u64 = 2;

/// The token of the ring's own wake-up read.
pub(super) const WAKE_TOKEN: u64 = CLASS_WAKE << CLASS_SHIFT;

#[derive(Debug)]
pub(super) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Table<T> {
    pub(super) fn new(capacity: u32) -> Self {
        let slots = (0..capacity).map(|_| Slot { generation: 0, value: None }).collect();
        Self { slots, free: (0..capacity).rev().collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Stores a value; gives it back when the table is full.
    pub(super) fn insert(&mut self, value: T) -> Result<u32, T> {
        let Some(index) = self.free.pop() else { return Err(value) };
        let slot = &mut self.slots[index as usize];
        assert!(slot.value.is_none(), "slot {index} of the free list is occupied");
        slot.value = Some(value);
        Ok(index)
    }

    pub(super) fn token(&self, index: u32) -> u64 {
        let generation = u64::from(self.slots[index as usize].generation);
        CLASS_OPERATION << CLASS_SHIFT | generation << GENERATION_SHIFT | u64::from(index)
    }

    /// The slot a token was made for, if its operation is still there.
    pub(super) fn resolve(&self, token: u64) -> Option<u32> {
        let index = u32::try_from(token & u64::from(u32::MAX)).ok()?;
        let slot = self.slots.get(index as usize)?;
        (slot.value.is_some() && self.token(index) == token).then_some(index)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut T {
        let value = self.slots[index as usize].value.as_mut();
        value.expect("the caller resolved this slot and has not removed it")
    }

    pub(super) fn remove(&mut self, index: u32) -> T {
        let slot = &mut self.slots[index as usize];
        let value = slot.value.take().expect("the caller resolved this slot");
        if !planted("generation_forgotten") {
            slot.generation = (slot.generation + 1) & GENERATION_MASK;
        }
        self.free.push(index);
        value
    }

    /// Empties the table, slot by slot.
    pub(super) fn drain(&mut self) -> Vec<T> {
        let occupied: Vec<u32> = (0u32..)
            .zip(&self.slots)
            .filter_map(|(index, slot)| slot.value.is_some().then_some(index))
            .collect();
        occupied.into_iter().map(|index| self.remove(index)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_an_earlier_occupant_does_not_resolve() {
        let mut table = Table::new(2);
        let first = table.insert("first").unwrap();
        let stale = table.token(first);
        table.remove(first);

        let second = table.insert("second").unwrap();

        assert_eq!(first, second);
        assert_eq!(table.resolve(stale), None);
        assert_eq!(table.resolve(table.token(second)), Some(second));
    }

    #[test]
    fn a_full_table_gives_the_value_back() {
        let mut table = Table::new(1);
        table.insert(1).unwrap();

        assert_eq!(table.insert(2), Err(2));
        assert_eq!((table.len(), table.drain()), (1, vec![1]));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn foreign_tokens_resolve_to_nothing() {
        let mut table = Table::new(1);
        table.insert(()).unwrap();

        for token in [0, WAKE_TOKEN, u64::MAX, table.token(0) + 1, table.token(0) ^ 1 << 40] {
            assert_eq!(table.resolve(token), None, "token {token:#x}");
        }
    }

    #[test]
    fn the_generation_wraps_within_its_bits() {
        let mut table = Table::new(1);
        table.slots[0].generation = GENERATION_MASK;
        let index = table.insert(()).unwrap();
        let token = table.token(index);
        table.remove(index);

        let index = table.insert(()).unwrap();

        assert_ne!(table.token(index), token);
        assert_eq!(table.token(index), CLASS_OPERATION << CLASS_SHIFT);
    }
}
