//! Directories and file systems in which nothing may be written, from the beginning or from some
//! moment on: refused by name, and what can be read is read.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use nephrite::{DatabaseOptions, IoErrorKind, blocking::Store};
use nephrite_tests::{
    new_store,
    process::{Mounted, alone, become_nobody, is_root, skipped},
    small, vector,
};

use super::{check, create, kind_of, put_until_refused};

fn set_modes(directory: &Path, directories: u32, files: u32) {
    // First so that it can be listed, last so that it ends as asked.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            set_modes(&path, directories, files);
        } else {
            fs::set_permissions(&path, fs::Permissions::from_mode(files)).unwrap();
        }
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(directories)).unwrap();
}

/// Runs a test as a user without rights; for good, so in a process of its own.
fn as_nobody(test: &str, body: impl FnOnce()) {
    alone(&format!("surroundings::permissions::{test}"), || {
        if is_root() {
            become_nobody().unwrap();
        } else {
            println!("not root: the test runs as the user it was started by");
        }
        body();
    });
}

#[test]
fn a_directory_without_write_permission_is_refused_by_name() {
    as_nobody("a_directory_without_write_permission_is_refused_by_name", || {
        let (directory, store) = new_store(small());
        let path = directory.path().join("store");
        let database = create(&store, "a", 32);
        (0..50).for_each(|id| database.put(id, &vector(id, 32)).unwrap());
        store.close().unwrap();
        for (directories, files) in [(0o555, 0o444), (0o500, 0o400), (0o000, 0o000)] {
            set_modes(&path, directories, files);
            let opened = Store::open(&path, small());
            let error = opened.map(drop).expect_err("it cannot be written");
            assert_eq!(kind_of(&error), IoErrorKind::PermissionDenied, "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            set_modes(&path, 0o755, 0o644);
        }
        let store = Store::open(&path, small()).unwrap();
        check(&store.database("a").unwrap(), 0..50);
        drop(store);
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
        let fresh = directory.path().join("fresh");
        let error = Store::create(&fresh, small()).map(drop).expect_err("there is no room for it");
        assert_eq!(kind_of(&error), IoErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("fresh"), "{error}");
        assert!(!fresh.exists());
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    });
}

#[test]
fn a_directory_that_becomes_read_only_fails_writes_and_serves_reads() {
    as_nobody("a_directory_that_becomes_read_only_fails_writes_and_serves_reads", || {
        let (directory, store) = new_store(small());
        let path = directory.path().join("store");
        let database = create(&store, "a", 256);
        (0..200).for_each(|id| database.put(id, &vector(id, 256)).unwrap());
        database.flush().unwrap();
        set_modes(&path, 0o555, 0o644);
        database.put(200, &vector(200, 256)).unwrap();
        let error = database.flush().expect_err("no segment can be made");
        assert!(error.to_string().contains("segments"), "{error}");
        let (acknowledged, error) = put_until_refused(&database, 201);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(error.to_string().contains("ermission"), "{error}");
        check(&database, 0..acknowledged);
        assert_eq!(database.count().unwrap(), acknowledged);
        let create = store.create_database("b", DatabaseOptions::new(4));
        drop(create); // The manifest has room: making a database needs no new file.
        set_modes(&path, 0o755, 0o644);
        drop((database, store));
        let store = Store::open(&path, small()).unwrap();
        let database = store.database("a").unwrap();
        check(&database, 0..acknowledged);
        database.put(acknowledged, &vector(acknowledged, 256)).unwrap();
        store.flush().unwrap();
        check(&database, 0..=acknowledged);
    });
}

#[test]
fn a_read_only_file_system_is_refused_by_name() {
    let test = "a_read_only_file_system_is_refused_by_name";
    if !is_root() {
        return skipped(test, "mounting needs root");
    }
    let directory = tempfile::tempdir().unwrap();
    let mounted = match Mounted::tmpfs(directory.path(), 32 << 20) {
        Ok(mounted) => mounted,
        Err(error) => return skipped(test, &format!("no tmpfs can be mounted: {error}")),
    };
    let path = directory.path().join("store");
    let store = Store::create(&path, small()).unwrap();
    create(&store, "a", 8).put(1, &vector(1, 8)).unwrap();
    store.close().unwrap();
    drop(store);
    mounted.make_read_only().unwrap();
    let error = Store::open(&path, small()).map(drop).expect_err("it cannot be written");
    assert_eq!(kind_of(&error), IoErrorKind::ReadOnly, "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    let error = Store::create(directory.path().join("b"), small()).map(drop).expect_err("as above");
    assert_eq!(kind_of(&error), IoErrorKind::ReadOnly, "{error}");
}
