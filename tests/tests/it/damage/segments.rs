//! Damaged, missing and newer segments: one database suffers, the others do not notice.

use nephrite::{Error, blocking::Store};
use nephrite_format::{
    FileHeader, PageIdentity, SegmentDetail,
    segment::{SectionKind, SegmentFooter},
};
use nephrite_tests::{
    Scale,
    damage::Damaged,
    directories::{Kind, StoreFile},
};

use super::{Patient, assert_names, bit_at, config, cuts, offsets_of_block, read};

/// A segment taken apart with the format crate.
pub(in super::super) struct Anatomy {
    pub(in super::super) file: StoreFile,
    pub(in super::super) detail: SegmentDetail,
    pub(in super::super) footer: SegmentFooter,
}

impl Anatomy {
    fn of(file: &StoreFile) -> Self {
        let content = read(&file.path);
        let header = FileHeader::decode(&content[..4096], &file.name).unwrap();
        let detail = header.segment(&file.name).unwrap();
        let at = content.len() - 4096;
        let place: PageIdentity = header.identity(at as u64);
        let footer =
            SegmentFooter::decode(&content[at..], place, &detail.layout, &file.name).unwrap();
        Self { file: file.clone(), detail, footer }
    }

    /// The database, by the order in which [`Patient::closed`] makes them.
    pub(in super::super) fn database(&self) -> &'static str {
        ["dense", "sparse", "names"][self.detail.database.get() as usize - 1]
    }

    /// Offsets in every section, the header page and the footer page.
    pub(in super::super) fn offsets(&self) -> Vec<u64> {
        let step = Scale::from_environment().pick(709, 61);
        let dense = Scale::from_environment().pick(24, 192);
        let mut offsets = offsets_of_block(0, dense, step);
        for section in self.footer.sections() {
            let end = section.offset + section.bytes;
            let step = Scale::from_environment().pick(1009, 211);
            offsets.extend((section.offset..end).step_by(step));
            offsets.extend([section.offset + 5, end - 1]);
        }
        offsets.extend(offsets_of_block(self.footer.footer_offset(), dense, step));
        offsets
    }
}

pub(in super::super) fn segments(patient: &Patient) -> Vec<Anatomy> {
    let anatomies: Vec<_> = patient.files(Kind::Segment).iter().map(Anatomy::of).collect();
    assert_eq!(anatomies.len(), 4, "dense, sparse twice, names");
    anatomies
}

/// Only the database of the file has errors, all of which name it; `verify` finds the damage.
#[track_caller]
fn assert_contained(patient: &Patient, anatomy: &Anatomy, what: &str) {
    let store = Store::open(patient.path(), config()).unwrap_or_else(|e| panic!("{what}: {e}"));
    for (database, error) in patient.read_everything(&store, what) {
        assert_eq!(database, anatomy.database(), "{what}: another database has {error}");
        assert_names(&error, &anatomy.file, what);
    }
    let report = store.verify(|_| ()).unwrap();
    assert!(!report.is_clean(), "{what}: verify finds nothing");
    for damage in &report.damage {
        assert_eq!(damage.file, anatomy.file.name, "{what}: {damage:?}");
        assert_eq!(damage.database.as_deref(), Some(anatomy.database()), "{what}: {damage:?}");
        assert!(!damage.what.is_empty());
    }
}

#[test]
fn a_flipped_bit_in_a_segment_is_found_and_contained() {
    let patient = Patient::closed();
    for anatomy in segments(&patient) {
        for offset in anatomy.offsets() {
            drop(Damaged::flip(&anatomy.file.path, offset, bit_at(offset)));
            let what = format!("byte {offset} of {} ({})", anatomy.file.name, anatomy.database());
            assert_contained(&patient, &anatomy, &what);
            patient.restore();
        }
    }
    patient.assert_whole("mended");
}

#[test]
fn a_segment_that_was_cut_or_grew_is_found_and_contained() {
    let patient = Patient::closed();
    for anatomy in segments(&patient) {
        for bytes in cuts(anatomy.file.bytes) {
            drop(Damaged::truncate(&anatomy.file.path, bytes));
            assert_contained(&patient, &anatomy, &format!("cut to {bytes} bytes"));
            patient.restore();
        }
        for more in [1, 4096] {
            let bytes = usize::try_from(anatomy.file.bytes + more).unwrap();
            drop(Damaged::change(&anatomy.file.path, |content| content.resize(bytes, 0)));
            assert_contained(&patient, &anatomy, &format!("{more} bytes longer"));
            patient.restore();
        }
    }
}

#[test]
fn a_segment_that_was_removed_is_missed_and_contained() {
    let patient = Patient::closed();
    for anatomy in segments(&patient) {
        drop(Damaged::remove(&anatomy.file.path));
        assert_contained(&patient, &anatomy, "removed");
        patient.restore();
    }
}

#[test]
fn a_segment_of_a_newer_version_is_refused_by_name_and_contained() {
    let patient = Patient::closed();
    for anatomy in segments(&patient) {
        drop(Damaged::change(&anatomy.file.path, |content| content[8] = 2));
        assert_contained(&patient, &anatomy, "newer version");
        let store = Store::open(patient.path(), config()).unwrap();
        let opened = store.database(anatomy.database());
        let Err(error @ Error::VersionUnsupported { found: 2, newest: 1, .. }) = opened else {
            panic!("{opened:?}");
        };
        assert_names(&error, &anatomy.file, "newer version");
        drop(store);
        patient.restore();
    }
}

/// Bytes that no read looks at: the header page's and the footer's rest, the room behind fences
/// and checksums, the padding of rows and pages.
#[test]
fn verify_finds_a_flipped_bit_in_zeros_that_nobody_reads() {
    let patient = Patient::closed();
    for anatomy in segments(&patient) {
        let content = read(&anatomy.file.path);
        let is_zero = |offset: &u64| content[usize::try_from(*offset).unwrap()] == 0;
        let mut places = vec![2000, 4000, anatomy.footer.footer_offset() + 3000];
        for section in anatomy.footer.sections() {
            let last = section.offset + section.bytes - u64::from(section.page_bytes);
            places.extend((last..section.offset + section.bytes - 8).rev().find(is_zero));
        }
        for offset in places {
            assert!(is_zero(&offset), "byte {offset} is padding");
            drop(Damaged::flip(&anatomy.file.path, offset, 5));
            assert_contained(&patient, &anatomy, &format!("zero at {offset}"));
            patient.restore();
        }
    }
}

#[test]
fn verify_names_every_damaged_page_and_no_other() {
    let patient = Patient::closed();
    let anatomy = segments(&patient).into_iter().find(|it| it.database() == "dense").unwrap();
    let pages = anatomy.footer.section(SectionKind::VectorPages).unwrap();
    assert!(6 < pages.page_count());
    let damaged = [0_u32, 2, 5];
    for page in damaged {
        drop(Damaged::flip(&anatomy.file.path, pages.page_offset(page) + 100, 1));
    }
    let store = Store::open(patient.path(), config()).unwrap();
    let mut last = 0;
    let report = store
        .verify(|progress| {
            assert!(last <= progress.bytes);
            last = progress.bytes;
        })
        .unwrap();
    assert!(0 < last);
    let found: Vec<_> = report.damage.iter().map(|it| (it.page, it.offset)).collect();
    let expected = damaged.map(|page| (Some(u64::from(page)), pages.page_offset(page)));
    assert_eq!(found, expected);
    // Pages that are whole are served from the same file.
    let rows_per_page = u64::from(anatomy.detail.layout.rows_per_page());
    let database = store.database("dense").unwrap();
    for row in 0..60 {
        let hit = damaged.contains(&u32::try_from(row / rows_per_page).unwrap());
        match database.get(10 + row) {
            Ok(found) => {
                assert!(!hit, "row {row} lies in a damaged page");
                nephrite_tests::assert_vector(&found.unwrap(), row, format_args!("row {row}"));
            }
            Err(Error::Corrupt { file, offset, .. }) => {
                assert!(hit, "row {row} lies in a whole page");
                assert_eq!(file, anatomy.file.name);
                let page = u32::try_from(row / rows_per_page).unwrap();
                assert_eq!(offset, pages.page_offset(page));
            }
            Err(error) => panic!("row {row}: {error}"),
        }
    }
}

#[test]
fn damage_under_an_open_store_is_found_when_it_is_read() {
    let patient = Patient::closed();
    let anatomy = segments(&patient).into_iter().find(|it| it.database() == "names").unwrap();
    let store = Store::open(patient.path(), config()).unwrap();
    drop(store.database("names").unwrap());
    let pages = anatomy.footer.section(SectionKind::VectorPages).unwrap();
    drop(Damaged::flip(&anatomy.file.path, pages.offset + 9, 0));
    let failures = patient.read_everything(&store, "damaged while open");
    assert!(!failures.is_empty());
    for (database, error) in failures {
        assert_eq!(database, "names");
        assert_names(&error, &anatomy.file, "damaged while open");
        assert!(error.is_corrupt(), "{error}");
    }
    assert!(!store.verify(|_| ()).unwrap().is_clean());
}

/// A database that cannot be opened can still be dropped, which takes its damage with it.
#[test]
fn a_damaged_database_can_be_dropped() {
    let patient = Patient::closed();
    let anatomy = segments(&patient).into_iter().find(|it| it.database() == "names").unwrap();
    drop(Damaged::truncate(&anatomy.file.path, 0));
    let store = Store::open(patient.path(), config()).unwrap();
    assert!(store.database("names").is_err());
    store.drop_database("names").unwrap();
    assert!(store.verify(|_| ()).unwrap().is_clean());
    store.close().unwrap();
    assert!(!anatomy.file.path.exists());
}

/// Writers, flushes and compactions go on while a verification reads: no damage where there is
/// none, and progress that only grows and never passes the end.
#[test]
fn verify_beside_writes_flushes_and_compactions_finds_nothing_and_ends_at_the_end() {
    let patient = Patient::closed();
    let store = Store::open(patient.path(), config()).unwrap();
    let database = store.database("sparse").unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..12_u64 {
                for id in 0..300 {
                    let stamp = round * 300 + id;
                    database.put(id * 3, &nephrite_tests::vector(stamp, 24)).unwrap();
                }
                database.flush().unwrap();
                store.compact().unwrap();
            }
        });
        while !writer.is_finished() {
            let (mut last, mut calls) = (0, 0);
            // Slow enough that files are compacted away in the middle of the walk.
            let options = nephrite::VerifyOptions::new().rate(4 << 20);
            let report = store.verify_with(options, |at| {
                assert!(last <= at.bytes && at.bytes <= at.bytes_total, "{at:?}");
                (last, calls) = (at.bytes, calls + 1);
            });
            let report = report.unwrap();
            assert!(report.is_clean() && 0 < calls, "{report:?}");
        }
        writer.join().unwrap();
    });
    assert!(store.verify(|_| ()).unwrap().is_clean());
    store.close().unwrap();
}
