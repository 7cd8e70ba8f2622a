//! Many at once: executors, group commit, readers under flush and compaction, dropped futures,
//! snapshots, threads that end. Close and drop with operations in flight: `closing`.

mod closing;
mod dropped;

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use nephrite::{BackendChoice, Batch, DatabaseOptions, Durability, Error, IdRef, blocking};
use nephrite_tests::{
    Scale, assert_vector,
    directories::crash_image,
    new_store,
    process::{alone, engine_threads},
    read_stamp, roomy, seed, small, vector,
};
use pollster::block_on;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn create(store: &blocking::Store, name: &str, dimension: u32) -> blocking::Database {
    store.create_database(name, DatabaseOptions::new(dimension)).unwrap()
}

type Boxed<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// Runs futures side by side on the calling thread.
async fn all(mut futures: Vec<Boxed<'_>>) {
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(outcome) => {
                outcome.unwrap();
                false
            }
        });
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn put_and_read(database: &nephrite::Database, id: u64) -> Result<(), Error> {
    let durability = if id.is_multiple_of(3) { Durability::Synced } else { Durability::Buffered };
    database.put_with(id, &vector(id, 32), durability).await?;
    let found = database.get(id).await?.expect("a write is seen by who wrote it");
    assert_vector(&found, id, format_args!("id {id}"));
    database.update(id, &vector(id + (1 << 20), 32)).await?;
    if id.is_multiple_of(5) {
        assert!(database.delete(id).await?);
        assert!(!database.contains(id).await?);
    }
    Ok(())
}

#[test]
fn futures_of_several_executors_run_side_by_side() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 32);
    std::thread::scope(|scope| {
        for executor in 0..6_u64 {
            let database = database.as_async();
            scope.spawn(move || {
                let futures = (executor * 100..(executor + 1) * 100)
                    .map(|id| Box::pin(put_and_read(database, id)) as Boxed<'_>);
                block_on(all(futures.collect()));
            });
        }
    });
    assert_eq!(database.count().unwrap(), 480);
    for id in (0..600).filter(|id| id % 5 != 0) {
        let found = database.get(id).unwrap().unwrap();
        assert_vector(&found, id + (1 << 20), format_args!("id {id}"));
    }
}

/// A future may be polled by one thread and finished by another.
#[test]
fn a_future_moves_between_threads() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 32);
    for id in 0..50_u64 {
        let database = database.as_async().clone();
        let mut future: Boxed<'static> = Box::pin(async move { put_and_read(&database, id).await });
        let first = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if first.is_pending() {
            std::thread::scope(|scope| scope.spawn(|| block_on(future).unwrap()).join().unwrap());
        }
    }
    assert_eq!(database.count().unwrap(), 40);
}

#[test]
fn sixty_four_synced_writers_share_syncs() {
    let (directory, store) = new_store(small());
    let databases = ["a", "b", "c"].map(|name| create(&store, name, 32));
    let rounds = Scale::from_environment().pick(10, 100);
    let before = store.stats().wal_syncs;
    std::thread::scope(|scope| {
        for writer in 0..64_u64 {
            let database = &databases[usize::try_from(writer % 3).unwrap()];
            scope.spawn(move || {
                for round in 0..rounds {
                    let id = round << 8 | writer;
                    database.put_with(id, &vector(id, 32), Durability::Synced).unwrap();
                }
            });
        }
    });
    let syncs = store.stats().wal_syncs - before;
    let writes = 64 * rounds;
    println!("{writes} synced writes took {syncs} syncs");
    assert!(syncs * 4 < writes, "{writes} synced writes took {syncs} syncs");
    let image = directory.path().join("image");
    crash_image(&directory.path().join("store"), &image);
    let store = blocking::Store::open(image, small()).unwrap();
    for writer in 0..64_u64 {
        let name = ["a", "b", "c"][usize::try_from(writer % 3).unwrap()];
        let database = store.database(name).unwrap();
        for round in 0..rounds {
            let id = round << 8 | writer;
            let found = database.get(id).unwrap().unwrap_or_else(|| panic!("{id} is lost"));
            assert_vector(&found, id, format_args!("id {id}"));
        }
    }
}

/// Ids of the stress tests and the range their stamps are from: stamp = version << 16 | id.
const IDS: u64 = 300;

/// A stamp that belongs to `id`; gives its version.
#[track_caller]
fn version_of(found: &[f32], id: u64) -> u64 {
    let stamp = read_stamp(found).unwrap_or_else(|what| panic!("id {id}: {what}"));
    assert_eq!(stamp & 0xffff, id, "id {id} holds the vector of another one");
    stamp >> 16
}

/// Readers check every vector while writers replace them, flushes run and segments are compacted.
#[test]
fn readers_see_whole_and_ever_newer_vectors_during_flush_and_compaction() {
    let seed = seed("readers during flush", 11);
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 64);
    for id in 0..IDS {
        database.put(id, &vector(id, 64)).unwrap();
    }
    let versions = Scale::from_environment().pick(40, 400);
    let written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2_u64 {
            let database = &database;
            let written = &written;
            scope.spawn(move || {
                for version in 1..=versions {
                    for id in (writer..IDS).step_by(2) {
                        database.put(id, &vector(version << 16 | id, 64)).unwrap();
                    }
                    if (version + writer) % 2 == 0 {
                        database.flush().unwrap();
                    }
                }
                written.store(true, Ordering::Release);
            });
        }
        for reader in 0..4_u64 {
            let (database, written) = (&database, &written);
            let random = ChaCha8Rng::seed_from_u64(seed ^ reader);
            scope.spawn(move || read_until(database, written, reader, random));
        }
    });
    assert!(0 < store.stats().compactions, "compactions ran meanwhile");
    for id in 0..IDS {
        assert_eq!(version_of(&database.get(id).unwrap().unwrap(), id), versions);
    }
    assert_eq!(database.count().unwrap(), IDS);
    assert_eq!(store.stats().pages_pinned, 0);
}

fn read_until(
    database: &blocking::Database,
    done: &AtomicBool,
    reader: u64,
    mut random: ChaCha8Rng,
) {
    let mut seen = vec![0; usize::try_from(IDS).unwrap()];
    let mut note = |id: u64, found: &[f32]| {
        let version = version_of(found, id);
        let last = &mut seen[usize::try_from(id).unwrap()];
        assert!(*last <= version, "reader {reader}, id {id}: version {version} after {last}");
        *last = version;
    };
    while !done.load(Ordering::Acquire) {
        match reader {
            0 => {
                let id = random.random_range(0..IDS);
                note(id, &database.get(id).unwrap().expect("it is never deleted"));
            }
            1 => {
                let ids: Vec<u64> = (0..50).map(|_| random.random_range(0..IDS)).collect();
                let asked: Vec<IdRef<'_>> = ids.iter().map(|id| IdRef::U64(*id)).collect();
                let found = database.get_many(&asked).unwrap();
                for (id, found) in ids.iter().zip(found) {
                    note(*id, &found.expect("it is never deleted"));
                }
            }
            2 => {
                let rows = database.scan().unwrap().map(|row| row.unwrap());
                for (expected, (id, found)) in (0..).zip(rows) {
                    assert_eq!(id, nephrite::Id::U64(expected));
                    note(expected, &found);
                }
            }
            _ => assert_eq!(database.count().unwrap(), IDS),
        }
    }
}

#[test]
fn verify_is_clean_during_flushes_and_compactions() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 64);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in 0..60 {
                for id in 0..200 {
                    database.put(id, &vector(version << 16 | id, 64)).unwrap();
                }
                database.flush().unwrap();
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let report = store.verify(|_| ()).unwrap();
            assert!(report.is_clean(), "{:#?}", report.damage);
        }
    });
    assert!(0 < store.stats().compactions, "compactions ran meanwhile");
}

/// Writers change all ids to one version at a time, by batch: a snapshot never sees two versions.
#[test]
fn a_snapshot_is_one_moment_however_it_is_read() {
    let (_directory, store) = new_store(small());
    let database = create(&store, "a", 16);
    let write = |version: u64| {
        let mut batch = Batch::new();
        (0..40_u64).for_each(|id| batch.put(id, &vector(version << 16 | id, 16)));
        if version.is_multiple_of(2) {
            batch.delete(1000);
        } else {
            batch.put(1000, &vector(version << 16 | 1000, 16));
        }
        let durability =
            if version.is_multiple_of(7) { Durability::Synced } else { Durability::Buffered };
        database.batch_with(batch, durability).unwrap();
    };
    write(1);
    let done = AtomicBool::new(false);
    let held = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in 2..400 {
                write(version);
                if version % 20 == 0 {
                    database.flush().unwrap();
                }
            }
            done.store(true, Ordering::Release);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let snapshot = database.snapshot().unwrap();
                    let version = check_snapshot(&snapshot);
                    held.lock().unwrap().push((snapshot, version));
                }
            });
        }
    });
    // They stay what they were, over all flushes and compactions since.
    for (snapshot, version) in held.into_inner().unwrap().iter().step_by(7) {
        assert_eq!(check_snapshot(snapshot), *version);
    }
}

#[track_caller]
fn check_snapshot(snapshot: &blocking::Snapshot) -> u64 {
    let version = version_of(&snapshot.get(0).unwrap().unwrap(), 0);
    let extra = version % 2;
    assert_eq!(snapshot.count().unwrap(), 40 + extra);
    assert_eq!(snapshot.contains(1000).unwrap(), extra == 1);
    let ids: Vec<IdRef<'_>> = (0..40).map(IdRef::U64).collect();
    for (id, found) in (0..).zip(snapshot.get_many(&ids).unwrap()) {
        assert_eq!(version_of(&found.unwrap(), id), version, "get_many, id {id}");
    }
    let mut rows = 0;
    for row in snapshot.scan().unwrap() {
        let (id, found) = row.unwrap();
        let nephrite::Id::U64(id) = id else { panic!("the database has numbers") };
        assert_eq!(version_of(&found, id), version, "scan, id {id}");
        rows += 1;
    }
    assert_eq!(rows, 40 + extra);
    version
}

#[test]
fn no_thread_outlives_the_store() {
    alone("concurrency::no_thread_outlives_the_store", || {
        for backend in [BackendChoice::Auto, BackendChoice::Positional] {
            for closed in [true, false] {
                assert_eq!(engine_threads(), [""; 0], "before");
                let config = roomy().backend(backend);
                let (_directory, store) = new_store(config);
                let database = create(&store, "a", 128);
                for id in 0..2000 {
                    database.put(id, &vector(id, 128)).unwrap();
                }
                database.put_with(0, &vector(1, 128), Durability::Synced).unwrap();
                store.flush().unwrap();
                assert!(database.get(77).unwrap().is_some());
                assert!(!engine_threads().is_empty());
                if closed {
                    store.close().unwrap();
                    assert_eq!(engine_threads(), [""; 0], "after close, {backend}");
                }
                drop((database, store));
                assert_eq!(engine_threads(), [""; 0], "after drop, {backend}");
            }
        }
    });
}

/// Two stores in one process share nothing.
#[test]
fn two_stores_in_a_process_do_not_disturb_each_other() {
    let (_first_directory, first) = new_store(small());
    let (_second_directory, second) = new_store(small());
    let (a, b) = (create(&first, "a", 8), create(&second, "a", 16));
    a.put(1, &vector(1, 8)).unwrap();
    b.put(1, &vector(2, 16)).unwrap();
    first.close().unwrap();
    assert!(matches!(a.get(1), Err(Error::Closed)));
    assert_vector(&b.get(1).unwrap().unwrap(), 2, "the other store");
    let pending = pin!(b.as_async().put_with(2, &[0.0; 16], Durability::Synced));
    block_on(pending).unwrap();
    second.close().unwrap();
}
