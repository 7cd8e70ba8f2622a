//! Storing, reading, updating, deleting, batches, several databases, restart, concurrent access:
//! the unit and integration lists of the persistence layer that Nephrite replaces, with their
//! counts. All comparisons are of bits. What bad input must do: `input`.

mod input;

use std::path::Path;

use nephrite::{
    Batch, DatabaseOptions, Durability, Error, IdKind, IdRef, Ids,
    blocking::{Database, Store},
};
use nephrite_tests::{
    assert_vector,
    directories::{Kind, files_of},
    new_store, same_bits, small, vector,
};

fn create(store: &Store, name: &str, dimension: u32) -> Database {
    store.create_database(name, DatabaseOptions::new(dimension)).unwrap()
}

fn named(store: &Store, name: &str, dimension: u32) -> Database {
    let options = DatabaseOptions::new(dimension).id_kind(IdKind::Bytes);
    store.create_database(name, options).unwrap()
}

#[track_caller]
fn check(database: &Database, id: u64, stamp: u64) {
    let found = database.get(id).unwrap().unwrap_or_else(|| panic!("id {id} is not there"));
    assert_eq!(found.len(), database.dimension() as usize);
    assert_vector(&found, stamp, format_args!("id {id} of {}", database.name()));
}

fn reopen(path: &Path, store: &Store) -> Store {
    store.close().unwrap();
    Store::open(path, small()).unwrap()
}

pub(crate) fn bulk(stamps: std::ops::Range<u64>, dimension: usize) -> Vec<f32> {
    stamps.flat_map(|stamp| vector(stamp, dimension)).collect()
}

// The unit list.

#[test]
fn a_new_database_has_its_dimension_and_is_empty() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 384);
    assert_eq!(database.dimension(), 384);
    assert_eq!(database.name(), "a");
    assert_eq!(database.id_kind(), IdKind::U64);
    assert_eq!(database.count().unwrap(), 0);
    assert!(database.scan().unwrap().next().is_none());
    let listed = store.list();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].dimension), ("a", 384));
}

#[test]
fn a_stored_vector_of_128_is_read_back() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 128);
    database.put(1, &vector(1, 128)).unwrap();
    check(&database, 1, 1);
    assert_eq!(database.count().unwrap(), 1);
    assert!(database.contains(1).unwrap());
}

#[test]
fn an_update_of_64_replaces_and_the_count_stays() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 64);
    database.put(1, &[1.0; 64]).unwrap();
    database.update(1, &[2.0; 64]).unwrap();
    assert!(same_bits(&database.get(1).unwrap().unwrap(), &[2.0; 64]));
    assert_eq!(database.count().unwrap(), 1);
    database.put(1, &[3.0; 64]).unwrap();
    assert!(same_bits(&database.get(1).unwrap().unwrap(), &[3.0; 64]));
    assert_eq!(database.count().unwrap(), 1);
}

#[test]
fn a_deleted_vector_of_32_is_gone() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 32);
    database.put(1, &vector(1, 32)).unwrap();
    assert!(database.delete(1).unwrap());
    assert_eq!(database.count().unwrap(), 0);
    assert!(database.get(1).unwrap().is_none());
    assert!(!database.contains(1).unwrap());
    assert!(!database.delete(1).unwrap());
    assert!(matches!(database.update(1, &vector(2, 32)), Err(Error::NotFound { .. })));
}

#[test]
fn ten_vectors_of_256_keep_apart() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 256);
    for id in 0..10 {
        database.put(id, &vector(id + 100, 256)).unwrap();
    }
    (0..10).for_each(|id| check(&database, id, id + 100));
    assert_eq!(database.count().unwrap(), 10);
}

#[test]
fn a_batch_of_20_times_64_is_stored() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 64);
    let mut batch = Batch::new();
    (0..20_u64).for_each(|id| batch.put(id, &vector(id, 64)));
    assert_eq!(batch.len(), 20);
    database.batch(batch).unwrap();
    (0..20).for_each(|id| check(&database, id, id));
    assert_eq!(database.count().unwrap(), 20);
}

#[test]
fn many_reads_keep_the_order_and_tell_the_missing() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 128);
    for id in [1, 2, 4] {
        database.put(id, &vector(id, 128)).unwrap();
    }
    for _ in 0..2 {
        let ids = [4, 3, 1, 2].map(IdRef::U64);
        let found = database.get_many(&ids).unwrap();
        assert_eq!(found.len(), 4);
        assert!(found[1].is_none());
        for (at, stamp) in [(0, 4), (2, 1), (3, 2)] {
            assert_vector(found[at].as_ref().unwrap(), stamp, format_args!("place {at}"));
        }
        drop(found);
        database.flush().unwrap();
    }
}

#[test]
fn many_reads_may_ask_for_an_id_twice() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 16);
    for version in 0..3_u64 {
        for id in (version..300).step_by(2) {
            database.put(id, &vector(version << 16 | id, 16)).unwrap();
        }
        let newest = |id: u64| (0..=version).rev().find(|v| *v <= id && (id - v).is_multiple_of(2));
        for flushed in [false, true] {
            if flushed {
                database.flush().unwrap();
            }
            // Few ids are looked up one by one, many by a walk through the index.
            let few = [7, 8, 7, 7, 299, 8, 400, 400, 0, 299];
            let ids: Vec<u64> = few.into_iter().chain((0..120).map(|at| at * 7 % 40)).collect();
            let ids = if version == 1 { &few } else { &ids[..] };
            let asked: Vec<IdRef<'_>> = ids.iter().map(|id| IdRef::U64(*id)).collect();
            let found = database.get_many(&asked).unwrap();
            for (id, found) in ids.iter().copied().zip(found) {
                let expected = newest(id).filter(|_| id < 300).map(|v| v << 16 | id);
                let stamp = found.map(|found| nephrite_tests::read_stamp(&found).unwrap());
                assert_eq!(stamp, expected, "id {id}, version {version}, flushed {flushed}");
            }
        }
    }
}

#[test]
fn a_flushed_vector_of_384_is_there_after_reopening() {
    let (directory, store) = new_store(small());
    let database = create(&store, "a", 384);
    database.put(1, &[2.625; 384]).unwrap();
    store.flush().unwrap();
    let store = reopen(&directory.path().join("store"), &store);
    let database = store.database("a").unwrap();
    assert_eq!(database.dimension(), 384);
    assert!(same_bits(&database.get(1).unwrap().unwrap(), &[2.625; 384]));
}

#[test]
fn a_dropped_database_of_256_is_gone() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 256);
    database.put(1, &vector(1, 256)).unwrap();
    store.drop_database("a").unwrap();
    assert!(store.list().is_empty());
    assert!(matches!(store.database("a"), Err(Error::DatabaseNotFound { .. })));
    assert!(matches!(database.get(1), Err(Error::DatabaseNotFound { .. })));
    assert!(matches!(store.drop_database("a"), Err(Error::DatabaseNotFound { .. })));
}

#[test]
fn a_vector_of_128_is_refused_where_256_belong() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 256);
    let wrong = vector(1, 128);
    let refused = |outcome: Result<(), Error>| {
        assert!(
            matches!(outcome, Err(Error::Dimension { expected: 256, found: 128 })),
            "{outcome:?}"
        );
    };
    refused(database.put(1, &wrong));
    refused(database.update(1, &wrong));
    let mut batch = Batch::new();
    batch.put(1, &vector(1, 256));
    batch.put(2, &wrong);
    refused(database.batch(batch));
    assert!(database.put_many(Ids::Consecutive(0), &wrong, Durability::Buffered).is_err());
    assert!(database.put(1, &[]).is_err());
    assert_eq!(database.count().unwrap(), 0);
}

#[test]
fn a_missing_id_is_none() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 128);
    assert!(database.get(404).unwrap().is_none());
    database.put(1, &vector(1, 128)).unwrap();
    database.flush().unwrap();
    for id in [0, 2, 404, u64::MAX] {
        assert!(database.get(id).unwrap().is_none(), "{id}");
        assert!(!database.contains(id).unwrap(), "{id}");
    }
}

#[test]
fn three_databases_of_128_256_512_do_not_mix() {
    let (_directory, store) = new_store(small());
    for (name, dimension) in [("a", 128), ("b", 256), ("c", 512)] {
        create(&store, name, dimension)
            .put(1, &vector(u64::from(dimension), dimension as usize))
            .unwrap();
    }
    for (name, dimension) in [("a", 128), ("b", 256), ("c", 512)] {
        check(&store.database(name).unwrap(), 1, dimension);
    }
    assert_eq!(store.list().iter().map(|it| it.dimension).collect::<Vec<_>>(), [128, 256, 512]);
}

// The integration list.

#[test]
fn a_hundred_vectors_of_128_persist_over_a_restart() {
    let (directory, store) = new_store(small());
    let database = named(&store, "a", 128);
    for id in 0..100_u64 {
        database.put(&format!("vec_{id}"), &vector(id, 128)).unwrap();
    }
    let store = reopen(&directory.path().join("store"), &store);
    let database = store.database("a").unwrap();
    assert_eq!(database.count().unwrap(), 100);
    for id in 0..100_u64 {
        let found = database.get(&format!("vec_{id}")).unwrap().unwrap();
        assert_vector(&found, id, format_args!("vec_{id}"));
    }
}

#[test]
fn three_databases_persist_with_their_counts() {
    let databases = [("a", 64_u32, 50_u64), ("b", 256, 30), ("c", 1024, 20)];
    let (directory, store) = new_store(small());
    for (name, dimension, count) in databases {
        let database = create(&store, name, dimension);
        for id in 0..count {
            database.put(id, &vector(id << 8 | u64::from(dimension), dimension as usize)).unwrap();
        }
    }
    let store = reopen(&directory.path().join("store"), &store);
    for (name, dimension, count) in databases {
        let database = store.database(name).unwrap();
        assert_eq!(database.count().unwrap(), count);
        for sample in 0..5 {
            let id = sample * (count - 1) / 4;
            check(&database, id, id << 8 | u64::from(dimension));
        }
    }
}

#[test]
fn eight_threads_store_and_read_50_vectors_each() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 128);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let database = &database;
            scope.spawn(move || {
                for id in thread * 50..(thread + 1) * 50 {
                    database.put(id, &vector(id, 128)).unwrap();
                }
            });
        }
    });
    assert_eq!(database.count().unwrap(), 400);
    for flushed in [false, true] {
        if flushed {
            database.flush().unwrap();
        }
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let database = &database;
                scope.spawn(move || {
                    (thread * 50..(thread + 1) * 50).for_each(|id| check(database, id, id));
                });
            }
        });
    }
}

#[test]
fn updates_and_deletes_persist_over_two_restarts() {
    let (directory, store) = new_store(small());
    let path = directory.path().join("store");
    let database = create(&store, "a", 256);
    (0..10_u64).for_each(|id| database.put(id, &vector(id, 256)).unwrap());
    let store = reopen(&path, &store);
    let database = store.database("a").unwrap();
    (0..5_u64).for_each(|id| database.update(id, &vector(id + 1000, 256)).unwrap());
    (5..10_u64).for_each(|id| assert!(database.delete(id).unwrap()));
    let store = reopen(&path, &store);
    let database = store.database("a").unwrap();
    assert_eq!(database.count().unwrap(), 5);
    (0..5).for_each(|id| check(&database, id, id + 1000));
    (5..10_u64).for_each(|id| assert!(database.get(id).unwrap().is_none()));
}

#[test]
fn a_batch_of_100_times_512_persists() {
    let (directory, store) = new_store(small());
    let database = create(&store, "a", 512);
    let mut batch = Batch::new();
    (0..100_u64).for_each(|id| batch.put(id, &vector(id, 512)));
    database.batch(batch).unwrap();
    let store = reopen(&directory.path().join("store"), &store);
    let database = store.database("a").unwrap();
    let ids: Vec<IdRef<'_>> = (0..100).map(IdRef::U64).collect();
    let found = database.get_many(&ids).unwrap();
    for (id, found) in (0..100_u64).zip(&found) {
        assert_vector(found.as_ref().unwrap(), id, format_args!("id {id}"));
    }
}

#[test]
fn dropping_a_database_removes_its_files() {
    let (directory, store) = new_store(small());
    let path = directory.path().join("store");
    let kept = create(&store, "kept", 16);
    kept.put(1, &vector(1, 16)).unwrap();
    store.flush().unwrap();
    let before = files_of(&path, Kind::Segment);
    let database = create(&store, "dropped", 128);
    (0..50_u64).for_each(|id| database.put(id, &vector(id, 128)).unwrap());
    store.flush().unwrap();
    assert_eq!(files_of(&path, Kind::Segment).len(), before.len() + 1);
    store.drop_database("dropped").unwrap();
    drop(database);
    // Files go when their last reader is gone; closing waits for that.
    store.close().unwrap();
    assert_eq!(files_of(&path, Kind::Segment), before);
}

#[test]
fn a_thousand_mixed_operations_with_a_flush_every_hundred() {
    let (directory, store) = new_store(small());
    let database = create(&store, "a", 64);
    let mut held = [None; 100];
    for step in 0..1000_u64 {
        let id = step * 7 % 100;
        let at = usize::try_from(id).unwrap();
        match (step % 3, held[at]) {
            (0, _) => {
                database.put(id, &vector(step, 64)).unwrap();
                held[at] = Some(step);
            }
            (1, Some(stamp)) => check(&database, id, stamp),
            (1, None) => assert!(database.get(id).unwrap().is_none()),
            (_, Some(_)) => {
                database.update(id, &vector(step, 64)).unwrap();
                held[at] = Some(step);
            }
            (_, None) => {
                let update = database.update(id, &vector(step, 64));
                assert!(matches!(update, Err(Error::NotFound { .. })), "step {step}: {update:?}");
            }
        }
        if step % 100 == 99 {
            database.flush().unwrap();
        }
    }
    let store = reopen(&directory.path().join("store"), &store);
    let database = store.database("a").unwrap();
    assert_eq!(database.count().unwrap(), held.iter().flatten().count() as u64);
    for (id, stamp) in (0..100).zip(held) {
        match stamp {
            Some(stamp) => check(&database, id, stamp),
            None => assert!(database.get(id).unwrap().is_none()),
        }
    }
}
