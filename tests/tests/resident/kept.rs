//! Vectors that stayed in memory when their pages went are read like those of resident pages.

use nephrite::{
    Config, DatabaseOptions, Durability, Ids,
    blocking::{Database, Store},
};

use super::{DIMENSION, LEN, allocations_while, check};

/// Eight times the cache, which is half of the limit of 16 MiB.
const ROWS: usize = 131_072;
const POPULAR: usize = 2_000;
const ROUNDS_MAX: usize = 20;

fn filled(directory: &tempfile::TempDir) -> (Store, Database) {
    let config = Config::new().memory_limit(16 << 20).memtable_bytes(4 << 20);
    let store = Store::create(directory.path().join("store"), config).unwrap();
    let database = store.create_database("kept", DatabaseOptions::new(DIMENSION)).unwrap();
    for start in (0..ROWS).step_by(4096) {
        let mut vectors = vec![0.0; 4096 * LEN];
        for (row, vector) in (start..).zip(vectors.chunks_exact_mut(LEN)) {
            vector.fill(row as f32);
        }
        let ids = Ids::Consecutive(start as u64);
        database.put_many(ids, &vectors, Durability::Buffered).unwrap();
    }
    store.flush().unwrap();
    (store, database)
}

fn read(database: &Database, row: usize) {
    check(row, database.get(row as u64).unwrap());
}

/// A popular row on a page of its own.
fn popular(number: usize) -> usize {
    let number = number % POPULAR;
    number * (ROWS / POPULAR) + number % 8
}

/// Reads popular rows, and as many others, until one is found without its page: that one.
fn kept_row(store: &Store, database: &Database) -> usize {
    for round in 0..ROUNDS_MAX {
        for step in 0..POPULAR {
            read(database, popular(step * 7));
            read(database, (round * POPULAR + step) * 40_503 % ROWS);
        }
        if store.stats().cache_record_bytes == 0 {
            continue;
        }
        for number in 0..POPULAR {
            let before = store.stats().cache_record_hits;
            read(database, popular(number));
            if before < store.stats().cache_record_hits {
                return popular(number);
            }
        }
    }
    panic!("no vector outlived its page: {:?}", store.stats());
}

#[test]
fn a_vector_without_its_page_is_read_alike() {
    let directory = tempfile::tempdir().unwrap();
    let (store, database) = filled(&directory);
    let row = kept_row(&store, &database);
    (0..4).for_each(|_| read(&database, row)); // uses are counted up to three

    let before = store.stats();
    assert_eq!(allocations_while(|| read(&database, row)), 0);
    #[cfg(target_arch = "x86_64")]
    {
        let locked = super::steps::locked_while(|| read(&database, row)) as u64;
        assert_eq!(locked, super::LOCKED_BY_VERSION + super::LOCKED_BY_PAGE);
    }

    let after = store.stats();
    let reads = if cfg!(target_arch = "x86_64") { 2 } else { 1 };
    assert_eq!(after.cache_record_hits - before.cache_record_hits, reads);
    assert_eq!(after.io.reads, before.io.reads);
}
