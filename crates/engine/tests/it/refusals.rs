//! What is refused says which value, what would do, and has no effect; errors name their place and
//! the way out. Besides: handles that wait for a call and those that await it give the same.

use nephrite::{
    Batch, Config, DatabaseOptions, Durability, Error, IdKind, IdRef,
    blocking::{Database, Store},
};
use pollster::block_on;

use crate::support::{new_store, small, vector};

/// The field that `config` is refused for, and why.
#[track_caller]
fn refused(config: &Config) -> (&'static str, String) {
    match config.validate() {
        Err(Error::InvalidConfig { field, reason }) => (field, reason),
        other => panic!("it should not be valid: {other:?}"),
    }
}

#[test]
fn each_value_beyond_its_bounds_is_refused_by_field_with_value_and_bound() {
    let mib = 1_u64 << 20;
    let cases = [
        (Config::new().memory_limit(4 * mib - 1), "memory_limit", "4194303", "4194304"),
        (Config::new().wal_segment_bytes(256 << 9), "wal_segment_bytes", "131072", "262144"),
        (Config::new().wal_segment_bytes(mib + 512), "wal_segment_bytes", "1049088", "4096"),
        (Config::new().wal_segment_bytes(2 << 30), "wal_segment_bytes", "2147483648", "1073741824"),
        (Config::new().memtable_bytes(65_535), "memtable_bytes", "65535", "65536"),
        (small().memtable_bytes(3 * mib), "memtable_bytes", "3145728", "2097152"),
        (Config::new().garbage_percent(0), "garbage_percent", "0 ", "1 and 90"),
        (Config::new().garbage_percent(91), "garbage_percent", "91", "1 and 90"),
        (
            Config::new().compaction_bytes_per_second(Some(mib - 1)),
            "compaction_bytes_per_second",
            "1048575",
            "1048576",
        ),
        (Config::new().max_open_files(4), "max_open_files", "4 ", "below 5"),
    ];
    for (config, named, value, bound) in cases {
        let (field, reason) = refused(&config);
        assert_eq!(field, named);
        assert!(reason.contains(value) && reason.contains(bound), "{field}: {reason}");
    }
}

#[test]
fn each_value_at_its_bounds_is_taken() {
    let at_bounds = [
        Config::new().memory_limit(4 << 20),
        Config::new().wal_segment_bytes(256 << 10),
        Config::new().wal_segment_bytes(1 << 30),
        Config::new().memtable_bytes(64 << 10),
        Config::new().memory_limit(8 << 20).memtable_bytes(2 << 20),
        Config::new().garbage_percent(1),
        Config::new().garbage_percent(90),
        Config::new().compaction_bytes_per_second(Some(1 << 20)),
        Config::new().compaction_bytes_per_second(None),
        Config::new().max_open_files(5),
    ];
    for config in at_bounds {
        config.validate().unwrap_or_else(|error| panic!("{:?}: {error}", config.settings()));
    }
}

#[test]
fn a_store_is_not_made_with_a_configuration_that_cannot_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");

    let outcome = Store::create(&path, small().garbage_percent(0)).map(drop);

    assert!(matches!(outcome, Err(Error::InvalidConfig { field: "garbage_percent", .. })));
    assert!(!path.exists(), "nothing was made");
}

#[test]
fn page_sizes_that_hold_no_vector_or_no_whole_blocks_are_refused() {
    let (_directory, store) = new_store(small());
    for (dimension, bytes) in [(4, 0), (4, 4095), (4, 6000), (4, 128 << 10), (2000, 4096)] {
        let options = DatabaseOptions::new(dimension).page_bytes(bytes);
        let outcome = store.create_database("a", options).map(drop);
        let Err(error @ Error::InvalidConfig { field: "page_bytes", .. }) = outcome else {
            panic!("pages of {bytes} bytes for dimension {dimension}: {outcome:?}");
        };
        assert!(error.to_string().contains("page_bytes"), "{error}");
    }

    // The name is still free, and a size that fits is taken and kept.
    let database =
        store.create_database("a", DatabaseOptions::new(2000).page_bytes(16_384)).unwrap();
    database.put(1, &vector(1, 2000)).unwrap();
    database.flush().unwrap();
    assert_eq!(*database.get(1).unwrap().unwrap(), *vector(1, 2000));
}

#[test]
fn dimensions_beyond_their_bounds_are_refused() {
    let (_directory, store) = new_store(small());
    for dimension in [0, nephrite::MAX_DIMENSION + 1] {
        let outcome = store.create_database("a", DatabaseOptions::new(dimension)).map(drop);
        assert!(matches!(outcome, Err(Error::InvalidConfig { field: "dimension", .. })));
    }
    assert!(store.list().is_empty());
}

/// A store with one vector of 4 under id 1.
fn one_vector() -> (tempfile::TempDir, Store, Database) {
    let (directory, store) = new_store(small());
    let database = store.create_database("a", DatabaseOptions::new(4)).unwrap();
    database.put(1, &vector(1, 4)).unwrap();
    (directory, store, database)
}

#[test]
fn refusals_of_writes_say_what_was_given_and_what_belongs() {
    let (_directory, store, database) = one_vector();
    let mut batch = Batch::new();
    batch.put(2, &vector(2, 5));
    let cases = [
        (database.put(2, &vector(2, 3)), "3 elements where the database stores 4"),
        (database.batch(batch), "5 elements where the database stores 4"),
        (database.put("two", &vector(2, 4)), "this database has u64 ids"),
        (database.update(2, &vector(2, 4)), "id 2 is not stored"),
        (store.database("b").map(drop), "no database named \"b\""),
        (store.create_database("a", DatabaseOptions::new(4)).map(drop), "drop it first"),
        (store.create_database("", DatabaseOptions::new(4)).map(drop), "cannot name a database"),
    ];
    for (outcome, said) in cases {
        let error = outcome.expect_err(said);
        assert!(error.to_string().contains(said), "{error}");
        assert!(!error.is_corrupt() && !error.is_disk_full(), "{error}");
    }
    assert_eq!(database.count().unwrap(), 1, "none of them had an effect");
}

#[test]
fn updates_and_deletes_are_synced_when_they_are_told_to_be() {
    let (_directory, store, database) = one_vector();
    let syncs = || store.stats().wal_syncs;
    let before = syncs();

    database.update_with(1, &vector(7, 4), Durability::Synced).unwrap();
    assert!(before < syncs(), "an update");
    let before = syncs();
    assert!(database.delete_with(1, Durability::Synced).unwrap());
    assert!(before < syncs(), "a delete");

    assert!(!database.delete_with(1, Durability::Synced).unwrap(), "it is gone");
    assert!(matches!(
        database.update_with(1, &vector(7, 4), Durability::Synced),
        Err(Error::NotFound { .. })
    ));
}

#[test]
fn snapshots_answer_alike_whether_they_are_awaited_or_waited_for() {
    let (_directory, _store, database) = one_vector();
    let ids = [IdRef::U64(1), IdRef::U64(2), IdRef::U64(1)];
    let blocking = database.snapshot().unwrap();
    let awaited = block_on(database.as_async().snapshot()).unwrap();
    // Neither sees what comes after it.
    database.delete(1).unwrap();
    database.put(2, &vector(2, 4)).unwrap();

    let waited_for = blocking.get_many(&ids).unwrap();
    for found in [waited_for, block_on(awaited.get_many(&ids)).unwrap()] {
        let found: Vec<_> = found.iter().map(|vector| vector.as_deref()).collect();
        let stored = vector(1, 4);
        assert_eq!(found, [Some(&*stored), None, Some(&*stored)]);
    }
    for (id, is_there) in [(1, true), (2, false)] {
        assert_eq!(blocking.contains(id).unwrap(), is_there);
        assert_eq!(block_on(awaited.contains(id)).unwrap(), is_there);
    }
    let refused = blocking.contains("one").map(drop);
    assert!(matches!(refused, Err(Error::WrongIdKind { expected: IdKind::U64 })));
    let refused = block_on(awaited.get_many(&[IdRef::Bytes(b"one")])).map(drop);
    assert!(matches!(refused, Err(Error::WrongIdKind { expected: IdKind::U64 })));
}

#[test]
fn a_vector_read_outlives_what_it_was_read_from() {
    let (_directory, store, database) = one_vector();
    let in_memory = database.get(1).unwrap().unwrap();
    database.flush().unwrap();
    let in_cache = database.get(1).unwrap().unwrap();
    let copy = database.get(1).unwrap().unwrap().into_owned();

    database.put(1, &vector(9, 4)).unwrap();
    database.flush().unwrap();
    drop(database);
    store.close().unwrap();

    let stored = vector(1, 4);
    assert_eq!(in_memory, stored[..]);
    assert_eq!(in_cache, stored[..]);
    assert_eq!(copy, stored[..]);
    assert_eq!(format!("{in_cache:?}"), format!("{stored:?}"));
}
