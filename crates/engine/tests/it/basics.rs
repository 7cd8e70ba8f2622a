//! Storing, reading, updating, deleting, batches, scans, snapshots.

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

use nephrite::{
    BackendChoice, Batch, DatabaseOptions, Durability, Error, IdKind, IdRef, Ids, blocking::Store,
};

use crate::support::{new_store, small, vector};

#[test]
fn what_is_put_is_read_back_before_and_after_flush_and_reopen() {
    let (directory, store) = new_store(small());
    let database = store.create_database("a", DatabaseOptions::new(100)).unwrap();
    for id in 0..3000_u64 {
        database.put(id * 7, &vector(id, 100)).unwrap();
    }
    let check = |database: &nephrite::blocking::Database| {
        for id in 0..3000_u64 {
            let found = database.get(id * 7).unwrap().unwrap_or_else(|| panic!("id {}", id * 7));
            assert_eq!(&found[..], &vector(id, 100)[..], "id {}", id * 7);
        }
        assert!(database.get(1).unwrap().is_none());
        assert_eq!(database.count().unwrap(), 3000);
    };
    check(&database);
    store.flush().unwrap();
    check(&database);
    store.close().unwrap();
    assert!(matches!(database.get(0), Err(Error::Closed)));
    let store = nephrite::blocking::Store::open(directory.path().join("store"), small()).unwrap();
    check(&store.database("a").unwrap());
    let report = store.verify(|_| ()).unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn every_dimension_is_bit_exact() {
    let (_directory, store) = new_store(small());
    for dimension in [1_u16, 2, 3, 15, 16, 17, 100, 127, 128, 384, 768, 1000, 1536, 2049, 4096] {
        let name = format!("d{dimension}");
        let options = DatabaseOptions::new(dimension.into());
        let database = store.create_database(&name, options).unwrap();
        let dimension = usize::from(dimension);
        let mut odd = vector(1, dimension);
        odd[0] = f32::from_bits(0x7FC0_1234);
        odd[dimension - 1] = f32::NEG_INFINITY;
        for id in 0..40_u64 {
            database.put(id, &vector(id, dimension)).unwrap();
        }
        database.put(99, &odd).unwrap();
        database.flush().unwrap();
        for id in 0..40_u64 {
            assert_eq!(&database.get(id).unwrap().unwrap()[..], &vector(id, dimension)[..]);
        }
        let bits = |vector: &[f32]| vector.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&database.get(99).unwrap().unwrap()), bits(&odd), "{dimension}");
    }
}

#[test]
fn deletes_and_updates_know_what_was_there() {
    let (_directory, store) = new_store(small());
    let options = DatabaseOptions::new(8).id_kind(IdKind::Bytes);
    let database = store.create_database("names", options).unwrap();
    for round in 0..3 {
        assert!(!database.delete("ghost").unwrap());
        assert!(matches!(database.update("ghost", &vector(0, 8)), Err(Error::NotFound { .. })));
        database.put("nginx", &vector(1, 8)).unwrap();
        if round > 0 {
            store.flush().unwrap();
        }
        database.update("nginx", &vector(2, 8)).unwrap();
        assert_eq!(&database.get("nginx").unwrap().unwrap()[..], &vector(2, 8)[..]);
        assert!(database.contains("nginx").unwrap());
        assert_eq!(database.count().unwrap(), 1);
        if round > 1 {
            store.flush().unwrap();
        }
        assert!(database.delete("nginx").unwrap());
        assert!(!database.delete("nginx").unwrap());
        assert_eq!(database.count().unwrap(), 0);
        assert!(database.get("nginx").unwrap().is_none());
    }
}

#[test]
fn a_batch_applies_as_a_whole_and_the_last_operation_on_an_id_wins() {
    let (_directory, store) = new_store(small());
    let database = store.create_database("a", DatabaseOptions::new(4)).unwrap();
    database.put(3, &vector(3, 4)).unwrap();
    let mut batch = Batch::new();
    batch.put(1, &vector(1, 4));
    batch.put(1, &vector(2, 4));
    batch.put(2, &vector(2, 4));
    batch.delete(2);
    batch.delete(3);
    batch.delete(77);
    database.batch_with(batch, Durability::Synced).unwrap();
    assert_eq!(&database.get(1).unwrap().unwrap()[..], &vector(2, 4)[..]);
    assert!(database.get(2).unwrap().is_none());
    assert!(database.get(3).unwrap().is_none());
    assert_eq!(database.count().unwrap(), 1);
    let mut wrong = Batch::new();
    wrong.put(5, &vector(5, 4));
    wrong.put(6, &vector(6, 5));
    assert!(matches!(database.batch(wrong), Err(Error::Dimension { expected: 4, found: 5 })));
    assert!(database.get(5).unwrap().is_none());
}

#[test]
fn bulk_rows_are_readable_at_once_and_after_reopen() {
    let (directory, store) = new_store(small());
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    let rows: Vec<f32> = (0..300_u64).flat_map(|id| vector(id, 128)).collect();
    for part in 0..20_u64 {
        let ids = Ids::Consecutive(part * 300);
        database.put_many(ids, &rows, Durability::Buffered).unwrap();
    }
    let check = |database: &nephrite::blocking::Database| {
        assert_eq!(database.count().unwrap(), 6000);
        let ids: Vec<IdRef<'_>> = (0..6000).rev().map(IdRef::U64).collect();
        let found = database.get_many(&ids).unwrap();
        for (id, found) in (0..6000_u64).rev().zip(found) {
            assert_eq!(&found.unwrap()[..], &vector(id % 300, 128)[..], "id {id}");
        }
    };
    check(&database);
    store.close().unwrap();
    let store = nephrite::blocking::Store::open(directory.path().join("store"), small()).unwrap();
    check(&store.database("a").unwrap());
}

#[test]
fn a_snapshot_and_its_scan_do_not_see_later_writes() {
    let (_directory, store) = new_store(small());
    let database = store.create_database("a", DatabaseOptions::new(16)).unwrap();
    for id in (0..2000_u64).rev() {
        database.put(id, &vector(id, 16)).unwrap();
        if id == 700 {
            database.flush().unwrap();
        }
    }
    let snapshot = database.snapshot().unwrap();
    for id in 0..2000_u64 {
        if id % 3 == 0 {
            database.delete(id).unwrap();
        } else {
            database.put(id, &vector(id + 1, 16)).unwrap();
        }
    }
    database.put(5000, &vector(1, 16)).unwrap();
    store.flush().unwrap();
    assert_eq!(snapshot.count().unwrap(), 2000);
    for (expected, row) in snapshot.scan().unwrap().enumerate() {
        let (id, found) = row.unwrap();
        assert_eq!(id, nephrite::Id::U64(expected as u64));
        assert_eq!(&found[..], &vector(expected as u64, 16)[..], "id {id}");
    }
    let now: Vec<_> = database.scan().unwrap().map(|row| row.unwrap().0).collect();
    assert_eq!(now.len() as u64, database.count().unwrap());
    assert_eq!(now.len(), 2000 - 667 + 1);
}

#[test]
fn bad_input_is_refused_by_name() {
    let (_directory, store) = new_store(small());
    let database = store.create_database("a", DatabaseOptions::new(4)).unwrap();
    let bytes = DatabaseOptions::new(4).id_kind(IdKind::Bytes);
    let names = store.create_database("b", bytes).unwrap();
    assert!(matches!(database.put(1, &[0.0; 3]), Err(Error::Dimension { .. })));
    assert!(matches!(database.put("x", &[0.0; 4]), Err(Error::WrongIdKind { .. })));
    assert!(matches!(names.put("", &[0.0; 4]), Err(Error::InvalidId { .. })));
    let long = "x".repeat(256);
    assert!(matches!(names.put(&long, &[0.0; 4]), Err(Error::InvalidId { .. })));
    names.put(&long[1..], &[0.0; 4]).unwrap();
    let again = store.create_database("a", DatabaseOptions::new(9));
    assert!(matches!(again, Err(Error::DatabaseExists { .. })));
    assert!(matches!(store.database("c"), Err(Error::DatabaseNotFound { .. })));
    assert!(matches!(
        store.create_database("", DatabaseOptions::new(4)),
        Err(Error::InvalidName { .. })
    ));
    for dimension in [0, 16_385] {
        let made = store.create_database("z", DatabaseOptions::new(dimension));
        assert!(matches!(made, Err(Error::InvalidConfig { .. })), "{dimension}");
    }
}

#[test]
fn a_dropped_database_is_gone_and_its_name_is_free() {
    let (directory, store) = new_store(small());
    let database = store.create_database("a", DatabaseOptions::new(4)).unwrap();
    database.put_with(1, &[1.0; 4], Durability::Synced).unwrap();
    store.flush().unwrap();
    database.put_with(2, &[2.0; 4], Durability::Synced).unwrap();
    store.drop_database("a").unwrap();
    assert!(matches!(database.get(1), Err(Error::DatabaseNotFound { .. })));
    assert!(matches!(database.put(1, &[0.0; 4]), Err(Error::DatabaseNotFound { .. })));
    let database = store.create_database("a", DatabaseOptions::new(5)).unwrap();
    assert_eq!(database.count().unwrap(), 0);
    store.close().unwrap();
    let store = nephrite::blocking::Store::open(directory.path().join("store"), small()).unwrap();
    assert_eq!(store.database("a").unwrap().dimension(), 5);
    assert_eq!(store.list().len(), 1);
}

/// All of them in flight at once, in order.
async fn joined<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|it| (Box::pin(it), None)).collect();
    poll_fn(|context| {
        for (future, output) in running.iter_mut().filter(|(_, output)| output.is_none()) {
            if let Poll::Ready(ready) = future.as_mut().poll(context) {
                *output = Some(ready);
            }
        }
        if running.iter().any(|(_, output)| output.is_none()) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    running.into_iter().map(|(_, output)| output.unwrap()).collect()
}

#[test]
fn a_thread_drives_the_reads_of_many_futures() {
    let (directory, store) = new_store(small());
    let database = store.create_database("a", DatabaseOptions::new(1024)).unwrap();
    (0..64_u64).for_each(|id| database.put(id, &vector(id, 1024)).unwrap());
    store.close().unwrap();
    let store = Store::open(directory.path().join("store"), small()).unwrap();
    let database = store.database("a").unwrap();
    let before = store.stats().io;

    let reads = (0..64_u64).map(|id| database.as_async().get(id)).collect();
    let found = store.drive(joined(reads));

    for (id, vector_of_id) in (0_u64..).zip(found) {
        assert_eq!(&vector_of_id.unwrap().unwrap()[..], &vector(id, 1024)[..]);
    }
    let after = store.stats().io;
    if after.caller_parks == before.caller_parks
        && store.backend_report().chosen == BackendChoice::Uring
    {
        let driven = after.caller_driven - before.caller_driven;
        assert!(64 <= driven, "{driven} of 64 reads");
    }
}
