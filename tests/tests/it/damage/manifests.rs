//! Damaged, missing and newer manifests.

use nephrite::{Error, blocking::Store};
use nephrite_format::{FileHeader, frame::decode_frame};
use nephrite_tests::{
    Scale,
    damage::Damaged,
    directories::{Kind, StoreFile},
};

use super::{Patient, assert_names, bit_at, config, cuts, offsets_of_block, read};

/// Where the frames lie: start, end, number of edits.
fn frames(file: &StoreFile) -> Vec<(u64, u64, u32)> {
    let content = read(&file.path);
    let header = FileHeader::decode(&content[..4096], &file.name).unwrap();
    let mut frames = Vec::new();
    let mut at = 4096;
    while let Ok(frame) = decode_frame(&content[at..], header.identity(at as u64)) {
        let end = at + frame.total_bytes;
        frames.push((at as u64, end as u64, frame.header.record_count));
        at = end;
    }
    frames
}

/// Frames whose content counts: all but the mark at the end, which says that the last is on disk.
fn needed_frames(file: &StoreFile) -> Vec<(u64, u64, u32)> {
    let mut frames = frames(file);
    assert_eq!(frames.last().unwrap().2, 0, "a mark follows the last edit");
    frames.pop();
    assert!(5 < frames.len(), "the store changed its manifest several times");
    frames
}

fn manifest(patient: &Patient) -> StoreFile {
    let [file] = &patient.files(Kind::Manifest)[..] else { panic!("there is one manifest") };
    file.clone()
}

#[test]
fn a_flipped_bit_in_the_manifest_is_found() {
    let patient = Patient::closed();
    let file = manifest(&patient);
    let step = Scale::from_environment().pick(97, 23);
    let mut offsets = offsets_of_block(0, Scale::from_environment().pick(40, 192), step);
    for (start, end, _) in needed_frames(&file) {
        let used = (start..end).step_by(step);
        offsets.extend((start..start + 80).step_by(5).chain(used));
        offsets.push(end - 1);
    }
    for offset in offsets {
        let damaged = Damaged::flip(&file.path, offset, bit_at(offset));
        patient.assert_refused(&file, &format!("manifest byte {offset}"));
        damaged.mend();
    }
    patient.assert_whole("mended");
}

#[test]
fn a_flipped_bit_in_unused_room_of_the_manifest_harms_nobody() {
    let patient = Patient::closed();
    let file = manifest(&patient);
    let (mark, _, _) = *frames(&file).last().unwrap();
    for offset in [mark, mark + 17, mark + 4095, mark + 4096, mark + 50_000, file.bytes - 1] {
        let damaged = Damaged::flip(&file.path, offset, bit_at(offset));
        drop(damaged);
        patient.assert_whole(&format!("unused byte {offset} of the manifest"));
        patient.restore();
    }
}

#[test]
fn a_manifest_that_was_cut_is_refused() {
    let patient = Patient::closed();
    let file = manifest(&patient);
    for bytes in cuts(file.bytes) {
        let damaged = Damaged::truncate(&file.path, bytes);
        patient.assert_refused(&file, &format!("manifest cut to {bytes} bytes"));
        damaged.mend();
    }
    patient.assert_whole("mended");
}

#[test]
fn without_its_manifest_a_directory_is_no_store_and_is_left_as_it_is() {
    let patient = Patient::closed();
    let file = manifest(&patient);
    let damaged = Damaged::remove(&file.path);
    let opened = Store::open(patient.path(), config());
    let Err(Error::NotAStore { path, reason }) = opened else { panic!("{opened:?}") };
    assert_eq!(path, patient.path());
    assert!(reason.contains("manifest"), "{reason}");
    // A new store here would make orphans of the segments, which the next open removes.
    for made in
        [Store::create(patient.path(), config()), Store::open_or_create(patient.path(), config())]
    {
        assert!(made.is_err(), "a store was made over the segments of another one");
    }
    damaged.mend();
    patient.assert_whole("put back");
}

#[test]
fn a_manifest_of_a_newer_version_is_refused_by_name() {
    let patient = Patient::closed();
    let file = manifest(&patient);
    let damaged = Damaged::change(&file.path, |content| content[8] = 2);
    let opened = Store::open(patient.path(), config());
    let Err(error @ Error::VersionUnsupported { found: 2, newest: 1, .. }) = opened else {
        panic!("{opened:?}");
    };
    assert_names(&error, &file, "newer version");
    damaged.mend();
    patient.assert_whole("mended");
}

#[test]
fn verify_finds_damage_to_the_manifest_of_an_open_store() {
    let patient = Patient::closed();
    let file = manifest(&patient);
    let store = Store::open(patient.path(), config()).unwrap();
    assert!(store.verify(|_| ()).unwrap().is_clean());
    let (start, _, _) = needed_frames(&file)[2];
    drop(Damaged::flip(&file.path, start + 70, 3));
    let report = store.verify(|_| ()).unwrap();
    assert!(report.damage.iter().any(|damage| damage.file == file.name), "{report:?}");
}
