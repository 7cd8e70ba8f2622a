//! Filter: says of an id that a segment certainly does not have it, or that it may.
//!
//! A split block Bloom filter: blocks of 32 bytes, eight words of 32 bits each. The hash of an id
//! chooses one block and one bit in each of its words, so a question reads one cache line. About
//! [`BITS_PER_ID`] bits an id let one of a hundred absent ids through.
//!
//! A filter lies in memory of its owner's choice ([`FilterMemory`]): one of many ids is large.
//!
//! Guarantee: an id that was added is never denied. Filled one id after the other in any order; the
//! size follows from the number of ids, which is known beforehand. On disk it is a blob in whole
//! blocks of 4096 bytes, protected by the segment's checksum table.
//! Does not: remove ids. Tombstones are ids like all others: a lookup must find them.

use xxhash_rust::xxh3::xxh3_64;

use crate::BLOCK_BYTES;
use crate::cursor::{Cursor, u32_at};
use crate::error::Result;
use crate::id::IdRef;

/// Bits of a filter for each id that it is made for.
pub const BITS_PER_ID: u64 = 10;

/// Words of a block.
const WORDS: usize = 8;
const BYTES_PER_BLOCK: usize = 32;
const BITS_PER_BLOCK: u64 = 256;
/// Bytes of the blob before the blocks.
const HEADER_BYTES: usize = 32;
const FORM_SPLIT_BLOCK: u8 = 1;

/// Odd factors, one for each word: the upper five bits of a product choose the bit. Those of the
/// split block filters of Apache Parquet.
const FACTORS: [u32; WORDS] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// The hash of an id that filters are asked with: the same for all filters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdHash(u64);

impl IdHash {
    /// Of an id: XXH3-64 of its bytes, of a number's eight little-endian bytes.
    #[must_use]
    #[inline]
    pub fn of(id: IdRef<'_>) -> Self {
        Self(match id {
            IdRef::U64(number) => xxh3_64(&number.to_le_bytes()),
            IdRef::Bytes(bytes) => xxh3_64(bytes),
        })
    }

    /// The hash itself.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The upper half chooses the block.
    #[inline]
    fn block(self, count: usize) -> usize {
        let product = u128::from(self.0) * count as u128;
        usize::try_from(product >> 64).expect("below the count")
    }

    /// The lower half chooses a bit of each word: that of the word of this factor.
    #[inline]
    fn bit(self, factor: u32) -> u32 {
        let low = u32::try_from(self.0 & 0xffff_ffff).expect("32 bits are left");
        1 << (low.wrapping_mul(factor) >> 27)
    }
}

/// Eight words, which should lie on one cache line.
pub type Block = [u32; WORDS];

/// What the blocks of a filter lie in: zeros at first, as many as there are for good.
pub trait FilterMemory {
    /// How many blocks.
    fn count(&self) -> usize;

    /// One of them.
    fn block(&self, at: usize) -> Option<&Block>;

    /// One of them, to be filled.
    fn block_mut(&mut self, at: usize) -> Option<&mut Block>;
}

/// Blocks that the allocator gives, each on one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeapBlocks(Box<[Aligned]>);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(align(32))]
struct Aligned(Block);

impl HeapBlocks {
    /// So many blocks of zeros.
    #[must_use]
    pub fn zeroed(count: usize) -> Self {
        Self(vec![Aligned::default(); count].into())
    }
}

impl FilterMemory for HeapBlocks {
    #[inline]
    fn count(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn block(&self, at: usize) -> Option<&Block> {
        self.0.get(at).map(|aligned| &aligned.0)
    }

    #[inline]
    fn block_mut(&mut self, at: usize) -> Option<&mut Block> {
        self.0.get_mut(at).map(|aligned| &mut aligned.0)
    }
}

/// See the module documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdFilter<M = HeapBlocks> {
    blocks: M,
}

impl IdFilter {
    /// An empty filter for as many ids, in memory of the allocator.
    #[must_use]
    pub fn for_ids(id_count: u32) -> Self {
        Self::in_memory(HeapBlocks::zeroed(blocks_for(id_count)))
    }

    /// As [`Self::decode_into`], with memory of the allocator.
    ///
    /// # Errors
    /// As there.
    pub fn decode(blob: &[u8], file: &str, offset: u64) -> Result<Option<Self>> {
        Self::decode_into(blob, file, offset, HeapBlocks::zeroed)
    }

    /// Bytes of memory of a filter for as many ids.
    #[must_use]
    pub fn memory_bytes_for(id_count: u32) -> usize {
        size_of::<Self>() + blocks_for(id_count) * size_of::<Block>()
    }

    /// Blocks of 4096 bytes of the section of a filter for as many ids.
    #[must_use]
    pub fn page_count_for(id_count: u32) -> u32 {
        let bytes = HEADER_BYTES + blocks_for(id_count) * BYTES_PER_BLOCK;
        u32::try_from(bytes.div_ceil(BLOCK_BYTES)).expect("10 bits an id of at most 2^32 ids")
    }
}

impl<M: FilterMemory> IdFilter<M> {
    /// An empty filter in memory of zeros: of [`blocks_for`] blocks, or any other number that is
    /// not zero.
    ///
    /// # Panics
    /// Without a block.
    #[must_use]
    pub fn in_memory(blocks: M) -> Self {
        assert_ne!(blocks.count(), 0, "a filter without a block has no answer");
        Self { blocks }
    }

    /// What its blocks lie in.
    #[must_use]
    pub const fn memory(&self) -> &M {
        &self.blocks
    }

    /// Adds an id.
    ///
    /// # Panics
    /// When the memory has fewer blocks than it said.
    #[inline]
    pub fn insert(&mut self, id: IdRef<'_>) {
        self.insert_hash(IdHash::of(id));
    }

    /// Adds the id with this hash; false when it was certainly not there before.
    ///
    /// # Panics
    /// As [`Self::insert`].
    #[inline]
    pub fn insert_hash(&mut self, hash: IdHash) -> bool {
        let at = hash.block(self.blocks.count());
        let block = self.blocks.block_mut(at).expect("below the count of blocks");
        let mut new = 0;
        for (word, factor) in block.iter_mut().zip(FACTORS) {
            let bit = hash.bit(factor);
            new |= bit & !*word;
            *word |= bit;
        }
        new == 0
    }

    /// False when the id was certainly not added.
    #[must_use]
    #[inline]
    pub fn may_contain(&self, hash: IdHash) -> bool {
        let at = hash.block(self.blocks.count());
        let Some(block) = self.blocks.block(at) else { return true };
        // Word by word: half of the absent ids are denied by the first one, and eight bits made one
        // by one and then looked at as a whole are waited for (stores of 4 bytes, a load of 16).
        block.iter().zip(FACTORS).all(|(word, factor)| word & hash.bit(factor) != 0)
    }

    /// What a question about this hash reads, for those who ask about many ids and want it fetched
    /// before.
    #[must_use]
    #[inline]
    pub fn words_of(&self, hash: IdHash) -> Option<&[u32; 8]> {
        self.blocks.block(hash.block(self.blocks.count()))
    }

    /// Bytes of memory that this filter takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.blocks.count() * size_of::<Block>()
    }

    /// Bytes of the blob.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        (HEADER_BYTES + self.blocks.count() * BYTES_PER_BLOCK).next_multiple_of(BLOCK_BYTES)
    }

    /// Writes the blob, zero-padded to a multiple of 4096 bytes.
    ///
    /// # Panics
    /// When `blob` is not of [`Self::encoded_bytes`] bytes.
    pub fn encode_into(&self, blob: &mut [u8]) {
        assert_eq!(blob.len(), self.encoded_bytes(), "bytes of the blob");
        let (header, rest) = blob.split_at_mut(HEADER_BYTES);
        header.fill(0);
        header[0] = FORM_SPLIT_BLOCK;
        let count = self.blocks.count();
        header[8..16].copy_from_slice(&(count as u64).to_le_bytes());
        let (fields, padding) = rest.split_at_mut(count * BYTES_PER_BLOCK);
        let words = (0..count).filter_map(|at| self.blocks.block(at)).flatten();
        let fields = fields.as_chunks_mut::<4>().0;
        fields.iter_mut().zip(words).for_each(|(field, word)| *field = word.to_le_bytes());
        padding.fill(0);
    }

    /// The blob by itself.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut blob = vec![0; self.encoded_bytes()];
        self.encode_into(&mut blob);
        blob
    }

    /// Reads a blob; `offset` is where in `file` it lies. `None` for a form that this build does
    /// not know: the segment is read without a filter. `memory` is asked for as many blocks as
    /// the blob has.
    ///
    /// # Errors
    /// `Corrupt` when lengths or padding do not fit.
    ///
    /// # Panics
    /// When the memory has fewer blocks than were asked for.
    pub fn decode_into(
        blob: &[u8],
        file: &str,
        offset: u64,
        memory: impl FnOnce(usize) -> M,
    ) -> Result<Option<Self>> {
        let mut cursor = Cursor::new(blob, offset, file);
        let start = cursor;
        if cursor.u8("form of the filter")? != FORM_SPLIT_BLOCK {
            return Ok(None);
        }
        cursor.zeros(7, "filter")?;
        let count = cursor.u64("blocks of the filter")?;
        cursor.zeros(HEADER_BYTES - 16, "filter")?;
        let bytes = usize::try_from(count).ok().and_then(|it| it.checked_mul(BYTES_PER_BLOCK));
        let used = bytes.and_then(|bytes| bytes.checked_add(HEADER_BYTES));
        let used = used.filter(|used| {
            0 < count && used.checked_next_multiple_of(BLOCK_BYTES) == Some(blob.len())
        });
        let Some(used) = used else {
            let what = format!("the filter claims {count} blocks in {} bytes", blob.len());
            return Err(start.corrupt(what));
        };
        let blocks = blob[HEADER_BYTES..used].as_chunks::<BYTES_PER_BLOCK>().0;
        let word = |block: &[u8; BYTES_PER_BLOCK], at| u32_at(block, 4 * at);
        let mut rest = Cursor::new(&blob[used..], offset + used as u64, file);
        rest.zeros(rest.remaining(), "filter")?;
        let mut filter = Self::in_memory(memory(blocks.len()));
        for (at, block) in blocks.iter().enumerate() {
            let place = filter.blocks.block_mut(at).expect("as many blocks as were asked for");
            *place = std::array::from_fn(|at| word(block, at));
        }
        Ok(Some(filter))
    }
}

/// Blocks of a filter for as many ids: at least one, so that every filter has an answer.
///
/// # Panics
/// Where memory cannot be addressed with 64 bits.
#[must_use]
pub fn blocks_for(id_count: u32) -> usize {
    let blocks = (u64::from(id_count) * BITS_PER_ID).div_ceil(BITS_PER_BLOCK).max(1);
    usize::try_from(blocks).expect("at most 5 GiB of blocks, for 2^32 ids")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    fn ids(count: u64) -> impl Iterator<Item = Id> {
        (0..count).map(|number| Id::from(format!("document-{number}").as_str()))
    }

    fn filled(count: u32) -> IdFilter {
        let mut filter = IdFilter::for_ids(count);
        ids(u64::from(count)).for_each(|id| filter.insert(id.as_id_ref()));
        filter
    }

    #[test]
    fn what_was_added_is_never_denied_and_most_else_is() {
        let count: u32 = if cfg!(miri) { 40 } else { 20_000 };
        let filter = filled(count);

        let added =
            ids(u64::from(count)).filter(|id| filter.may_contain(IdHash::of(id.as_id_ref())));
        assert_eq!(added.count(), count as usize);

        let absent =
            (0..u64::from(count)).filter(|id| filter.may_contain(IdHash::of((*id).into())));
        assert!(absent.count() * 40 <= count as usize, "more than 2.5 % get through");

        let mut again = filter;
        let known = |filter: &mut IdFilter, id: IdRef<'_>| filter.insert_hash(IdHash::of(id));
        assert!(ids(u64::from(count)).all(|id| known(&mut again, id.as_id_ref())));
        let new = (0..u64::from(count)).filter(|id| !known(&mut again, (*id).into()));
        assert!(count as usize / 2 < new.count(), "of others it is told that they are new");
    }

    #[test]
    fn blobs_round_trip() {
        let many = if cfg!(miri) { 60 } else { 3000 };
        for count in [0, 1, 25, 26, many] {
            let filter = filled(count);
            let blob = filter.encode();
            assert_eq!(blob.len(), IdFilter::page_count_for(count) as usize * BLOCK_BYTES);
            assert_eq!(filter.memory_bytes(), IdFilter::memory_bytes_for(count));
            assert_eq!(IdFilter::decode(&blob, "a", 0), Ok(Some(filter)));
        }
    }

    #[test]
    fn blobs_that_do_not_fit_are_refused_and_other_forms_skipped() {
        let blob = filled(if cfg!(miri) { 60 } else { 3000 }).encode();
        let changed = |at: usize, value: u8| {
            let mut blob = blob.clone();
            blob[at] = value;
            IdFilter::decode(&blob, "a", 4096)
        };
        for (at, value) in [(1, 1), (8, 0), (14, 1), (15, 0xff), (16, 1), (blob.len() - 1, 1)] {
            assert!(changed(at, value).is_err(), "byte {at} = {value}");
        }
        assert!(IdFilter::decode(&blob[..BLOCK_BYTES - 1], "a", 4096).is_err());
        assert!(IdFilter::decode(&[], "a", 4096).is_err());
        assert_eq!(changed(0, 2), Ok(None));
    }
}
