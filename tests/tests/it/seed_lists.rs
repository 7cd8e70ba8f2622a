//! Storing, reading, updating, deleting, batches, several databases, restart, concurrent access:
//! the unit and integration lists of the persistence layer that Nephrite replaces, with their
//! counts, plus what bad input must do. All comparisons are of bits.

use std::path::Path;

use nephrite::{
    Batch, DatabaseOptions, Durability, Error, IdKind, IdRef, Ids,
    blocking::{Database, Store},
};
use nephrite_tests::{
    assert_vector,
    directories::{Kind, files_of},
    new_store, roomy, same_bits, small, vector,
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

fn bulk(stamps: std::ops::Range<u64>, dimension: usize) -> Vec<f32> {
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

// Dimensions, ids and input.

#[test]
fn dimensions_from_1_to_4096_are_bit_exact() {
    let mut dimensions: Vec<usize> = (1..=33).collect();
    dimensions.extend([63, 64, 65, 100, 127, 128, 129, 255, 256, 300, 384, 511, 512, 513, 768]);
    dimensions.extend([960, 999, 1000, 1001, 1023, 1024, 1025, 1536, 2047, 2048, 3072, 4095, 4096]);
    let (directory, store) = new_store(roomy());
    let bytes_of_each = 40;
    for dimension in &dimensions {
        let database = create(&store, &format!("d{dimension}"), u32::try_from(*dimension).unwrap());
        for id in 0..bytes_of_each / 2 {
            database.put(id, &vector(id, *dimension)).unwrap();
        }
        let rows = bulk(bytes_of_each / 2..bytes_of_each, *dimension);
        let first = Ids::Consecutive(bytes_of_each / 2);
        database.put_many(first, &rows, Durability::Buffered).unwrap();
    }
    let check_all = |store: &Store| {
        for dimension in &dimensions {
            let database = store.database(&format!("d{dimension}")).unwrap();
            for id in 0..bytes_of_each {
                let found = database.get(id).unwrap().unwrap();
                assert!(same_bits(&found, &vector(id, *dimension)), "id {id} of {dimension}");
            }
            assert_eq!(database.scan().unwrap().count() as u64, bytes_of_each);
        }
    };
    check_all(&store);
    store.flush().unwrap();
    check_all(&store);
    store.close().unwrap();
    let store = Store::open(directory.path().join("store"), roomy()).unwrap();
    check_all(&store);
    assert!(store.verify(|_| ()).unwrap().is_clean());
}

#[test]
fn every_kind_of_float_keeps_its_bits() {
    let odd = [
        0x0000_0000,
        0x8000_0000,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0xffc0_0000,
        0x7f80_0001,
        0x7fbf_ffff,
        0xffff_ffff,
        0x7fff_ffff,
        0x0000_0001,
        0x807f_ffff,
        0x7f7f_ffff,
        0x3f80_0000,
    ];
    let odd: Vec<f32> = odd.into_iter().map(f32::from_bits).collect();
    let (directory, store) = new_store(small());
    let database = create(&store, "a", u32::try_from(odd.len()).unwrap());
    database.put(1, &odd).unwrap();
    let mut batch = Batch::new();
    batch.put(2, &odd);
    database.batch(batch).unwrap();
    database.put_many(Ids::U64(&[3]), &odd, Durability::Synced).unwrap();
    let check = |database: &Database| {
        for id in 1..4_u64 {
            assert!(same_bits(&database.get(id).unwrap().unwrap(), &odd), "id {id}");
        }
    };
    check(&database);
    let store = reopen(&directory.path().join("store"), &store);
    check(&store.database("a").unwrap());
}

#[test]
fn of_an_id_given_twice_in_a_batch_the_last_wins() {
    let (directory, store) = new_store(small());
    let database = create(&store, "a", 16);
    let names = named(&store, "n", 16);
    let mut batch = Batch::new();
    batch.put(1, &vector(10, 16));
    batch.delete(2);
    batch.put(2, &vector(20, 16));
    batch.put(3, &vector(30, 16));
    batch.delete(3);
    batch.put(1, &vector(11, 16));
    database.batch(batch).unwrap();
    database.put_many(Ids::U64(&[7, 8, 7]), &bulk(0..3, 16), Durability::Buffered).unwrap();
    names.put_many(Ids::Bytes(&[b"x", b"x"]), &bulk(5..7, 16), Durability::Buffered).unwrap();
    // More than 64 KiB, so that the rows bypass the log.
    let ids: Vec<u64> = (0..2048).map(|at| 100 + at % 3).collect();
    database.put_many(Ids::U64(&ids), &bulk(0..2048, 16), Durability::Buffered).unwrap();
    let check_all = |store: &Store| {
        let database = store.database("a").unwrap();
        let expected = [(1, 11), (2, 20), (7, 2), (8, 1), (100, 2046), (101, 2047), (102, 2045)];
        for (id, stamp) in expected {
            check(&database, id, stamp);
        }
        assert!(database.get(3).unwrap().is_none());
        assert_eq!(database.count().unwrap(), 7);
        let found = store.database("n").unwrap().get("x").unwrap().unwrap();
        assert_vector(&found, 6, "x");
    };
    check_all(&store);
    let store = reopen(&directory.path().join("store"), &store);
    check_all(&store);
}

#[test]
fn ids_at_their_limits_are_stored_and_beyond_are_refused() {
    let (directory, store) = new_store(small());
    let numbers = create(&store, "numbers", 4);
    let names = named(&store, "names", 4);
    let longest = "é".repeat(127) + "x";
    assert_eq!(longest.len(), 255);
    for id in [0, 1, u64::MAX - 1, u64::MAX] {
        numbers.put(id, &vector(id, 4)).unwrap();
    }
    numbers.put_many(Ids::Consecutive(u64::MAX - 1), &bulk(7..9, 4), Durability::Buffered).unwrap();
    let wrap = numbers.put_many(Ids::Consecutive(u64::MAX), &bulk(0..2, 4), Durability::Buffered);
    assert!(matches!(wrap, Err(Error::InvalidId { .. })), "{wrap:?}");
    let bytes: [&[u8]; 5] = [b"\0", b"\0\0", &[0xff; 255], longest.as_bytes(), b"a b/../c"];
    for (stamp, id) in (0..).zip(bytes) {
        names.put(id, &vector(stamp, 4)).unwrap();
    }
    let long = "x".repeat(256);
    for id in ["", long.as_str()] {
        for refused in
            [names.put(id, &vector(0, 4)), names.get(id).map(drop), names.delete(id).map(drop)]
        {
            assert!(matches!(refused, Err(Error::InvalidId { .. })), "{refused:?}");
        }
        let mut batch = Batch::new();
        batch.put("fine", &vector(0, 4));
        batch.put(id, &vector(0, 4));
        assert!(matches!(names.batch(batch), Err(Error::InvalidId { .. })));
    }
    assert!(matches!(names.put(1, &vector(0, 4)), Err(Error::WrongIdKind { .. })));
    assert!(matches!(numbers.get("1"), Err(Error::WrongIdKind { .. })));
    let store = reopen(&directory.path().join("store"), &store);
    let numbers = store.database("numbers").unwrap();
    for (id, stamp) in [(0, 0), (1, 1), (u64::MAX - 1, 7), (u64::MAX, 8)] {
        check(&numbers, id, stamp);
    }
    let names = store.database("names").unwrap();
    assert_eq!(names.count().unwrap(), 5);
    for (stamp, id) in (0..).zip(bytes) {
        assert_vector(&names.get(id).unwrap().unwrap(), stamp, format_args!("{id:?}"));
    }
}

#[test]
fn an_existing_database_is_not_made_again() {
    let (directory, store) = new_store(small());
    let database = create(&store, "a", 16);
    (0..700_u64).for_each(|id| database.put(id, &vector(id, 16)).unwrap());
    for options in [DatabaseOptions::new(16), DatabaseOptions::new(8).id_kind(IdKind::Bytes)] {
        let again = store.create_database("a", options);
        assert!(matches!(again, Err(Error::DatabaseExists { .. })), "{again:?}");
    }
    assert_eq!(database.count().unwrap(), 700);
    let path = directory.path().join("store");
    store.close().unwrap();
    assert!(matches!(Store::create(&path, small()), Err(Error::StoreExists { .. })));
    let store = Store::open_or_create(&path, small()).unwrap();
    let database = store.database("a").unwrap();
    assert_eq!(database.count().unwrap(), 700);
    (0..700).for_each(|id| check(&database, id, id));
}

#[test]
fn names_that_cannot_be_used_are_refused_and_odd_ones_work() {
    let (directory, store) = new_store(small());
    let long = "n".repeat(256);
    for name in ["", "a\0b", "line\nbreak", long.as_str()] {
        let made = store.create_database(name, DatabaseOptions::new(4));
        assert!(matches!(made, Err(Error::InvalidName { .. })), "{name:?}: {made:?}");
        assert!(matches!(store.database(name), Err(Error::DatabaseNotFound { .. })));
    }
    let odd = ["..", "/etc/passwd", "quote\"d", "größe 大", ".", &long[1..]];
    for (stamp, name) in (0..).zip(odd) {
        create(&store, name, 4).put(1, &vector(stamp, 4)).unwrap();
    }
    let store = reopen(&directory.path().join("store"), &store);
    assert_eq!(store.list().len(), odd.len());
    for (stamp, name) in (0..).zip(odd) {
        check(&store.database(name).unwrap(), 1, stamp);
    }
    assert!(store.list().is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn a_batch_that_cannot_be_atomic_is_refused_whole() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 1024);
    let mut batch = Batch::new();
    (0..100_u64).for_each(|id| batch.put(id, &vector(id, 1024)));
    let refused = database.batch(batch);
    assert!(matches!(refused, Err(Error::BatchTooLarge { .. })), "{refused:?}");
    let refused = database.put_many(Ids::Consecutive(0), &bulk(0..100, 1024), Durability::Buffered);
    assert!(matches!(refused, Err(Error::BatchTooLarge { .. })), "{refused:?}");
    assert_eq!(database.count().unwrap(), 0);
    assert!(database.batch(Batch::new()).is_ok());
    database.put(1, &vector(1, 1024)).unwrap();
    assert_eq!(database.count().unwrap(), 1);
}
