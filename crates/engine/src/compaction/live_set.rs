//! Which rows of the inputs live on, and where they go.
//!
//! One bit per row and a count per 512 bits, instead of an entry per id: rows keep their order, so
//! the new place of a row is the number of live rows before it.

use nephrite_format::Row;

/// Bits per word, and words per count.
const WORD_BITS: u32 = 64;
const WORDS_PER_COUNT: usize = 8;

/// The live rows of one input.
#[derive(Debug)]
pub(super) struct LiveSet {
    words: Vec<u64>,
    /// Live rows before each group of words.
    counts: Vec<u32>,
    /// New row of the first live row.
    base: u32,
}

impl LiveSet {
    pub(super) fn new(rows: u32) -> Self {
        let words = vec![0; rows.div_ceil(WORD_BITS) as usize];
        Self { words, counts: Vec::new(), base: 0 }
    }

    pub(super) fn insert(&mut self, row: Row) {
        self.words[(row.get() / WORD_BITS) as usize] |= 1 << (row.get() % WORD_BITS);
    }

    pub(super) fn contains(&self, row: Row) -> bool {
        self.words[(row.get() / WORD_BITS) as usize] >> (row.get() % WORD_BITS) & 1 == 1
    }

    /// Counts; `base` is the new row of the first live one. Returns the number of live rows.
    pub(super) fn close(&mut self, base: u32) -> u32 {
        let mut count = 0;
        self.counts.clear();
        for group in self.words.chunks(WORDS_PER_COUNT) {
            self.counts.push(count);
            count += group.iter().map(|word| word.count_ones()).sum::<u32>();
        }
        self.base = base;
        count
    }

    /// Where a live row goes. After [`Self::close`].
    pub(super) fn new_row(&self, row: Row) -> Row {
        let word = (row.get() / WORD_BITS) as usize;
        let group = word / WORDS_PER_COUNT;
        let within = self.words[group * WORDS_PER_COUNT..word].iter();
        let below = self.words[word] & ((1 << (row.get() % WORD_BITS)) - 1);
        let rank = self.counts[group]
            + within.map(|word| word.count_ones()).sum::<u32>()
            + below.count_ones();
        Row::new(self.base + rank)
    }

    /// Live rows, ascending.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row> {
        let words = self.words.iter().zip(0_u32..).filter(|(word, _)| **word != 0);
        words.flat_map(|(word, at)| {
            let bits = (0..WORD_BITS).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| Row::new(at * WORD_BITS + bit))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_rows_keep_their_order_and_close_the_gaps() {
        let mut set = LiveSet::new(2000);
        let live: Vec<u32> =
            (0..2000).filter(|row| row % 7 == 3 || (900..1100).contains(row)).collect();
        live.iter().for_each(|row| set.insert(Row::new(*row)));
        assert_eq!(set.close(40) as usize, live.len());
        let rows: Vec<u32> = set.rows().map(Row::get).collect();
        assert_eq!(rows, live);
        for (position, row) in (40..).zip(&live) {
            assert_eq!(set.new_row(Row::new(*row)).get(), position, "row {row}");
        }
        assert!(set.contains(Row::new(3)));
        assert!(!set.contains(Row::new(4)));
    }
}
