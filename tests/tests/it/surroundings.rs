//! Hostile surroundings: no permission, no space, another process, no descriptors, no store.
//!
//! In all of them: an error that names the place and the reason, no panic and no hang; what can be
//! read is read; what was acknowledged is there once the cause is gone.
//! Tests that change the user or limits run in a process of their own. Tests that need root print
//! `SKIPPED` without it. Where nothing may be written:
//! `permissions`; without room: `full_disk`.

mod full_disk;
mod permissions;

use std::{fs, path::Path};

use nephrite::{
    DatabaseOptions, Durability, Error, IoErrorKind,
    blocking::{Database, Store},
};
use nephrite_tests::{
    assert_vector,
    crash::{Line, Victim},
    history::{Plan, Shape, create_databases},
    new_store,
    process::{alone, limit_descriptors},
    small, vector,
};

fn create(store: &Store, name: &str, dimension: u32) -> Database {
    store.create_database(name, DatabaseOptions::new(dimension)).unwrap()
}

#[track_caller]
fn check(database: &Database, ids: impl Iterator<Item = u64>) {
    for id in ids {
        let found = database.get(id).unwrap_or_else(|error| panic!("id {id}: {error}"));
        let found = found.unwrap_or_else(|| panic!("id {id} was acknowledged and is lost"));
        assert_vector(&found, id, format_args!("id {id}"));
    }
}

#[track_caller]
fn kind_of(error: &Error) -> IoErrorKind {
    match error {
        Error::Io(error) => error.kind(),
        other => panic!("not an I/O error: {other}"),
    }
}

/// Puts ids from `first` on until one is refused; gives the number of ids and the refusal.
fn put_until_refused(database: &Database, first: u64) -> (u64, Error) {
    let dimension = database.dimension() as usize;
    for id in first..first + 1_000_000 {
        // Every eighth is synced, so that the log is written all the time.
        let durability = if id % 8 == 0 { Durability::Synced } else { Durability::Buffered };
        if let Err(error) = database.put_with(id, &vector(id, dimension), durability) {
            return (id, error);
        }
    }
    panic!("a million writes found room");
}

// Other processes, other directories.

#[test]
fn a_store_is_open_in_one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::create(&path, Shape::Tight.config()).unwrap();
    create_databases(&store).unwrap();
    let child = || {
        let plan = Plan::new(0, Shape::Tight);
        let arguments = [path.to_str().unwrap(), &plan.seed.to_string(), "tight", "auto", "idle"]
            .map(str::to_owned);
        Victim::start(Path::new(env!("CARGO_BIN_EXE_crash_writer")), &arguments).unwrap()
    };
    // Open here: the child is refused.
    let (status, told) = child().wait().unwrap();
    assert!(!status.success());
    let Ok(Line::Failed(message)) = Line::parse(told.trim_end()) else { panic!("{told:?}") };
    assert!(message.contains("open elsewhere") && message.contains("store"), "{message}");
    store.close().unwrap();
    drop(store);
    // Open there: it is refused here, and not any more once the child is dead.
    let mut holder = child();
    assert_eq!(holder.next_line().unwrap().as_deref(), Some("ready"));
    for opened in [
        Store::open(&path, small()),
        Store::create(&path, small()),
        Store::open_or_create(&path, small()),
    ] {
        assert!(
            matches!(&opened, Err(Error::Locked { path: named }) if *named == path),
            "{opened:?}"
        );
    }
    holder.kill().unwrap();
    assert_eq!(Store::open(&path, small()).unwrap().list().len(), 4);
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir(at("other")).unwrap();
    fs::write(at("other").join("letter.txt"), "dear").unwrap();
    fs::write(at("file"), "no directory").unwrap();
    for name in ["empty", "other", "file", "missing"] {
        let opened = Store::open(at(name), small());
        let Err(Error::NotAStore { path, reason }) = &opened else { panic!("{name}: {opened:?}") };
        assert_eq!(*path, at(name));
        assert!(!reason.is_empty());
    }
    assert_eq!(fs::read_dir(at("empty")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(at("other")).unwrap().count(), 1);
    assert!(!at("missing").exists());
    let error = Store::create(at("file"), small()).map(drop).expect_err("a file is in the way");
    assert!(error.to_string().contains("file"), "{error}");
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "no directory");
}

// Descriptors.

#[test]
fn many_databases_live_with_few_descriptors() {
    alone("surroundings::many_databases_live_with_few_descriptors", || {
        limit_descriptors(48).unwrap();
        let config = small().max_open_files(5);
        let (directory, store) = new_store(config.clone());
        for name in 0..60 {
            let database = create(&store, &format!("d{name}"), 64);
            (0..20).for_each(|id| database.put(id, &vector(id, 64)).unwrap());
        }
        store.close().unwrap();
        let store = Store::open(directory.path().join("store"), config).unwrap();
        for name in (0..60).chain((0..60).rev()) {
            check(&store.database(&format!("d{name}")).unwrap(), 0..20);
        }
    });
}

#[test]
fn too_few_descriptors_are_told_and_lose_nothing() {
    alone("surroundings::too_few_descriptors_are_told_and_lose_nothing", || {
        let (directory, store) = new_store(small());
        let path = directory.path().join("store");
        for name in 0..60 {
            let database = create(&store, &format!("d{name}"), 64);
            (0..20).for_each(|id| database.put(id, &vector(id, 64)).unwrap());
        }
        store.close().unwrap();
        drop(store);
        // The limit falls while the store is open: more files may be open than there are
        // descriptors.
        let store = Store::open(&path, small().max_open_files(100)).unwrap();
        limit_descriptors(48).unwrap();
        let mut refused = 0;
        for name in 0..60 {
            let database = match store.database(&format!("d{name}")) {
                Ok(database) => database,
                Err(error) => {
                    assert!(error.to_string().contains("segments/"), "{error}");
                    refused += 1;
                    continue;
                }
            };
            for id in 0..20 {
                match database.get(id) {
                    Ok(found) => assert_vector(&found.unwrap(), id, format_args!("id {id}")),
                    Err(error) => assert!(error.to_string().contains("segments/"), "{error}"),
                }
            }
        }
        println!("{refused} of 60 databases could not be opened with 48 descriptors");
        let _ = store.close();
        drop(store);
        let refused = Store::open(&path, small().max_open_files(100));
        assert!(
            matches!(&refused, Err(Error::InvalidConfig { field: "max_open_files", .. })),
            "{refused:?}"
        );
        let store = Store::open(&path, small().max_open_files(5)).unwrap();
        for name in 0..60 {
            check(&store.database(&format!("d{name}")).unwrap(), 0..20);
        }
        assert!(store.verify(|_| ()).unwrap().is_clean());
    });
}
