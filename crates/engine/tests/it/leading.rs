//! Writers that commit their own frames: those of the blocking API, when nobody is at the log.
//!
//! What a crash leaves is the matter of the simulation, whose clients lead now and then; a sync
//! that fails under a leader is in `faults`, whose writers block.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use nephrite::{
    DatabaseOptions, Durability,
    blocking::{Database, Store},
    led,
};
use nephrite_io::{Disk, block_on};
use tempfile::TempDir;

use crate::{
    fault_disk::{Fail, FaultDisk, faulty},
    support::{ends, vector},
};

/// Writes until one is seen on the thread that it was expected on.
const WRITES_MAX: u64 = 10_000;

struct Fixture {
    // In the order in which they are to go.
    database: Database,
    store: Store,
    disk: Arc<FaultDisk>,
    _directory: TempDir,
}

fn fixture() -> Fixture {
    let (directory, disk, config) = faulty();
    let store = Store::create(directory.path().join("store"), config).unwrap();
    let database = store.create_database("d", DatabaseOptions::new(4)).unwrap();
    Fixture { database, store, disk, _directory: directory }
}

fn put(database: &Database, id: u64) {
    database.put_with(id, &vector(id, 4), Durability::Synced).unwrap();
}

/// Runs `work` on a thread of this name.
fn on_thread(name: &str, work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn_scoped(scope, work).unwrap();
    });
}

fn is_pending(future: Pin<&mut impl Future>) -> bool {
    matches!(future.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

#[test]
fn a_lone_blocking_writer_writes_the_log_itself() {
    let Fixture { database, disk, .. } = &fixture();
    on_thread("writer", || {
        let mut ids = 0..WRITES_MAX;
        while disk.durable_writes_of("writer") == 0 {
            put(database, ids.next().expect("one of them finds the log free"));
        }
    });
}

#[test]
fn a_task_leaves_the_log_to_the_engines_thread() {
    let Fixture { database, disk, .. } = &fixture();
    on_thread("writer", || {
        for id in 0..100 {
            let value = vector(id, 4);
            block_on(database.as_async().put_with(id, &value, Durability::Synced)).unwrap();
        }
    });
    assert_eq!(disk.durable_writes_of("writer"), 0);
}

#[test]
fn a_commit_whose_leader_is_dropped_comes_to_its_end() {
    ends(|| {
        let Fixture { database, store, disk, .. } = &fixture();
        put(database, 1);
        disk.set(Fail::HoldsSyncs(".wal"));
        {
            let value = vector(2, 4);
            let call = database.as_async().put_with(2, &value, Durability::Synced);
            let mut call = pin!(led(call));
            assert!(is_pending(call.as_mut()), "its sync is held back");
            while !disk.holds() {
                // It found the log's task at the log, which then commits it.
                std::thread::yield_now();
            }
        }
        disk.set(Fail::Nothing);
        put(database, 3);
        assert_eq!(database.get(2).unwrap().as_deref(), Some(&vector(2, 4)[..]));
        store.close().unwrap();
    });
}

#[test]
fn who_comes_while_somebody_leads_is_committed_after_it() {
    ends(|| {
        let Fixture { database, disk, .. } = &fixture();
        put(database, 1);
        disk.set(Fail::HoldsSyncs(".wal"));
        std::thread::scope(|scope| {
            scope.spawn(|| put(database, 2));
            while !disk.holds() {
                std::thread::yield_now();
            }
            let value = vector(3, 4);
            let task = database.as_async();
            let (mut blocked, mut plain) = (
                pin!(led(task.put_with(3, &value, Durability::Synced))),
                pin!(task.put_with(4, &value, Durability::Synced)),
            );
            assert!(is_pending(blocked.as_mut()) && is_pending(plain.as_mut()));
            disk.set(Fail::Nothing);
            block_on(blocked).unwrap();
            block_on(plain).unwrap();
        });
    });
}

#[test]
fn many_blocking_writers_are_all_acknowledged() {
    ends(|| {
        let Fixture { database, store, .. } = &fixture();
        std::thread::scope(|scope| {
            for writer in 0..6 {
                let ids = (0..60).map(move |number| writer << 32 | number);
                scope.spawn(move || ids.for_each(|id| put(database, id)));
            }
        });
        assert_eq!(database.count().unwrap(), 360);
        store.close().unwrap();
    });
}

/// Without the mark, damage of the last frame would pass for a write that was torn.
#[test]
fn the_log_notes_what_is_on_disk_when_a_leader_has_gone() {
    ends(|| {
        let Fixture { database, disk, .. } = &fixture();
        let plain_writes = || {
            let stats = disk.stats();
            stats.writes - stats.synced_writes
        };
        put(database, 1);
        let before = plain_writes();
        put(database, 2);
        while plain_writes() == before {
            std::thread::yield_now();
        }
    });
}
