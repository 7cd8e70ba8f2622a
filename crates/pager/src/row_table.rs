//! Row table: where the rows of ids lie that were looked up lately.
//!
//! A fixed number of cache lines for all databases of a store. The hash of an id names its line;
//! the line holds whole ids, so an answer is exact: three numbers, two short byte ids, or a long
//! one of up to [`BYTE_ID_MAX`] bytes. Byte ids may also lie in the line beside theirs. What does
//! not fit is replaced.
//!
//! An answer is good for one list of segments only. So each list gets numbers of its own, one per
//! segment ([`Places`]), which are never used again; an entry whose number is not of the reader's
//! list is no answer. Nothing is ever taken out.
//!
//! ```text
//! line: [ era: 32 | sequence: 29 | form: 2 | being written: 1 ] and seven words
//!   numbers: three times [ id ][ place: 32 | row: 32 ], one word unused
//!   short:   twice [ place: 32 | row: 32 ], twice [ id, zeros, length in the last byte: 20 bytes ]
//!   long:    [ place: 32 | row: 32 ][ id, zeros, length in the last byte: 48 bytes ]
//! ```
//!
//! Guarantee: no lock that anybody waits for, no allocation after the making, no system call. A
//! reader that meets a writer finds nothing; a writer that meets another one gives up.
//! Ordering: a sequence lock. The first word is odd while a line is written: taken with a
//! compare-and-swap (Acquire, pairs with the Release that ended the last write) and a Release fence
//! before the words, which pairs with the Acquire fence of a reader that saw one of them: it then
//! sees the odd word as well, in its second look. The others are Relaxed.
//! The era is the upper half of the place numbers, so that the lower half does in the entries. A
//! line of another era or form is empty.
//! Checked by the tests below and the loom models `row_table`, with planted bugs.

use std::ops::Range;
use std::sync::atomic::AtomicU64 as Counter;

use nephrite_io::memory::prefetch_value;

use crate::planted::{planted, unless};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::word_array::WordArray;

/// Words of a line behind the first. Fewer under the model checker, which tries what each load of
/// them may see.
const BODY_WORDS: usize = if cfg!(loom) { 3 } else { 7 };
const LINE_WORDS: usize = 1 + BODY_WORDS;
const LINE_BYTES: usize = LINE_WORDS * size_of::<u64>();
/// Numbers in a line.
const NUMBERS: usize = BODY_WORDS / 2;
/// Bytes of a long byte id with its length.
const LONG_BYTES: usize = (BODY_WORDS - 1) * size_of::<u64>();
/// Short byte ids in a line, and the bytes of one with its length.
const SHORTS: usize = 2;
const SHORT_BYTES: usize = (BODY_WORDS - SHORTS) * size_of::<u64>() / SHORTS;
/// The longest byte id that the table takes.
pub const BYTE_ID_MAX: usize = LONG_BYTES - 1;

/// The lower half of a first word, and what one write adds to it.
const LOW: u64 = 0xffff_ffff;
const FORM: u64 = 0b110;
const ONE_WRITE: u64 = 0b1000;

/// What the words behind the first are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Numbers,
    Short,
    Long,
}

impl Form {
    const fn bits(self) -> u64 {
        match self {
            Self::Numbers => 0b000,
            Self::Short => 0b010,
            Self::Long => 0b100,
        }
    }
}

type Body = [u64; BODY_WORDS];

/// See the module documentation.
pub struct RowTable {
    words: WordArray,
    line_count: usize,
    next_place: Counter,
}

/// The numbers of one list of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    era: u32,
    first: u32,
    count: u32,
}

/// A row, and the position of its segment in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what is to be found is all there is")]
pub struct FoundRow {
    /// Of the segment.
    pub position: u32,
    /// In the segment; any number, also that of a tombstone.
    pub row: u32,
}

impl Places {
    /// The entry word of a row, which is never zero.
    fn word(self, found: FoundRow) -> u64 {
        assert!(found.position < self.count, "segment {} of {}", found.position, self.count);
        u64::from(self.first + found.position) << 32 | u64::from(found.row)
    }

    /// What an entry word says, if it is of this list.
    #[inline]
    fn found(self, word: u64) -> Option<FoundRow> {
        let place = u32::try_from(word >> 32).expect("32 bits are left");
        let row = u32::try_from(word & LOW).expect("32 bits are left");
        let position = place.wrapping_sub(self.first);
        (position < self.count).then_some(FoundRow { position, row })
    }
}

impl RowTable {
    /// A table of at most so many bytes; `None` when that is too little, or there is no memory. The
    /// system gives the memory when it is first written.
    #[must_use]
    pub fn new(bytes: usize) -> Option<Self> {
        let line_count = (bytes / LINE_BYTES) & !1;
        if line_count == 0 {
            return None;
        }
        let words = WordArray::zeros(line_count * LINE_WORDS)?;
        // Zero is the word of an empty entry, and so no place.
        Some(Self { words, line_count, next_place: Counter::new(1) })
    }

    /// The bytes of the table.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// Numbers for a list of so many segments.
    #[must_use]
    pub fn new_places(&self, count: u32) -> Places {
        // Relaxed: only uniqueness matters.
        let take = |next| Some(Self::range(next, count).end);
        let update = self.next_place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let (Ok(next) | Err(next)) = update;
        let start = Self::range(next, count).start;
        let half = |number: u64| u32::try_from(number & 0xffff_ffff).expect("32 bits are left");
        Places { era: half(start >> 32), first: half(start), count }
    }

    /// The next `count` numbers of one era, none of which has zeros for its lower half.
    fn range(next: u64, count: u32) -> Range<u64> {
        let end = next + u64::from(count);
        let next_era = ((next >> 32) + 1) << 32;
        let start = if end <= next_era { next } else { next_era };
        let start = if start.trailing_zeros() < 32 { start } else { start + 1 };
        start..start + u64::from(count)
    }

    /// Asks the processor for the line of a number.
    #[inline]
    pub fn prefetch_number(&self, hash: u64) {
        prefetch_value(&self.line(self.line_of(hash))[0]);
    }

    /// Asks the processor for the lines of a byte id.
    #[inline]
    pub fn prefetch_bytes(&self, hash: u64) {
        let line = self.line_of(hash);
        prefetch_value(&self.line(line)[0]);
        prefetch_value(&self.line(line ^ 1)[0]);
    }

    /// The row of a number.
    #[inline]
    #[must_use]
    pub fn find_number(&self, hash: u64, id: u64, places: Places) -> Option<FoundRow> {
        let body = self.read(self.line_of(hash), Form::Numbers, places.era)?;
        let (entries, _) = body.as_chunks::<2>();
        entries.iter().find_map(|[key, word]| (*key == id).then(|| places.found(*word))?)
    }

    /// The row of a byte id.
    #[inline]
    #[must_use]
    pub fn find_bytes(&self, hash: u64, id: &[u8], places: Places) -> Option<FoundRow> {
        self.prefetch_bytes(hash);
        let line = self.line_of(hash);
        let lines = [line, line ^ 1];
        if id.len() < SHORT_BYTES {
            let id = packed::<SHORT_BYTES>(id)?;
            return lines.into_iter().find_map(|line| {
                let body = self.read(line, Form::Short, places.era)?;
                (0..SHORTS).find_map(|slot| {
                    (is_short(&body, slot, &id)).then(|| places.found(body[slot]))?
                })
            });
        }
        let id = packed::<LONG_BYTES>(id)?;
        lines.into_iter().find_map(|line| {
            let body = self.read(line, Form::Long, places.era)?;
            (is_long(&body, &id)).then(|| places.found(body[0]))?
        })
    }

    /// Notes the row of a number.
    pub fn keep_number(&self, hash: u64, id: u64, places: Places, found: FoundRow) {
        let line = self.line_of(hash);
        self.write(line, Form::Numbers, places.era, |body, turn| {
            let (entries, _) = body.as_chunks_mut::<2>();
            let known = entries.iter().position(|[key, word]| *key == id && *word != 0);
            let empty = || entries.iter().position(|[_, word]| *word == 0);
            let entry = known.or_else(empty).unwrap_or(turn % NUMBERS);
            entries[entry] = [id, places.word(found)];
        });
    }

    /// Notes the row of a byte id, unless it is too long.
    pub fn keep_bytes(&self, hash: u64, id: &[u8], places: Places, found: FoundRow) {
        let (era, word) = (places.era, places.word(found));
        if id.len() < SHORT_BYTES {
            let Some(id) = packed::<SHORT_BYTES>(id) else { return };
            let same = |body: &Body, slot| is_short(body, slot, &id);
            let (line, slot) = self.choose(hash, Form::Short, era, same);
            return self.write(line, Form::Short, era, |body, _| {
                body[slot] = word;
                set_short(body, slot, id);
            });
        }
        let Some(id) = packed::<LONG_BYTES>(id) else { return };
        let (line, _) = self.choose(hash, Form::Long, era, |body, _| is_long(body, &id));
        self.write(line, Form::Long, era, |body, _| {
            body[0] = word;
            set_long(body, id);
        });
    }

    /// The line and slot for a byte id: where it is, or where nothing is, or by turns.
    fn choose(
        &self,
        hash: u64,
        form: Form,
        era: u32,
        same: impl Fn(&Body, usize) -> bool,
    ) -> (usize, usize) {
        let line = self.line_of(hash);
        let lines = [line, line ^ 1];
        let slots = if form == Form::Short { SHORTS } else { 1 };
        let bodies = lines.map(|line| self.read(line, form, era));
        let places = (0..lines.len()).flat_map(|line| (0..slots).map(move |slot| (line, slot)));
        let is_known =
            |(line, slot): &(usize, usize)| bodies[*line].is_some_and(|body| same(&body, *slot));
        let is_empty =
            |(line, slot): &(usize, usize)| bodies[*line].is_none_or(|body| body[*slot] == 0);
        let by_turns = || {
            let turns: usize = lines.iter().map(|line| self.turn(*line)).sum();
            (turns % lines.len(), turns / lines.len() % slots)
        };
        let known = places.clone().find(is_known);
        let (line, slot) = known.or_else(|| places.clone().find(is_empty)).unwrap_or_else(by_turns);
        (lines[line], slot)
    }

    /// The upper bits of the hash choose the line.
    #[inline]
    fn line_of(&self, hash: u64) -> usize {
        let product = u128::from(hash) * self.line_count as u128;
        usize::try_from(product >> 64).expect("below the count")
    }

    #[inline]
    fn line(&self, line: usize) -> &[AtomicU64; LINE_WORDS] {
        let words = &self.words[line * LINE_WORDS..];
        words.first_chunk().expect("lines lie within the words")
    }

    /// The words of a line, all of one write; `None` when it is of another form or era, or being
    /// written.
    #[inline]
    fn read(&self, line: usize, form: Form, era: u32) -> Option<Body> {
        let line = self.line(line);
        let before = line[0].load(unless("row_look_relaxed", Ordering::Acquire));
        if before & (FORM | 1) != form.bits() || before >> 32 != u64::from(era) {
            return None;
        }
        let body = std::array::from_fn(|word| line[1 + word].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let untouched = planted("row_unlooked") || line[0].load(Ordering::Relaxed) == before;
        untouched.then_some(body)
    }

    /// Writes of this line so far, about.
    fn turn(&self, line: usize) -> usize {
        turn(self.line(line)[0].load(Ordering::Relaxed)) // a choice of whom to replace
    }

    /// Changes a line, unless somebody else does, or it is of a later era.
    fn write(&self, line: usize, form: Form, era: u32, change: impl FnOnce(&mut Body, usize)) {
        let line = self.line(line);
        let era = u64::from(era);
        let seen = line[0].load(Ordering::Relaxed);
        let writing = !planted("row_two_writers") && seen & 1 != 0;
        if writing || era < seen >> 32 {
            return;
        }
        let taken = line[0].compare_exchange(seen, seen | 1, Ordering::Acquire, Ordering::Relaxed);
        if taken.is_err() {
            return;
        }
        fence(Ordering::Release);
        let mut body: Body = [0; BODY_WORDS];
        if seen >> 32 == era && seen & FORM == form.bits() {
            body = std::array::from_fn(|word| line[1 + word].load(Ordering::Relaxed));
        }
        change(&mut body, turn(seen));
        line[1..].iter().zip(body).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        let low = ((seen & !FORM) + ONE_WRITE) & LOW | form.bits();
        line[0].store(era << 32 | low, unless("row_publish_relaxed", Ordering::Release));
    }
}

impl std::fmt::Debug for RowTable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RowTable").field("lines", &self.line_count).finish_non_exhaustive()
    }
}

/// The writes that a first word tells of.
fn turn(word: u64) -> usize {
    usize::try_from((word & LOW) / ONE_WRITE).expect("29 bits")
}

/// A byte id with zeros behind it and its length in the last byte; `None` when it is too long.
#[inline]
fn packed<const BYTES: usize>(id: &[u8]) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    bytes.get_mut(..id.len()).filter(|_| id.len() < BYTES)?.copy_from_slice(id);
    bytes[BYTES - 1] = u8::try_from(id.len()).ok()?;
    Some(bytes)
}

/// Whether the slot of a line of short ids has this one.
#[inline]
fn is_short(body: &Body, slot: usize, id: &[u8; SHORT_BYTES]) -> bool {
    let bytes = body.map(u64::to_le_bytes);
    let start = SHORTS * size_of::<u64>() + slot * SHORT_BYTES;
    bytes.as_flattened().get(start..start + SHORT_BYTES) == Some(id)
}

fn set_short(body: &mut Body, slot: usize, id: [u8; SHORT_BYTES]) {
    let start = SHORTS * size_of::<u64>() + slot * SHORT_BYTES;
    set_bytes(body, start, &id);
}

/// Whether the line of a long id has this one.
#[inline]
fn is_long(body: &Body, id: &[u8; LONG_BYTES]) -> bool {
    let bytes = body.map(u64::to_le_bytes);
    bytes.as_flattened().get(size_of::<u64>()..) == Some(id)
}

fn set_long(body: &mut Body, id: [u8; LONG_BYTES]) {
    set_bytes(body, size_of::<u64>(), &id);
}

fn set_bytes(body: &mut Body, start: usize, id: &[u8]) {
    let mut bytes = body.map(u64::to_le_bytes);
    bytes.as_flattened_mut()[start..start + id.len()].copy_from_slice(id);
    *body = bytes.map(u64::from_le_bytes);
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
