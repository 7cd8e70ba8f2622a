//! A disk without one free block: the reserve gives way to deletes and to nobody else, whoever
//! goes away meanwhile, and vectors are taken again when there is room.

use std::{
    future::Future,
    sync::Arc,
    task::{Context, Waker},
};

use nephrite::{
    Config, DatabaseOptions, Durability,
    blocking::{Database, Store},
};
use nephrite_io::{
    IoOperation,
    sim::{Errno, Fault, FaultPlan, FaultRule, Repeat, SimDisk, SimOptions},
};

use crate::{
    fault_disk::{Fail, faulty},
    support::{ends, small, vector},
};

const STORE: &str = "/store";
const DIMENSION: usize = 256;
/// Of the disk.
const BYTES: u64 = 10 << 20;
/// Of the reserve, before a log segment has been full.
const LEAST_BYTES: u64 = 256 << 10;
/// More than the flush of a few deletes takes, and less than the rewrite of a segment.
const SLACK_BYTES: u64 = 56 << 10;
/// Bytes per second of a compaction that lasts.
const SLOW: u64 = 1 << 20;

fn cramped() -> (SimDisk, Config) {
    let disk = SimDisk::new(SimOptions::new(1).immediate().capacity(BYTES));
    let config = small().garbage_percent(90).disk(Arc::new(disk.clone()));
    (disk, config)
}

fn options() -> DatabaseOptions {
    DatabaseOptions::new(u32::try_from(DIMENSION).unwrap())
}

/// Puts ids until the disk is full, then lets others take its last block.
fn fill(disk: &SimDisk, database: &Database) -> u64 {
    for id in 0..1_000_000 {
        let Err(error) = database.put(id, &vector(id, DIMENSION)) else { continue };
        assert!(error.is_disk_full(), "{error}");
        disk.set_capacity(Some(disk.used()));
        return id;
    }
    panic!("a million vectors found room")
}

#[track_caller]
fn delete(database: &Database, ids: impl Iterator<Item = u64>, durability: Durability) {
    for id in ids {
        let deleted = database.delete_with(id, durability);
        assert!(deleted.unwrap_or_else(|error| panic!("id {id}: {error}")), "id {id}");
    }
}

fn all_deletes_are_taken(durability: Durability, goes: fn(u64) -> bool) {
    let (disk, config) = cramped();
    let store = Store::create(STORE, config.clone()).unwrap();
    let database = store.create_database("a", options()).unwrap();
    let count = fill(&disk, &database);
    assert!(3_000 < count, "{count} vectors of 1 KiB fit");
    delete(&database, (0..count).filter(|id| goes(*id)), durability);
    store.compact().unwrap();
    assert!(disk.used() < BYTES * 3 / 4, "{} bytes are left in use", disk.used());
    (count..count + 1_000).for_each(|id| database.put(id, &vector(id, DIMENSION)).unwrap());
    store.close().unwrap();
    drop((database, store));

    let store = Store::open(STORE, config.disk(Arc::new(disk.reopen()))).unwrap();
    let database = store.database("a").unwrap();
    for id in 0..count + 1_000 {
        let expected = (count <= id || !goes(id)).then(|| vector(id, DIMENSION));
        assert_eq!(database.get(id).unwrap().as_deref(), expected.as_deref(), "id {id}");
    }
}

#[test]
fn deletes_in_order_are_taken() {
    ends(|| all_deletes_are_taken(Durability::Buffered, |_| true));
}

#[test]
fn scattered_deletes_are_taken() {
    ends(|| all_deletes_are_taken(Durability::Buffered, |id| !id.is_multiple_of(4)));
}

/// Each takes a block of the log, and the segment of few deletes takes several.
#[test]
fn synced_deletes_are_taken() {
    ends(|| all_deletes_are_taken(Durability::Synced, |_| true));
}

#[test]
fn scattered_synced_deletes_are_taken() {
    ends(|| all_deletes_are_taken(Durability::Synced, |id| !id.is_multiple_of(4)));
}

/// Callers once held what made room for all while they waited for it.
#[test]
fn a_delete_that_is_never_polled_again_keeps_nobody_waiting() {
    ends(|| {
        let (disk, config) = cramped();
        let store = Store::create(STORE, config).unwrap();
        let databases = ["a", "b"].map(|name| store.create_database(name, options()).unwrap());
        databases[1].put(7, &vector(7, DIMENSION)).unwrap();
        let count = fill(&disk, &databases[0]);
        let mut context = Context::from_waker(Waker::noop());
        let mut left = Vec::new();
        // Some of them are refused, and ask for room, in their first poll.
        for id in 0..count / 2 {
            let database = databases[0].as_async().clone();
            let mut delete =
                Box::pin(async move { database.delete_with(id, Durability::Synced).await });
            if delete.as_mut().poll(&mut context).is_pending() && left.len() < 64 {
                left.push(delete);
            }
        }
        assert!(!left.is_empty());
        delete(&databases[0], count / 2..count, Durability::Synced);
        delete(&databases[1], 7..8, Durability::Synced);
        // Those that read when they were left keep what they read, and so its room.
        drop(left);
        store.compact().unwrap();
        databases[1].put(8, &vector(8, DIMENSION)).unwrap();
        store.close().unwrap();
    });
}

/// Each refused put once filled the disk to see whether there was room for the reserve.
#[test]
fn refused_puts_take_nothing_from_the_disk() {
    ends(|| {
        let (disk, config) = cramped();
        let store = Store::create(STORE, config).unwrap();
        let database = store.create_database("a", options()).unwrap();
        let count = fill(&disk, &database);
        let reserve = reserve_bytes(&disk);
        assert!(reserve != 0);
        // What flushes had in hand may still let some in.
        let count = put_until_all_are_refused(&database, count);
        assert_eq!(reserve_bytes(&disk), reserve, "the reserve is not for vectors");

        // Others take what deletes have of it at once. Then there is room, but not for all of it.
        disk.set_capacity(Some(disk.used() / 2));
        let refused = (0..count).any(|id| database.delete_with(id, Durability::Synced).is_err());
        assert!(refused && reserve_bytes(&disk) < reserve);
        disk.set_capacity(Some(disk.used() + (8 << 10)));
        let writes = FaultRule::new(Fault::Error(Errno::NoSpace), &[IoOperation::Write]);
        let writes = writes.path("RESERVE").repeat(Repeat::Forever);
        disk.set_faults(FaultPlan::new().with(writes));
        let count = put_until_all_are_refused(&database, count);
        assert_eq!(disk.faults_struck(), 0, "the room for the reserve is asked for, not tried");
        disk.set_faults(FaultPlan::new());

        // The shortage is over: puts may be told of the flush that failed until one succeeds, which
        // they ask for, and the first that finds memory makes the reserve whole.
        disk.set_capacity(None);
        while database.put(count, &vector(count, DIMENSION)).is_err() {
            std::thread::yield_now();
        }
        assert_eq!(reserve_bytes(&disk), reserve);
    });
}

/// When the reserve was used up, free log files once lay there while no segment could be rewritten
/// for want of a few blocks, until deletes had filled them, and the next flush found no room.
#[test]
fn free_log_files_make_room_for_rewrites() {
    ends(|| {
        let (disk, config) = cramped();
        let store = Store::create(STORE, config).unwrap();
        // So few segments in each that no compaction is due.
        let databases: Vec<_> =
            (0..8).map(|at| store.create_database(&format!("a{at}"), options()).unwrap()).collect();
        for database in &databases {
            for ids in [0..200, 200..400, 400..600] {
                ids.for_each(|id| database.put(id, &vector(id, DIMENSION)).unwrap());
                database.flush().unwrap();
            }
        }
        let reserve = reserve_bytes(&disk) as u64;
        assert!(LEAST_BYTES < reserve, "{reserve}");
        // Others take nearly all that it has, as it gives way.
        disk.set_capacity(Some(disk.used() - reserve + SLACK_BYTES));
        for database in &databases {
            delete(database, (0..600_u64).filter(|id| !id.is_multiple_of(4)), Durability::Synced);
        }
        store.compact().unwrap();
        store.close().unwrap();
    });
}

/// A compaction that nobody had asked for once went on with the room that a relief found, and took
/// what the reserve gave to it.
#[test]
fn what_is_due_ends_when_deletes_need_room() {
    ends(|| {
        let (disk, config) = cramped();
        let config = config.garbage_percent(10).compaction_bytes_per_second(Some(SLOW));
        let store = Store::create(STORE, config).unwrap();
        let [database, other] =
            ["a", "b"].map(|name| store.create_database(name, options()).unwrap());
        for database in [&database, &other] {
            (0..2_000).for_each(|id| database.put(id, &vector(id, DIMENSION)).unwrap());
            database.compact().unwrap();
        }
        let outputs = || {
            let files = segment_files(&disk) as u64;
            files - files.min(database.stats().unwrap().segments + other.stats().unwrap().segments)
        };
        while outputs() != 0 {
            std::thread::yield_now(); // inputs that are about to be removed
        }
        // Garbage that is due, and not urgent: the output is there, and grows for seconds.
        (0..240).for_each(|id| database.put(id, &vector(id, DIMENSION)).unwrap());
        database.flush().unwrap();
        while outputs() == 0 {
            std::thread::yield_now();
        }
        let before = store.stats();
        // No log beyond the files that there are: deletes need a relief, and it would go on.
        let logs = FaultRule::new(Fault::Error(Errno::NoSpace), &[IoOperation::Open]);
        disk.set_faults(FaultPlan::new().with(logs.path(".wal").repeat(Repeat::Forever)));
        let mut deletes = (0..2_000).map(|id| (id, other.delete_with(id, Durability::Synced)));
        let refused = deletes.find_map(|(id, deleted)| Some((id, deleted.err()?)));
        let (left, error) = refused.expect("the log files that there are have been filled");
        assert!(error.is_disk_full(), "{error}");
        assert!(before.compactions_failed < store.stats().compactions_failed);
        disk.set_faults(FaultPlan::new());
        delete(&other, left..2_000, Durability::Synced);
        store.compact().unwrap();
        store.close().unwrap();
    });
}

/// A disk that does not say what room it has: that the reserve may not grow there once kept it from
/// being made whole as well, and vectors waited for ten seconds behind a shortage that was over.
#[test]
fn a_reserve_that_may_not_grow_is_made_whole_at_once() {
    ends(|| {
        let (directory, disk, config) = faulty();
        let path = directory.path().join("store");
        let store = Store::create(&path, config.garbage_percent(90)).unwrap();
        let database = store.create_database("a", options()).unwrap();
        let put = |id| database.put_with(id, &vector(id, DIMENSION), Durability::Synced).unwrap();
        // A block of the log each: a segment of it is full when the flush task looks.
        (0..150).for_each(put);
        database.flush().unwrap();
        (0..75).for_each(put);
        database.flush().unwrap();
        disk.set(Fail::Writes(".seg", std::io::ErrorKind::StorageFull));
        assert!(database.compact().is_err_and(|error| error.is_disk_full()));
        disk.set(Fail::Nothing);
        put(150);
        store.close().unwrap();
    });
}

/// Puts ids from this one on until a hundred puts in a row are refused; the next id.
fn put_until_all_are_refused(database: &Database, mut id: u64) -> u64 {
    let mut refused = 0;
    while refused < 100 {
        match database.put_with(id, &vector(id, DIMENSION), Durability::Synced) {
            Ok(()) => (id, refused) = (id + 1, 0),
            Err(error) => {
                assert!(error.is_disk_full(), "{error}");
                refused += 1;
            }
        }
    }
    id
}

/// What an attempt had left was once taken for progress, and the attempt made again, for ever.
#[test]
fn a_manifest_that_is_full_refuses_deletes_and_they_end() {
    ends(|| {
        let (disk, config) = cramped();
        let store = Store::create(STORE, config).unwrap();
        let database = store.create_database("a", options()).unwrap();
        // So that it is at its end before all are deleted.
        (0..120).for_each(|at| drop(store.create_database(&format!("b{at}"), options()).unwrap()));
        let count = fill(&disk, &database);
        let next = FaultRule::new(Fault::Error(Errno::NoSpace), &[IoOperation::Open]);
        disk.set_faults(FaultPlan::new().with(next.path(".tmp").repeat(Repeat::Forever)));
        let deletes = (0..count).map(|id| (id, database.delete_with(id, Durability::Synced)));
        let refused = deletes.into_iter().find_map(|(id, deleted)| Some((id, deleted.err()?)));
        let (first, error) = refused.expect("each relief takes some of the manifest's room");
        assert!(error.is_disk_full(), "{error}");
        assert!(store.compact().is_err());
        let segments = segment_files(&disk);
        let known = database.stats().unwrap().segments;
        assert!(segments as u64 <= known + 8, "{segments} files for {known} segments");

        disk.set_faults(FaultPlan::new());
        delete(&database, first..count, Durability::Synced);
        store.compact().unwrap();
        assert_eq!(database.count().unwrap(), 0);
    });
}

fn segment_files(disk: &SimDisk) -> usize {
    let image = disk.visible_image();
    image.paths().iter().filter(|path| path.ends_with(".seg")).count()
}

fn reserve_bytes(disk: &SimDisk) -> usize {
    let image = disk.visible_image();
    let path = image.paths().into_iter().find(|path| path.ends_with("RESERVE"));
    path.and_then(|path| image.file(path.as_ref()).map(|bytes| bytes.len())).unwrap_or(0)
}

/// A segment with little garbage once kept those behind it from being rewritten.
#[test]
fn a_segment_that_is_not_worth_it_is_passed_over() {
    ends(|| {
        let (disk, config) = cramped();
        let store = Store::create(STORE, config).unwrap();
        let database = store.create_database("a", options()).unwrap();
        let other = store.create_database("other", options()).unwrap();
        for (database, ids) in [(&database, 1_000..1_800), (&other, 0..1_000), (&database, 0..150)]
        {
            let small = ids.end == 150;
            ids.for_each(|id| database.put(id, &vector(id, DIMENSION)).unwrap());
            if small { database.flush().unwrap() } else { database.compact().unwrap() }
        }
        delete(&database, 0..1, Durability::Buffered);
        delete(&database, 1_000..1_600, Durability::Buffered);
        database.flush().unwrap();
        let before = database.stats().unwrap().segment_bytes;
        disk.set_capacity(Some(disk.used()));
        // Until the log has no room left, and a relief looks for garbage.
        let after = |database: &Database| database.stats().unwrap().segment_bytes;
        let mut id = 0;
        while before <= after(&database) && id < 900 {
            delete(&other, id..id + 1, Durability::Synced);
            id += 1;
        }
        let given_back = before.saturating_sub(after(&database));
        assert!(600 << 10 <= given_back, "{given_back} bytes came back by {id}");
        assert_eq!(database.count().unwrap(), 149 + 200);
    });
}
