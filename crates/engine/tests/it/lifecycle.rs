//! Opening, jobs and closing: what happens when callers give up, and what the end leaves behind.

use std::{
    future::Future,
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use nephrite::{Config, DatabaseOptions, Durability, Error, blocking::Store};
use nephrite_io::Disk;
use pollster::block_on;

use crate::{
    fault_disk::{Fail, FaultDisk, faulty},
    support::{crash_image, new_store, small, vector},
};

/// A store that was killed with records in its log.
fn killed(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("store");
    let store = Store::create(&path, small()).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(16)).unwrap();
    for id in 0..200_u64 {
        database.put_with(id, &vector(id, 16), Durability::Synced).unwrap();
    }
    let image = directory.join("image");
    crash_image(&path, &image);
    image
}

/// Polls a future until `done`; whether it was still pending then.
fn poll_until(mut future: std::pin::Pin<&mut impl Future>, done: impl Fn() -> bool) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if future.as_mut().poll(&mut context).is_ready() {
            return false;
        }
        if done() {
            return true;
        }
        std::thread::yield_now();
    }
}

/// Opens the directory as soon as whoever has it lets go.
fn open_when_free(path: &Path) -> Store {
    loop {
        match Store::open(path, small()) {
            Ok(store) => return store,
            Err(Error::Locked { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The lock was released while the recovery of the dropped call still wrote, and its threads
/// stayed for ever.
#[test]
fn an_open_dropped_in_its_recovery_keeps_the_lock_until_it_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let image = killed(directory.path());
    let disk = FaultDisk::new(directory.path());
    disk.set(Fail::HoldsSyncs(".seg"));
    {
        let config = small().disk(Arc::clone(&disk) as Arc<dyn Disk>);
        let opening = pin!(nephrite::Store::open(&image, config));
        assert!(poll_until(opening, || disk.holds()), "recovery waits for its flush");
    }
    let early = Store::open(&image, small());
    assert!(matches!(early, Err(Error::Locked { .. })), "{early:?}");
    disk.set(Fail::Nothing);
    let store = open_when_free(&image);
    let database = store.database("a").unwrap();
    assert_eq!(database.count().unwrap(), 200);
    assert!(store.verify(|_| ()).unwrap().is_clean());
}

#[test]
fn an_open_may_be_dropped_at_any_poll() {
    let directory = tempfile::tempdir().unwrap();
    let image = killed(directory.path());
    for polls in 0..12 {
        {
            let mut opening = pin!(nephrite::Store::open(&image, small()));
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                if opening.as_mut().poll(&mut context).is_ready() {
                    break;
                }
            }
        }
        let store = open_when_free(&image);
        assert_eq!(store.database("a").unwrap().count().unwrap(), 200, "after {polls} polls");
        store.close().unwrap();
    }
}

#[test]
fn a_create_dropped_early_leaves_a_store_or_none() {
    let directory = tempfile::tempdir().unwrap();
    for polls in 0..8 {
        let path = directory.path().join(format!("store-{polls}"));
        {
            let mut creating = pin!(nephrite::Store::create(&path, small()));
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                if creating.as_mut().poll(&mut context).is_ready() {
                    break;
                }
            }
        }
        // One disk for all attempts: each of its own would have rings of its own.
        let disk = FaultDisk::new(directory.path());
        let store = loop {
            let config = small().disk(Arc::clone(&disk) as Arc<dyn Disk>);
            match Store::open_or_create(&path, config) {
                Ok(store) => break store,
                Err(Error::Locked { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        assert!(store.list().is_empty());
        store.close().unwrap();
    }
}

/// Every flush whose future was dropped left a job behind: a timeout in a loop filled the memory.
#[test]
fn flushes_that_callers_gave_up_do_not_pile_up() {
    let (directory, disk, config) = faulty();
    let store = Store::create(directory.path().join("store"), config).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(16)).unwrap();
    database.put(1, &vector(1, 16)).unwrap();
    disk.set(Fail::HoldsSyncs(".seg"));
    let inner = store.as_async();
    assert!(poll_until(pin!(inner.flush()), || disk.holds()));
    for _ in 0..10_000 {
        assert!(poll_until(pin!(inner.flush()), || true));
    }
    let waiting = store.stats().jobs_waiting;
    assert!(waiting <= 1, "{waiting} jobs wait");
    disk.set(Fail::Nothing);
    store.flush().unwrap();
    assert_eq!(store.stats().jobs_waiting, 0);
}

#[test]
fn databases_are_made_together_and_a_name_once() {
    let (directory, disk, config) = faulty();
    let store = Store::create(directory.path().join("store"), config).unwrap();
    let inner = store.as_async();
    let names: Vec<String> = (0..300).map(|number| format!("database {}", number % 250)).collect();
    let mut made: Vec<_> = names
        .iter()
        .map(|name| Box::pin(inner.create_database(name, DatabaseOptions::new(8))))
        .collect();
    let before = disk.syncs();
    let mut context = Context::from_waker(Waker::noop());
    let mut outcomes = vec![None; made.len()];
    while outcomes.contains(&None) {
        for (future, outcome) in made.iter_mut().zip(&mut outcomes) {
            if outcome.is_none()
                && let Poll::Ready(result) = future.as_mut().poll(&mut context)
            {
                *outcome = Some(result.is_ok());
            }
        }
    }
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Some(true)).count(), 250);
    assert_eq!(store.list().len(), 250);
    let syncs = disk.syncs() - before;
    assert!(syncs < 100, "{syncs} syncs for 250 databases");
}

#[test]
fn verify_counts_up_to_its_total() {
    let (_directory, store) = new_store(Config::new());
    let database = store.create_database("a", DatabaseOptions::new(16)).unwrap();
    for id in 0..500_u64 {
        database.put(id, &vector(id, 16)).unwrap();
    }
    store.flush().unwrap();
    let mut last = (0, 0);
    let progress = |progress: nephrite::VerifyProgress| {
        assert!(last.0 <= progress.bytes && progress.bytes <= progress.bytes_total);
        last = (progress.bytes, progress.bytes_total);
    };
    let report = block_on(store.as_async().verify(progress)).unwrap();
    assert!(report.is_clean());
    assert_eq!(last.0, last.1, "the end is reached");
    assert_eq!(report.bytes, last.1);
}

#[test]
fn a_probe_file_that_goes_by_itself_meanwhile_keeps_no_store_from_opening() {
    let directory = tempfile::tempdir().unwrap();
    let path = killed(directory.path());
    let probe = path.join(".nephrite-probe-1-1");
    std::fs::write(&probe, b"of another process").unwrap();
    let disk = FaultDisk::new(directory.path());
    disk.set(Fail::Removes("nephrite-probe"));

    let store = Store::open(&path, small().disk(disk as Arc<dyn Disk>)).unwrap();

    assert!(!probe.exists());
    assert_eq!(store.database("a").unwrap().count().unwrap(), 200);
    store.close().unwrap();
}
