//! A reader with its cached value beside a writer.
//!
//! This is the cell that stands in for `arc-swap` in the models: it checks the interface (a load
//! after a store sees it, a reader never goes back), not the shipped cell.

use std::sync::Arc;

use loom::thread;

use super::check;
use crate::snapshot::Snapshot;

#[test]
fn a_reader_sees_every_store_that_has_returned() {
    check(|| {
        let snapshot = Snapshot::new(Arc::new(0_u64));
        let mut reader = snapshot.reader();

        let writer = {
            let snapshot = snapshot.clone();
            thread::spawn(move || {
                snapshot.store(Arc::new(1));
                snapshot.store(Arc::new(2));
            })
        };
        let first = **reader.load();
        let second = **reader.load();
        writer.join().unwrap();

        assert!(first <= second, "{first} then {second}");
        assert_eq!((**reader.load(), *snapshot.load()), (2, 2));
    });
}
