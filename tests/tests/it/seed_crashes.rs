//! The crash list of the persistence layer that Nephrite replaces, with its counts, on images of
//! the directory of an open store (what SIGKILL leaves). The kill loop does it with real kills.

use std::path::PathBuf;

use nephrite::{
    DatabaseOptions, Durability,
    blocking::{Database, Store},
};
use nephrite_tests::{
    assert_vector, directories::crash_image, new_store, read_stamp, small, vector,
};
use tempfile::TempDir;

/// A store that will crash.
struct Doomed {
    directory: TempDir,
    store: Store,
}

impl Doomed {
    fn new() -> Self {
        let (directory, store) = new_store(small());
        Self { directory, store }
    }

    fn database(&self, name: &str, dimension: u32) -> Database {
        self.store.create_database(name, DatabaseOptions::new(dimension)).unwrap()
    }

    /// What is there after a crash now; opened, while the original still runs.
    fn crash(&self) -> Store {
        let image: PathBuf = self.directory.path().join("image");
        crash_image(&self.directory.path().join("store"), &image);
        let store = Store::open(image, small()).unwrap();
        assert!(store.verify(|_| ()).unwrap().is_clean());
        store
    }
}

fn put(database: &Database, ids: std::ops::Range<u64>) {
    for id in ids {
        database.put(id, &vector(id, database.dimension() as usize)).unwrap();
    }
}

/// All of `ids` are there, and whatever else is there is whole; returns the count.
#[track_caller]
fn check(database: &Database, ids: std::ops::Range<u64>) -> u64 {
    for id in ids {
        let found = database.get(id).unwrap().unwrap_or_else(|| panic!("id {id} is lost"));
        assert_vector(&found, id, format_args!("id {id}"));
    }
    let mut count = 0;
    for row in database.scan().unwrap() {
        let (id, found) = row.unwrap();
        assert_eq!(nephrite::Id::U64(read_stamp(&found).unwrap()), id);
        count += 1;
    }
    assert_eq!(database.count().unwrap(), count);
    count
}

#[test]
fn fifty_flushed_and_twenty_not_leave_50_to_70() {
    let doomed = Doomed::new();
    let database = doomed.database("a", 128);
    put(&database, 0..50);
    database.flush().unwrap();
    put(&database, 50..70);
    let count = check(&doomed.crash().database("a").unwrap(), 0..50);
    assert!((50..=70).contains(&count), "{count}");
}

#[test]
fn a_flush_every_ten_of_a_hundred_leaves_at_least_90() {
    let doomed = Doomed::new();
    let database = doomed.database("a", 256);
    for ten in 0..10 {
        put(&database, ten * 10..ten * 10 + 10);
        if ten < 9 {
            database.flush().unwrap();
        }
    }
    let count = check(&doomed.crash().database("a").unwrap(), 0..90);
    assert!((90..=100).contains(&count), "{count}");
}

#[test]
fn dimension_and_count_are_intact() {
    let doomed = Doomed::new();
    let database = doomed.database("a", 384);
    put(&database, 0..9);
    database.put_with(9, &vector(9, 384), Durability::Synced).unwrap();
    let store = doomed.crash();
    let database = store.database("a").unwrap();
    assert_eq!(database.dimension(), 384);
    assert_eq!(check(&database, 0..10), 10);
}

#[test]
fn of_five_databases_the_flushed_ones_are_whole() {
    let doomed = Doomed::new();
    let dimensions = [64, 128, 256, 512, 1024];
    for (at, dimension) in dimensions.into_iter().enumerate() {
        let database = doomed.database(&format!("d{dimension}"), dimension);
        put(&database, 0..20);
        if at % 2 == 0 {
            database.flush().unwrap();
        }
    }
    let store = doomed.crash();
    for (at, dimension) in dimensions.into_iter().enumerate() {
        let database = store.database(&format!("d{dimension}")).unwrap();
        assert_eq!(database.dimension(), dimension);
        let count = check(&database, 0..if at % 2 == 0 { 20 } else { 0 });
        assert!(count <= 20, "{count}");
    }
}

#[test]
fn a_hundred_flushed_survive_four_threads_in_mid_write() {
    let doomed = Doomed::new();
    let database = doomed.database("a", 128);
    put(&database, 0..100);
    database.flush().unwrap();
    let image = std::thread::scope(|scope| {
        for thread in 0..4 {
            let database = &database;
            scope.spawn(move || put(database, 100 + thread * 25..100 + (thread + 1) * 25));
        }
        doomed.crash()
    });
    let count = check(&image.database("a").unwrap(), 0..100);
    assert!((100..=200).contains(&count), "{count}");
}

#[test]
fn deletes_that_were_not_flushed_leave_25_to_50() {
    let doomed = Doomed::new();
    let database = doomed.database("a", 64);
    put(&database, 0..50);
    database.flush().unwrap();
    (25..50_u64).for_each(|id| assert!(database.delete(id).unwrap()));
    let store = doomed.crash();
    let database = store.database("a").unwrap();
    assert_eq!(database.dimension(), 64);
    let count = check(&database, 0..25);
    assert!((25..=50).contains(&count), "{count}");
}

#[test]
fn a_hundred_flushed_of_512_are_bit_exact() {
    let doomed = Doomed::new();
    let database = doomed.database("a", 512);
    put(&database, 0..100);
    database.flush().unwrap();
    put(&database, 100..120);
    let count = check(&doomed.crash().database("a").unwrap(), 0..100);
    assert!((100..=120).contains(&count), "{count}");
}

#[test]
fn a_crash_while_a_database_is_compacted_loses_nothing() {
    let doomed = Doomed::new();
    let database = doomed.database("a", 64);
    let mut images = Vec::new();
    for round in 0..40_u64 {
        put(&database, round * 20..round * 20 + 400);
        database.flush().unwrap();
        if round % 4 == 3 {
            let image = doomed.directory.path().join(format!("image {round}"));
            crash_image(&doomed.directory.path().join("store"), &image);
            images.push((round, image));
        }
    }
    assert!(0 < doomed.store.stats().compactions, "compactions ran meanwhile");
    for (round, image) in images {
        let store = Store::open(image, small()).unwrap();
        let count = check(&store.database("a").unwrap(), 0..round * 20 + 400);
        assert_eq!(count, round * 20 + 400);
    }
}
