//! Frequency: about how often each part of a page was wanted lately, in a fixed amount of memory.
//!
//! Counts to fifteen, of four bits, in blocks as long as a cache line. A part has a block by its
//! hash and two counts in it; the lower one is the answer, and counting raises no other (a
//! count-min sketch with conservative update). When as much was counted as there are counts, all
//! are halved, so that what was popular once is forgotten.
//!
//! Guarantee: the answer is never below what was counted since, but for halving; memory is asked
//! for at the start only, and the system gives it as it is used.
//! Does not: tell two parts apart that share both counts. What is decided by it must be good either
//! way (`retention.rs`, under whose lock it is). Tested below.

/// The largest count.
const COUNT_MAX: u8 = 15;
/// Counts for each thing that is to be told apart.
const COUNTS_EACH: usize = 4;
/// Words of a block, and counts in a word and in a block.
const LINE_WORDS: usize = 8;
const WORD_COUNTS: usize = 16;
const LINE_COUNTS: usize = LINE_WORDS * WORD_COUNTS;
/// All bits of counts but the uppermost of each.
const HALVES: u64 = 0x7777_7777_7777_7777;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Frequency {
    lines: Box<[Line]>,
    counted: u64,
}

/// An array of plain words: of such the allocator gives memory that is not touched yet.
type Line = [u64; LINE_WORDS];

/// Where the counts of a thing are.
#[derive(Clone, Copy)]
struct Place {
    line: usize,
    counts: [usize; 2],
}

impl Frequency {
    /// For about so many things.
    pub(crate) fn new(things: usize) -> Self {
        let lines = (things * COUNTS_EACH).div_ceil(LINE_COUNTS).max(1);
        Self { lines: vec![[0; LINE_WORDS]; lines].into(), counted: 0 }
    }

    /// Counts a thing `times` more.
    pub(crate) fn count(&mut self, hash: u64, times: u8) {
        let place = self.place(hash);
        let line = &mut self.lines[place.line];
        let target = least(line, place).saturating_add(times).min(COUNT_MAX);
        place.counts.into_iter().for_each(|count| raise(line, count, target));
        self.counted += u64::from(times);
        if (self.lines.len() * LINE_COUNTS) as u64 <= self.counted {
            self.halve();
        }
    }

    /// How often a thing was counted, about.
    pub(crate) fn of(&self, hash: u64) -> u8 {
        let place = self.place(hash);
        least(&self.lines[place.line], place)
    }

    /// The memory of the counts.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    fn halve(&mut self) {
        self.counted /= 2;
        let words = self.lines.iter_mut().flatten();
        words.for_each(|word| *word = (*word >> 1) & HALVES);
    }

    fn place(&self, hash: u64) -> Place {
        let mixed = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let spread = u128::from(mixed) * self.lines.len() as u128;
        let line = usize::try_from(spread >> 64).expect("below the number of lines");
        let within = |bits: u64| usize::try_from(bits % LINE_COUNTS as u64).expect("small");
        Place { line, counts: [within(mixed), within(mixed >> 16)] }
    }
}

fn at(line: &Line, count: usize) -> u8 {
    let word = line[count / WORD_COUNTS] >> (count % WORD_COUNTS * 4);
    u8::try_from(word & u64::from(COUNT_MAX)).expect("four bits")
}

fn least(line: &Line, place: Place) -> u8 {
    at(line, place.counts[0]).min(at(line, place.counts[1]))
}

fn raise(line: &mut Line, count: usize, target: u8) {
    if at(line, count) < target {
        let shift = count % WORD_COUNTS * 4;
        let word = &mut line[count / WORD_COUNTS];
        *word = *word & !(u64::from(COUNT_MAX) << shift) | u64::from(target) << shift;
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn hash(thing: u64) -> u64 {
        (thing + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn counts_are_told_apart_and_end_at_fifteen() {
        let mut frequency = Frequency::new(1000);
        for thing in 0..300 {
            frequency.count(hash(thing), u8::try_from(thing % 4).unwrap());
        }
        let right = (0..300).filter(|thing| u64::from(frequency.of(hash(*thing))) == thing % 4);
        assert!(290 < right.count());
        assert!((0..300).all(|thing| thing % 4 <= u64::from(frequency.of(hash(thing)))));

        frequency.count(hash(1), 200);
        assert_eq!(frequency.of(hash(1)), COUNT_MAX);
    }

    #[test]
    fn what_was_popular_once_is_forgotten() {
        let mut frequency = Frequency::new(16);
        frequency.count(hash(7), 15);
        assert_eq!((frequency.bytes(), frequency.of(hash(7))), (size_of::<Line>(), 15));

        (0..4 * LINE_COUNTS as u64).for_each(|thing| frequency.count(hash(thing + 100), 1));

        assert!(frequency.of(hash(7)) < 8);
    }
}
