//! Memory of the memtables that the cache has while nobody writes.

use nephrite::{
    Config, DatabaseOptions, Durability, IdRef, Ids, VectorRef,
    blocking::{Database, Store},
};

use crate::support::{backend, new_store, vector};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 40 * MIB;
const DIMENSION: usize = 128;
/// Vectors in a batch, and those that fill 32 MiB.
const BATCH: u64 = 1000;
const ALL: u64 = 64_000;

fn lending() -> Config {
    Config::new().memory_limit(LIMIT).backend(backend())
}

/// Puts vectors of these ids, looking at the memory after each batch; the least that the cache had.
fn put(store: &Store, database: &Database, ids: std::ops::Range<u64>) -> u64 {
    let mut least = u64::MAX;
    for first in ids.step_by(usize::try_from(BATCH).unwrap()) {
        let rows: Vec<f32> =
            (first..first + BATCH).flat_map(|id| vector(id % ALL, DIMENSION)).collect();
        let ids: Vec<u64> = (first..first + BATCH).map(|id| id % ALL).collect();
        database.put_many(Ids::U64(&ids), &rows, Durability::Buffered).unwrap();
        let stats = store.stats();
        assert!(stats.memory_bytes() <= LIMIT + 3 * MIB, "{stats:?}");
        least = least.min(stats.cache_bytes);
    }
    least
}

fn read_all(database: &Database) {
    for id in (0..ALL).step_by(7) {
        assert_eq!(**database.get(id).unwrap().as_ref().unwrap(), vector(id, DIMENSION), "{id}");
    }
}

#[test]
fn the_cache_has_what_writers_do_not_use() {
    let (_directory, store) = new_store(lending());
    let database = store.create_database("all", DatabaseOptions::new(128)).unwrap();
    let cache = || store.stats().cache_bytes;
    let lent = LIMIT / 8 * 5;
    let least = put(&store, &database, 0..ALL);
    assert!(least <= LIMIT / 2, "{least} beside writers");

    for _ in 0..2 {
        database.compact().unwrap();
        // The compaction that has just answered may still be about to rest.
        for _ in 0..20 {
            store.flush().unwrap();
            read_all(&database);
            if lent < cache() {
                break;
            }
        }
        assert!(lent < cache(), "{} when all was read", cache());
        let least = put(&store, &database, 0..ALL / 2);
        assert!(least <= LIMIT / 2, "{least} beside writers of a full cache");
        read_all(&database);
    }
}

/// A batch was looked at when it had come, so all of it lay beside a full loan until the next one.
#[test]
fn a_large_batch_has_its_memory_before_it_is_written() {
    let (_directory, store) = new_store(lending());
    let database = store.create_database("all", DatabaseOptions::new(128)).unwrap();
    put(&store, &database, 0..ALL);
    for _ in 0..20 {
        database.compact().unwrap();
        store.flush().unwrap();
        read_all(&database);
        if LIMIT / 8 * 5 < store.stats().cache_bytes {
            break;
        }
    }
    let before = store.stats();
    assert!(LIMIT / 8 * 5 < before.cache_bytes, "{before:?}");

    let ids: Vec<u64> = (0..9000).collect();
    let rows: Vec<f32> = ids.iter().flat_map(|id| vector(*id, DIMENSION)).collect();
    database.put_many(Ids::U64(&ids), &rows, Durability::Buffered).unwrap();

    let stats = store.stats();
    assert_eq!(stats.flushes, before.flushes, "a flush lends");
    assert!(stats.cache_bytes <= LIMIT / 2 && stats.memory_bytes() <= LIMIT, "{stats:?}");
}

#[test]
fn writers_get_on_while_somebody_holds_what_lies_in_the_loan() {
    let (_directory, store) = new_store(lending());
    let database = store.create_database("all", DatabaseOptions::new(128)).unwrap();
    put(&store, &database, 0..ALL);
    database.compact().unwrap();
    store.flush().unwrap();
    read_all(&database);
    let ids: Vec<u64> = (0..ALL).step_by(64).collect();
    let wanted: Vec<IdRef<'_>> = ids.iter().copied().map(IdRef::U64).collect();
    let held: Vec<VectorRef> =
        wanted.chunks(100).flat_map(|ids| database.get_many(ids).unwrap()).flatten().collect();

    put(&store, &database, 0..ALL);

    for (id, held) in ids.iter().zip(&held) {
        assert_eq!(**held, vector(*id, DIMENSION));
    }
    drop(held);
    put(&store, &database, 0..ALL / 2);
    assert!(store.stats().cache_bytes <= LIMIT / 2 + 2 * MIB);
}
