//! Every kind of read on caches of 0, 1 and 2 frames, of pages that fit a frame and pages that
//! never will, while guards are held for ever by the thread that reads.

use crate::{
    Config, DatabaseOptions, Durability, IdKind, IdRef, Ids, VerifyReport,
    blocking::{Database, Store},
};

/// More than one id page, and more than one vector page.
const IDS: u64 = 1500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Dense,
    Sparse,
    Strings,
}

fn name(id: u64) -> String {
    format!("row-{id:06}")
}

fn with_id<R>(form: Form, id: u64, work: impl FnOnce(IdRef<'_>) -> R) -> R {
    match form {
        Form::Dense => work(id.into()),
        Form::Sparse => work((id * 1000).into()),
        Form::Strings => work(IdRef::from(&name(id))),
    }
}

fn vector(id: u64, dimension: usize) -> Vec<f32> {
    let first = f32::from(u16::try_from(id).unwrap());
    (0..dimension).map(|at| first + f32::from(u16::try_from(at).unwrap()) / 8192.0).collect()
}

fn store(directory: &tempfile::TempDir, frames: u64) -> Store {
    let mut config = Config::new().memory_limit(8 << 20).wal_segment_bytes(1 << 20);
    config.cache_frames = Some(frames);
    Store::open_or_create(directory.path().join("store"), config).unwrap()
}

fn fill(store: &Store, form: Form, dimension: u32) -> Database {
    let kind = if form == Form::Strings { IdKind::Bytes } else { IdKind::U64 };
    let options = DatabaseOptions::new(dimension).id_kind(kind);
    let database = store.create_database("a", options).unwrap();
    let len = dimension as usize;
    for first in (0..IDS).step_by(100) {
        let rows: Vec<f32> = (first..first + 100).flat_map(|id| vector(id, len)).collect();
        match form {
            Form::Dense => {
                database.put_many(Ids::Consecutive(first), &rows, Durability::Buffered).unwrap();
            }
            Form::Sparse | Form::Strings => (first..first + 100).for_each(|id| {
                with_id(form, id, |id_ref| database.put(id_ref, &vector(id, len)).unwrap());
            }),
        }
    }
    database.flush().unwrap();
    database
}

fn read_in_every_way(store: &Store, database: &Database, form: Form, dimension: usize) {
    let get = |id: u64| with_id(form, id, |id| database.get(id).unwrap().unwrap());
    let held: Vec<_> = (0..IDS).step_by(97).map(|id| (id, get(id))).collect();

    for id in (0..IDS).step_by(7) {
        assert_eq!(*get(id), vector(id, dimension), "{id}");
        assert!(with_id(form, id, |id| database.contains(id)).unwrap());
    }
    let names: Vec<String> = (0..IDS).map(name).collect();
    let ids: Vec<IdRef<'_>> = match form {
        Form::Dense => (0..IDS).map(IdRef::from).collect(),
        Form::Sparse => (0..IDS).map(|id| (id * 1000).into()).collect(),
        Form::Strings => names.iter().map(IdRef::from).collect(),
    };
    let many = database.get_many(&ids).unwrap();
    assert!(
        (0..IDS).zip(&many).all(|(id, found)| **found.as_ref().unwrap() == vector(id, dimension))
    );
    assert_eq!(database.count().unwrap(), IDS);
    assert_eq!(database.scan().unwrap().count() as u64, IDS);
    with_id(form, 7, |id| database.delete(id)).unwrap();
    with_id(form, 7, |id| database.put(id, &vector(7, dimension))).unwrap();
    database.flush().unwrap();
    database.compact().unwrap();
    assert_eq!(*get(7), vector(7, dimension));
    assert!(VerifyReport::is_clean(&store.verify(|_| ()).unwrap()));
    assert!(held.iter().all(|(id, found)| **found == vector(*id, dimension)));
}

fn check(frames: u64, dimension: u32) {
    for form in [Form::Dense, Form::Sparse, Form::Strings] {
        let directory = tempfile::tempdir().unwrap();
        let first = store(&directory, frames);
        let database = fill(&first, form, dimension);

        read_in_every_way(&first, &database, form, dimension as usize);

        let stats = first.stats();
        assert!(stats.cache_bytes == frames * 4096 && stats.cache_bypasses != 0, "{stats:?}");
        assert_eq!(stats.work_bytes, 0, "what was read past the cache is given back");
        first.close().unwrap();
        let second = store(&directory, frames);
        read_in_every_way(&second, &second.database("a").unwrap(), form, dimension as usize);
    }
}

#[test]
fn a_cache_of_no_frame_serves_every_read() {
    check(0, 8);
}

#[test]
fn a_cache_of_one_frame_serves_every_read() {
    check(1, 8);
}

#[test]
fn a_cache_of_two_frames_serves_every_read() {
    check(2, 8);
}

#[test]
fn vectors_larger_than_the_cache_are_read_all_the_same() {
    check(1, 1500); // pages of 8 KiB
}
