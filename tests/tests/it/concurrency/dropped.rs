//! Futures dropped at every poll: each operation is polled k times, waiting for its wake-up
//! between polls, and dropped; k goes from 0 to where the operation completes.
//!
//! After each drop the operation was done as a whole or not at all, the database works as before,
//! and nothing stays pinned. At the end the store closes, verifies and opens again.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
};

use nephrite::{Batch, DatabaseOptions, Durability, Error, Id, IdRef, Ids, VectorRef, blocking};
use nephrite_tests::{
    assert_vector, directories::crash_image, new_store, read_stamp, small, vector,
};
use tempfile::TempDir;

/// Wakes a thread and remembers that it did.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls at most `polls` times, each time but the first after a wake-up; `None` when it was
/// dropped before it was ready.
fn poll_and_drop<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    for poll in 0..polls {
        if 0 < poll {
            // May return early, which is a poll without a wake-up: also allowed.
            std::thread::park();
        }
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
    }
    None
}

/// More polls than any operation needs.
const POLLS_MAX: usize = 200;

/// Drops the operation at every poll count until it completes; it must do so several times, with
/// cold and warm caches. `check` is told whether it completed.
fn at_every_poll<T>(
    what: &str,
    mut operation: impl FnMut(usize) -> Option<Result<T, Error>>,
    mut check: impl FnMut(usize, bool),
) {
    let mut completed = 0;
    for polls in 0..POLLS_MAX {
        let outcome = operation(polls);
        let done = match outcome {
            Some(Ok(_)) => true,
            Some(Err(error)) => panic!("{what} after {polls} polls: {error}"),
            None => false,
        };
        check(polls, done);
        completed += usize::from(done);
        if 5 <= completed {
            return;
        }
    }
    panic!("{what} does not complete in {POLLS_MAX} polls");
}

struct Subject {
    directory: TempDir,
    store: blocking::Store,
    database: blocking::Database,
    /// Stamps that an id may hold; `None`: absent.
    held: BTreeMap<u64, Vec<Option<u64>>>,
}

const DIMENSION: usize = 200;
const IDS: u64 = 800;

impl Subject {
    /// More data than cache, so that reads miss.
    fn new() -> Self {
        let (directory, store) = new_store(small());
        let options = DatabaseOptions::new(u32::try_from(DIMENSION).unwrap());
        let database = store.create_database("a", options).unwrap();
        let mut held = BTreeMap::new();
        for id in 0..IDS {
            database.put(id, &vector(id, DIMENSION)).unwrap();
            held.insert(id, vec![Some(id)]);
            if id % 250 == 249 {
                database.flush().unwrap();
            }
        }
        Self { directory, store, database, held }
    }

    fn asynchronous(&self) -> nephrite::Database {
        self.database.as_async().clone()
    }

    /// A write of these stamps was tried.
    fn tried(&mut self, writes: &[(u64, Option<u64>)], done: bool) {
        for (id, stamp) in writes {
            let held = self.held.entry(*id).or_insert_with(|| vec![None]);
            if done {
                held.clear();
            }
            held.push(*stamp);
        }
        // Together or not at all; and then it is known what they hold. At one moment: what was
        // dropped may be on its way, and come between two reads.
        let moment = self.database.snapshot().unwrap();
        let read = |id: u64| self.checked(id, moment.get(id).unwrap());
        let now: Vec<Option<u64>> = writes.iter().map(|(id, _)| read(*id)).collect();
        let new = writes.iter().zip(&now).filter(|((_, stamp), now)| stamp == *now).count();
        assert!(new == 0 || new == writes.len(), "{new} of {} are there", writes.len());
    }

    #[track_caller]
    fn read(&self, id: u64) -> Option<u64> {
        self.checked(id, self.database.get(id).unwrap())
    }

    /// The stamp of what was found, which is one that the id may hold.
    #[track_caller]
    fn checked(&self, id: u64, found: Option<VectorRef>) -> Option<u64> {
        let stamp = found.map(|found| read_stamp(&found).unwrap());
        let held = self.held.get(&id).map_or(&[None][..], Vec::as_slice);
        assert!(held.contains(&stamp), "id {id} holds {stamp:?} where {held:?} are possible");
        stamp
    }

    /// Checks everything, closes, and checks again what is there on disk.
    fn finish(mut self) {
        // A write that was dropped may have been on its way: one more write in order settles it.
        self.database.put_with(0, &vector(0, DIMENSION), Durability::Synced).unwrap();
        self.held.insert(0, vec![Some(0)]);
        let ids: Vec<u64> = self.held.keys().copied().collect();
        let now: Vec<Option<u64>> = ids.iter().map(|id| self.read(*id)).collect();
        assert_eq!(self.database.count().unwrap(), now.iter().flatten().count() as u64);
        let scanned = self.database.scan().unwrap().map(|row| row.unwrap().0);
        let there = ids.iter().zip(&now).filter(|(_, stamp)| stamp.is_some());
        assert!(scanned.eq(there.map(|(id, _)| Id::U64(*id))));
        assert_eq!(self.store.stats().pages_pinned, 0);
        assert!(self.store.verify(|_| ()).unwrap().is_clean());
        let image = self.directory.path().join("image");
        crash_image(&self.directory.path().join("store"), &image);
        self.store.close().unwrap();
        for path in [image, self.directory.path().join("store")] {
            let store = blocking::Store::open(path, small()).unwrap();
            let database = store.database("a").unwrap();
            for (id, stamp) in ids.iter().zip(&now) {
                let found = database.get(*id).unwrap();
                let found = found.map(|found| read_stamp(&found).unwrap());
                assert_eq!(found, *stamp, "id {id} after reopening");
            }
        }
    }
}

fn durability(polls: usize) -> Durability {
    if polls.is_multiple_of(2) { Durability::Synced } else { Durability::Buffered }
}

/// Stamps that no other write of the test has.
fn stamp(kind: u64, polls: usize, row: u64) -> u64 {
    kind << 48 | (polls as u64) << 16 | row
}

#[test]
fn puts_and_updates_dropped_at_every_poll() {
    let mut subject = Subject::new();
    let database = subject.asynchronous();
    for (kind, durability) in [(1, Durability::Synced), (2, Durability::Buffered)] {
        let id = kind * 10;
        at_every_poll(
            "put",
            |polls| {
                let vector = vector(stamp(kind, polls, 0), DIMENSION);
                poll_and_drop(polls, database.put_with(id, &vector, durability))
            },
            |polls, done| subject.tried(&[(id, Some(stamp(kind, polls, 0)))], done),
        );
        at_every_poll(
            "update",
            |polls| {
                let vector = vector(stamp(kind + 2, polls, 0), DIMENSION);
                poll_and_drop(polls, database.update_with(id + 1, &vector, durability))
            },
            |polls, done| subject.tried(&[(id + 1, Some(stamp(kind + 2, polls, 0)))], done),
        );
    }
    drop(database);
    subject.finish();
}

#[test]
fn batches_rows_and_deletes_dropped_at_every_poll() {
    let mut subject = Subject::new();
    let database = subject.asynchronous();
    at_every_poll(
        "batch",
        |polls| {
            let mut batch = Batch::new();
            (100..110).for_each(|id| batch.put(id, &vector(stamp(5, polls, id), DIMENSION)));
            batch.delete(110);
            batch.put(110, &vector(stamp(5, polls, 110), DIMENSION));
            poll_and_drop(polls, database.batch_with(batch, durability(polls)))
        },
        |polls, done| {
            let writes: Vec<_> = (100..=110).map(|id| (id, Some(stamp(5, polls, id)))).collect();
            subject.tried(&writes, done);
        },
    );
    // 85 rows of 800 bytes exceed 64 KiB: the rows bypass the log.
    for (kind, rows) in [(6, 85), (7, 20)] {
        at_every_poll(
            "put_many",
            |polls| {
                let rows = 0..rows;
                let vectors: Vec<f32> =
                    rows.flat_map(|row| vector(stamp(kind, polls, row), DIMENSION)).collect();
                let rows = database.put_many(Ids::Consecutive(200), &vectors, durability(polls));
                poll_and_drop(polls, rows)
            },
            |polls, done| {
                let write = |row| (200 + row, Some(stamp(kind, polls, row)));
                subject.tried(&(0..rows).map(write).collect::<Vec<_>>(), done);
            },
        );
    }
    at_every_poll(
        "delete",
        |polls| {
            let id = 400 + polls as u64;
            poll_and_drop(polls, database.delete_with(id, durability(polls)))
        },
        |polls, done| subject.tried(&[(400 + polls as u64, None)], done),
    );
    drop(database);
    subject.finish();
}

#[test]
fn reads_dropped_at_every_poll() {
    let subject = Subject::new();
    let path = subject.directory.path().join("store");
    subject.store.close().unwrap();
    // Opened anew for each operation, so that nothing is cached.
    let cold = || {
        let store = blocking::Store::open(&path, small()).unwrap();
        let database = store.database("a").unwrap().as_async().clone();
        (store, database)
    };
    let (store, database) = cold();
    at_every_poll(
        "get",
        |polls| {
            let id = polls as u64 * 37 % IDS;
            let found = poll_and_drop(polls, database.get(id))?;
            Some(found.map(|found| assert_vector(&found.unwrap(), id, format_args!("id {id}"))))
        },
        |_, _| (),
    );
    at_every_poll(
        "contains",
        |polls| poll_and_drop(polls, database.contains(polls as u64 * 41 % IDS)),
        |_, _| (),
    );
    drop((store, database));
    let (store, database) = cold();
    at_every_poll(
        "get_many",
        |polls| {
            let ids: Vec<u64> = (0..120).map(|at| (at * 13 + polls as u64) % IDS).collect();
            let asked: Vec<IdRef<'_>> = ids.iter().map(|id| IdRef::U64(*id)).collect();
            let found = poll_and_drop(polls, database.get_many(&asked))?;
            Some(found.map(|found| {
                for (id, found) in ids.iter().zip(found) {
                    assert_vector(&found.unwrap(), *id, format_args!("id {id}"));
                }
            }))
        },
        |_, _| (),
    );
    drop((store, database));
    let (store, database) = cold();
    at_every_poll("count", |polls| poll_and_drop(polls, database.count()), |_, _| ());
    at_every_poll("snapshot", |polls| poll_and_drop(polls, database.snapshot()), |_, _| ());
    scan_dropping(&database);
    assert_eq!(store.stats().pages_pinned, 0);
    drop((store, database));
    subject.finish_closed(&path);
}

/// `next` dropped after every number of polls; the scan goes on where it was.
fn scan_dropping(database: &nephrite::Database) {
    for polls in 0..6 {
        let mut scan = pollster::block_on(database.scan()).unwrap();
        for expected in 0..IDS {
            let dropped = poll_and_drop(polls, scan.next());
            let row = dropped.unwrap_or_else(|| pollster::block_on(scan.next()));
            let (id, found) = row.unwrap().expect("the scan is not at its end");
            assert_eq!(id, Id::U64(expected), "dropped after {polls} polls");
            assert_vector(&found, expected, format_args!("id {id}"));
        }
        assert!(pollster::block_on(scan.next()).unwrap().is_none());
    }
}

impl Subject {
    /// Nothing was written: all is as at the beginning.
    fn finish_closed(self, path: &std::path::Path) {
        let store = blocking::Store::open(path, small()).unwrap();
        let database = store.database("a").unwrap();
        assert_eq!(database.count().unwrap(), IDS);
        for id in 0..IDS {
            assert_vector(&database.get(id).unwrap().unwrap(), id, format_args!("id {id}"));
        }
    }
}

#[test]
fn flushes_and_database_jobs_dropped_at_every_poll() {
    let mut subject = Subject::new();
    let database = subject.asynchronous();
    let store = subject.store.as_async().clone();
    at_every_poll(
        "flush of a database",
        |polls| {
            let stamp = stamp(8, polls, 0);
            subject.database.put(500, &vector(stamp, DIMENSION)).unwrap();
            subject.held.insert(500, vec![Some(stamp)]);
            poll_and_drop(polls, database.flush())
        },
        |_, _| (),
    );
    at_every_poll("flush of the store", |polls| poll_and_drop(polls, store.flush()), |_, _| ());
    at_every_poll(
        "create",
        |polls| {
            let name = format!("made {polls}");
            poll_and_drop(polls, store.create_database(&name, DatabaseOptions::new(8)))
        },
        |_, _| (),
    );
    // A dropped call may still make the database, but not later than a flush that comes after it.
    subject.store.flush().unwrap();
    for info in subject.store.list() {
        let database = subject.store.database(&info.name).unwrap();
        if info.name != "a" {
            database.put(1, &vector(1, 8)).unwrap();
        }
    }
    let mut names = subject.store.list().into_iter().filter(|info| info.name != "a");
    let mut last = None;
    at_every_poll(
        "drop",
        |polls| match names.next() {
            Some(info) => {
                let dropped = poll_and_drop(polls, store.drop_database(&info.name));
                last = Some(info.name);
                dropped
            }
            None => Some(Ok(())),
        },
        |_, _| (),
    );
    drop((database, store));
    subject.finish();
}

#[test]
fn opens_and_closes_dropped_at_every_poll() {
    let subject = Subject::new();
    let path = subject.directory.path().join("store");
    subject.store.close().unwrap();
    let mut opened = 0;
    for polls in 0..POLLS_MAX {
        let mut outcome = None;
        // The open that was dropped before may still hold the lock for a moment.
        nephrite_tests::process::wait_until("the lock is free", || {
            outcome = poll_and_drop(polls, nephrite::Store::open(&path, small()));
            !matches!(outcome, Some(Err(Error::Locked { .. })))
        });
        let Some(store) = outcome else { continue };
        let store = store.unwrap_or_else(|error| panic!("after {polls} polls: {error}"));
        let database = pollster::block_on(store.database("a")).unwrap();
        let found = pollster::block_on(database.get(7)).unwrap().unwrap();
        assert_vector(&found, 7, "id 7");
        drop(found);
        // The close goes on without its future.
        let _ = poll_and_drop(opened, store.close());
        opened += 1;
        if opened == 8 {
            break;
        }
    }
    assert_eq!(opened, 8);
    nephrite_tests::process::wait_until("the lock is free", || {
        match blocking::Store::open(&path, small()) {
            Ok(store) => store.close().is_ok(),
            Err(Error::Locked { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    });
    subject.finish_closed(&path);
}
