//! Recovery of logs that took a turn: recycled segments, changed sizes, repeated crashes.
//!
//! Crash images are copies of the directory of an open store: what SIGKILL leaves.

use std::path::Path;

use nephrite::{
    Config, DatabaseOptions, Durability,
    blocking::{Database, Store},
};
use nephrite_tests::{
    assert_vector,
    damage::Damaged,
    directories::{crash_image, restore_image},
    log_frames::{LogFrame, current_log, log_frames, wait_for_mark},
    new_store,
    process::wait_until,
    small, vector,
};

const DIMENSION: usize = 64;

fn put(database: &Database, ids: std::ops::Range<u64>) {
    for id in ids {
        database.put_with(id, &vector(id, DIMENSION), Durability::Synced).unwrap();
    }
}

#[track_caller]
fn check(path: &Path, config: Config, count: u64) -> Store {
    let store = Store::open(path, config).unwrap_or_else(|error| panic!("{error}"));
    let database = store.database("a").unwrap();
    for id in 0..count {
        let found = database.get(id).unwrap();
        let found = found.unwrap_or_else(|| panic!("id {id} of {count} is lost"));
        assert_vector(&found, id, format_args!("id {id}"));
    }
    assert_eq!(database.count().unwrap(), count);
    let report = store.verify(|_| ()).unwrap();
    assert!(report.is_clean(), "{:#?}", report.damage);
    store
}

/// A closed log segment ends where the next frame did not fit. In a file that was recycled a frame
/// of its former life lies there: neither blank nor torn, and not the end of the log.
#[test]
fn a_recycled_log_segment_does_not_end_the_log() {
    let (directory, store) = new_store(small());
    let database = store.create_database("a", DatabaseOptions::new(64)).unwrap();
    // Frames of one block; segments of 64 blocks, each used again after the flush.
    put(&database, 0..200);
    database.flush().unwrap();
    // Frames of two blocks do not end where the old ones did.
    for id in 200..400 {
        let mut batch = nephrite::Batch::new();
        for part in 0..20 {
            let id = 200 + (id - 200) * 20 + part;
            batch.put(id, &vector(id, DIMENSION));
        }
        database.batch_with(batch, Durability::Synced).unwrap();
        if (id + 1) % 40 == 0 {
            let image = directory.path().join(format!("image {id}"));
            crash_image(&directory.path().join("store"), &image);
            drop(check(&image, small(), 200 + (id - 199) * 20));
        }
    }
}

#[test]
fn the_log_goes_on_over_crash_after_crash() {
    let directory = tempfile::tempdir().unwrap();
    let mut path = directory.path().join("store 0");
    let mut store = Store::create(&path, small()).unwrap();
    drop(store.create_database("a", DatabaseOptions::new(64)).unwrap());
    for crash in 0..12_u64 {
        let database = store.database("a").unwrap();
        put(&database, crash * 30..(crash + 1) * 30);
        if crash % 3 == 1 {
            store.flush().unwrap();
        }
        let image = directory.path().join(format!("store {}", crash + 1));
        crash_image(&path, &image);
        drop(database);
        drop(store);
        path = image;
        store = check(&path, small(), (crash + 1) * 30);
    }
}

#[test]
fn the_size_of_log_segments_may_change_between_opens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let sizes: [u64; 6] = [256 << 10, 1 << 20, 512 << 10, 256 << 10, 2 << 20, 260 << 10];
    let mut count = 0;
    for (round, bytes) in sizes.into_iter().cycle().take(12).enumerate() {
        let config = small().wal_segment_bytes(bytes);
        let store = Store::open_or_create(&path, config.clone()).unwrap();
        if round == 0 {
            drop(store.create_database("a", DatabaseOptions::new(64)).unwrap());
        }
        let database = store.database("a").unwrap();
        put(&database, count..count + 100);
        count += 100;
        let image = directory.path().join(format!("image {round}"));
        crash_image(&path, &image);
        drop(database);
        store.close().unwrap();
        let other = small().wal_segment_bytes(sizes[(round + 3) % sizes.len()]);
        drop(check(&image, other, count));
        drop(check(&path, config, count));
    }
}

#[test]
fn a_crash_during_recovery_starts_it_over() {
    let (directory, store) = new_store(small());
    let database = store.create_database("a", DatabaseOptions::new(64)).unwrap();
    put(&database, 0..300);
    let path = directory.path().join("store");
    let first = directory.path().join("first");
    crash_image(&path, &first);
    drop((database, store));
    // Opened, but not closed: an image of the recovered store, and one of that.
    let second = directory.path().join("second");
    let recovered = check(&first, small(), 300);
    crash_image(&first, &second);
    let third = directory.path().join("third");
    let again = check(&second, small(), 300);
    put(&again.database("a").unwrap(), 300..350);
    crash_image(&second, &third);
    drop(check(&third, small(), 350));
    drop((recovered, again));
}

/// A store whose log holds ids 0..10, each synced, and then a batch of ids 10..40 in one frame
/// that nothing later says to be on disk: what power loss in mid-write leaves.
fn with_a_last_frame(directory: &Path) -> (std::path::PathBuf, LogFrame) {
    let live = directory.join("live");
    let store = Store::create(&live, small()).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(64)).unwrap();
    put(&database, 0..10);
    let mut batch = nephrite::Batch::new();
    (10..40_u64).for_each(|id| batch.put(id, &vector(id, DIMENSION)));
    database.batch_with(batch, Durability::Synced).unwrap();
    wait_for_mark(&live);
    let image = directory.join("image");
    crash_image(&live, &image);
    let log = current_log(&image).unwrap();
    let [.., last, mark] = log_frames(&log.path)[..] else { panic!("the log has frames") };
    assert_eq!((last.records, mark.records), (1, 0));
    drop(Damaged::change(&log.path, |content| clear(content, mark.start, mark.end)));
    (image, last)
}

fn clear(content: &mut [u8], start: u64, end: u64) {
    content[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()].fill(0);
}

#[test]
fn a_torn_last_frame_is_wholly_absent_and_the_rest_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let (image, last) = with_a_last_frame(directory.path());
    assert!(4096 < last.end - last.start, "the frame has several blocks");
    let log = current_log(&image).unwrap();
    let copy = directory.path().join("copy");
    // Any sectors of a write may be missing: its end, its beginning, one in the middle.
    for sector in (last.start..last.end).step_by(512) {
        for (start, end) in [(sector, last.end), (last.start, sector), (sector, sector + 512)] {
            let damaged = Damaged::change(&log.path, |content| {
                let before = content.clone();
                clear(content, start, end);
                // Sectors that were zero anyway are not missing.
                if *content == before {
                    clear(content, last.start, last.start + 8);
                }
            });
            restore_image(&image, &copy);
            damaged.mend();
            let store = check(&copy, small(), 10);
            put(&store.database("a").unwrap(), 10..20);
            store.close().unwrap();
            drop(check(&copy, small(), 20));
        }
    }
    drop(check(&image, small(), 40));
}

/// Frames behind a torn one are of a history that did not happen. Once recovery has decided so
/// they never come back, though they lie where they were.
#[test]
fn frames_behind_a_torn_one_do_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("live");
    let store = Store::create(&live, small()).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(64)).unwrap();
    put(&database, 0..5);
    // Not synced: nothing says that any of them is on disk.
    for id in 1000..1010 {
        let frames = store.stats().wal_frames;
        database.put(id, &vector(id, DIMENSION)).unwrap();
        wait_until("the frame is written", || frames < store.stats().wal_frames);
    }
    let image = directory.path().join("image");
    crash_image(&live, &image);
    let log = current_log(&image).unwrap();
    let frames = log_frames(&log.path);
    let torn = frames[frames.len() - 6];
    drop(Damaged::change(&log.path, |content| clear(content, torn.start, torn.start + 512)));
    let gone = |store: &Store| {
        let database = store.database("a").unwrap();
        for id in 1000..1003 {
            let found = database.get(id).unwrap().expect("it lies before the torn frame");
            assert_vector(&found, id, format_args!("id {id}"));
        }
        for id in 1006..1010_u64 {
            assert!(database.get(id).unwrap().is_none(), "id {id} came back");
        }
    };
    // Killed before anything was flushed, after new writes, again and again.
    let mut path = image;
    for crash in 0..4_u64 {
        let store = Store::open(&path, small()).unwrap();
        gone(&store);
        let database = store.database("a").unwrap();
        put(&database, 5 + crash * 40..5 + (crash + 1) * 40);
        gone(&store);
        let next = directory.path().join(format!("crash {crash}"));
        crash_image(&path, &next);
        path = next;
    }
    let store = Store::open(&path, small()).unwrap();
    gone(&store);
    for id in 0..165 {
        let found = store.database("a").unwrap().get(id).unwrap();
        assert_vector(&found.unwrap(), id, format_args!("id {id}"));
    }
}
