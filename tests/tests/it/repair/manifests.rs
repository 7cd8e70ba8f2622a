//! Damaged, cut, foreign and missing manifests.

use nephrite::{Error, blocking::Store};
use nephrite_tests::{Scale, damage::Damaged, directories::Kind};

use super::{
    super::damage::{Patient, bit_at, config, cuts},
    assert_repaired,
};

#[test]
fn a_flipped_bit_in_the_manifest_costs_nothing() {
    for patient in [Patient::closed(), Patient::crashed()] {
        let [file] = &patient.files(Kind::Manifest)[..] else { panic!("there is one manifest") };
        let step = Scale::from_environment().pick(1777, 389);
        for offset in (0..40_000).step_by(step).chain([8, 12, 24, 40, 4088, 4096, 4104, 4120]) {
            let what = format!("manifest byte {offset}");
            drop(Damaged::flip(&file.path, offset, bit_at(offset)));
            let report = assert_repaired(&patient, &what);
            assert!(report.is_lossless(), "{what}: {report}");
            patient.restore();
        }
    }
}

#[test]
fn a_manifest_that_was_cut_or_is_gone_is_made_anew() {
    for patient in [Patient::closed(), Patient::crashed()] {
        let [file] = &patient.files(Kind::Manifest)[..] else { panic!("there is one manifest") };
        for bytes in cuts(file.bytes) {
            drop(Damaged::truncate(&file.path, bytes));
            let report = assert_repaired(&patient, &format!("manifest of {bytes} bytes"));
            assert!(report.is_lossless(), "{bytes} bytes: {report}");
            patient.restore();
        }
        drop(Damaged::remove(&file.path));
        let report = assert_repaired(&patient, "no manifest");
        assert!(report.is_lossless(), "{report}");
        patient.restore();
    }
}

/// A manifest whose last frames are zeros looks like one that ends there. But a database is in the
/// manifest before its first record is in the log: records of one that it does not know were
/// dropped without a word, by opening the store as well.
#[test]
fn a_manifest_that_does_not_know_a_database_of_the_log_is_damaged() {
    let patient = Patient::crashed();
    let [file] = &patient.files(Kind::Manifest)[..] else { panic!("there is one manifest") };
    drop(Damaged::change(&file.path, |content| {
        let name = content.windows(6).position(|bytes| bytes == b"logged").unwrap();
        content[name / 4096 * 4096..].fill(0);
    }));
    let refused = Store::open(patient.path(), config()).unwrap_err();
    let Error::Corrupt { file: named, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*named, file.name, "{refused}");
    let report = assert_repaired(&patient, "zeros at the end of the manifest");
    assert!(report.set_aside.iter().any(|it| it.file == file.name), "{report}");
}

#[test]
fn a_manifest_of_another_store_is_set_aside() {
    let (patient, other) = (Patient::closed(), Patient::closed());
    let [file] = &patient.files(Kind::Manifest)[..] else { panic!("there is one manifest") };
    std::fs::copy(&other.files(Kind::Manifest)[0].path, &file.path).unwrap();
    let report = assert_repaired(&patient, "another store's manifest");
    assert!(report.is_lossless(), "{report}");
    assert!(report.set_aside.iter().any(|it| it.file == file.name), "{report}");
}
