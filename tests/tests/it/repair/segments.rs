//! Damaged, cut, foreign and missing segments.

use nephrite::{
    blocking::repair,
    repair::{LossKind, RepairMode},
};
use nephrite_format::segment::SectionKind;
use nephrite_tests::{Scale, damage::Damaged};

use super::{
    super::damage::{
        Patient, bit_at, config, cuts,
        segments::{Anatomy, segments},
    },
    assert_repaired, blank_log,
};

/// A damaged vector page costs the ids in it and no other; one flipped bit in any other page is
/// mended by its checksum.
#[track_caller]
fn assert_flip_repaired(patient: &Patient, anatomy: &Anatomy, offset: u64) {
    drop(Damaged::flip(&anatomy.file.path, offset, bit_at(offset)));
    let what = format!("byte {offset} of {} ({})", anatomy.file.name, anatomy.database());
    let report = assert_repaired(patient, &what);
    assert!(!report.is_clean(), "{what}: nothing was found");
    let section = anatomy
        .footer
        .sections()
        .iter()
        .find(|section| (section.offset..section.offset + section.bytes).contains(&offset));
    match section.map(|section| section.kind) {
        Some(SectionKind::VectorPages) => {
            let lost: usize = report.losses.iter().map(|loss| loss.ids.len()).sum();
            let page = anatomy.detail.layout.rows_per_page() as usize;
            assert!(lost <= page, "{what}: a page of {page} rows cost {lost}\n{report}");
            assert!(report.losses.iter().all(|loss| loss.kind == LossKind::Ids), "{report}");
        }
        _ => assert!(report.is_lossless(), "{what}: {report}"),
    }
}

/// The id at which a dense segment begins is nowhere else than in its footer, unless its rows fill
/// their pages: without mending, one bit of it cost all rows.
#[test]
fn a_flipped_bit_anywhere_in_the_fields_of_a_dense_footer_costs_nothing() {
    let patient = Patient::closed();
    let anatomy = segments(&patient).into_iter().find(|it| it.database() == "dense").unwrap();
    blank_log(&patient.path());
    for field in 0..128 {
        let offset = anatomy.footer.footer_offset() + field;
        let damaged = Damaged::flip(&anatomy.file.path, offset, bit_at(offset));
        let report = repair(patient.path(), config(), RepairMode::DryRun).unwrap();
        assert!(!report.is_clean() && report.is_lossless(), "byte {field}: {report}");
        damaged.mend();
    }
    drop(Damaged::flip(&anatomy.file.path, anatomy.footer.footer_offset() + 89, 3));
    assert_repaired(&patient, "first row of a dense segment");
}

#[test]
fn two_flipped_bits_in_an_id_page_cost_what_can_be_named() {
    let patient = Patient::closed();
    blank_log(&patient.path());
    let anatomy = segments(&patient).into_iter().find(|it| it.database() == "names").unwrap();
    let section = anatomy.footer.section(SectionKind::IdPages).unwrap();
    drop(Damaged::flip(&anatomy.file.path, section.offset + 100, 3));
    drop(Damaged::flip(&anatomy.file.path, section.offset + 2000, 3));
    let report = assert_repaired(&patient, "an id page");
    assert!(report.losses.iter().any(|loss| loss.kind == LossKind::Range), "{report}");
}

#[test]
fn a_flipped_bit_in_a_segment_costs_at_most_its_page() {
    let patient = Patient::closed();
    let step = Scale::from_environment().pick(23, 17);
    for blank in [false, true] {
        for anatomy in segments(&patient) {
            for offset in anatomy.offsets().into_iter().step_by(step) {
                if blank {
                    blank_log(&patient.path());
                }
                assert_flip_repaired(&patient, &anatomy, offset);
                patient.restore();
            }
        }
    }
}

#[test]
fn with_the_log_at_hand_a_damaged_page_costs_nothing() {
    let patient = Patient::closed();
    let anatomy = segments(&patient).into_iter().find(|it| it.database() == "names").unwrap();
    for kind in [SectionKind::VectorPages, SectionKind::IdPages] {
        let section = anatomy.footer.section(kind).unwrap();
        drop(Damaged::flip(&anatomy.file.path, section.offset + 100, 3));
        let report = assert_repaired(&patient, "names");
        assert!(report.is_lossless(), "{report}");
        patient.restore();
    }
}

#[test]
fn a_segment_that_was_cut_or_grew_is_rebuilt_as_far_as_its_pages_hold() {
    let patient = Patient::closed();
    for blank in [false, true] {
        for anatomy in segments(&patient) {
            let mut lengths = cuts(anatomy.file.bytes);
            lengths.extend([anatomy.file.bytes + 1, anatomy.file.bytes + 4096]);
            for bytes in lengths {
                if blank {
                    blank_log(&patient.path());
                }
                let length = usize::try_from(bytes).unwrap();
                drop(Damaged::change(&anatomy.file.path, |content| content.resize(length, 0)));
                let report = assert_repaired(&patient, &format!("{bytes} bytes"));
                // Without any footer the rows of consecutive ids cannot be told.
                let is_dense = anatomy.database() == "dense";
                let whole =
                    if is_dense { anatomy.file.bytes } else { anatomy.footer.footer_offset() };
                let keeps_table = whole <= bytes;
                assert!(!keeps_table || report.is_lossless(), "{bytes} bytes: {report}");
                patient.restore();
            }
        }
    }
}

#[test]
fn a_segment_that_is_missing_is_named_with_its_range() {
    let patient = Patient::closed();
    for blank in [false, true] {
        for anatomy in segments(&patient) {
            if blank {
                blank_log(&patient.path());
            }
            drop(Damaged::remove(&anatomy.file.path));
            let report = assert_repaired(&patient, "removed");
            let range = report.losses.iter().any(|loss| loss.kind == LossKind::Range);
            assert!(!blank || range, "{report}");
            patient.restore();
        }
    }
}

#[test]
fn segments_that_were_swapped_are_set_aside() {
    let patient = Patient::closed();
    let files: Vec<_> = segments(&patient).into_iter().map(|it| it.file).collect();
    let (first, second) =
        (std::fs::read(&files[0].path).unwrap(), std::fs::read(&files[3].path).unwrap());
    std::fs::write(&files[0].path, second).unwrap();
    std::fs::write(&files[3].path, first).unwrap();
    let report = assert_repaired(&patient, "swapped");
    for file in [&files[0], &files[3]] {
        assert!(report.set_aside.iter().any(|it| it.file == file.name), "{report}");
    }
}

#[test]
fn several_kinds_of_damage_at_once_are_repaired_together() {
    let patient = Patient::closed();
    blank_log(&patient.path());
    let anatomies = segments(&patient);
    for anatomy in &anatomies {
        for section in anatomy.footer.sections() {
            drop(Damaged::flip(&anatomy.file.path, section.offset + 17, 1));
        }
        drop(Damaged::flip(&anatomy.file.path, 40, 1));
        drop(Damaged::flip(&anatomy.file.path, anatomy.footer.footer_offset() + 60, 1));
    }
    let report = assert_repaired(&patient, "everywhere");
    assert!(anatomies.len() <= report.damage.len());
}
