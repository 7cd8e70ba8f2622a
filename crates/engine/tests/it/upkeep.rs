//! What the engine does by itself: which compactions it tries, how fast, and of which databases;
//! how many files it has open meanwhile.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use event_listener::Event;
use nephrite::{
    Config, DatabaseOptions, Durability, Ids,
    blocking::{Database, Store},
    runtime::{BoxFuture, OsRuntime, Runtime},
};
use nephrite_io::Disk;
use pollster::block_on;

use crate::{
    fault_disk::{Fail, FaultDisk, faulty},
    support::{crash_image, ends, new_store, segment_files, small, vector},
};

const DIMENSION: usize = 128;

/// For the compaction task time passes only while it sleeps, and at first not even then.
#[derive(Debug)]
struct OwnTime {
    inner: OsRuntime,
    slept: Arc<Mutex<Duration>>,
    /// None: it may sleep.
    held: Arc<Mutex<Option<Arc<Event>>>>,
}

impl OwnTime {
    fn new() -> Self {
        Self { inner: OsRuntime::default(), slept: Arc::default(), held: Arc::default() }
    }

    fn hold(&self) {
        *self.held.lock().unwrap() = Some(Arc::default());
    }

    fn go_on(&self) {
        let held = self.held.lock().unwrap().take();
        held.unwrap().notify(usize::MAX);
    }

    fn slept(&self) -> Duration {
        *self.slept.lock().unwrap()
    }
}

fn is_compacting() -> bool {
    std::thread::current().name() == Some("nephrite-compact")
}

impl Runtime for OwnTime {
    fn now(&self) -> Duration {
        if is_compacting() { self.slept() } else { self.inner.now() }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        if !is_compacting() {
            return self.inner.sleep(duration);
        }
        let waits = self.held.lock().unwrap().as_ref().map(|held| held.listen());
        let slept = Arc::clone(&self.slept);
        Box::pin(async move {
            if let Some(waits) = waits {
                waits.await;
            }
            *slept.lock().unwrap() += duration;
        })
    }

    fn spawn(&self, name: &str, task: BoxFuture<()>) -> std::io::Result<BoxFuture<()>> {
        self.inner.spawn(name, task)
    }

    fn finish(&self, last: BoxFuture<()>) {
        self.inner.finish(last);
    }

    fn random_u64(&self) -> u64 {
        self.inner.random_u64()
    }

    fn settle(&self) {
        self.inner.settle();
    }
}

fn put(database: &Database, ids: std::ops::Range<u64>, seed: u64) {
    let rows: Vec<f32> = ids.clone().flat_map(|id| vector(id + seed, DIMENSION)).collect();
    database.put_many(Ids::Consecutive(ids.start), &rows, Durability::Buffered).unwrap();
    database.flush().unwrap();
}

/// A compaction that failed was done again, up to the damage, at each flush of any database.
#[test]
fn a_compaction_that_failed_is_not_repeated_at_every_flush() {
    let (directory, store) = new_store(small());
    let damaged = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    put(&damaged, 0..400, 0);
    let file = std::fs::read_dir(directory.path().join("store").join("segments")).unwrap();
    let file = file.into_iter().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4096] ^= 1; // a byte of the first vector
    std::fs::write(&file, bytes).unwrap();
    put(&damaged, 100..400, 7);
    let other = store.create_database("b", DatabaseOptions::new(128)).unwrap();
    put(&other, 0..300, 0);
    for round in 1..13 {
        let before = store.stats().compactions;
        put(&other, 0..300, round);
        while store.stats().compactions == before {
            std::thread::yield_now();
        }
    }
    let failed = store.stats().compactions_failed;
    assert!((1..=4).contains(&failed), "{failed} failed");
    assert_eq!(&damaged.get(300).unwrap().unwrap()[..], &vector(307, DIMENSION)[..]);
}

/// The ids were read twice without being counted.
#[test]
fn a_compaction_pays_for_the_ids_it_reads() {
    const BYTES_PER_SECOND: u64 = 1 << 20;
    let runtime = Arc::new(OwnTime::new());
    let config = Config::new().memory_limit(64 << 20).memtable_bytes(4 << 20);
    let config = config.compaction_bytes_per_second(Some(BYTES_PER_SECOND));
    let (directory, store) = new_store(config.runtime(Arc::clone(&runtime) as Arc<dyn Runtime>));
    let path = directory.path().join("store");
    let database = store.create_database("a", DatabaseOptions::new(4)).unwrap();
    let mut read = 0;
    for run in 0..4_u64 {
        let ids: Vec<u64> = (0..20_000).map(|at| at * 1_004 + run).collect();
        let rows: Vec<f32> = ids.iter().flat_map(|id| vector(*id, 4)).collect();
        database.put_many(Ids::U64(&ids), &rows, Durability::Buffered).unwrap();
        database.flush().unwrap();
        if run == 0 {
            read = 4 * segment_files(&path).iter().sum::<u64>();
        }
    }
    // The inputs go when the output has taken their place.
    while store.stats().compactions == 0 || segment_files(&path).len() > 1 {
        std::thread::yield_now();
    }
    let written: u64 = segment_files(&path).iter().sum();
    let paid = runtime.slept().as_millis() * u128::from(BYTES_PER_SECOND) / 1_000;
    assert!(u128::from(read + written) <= paid, "{paid} paid for {read} and {written}");
}

/// What an earlier life left, of a database that nobody opens in this one.
#[test]
fn a_database_that_nobody_opens_is_compacted() {
    ends(|| {
        let (directory, store) = new_store(small().garbage_percent(90));
        let path = directory.path().join("store");
        let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
        put(&database, 0..400, 0);
        put(&database, 0..360, 7);
        drop(database);
        store.close().unwrap();
        assert_eq!(store.stats().compactions, 0);
        let before: u64 = segment_files(&path).iter().sum();
        let store = Store::open(&path, small().garbage_percent(20)).unwrap();
        while store.stats().compactions == 0 {
            std::thread::yield_now();
        }
        store.close().unwrap();
        let after: u64 = segment_files(&path).iter().sum();
        assert!(after * 3 < before * 2, "{before} bytes before, {after} after");
    });
}

/// Databases close when they are cold; their garbage stayed.
#[test]
fn databases_that_were_closed_with_garbage_are_compacted() {
    const DATABASES: u64 = 48;
    ends(|| {
        let runtime = Arc::new(OwnTime::new());
        runtime.hold();
        let config = small().garbage_percent(40).compaction_bytes_per_second(Some(1 << 20));
        let config = config.runtime(Arc::clone(&runtime) as Arc<dyn Runtime>);
        let (_directory, store) = new_store(config);
        for name in 0..DATABASES {
            let options = DatabaseOptions::new(128);
            let database = store.create_database(&format!("d{name}"), options).unwrap();
            put(&database, 0..200, 0);
            put(&database, 0..200, 7);
        }
        // The first compaction waits for its budget; some databases are closed behind it.
        while store.stats().databases_closed < 8 {
            for name in 0..DATABASES {
                store.database(&format!("d{name}")).unwrap();
            }
        }
        runtime.go_on();
        while store.stats().compactions < DATABASES {
            std::thread::yield_now();
        }
        let database = store.database("d3").unwrap();
        assert_eq!(database.stats().unwrap().segment_rows, 200);
        assert_eq!(&database.get(5).unwrap().unwrap()[..], &vector(12, DIMENSION)[..]);
    });
}

/// A call that was dropped while its file was being opened gave the right to open it to others.
#[test]
fn dropped_reads_do_not_open_more_files_than_allowed() {
    const FILES: u64 = 12;
    let (directory, disk, config) = faulty();
    let config = config.max_open_files(5);
    let path = directory.path().join("store");
    let store = block_on(nephrite::Store::create(&path, config)).unwrap();
    let options = DatabaseOptions::new(1_024);
    let database = block_on(store.create_database("a", options)).unwrap();
    for id in 0..FILES {
        block_on(database.put(id * 1_000, &vector(id, 1_024))).unwrap();
        block_on(database.flush()).unwrap();
    }
    disk.set(Fail::HoldsOpens(".seg"));
    let drop_reads = || {
        for id in 0..FILES {
            let mut get = pin!(database.get(id * 1_000));
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..3 {
                if get.as_mut().poll(&mut context).is_ready() {
                    break;
                }
            }
        }
    };
    // Files that the flushes used are closed by other threads: until then no read gets to opening.
    while disk.opens_held() == 0 {
        drop_reads();
        std::thread::yield_now();
    }
    for _ in 0..20 {
        drop_reads();
        std::thread::yield_now();
    }
    let begun = disk.opens_held();
    assert!((1..=5).contains(&begun), "{begun} files were being opened");
    disk.set(Fail::Nothing);
}

/// Only the innermost of several new directories was made durable, and a power cut took the rest.
#[test]
fn each_directory_that_is_made_is_durable_in_the_one_above() {
    let (directory, disk, config) = faulty();
    let path = directory.path().join("a").join("b").join("store");
    let store = Store::create(&path, config).unwrap();
    let synced = disk.directories_synced();
    for above in path.ancestors().skip(1).take(3) {
        assert!(synced.iter().any(|synced| synced == above), "{} of {synced:?}", above.display());
    }
    store.close().unwrap();
}

/// Recovery had every log file open, however many there were.
#[test]
fn a_long_log_is_recovered_with_few_files_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let config = || small().memory_limit(64 << 20).memtable_bytes(4 << 20);
    let store = Store::create(&path, config()).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    for id in 0..2_500_u64 {
        database.put(id, &vector(id, DIMENSION)).unwrap();
    }
    database.put_with(2_500, &vector(2_500, DIMENSION), Durability::Synced).unwrap();
    let image = directory.path().join("image");
    crash_image(&path, &image);
    let logs = std::fs::read_dir(image.join("wal")).unwrap().count();
    assert!(logs >= 6, "{logs} log files");
    let disk = FaultDisk::new(&image);
    let store = Store::open(&image, config().disk(Arc::clone(&disk) as Arc<dyn Disk>)).unwrap();
    assert_eq!(store.database("a").unwrap().count().unwrap(), 2_501);
    assert!(disk.logs_open_max() <= 3, "{} of {logs} log files were open", disk.logs_open_max());
    store.close().unwrap();
}
