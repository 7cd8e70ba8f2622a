//! Compaction: space that comes back, readers that notice nothing, counts that stay exact.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nephrite::{
    Batch, Config, DatabaseOptions, Durability, IdKind, IdRef, Ids,
    blocking::{Database, Store},
    runtime::{BoxFuture, OsRuntime, Runtime},
};
use nephrite_io::Disk;

use crate::{
    fault_disk::{Fail, faulty_store},
    support::{ends, new_store, segment_files, small, vector},
};

const DIMENSION: usize = 128;
/// From how much garbage on a database is compacted.
const PERCENT: u64 = nephrite::config::GARBAGE_PERCENT as u64;

/// Small numbers that look random and are always the same.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Lets the compaction task work until it finds nothing more to do.
fn settle(store: &Store, database: &Database) {
    loop {
        let before = (store.stats().compactions, store.stats().files_open);
        let stats = database.stats().unwrap();
        let dead = stats.segment_rows - stats.segment_rows_live;
        let due = stats.garbage_bytes * 100 >= stats.segment_bytes * PERCENT
            && 64 << 10 <= stats.garbage_bytes;
        if !due || dead == 0 && stats.tombstones == 0 {
            return;
        }
        while store.stats().compactions == before.0 {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_churned_database_stays_below_one_and_a_half_times_its_live_bytes() {
    let (directory, store) = new_store(small().memtable_bytes(512 << 10));
    let path = directory.path().join("store");
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    let count = 8_000_u64;
    let rows: Vec<f32> = (0..count).flat_map(|id| vector(id, DIMENSION)).collect();
    for first in (0..count).step_by(500) {
        let from = usize::try_from(first).unwrap() * DIMENSION;
        let part = &rows[from..from + 500 * DIMENSION];
        database.put_many(Ids::Consecutive(first), part, Durability::Buffered).unwrap();
    }
    let mut stamps: Vec<u64> = (0..count).collect();
    let mut numbers = Numbers(1);
    for write in 0..60_000_u64 {
        let id = numbers.below(count);
        let stamp = count + write;
        database.put(id, &vector(stamp, DIMENSION)).unwrap();
        stamps[usize::try_from(id).unwrap()] = stamp;
    }
    store.flush().unwrap();
    settle(&store, &database);
    let stats = database.stats().unwrap();
    let live = stats.records * (DIMENSION as u64) * 4;
    assert!(
        stats.segment_bytes * 2 < live * 3,
        "{} bytes for {live} live ones",
        stats.segment_bytes
    );
    assert!(stats.segments <= 16, "{} segments", stats.segments);
    assert!(store.stats().compactions > 3);
    for (id, stamp) in (0..).zip(&stamps) {
        assert_eq!(&database.get(id).unwrap().unwrap()[..], &vector(*stamp, DIMENSION)[..], "{id}");
    }
    store.close().unwrap();
    let on_disk: u64 = segment_files(&path).iter().sum();
    assert!(on_disk * 2 < live * 3, "{on_disk} bytes on disk for {live} live ones");
}

/// Rows that a flush buried in a segment while it was being compacted were forgotten on disk.
#[test]
fn live_rows_are_counted_exactly_under_compactions_and_over_restarts() {
    let config = small().memtable_bytes(64 << 10).garbage_percent(10);
    let (directory, store) = new_store(config.clone());
    let path = directory.path().join("store");
    let options = DatabaseOptions::new(32).id_kind(IdKind::Bytes);
    let mut database = store.create_database("a", options).unwrap();
    let mut store = store;
    let mut model: BTreeMap<String, u64> = BTreeMap::new();
    let mut numbers = Numbers(7);
    for round in 0..6 {
        for step in 0..3_000 {
            let name = format!("id {:04}", numbers.below(4_000));
            let id = IdRef::Bytes(name.as_bytes());
            if numbers.below(4) == 0 {
                assert_eq!(database.delete(id).unwrap(), model.remove(&name).is_some(), "{name}");
            } else {
                database.put(id, &vector(step, 32)).unwrap();
                model.insert(name, step);
            }
        }
        store.flush().unwrap();
        let stats = database.stats().unwrap();
        assert_eq!(stats.records, model.len() as u64, "round {round}");
        assert_eq!(stats.segment_rows_live, stats.records, "round {round}");
        if round % 2 == 1 {
            drop(database);
            store.close().unwrap();
            store = Store::open(&path, config.clone()).unwrap();
            database = store.database("a").unwrap();
            let stats = database.stats().unwrap();
            assert_eq!(stats.segment_rows_live, model.len() as u64, "after reopening in {round}");
        }
    }
    let mut scanned = 0;
    for found in database.scan().unwrap() {
        let (id, vector_found) = found.unwrap();
        let IdRef::Bytes(name) = id.as_id_ref() else { panic!("{id:?}") };
        let stamp = model[std::str::from_utf8(name).unwrap()];
        assert_eq!(&vector_found[..], &vector(stamp, 32)[..]);
        scanned += 1;
    }
    assert_eq!(scanned, model.len());
    assert!(store.verify(|_| ()).unwrap().is_clean());
}

#[test]
fn compacting_on_demand_leaves_one_segment_without_garbage() {
    let (directory, store) = new_store(small());
    let path = directory.path().join("store");
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    for id in 0..3_000_u64 {
        database.put(id, &vector(id, DIMENSION)).unwrap();
    }
    let mut batch = Batch::new();
    (0..3_000_u64).filter(|id| id % 10 != 0).for_each(|id| {
        batch.delete(id);
    });
    database.batch(batch).unwrap();
    store.compact().unwrap();
    let stats = database.stats().unwrap();
    assert_eq!(
        (stats.records, stats.segments, stats.segment_rows, stats.tombstones),
        (300, 1, 300, 0)
    );
    assert_eq!(stats.garbage_bytes, 0);
    for id in 0..3_000_u64 {
        let found = database.get(id).unwrap();
        assert_eq!(found.is_some(), id % 10 == 0, "id {id}");
        found.into_iter().for_each(|found| assert_eq!(&found[..], &vector(id, DIMENSION)[..]));
    }
    // Nothing is left of a database without ids.
    (0..3_000_u64).step_by(10).for_each(|id| assert!(database.delete(id).unwrap()));
    database.compact().unwrap();
    assert_eq!(database.stats().unwrap().segments, 0);
    store.close().unwrap();
    assert!(segment_files(&path).is_empty());
}

#[test]
fn consecutive_ids_stay_consecutive_when_they_are_merged() {
    let (_directory, store) = new_store(small());
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    for first in (0..4_000_u64).step_by(400) {
        let rows: Vec<f32> = (first..first + 400).flat_map(|id| vector(id, DIMENSION)).collect();
        database.put_many(Ids::Consecutive(first), &rows, Durability::Buffered).unwrap();
        database.flush().unwrap();
    }
    database.compact().unwrap();
    let stats = database.stats().unwrap();
    assert_eq!((stats.segments, stats.segment_rows), (1, 4_000));
    // Header, rows (8 to a page), checksums, footer: no page of ids.
    assert!(stats.segment_bytes <= 4_096 * (1 + 500 + 2 + 1), "{}", stats.segment_bytes);
    for id in (0..4_000).step_by(37) {
        assert_eq!(&database.get(id).unwrap().unwrap()[..], &vector(id, DIMENSION)[..]);
    }
}

#[test]
fn a_snapshot_reads_on_and_its_files_go_with_it() {
    let (directory, store) = new_store(small());
    let path = directory.path().join("store");
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    for id in 0..1_000_u64 {
        database.put(id, &vector(id, DIMENSION)).unwrap();
    }
    database.flush().unwrap();
    let snapshot = database.snapshot().unwrap();
    assert_eq!(store.stats().snapshots, 1);
    for round in 1..4_u64 {
        for id in 0..1_000_u64 {
            database.put(id, &vector(id + round * 10_000, DIMENSION)).unwrap();
        }
        database.compact().unwrap();
    }
    for id in (0..1_000_u64).step_by(13) {
        assert_eq!(&snapshot.get(id).unwrap().unwrap()[..], &vector(id, DIMENSION)[..]);
        let newest = database.get(id).unwrap().unwrap();
        assert_eq!(&newest[..], &vector(id + 30_000, DIMENSION)[..]);
    }
    assert_eq!(snapshot.scan().unwrap().count(), 1_000);
    drop(snapshot);
    assert_eq!(store.stats().snapshots, 0);
    assert_eq!(store.stats().snapshot_age_max_micros, 0);
    while segment_files(&path).len() > 1 {
        std::thread::yield_now(); // the compaction task removes them
    }
}

#[test]
fn a_full_disk_fails_a_compaction_and_nothing_else() {
    // Nothing is due by itself: what compactions find is what was flushed here.
    let (directory, disk, store, database) = faulty_store(|config| config.garbage_percent(90));
    put_and_flush(&database, 0..240, 0);
    put_and_flush(&database, 0..120, 1_000);
    disk.set(Fail::Writes(".seg", std::io::ErrorKind::StorageFull));
    let refused = database.compact();
    assert!(matches!(&refused, Err(error) if error.is_disk_full()), "{refused:?}");
    assert_eq!(&database.get(7).unwrap().unwrap()[..], &vector(1_007, DIMENSION)[..]);
    let stats = database.stats().unwrap();
    assert_eq!((stats.segments, stats.segment_rows), (2, 360));
    let files = segment_files(&directory.path().join("store")).len() as u64;
    assert!(files <= stats.segments + 1, "{files} files for {} segments", stats.segments);
    disk.set(Fail::Nothing);
    database.put_with(5, &vector(5, DIMENSION), Durability::Synced).unwrap();
    database.compact().unwrap();
    assert_eq!(database.stats().unwrap().segments, 1);
    assert_eq!(database.count().unwrap(), 240);
    assert!(store.verify(|_| ()).unwrap().is_clean());
    drop(disk as Arc<dyn Disk>);
}

/// What nobody reads any more goes without a write, so that a compaction succeeds without room, and
/// leaves the merge of the rest for later. A test that took this for a failure failed when a
/// memtable happened to end between two rounds of the same ids.
#[test]
fn a_full_disk_gives_back_segments_of_which_nothing_is_left() {
    let (_directory, disk, store, database) = faulty_store(|config| config.garbage_percent(90));
    put_and_flush(&database, 0..240, 0);
    put_and_flush(&database, 0..120, 1_000);
    put_and_flush(&database, 120..240, 1_000);
    disk.set(Fail::Writes(".seg", std::io::ErrorKind::StorageFull));
    database.compact().unwrap();
    assert_ne!(disk.failed.load(Ordering::Relaxed), 0, "the merge was tried");
    let stats = database.stats().unwrap();
    assert_eq!((stats.segments, stats.segment_rows, stats.garbage_bytes), (2, 240, 0));
    assert_eq!(&database.get(7).unwrap().unwrap()[..], &vector(1_007, DIMENSION)[..]);
    disk.set(Fail::Nothing);
    database.compact().unwrap();
    assert_eq!(database.stats().unwrap().segments, 1);
    assert!(store.verify(|_| ()).unwrap().is_clean());
    drop(disk as Arc<dyn Disk>);
}

/// One segment of these ids, each with the vector of its own number and this one.
fn put_and_flush(database: &Database, ids: std::ops::Range<u64>, beyond: u64) {
    ids.for_each(|id| database.put(id, &vector(id + beyond, DIMENSION)).unwrap());
    database.flush().unwrap();
}

#[test]
fn the_budget_slows_a_compaction_and_its_end_does_not_wait_for_it() {
    let slow = Config::new().memory_limit(64 << 20).memtable_bytes(4 << 20);
    let (_directory, store) = new_store(slow.compaction_bytes_per_second(Some(1 << 20)));
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    // Four runs of equal size: worth merging, without garbage that would make it urgent.
    for run in 0..4_u64 {
        let ids: Vec<u64> = (0..4_000).map(|at| at * 4 + run).collect();
        let rows: Vec<f32> = ids.iter().flat_map(|id| vector(*id, DIMENSION)).collect();
        database.put_many(Ids::U64(&ids), &rows, Durability::Buffered).unwrap();
        database.flush().unwrap();
    }
    // 16 MiB at 1 MiB/s: closing must not wait for it.
    store.close().unwrap();
    assert_eq!(store.stats().compactions, 0);
}

/// A flush waited for compactions that failed for ever, and all databases with it.
#[test]
fn a_damaged_segment_ends_the_compactions_of_its_database_and_no_flush() {
    ends(|| {
        let (directory, store) = new_store(small());
        let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
        let other = store.create_database("b", DatabaseOptions::new(128)).unwrap();
        database.put(0, &vector(0, DIMENSION)).unwrap();
        database.put(1_000, &vector(0, DIMENSION)).unwrap();
        database.flush().unwrap();
        let segments = directory.path().join("store").join("segments");
        let file = std::fs::read_dir(segments).unwrap().next().unwrap().unwrap().path();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[4096] ^= 1; // a byte of a vector
        std::fs::write(&file, bytes).unwrap();
        for id in 1..60 {
            // Ranges that meet, and no garbage.
            database.put(1_000 - id, &vector(id, DIMENSION)).unwrap();
            database.put(id, &vector(id, DIMENSION)).unwrap();
            database.flush().unwrap();
        }
        other.put(1, &vector(1, DIMENSION)).unwrap();
        store.flush().unwrap();
        assert!(database.stats().unwrap().segments > 24);
        assert!(store.stats().compactions_failed > 0);
    });
}

/// A runtime in which nobody who sleeps wakes up: what waits for a budget waits for ever.
#[derive(Debug)]
struct Sleepless(OsRuntime);

impl Runtime for Sleepless {
    fn now(&self) -> Duration {
        self.0.now()
    }

    fn sleep(&self, _: Duration) -> BoxFuture<()> {
        Box::pin(std::future::pending())
    }

    fn spawn(&self, name: &str, task: BoxFuture<()>) -> std::io::Result<BoxFuture<()>> {
        self.0.spawn(name, task)
    }

    fn finish(&self, last: BoxFuture<()>) {
        self.0.finish(last);
    }

    fn random_u64(&self) -> u64 {
        self.0.random_u64()
    }

    fn settle(&self) {
        self.0.settle();
    }
}

/// Who asked for a compaction waited until the budget had let another database's end.
#[test]
fn a_caller_does_not_wait_for_the_budget_of_another_database() {
    ends(|| {
        let config = Config::new().memory_limit(64 << 20).memtable_bytes(4 << 20);
        let config = config.compaction_bytes_per_second(Some(1 << 20));
        let (_directory, store) =
            new_store(config.runtime(Arc::new(Sleepless(OsRuntime::default()))));
        let slow = store.create_database("slow", DatabaseOptions::new(128)).unwrap();
        for run in 0..4_u64 {
            let ids: Vec<u64> = (0..4_000).map(|at| at * 4 + run).collect();
            let rows: Vec<f32> = ids.iter().flat_map(|id| vector(*id, DIMENSION)).collect();
            slow.put_many(Ids::U64(&ids), &rows, Durability::Buffered).unwrap();
            slow.flush().unwrap();
        }
        let asked = store.create_database("asked", DatabaseOptions::new(128)).unwrap();
        asked.put(1, &vector(1, DIMENSION)).unwrap();
        asked.flush().unwrap();
        asked.put(1, &vector(2, DIMENSION)).unwrap();
        asked.flush().unwrap();
        asked.compact().unwrap();
        assert_eq!(asked.stats().unwrap().segments, 1);
        store.close().unwrap();
    });
}

/// The files of a dropped database stayed until the compaction that was going on had ended.
#[test]
fn a_slow_compaction_does_not_keep_the_files_of_a_dropped_database() {
    let slow = Config::new().memory_limit(64 << 20).memtable_bytes(4 << 20);
    let (directory, store) = new_store(slow.compaction_bytes_per_second(Some(1 << 20)));
    let path = directory.path().join("store");
    let dropped = store.create_database("dropped", DatabaseOptions::new(128)).unwrap();
    dropped.put(1, &vector(1, DIMENSION)).unwrap();
    dropped.flush().unwrap();
    drop(dropped);
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    for run in 0..4_u64 {
        let ids: Vec<u64> = (0..4_000).map(|at| at * 4 + run).collect();
        let rows: Vec<f32> = ids.iter().flat_map(|id| vector(*id, DIMENSION)).collect();
        database.put_many(Ids::U64(&ids), &rows, Durability::Buffered).unwrap();
        database.flush().unwrap();
    }
    // The output of the compaction is there: five files and it.
    while segment_files(&path).len() < 6 {
        std::thread::yield_now();
    }
    store.drop_database("dropped").unwrap();
    while segment_files(&path).contains(&(4 * 4_096)) {
        std::thread::yield_now();
    }
    assert_eq!(database.stats().unwrap().segments, 4, "the compaction is still going on");
}

/// What is known of the rows of segments follows them into those that replace them, and went on
/// doing so for as long as a snapshot had the first.
#[test]
fn garbage_keeps_no_flush_waiting_that_a_caller_asks_for() {
    let (_directory, store) = new_store(small());
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    let ids: Vec<u64> = (0..20_000).collect();
    for ids in ids.chunks(500) {
        let rows: Vec<f32> = ids.iter().flat_map(|id| vector(*id, DIMENSION)).collect();
        database.put_many(Ids::U64(ids), &rows, Durability::Buffered).unwrap();
    }
    database.flush().unwrap();
    database.compact().unwrap();
    let stalls_before = store.stats().flush_stalls;

    for part in 0..9 {
        let deleted = ids.iter().filter(|id| **id % 20 == part);
        deleted.for_each(|id| assert!(database.delete(*id).unwrap()));
        database.flush().unwrap();
    }

    let stats = store.stats();
    assert_eq!(stats.flush_stalls, stalls_before, "{stats:#?}");
    settle(&store, &database);
    assert_eq!(database.count().unwrap(), 11_000);
}

/// No times here: sooner or later a flush finds a reader's load and its own writes in flight.
#[test]
fn background_writes_wait_while_readers_load_pages() {
    ends(|| {
        let config = small().memory_limit(16 << 20).memtable_bytes(2 << 20);
        let (_directory, store) = new_store(config);
        let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
        let count = 30_000_u64; // twice the cache
        let ids: Vec<u64> = (0..count).collect();
        for part in ids.chunks(1_000) {
            let rows: Vec<f32> = part.iter().flat_map(|id| vector(*id, DIMENSION)).collect();
            database.put_many(Ids::U64(part), &rows, Durability::Buffered).unwrap();
        }
        database.flush().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut numbers = Numbers(3);
                // Relaxed: a read more or less does not matter.
                while !over.load(Ordering::Relaxed) {
                    assert!(database.get(numbers.below(count)).unwrap().is_some());
                }
            });
            let mut numbers = Numbers(4);
            while store.stats().writes_paced == 0 {
                (0..2_000).for_each(|_| {
                    let id = numbers.below(count);
                    database.put(id, &vector(id, DIMENSION)).unwrap();
                });
                database.flush().unwrap();
            }
            over.store(true, Ordering::Relaxed);
        });
    });
}
