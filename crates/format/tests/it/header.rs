//! Header pages: round trip, and every way in which they can be wrong.

use nephrite_format::{
    DatabaseId, ElementType, FORMAT_VERSION, FileDetail, FileHeader, FileId, FileKind, FormatError,
    Generation, IdKind, SegmentDetail, StoreId, VectorLayout, page_checksum,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{
    FILE, KINDS, ROUNDS, mutate, random_bytes, random_database, random_identity, random_layout,
    refuses_every_bit_flip, refuses_every_truncation, with_seeds,
};

fn random_header(rng: &mut ChaCha8Rng) -> FileHeader {
    let identity = random_identity(rng);
    let detail = match rng.random_range(0..3) {
        0 => FileDetail::Wal { position: rng.random(), segment_bytes: rng.random() },
        1 => FileDetail::Manifest { capacity_bytes: rng.random() },
        _ => FileDetail::Segment(SegmentDetail {
            database: random_database(rng),
            id_kind: KINDS[rng.random_range(0..2)],
            layout: random_layout(rng),
        }),
    };
    let (store, file, generation) = (identity.store, identity.file, identity.generation);
    FileHeader { store, file, generation, detail }
}

fn one_of_each_kind() -> Vec<FileHeader> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut headers: Vec<FileHeader> = Vec::new();
    while headers.len() < 3 {
        let header = random_header(&mut rng);
        if headers.iter().all(|known| known.kind() != header.kind()) {
            headers.push(header);
        }
    }
    headers
}

/// A page with `change` made and the checksum put right again.
fn resealed(header: &FileHeader, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut page = header.encode().to_vec();
    change(&mut page);
    let checksum = page_checksum(header.identity(0), &page[..4088]);
    page[4088..].copy_from_slice(&checksum.to_le_bytes());
    page
}

#[test]
fn headers_round_trip() {
    with_seeds(ROUNDS, |rng| {
        let header = random_header(rng);
        let page = header.encode();
        assert_eq!(FileHeader::decode(page.as_slice(), FILE), Ok(header));
    });
}

#[test]
fn encoding_overwrites_whatever_was_in_the_page() {
    let header = one_of_each_kind()[0];
    let mut page = [0xff_u8; 4096];
    header.encode_into(&mut page);
    assert_eq!(&page, header.encode().as_ref());
}

#[test]
fn every_bit_flip_is_refused() {
    for kind in [FileKind::Wal, FileKind::Segment, FileKind::Manifest] {
        let headers = one_of_each_kind();
        let header = headers.iter().find(|header| header.kind() == kind).unwrap();
        refuses_every_bit_flip(header.encode().as_slice(), |page| {
            FileHeader::decode(page, FILE).is_ok()
        });
    }
}

#[test]
fn every_truncation_is_refused() {
    for header in one_of_each_kind() {
        refuses_every_truncation(header.encode().as_slice(), |page| {
            FileHeader::decode(page, FILE).is_ok()
        });
    }
}

#[test]
fn a_foreign_file_is_named_as_such_and_not_as_damage() {
    let error = FileHeader::decode(&[b'x'; 4096], FILE).unwrap_err();
    assert_eq!(error, FormatError::NotNephrite { file: FILE.to_owned() });
}

#[test]
fn a_newer_version_is_refused_by_number_whatever_else_the_page_holds() {
    let header = one_of_each_kind()[0];
    let mut page = header.encode();
    page[8..12].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
    page[500] = 1;
    let error = FileHeader::decode(page.as_slice(), FILE).unwrap_err();
    let (found, newest) = (FORMAT_VERSION + 1, FORMAT_VERSION);
    assert_eq!(error, FormatError::VersionUnsupported { file: FILE.to_owned(), found, newest });
}

#[test]
fn fields_of_later_features_are_refused_by_name() {
    let header = one_of_each_kind()[0];
    for (offset, name) in [(13, "compression"), (20, "encryption")] {
        let page = resealed(&header, |page| page[offset] = 2);
        let error = FileHeader::decode(&page, FILE).unwrap_err();
        assert!(matches!(error, FormatError::FeatureUnsupported { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn reserved_bytes_must_be_zero_even_under_a_right_checksum() {
    for header in one_of_each_kind() {
        for offset in [14, 56, 79, 80, 127, 191, 192, 4087] {
            let page = resealed(&header, |page| page[offset] = 1);
            let error = FileHeader::decode(&page, FILE).unwrap_err();
            assert!(matches!(error, FormatError::Corrupt { .. }), "{offset}: {error}");
        }
    }
}

#[test]
fn impossible_fields_are_refused_even_under_a_right_checksum() {
    let layout = VectorLayout::for_dimension(768, ElementType::F32).unwrap();
    let (database, id_kind) = (DatabaseId::new(1), IdKind::Bytes);
    let detail = FileDetail::Segment(SegmentDetail { database, id_kind, layout });
    let header = &FileHeader { detail, ..one_of_each_kind()[0] };
    // Kind, version, bytes used, dimension, element type, id kind, stride, page, rows per page.
    for offset in [12, 16, 134, 136, 137, 140, 145, 148] {
        let page = resealed(header, |page| page[offset] ^= 0x40);
        assert!(FileHeader::decode(&page, FILE).is_err(), "byte {offset}");
    }
    let page = resealed(header, |page| page[8..12].fill(0));
    assert!(matches!(FileHeader::decode(&page, FILE), Err(FormatError::Corrupt { offset: 8, .. })));
}

#[test]
fn a_header_of_another_file_is_told_apart() {
    let header = one_of_each_kind()[0];
    header.expect_identity(header.store, header.file, FILE).unwrap();
    let store = StoreId::new([0xee; 16]);
    assert!(header.expect_identity(store, header.file, FILE).is_err());
    let file = FileId::new(header.file.get() ^ 1);
    let error = header.expect_identity(header.store, file, FILE).unwrap_err();
    assert!(error.to_string().contains(&file.to_string()), "{error}");
}

#[test]
fn a_file_of_another_kind_is_told_apart() {
    for header in one_of_each_kind() {
        header.expect_kind(header.kind(), FILE).unwrap();
        let is_segment = header.kind() == FileKind::Segment;
        assert_eq!(header.segment(FILE).is_ok(), is_segment);
        let other = if is_segment { FileKind::Wal } else { FileKind::Segment };
        let error = header.expect_kind(other, FILE).unwrap_err();
        assert!(matches!(error, FormatError::WrongKind { .. }), "{error}");
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    with_seeds(ROUNDS * 5, |rng| {
        let page = random_header(rng).encode();
        drop(FileHeader::decode(&mutate(rng, page.as_slice()), FILE));
        let len = rng.random_range(0..5000);
        drop(FileHeader::decode(&random_bytes(rng, len), FILE));
        nephrite_format::fuzzing::decode_header(&mutate(rng, page.as_slice()));
    });
}

#[test]
fn identity_of_a_header_names_store_file_generation_and_place() {
    let header = FileHeader { generation: Generation::new(9), ..one_of_each_kind()[0] };
    let identity = header.identity(12_288);
    assert_eq!((identity.store, identity.file), (header.store, header.file));
    assert_eq!((identity.generation, identity.offset), (Generation::new(9), 12_288));
}
