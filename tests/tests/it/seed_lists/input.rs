//! What ids, dimensions, floats and names there may be, and what bad input must do: an error that
//! names what is wrong, and no effect. All comparisons are of bits.

use nephrite::{
    Batch, DatabaseOptions, Durability, Error, IdKind, Ids,
    blocking::{Database, Store},
};
use nephrite_tests::{assert_vector, new_store, roomy, same_bits, small, vector};

use super::{bulk, check, create, named, reopen};

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
