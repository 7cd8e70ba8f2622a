//! Recording reads and replaying them.

use std::{fs::File, path::Path};

use nephrite::{
    CachePolicy, Config, DatabaseOptions, Error,
    blocking::Store,
    replay::{Replay, Trace},
};

use crate::support::{new_store, small, vector};

const IDS: u64 = 400;
/// Units of 64 bytes that a vector of them takes.
const VECTOR_UNITS: u16 = 8;

/// A closed store of vectors of 512 bytes, eight to a page, all in segments.
fn filled() -> tempfile::TempDir {
    let (directory, store) = new_store(small());
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    (0..IDS).for_each(|id| database.put(id, &vector(id, 128)).unwrap());
    store.close().unwrap();
    directory
}

/// The trace without reads of id pages. There are some where a put waited for room in the log: its
/// row stays empty, and what follows in that segment is found by its id page.
fn read(path: &Path) -> Trace {
    let mut trace = Trace::read(File::open(path).unwrap(), "trace").unwrap();
    trace.reads.retain(|read| read.length == VECTOR_UNITS);
    trace
}

#[test]
fn every_read_of_a_segment_is_in_the_trace_once() {
    let directory = filled();
    let path = directory.path().join("reads.trace");
    let config = small().record_trace(path.clone()).cache_policy(CachePolicy::S3Fifo);
    let store = Store::open(directory.path().join("store"), config).unwrap();
    let database = store.database("a").unwrap();

    // Each once when its page may have to be loaded, and once more when it is there.
    for _ in 0..2 {
        for id in (0..IDS).step_by(3) {
            assert_eq!(&database.get(id).unwrap().unwrap()[..], &vector(id, 128)[..]);
        }
    }
    let many: Vec<_> = (0..IDS).map(Into::into).collect();
    assert_eq!(database.get_many(&many).unwrap().len(), many.len());
    store.close().unwrap();

    let trace = read(&path);
    let single = IDS.div_ceil(3) * 2;
    assert_eq!((trace.dropped, trace.cut_off), (0, false));
    assert_eq!(trace.reads.len() as u64, single + IDS);
    assert!(trace.reads.iter().all(|read| (read.length, read.page_units) == (8, 1)));
    let replay = Replay::new(trace.reads);
    let footprint = replay.footprint();
    assert_eq!(footprint.records, IDS);
    // The last page of each segment may not be full.
    assert!((IDS / 8..IDS / 8 + 4).contains(&footprint.pages), "{footprint:?}");
    let outcome = replay.by_page(1 << 20, CachePolicy::Clock).unwrap();
    assert_eq!(outcome.misses, footprint.pages);
}

#[test]
fn reads_after_another_recording_replace_it() {
    let directory = filled();
    let path = directory.path().join("reads.trace");
    let reads = |count: u64| {
        let config = small().record_trace(path.clone());
        let store = Store::open(directory.path().join("store"), config).unwrap();
        let database = store.database("a").unwrap();
        (0..count).for_each(|id| assert!(database.get(id).unwrap().is_some()));
        store.close().unwrap();
        read(&path).reads.len() as u64
    };

    assert_eq!((reads(300), reads(2)), (300, 2));
}

#[test]
fn a_file_that_is_no_trace_is_not_written_over() {
    let directory = filled();
    let store = directory.path().join("store");
    let manifest = std::fs::read_dir(&store)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("manifest-"))
        .unwrap();
    let notes = directory.path().join("notes.txt");
    std::fs::write(&notes, "short").unwrap();
    for path in [manifest, notes] {
        let before = std::fs::read(&path).unwrap();
        let error = Store::open(&store, small().record_trace(path.clone())).unwrap_err();
        let refused = matches!(error, Error::InvalidConfig { field: "record_trace", .. });
        assert!(refused && error.to_string().contains("holds no trace"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
    Store::open(&store, small()).unwrap().close().unwrap();
}

#[test]
fn a_trace_that_cannot_be_made_is_an_error_at_open() {
    let directory = filled();
    let config = small().record_trace(directory.path().join("no/such/place"));

    let error = Store::open(directory.path().join("store"), config).unwrap_err();

    assert!(matches!(error, Error::Io(_)), "{error}");
    assert!(error.to_string().contains("place"), "{error}");
    Store::open(directory.path().join("store"), Config::new()).unwrap().close().unwrap();
}

#[test]
fn what_is_no_trace_is_refused_and_what_is_cut_off_is_read_to_the_cut() {
    let directory = filled();
    let path = directory.path().join("reads.trace");
    let config = small().record_trace(path.clone());
    let store = Store::open(directory.path().join("store"), config).unwrap();
    let database = store.database("a").unwrap();
    (0..IDS).for_each(|id| assert!(database.get(id).unwrap().is_some()));
    store.close().unwrap();
    let whole = std::fs::read(&path).unwrap();

    let cut = Trace::read(&whole[..2 * 4096 + 100], "trace").unwrap();
    assert_eq!((cut.reads.len(), cut.cut_off), (255, true));

    let mut damaged = whole.clone();
    damaged[4096 + 40] ^= 1;
    let error = Trace::read(&damaged[..], "trace").unwrap_err();
    assert!(error.to_string().contains("4096"), "{error}");
    assert!(Trace::read(&b"text"[..], "trace").is_err());
}
