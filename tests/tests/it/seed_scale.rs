//! Large data sets, memory pressure, lazily opened files and periodic flushes: the counts of the
//! persistence layer that Nephrite replaces, or a tenth of them at the small scale.
//!
//! Tests that look at the process (memory, descriptors) run in a process of their own. Each bounds
//! the growth of resident memory twice: by what the list allowed and by the store's own
//! `memory_limit`, plus [`SLACK_BYTES`] for code, stacks, ids and allocator.

use std::path::Path;

use nephrite::{
    Batch, Config, DatabaseOptions, Durability, IdRef, Ids,
    blocking::{Database, Store},
};
use nephrite_tests::{
    Scale, assert_vector,
    directories::{Kind, bytes_of},
    new_store,
    process::{alone, descriptors_below, resident_bytes, wait_until},
    roomy, seed, small, vector,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::seed_lists::bulk;

/// Growth of resident memory beyond `memory_limit` that these tests accept.
const SLACK_BYTES: u64 = 48 << 20;

fn create(store: &Store, name: &str, dimension: u32) -> Database {
    store.create_database(name, DatabaseOptions::new(dimension)).unwrap()
}

#[track_caller]
fn check(database: &Database, id: u64, stamp: u64) {
    let found = database.get(id).unwrap().unwrap_or_else(|| panic!("id {id} is not there"));
    assert_vector(&found, stamp, format_args!("id {id} of {}", database.name()));
}

fn fill(database: &Database, count: u64, batch: u64) {
    let dimension = database.dimension() as usize;
    for first in (0..count).step_by(usize::try_from(batch).unwrap()) {
        let end = count.min(first + batch);
        let rows = bulk(first..end, dimension);
        database.put_many(Ids::Consecutive(first), &rows, Durability::Buffered).unwrap();
    }
}

// The large data sets.

#[test]
fn a_hundred_thousand_single_puts_of_128() {
    let count = Scale::from_environment().pick(20_000, 100_000);
    let mut random = ChaCha8Rng::seed_from_u64(seed("100K single puts", 1));
    let (directory, store) = new_store(roomy());
    let database = create(&store, "a", 128);
    for id in 0..count {
        database.put(id, &vector(id, 128)).unwrap();
    }
    store.flush().unwrap();
    assert_eq!(database.count().unwrap(), count);
    for _ in 0..1000 {
        let id = random.random_range(0..count);
        check(&database, id, id);
    }
    store.close().unwrap();
    let bytes = bytes_of(&directory.path().join("store"), Kind::Segment);
    println!("{count} vectors of 512 bytes: {} bytes of segments each", bytes / count);
    assert!(bytes < count * 640, "{bytes} bytes of segments for {count} vectors of 512");
}

#[test]
fn a_million_vectors_over_ten_databases() {
    alone("seed_scale::a_million_vectors_over_ten_databases", || {
        let each = Scale::from_environment().pick(5_000, 100_000);
        let (directory, store) = new_store(roomy());
        let before = resident_bytes();
        for name in 0..10 {
            let database = create(&store, &format!("d{name}"), 128);
            fill(&database, each, 1000);
        }
        store.flush().unwrap();
        check_million(&store, each);
        let grown = resident_bytes().saturating_sub(before);
        println!("10 databases of {each}: memory grew by {} MiB", grown >> 20);
        assert!(grown < (64 << 20) + SLACK_BYTES, "memory grew by {grown} bytes");
        store.close().unwrap();
        let store = Store::open(directory.path().join("store"), roomy()).unwrap();
        check_million(&store, each);
        assert!(store.verify(|_| ()).unwrap().is_clean());
    });
}

fn check_million(store: &Store, each: u64) {
    for name in 0..10 {
        let database = store.database(&format!("d{name}")).unwrap();
        assert_eq!(database.count().unwrap(), each);
        for id in [0, each / 2, each - 1] {
            check(&database, id, id);
        }
        assert!(database.get(each).unwrap().is_none());
    }
}

#[test]
fn a_scan_of_fifty_thousand_vectors_of_256() {
    let count = Scale::from_environment().pick(8_000, 50_000);
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 256);
    fill(&database, count, 100);
    database.flush().unwrap();
    let mut expected = 0;
    for row in database.scan().unwrap() {
        let (id, found) = row.unwrap();
        assert_eq!(id, nephrite::Id::U64(expected));
        assert_vector(&found, expected, format_args!("id {expected}"));
        expected += 1;
    }
    assert_eq!(expected, count);
}

#[test]
fn a_tenth_of_fifty_thousand_is_updated() {
    let count = Scale::from_environment().pick(10_000, 50_000);
    let (_directory, store) = new_store(roomy());
    let database = create(&store, "a", 128);
    fill(&database, count, 1000);
    database.flush().unwrap();
    for id in (0..count).step_by(10) {
        database.update(id, &vector(id + count, 128)).unwrap();
    }
    database.flush().unwrap();
    assert_eq!(database.count().unwrap(), count);
    for id in (0..count).filter(|id| id % 10 == 0 || id % 97 == 1) {
        check(&database, id, if id % 10 == 0 { id + count } else { id });
    }
}

#[test]
fn half_of_fifty_thousand_is_deleted() {
    let count = Scale::from_environment().pick(10_000, 50_000);
    let (directory, store) = new_store(roomy());
    let database = create(&store, "a", 128);
    fill(&database, count, 1000);
    database.flush().unwrap();
    for id in (0..count).step_by(2) {
        assert!(database.delete(id).unwrap(), "{id}");
    }
    assert_eq!(database.count().unwrap(), count / 2);
    store.close().unwrap();
    let store = Store::open(directory.path().join("store"), roomy()).unwrap();
    let database = store.database("a").unwrap();
    assert_eq!(database.count().unwrap(), count / 2);
    for id in (0..count).filter(|id| id % 89 < 2) {
        let found = database.get(id).unwrap();
        assert_eq!(found.is_some(), id % 2 == 1, "{id}");
    }
    let ids: Vec<u64> = database.scan().unwrap().map(|row| number(&row.unwrap().0)).collect();
    assert!(ids.iter().copied().eq((0..count).filter(|id| id % 2 == 1)));
}

fn number(id: &nephrite::Id) -> u64 {
    match id {
        nephrite::Id::U64(id) => *id,
        nephrite::Id::Bytes(_) => panic!("the database has numbers"),
    }
}

#[test]
fn ten_thousand_vectors_at_each_dimension() {
    let count = Scale::from_environment().pick(400, 10_000);
    let (directory, store) = new_store(roomy());
    let path = directory.path().join("store");
    for dimension in [64_u32, 128, 256, 512, 1024, 2048] {
        let before = bytes_of(&path, Kind::Segment);
        let database = create(&store, &format!("d{dimension}"), dimension);
        for first in (0..count).step_by(100) {
            let mut batch = Batch::new();
            for id in first..first + 100 {
                batch.put(id, &vector(id, dimension as usize));
            }
            database.batch(batch).unwrap();
        }
        database.flush().unwrap();
        assert_eq!(database.count().unwrap(), count);
        (0..count).step_by(7).for_each(|id| check(&database, id, id));
        let bytes = (bytes_of(&path, Kind::Segment) - before) / count;
        println!("dimension {dimension}: {bytes} bytes of segments per vector");
    }
}

// Memory pressure.

/// Many databases under a limit of open files; what it measures belongs to this process.
struct Crowd {
    directory: tempfile::TempDir,
    store: Store,
    per_database: u64,
    count: u64,
    open_max: u32,
    resident_before: u64,
}

impl Crowd {
    /// `count` databases of `per_database` vectors, flushed, in a store opened anew.
    fn new(count: u64, per_database: u64, dimension: u32, open_max: u32) -> Self {
        let config = Config::new().memory_limit(32 << 20).max_open_files(open_max);
        let (directory, store) = new_store(config.clone());
        let resident_before = resident_bytes();
        for name in 0..count {
            let database = create(&store, &format!("d{name:03}"), dimension);
            fill_with(&database, name, per_database);
        }
        store.close().unwrap();
        drop(store);
        let store = Store::open(directory.path().join("store"), config).unwrap();
        Self { directory, store, per_database, count, open_max, resident_before }
    }

    fn segments(&self) -> std::path::PathBuf {
        self.directory.path().join("store/segments")
    }

    /// Reads one vector of a database.
    fn read(&self, name: u64, id: u64) {
        let database = self.store.database(&format!("d{name:03}")).unwrap();
        check(&database, id, name << 32 | id);
    }

    /// Open files and memory are within their bounds; `listed` is what the list allowed.
    #[track_caller]
    fn check_bounds(&self, listed: u64) {
        self.check_descriptors();
        let grown = resident_bytes().saturating_sub(self.resident_before);
        println!("memory grew by {} MiB", grown >> 20);
        assert!(grown < listed.min((32 << 20) + SLACK_BYTES), "memory grew by {grown} bytes");
    }

    #[track_caller]
    fn check_descriptors(&self) {
        let open = descriptors_below(&self.segments());
        let most = self.open_max as usize;
        assert!(open <= most, "{open} segment files are open where {} may be", self.open_max);
        assert!(self.store.stats().files_open <= u64::from(self.open_max));
    }

    fn is_crowded(&self) -> bool {
        0 < self.store.stats().files_evicted
    }
}

fn fill_with(database: &Database, name: u64, count: u64) {
    let first = name << 32;
    let rows = bulk(first..first + count, database.dimension() as usize);
    database.put_many(Ids::Consecutive(0), &rows, Durability::Buffered).unwrap();
}

#[test]
fn a_hundred_and_fifty_databases_with_fifty_open() {
    alone("seed_scale::a_hundred_and_fifty_databases_with_fifty_open", || {
        let mut random = ChaCha8Rng::seed_from_u64(seed("150 databases", 2));
        let crowd = Crowd::new(150, 100, 128, 50);
        let mut order: Vec<u64> = (0..150).collect();
        for _ in 0..3 {
            (1..150).rev().for_each(|at| order.swap(at, random.random_range(0..=at)));
            for name in &order {
                crowd.read(*name, random.random_range(0..crowd.per_database));
            }
            crowd.check_descriptors();
        }
        assert!(crowd.is_crowded());
        crowd.check_bounds(500 << 20);
    });
}

#[test]
fn ten_thousand_accesses_of_which_80_percent_hit_five_databases() {
    alone("seed_scale::ten_thousand_accesses_of_which_80_percent_hit_five_databases", || {
        let mut random = ChaCha8Rng::seed_from_u64(seed("80/20", 3));
        let crowd = Crowd::new(100, 50, 256, 20);
        for access in 0..10_000 {
            let hot = random.random_range(0..100) < 80;
            let name = random.random_range(0..if hot { 5 } else { 100 });
            crowd.read(name, random.random_range(0..crowd.per_database));
            if access % 500 == 0 {
                crowd.check_descriptors();
            }
        }
        crowd.check_bounds(200 << 20);
    });
}

#[test]
fn five_rounds_over_fifty_databases_of_4096() {
    alone("seed_scale::five_rounds_over_fifty_databases_of_4096", || {
        let crowd = Crowd::new(50, 100, 4096, 10);
        for round in 0..5 {
            for name in 0..crowd.count {
                (round..crowd.per_database).step_by(20).for_each(|id| crowd.read(name, id));
            }
            crowd.check_descriptors();
        }
        assert!(crowd.is_crowded());
        crowd.check_bounds(500 << 20);
    });
}

#[test]
fn eight_threads_read_eighty_databases_with_fifteen_open() {
    alone("seed_scale::eight_threads_read_eighty_databases_with_fifteen_open", || {
        let seed = seed("8 threads, 80 databases", 4);
        let crowd = Crowd::new(80, 50, 128, 15);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let crowd = &crowd;
                scope.spawn(move || {
                    let mut random = ChaCha8Rng::seed_from_u64(seed ^ thread << 32);
                    for _ in 0..1000 {
                        crowd.read(random.random_range(0..80), random.random_range(0..50));
                    }
                });
            }
        });
        crowd.check_bounds(300 << 20);
    });
}

#[test]
fn sweeps_forward_and_back_over_a_hundred_databases_with_five_open() {
    alone("seed_scale::sweeps_forward_and_back_over_a_hundred_databases_with_five_open", || {
        let crowd = Crowd::new(100, 10, 64, 5);
        for name in (0..crowd.count).chain((0..crowd.count).rev()) {
            (0..crowd.per_database).for_each(|id| crowd.read(name, id));
        }
        assert!(crowd.is_crowded());
        crowd.check_bounds(200 << 20);
    });
}

#[test]
fn ten_cycles_over_fifty_databases_do_not_drift() {
    alone("seed_scale::ten_cycles_over_fifty_databases_do_not_drift", || {
        let crowd = Crowd::new(50, 100, 256, 25);
        let cycle = || {
            for name in 0..crowd.count {
                (0..crowd.per_database).step_by(9).for_each(|id| crowd.read(name, id));
            }
            resident_bytes()
        };
        let first = cycle();
        let last = (1..10).fold(first, |_, _| cycle());
        let drift = last.saturating_sub(first);
        println!("memory drifted by {} KiB over 9 cycles", drift >> 10);
        assert!(drift < 16 << 20, "memory drifted by {drift} bytes");
        crowd.check_bounds(200 << 20);
    });
}

// Lazily opened files.

#[test]
fn files_are_opened_when_they_are_used_and_no_more_than_allowed() {
    let config = small().max_open_files(5);
    let (directory, store) = new_store(config.clone());
    let dimensions: Vec<u32> = (1..9).map(|at| at * 64).collect();
    for dimension in &dimensions {
        let database = create(&store, &format!("d{dimension}"), *dimension);
        fill_with(&database, 0, 30);
    }
    store.close().unwrap();
    let store = Store::open(directory.path().join("store"), config).unwrap();
    assert_eq!(store.stats().files_opened, 0, "nothing was used so far");
    assert_eq!(store.stats().databases_open, 0);
    for (used, dimension) in (1..).zip(&dimensions[..5]) {
        check(&store.database(&format!("d{dimension}")).unwrap(), 7, 7);
        assert_eq!(store.stats().files_opened, used);
        assert_eq!(store.stats().files_open, used);
    }
    for dimension in &dimensions {
        check(&store.database(&format!("d{dimension}")).unwrap(), 8, 8);
        assert!(store.stats().files_open <= 5);
    }
    assert!(3 <= store.stats().files_evicted);
    // Flushes work with more databases than files.
    for dimension in &dimensions {
        let database = store.database(&format!("d{dimension}")).unwrap();
        database.put(100, &vector(100, *dimension as usize)).unwrap();
    }
    store.flush().unwrap();
    for dimension in &dimensions {
        check(&store.database(&format!("d{dimension}")).unwrap(), 100, 100);
    }
    assert!(store.stats().files_open <= 5);
}

// Periodic flushes.

#[test]
fn a_flush_comes_by_itself_after_the_interval() {
    let config = small().flush_interval(std::time::Duration::from_millis(50));
    let (directory, store) = new_store(config);
    let path = directory.path().join("store");
    let database = create(&store, "a", 64);
    for cycle in 1..=3 {
        database.put(cycle, &vector(cycle, 64)).unwrap();
        wait_until("the interval has passed", || cycle <= store.stats().flushes);
        assert!(0 < bytes_of(&path, Kind::Segment));
    }
    assert_eq!(database.stats().unwrap().memtables, 0);
}

#[test]
fn without_an_interval_nothing_is_flushed_until_close() {
    let (directory, store) = new_store(small().flush_interval(std::time::Duration::ZERO));
    let path = directory.path().join("store");
    let database = create(&store, "a", 64);
    database.put(1, &vector(1, 64)).unwrap();
    assert_eq!(store.stats().flushes, 0);
    assert_eq!(bytes_of(&path, Kind::Segment), 0);
    store.close().unwrap();
    assert!(0 < bytes_of(&path, Kind::Segment));
    drop((database, store));
    check_reopened(&path);
    check_reopened(&path);
}

/// Opens and closes it again.
fn check_reopened(path: &Path) {
    let store = Store::open(path, small()).unwrap();
    let database = store.database("a").unwrap();
    let found = database.get_many(&[IdRef::U64(1), IdRef::U64(2)]).unwrap();
    assert_vector(found[0].as_ref().unwrap(), 1, "id 1");
    assert!(found[1].is_none());
    drop(found);
    store.close().unwrap();
}
