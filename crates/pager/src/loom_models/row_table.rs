//! A reader beside a writer of one line, and two writers.

use loom::sync::Arc;
use loom::thread;

use super::check;
use crate::row_table::{FoundRow, Places, RowTable};

fn table() -> (Arc<RowTable>, Places) {
    let table = RowTable::new(1 << 6).expect("room for two lines");
    let places = table.new_places(1);
    keep(&table, places, 7);
    (Arc::new(table), places)
}

/// The row of an id is ten times the id.
fn keep(table: &RowTable, places: Places, id: u64) {
    let row = u32::try_from(id * 10).expect("small");
    table.keep_number(0, id, places, FoundRow { position: 0, row });
}

fn look(table: &RowTable, places: Places, id: u64) -> bool {
    let found = table.find_number(0, id, places);
    if let Some(found) = found {
        assert_eq!(u64::from(found.row), id * 10, "the row of another id");
    }
    found.is_some()
}

#[test]
fn a_reader_never_sees_the_row_of_another_id() {
    check(|| {
        let (table, places) = table();
        let other = Arc::clone(&table);
        let reader = thread::spawn(move || {
            look(&other, places, 8);
        });
        keep(&table, places, 8);
        reader.join().unwrap();
        assert!(look(&table, places, 8), "what nobody disturbed is kept");
    });
}

#[test]
fn a_line_that_was_written_twice_is_not_mixed() {
    check(|| {
        let (table, places) = table();
        let other = Arc::clone(&table);
        let reader = thread::spawn(move || {
            look(&other, places, 7);
        });
        keep(&table, places, 8);
        keep(&table, places, 7);
        reader.join().unwrap();
    });
}

#[test]
fn two_writers_do_not_mix_their_words() {
    check(|| {
        let (table, places) = table();
        let other = Arc::clone(&table);
        let writer = thread::spawn(move || keep(&other, places, 8));
        keep(&table, places, 9);
        writer.join().unwrap();
        let known = [7, 8, 9].into_iter().filter(|id| look(&table, places, *id)).count();
        assert_eq!(known, 1, "the line has room for one");
    });
}
