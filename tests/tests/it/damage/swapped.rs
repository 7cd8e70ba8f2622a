//! Files in the wrong place: swapped between databases and stores, and copies of an earlier time.

use std::{fs, path::Path};

use nephrite::{
    DatabaseOptions, Durability,
    blocking::{Database, Store},
};
use nephrite_tests::{
    directories::{Kind, StoreFile, crash_image, files_of},
    log_frames::wait_for_mark,
    vector,
};

use super::{Patient, assert_names, config};

fn swap(a: &Path, b: &Path) {
    let (first, second) = (fs::read(a).unwrap(), fs::read(b).unwrap());
    fs::write(a, second).unwrap();
    fs::write(b, first).unwrap();
}

#[test]
fn segments_that_were_swapped_are_noticed() {
    let patient = Patient::closed();
    let files = patient.files(Kind::Segment);
    for a in 0..files.len() {
        for b in 0..a {
            swap(&files[a].path, &files[b].path);
            let what = format!("{} and {} swapped", files[a].name, files[b].name);
            let store = Store::open(patient.path(), config()).unwrap();
            let failures = patient.read_everything(&store, &what);
            assert!(!failures.is_empty(), "{what}");
            for (_, error) in failures {
                let text = error.to_string();
                let named = text.contains(&files[a].name) || text.contains(&files[b].name);
                assert!(named, "{what}: {text}");
            }
            let report = store.verify(|_| ()).unwrap();
            for file in [&files[a], &files[b]] {
                assert!(report.damage.iter().any(|it| it.file == file.name), "{what}: {report:?}");
            }
            drop(store);
            patient.restore();
        }
    }
}

#[test]
fn a_segment_of_another_store_is_noticed() {
    let (patient, other) = (Patient::closed(), Patient::closed());
    let files = patient.files(Kind::Segment);
    let others = other.files(Kind::Segment);
    assert_eq!(names(&files), names(&others), "the two stores have the same history");
    for (file, from) in files.iter().zip(&others) {
        fs::copy(&from.path, &file.path).unwrap();
        let store = Store::open(patient.path(), config()).unwrap();
        let failures = patient.read_everything(&store, &file.name);
        assert!(!failures.is_empty(), "{} of another store is served", file.name);
        failures.iter().for_each(|(_, error)| assert_names(error, file, "another store's"));
        let report = store.verify(|_| ()).unwrap();
        assert!(report.damage.iter().all(|it| it.file == file.name) && !report.is_clean());
        drop(store);
        patient.restore();
    }
}

fn names(files: &[StoreFile]) -> Vec<&str> {
    files.iter().map(|file| file.name.as_str()).collect()
}

#[test]
fn a_log_of_another_store_is_refused_and_left_as_it_is() {
    let (patient, other) = (Patient::crashed(), Patient::crashed());
    for (file, from) in patient.files(Kind::Wal).iter().zip(&other.files(Kind::Wal)) {
        assert_eq!(file.name, from.name, "the two stores have the same history");
        fs::copy(&from.path, &file.path).unwrap();
        let before = fs::read(&file.path).unwrap();
        patient.assert_refused(file, "another store's log");
        assert!(fs::read(&file.path).unwrap() == before, "the other store's log was changed");
        patient.restore();
    }
}

#[test]
fn a_manifest_of_another_store_is_refused_and_nothing_is_removed() {
    for (patient, other) in
        [(Patient::closed(), Patient::closed()), (Patient::crashed(), Patient::crashed())]
    {
        let [file] = &patient.files(Kind::Manifest)[..] else { panic!("there is one manifest") };
        let from = &other.files(Kind::Manifest)[0];
        assert_eq!(file.name, from.name, "the two stores have the same history");
        let before: Vec<_> = [Kind::Segment, Kind::Wal].map(|kind| patient.files(kind)).concat();
        fs::copy(&from.path, &file.path).unwrap();
        match Store::open(patient.path(), config()) {
            Ok(store) => {
                let failures = patient.read_everything(&store, "another store's manifest");
                assert!(!failures.is_empty());
                store.close().unwrap();
                panic!("the store opens under another store's manifest");
            }
            Err(error) => assert!(error.is_corrupt(), "{error}"),
        }
        for file in before {
            assert!(file.path.exists(), "{} was removed", file.name);
        }
    }
}

/// Two histories that part after a copy give the same file ids to different files. A file of one
/// in the other is as whole as can be, but not the one that the manifest means.
#[test]
fn a_stale_copy_of_a_segment_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    let store = Store::create(&one, config()).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(20)).unwrap();
    fill(&database, 0..50, 0);
    store.close().unwrap();
    crash_image(&one, &two);
    for (path, ids, stamps) in [(&one, 100..130, 1000), (&two, 100..140, 2000)] {
        let store = Store::open(path, config()).unwrap();
        fill(&store.database("a").unwrap(), ids, stamps);
        store.close().unwrap();
    }
    let (newer, stale) = (files_of(&one, Kind::Segment), files_of(&two, Kind::Segment));
    assert_eq!(names(&newer), names(&stale), "both histories used the same file ids");
    let (file, from) = (newer.last().unwrap(), stale.last().unwrap());
    fs::copy(&from.path, &file.path).unwrap();
    let store = Store::open(&one, config()).unwrap();
    let opened = store.database("a").and_then(|database| database.get(110).map(|_| ()));
    assert_names(&opened.expect_err("a stale copy is served"), file, "stale copy");
    let report = store.verify(|_| ()).unwrap();
    assert!(report.damage.iter().any(|damage| damage.file == file.name), "{report:?}");
}

fn fill(database: &Database, ids: std::ops::Range<u64>, stamps: u64) {
    for id in ids {
        database.put(id, &vector(stamps + id, 20)).unwrap();
    }
    database.flush().unwrap();
}

/// An older life of a recycled log segment, put back over the newer one.
#[test]
fn a_stale_copy_of_a_recycled_log_segment_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("live");
    let store = Store::create(&live, config()).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(1000)).unwrap();
    let put = |ids: std::ops::Range<u64>| {
        for id in ids {
            database.put_with(id, &vector(id, 1000), Durability::Synced).unwrap();
        }
    };
    put(0..60);
    let earlier = directory.path().join("earlier");
    crash_image(&live, &earlier);
    database.flush().unwrap();
    put(60..200);
    database.flush().unwrap();
    put(200..340);
    wait_for_mark(&live);
    let image = directory.path().join("image");
    crash_image(&live, &image);
    assert!(0 < store.stats().wal_segments_recycled, "the log was recycled");
    let copy = directory.path().join("copy");
    for stale in files_of(&earlier, Kind::Wal) {
        crash_image(&image, &copy);
        let target = copy.join(&stale.name);
        if !target.exists() || fs::read(&target).unwrap() == fs::read(&stale.path).unwrap() {
            continue;
        }
        fs::copy(&stale.path, &target).unwrap();
        let Ok(store) = Store::open(&copy, config()) else { continue };
        let database = store.database("a").unwrap();
        let lost: Vec<u64> = (0..340).filter(|id| database.get(*id).unwrap().is_none()).collect();
        assert!(lost.is_empty(), "{} of an earlier time: {lost:?} lost", stale.name);
    }
}
