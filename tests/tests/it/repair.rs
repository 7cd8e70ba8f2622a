//! Repair of damaged stores: what is whole stays bit for bit, what is lost is named, and the store
//! opens, verifies clean and takes writes.
//!
//! The stores and the kinds of damage are those of `damage`. Each is tried twice: with what the log
//! still holds of flushed records, and with a log that was overwritten meanwhile.

mod logs;
mod manifests;
mod random;
mod segments;

use std::{collections::BTreeMap, fs, path::Path};

use nephrite::{
    Id,
    blocking::{Database, Store, repair},
    repair::{LossKind, RepairMode, RepairReport},
};
use nephrite_tests::{
    assert_vector,
    directories::{Kind, files_of},
    vector,
};

use super::damage::{Expected, Patient, config};

/// Overwrites what the log holds of records that are in segments.
fn blank_log(store: &Path) {
    for file in files_of(store, Kind::Wal) {
        let mut content = fs::read(&file.path).unwrap();
        content[4096..].fill(0);
        fs::write(&file.path, content).unwrap();
    }
}

/// Every file with its bytes, the lock aside.
fn snapshot(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            let inner = snapshot(&entry.path()).into_iter();
            files.extend(inner.map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else if name != "LOCK" {
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    files
}

/// What a report says of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Kept,
    /// Absent.
    Lost,
    /// Absent, old, or right.
    Unknown,
}

fn verdict(report: &RepairReport, database: &str, id: &Id) -> Verdict {
    let mut verdict = Verdict::Kept;
    let of_database = |name: &Option<String>| name.as_deref().is_none_or(|name| name == database);
    for loss in report.losses.iter().filter(|loss| of_database(&loss.database)) {
        match loss.kind {
            LossKind::Ids if loss.ids.contains(id) => verdict = Verdict::Lost,
            LossKind::Doubtful if loss.ids.contains(id) => return Verdict::Unknown,
            LossKind::Range => match &loss.range {
                Some((low, high)) if id < low || high < id => {}
                _ => return Verdict::Unknown,
            },
            LossKind::Records => return Verdict::Unknown,
            _ => {}
        }
    }
    verdict
}

/// Dry run, repair, and everything that must hold afterwards. Gives the report back.
#[track_caller]
fn assert_repaired(patient: &Patient, what: &str) -> RepairReport {
    let before = snapshot(&patient.path());
    let planned = repair(patient.path(), config(), RepairMode::DryRun)
        .unwrap_or_else(|error| panic!("{what}: dry run: {error}"));
    assert!(snapshot(&patient.path()) == before, "{what}: the dry run changed something");
    let report = repair(patient.path(), config(), RepairMode::Repair)
        .unwrap_or_else(|error| panic!("{what}: repair: {error}"));
    assert_eq!(losses(&planned), losses(&report), "{what}: the dry run says something else");
    assert_nothing_deleted(patient, &before, what);
    assert_matches(patient, &report, what);
    let again = repair(patient.path(), config(), RepairMode::Repair).unwrap();
    assert!(again.is_clean(), "{what}: a second repair finds {again}");
    report
}

fn losses(report: &RepairReport) -> Vec<String> {
    report.losses.iter().map(ToString::to_string).collect()
}

/// Every file is where it was, or set aside as it was, unless it was only replaced.
#[track_caller]
fn assert_nothing_deleted(patient: &Patient, before: &BTreeMap<String, Vec<u8>>, what: &str) {
    let after = snapshot(&patient.path());
    for (name, bytes) in before {
        let is_there = |(other, content): (&String, &Vec<u8>)| {
            (other == name || other.ends_with(&format!("/{name}"))) && content == bytes
        };
        assert!(after.iter().any(is_there), "{what}: {name} is gone");
    }
}

/// The store opens, verifies clean, holds what the report does not name, and takes writes.
#[track_caller]
fn assert_matches(patient: &Patient, report: &RepairReport, what: &str) {
    let store = Store::open(patient.path(), config())
        .unwrap_or_else(|error| panic!("{what}: it does not open: {error}\n{report}"));
    let verified = store.verify(|_| ()).unwrap();
    assert!(verified.is_clean(), "{what}: {verified:?}\n{report}");
    for (number, expected) in (1..).zip(&patient.expected) {
        let names = [expected.name.to_owned(), format!("recovered-{number}")];
        let database = names.iter().find_map(|name| store.database(name).ok());
        let Some(database) = database else {
            let lost = expected
                .records
                .iter()
                .all(|(id, _)| verdict(report, expected.name, id) != Verdict::Kept);
            assert!(lost, "{what}: database {} is gone without a word\n{report}", expected.name);
            continue;
        };
        assert_database(&database, expected, report, what);
    }
    store.close().unwrap();
    let store = Store::open(patient.path(), config()).unwrap();
    assert!(store.verify(|_| ()).unwrap().is_clean(), "{what}: after writes");
    store.close().unwrap();
}

#[track_caller]
fn assert_database(database: &Database, expected: &Expected, report: &RepairReport, what: &str) {
    let name = database.name();
    let mut count = 0;
    for (id, stamp) in &expected.records {
        let found = database.get(id).unwrap_or_else(|error| panic!("{what}: {name}/{id}: {error}"));
        count += u64::from(found.is_some());
        match (verdict(report, name, id), found) {
            (Verdict::Kept, Some(found)) => {
                assert_vector(&found, *stamp, format_args!("{what}: {name}/{id}\n{report}"));
            }
            (Verdict::Kept, None) => panic!("{what}: {name}/{id} is gone without a word\n{report}"),
            (Verdict::Lost, None) | (Verdict::Unknown, _) => {}
            (Verdict::Lost, Some(_)) => {
                panic!("{what}: {name}/{id} is there, named as lost\n{report}")
            }
        }
    }
    for id in &expected.absent {
        let found = database.get(id).unwrap().is_some();
        count += u64::from(found);
        let allowed = verdict(report, name, id) == Verdict::Unknown;
        assert!(!found || allowed, "{what}: {name}/{id} appeared\n{report}");
    }
    let deleted = database.count().unwrap().checked_sub(count);
    // Deleted ids that no list of the model has may be among the doubtful.
    let doubtful = report.losses.iter().any(|loss| loss.kind != LossKind::Ids);
    assert!(deleted == Some(0) || doubtful, "{what}: {name} counts {deleted:?} too many\n{report}");
    assert_eq!(
        database.scan().unwrap().count() as u64,
        database.count().unwrap(),
        "{what}: {name}"
    );
    write_to(database, expected);
}

fn write_to(database: &Database, expected: &Expected) {
    let dimension = usize::try_from(database.dimension()).unwrap();
    let id = expected.absent[0].clone();
    database.put(&id, &vector(77, dimension)).unwrap();
    database.flush().unwrap();
    assert_vector(&database.get(&id).unwrap().unwrap(), 77, "a write after the repair");
    database.delete(&id).unwrap();
}

#[test]
fn a_whole_store_is_left_as_it_is() {
    for patient in [Patient::closed(), Patient::crashed()] {
        let before = snapshot(&patient.path());
        for mode in [RepairMode::DryRun, RepairMode::Repair] {
            let report = repair(patient.path(), config(), mode).unwrap();
            assert!(report.is_clean() && report.is_lossless(), "{report}");
            assert!(report.directory.is_none());
        }
        assert!(snapshot(&patient.path()) == before, "a whole store was changed");
    }
}

#[test]
fn a_store_that_is_open_is_not_repaired() {
    let patient = Patient::closed();
    let store = Store::open(patient.path(), config()).unwrap();
    let refused = repair(patient.path(), config(), RepairMode::DryRun);
    assert!(matches!(refused, Err(nephrite::Error::Locked { .. })), "{refused:?}");
    store.close().unwrap();
}

#[test]
fn a_directory_without_a_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = repair(directory.path(), config(), RepairMode::Repair);
    assert!(matches!(refused, Err(nephrite::Error::NotAStore { .. })), "{refused:?}");
}
