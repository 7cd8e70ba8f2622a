//! Vectors that a caller holds on to pin their pages; reads of everything else go on, whoever holds
//! what, and for as long as they like.

use std::{
    future::Future,
    sync::mpsc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use nephrite::{
    DatabaseOptions, Durability, IdRef, Ids, VectorRef,
    blocking::{Database, Store},
};

use crate::support::{new_store, small, vector};

/// Runs a test that would hang rather than fail.
fn within_minutes(test: impl FnOnce() + Send + 'static) {
    let (end, ended) = mpsc::channel();
    let run = move || {
        test();
        let _ = end.send(()); // the other end is gone only when the test was given up
    };
    let thread = std::thread::Builder::new().spawn(run).unwrap();
    match ended.recv_timeout(Duration::from_secs(300)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a read waits for ever"),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => thread.join().unwrap(),
    }
}

/// A database of so many rows in one segment.
fn filled(store: &Store, name: &str, dimension: u32, rows: u64) -> Database {
    let database = store.create_database(name, DatabaseOptions::new(dimension)).unwrap();
    let len = dimension as usize;
    for first in (0..rows).step_by(20) {
        let rows: Vec<f32> = (first..first + 20).flat_map(|id| vector(id, len)).collect();
        database.put_many(Ids::Consecutive(first), &rows, Durability::Buffered).unwrap();
    }
    database.compact().unwrap();
    database
}

#[test]
fn guards_in_every_part_of_the_cache_leave_other_databases_a_way() {
    within_minutes(|| {
        let (_directory, store) = new_store(small());
        let large = filled(&store, "large", 2048, 100);
        let small = filled(&store, "small", 128, 20_000);
        (0..20_000_u64).for_each(|id| drop(small.get(id).unwrap()));

        let ids: Vec<IdRef<'_>> = (0..128_u64).map(|at| (12_000 + at * 62).into()).collect();
        let held = small.get_many(&ids).unwrap();
        for id in 0..100_u64 {
            assert_eq!(**large.get(id).unwrap().as_ref().unwrap(), vector(id, 2048));
        }

        assert_eq!(large.scan().unwrap().count(), 100);
        assert!(store.stats().cache_bypasses != 0, "the others left no room");
        drop(held);
    });
}

/// Holds vectors, one to a page, until no more pages can be pinned.
fn pin_everything(store: &Store, database: &Database, rows: u64) -> Vec<VectorRef> {
    let mut held = Vec::new();
    for id in (0..rows).step_by(8) {
        held.push(database.get(id).unwrap().unwrap());
    }
    let stats = store.stats();
    let pinned_bytes = stats.pages_pinned * 4096;
    assert!(stats.cache_bytes / 10 * 7 < pinned_bytes, "{} pages pinned", stats.pages_pinned);
    assert!(stats.cache_bypasses != 0, "the last ones found no room");
    held
}

#[test]
fn with_all_that_may_be_pinned_pinned_every_read_and_every_write_goes_on() {
    within_minutes(|| {
        let (_directory, store) = new_store(small());
        let database = filled(&store, "a", 128, 20_000);
        let sparse = store.create_database("sparse", DatabaseOptions::new(16)).unwrap();
        (0..3000_u64).for_each(|id| sparse.put(id * id, &vector(id, 16)).unwrap());
        sparse.compact().unwrap();

        let held = pin_everything(&store, &database, 20_000);

        for id in (0..20_000_u64).step_by(331) {
            assert_eq!(**database.get(id).unwrap().as_ref().unwrap(), vector(id, 128));
        }
        let ids: Vec<IdRef<'_>> = (0..1000_u64).map(|at| (at * 19).into()).collect();
        let many = database.get_many(&ids).unwrap();
        assert_eq!(**many[999].as_ref().unwrap(), vector(999 * 19, 128));
        assert_eq!(database.scan().unwrap().count(), 20_000);
        for id in (0..3000_u64).step_by(37) {
            assert_eq!(**sparse.get(id * id).unwrap().as_ref().unwrap(), vector(id, 16));
        }
        (0..3000_u64).step_by(2).for_each(|id| assert!(sparse.delete(id * id).unwrap()));
        sparse.flush().unwrap();
        sparse.compact().unwrap();
        assert_eq!((sparse.count().unwrap(), database.count().unwrap()), (1500, 20_000));
        assert!(store.verify(|_| ()).unwrap().is_clean());
        assert!((0_u64..).zip(&held).all(|(at, found)| **found == vector(at * 8, 128)));
    });
}

#[test]
fn reads_that_nobody_polls_again_keep_no_other_waiting() {
    within_minutes(|| {
        let (_directory, store) = new_store(small());
        let database = filled(&store, "a", 128, 20_000);
        let _held = pin_everything(&store, &database, 20_000);

        let mut context = Context::from_waker(Waker::noop());
        let mut asleep: Vec<_> =
            (0..100_u64).map(|at| Box::pin(database.as_async().get(19_999 - at * 8))).collect();
        for read in &mut asleep {
            assert!(matches!(read.as_mut().poll(&mut context), Poll::Pending | Poll::Ready(Ok(_))));
        }

        for id in (15_000..20_000_u64).step_by(113) {
            assert_eq!(**database.get(id).unwrap().as_ref().unwrap(), vector(id, 128));
        }
        drop(asleep);
    });
}
