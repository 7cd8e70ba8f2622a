//! Columns: plain values in memory that goes back to the system with them.
//!
//! An allocator keeps what a burst of growing vectors made it fetch, for each thread that had one:
//! with many memtables that comes to a tenth of the memory limit. So what grows with the number of
//! ids lies in blocks of [`BLOCK_BYTES`], each a mapping of its own, that never move; only a column
//! below that size is a vector, so that ten thousand small databases stay small.
//!
//! Guarantees: values keep their places; growing copies nothing but the first block, once.
//! Does not: lock, or shrink. Where the system refuses a mapping the allocator is asked, as for
//! any vector.

use bytemuck::Pod;
use nephrite_io::memory::AlignedBuf;

/// From this size on the memory is mapped.
const BLOCK_BYTES: usize = 64 << 10;

/// A fixed number of values, zeroed at birth.
#[derive(Debug)]
pub(super) enum Block<T> {
    Heap(Vec<T>),
    Mapped(AlignedBuf),
}

impl<T: Pod> Block<T> {
    pub(super) fn zeroed(len: usize) -> Self {
        let bytes = len * size_of::<T>();
        if BLOCK_BYTES <= bytes
            && let Ok(memory) = AlignedBuf::zeroed(bytes)
        {
            return Self::Mapped(memory);
        }
        Self::Heap(vec![T::zeroed(); len])
    }

    #[inline]
    pub(super) fn values(&self) -> &[T] {
        match self {
            Self::Heap(values) => values,
            Self::Mapped(memory) => bytemuck::cast_slice(memory),
        }
    }

    #[inline]
    pub(super) fn values_mut(&mut self) -> &mut [T] {
        match self {
            Self::Heap(values) => values,
            Self::Mapped(memory) => bytemuck::cast_slice_mut(memory),
        }
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Heap(values) => values.capacity() * size_of::<T>(),
            Self::Mapped(memory) => memory.len(),
        }
    }
}

/// Values that are appended one after the other.
#[derive(Debug)]
pub(super) struct Column<T> {
    /// All values while they fit; then empty.
    first: Vec<T>,
    /// Of [`Column::BLOCK_LEN`] values each, all full but the last.
    blocks: Vec<Block<T>>,
    len: usize,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self { first: Vec::new(), blocks: Vec::new(), len: 0 }
    }
}

impl<T: Pod> Column<T> {
    const BLOCK_LEN: usize = BLOCK_BYTES / size_of::<T>();

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> T {
        match self.blocks.get(at / Self::BLOCK_LEN) {
            Some(block) => block.values()[at % Self::BLOCK_LEN],
            None => self.first[at],
        }
    }

    pub(super) fn push(&mut self, value: T) {
        let place = self.room_for(1);
        place[0] = value;
    }

    /// The next `count` places, all in one block; zeros fill the rest of the block before when they
    /// do not fit there. At most a block.
    fn room_for(&mut self, count: usize) -> &mut [T] {
        if self.blocks.is_empty() {
            let end = self.len + count;
            if end < Self::BLOCK_LEN {
                self.first.resize(end, T::zeroed());
                self.len = end;
                return &mut self.first[end - count..];
            }
            let mut block = Block::zeroed(Self::BLOCK_LEN);
            block.values_mut()[..self.len].copy_from_slice(&self.first);
            self.blocks.push(block);
            self.first = Vec::new();
        }
        let mut at = self.len % Self::BLOCK_LEN;
        let is_full = self.len == self.blocks.len() * Self::BLOCK_LEN;
        if is_full || Self::BLOCK_LEN - at < count {
            self.len = self.blocks.len() * Self::BLOCK_LEN;
            self.blocks.push(Block::zeroed(Self::BLOCK_LEN));
            at = 0;
        }
        self.len += count;
        let block = self.blocks.last_mut().expect("pushed above when there was none");
        &mut block.values_mut()[at..at + count]
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(Block::bytes).sum();
        self.first.capacity() * size_of::<T>() + blocks
    }
}

impl Column<u8> {
    /// Appends a string of at most 64 KiB that lies in one piece; gives where it ends.
    pub(super) fn push_string(&mut self, string: &[u8]) -> usize {
        self.room_for(string.len()).copy_from_slice(string);
        self.len
    }

    /// The string that ends at `end`, where the one before ends at `previous_end`.
    #[inline]
    pub(super) fn string(&self, previous_end: usize, end: usize) -> &[u8] {
        let Some(last) = end.checked_sub(1) else { return &[] };
        let start = previous_end.max(last - last % Self::BLOCK_LEN);
        let (bytes, base) = match self.blocks.get(last / Self::BLOCK_LEN) {
            Some(block) => (block.values(), last - last % Self::BLOCK_LEN),
            None => (&self.first[..], 0),
        };
        &bytes[start - base..end - base]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_places_as_a_column_outgrows_its_first_block() {
        let mut column = Column::<[u64; 2]>::default();
        let count: u64 = 3 * (BLOCK_BYTES as u64 / 16) + 7;

        (0..count).for_each(|value| column.push([value, !value]));

        assert_eq!(column.len() as u64, count);
        let at = |value: u64| column.get(usize::try_from(value).unwrap());
        assert!((0..count).all(|value| at(value) == [value, !value]));
        assert_eq!(column.bytes(), 4 * BLOCK_BYTES);
    }

    #[test]
    fn strings_lie_in_one_piece_wherever_a_block_ends() {
        let mut column = Column::<u8>::default();
        let strings: Vec<Vec<u8>> = (0..5000_u32)
            .map(|number| number.to_le_bytes().repeat(1 + number as usize % 63))
            .collect();

        let ends: Vec<usize> = strings.iter().map(|string| column.push_string(string)).collect();

        let mut previous = 0;
        for (string, end) in strings.iter().zip(ends) {
            assert_eq!(column.string(previous, end), string);
            previous = end;
        }
        assert!(2 * BLOCK_BYTES < column.len());
    }

    #[test]
    fn a_small_column_is_small() {
        let mut column = Column::<u64>::default();
        assert_eq!(column.bytes(), 0);

        (0..100).for_each(|value| column.push(value));

        assert!(column.bytes() <= 128 * 8);
    }
}
