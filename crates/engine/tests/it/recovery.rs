//! What is there after a crash: images of the directory taken while the store is open.

use nephrite::{Batch, DatabaseOptions, Durability, Error, Ids, blocking::Store};

use crate::support::{crash_image, new_store, small, vector};

#[test]
fn synced_writes_survive_a_crash() {
    let (directory, store) = new_store(small());
    let path = directory.path().join("store");
    let first = store.create_database("first", DatabaseOptions::new(32)).unwrap();
    let second = store.create_database("second", DatabaseOptions::new(64)).unwrap();
    for id in 0..200_u64 {
        first.put_with(id, &vector(id, 32), Durability::Synced).unwrap();
        second.put(id, &vector(id + 1, 64)).unwrap();
        if id == 100 {
            first.flush().unwrap();
        }
    }
    let mut batch = Batch::new();
    batch.delete(3);
    batch.put(500, &vector(500, 32));
    first.batch_with(batch, Durability::Synced).unwrap();
    let image = directory.path().join("image");
    crash_image(&path, &image);
    for round in 0..3 {
        let store = Store::open(&image, small()).unwrap();
        let first = store.database("first").unwrap();
        assert_eq!(first.count().unwrap(), 200, "round {round}");
        assert!(first.get(3).unwrap().is_none());
        assert_eq!(&first.get(500).unwrap().unwrap()[..], &vector(500, 32)[..]);
        for id in (0..200_u64).filter(|id| *id != 3) {
            assert_eq!(&first.get(id).unwrap().unwrap()[..], &vector(id, 32)[..], "id {id}");
        }
        // Buffered writes to another database before a synced one share its durability.
        let second = store.database("second").unwrap();
        for id in 0..200_u64 {
            assert_eq!(&second.get(id).unwrap().unwrap()[..], &vector(id + 1, 64)[..]);
        }
        assert!(store.verify(|_| ()).unwrap().is_clean());
        if round == 1 {
            store.close().unwrap();
        }
    }
}

#[test]
fn bulk_rows_survive_a_crash_once_a_sync_covers_them() {
    let (directory, store) = new_store(small());
    let path = directory.path().join("store");
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    let rows: Vec<f32> = (0..150_u64).flat_map(|id| vector(id, 128)).collect();
    database.put_many(Ids::Consecutive(0), &rows, Durability::Buffered).unwrap();
    database.put_with(9999, &vector(9999, 128), Durability::Synced).unwrap();
    database.put_many(Ids::Consecutive(1000), &rows, Durability::Buffered).unwrap();
    database.put_with(9998, &vector(9998, 128), Durability::Synced).unwrap();
    let image = directory.path().join("image");
    crash_image(&path, &image);
    let store = Store::open(&image, small()).unwrap();
    let database = store.database("a").unwrap();
    assert_eq!(database.count().unwrap(), 302);
    for id in 0..150_u64 {
        assert_eq!(&database.get(id).unwrap().unwrap()[..], &vector(id, 128)[..]);
        assert_eq!(&database.get(1000 + id).unwrap().unwrap()[..], &vector(id, 128)[..]);
    }
}

#[test]
fn a_second_open_is_refused_and_a_stale_lock_is_not() {
    let (directory, store) = new_store(small());
    let path = directory.path().join("store");
    assert!(matches!(Store::open(&path, small()), Err(Error::Locked { .. })));
    assert!(matches!(Store::create(&path, small()), Err(Error::Locked { .. })));
    store.close().unwrap();
    assert!(path.join("LOCK").exists());
    drop(Store::open(&path, small()).unwrap());
    assert!(matches!(Store::create(&path, small()), Err(Error::StoreExists { .. })));
}

/// Whoever waits for a store to be free tries over and over. Each try built rings, whose memory the
/// system counts for a while after they are gone, so that in the end nobody could have any.
#[test]
#[cfg(unix)]
fn a_store_that_is_locked_is_refused_before_a_disk_is_tried_out() {
    let (directory, _store) = new_store(small());
    let path = directory.path().join("store");
    let root = std::fs::File::open(&path).unwrap();
    // A disk is tried out with a file in the directory, each time. What the store itself changes
    // there in the background it changes once.
    let untouched = (0..100).any(|_| {
        root.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(matches!(Store::open(&path, small()), Err(Error::Locked { .. })));
        assert!(matches!(Store::create(&path, small()), Err(Error::Locked { .. })));
        root.metadata().unwrap().modified().unwrap() == std::time::UNIX_EPOCH
    });
    assert!(untouched, "a disk was tried out for a store that is locked");
}

#[test]
fn what_is_not_a_store_is_named() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Store::open(directory.path(), small()), Err(Error::NotAStore { .. })));
    let missing = directory.path().join("missing");
    assert!(matches!(Store::open(&missing, small()), Err(Error::NotAStore { .. })));
    assert!(!missing.exists());
}

/// A recycled segment that was made ready and never written used to be overwritten while the
/// manifest still named it at its old position: the store could not be opened any more.
#[test]
fn crash_after_crash_with_recycled_log_segments_keeps_everything_acknowledged() {
    let (directory, store) = new_store(small());
    let path = directory.path().join("store");
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    let mut stored = 0_u64;
    let mut put = |database: &nephrite::blocking::Database, count: u64| {
        for id in stored..stored + count {
            database.put_with(id, &vector(id, 128), Durability::Synced).unwrap();
        }
        stored += count;
        stored
    };
    for _ in 0..12 {
        put(&database, 90);
        database.flush().unwrap();
    }
    assert!(store.stats().wal_segments_recycled > 0);
    let mut image = directory.path().join("image-0");
    crash_image(&path, &image);
    for round in 1..12_u64 {
        let store = Store::open(&image, small()).unwrap();
        let database = store.database("a").unwrap();
        let expected = put(&database, round % 3 * 40 + 1);
        if round % 4 == 0 {
            database.flush().unwrap();
        }
        let next = directory.path().join(format!("image-{round}"));
        crash_image(&image, &next);
        let check = Store::open(&next, small()).unwrap();
        assert_eq!(check.database("a").unwrap().count().unwrap(), expected, "round {round}");
        drop(check);
        image = next;
    }
}

#[test]
fn a_store_can_be_made_where_a_crash_left_an_unfinished_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    drop(Store::create(&path, small()).unwrap());
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("manifest") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let store = Store::create(&path, small()).unwrap();
    store.create_database("a", DatabaseOptions::new(4)).unwrap();
}
