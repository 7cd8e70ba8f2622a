//! What the engine does when the disk fails.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use nephrite::{DatabaseOptions, Durability, Error, Ids, blocking::Store};
use nephrite_io::{Disk, IoErrorKind};

use crate::{
    fault_disk::{Fail, FaultDisk, faulty},
    support::{crash_image, small, vector},
};

#[test]
fn a_failed_log_sync_poisons_and_is_never_acknowledged() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(8)).unwrap();
    database.put_with(1, &vector(1, 8), Durability::Synced).unwrap();
    disk.set(Fail::Syncs(".wal"));
    let failed = database.put_with(2, &vector(2, 8), Durability::Synced);
    assert!(matches!(failed, Err(Error::Io(_))), "{failed:?}");
    disk.set(Fail::Nothing);
    // The sync is not tried again, and what was not acknowledged is not shown.
    let after = database.put_with(3, &vector(3, 8), Durability::Synced);
    assert!(matches!(after, Err(Error::Poisoned { .. })), "{after:?}");
    let buffered = database.put(4, &vector(4, 8));
    assert!(matches!(buffered, Err(Error::Poisoned { .. })), "{buffered:?}");
    assert!(database.get(2).unwrap().is_none());
    assert!(database.get(1).unwrap().is_some());
    assert!(matches!(store.close(), Err(Error::Poisoned { .. })));
    let store = Store::open(&path, small()).unwrap();
    let database = store.database("a").unwrap();
    assert_eq!(&database.get(1).unwrap().unwrap()[..], &vector(1, 8)[..]);
    database.put_with(3, &vector(3, 8), Durability::Synced).unwrap();
}

#[test]
fn a_failed_manifest_sync_keeps_the_old_state_and_poisons_the_manifest() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(8)).unwrap();
    database.put_with(1, &vector(1, 8), Durability::Synced).unwrap();
    disk.set(Fail::Syncs("manifest"));
    assert!(matches!(store.flush(), Err(Error::Io(_))));
    disk.set(Fail::Nothing);
    let again = store.create_database("b", DatabaseOptions::new(8));
    assert!(matches!(again, Err(Error::Poisoned { .. })), "{again:?}");
    assert!(database.get(1).unwrap().is_some());
    drop(database);
    assert!(store.close().is_err());
    let store = Store::open(&path, small()).unwrap();
    let database = store.database("a").unwrap();
    assert_eq!(&database.get(1).unwrap().unwrap()[..], &vector(1, 8)[..]);
    assert!(store.verify(|_| ()).unwrap().is_clean());
}

#[test]
fn a_full_disk_refuses_clearly_and_writing_resumes_when_space_returns() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    for id in 0..100_u64 {
        database.put_with(id, &vector(id, 128), Durability::Synced).unwrap();
    }
    for fail in [
        Fail::Creates(".seg", io::ErrorKind::StorageFull),
        Fail::Writes(".seg", io::ErrorKind::StorageFull),
    ] {
        disk.set(fail);
        let flushed = store.flush();
        assert!(matches!(&flushed, Err(error) if error.is_disk_full()), "{flushed:?}");
        let synced = database.put_with(1000, &vector(1, 128), Durability::Synced);
        assert!(matches!(&synced, Err(error) if error.is_disk_full()), "{synced:?}");
        assert!(database.get(1000).unwrap().is_none());
        assert_eq!(&database.get(7).unwrap().unwrap()[..], &vector(7, 128)[..]);
        disk.set(Fail::Nothing);
        store.flush().unwrap();
        database.put_with(2000, &vector(1, 128), Durability::Synced).unwrap();
    }
    assert!(disk.failed.load(Ordering::Relaxed) > 1);
    store.close().unwrap();
    let store = Store::open(&path, small()).unwrap();
    assert_eq!(store.database("a").unwrap().count().unwrap(), 101);
    assert!(store.verify(|_| ()).unwrap().is_clean());
}

#[test]
fn a_full_disk_while_bulk_rows_are_written_loses_nothing_acknowledged() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config.memory_limit(32 << 20)).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    let rows: Vec<f32> = (0..400_u64).flat_map(|id| vector(id, 128)).collect();
    disk.set(Fail::Writes(".seg", io::ErrorKind::StorageFull));
    let mut stored = 0;
    let error = loop {
        match database.put_many(Ids::Consecutive(stored), &rows, Durability::Buffered) {
            Ok(()) => stored += 400,
            Err(error) => break error,
        }
    };
    assert!(error.is_disk_full(), "{error}");
    assert_eq!(database.count().unwrap(), stored);
    assert_eq!(&database.get(stored - 1).unwrap().unwrap()[..], &vector(399, 128)[..]);
    disk.set(Fail::Nothing);
    store.flush().unwrap();
    database.put_many(Ids::Consecutive(stored), &rows, Durability::Buffered).unwrap();
    store.close().unwrap();
    let store = Store::open(&path, small()).unwrap();
    let database = store.database("a").unwrap();
    assert_eq!(database.count().unwrap(), stored + 400);
    for id in (0..stored).step_by(97) {
        assert_eq!(&database.get(id).unwrap().unwrap()[..], &vector(id % 400, 128)[..]);
    }
}

#[test]
fn a_failed_read_is_reported_and_not_cached() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config.clone()).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    for id in 0..100_u64 {
        database.put(id, &vector(id, 128)).unwrap();
    }
    store.flush().unwrap();
    disk.set(Fail::Reads(".seg"));
    let failed = database.get(3);
    assert!(
        matches!(&failed, Err(Error::Io(error)) if error.kind() == IoErrorKind::Other),
        "{failed:?}"
    );
    disk.set(Fail::Nothing);
    assert_eq!(&database.get(3).unwrap().unwrap()[..], &vector(3, 128)[..]);
    assert_eq!(store.stats().pages_pinned, 0);
}

/// The log held three memtables; recovery flushed the first, and its manifest edit said that the
/// log was no longer needed: the second kill lost what had not been replayed yet.
#[test]
fn a_crash_in_a_recovery_that_flushed_a_part_loses_nothing() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    disk.set(Fail::Creates(".seg", io::ErrorKind::StorageFull));
    let mut acknowledged = 0;
    while acknowledged < 1500 && database.put(acknowledged, &vector(acknowledged, 128)).is_ok() {
        acknowledged += 1;
    }
    let image = directory.path().join("image");
    crash_image(&path, &image);
    // Its rings may be all that the user can have.
    drop((database, store));
    // What the image holds, as a recovery that is not disturbed sees it.
    let copy = directory.path().join("copy");
    crash_image(&image, &copy);
    let expected = Store::open(&copy, small()).unwrap().database("a").unwrap().count().unwrap();
    assert!(expected > 1000, "{expected} of {acknowledged}: the log must hold several memtables");
    for allowed in 0..4 {
        let image_of = |name: &str| directory.path().join(format!("{name}-{allowed}"));
        let (first, second) = (image_of("first"), image_of("second"));
        crash_image(&image, &first);
        let disk = FaultDisk::new(directory.path());
        disk.set(Fail::SegmentsBeyond(allowed));
        let full = Store::open(&first, small().disk(disk as Arc<dyn Disk>)).unwrap();
        assert_eq!(full.database("a").unwrap().count().unwrap(), expected);
        crash_image(&first, &second);
        let store = Store::open(&second, small()).unwrap();
        let database = store.database("a").unwrap();
        assert_eq!(database.count().unwrap(), expected, "{allowed} segments could be made");
        for id in (0..expected).step_by(97) {
            assert_eq!(&database.get(id).unwrap().unwrap()[..], &vector(id, 128)[..]);
        }
    }
}

fn segment_files(store: &std::path::Path) -> usize {
    std::fs::read_dir(store.join("segments")).unwrap().count()
}

/// Every failed flush left its file behind until the next open: on a full disk that is the space
/// that was missing.
#[test]
fn files_of_failed_flushes_do_not_stay() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    for id in 0..300_u64 {
        database.put(id, &vector(id, 128)).unwrap();
    }
    disk.set(Fail::Writes(".seg", io::ErrorKind::StorageFull));
    for _ in 0..5 {
        assert!(store.flush().is_err());
        let files = segment_files(&path);
        assert!(files <= 2, "{files} files of failed flushes of two memtables");
    }
    disk.set(Fail::Nothing);
    store.flush().unwrap();
    assert_eq!(segment_files(&path) as u64, database.stats().unwrap().segments);
    // The same when log records name rows in the file that failed.
    let rows: Vec<f32> = (0..400_u64).flat_map(|id| vector(id, 128)).collect();
    database.put_many(Ids::Consecutive(1_000), &rows, Durability::Buffered).unwrap();
    database.put_with(1, &vector(1, 128), Durability::Synced).unwrap();
    disk.set(Fail::Writes(".seg", io::ErrorKind::StorageFull));
    assert!(store.flush().is_err());
    disk.set(Fail::Nothing);
    store.compact().unwrap();
    store.close().unwrap();
    assert_eq!(segment_files(&path), 1);
}

/// A file under construction is closed when others need its place. What its sync says then is what
/// the flush has to know.
#[test]
fn the_failed_sync_of_a_parked_file_is_not_lost() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let config = config.memory_limit(256 << 20).memtable_bytes(8 << 20).max_open_files(5);
    let store = Store::create(&path, config).unwrap();
    let databases: Vec<_> = (0..12)
        .map(|name| store.create_database(&format!("d{name}"), DatabaseOptions::new(128)).unwrap())
        .collect();
    let rows: Vec<f32> = (0..3_000_u64).flat_map(|id| vector(id, 128)).collect();
    let put = |database: &nephrite::blocking::Database, first| {
        database.put_many(Ids::Consecutive(first), &rows, Durability::Buffered)
    };
    disk.set(Fail::Syncs(".seg"));
    // Rows are written ahead, into more files than may be open: some are parked, and fail.
    for first in [0, 3_000] {
        databases.iter().for_each(|database| drop(put(database, first)));
    }
    assert!(store.stats().files_parked > 0);
    assert!(disk.failed.load(Ordering::Relaxed) > 0);
    disk.set(Fail::Nothing);
    store.flush().unwrap();
    let counts: Vec<u64> = databases.iter().map(|it| it.count().unwrap()).collect();
    store.close().unwrap();
    let store = Store::open(&path, small()).unwrap();
    for (name, count) in (0..12).zip(counts) {
        let database = store.database(&format!("d{name}")).unwrap();
        assert_eq!(database.count().unwrap(), count);
        for id in (0..count).step_by(301) {
            let found = database.get(id).unwrap().unwrap();
            assert_eq!(&found[..], &vector(id % 3_000, 128)[..], "d{name}, id {id}");
        }
    }
    assert!(store.verify(|_| ()).unwrap().is_clean());
}
