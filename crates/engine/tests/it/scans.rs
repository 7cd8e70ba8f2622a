//! Scans: beside point reads, in large transfers, through what was updated since.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Waker},
};

use nephrite::{
    CachePolicy, Config, DatabaseOptions, Durability, Error, Ids,
    blocking::{Database, Store},
};
use nephrite_format::BLOCK_BYTES;
use nephrite_io::Disk;
use tempfile::TempDir;

use crate::{
    fault_disk::{Fail, FaultDisk, faulty_store},
    support::{backend, new_store, vector},
};

const IDS: u64 = 20_000;
const HOT: u64 = 100;

fn config() -> Config {
    Config::new().memory_limit(8 << 20).memtable_bytes(1 << 20).backend(backend())
}

/// Ids that lie on pages of their own.
fn hot() -> impl Iterator<Item = u64> {
    (0..HOT).map(|at| at * (IDS / HOT))
}

#[test]
fn scans_of_everything_leave_in_the_cache_what_is_read_by_id() {
    let (directory, store) = new_store(config());
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    (0..IDS).for_each(|id| database.put(id, &vector(id, 128)).unwrap());
    // Else one may run meanwhile, and what it replaces is in the cache no more.
    database.compact().unwrap();
    store.close().unwrap();

    for policy in CachePolicy::ALL {
        let config = config().cache_policy(policy);
        let store = Store::open(directory.path().join("store"), config).unwrap();
        let database = store.database("a").unwrap();
        let read = || hot().for_each(|id| assert!(database.get(id).unwrap().is_some()));
        (0..4).for_each(|_| read());

        // Ten megabytes through a cache of four, several times.
        for _ in 0..4 {
            assert_eq!(database.scan().unwrap().count() as u64, IDS);
        }
        let before = store.stats().io.reads;
        read();

        let loaded = store.stats().io.reads - before;
        assert!(loaded <= HOT / 20, "{policy}: {loaded} pages of {HOT} had gone");
        store.close().unwrap();
    }
}

/// On a disk of which operations may fail, with room for batches of [`load`].
fn roomy() -> (TempDir, Arc<FaultDisk>, Store, Database) {
    faulty_store(|config| config.memory_limit(8 << 20).memtable_bytes(1 << 20))
}

/// Vectors of 128 values, eight to a page, under consecutive ids.
fn load(database: &Database, count: u64) {
    let ids: Vec<u64> = (0..count).collect();
    for ids in ids.chunks(1000) {
        let vectors: Vec<f32> = ids.iter().flat_map(|id| vector(*id, 128)).collect();
        database.put_many(Ids::U64(ids), &vectors, Durability::Buffered).unwrap();
    }
}

/// Every id in order with the vector of its stamp, and nothing else.
fn assert_scan(database: &Database, expected: impl IntoIterator<Item = (u64, u64)>) {
    let mut expected = expected.into_iter();
    for row in database.scan().unwrap() {
        let (id, found) = row.unwrap();
        let (wanted, stamp) = expected.next().unwrap();
        assert_eq!(id, wanted.into());
        assert!(found == vector(stamp, 128)[..], "id {wanted} has another vector");
    }
    assert_eq!(expected.next(), None, "the scan ended early");
}

/// A store of all ids that is closed and has nothing to compact: a compaction beside a scan reads
/// and holds memory, too.
fn compacted(config: Config) -> TempDir {
    let (directory, store) = new_store(config);
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    load(&database, IDS);
    database.compact().unwrap();
    drop(database);
    store.close().unwrap();
    directory
}

/// With nothing of it in memory.
fn opened(directory: &TempDir, config: Config) -> (Store, Database) {
    let store = Store::open(directory.path().join("store"), config).unwrap();
    let database = store.database("a").unwrap();
    (store, database)
}

#[test]
fn a_scan_reads_many_pages_in_one_transfer() {
    let directory = compacted(config());
    let (store, database) = opened(&directory, config());

    assert_scan(&database, (0..IDS).map(|id| (id, id)));

    let (pages, reads) = (IDS / 8, store.stats().io.reads);
    assert!(reads < pages / 16, "{reads} reads for {pages} pages");
    assert_eq!(store.stats().work_bytes, 0, "what was read ahead is given back");
}

/// A segment of the memory of a memtable ends within a transfer, and the next one begins there: the
/// second transfer of such a piece may find no memory.
#[test]
fn a_scan_goes_from_segment_to_segment_in_transfers() {
    let config = || config().memory_limit(44 << 20).memtable_bytes(5 << 20);
    let count = 2 * IDS;
    let (directory, store) = new_store(config());
    load(&store.create_database("a", DatabaseOptions::new(128)).unwrap(), count);
    store.close().unwrap();
    let (store, database) = opened(&directory, config());
    let segments = database.stats().unwrap().segments;
    let before = store.stats().io.reads;

    assert_scan(&database, (0..count).map(|id| (id, id)));

    let reads = store.stats().io.reads - before;
    assert!(4 <= segments, "{segments} segments");
    assert!(reads < 16 * segments, "{reads} reads of {segments} segments");
}

#[test]
fn a_transfer_of_a_scan_does_not_wait_for_the_page_of_its_checksums() {
    let (directory, _, store, database) = roomy();
    load(&database, 2000);
    drop(database);
    store.close().unwrap();
    let path = directory.path().join("store");
    let disk = FaultDisk::new(directory.path());
    let store = Store::open(&path, Config::new().disk(Arc::clone(&disk) as Arc<dyn Disk>)).unwrap();
    let database = store.database("a").unwrap();
    let mut scan = pollster::block_on(database.as_async().scan()).unwrap();
    disk.take_largest_read();
    disk.set(Fail::HoldsReadsOfBlocks);

    let mut next = pin!(scan.next());
    while !disk.holds() {
        let mut context = Context::from_waker(Waker::noop());
        assert!(next.as_mut().poll(&mut context).is_pending(), "its checksums are held back");
        std::thread::yield_now();
    }

    assert!(BLOCK_BYTES as u64 * 4 < disk.take_largest_read());
    disk.set(Fail::Nothing);
    assert_eq!(pollster::block_on(next).unwrap().unwrap().0, 0.into());
}

/// Where few pages of a transfer were missing they were read into the cache one by one, into frames
/// of pages which the scan came to next: so it went on, through all that the cache held.
#[test]
fn scans_of_more_than_the_cache_holds_do_not_drive_out_what_they_come_to_next() {
    let (count, config) = (2 * IDS, || config().memory_limit(16 << 20));
    let (directory, store) = new_store(config());
    load(&store.create_database("a", DatabaseOptions::new(128)).unwrap(), count);
    store.database("a").unwrap().compact().unwrap();
    store.close().unwrap();
    let (store, database) = opened(&directory, config());

    for number in 0..5 {
        let before = store.stats().io.reads;
        assert_eq!(database.scan().unwrap().count() as u64, count);

        let (pages, reads) = (count / 8, store.stats().io.reads - before);
        assert!(reads < pages / 16, "{reads} reads for {pages} pages in scan {number}");
    }
}

#[test]
fn vectors_of_a_scan_that_are_kept_stay_what_they_are_and_keep_little_else() {
    keep_vectors_of_a_scan(config, 512 << 10);
    // From 32 MiB on scans read into huge pages.
    keep_vectors_of_a_scan(|| config().memory_limit(64 << 20), 4 << 20);
}

fn keep_vectors_of_a_scan(config: impl Fn() -> Config, held_max: u64) {
    let directory = compacted(config());
    for every in [1, 700] {
        let (store, database) = opened(&directory, config());
        let rows = database.scan().unwrap().map(Result::unwrap).enumerate();
        let kept: Vec<_> = rows.filter(|(at, _)| at % every == 0).map(|(_, row)| row).collect();

        let held = store.stats().work_bytes;
        assert!(0 < held && held <= held_max, "{held} bytes are held by one in {every}");
        for ((id, found), wanted) in kept.iter().zip((0..IDS).step_by(every)) {
            assert_eq!(*id, wanted.into());
            assert!(*found == vector(wanted, 128)[..], "id {wanted} has another vector");
        }
        drop(kept);
        assert_eq!(store.stats().work_bytes, 0);
        drop(database);
        store.close().unwrap();
    }
}

#[test]
fn a_scan_that_fits_leaves_everything_in_memory() {
    let config = || Config::new().memory_limit(32 << 20).backend(backend());
    let (directory, store) = new_store(config());
    load(&store.create_database("a", DatabaseOptions::new(128)).unwrap(), IDS);
    store.close().unwrap();
    let store = Store::open(directory.path().join("store"), config()).unwrap();
    let database = store.database("a").unwrap();

    assert_eq!(database.scan().unwrap().count() as u64, IDS);

    assert!((0..IDS).all(|id| database.as_async().try_get(id).unwrap().is_some()));
}

#[test]
fn a_scan_goes_through_updates_and_deletes_in_newer_segments_and_in_memory() {
    let (_directory, store) = new_store(config());
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    load(&database, 5000);
    store.flush().unwrap();
    let updated = |id: u64| id.is_multiple_of(10);
    let deleted = |id: u64| id % 10 == 3;
    for id in (0..5000).filter(|id| updated(*id)) {
        database.put(id, &vector(id + 10_000, 128)).unwrap();
    }
    store.flush().unwrap();
    (0..5000).filter(|id| deleted(*id)).for_each(|id| assert!(database.delete(id).unwrap()));
    for id in 5000..5100 {
        database.put(id, &vector(id, 128)).unwrap();
    }

    let stamp = |id: u64| if id < 5000 && updated(id) { id + 10_000 } else { id };
    let left = (0..5100).filter(|id| 5000 <= *id || !deleted(*id));
    assert_scan(&database, left.map(|id| (id, stamp(id))));
}

#[test]
fn a_scan_whose_reads_fail_says_so_and_goes_on_when_they_work_again() {
    let (_directory, disk, store, database) = roomy();
    load(&database, 10_000);
    store.flush().unwrap();
    let async_database = database.as_async();
    let mut scan = pollster::block_on(async_database.scan()).unwrap();
    let mut found = 0;
    let next = |scan: &mut nephrite::Scan| pollster::block_on(scan.next());
    while found < 1000 {
        next(&mut scan).unwrap().unwrap();
        found += 1;
    }

    disk.set(Fail::Reads(".seg"));
    let failed = loop {
        match next(&mut scan) {
            Ok(row) => found += u64::from(row.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(failed, Error::Io(_)), "{failed:?}");
    assert!(0 < disk.failed.load(Ordering::Relaxed));
    disk.set(Fail::Nothing);

    while next(&mut scan).unwrap().is_some() {
        found += 1;
    }
    assert_eq!(found, 10_000, "nothing is left out and nothing comes twice");
}
