//! Thousands of databases in one store with few files and little memory: made, opened again, read
//! at random, updated, closed. The full scale is ten thousand of a hundred vectors.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use nephrite::{Config, DatabaseOptions, Durability, Ids, blocking::Store};
use nephrite_tests::{
    Scale, assert_vector, new_store,
    process::{alone, descriptors_below, resident_bytes_max},
    seed, vector,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DIMENSION: usize = 128;
const PER_DATABASE: u64 = 100;
const FILES: u32 = 64;
const MEMORY: u64 = 256 << 20;
/// Code, stacks, names, allocator.
const SLACK: u64 = 32 << 20;

fn config() -> Config {
    Config::new().memory_limit(MEMORY).max_open_files(FILES)
}

fn name(number: u64) -> String {
    format!("database {number:05}")
}

/// What is stored under an id after `updates` of the database.
fn stamp(database: u64, id: u64, updated: bool) -> u64 {
    database << 20 | id << 1 | u64::from(updated)
}

/// Counts the descriptors on files of the store again and again while `work` runs.
fn sampled(directory: &Path, work: impl FnOnce()) {
    let (done, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                most.fetch_max(descriptors_below(directory), Ordering::Relaxed);
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        work();
        done.store(true, Ordering::Release);
    });
    let most = most.into_inner();
    println!("at most {most} files of the store were open");
    assert!(most <= FILES as usize, "{most} files were open where {FILES} may be");
}

fn create(store: &Store, count: u64) {
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for number in (thread..count).step_by(8) {
                    let options = DatabaseOptions::new(u32::try_from(DIMENSION).unwrap());
                    let database = store.create_database(&name(number), options).unwrap();
                    let rows: Vec<f32> = (0..PER_DATABASE)
                        .flat_map(|id| vector(stamp(number, id, false), DIMENSION))
                        .collect();
                    database.put_many(Ids::Consecutive(0), &rows, Durability::Buffered).unwrap();
                }
            });
        }
    });
}

fn check(store: &Store, number: u64, id: u64, updated: bool) {
    let database = store.database(&name(number)).unwrap();
    let found = database.get(id).unwrap().unwrap_or_else(|| panic!("{number}: id {id} is gone"));
    assert_vector(&found, stamp(number, id, updated), format_args!("id {id} of {number}"));
}

/// Which id of a database is updated.
fn updated_id(number: u64) -> u64 {
    number % PER_DATABASE
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a time that is printed, not one that decides")]
fn thousands_of_databases_stay_within_files_and_memory() {
    alone("many_databases::thousands_of_databases_stay_within_files_and_memory", || {
        let count = Scale::from_environment().pick(500, 10_000);
        let seed = seed("many databases", 5);
        let (directory, store) = new_store(config());
        let path = directory.path().join("store");
        sampled(&path, || {
            create(&store, count);
            store.close().unwrap();
        });
        drop(store);
        let opened = Instant::now();
        let store = Store::open(&path, config()).unwrap();
        println!("open took {:?} with {count} databases", opened.elapsed());
        assert_eq!(store.list().len() as u64, count);
        sampled(&path, || {
            let store = &store;
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    scope.spawn(move || {
                        let mut random = ChaCha8Rng::seed_from_u64(seed ^ thread << 32);
                        for _ in 0..count / 2 {
                            let id = random.random_range(0..PER_DATABASE);
                            check(store, random.random_range(0..count), id, false);
                        }
                    });
                }
            });
            for number in 0..count {
                let database = store.database(&name(number)).unwrap();
                let id = updated_id(number);
                database.put(id, &vector(stamp(number, id, true), DIMENSION)).unwrap();
            }
            store.close().unwrap();
        });
        let stats = store.stats();
        println!(
            "{} files opened, {} databases closed",
            stats.files_opened, stats.databases_closed
        );
        drop(store);
        let store = Store::open(&path, config()).unwrap();
        for number in 0..count {
            check(&store, number, updated_id(number), true);
            check(&store, number, (updated_id(number) + 1) % PER_DATABASE, false);
        }
        assert!(store.stats().databases_closed > 0 || count < 1024);
        let most = resident_bytes_max();
        println!("at most {} MiB were resident", most >> 20);
        assert!(most <= MEMORY + SLACK, "{most} bytes were resident at a limit of {MEMORY}");
    });
}

/// Memtables whose rows are written ahead keep their files open; more of them than files may be.
#[test]
fn more_files_under_construction_than_may_be_open() {
    alone("many_databases::more_files_under_construction_than_may_be_open", || {
        let config = Config::new().memory_limit(256 << 20).max_open_files(8);
        let (directory, store) = new_store(config.clone());
        let path = directory.path().join("store");
        let names: Vec<String> = (0..24).map(name).collect();
        let rows: Vec<f32> = (0..1000).flat_map(|id| vector(id, DIMENSION)).collect();
        let databases: Vec<_> = names
            .iter()
            .map(|name| store.create_database(name, DatabaseOptions::new(128)).unwrap())
            .collect();
        for round in 0..6 {
            for database in &databases {
                let ids = Ids::Consecutive(round * 1000);
                database.put_many(ids, &rows, Durability::Buffered).unwrap();
                let open = descriptors_below(&path.join("segments"));
                assert!(open <= 5, "{open} segment files are open");
            }
        }
        assert!(store.stats().files_parked > 0, "some were closed while they were written");
        databases[3].put_with(1 << 40, &vector(7, DIMENSION), Durability::Synced).unwrap();
        store.close().unwrap();
        drop(store);
        let store = Store::open(&path, config).unwrap();
        for name in &names {
            let database = store.database(name).unwrap();
            for id in (0..6000).step_by(501) {
                let found = database.get(id).unwrap().unwrap();
                assert_vector(&found, id % 1000, format_args!("id {id} of {name}"));
            }
        }
        assert!(store.verify(|_| ()).unwrap().is_clean());
    });
}

#[test]
fn a_segment_file_that_was_exchanged_is_noticed_when_it_is_opened_again() {
    let config = Config::new().memory_limit(4 << 20).max_open_files(5);
    let (directory, store) = new_store(config);
    let segments = directory.path().join("store/segments");
    for number in 0..8 {
        let database = store.create_database(&name(number), DatabaseOptions::new(128)).unwrap();
        for id in 0..2000 {
            database.put(id, &vector(id, DIMENSION)).unwrap();
        }
        database.flush().unwrap();
    }
    let databases: Vec<_> = (0..8).map(|number| store.database(&name(number)).unwrap()).collect();
    for entry in std::fs::read_dir(&segments).unwrap() {
        // The same bytes under the same name, but another file.
        let path = entry.unwrap().path();
        let copy = path.with_extension("copy");
        if std::fs::copy(&path, &copy).is_ok() {
            std::fs::rename(&copy, &path).unwrap();
        } // else it was compacted meanwhile
    }
    let mut refused = 0;
    for id in 0..2000 {
        for database in &databases {
            match database.get(id) {
                Ok(found) => assert_vector(&found.unwrap(), id, format_args!("id {id}")),
                Err(error) => {
                    assert!(error.to_string().contains("another file"), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 0, "files were opened again");
}
