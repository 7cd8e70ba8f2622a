//! What is kept is found by its own list and id only, and a table keeps to its bytes and lines.

use super::*;

const KIB: usize = 1 << 10;

fn row(position: u32, row: u32) -> FoundRow {
    FoundRow { position, row }
}

fn hash(id: u64) -> u64 {
    id.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[test]
fn what_was_kept_is_found_as_it_was() {
    let table = RowTable::new(64 * KIB).unwrap();
    let places = table.new_places(3);

    table.keep_number(hash(7), 7, places, row(2, u32::MAX));
    table.keep_number(hash(7), 8, places, row(0, 0)); // in the same line
    table.keep_bytes(hash(1), b"one", places, row(1, 5));
    table.keep_bytes(hash(1), b"one\0", places, row(1, 6));

    assert_eq!(table.find_number(hash(7), 7, places), Some(row(2, u32::MAX)));
    assert_eq!(table.find_number(hash(7), 8, places), Some(row(0, 0)));
    assert_eq!(table.find_number(hash(7), 9, places), None);
    assert_eq!(table.find_bytes(hash(1), b"one", places), Some(row(1, 5)));
    assert_eq!(table.find_bytes(hash(1), b"one\0", places), Some(row(1, 6)));
    assert_eq!(table.find_bytes(hash(1), b"on", places), None);
}

#[test]
fn a_list_of_segments_sees_its_own_entries_only() {
    let table = RowTable::new(64 * KIB).unwrap();
    let (before, after) = (table.new_places(2), table.new_places(2));

    table.keep_number(hash(7), 7, before, row(1, 1));
    table.keep_bytes(hash(1), b"one", before, row(1, 1));
    assert_eq!(table.find_number(hash(7), 7, after), None);
    assert_eq!(table.find_bytes(hash(1), b"one", after), None);

    table.keep_number(hash(7), 7, after, row(0, 2));
    table.keep_bytes(hash(1), b"one", after, row(0, 2));
    assert_eq!(table.find_number(hash(7), 7, after), Some(row(0, 2)));
    assert_eq!(table.find_bytes(hash(1), b"one", after), Some(row(0, 2)));
    assert_eq!(table.find_number(hash(7), 7, before), None);
}

#[test]
fn a_new_era_empties_the_lines_that_it_writes() {
    let table = RowTable::new(64 * KIB).unwrap();
    let early = table.new_places(2);
    table.keep_number(hash(7), 7, early, row(1, 1));
    table.next_place.store(u64::from(u32::MAX), Ordering::Relaxed);

    let late = table.new_places(2);
    assert_eq!((late.era, late.first), (1, 1), "a list does not reach over two eras");
    assert_eq!(table.find_number(hash(7), 7, late), None);
    table.keep_number(hash(7), 8, late, row(0, 3));

    assert_eq!(table.find_number(hash(7), 8, late), Some(row(0, 3)));
    assert_eq!(table.find_number(hash(7), 7, late), None);
    table.keep_number(hash(7), 7, early, row(1, 1)); // too late
    assert_eq!(table.find_number(hash(7), 8, late), Some(row(0, 3)));
}

#[test]
fn a_full_line_lets_one_go_for_another() {
    let table = RowTable::new(2 * LINE_BYTES).unwrap();
    assert_eq!(table.line_count, 2);
    let places = table.new_places(1);
    for id in 0..100 {
        table.keep_number(0, id, places, row(0, 1));
        assert_eq!(table.find_number(0, id, places), Some(row(0, 1)), "{id}");
    }
    let kept = (0..100).filter(|id| table.find_number(0, *id, places).is_some()).count();
    assert_eq!(kept, NUMBERS);

    for (length, most) in [(SHORT_BYTES - 1, 4), (SHORT_BYTES, 2)] {
        let places = table.new_places(1);
        let text = |id: u64| format!("{id:length$}").into_bytes();
        for id in 0..100 {
            table.keep_bytes(0, &text(id), places, row(0, 1));
            assert_eq!(table.find_bytes(0, &text(id), places), Some(row(0, 1)), "{id}");
        }
        let found = |id: &u64| table.find_bytes(0, &text(*id), places).is_some();
        assert_eq!((0..100).filter(found).count(), most);
    }
}

#[test]
fn ids_of_every_length_are_kept_but_for_the_longest() {
    let table = RowTable::new(64 * KIB).unwrap();
    let places = table.new_places(1);
    for length in (0..=255).step_by(if cfg!(miri) { 5 } else { 1 }) {
        let id = vec![7; length];
        table.keep_bytes(hash(length as u64), &id, places, row(0, 1));
        let expected = (length <= BYTE_ID_MAX).then_some(row(0, 1));
        assert_eq!(table.find_bytes(hash(length as u64), &id, places), expected, "{length}");
    }
}

#[test]
fn words_of_one_form_are_not_taken_for_another() {
    let table = RowTable::new(2 * LINE_BYTES).unwrap();
    let places = table.new_places(1);
    let word = places.word(row(0, 3));
    // The bytes of the id are, in a line of numbers, an entry word of this very list.
    let mut id = [0; SHORT_BYTES];
    id[..8].copy_from_slice(&word.to_le_bytes());

    table.keep_bytes(0, &id, places, row(0, 3));

    assert_eq!(table.find_number(0, word, places), None);
    table.keep_number(0, 9, places, row(0, 4));
    assert_eq!(table.find_number(0, 9, places), Some(row(0, 4)));
    assert_eq!(table.find_bytes(0, &id, places), None);
}

#[test]
fn a_table_keeps_to_its_bytes() {
    assert!(RowTable::new(LINE_BYTES).is_none());
    for bytes in [3 * LINE_BYTES, 64 * KIB, 100_000] {
        let table = RowTable::new(bytes).unwrap();
        assert!(table.bytes() <= bytes && bytes < table.bytes() + 2 * LINE_BYTES, "{bytes}");
        let last = table.line(table.line_count - 1);
        assert_eq!(last.as_ptr().addr() % LINE_BYTES, 0);
    }
}
