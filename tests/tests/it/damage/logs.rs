//! Damaged, missing and newer log segments that hold acknowledged writes.

use std::path::Path;

use nephrite::{DatabaseOptions, Durability, Error, Ids, blocking::Store};
use nephrite_tests::{
    Scale, assert_vector,
    damage::Damaged,
    directories::{Kind, StoreFile, crash_image, files_of},
    log_frames::{LogFrame, current_log, log_frames, wait_for_mark},
    vector,
};

use super::{Patient, assert_names, bit_at, config, cuts, offsets_of_block};

fn needed(patient: &Patient) -> StoreFile {
    current_log(&patient.path()).expect("the store has written to its log")
}

#[test]
fn a_flipped_bit_in_the_log_is_found() {
    let patient = Patient::crashed();
    let file = needed(&patient);
    let mut frames = log_frames(&file.path);
    assert_eq!(frames.pop().unwrap().records, 0, "a mark follows the last frame");
    assert!(12 <= frames.len());
    let step = Scale::from_environment().pick(301, 31);
    let mut offsets = offsets_of_block(0, Scale::from_environment().pick(30, 192), step);
    for frame in frames {
        let LogFrame { start, end, .. } = frame;
        offsets.extend((start..start + 80).step_by(7).chain((start..end).step_by(step)));
        offsets.push(end - 1);
    }
    for offset in offsets {
        let damaged = Damaged::flip(&file.path, offset, bit_at(offset));
        patient.assert_refused(&file, &format!("log byte {offset}"));
        damaged.mend();
    }
    patient.assert_whole("mended");
}

#[test]
fn a_flipped_bit_in_unused_room_of_the_log_harms_nobody() {
    let patient = Patient::crashed();
    let file = needed(&patient);
    let mark = log_frames(&file.path).last().unwrap().start;
    for offset in [mark, mark + 9, mark + 4095, mark + 4096, mark + 20_000, file.bytes - 1] {
        drop(Damaged::flip(&file.path, offset, bit_at(offset)));
        patient.assert_whole(&format!("unused byte {offset} of the log"));
        patient.restore();
    }
}

#[test]
fn a_log_segment_that_was_cut_is_refused() {
    let patient = Patient::crashed();
    let file = needed(&patient);
    let mut failed = Vec::new();
    for bytes in cuts(file.bytes) {
        drop(Damaged::truncate(&file.path, bytes));
        match Store::open(patient.path(), config()) {
            Err(error) => assert_names(&error, &file, &format!("log cut to {bytes} bytes")),
            Ok(store) if patient.lost(&store).is_empty() => {}
            Ok(_) => failed.push(bytes),
        }
        patient.restore();
    }
    assert!(failed.is_empty(), "cut to these lengths the log loses writes silently: {failed:?}");
}

#[test]
fn a_log_segment_that_was_removed_is_missed() {
    let patient = Patient::crashed();
    let file = needed(&patient);
    drop(Damaged::remove(&file.path));
    match Store::open(patient.path(), config()) {
        Err(error) => assert!(error.to_string().contains("wal"), "{error}"),
        Ok(store) => assert_eq!(patient.lost(&store), [""; 0], "lost without a word"),
    }
}

#[test]
fn of_several_log_segments_each_is_missed_when_removed_or_emptied() {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("live");
    let store = Store::create(&live, config()).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(1000)).unwrap();
    for id in 0..120 {
        database.put_with(id, &vector(id, 1000), Durability::Synced).unwrap();
    }
    wait_for_mark(&live);
    let image = directory.path().join("image");
    crash_image(&live, &image);
    let used = |file: &StoreFile| log_frames(&file.path).len();
    let logs: Vec<StoreFile> = files_of(&image, Kind::Wal);
    assert!(2 <= logs.iter().filter(|file| 0 < used(file)).count(), "several segments are used");
    for file in &logs {
        for emptied in [false, true] {
            let damaged = if emptied {
                Damaged::truncate(&file.path, 0)
            } else {
                Damaged::remove(&file.path)
            };
            let copy = directory.path().join("copy");
            crash_image(&image, &copy);
            damaged.mend();
            let Ok(store) = Store::open(&copy, config()) else { continue };
            let database = store.database("a").unwrap();
            let lost: Vec<u64> =
                (0..120).filter(|id| database.get(*id).unwrap().is_none()).collect();
            assert!(lost.is_empty(), "{} gone (emptied: {emptied}), {lost:?} lost", file.name);
        }
    }
}

#[test]
fn a_log_segment_of_a_newer_version_is_refused_by_name() {
    let patient = Patient::crashed();
    let file = needed(&patient);
    let damaged = Damaged::change(&file.path, |content| content[8] = 2);
    let opened = Store::open(patient.path(), config());
    let Err(error @ Error::VersionUnsupported { found: 2, newest: 1, .. }) = opened else {
        panic!("{opened:?}");
    };
    assert_names(&error, &file, "newer version");
    damaged.mend();
    patient.assert_whole("mended");
}

/// Rows of a bulk record lie in a segment file that is not sealed yet. When a later sync says that
/// they were on disk, missing or changed rows are damage and not a torn tail.
#[test]
fn damaged_rows_of_a_durable_bulk_record_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("live");
    let store = Store::create(&live, config()).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    let rows: Vec<f32> = (0..160).flat_map(|stamp| vector(stamp, 128)).collect();
    database.put_many(Ids::Consecutive(0), &rows, Durability::Buffered).unwrap();
    database.put_with(1000, &vector(1000, 128), Durability::Synced).unwrap();
    wait_for_mark(&live);
    let image = directory.path().join("image");
    crash_image(&live, &image);
    let [file] = &files_of(&image, Kind::Segment)[..] else { panic!("there is one segment file") };
    let copy = directory.path().join("copy");
    type Harm = (&'static str, Box<dyn Fn() -> Damaged>);
    let path = file.path.clone();
    let harm = |what, harm: fn(&Path) -> Damaged| -> Harm {
        let path = path.clone();
        (what, Box::new(move || harm(&path)))
    };
    let harms = [
        harm("flip in the first row", |path| Damaged::flip(path, 4096, 0)),
        harm("flip in the last row", |path| Damaged::flip(path, 4096 + 159 * 512 + 511, 7)),
        harm("cut in the middle", |path| Damaged::truncate(path, 4096 + 40 * 512)),
        harm("emptied", |path| Damaged::truncate(path, 0)),
        harm("removed", Damaged::remove),
    ];
    for (what, harm) in harms {
        let damaged = harm();
        crash_image(&image, &copy);
        damaged.mend();
        match Store::open(&copy, config()) {
            Err(error) => assert_names(&error, file, what),
            Ok(_) => panic!("{what}: the store opens without the rows"),
        }
    }
    let store = Store::open(&image, config()).unwrap();
    let database = store.database("a").unwrap();
    for id in 0..160 {
        assert_vector(&database.get(id).unwrap().unwrap(), id, format_args!("id {id}"));
    }
}
