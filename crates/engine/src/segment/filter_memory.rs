//! Memory for the filters of segments.
//!
//! A filter of many ids is the largest single thing that a segment has in memory, and goes with its
//! segment. Given back to an allocator it stays in the process, and the C library's keeps twice the
//! largest block that it was ever given back. So large filters are mappings of their own, from
//! 2 MiB on of huge pages where they can be had.
//!
//! Does not: count. See [`super::MetadataMemory`].

use nephrite_format::filter::{Block, FilterMemory, HeapBlocks, IdFilter, blocks_for};
use nephrite_io::memory::AlignedBuf;

/// From this size on the memory is mapped.
const MAPPED_BYTES: usize = 64 << 10;

/// The filter of a segment.
pub(crate) type Filter = IdFilter<FilterBlocks>;

/// See the module documentation.
#[derive(Debug)]
pub(crate) enum FilterBlocks {
    Heap(HeapBlocks),
    Mapped(AlignedBuf),
}

impl FilterBlocks {
    /// For as many ids.
    pub(crate) fn for_ids(id_count: u32) -> Self {
        Self::zeroed(blocks_for(id_count))
    }

    /// So many blocks. Where the system refuses a mapping the allocator is asked.
    pub(crate) fn zeroed(count: usize) -> Self {
        let bytes = count.saturating_mul(size_of::<Block>());
        if MAPPED_BYTES <= bytes
            && let Ok(memory) = AlignedBuf::zeroed(bytes)
        {
            return Self::Mapped(memory);
        }
        Self::Heap(HeapBlocks::zeroed(count))
    }
}

impl FilterMemory for FilterBlocks {
    #[inline]
    fn count(&self) -> usize {
        match self {
            Self::Heap(blocks) => blocks.count(),
            Self::Mapped(memory) => memory.len() / size_of::<Block>(),
        }
    }

    #[inline]
    fn block(&self, at: usize) -> Option<&Block> {
        match self {
            Self::Heap(blocks) => blocks.block(at),
            Self::Mapped(memory) => bytemuck::cast_slice(memory).get(at),
        }
    }

    #[inline]
    fn block_mut(&mut self, at: usize) -> Option<&mut Block> {
        match self {
            Self::Heap(blocks) => blocks.block_mut(at),
            Self::Mapped(memory) => bytemuck::cast_slice_mut(memory).get_mut(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use nephrite_format::{IdRef, filter::IdHash};

    use super::*;

    #[test]
    fn filters_say_the_same_wherever_they_lie() {
        for (count, is_mapped) in [(1_000, false), (60_000, true)] {
            let mut filter = Filter::in_memory(FilterBlocks::for_ids(count));
            let mut other = IdFilter::for_ids(count);
            for id in (0..u64::from(count)).map(IdRef::U64) {
                filter.insert(id);
                other.insert(id);
            }
            let blob = filter.encode();

            assert_eq!(blob, other.encode());
            let read = Filter::decode_into(&blob, "a", 0, FilterBlocks::zeroed).unwrap().unwrap();
            let ids = (0..2 * u64::from(count)).map(|id| IdHash::of(IdRef::U64(id)));
            ids.for_each(|id| assert_eq!(read.may_contain(id), other.may_contain(id)));
            assert_eq!(matches!(read.memory(), FilterBlocks::Mapped(_)), is_mapped, "{count} ids");
        }
    }
}
