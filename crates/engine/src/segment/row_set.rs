//! Some rows of a segment: those that a compaction keeps, or those that newer segments hide.
//!
//! One bit per row. Of rows that are kept a count per 512 bits tells where they go, without an
//! entry per id: rows keep their order, so the new place of a row is the number of kept ones
//! before it.

use nephrite_format::Row;

/// Bits per word, and words per count.
const WORD_BITS: u32 = 64;
const WORDS_PER_COUNT: usize = 8;

/// See the module documentation.
#[derive(Clone, Debug)]
pub(crate) struct RowSet {
    words: Vec<u64>,
    /// Rows of the set before each group of words.
    counts: Vec<u32>,
    /// New row of the first one.
    base: u32,
}

impl RowSet {
    pub(crate) fn new(rows: u32) -> Self {
        let words = vec![0; rows.div_ceil(WORD_BITS) as usize];
        Self { words, counts: Vec::new(), base: 0 }
    }

    pub(crate) fn insert(&mut self, row: Row) {
        self.words[(row.get() / WORD_BITS) as usize] |= 1 << (row.get() % WORD_BITS);
    }

    pub(crate) fn contains(&self, row: Row) -> bool {
        self.words[(row.get() / WORD_BITS) as usize] >> (row.get() % WORD_BITS) & 1 == 1
    }

    /// Bytes of memory that a set for so many rows takes.
    pub(crate) fn bytes_for(rows: u32) -> u64 {
        u64::from(rows.div_ceil(WORD_BITS)) * 8
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        (size_of_val(&*self.words) + size_of_val(&*self.counts)) as u64
    }

    /// Counts; `base` is the new row of the first one. Returns the number of rows.
    pub(crate) fn close(&mut self, base: u32) -> u32 {
        let mut count = 0;
        self.counts.clear();
        for group in self.words.chunks(WORDS_PER_COUNT) {
            self.counts.push(count);
            count += group.iter().map(|word| word.count_ones()).sum::<u32>();
        }
        self.base = base;
        count
    }

    /// Where a row of the set goes. After [`Self::close`].
    pub(crate) fn new_row(&self, row: Row) -> Row {
        let word = (row.get() / WORD_BITS) as usize;
        let group = word / WORDS_PER_COUNT;
        let within = self.words[group * WORDS_PER_COUNT..word].iter();
        let below = self.words[word] & ((1 << (row.get() % WORD_BITS)) - 1);
        let rank = self.counts[group]
            + within.map(|word| word.count_ones()).sum::<u32>()
            + below.count_ones();
        Row::new(self.base + rank)
    }

    /// Its rows below `end`, from `start` on, ascending.
    pub(crate) fn rows_within(&self, start: u32, end: u32) -> impl Iterator<Item = Row> {
        let first = start / WORD_BITS;
        let words = self.words.iter().copied().skip(first as usize);
        let rows = rows_of(words).map(move |row| Row::new(first * WORD_BITS + row.get()));
        rows.skip_while(move |row| row.get() < start).take_while(move |row| row.get() < end)
    }

    /// The rows that are in both sets, ascending.
    pub(crate) fn rows_in(&self, other: &Self) -> impl Iterator<Item = Row> {
        rows_of(self.words.iter().zip(&other.words).map(|(one, other)| one & other))
    }
}

fn rows_of(words: impl Iterator<Item = u64>) -> impl Iterator<Item = Row> {
    words.zip(0_u32..).filter(|(word, _)| *word != 0).flat_map(|(word, at)| {
        let bits = (0..WORD_BITS).filter(move |bit| word >> bit & 1 == 1);
        bits.map(move |bit| Row::new(at * WORD_BITS + bit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_rows_keep_their_order_and_close_the_gaps() {
        let mut set = RowSet::new(2000);
        let live: Vec<u32> =
            (0..2000).filter(|row| row % 7 == 3 || (900..1100).contains(row)).collect();
        live.iter().for_each(|row| set.insert(Row::new(*row)));
        assert_eq!(set.close(40) as usize, live.len());
        let rows: Vec<u32> = set.rows_within(0, 2000).map(Row::get).collect();
        assert_eq!(rows, live);
        for (position, row) in (40..).zip(&live) {
            assert_eq!(set.new_row(Row::new(*row)).get(), position, "row {row}");
        }
        assert!(set.contains(Row::new(3)));
        assert!(!set.contains(Row::new(4)));
    }

    #[test]
    fn a_part_of_the_rows_is_found_wherever_it_begins() {
        let mut set = RowSet::new(300);
        let rows = [0, 63, 64, 65, 130, 299];
        rows.iter().for_each(|row| set.insert(Row::new(*row)));
        for (start, end) in [(0, 300), (1, 65), (64, 64), (65, 131), (131, 299), (131, 300)] {
            let found: Vec<u32> = set.rows_within(start, end).map(Row::get).collect();
            let expected = rows.into_iter().filter(|row| (start..end).contains(row));
            assert_eq!(found, expected.collect::<Vec<u32>>(), "{start}..{end}");
        }
    }

    #[test]
    fn rows_of_two_sets_are_those_in_both() {
        let (mut evens, mut thirds) = (RowSet::new(200), RowSet::new(200));
        (0..200).step_by(2).for_each(|row| evens.insert(Row::new(row)));
        (0..200).step_by(3).for_each(|row| thirds.insert(Row::new(row)));
        let both: Vec<u32> = evens.rows_in(&thirds).map(Row::get).collect();
        assert_eq!(both, (0..200).step_by(6).collect::<Vec<u32>>());
    }
}
