//! What a database costs while nobody uses it: at most 1 KiB when it is closed, 200 KiB when it is
//! open. A counting allocator measures what is in use; it is global, so this is a binary of its
//! own. The arena of the cache is mapped, not allocated, and is not counted.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use nephrite::{Config, DatabaseOptions, Durability, Ids, blocking::Store};
use nephrite_tests::vector;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is handed to `System` unchanged, so that its guarantees are kept; counting is
// one atomic addition, which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed); // a counter
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed); // a counter
        // SAFETY: the caller keeps the contract of `dealloc`; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CLOSED_BYTES_MAX: usize = 1 << 10;
const OPEN_BYTES_MAX: usize = 200 << 10;

fn in_use() -> usize {
    IN_USE.load(Ordering::Relaxed)
}

fn config() -> Config {
    Config::new().memory_limit(64 << 20).max_open_files(64)
}

fn fill(store: &Store, numbers: std::ops::Range<u64>) {
    let rows: Vec<f32> = (0..100).flat_map(|id| vector(id, 32)).collect();
    for number in numbers {
        let name = format!("database {number:05}");
        let database = store.create_database(&name, DatabaseOptions::new(32)).unwrap();
        database.put_many(Ids::Consecutive(number), &rows, Durability::Buffered).unwrap();
    }
}

/// Bytes that a store uses soon after it was opened: once each of its threads has worked. They
/// allocate when they begin, rings a hundred kilobytes each, which may be after the store is open.
fn after_open(path: &Path) -> usize {
    let before = in_use();
    let store = Store::open(path, config()).unwrap();
    let database = store.database("database 00000").unwrap();
    database.put_with(0, &vector(0, 32), Durability::Synced).unwrap();
    database.flush().unwrap();
    database.compact().unwrap();
    drop(database);
    let used = in_use() - before;
    store.close().unwrap();
    used
}

#[test]
fn an_idle_database_costs_little() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::create(&path, config()).unwrap();
    fill(&store, 0..100);
    store.close().unwrap();
    drop(store);
    let few = after_open(&path);
    let store = Store::open(&path, config()).unwrap();
    fill(&store, 100..700);
    store.close().unwrap();
    drop(store);
    let closed = (after_open(&path) - few) / 600;
    println!("a closed database: {closed} bytes");
    assert!(closed <= CLOSED_BYTES_MAX, "a closed database takes {closed} bytes");

    let store = Store::open(&path, config()).unwrap();
    let before = in_use();
    let databases: Vec<_> = (0..200)
        .map(|number| {
            let database = store.database(&format!("database {number:05}")).unwrap();
            assert!(database.get(number + 7).unwrap().is_some());
            database
        })
        .collect();
    let open = (in_use() - before) / databases.len();
    println!("an open database: {open} bytes");
    assert!(open <= OPEN_BYTES_MAX, "an open database takes {open} bytes");
    // And when it has been written to and flushed.
    for (number, database) in (0..).zip(&databases) {
        database.put(number, &vector(1, 32)).unwrap();
    }
    store.flush().unwrap();
    let flushed = (in_use() - before) / databases.len();
    println!("an open database after a flush: {flushed} bytes");
    assert!(flushed <= OPEN_BYTES_MAX, "a flushed database takes {flushed} bytes");
}
