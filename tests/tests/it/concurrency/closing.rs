//! Stores that are closed or let go, with operations in flight, from many handles, more than once:
//! what was acknowledged is there afterwards, and everything else says that the store is closed.

use std::sync::atomic::{AtomicU64, Ordering};

use nephrite::{BackendChoice, Config, DatabaseOptions, Durability, Error, IdRef, Ids, blocking};
use nephrite_tests::{Scale, assert_vector, new_store, small, vector};

use super::create;

/// Every write that was acknowledged before, while or after the store began to close is there when
/// it is opened again; every other operation says that it is closed.
fn close_under_load(config: &Config, close: impl Fn(blocking::Store) + Sync) {
    for round in 0..Scale::from_environment().pick(6, 60) {
        let (directory, store) = new_store(config.clone());
        let database = create(&store, "a", 32);
        let started = AtomicU64::new(0);
        let acknowledged = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4_u64)
                .map(|writer| {
                    let (database, started) = (database.clone(), &started);
                    scope.spawn(move || write_until_closed(&database, writer, started))
                })
                .collect();
            nephrite_tests::process::wait_until("writers write", || {
                20 * (round + 1) < started.load(Ordering::Relaxed)
            });
            drop(database);
            close(store);
            writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<u64>>()
        });
        let store = blocking::Store::open(directory.path().join("store"), small()).unwrap();
        let database = store.database("a").unwrap();
        for (writer, count) in (0..).zip(acknowledged) {
            for number in 0..count {
                let id = writer << 32 | number;
                let found = database.get(id).unwrap();
                let found = found
                    .unwrap_or_else(|| panic!("{number} of {count} of writer {writer} is lost"));
                assert_vector(&found, id, format_args!("id {id}"));
            }
        }
        assert!(store.verify(|_| ()).unwrap().is_clean());
    }
}

/// The number of writes that were acknowledged.
fn write_until_closed(database: &blocking::Database, writer: u64, started: &AtomicU64) -> u64 {
    for number in 0.. {
        started.fetch_add(1, Ordering::Relaxed);
        let id = writer << 32 | number;
        let durability =
            if number % 4 == writer { Durability::Synced } else { Durability::Buffered };
        let written = match number % 10 {
            9 => database.put_many(Ids::Consecutive(id), &vector(id, 32), durability),
            _ => database.put_with(id, &vector(id, 32), durability),
        };
        match written {
            Ok(()) => {}
            Err(Error::Closed) => return number,
            Err(error) => panic!("writer {writer}: {error}"),
        }
        if number % 50 == 49 {
            match database.flush() {
                Ok(()) | Err(Error::Closed) => {}
                Err(error) => panic!("writer {writer}: {error}"),
            }
        }
        match database.get(id) {
            Ok(found) => assert_vector(&found.unwrap(), id, format_args!("id {id}")),
            Err(Error::Closed) => return number + 1,
            Err(error) => panic!("writer {writer}: {error}"),
        }
    }
    unreachable!("the store is closed before the numbers end")
}

#[test]
fn close_while_operations_run_loses_nothing_acknowledged() {
    close_under_load(&small(), |store| store.close().unwrap());
}

#[test]
fn close_while_operations_run_loses_nothing_with_the_positional_backend() {
    let config = small().backend(BackendChoice::Positional);
    close_under_load(&config, |store| store.close().unwrap());
}

#[test]
fn close_is_the_same_from_every_handle_and_twice() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 4);
    database.put(1, &vector(1, 4)).unwrap();
    let snapshot = database.snapshot().unwrap();
    let mut scan = database.scan().unwrap();
    std::thread::scope(|scope| {
        let closers: Vec<_> = (0..4).map(|_| scope.spawn(|| store.clone().close())).collect();
        closers.into_iter().for_each(|closer| closer.join().unwrap().unwrap());
    });
    store.close().unwrap();
    let closed = |outcome: Result<(), Error>| {
        assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
    };
    closed(database.put(2, &vector(2, 4)));
    closed(database.update(1, &vector(2, 4)));
    closed(database.put_many(Ids::Consecutive(1), &vector(2, 4), Durability::Synced));
    closed(database.get(1).map(drop));
    closed(database.get_many(&[IdRef::U64(1)]).map(drop));
    closed(database.contains(1).map(drop));
    closed(database.delete(1).map(drop));
    closed(database.count().map(drop));
    closed(database.flush());
    closed(database.snapshot().map(drop));
    closed(snapshot.get(1).map(drop));
    closed(store.flush());
    closed(store.database("a").map(drop));
    closed(store.create_database("b", DatabaseOptions::new(4)).map(drop));
    closed(store.drop_database("a"));
    closed(store.verify(|_| ()).map(drop));
    // A scan that had begun may end early, but not wrongly.
    match scan.next() {
        None | Some(Err(_)) => {}
        Some(Ok((_, found))) => assert_vector(&found, 1, "scan"),
    }
}

#[test]
fn dropping_the_last_handle_loses_nothing_acknowledged() {
    let (directory, store) = new_store(small());
    let path = directory.path().join("store");
    let mut store = store;
    for round in 0..10_u64 {
        if round == 0 {
            drop(create(&store, "a", 64));
        }
        let database = store.database("a").unwrap();
        for id in round * 50..(round + 1) * 50 {
            database.put(id, &vector(id, 64)).unwrap();
        }
        let rows: Vec<f32> = (0..400).flat_map(|row| vector(row, 64)).collect();
        database.put_many(Ids::Consecutive(10_000), &rows, Durability::Buffered).unwrap();
        // In either order; a snapshot keeps the store open as well.
        let snapshot = database.snapshot().unwrap();
        if round % 2 == 0 {
            drop(database);
            drop(store);
            drop(snapshot);
        } else {
            drop(snapshot);
            drop(store);
            drop(database);
        }
        store = blocking::Store::open(&path, small()).unwrap();
        let database = store.database("a").unwrap();
        assert_eq!(database.count().unwrap(), (round + 1) * 50 + 400);
        for id in 0..(round + 1) * 50 {
            assert_vector(&database.get(id).unwrap().unwrap(), id, format_args!("id {id}"));
        }
    }
}
