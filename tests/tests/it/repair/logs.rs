//! Damaged, cut, foreign and missing log segments with records that are in no segment.

use nephrite::{
    DatabaseOptions, Durability, Id, Ids,
    blocking::{Store, repair},
    repair::{LossKind, RepairMode},
};
use nephrite_tests::{
    Scale, assert_vector,
    damage::Damaged,
    directories::{Kind, crash_image, files_of},
    log_frames::{current_log, log_frames, wait_for_mark},
    vector,
};

use super::{
    super::damage::{Patient, bit_at, config, cuts},
    assert_repaired,
};

#[test]
fn a_damaged_frame_costs_its_records_and_no_other() {
    let patient = Patient::crashed();
    let file = current_log(&patient.path()).unwrap();
    let mut frames = log_frames(&file.path);
    frames.pop();
    let step = Scale::from_environment().pick(3, 1);
    // The first frame is the bulk load of another database.
    for (number, frame) in frames.iter().enumerate().skip(1).step_by(step) {
        for offset in [frame.start, frame.start + 20, frame.start + 100, frame.end - 1] {
            drop(Damaged::flip(&file.path, offset, bit_at(offset)));
            let what = format!("frame {number}, byte {offset}");
            let report = repair(patient.path(), config(), RepairMode::Repair).unwrap();
            let lost = report.losses.iter().find(|loss| loss.kind == LossKind::Records);
            assert!(lost.is_some(), "{what}: {report}");
            let store = Store::open(patient.path(), config()).unwrap();
            assert!(store.verify(|_| ()).unwrap().is_clean(), "{what}");
            let logged = store.database("logged").unwrap();
            let gone: Vec<u64> = (0..12).filter(|id| logged.get(*id).unwrap().is_none()).collect();
            assert!(gone.len() <= 1, "{what}: {gone:?} are gone\n{report}");
            for id in (0..12).filter(|id| !gone.contains(id)) {
                assert_vector(&logged.get(id).unwrap().unwrap(), id, &what);
            }
            let dense = store.database("dense").unwrap();
            assert_eq!(dense.count().unwrap(), 60);
            store.close().unwrap();
            patient.restore();
        }
    }
}

#[test]
fn ids_of_a_damaged_frame_are_named_as_doubtful() {
    let patient = Patient::crashed();
    let file = current_log(&patient.path()).unwrap();
    let frames = log_frames(&file.path);
    // In the elements of a vector: the record around it can still be read.
    drop(Damaged::flip(&file.path, frames[4].start + 200, 1));
    let report = assert_repaired(&patient, "frame 4");
    let doubtful = report.losses.iter().find(|loss| loss.kind == LossKind::Doubtful).unwrap();
    assert_eq!(doubtful.database.as_deref(), Some("logged"));
    assert_eq!(doubtful.ids.len(), 1, "{report}");
    let store = Store::open(patient.path(), config()).unwrap();
    let logged = store.database("logged").unwrap();
    for id in (0..12).map(Id::U64) {
        let is_there = logged.get(&id).unwrap().is_some();
        assert_eq!(is_there, !doubtful.ids.contains(&id), "{id}");
    }
}

#[test]
fn a_log_segment_that_was_cut_or_is_gone_is_repaired() {
    let patient = Patient::crashed();
    let file = current_log(&patient.path()).unwrap();
    for bytes in cuts(file.bytes) {
        drop(Damaged::truncate(&file.path, bytes));
        assert_repaired(&patient, &format!("log of {bytes} bytes"));
        patient.restore();
    }
    drop(Damaged::remove(&file.path));
    let report = assert_repaired(&patient, "log removed");
    assert!(!report.is_clean(), "{report}");
}

#[test]
fn a_damaged_header_of_a_log_segment_costs_nothing() {
    let patient = Patient::crashed();
    let file = current_log(&patient.path()).unwrap();
    for offset in [0, 8, 12, 30, 40, 50, 130, 140, 3000, 4090] {
        drop(Damaged::flip(&file.path, offset, bit_at(offset)));
        let report = assert_repaired(&patient, &format!("log header byte {offset}"));
        assert!(report.is_lossless(), "{report}");
        patient.restore();
    }
}

/// With its header the length is lost that a log should have, so that one which ends with a frame
/// may have gone on: what was behind is named as possibly lost (it was not: the log looked like one
/// that ends there).
#[test]
fn a_log_that_was_cut_and_whose_header_is_lost_says_after_which_record_it_ends() {
    let patient = Patient::crashed();
    let file = current_log(&patient.path()).unwrap();
    let frames = log_frames(&file.path);
    let spoil = |content: &mut Vec<u8>| content[..4096].fill(0xa5);
    for (number, frame) in frames.iter().enumerate() {
        // At the border of a frame, and within it.
        for bytes in [frame.start, frame.start + 5, frame.end - 4] {
            drop(Damaged::change(&file.path, spoil));
            drop(Damaged::truncate(&file.path, bytes));
            let report = assert_repaired(&patient, &format!("cut in frame {number} at {bytes}"));
            let named = report.losses.iter().any(|it| it.kind == LossKind::Records);
            assert!(named, "frame {number}, {bytes} bytes: {report}");
            patient.restore();
        }
    }
}

/// A log without a whole header was taken for one that was being made, also where no manifest was
/// left to say otherwise, and a database that only the log knew was gone without a word.
#[test]
fn a_log_that_was_cut_within_its_header_is_named_when_the_manifest_is_gone_too() {
    let patient = Patient::crashed();
    let file = current_log(&patient.path()).unwrap();
    for bytes in [0, 1, 1205, 4095] {
        for manifest in files_of(&patient.path(), Kind::Manifest) {
            drop(Damaged::remove(&manifest.path));
        }
        drop(Damaged::truncate(&file.path, bytes));
        let report = assert_repaired(&patient, &format!("a log of {bytes} bytes, no manifest"));
        let named = report.losses.iter().any(|it| it.kind == LossKind::Records);
        assert!(named, "{bytes} bytes: {report}");
        patient.restore();
    }
}

#[test]
fn a_log_whose_header_is_lost_costs_nothing_when_room_is_left_behind_its_frames() {
    let patient = Patient::crashed();
    let file = current_log(&patient.path()).unwrap();
    let end = log_frames(&file.path).last().unwrap().end;
    for bytes in [file.bytes, end + 4096, end + 12_288] {
        drop(Damaged::change(&file.path, |content| content[..4096].fill(0xa5)));
        drop(Damaged::truncate(&file.path, bytes));
        let report = assert_repaired(&patient, &format!("a log of {bytes} bytes"));
        assert!(report.is_lossless(), "{bytes} bytes: {report}");
        patient.restore();
    }
}

#[test]
fn a_log_of_another_store_is_set_aside() {
    let (patient, other) = (Patient::crashed(), Patient::crashed());
    for (file, from) in patient.files(Kind::Wal).iter().zip(&other.files(Kind::Wal)) {
        std::fs::copy(&from.path, &file.path).unwrap();
        let report = assert_repaired(&patient, "another store's log");
        assert!(report.set_aside.iter().any(|it| it.file == file.name), "{report}");
        patient.restore();
    }
}

#[test]
fn rows_of_a_bulk_record_that_are_damaged_are_named_one_by_one() {
    let directory = tempfile::tempdir().unwrap();
    let (live, image) = (directory.path().join("live"), directory.path().join("image"));
    let store = Store::create(&live, config()).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    let rows: Vec<f32> = (0..160).flat_map(|stamp| vector(stamp, 128)).collect();
    database.put_many(Ids::Consecutive(0), &rows, Durability::Buffered).unwrap();
    database.put_with(1000, &vector(1000, 128), Durability::Synced).unwrap();
    wait_for_mark(&live);
    crash_image(&live, &image);
    let [file] = &files_of(&image, Kind::Segment)[..] else { panic!("there is one segment file") };
    drop(Damaged::flip(&file.path, 4096 + 70 * 512, 0));
    let report = repair(&image, config(), RepairMode::Repair).unwrap();
    let [loss] = &report.losses[..] else { panic!("{report}") };
    assert_eq!((loss.kind, loss.database.as_deref()), (LossKind::Ids, Some("a")));
    assert!(!loss.ids.is_empty() && loss.ids.contains(&Id::U64(70)), "{report}");
    let store = Store::open(&image, config()).unwrap();
    assert!(store.verify(|_| ()).unwrap().is_clean());
    let database = store.database("a").unwrap();
    for id in (0..160).chain([1000]) {
        match database.get(id).unwrap() {
            Some(found) => assert_vector(&found, id, format_args!("id {id}")),
            None => assert!(loss.ids.contains(&Id::U64(id)), "id {id} is gone without a word"),
        }
    }
}
