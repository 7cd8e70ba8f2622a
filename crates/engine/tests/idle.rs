//! An open store that nobody uses takes no processor time, and a closed one leaves no thread. A
//! binary of its own with one test: it looks at all threads of the process.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    fs,
    sync::{Condvar, Mutex},
    time::Duration,
};

use nephrite::{Config, DatabaseOptions, Durability, blocking::Store};
use nephrite_io::block_on;

/// How long the store is watched.
const WATCHED: Duration = Duration::from_secs(2);
/// What the kernel may charge to threads that sleep.
const ALLOWED: Duration = Duration::from_millis(20);
/// Times that it is watched: at first there may be something left to do.
const ATTEMPTS: usize = 10;

/// What the kernel says of every thread of this process in this file of its own.
fn of_threads(file: &str) -> Vec<String> {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    // A thread may end between the listing and the look.
    threads.filter_map(|it| fs::read_to_string(it.unwrap().path().join(file)).ok()).collect()
}

fn processor_time() -> Duration {
    let nanoseconds = |line: &String| line.split_whitespace().next()?.parse().ok();
    of_threads("schedstat").iter().filter_map(nanoseconds).map(Duration::from_nanos).sum()
}

fn wait(time: Duration) {
    let (never, signal) = (Mutex::new(()), Condvar::new());
    drop(signal.wait_timeout_while(never.lock().unwrap(), time, |()| true));
}

#[test]
fn an_idle_store_uses_no_processor_time_and_a_closed_one_has_no_thread() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config::new().memory_limit(16 << 20);
    let store = Store::create(directory.path().join("store"), config).unwrap();
    let database = store.create_database("d", DatabaseOptions::new(4)).unwrap();
    for id in 0..100 {
        database.put(id, &[0.5; 4]).unwrap();
        database.put_with(1000 + id, &[0.5; 4], Durability::Synced).unwrap();
        let synced = database.as_async().put_with(2000 + id, &[0.5; 4], Durability::Synced);
        block_on(synced).unwrap();
    }
    store.flush().unwrap();
    database.put_with(1u64, &[1.5; 4], Durability::Synced).unwrap();
    assert!(database.get(1000u64).unwrap().is_some());

    let mut used = Vec::new();
    while used.last().is_none_or(|last| ALLOWED <= *last) {
        assert!(used.len() < ATTEMPTS, "in {WATCHED:?} each: {used:?}");
        let before = processor_time();
        wait(WATCHED);
        used.push(processor_time().saturating_sub(before));
    }

    drop(database);
    store.close().unwrap();
    let ours = || of_threads("comm").into_iter().filter(|name| name.starts_with("nephrite-"));
    // A joined thread's entry may outlive the join by an instant.
    for _ in 0..10_000 {
        if ours().next().is_none() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("threads left: {:?}", ours().collect::<Vec<_>>());
}
