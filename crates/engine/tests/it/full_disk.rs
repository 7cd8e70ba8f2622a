//! A disk on which no segment can be written: what deletes hide goes all the same, and nothing
//! else.

use std::{io::ErrorKind, path::Path, sync::Arc};

use nephrite::{
    DatabaseOptions, Durability, Ids,
    blocking::{Database, Store},
};
use nephrite_io::{
    IoOperation,
    sim::{Errno, Fault, FaultPlan, FaultRule, Repeat, SimDisk, SimOptions},
};

use crate::{
    fault_disk::{Fail, faulty, faulty_store},
    support::{crash_image, segment_files, small, vector},
};

const DIMENSION: usize = 128;
const FULL: Fail = Fail::Writes(".seg", ErrorKind::StorageFull);

/// A segment of these ids.
fn put_segment(database: &Database, ids: std::ops::Range<u64>) {
    let rows: Vec<f32> = ids.clone().flat_map(|id| vector(id, DIMENSION)).collect();
    database.put_many(Ids::Consecutive(ids.start), &rows, Durability::Buffered).unwrap();
    database.flush().unwrap();
}

fn delete(database: &Database, ids: impl Iterator<Item = u64>) {
    ids.for_each(|id| assert!(database.delete(id).unwrap(), "id {id}"));
}

#[track_caller]
fn refuses_for_room(outcome: Result<(), nephrite::Error>) {
    assert!(matches!(&outcome, Err(error) if error.is_disk_full()), "{outcome:?}");
}

/// Deletes could not become segments, so a compaction found no garbage to give back.
#[test]
fn segments_whose_rows_were_all_deleted_go_without_a_flush() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    (0..3).for_each(|part| put_segment(&database, part * 300..part * 300 + 300));
    let snapshot = database.snapshot().unwrap();
    disk.set(FULL);
    // Vectors that cannot be flushed lie before the deletes.
    (900..1000).for_each(|id| database.put(id, &vector(id, DIMENSION)).unwrap());
    delete(&database, 0..450);
    let (bytes, syncs) = (database.stats().unwrap().segment_bytes, store.stats().wal_syncs);

    refuses_for_room(database.compact());

    let stats = database.stats().unwrap();
    assert_eq!((stats.records, stats.segments), (550, 2), "the one in the middle needs room");
    assert!(stats.segment_bytes < bytes);
    assert!(syncs < store.stats().wal_syncs, "the log has the deletes before their rows go");
    assert_eq!(snapshot.scan().unwrap().count(), 900, "a snapshot has what it had");
    drop(snapshot);
    // A crash now, and a disk with room.
    let image = directory.path().join("image");
    crash_image(&path, &image);
    let after = Store::open(&image, small()).unwrap();
    check(&after, &after.database("a").unwrap());
    disk.set(Fail::Nothing);
    check(&store, &database);
}

/// Ids 450 to 999 and no others, counted exactly.
#[track_caller]
fn check(store: &Store, database: &Database) {
    assert_eq!(database.count().unwrap(), 550);
    database.compact().unwrap();
    let stats = database.stats().unwrap();
    assert_eq!((stats.records, stats.segment_rows, stats.segment_rows_live), (550, 550, 550));
    assert_eq!((stats.segments, stats.garbage_bytes), (1, 0));
    for id in 0..1000 {
        let found = database.get(id).unwrap();
        let expected = (450 <= id).then(|| vector(id, DIMENSION));
        assert_eq!(found.as_deref(), expected.as_deref(), "id {id}");
    }
    assert!(store.verify(|_| ()).unwrap().is_clean());
}

/// A row that goes must not bring an older one of its id back to life.
#[test]
fn older_rows_of_deleted_ids_go_with_them() {
    // The older rows are left where they are.
    let (directory, disk, store, database) = faulty_store(|config| config.garbage_percent(90));
    (0..3).for_each(|_| put_segment(&database, 0..300));
    disk.set(FULL);
    delete(&database, 0..300);

    // There is nothing to be flushed below these tombstones once the segments are gone.
    let _ = database.compact();

    let stats = database.stats().unwrap();
    assert_eq!((stats.records, stats.segments), (0, 0));
    assert!((0..300).all(|id| database.get(id).unwrap().is_none()));
    disk.set(Fail::Nothing);
    database.put(7, &vector(7, DIMENSION)).unwrap();
    database.compact().unwrap();
    assert_eq!((database.count().unwrap(), database.stats().unwrap().segment_rows_live), (1, 1));
    store.close().unwrap();
    assert_eq!(segment_files(&directory.path().join("store")).len(), 1);
}

/// Segment files that take room; a flush that was refused has one without.
fn files_with_bytes(store: &Path) -> usize {
    segment_files(store).into_iter().filter(|bytes| 0 < *bytes).count()
}

/// Whoever chose the inputs of a compaction kept them alive until the next one was done.
#[test]
fn room_is_back_when_a_compaction_returns() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("store");
    let store = Store::create(&path, config).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    (0..3).for_each(|part| put_segment(&database, part * 300..part * 300 + 300));
    disk.set(FULL);
    delete(&database, 0..600);
    // Piece by piece: what memtables hide.
    let _ = database.compact();
    assert_eq!(files_with_bytes(&path), 1);

    disk.set(Fail::Nothing);
    put_segment(&database, 900..1200);
    database.compact().unwrap();
    assert_eq!(files_with_bytes(&path), 1);
    assert_eq!(database.count().unwrap(), 600);
}

/// The next open would have removed it, but until then its room was missing.
#[test]
fn a_manifest_that_finds_no_room_leaves_no_file_behind() {
    let mut refused = 0;
    for nth in 1.. {
        let disk = SimDisk::new(SimOptions::new(1).immediate());
        let rule =
            FaultRule::new(Fault::Error(Errno::NoSpace), &[IoOperation::Write, IoOperation::Sync]);
        disk.set_faults(
            FaultPlan::new().with(rule.path("manifest").nth(nth).repeat(Repeat::Forever)),
        );
        let config = small().disk(Arc::new(disk.clone()));
        let made = Store::create("/store", config);
        if disk.faults_struck() == 0 || made.is_ok() {
            break;
        }
        let left: Vec<_> = disk.visible_image().paths();
        assert!(!left.iter().any(|path| path.contains("manifest")), "write {nth}: {left:?}");
        refused += 1;
    }
    assert!(1 < refused, "the file is written in several pieces");
}

/// Writers that find no memory for their vectors leave enough of it for deletes.
#[test]
fn deletes_are_taken_when_vectors_are_not() {
    let (directory, disk, config) = faulty();
    let store = Store::create(directory.path().join("store"), config).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    (0..3).for_each(|part| put_segment(&database, part * 300..part * 300 + 300));
    disk.set(FULL);
    let mut next = 900;
    let refused = loop {
        match database.put(next, &vector(next, DIMENSION)) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(refused.is_disk_full(), "{refused}");
    delete(&database, 0..900);
    assert_eq!(database.count().unwrap(), next - 900);
    assert!((900..next).all(|id| database.get(id).unwrap().is_some()));
}
