//! What the program around the engine does to it: memory that it cannot have, and panics with a
//! vector in its hands.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nephrite::{Config, DatabaseOptions, Durability, Error, Ids, blocking::Store};
use nephrite_tests::{assert_vector, new_store, process, vector};

#[test]
fn a_cache_that_the_system_refuses_is_an_error_and_a_smaller_one_serves() {
    process::alone(
        "refused::a_cache_that_the_system_refuses_is_an_error_and_a_smaller_one_serves",
        || {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("store");
            let config = |bytes| Config::new().memory_limit(bytes);
            process::limit_address_space(8 << 30).unwrap();

            let refused = Store::create(&path, config(64 << 30)).unwrap_err();
            assert!(matches!(refused, Error::Cache { .. }), "{refused:?}");

            // The same process goes on with less, in the same place.
            let store = Store::open_or_create(&path, config(64 << 20)).unwrap();
            let database = store.create_database("vectors", DatabaseOptions::new(8)).unwrap();
            database.put_with(1, &vector(1, 8), Durability::Synced).unwrap();
            store.close().unwrap();
            Store::open(&path, config(64 << 30)).unwrap_err();
            let store = Store::open(&path, config(64 << 20)).unwrap();
            let found = store.database("vectors").unwrap().get(1).unwrap().unwrap();
            assert_vector(&found, 1, "id 1");
        },
    );
}

#[test]
fn a_panic_while_a_vector_is_held_gives_its_frame_back() {
    const ROWS: u64 = 20_000;
    let (_directory, store) = new_store(Config::new().memory_limit(8 << 20));
    let database = store.create_database("vectors", DatabaseOptions::new(64)).unwrap();
    for first in (0..ROWS).step_by(2000) {
        let rows: Vec<f32> = (first..first + 2000).flat_map(|id| vector(id, 64)).collect();
        database.put_many(Ids::Consecutive(first), &rows, Durability::Buffered).unwrap();
    }
    database.flush().unwrap();

    for id in 0..200 {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let held = database.get(id * 100).unwrap().unwrap();
            std::panic::resume_unwind(Box::new(held[0]));
        }));
        assert!(panicked.is_err());
    }

    assert_eq!(store.stats().pages_pinned, 0);
    for id in (0..ROWS).step_by(37) {
        assert_vector(&database.get(id).unwrap().unwrap(), id, format_args!("id {id}"));
    }
}
