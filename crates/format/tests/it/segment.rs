//! Footers and checksum tables: round trip, damage, wrong places, contradictions.

use nephrite_format::id_run::IdIndex;
use nephrite_format::segment::{
    CHECKSUMS_PER_PAGE, ChecksumTablePage, RowOrder, SectionKind, SegmentFooter, SegmentSummary,
    checksum_position, checksum_table_pages, encode_checksum_table,
};
use nephrite_format::{
    DatabaseId, ElementType, FormatError, Lsn, PageIdentity, Row, VectorLayout, page_checksum,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::support::{
    FILE, ROUNDS, identity, mutate, random_bytes, random_database, random_layout,
    refuses_every_bit_flip, refuses_every_truncation, with_seeds, wrong_identities,
};

fn random_footer(rng: &mut ChaCha8Rng) -> (SegmentFooter, VectorLayout) {
    let layout = random_layout(rng);
    let puts = rng.random_range(1..1_000_000);
    let first_row = rng.random_range(0..100);
    let dense = rng.random();
    let tombstone_count = if dense { 0 } else { rng.random_range(0..1000) };
    let id_index = if dense {
        let first = rng.random_range(0..=u64::MAX - u64::from(puts));
        IdIndex::Dense { first, count: puts, first_row: Row::new(first_row) }
    } else {
        IdIndex::Sorted
    };
    let summary = SegmentSummary {
        database: random_database(rng),
        row_count: first_row + puts + rng.random_range(0..5),
        entry_count: puts + tombstone_count,
        tombstone_count,
        id_index,
        row_order: [RowOrder::Arrival, RowOrder::IdOrder][rng.random_range(0..2)],
        max_lsn: Lsn::new(rng.random()),
    };
    let id_pages = if dense { 0 } else { summary.entry_count.div_ceil(340) };
    let fence_pages = if dense { 0 } else { id_pages.div_ceil(500) };
    let footer = SegmentFooter::new(summary, &layout, id_pages, fence_pages);
    (footer.expect("counts that fit"), layout)
}

fn decode(
    page: &[u8],
    place: PageIdentity,
    layout: &VectorLayout,
) -> Result<SegmentFooter, FormatError> {
    SegmentFooter::decode(page, place, layout, FILE)
}

fn summary() -> SegmentSummary {
    SegmentSummary {
        database: DatabaseId::new(1),
        row_count: 100,
        entry_count: 101,
        tombstone_count: 1,
        id_index: IdIndex::Sorted,
        row_order: RowOrder::Arrival,
        max_lsn: Lsn::new(9),
    }
}

fn layout_of_8_rows() -> VectorLayout {
    VectorLayout::for_dimension(128, ElementType::F32).expect("a dimension in range")
}

#[test]
fn footers_round_trip() {
    with_seeds(ROUNDS, |rng| {
        let (footer, layout) = random_footer(rng);
        let place = identity(footer.footer_offset());
        let page = footer.encode(identity(0));
        assert_eq!(decode(page.as_slice(), place, &layout).unwrap(), footer);
        assert_eq!(footer.file_bytes(), footer.footer_offset() + 4096);
    });
}

#[test]
fn sections_lie_back_to_back_from_the_header_on() {
    let footer = SegmentFooter::new(summary(), &layout_of_8_rows(), 3, 1).unwrap();
    let places: Vec<_> =
        footer.sections().iter().map(|it| (it.kind, it.offset, it.page_count())).collect();
    let expected = [
        (SectionKind::VectorPages, 4096, 13),
        (SectionKind::IdPages, 4096 * 14, 3),
        (SectionKind::Fences, 4096 * 17, 1),
        (SectionKind::ChecksumTable, 4096 * 18, 1),
    ];
    assert_eq!(places, expected);
    assert_eq!(footer.footer_offset(), 4096 * 19);
    assert_eq!(footer.section(SectionKind::IdPages).unwrap().page_offset(2), 4096 * 16);
}

#[test]
fn checksums_are_numbered_through_the_sections() {
    let footer = SegmentFooter::new(summary(), &layout_of_8_rows(), 3, 1).unwrap();
    assert_eq!(footer.checksum_count(), Some(17));
    assert_eq!(footer.checksum_index(SectionKind::VectorPages, 12), Some(12));
    assert_eq!(footer.checksum_index(SectionKind::VectorPages, 13), None);
    assert_eq!(footer.checksum_index(SectionKind::IdPages, 0), Some(13));
    assert_eq!(footer.checksum_index(SectionKind::Fences, 0), Some(16));
    assert_eq!(footer.checksum_index(SectionKind::ChecksumTable, 0), None);
    assert_eq!(footer.checksum_index(SectionKind::Optional(16), 0), None);
}

#[test]
fn every_bit_flip_of_a_footer_is_refused() {
    with_seeds(1, |rng| {
        let (footer, layout) = random_footer(rng);
        let place = identity(footer.footer_offset());
        let page = footer.encode(place);
        refuses_every_bit_flip(page.as_slice(), |page| decode(page, place, &layout).is_ok());
    });
}

#[test]
fn every_truncation_of_a_footer_is_refused() {
    with_seeds(1, |rng| {
        let (footer, layout) = random_footer(rng);
        let place = identity(footer.footer_offset());
        let page = footer.encode(place);
        refuses_every_truncation(page.as_slice(), |page| decode(page, place, &layout).is_ok());
    });
}

#[test]
fn a_footer_does_not_verify_anywhere_else() {
    with_seeds(ROUNDS, |rng| {
        let (footer, layout) = random_footer(rng);
        let place = identity(footer.footer_offset());
        let page = footer.encode(place);
        for other in wrong_identities(place) {
            assert!(decode(page.as_slice(), other, &layout).is_err(), "{other:?}");
        }
    });
}

#[test]
fn a_footer_does_not_fit_another_layout() {
    let footer = SegmentFooter::new(summary(), &layout_of_8_rows(), 3, 1).unwrap();
    let other = VectorLayout::for_dimension(64, ElementType::F32).unwrap();
    let place = identity(footer.footer_offset());
    assert!(decode(footer.encode(place).as_slice(), place, &other).is_err());
}

#[test]
fn contradicting_counts_are_refused() {
    let dense = |first, count, row| IdIndex::Dense { first, count, first_row: Row::new(row) };
    let wrong = [
        SegmentSummary { entry_count: 0, tombstone_count: 0, ..summary() },
        SegmentSummary { row_count: u32::MAX, ..summary() },
        SegmentSummary { tombstone_count: 102, ..summary() },
        SegmentSummary { row_count: 99, ..summary() },
        SegmentSummary { id_index: dense(0, 100, 0), ..summary() },
        SegmentSummary { id_index: dense(0, 101, 0), tombstone_count: 0, ..summary() },
        SegmentSummary {
            id_index: dense(u64::MAX - 50, 101, 0),
            tombstone_count: 0,
            row_count: 101,
            ..summary()
        },
    ];
    for summary in wrong {
        let pages = if summary.id_index == IdIndex::Sorted { (1, 1) } else { (0, 0) };
        let footer = SegmentFooter::new(summary, &layout_of_8_rows(), pages.0, pages.1);
        assert!(footer.is_err(), "{summary:?}");
    }
    assert!(SegmentFooter::new(summary(), &layout_of_8_rows(), 0, 1).is_err(), "no id pages");
    assert!(SegmentFooter::new(summary(), &layout_of_8_rows(), 102, 1).is_err(), "too many");
}

#[test]
fn a_filter_is_refused_where_none_can_be() {
    let layout = layout_of_8_rows();
    let footer = SegmentFooter::with_filter(summary(), &layout, 3, 1, 2).unwrap();
    assert_eq!(footer.section(SectionKind::Filter).unwrap().page_count(), 2);
    assert_eq!(footer.checksum_index(SectionKind::Filter, 1), Some(18));
    assert!(SegmentFooter::with_filter(summary(), &layout, 3, 1, 103).is_err(), "too long");
    let id_index = IdIndex::Dense { first: 0, count: 100, first_row: Row::new(0) };
    let dense = SegmentSummary { id_index, entry_count: 100, tombstone_count: 0, ..summary() };
    assert!(SegmentFooter::with_filter(dense, &layout, 0, 0, 1).is_err(), "dense");
}

/// A footer with a fifth section, as a later version might write it.
fn footer_with_extra_section(flags: u16) -> (Vec<u8>, PageIdentity) {
    let footer = SegmentFooter::new(summary(), &layout_of_8_rows(), 3, 1).expect("counts that fit");
    let mut page = footer.encode(identity(0)).to_vec();
    let place = identity(footer.footer_offset() + 8192);
    page[40..48].copy_from_slice(&(place.offset + 4096).to_le_bytes());
    page[92..96].copy_from_slice(&5_u32.to_le_bytes());
    let section = &mut page[128 + 4 * 32..][..32];
    section[0..2].copy_from_slice(&16_u16.to_le_bytes());
    section[2..4].copy_from_slice(&flags.to_le_bytes());
    section[4..8].copy_from_slice(&8192_u32.to_le_bytes());
    section[8..16].copy_from_slice(&footer.footer_offset().to_le_bytes());
    section[16..24].copy_from_slice(&8192_u64.to_le_bytes());
    let checksum = page_checksum(place, &page[..4088]);
    page[4088..].copy_from_slice(&checksum.to_le_bytes());
    (page, place)
}

#[test]
fn unknown_sections_are_skipped_when_optional_and_refused_when_required() {
    let (page, place) = footer_with_extra_section(0);
    let footer = decode(&page, place, &layout_of_8_rows()).unwrap();
    let extra = footer.section(SectionKind::Optional(16)).unwrap();
    assert_eq!((extra.page_bytes, extra.bytes), (8192, 8192));
    assert_eq!(footer.checksum_index(extra.kind, 0), Some(17));
    let (page, place) = footer_with_extra_section(1);
    let error = decode(&page, place, &layout_of_8_rows()).unwrap_err();
    assert!(matches!(error, FormatError::FeatureUnsupported { .. }), "{error}");
}

#[test]
fn checksum_tables_round_trip_over_several_pages() {
    with_seeds(20, |rng| {
        let count = rng.random_range(0..2000);
        let checksums: Vec<u64> = (0..count).map(|_| rng.random()).collect();
        let table = encode_checksum_table(&checksums, identity(8192));
        let pages = checksum_table_pages(u32::try_from(count).unwrap());
        assert_eq!(table.len(), pages as usize * 4096);
        for (index, checksum) in checksums.iter().enumerate() {
            let (page, position) = checksum_position(u32::try_from(index).unwrap());
            let place = identity(8192 + u64::from(page) * 4096);
            let bytes = &table[page as usize * 4096..][..4096];
            if position == 0 {
                ChecksumTablePage::verify(bytes, place, FILE).unwrap();
            }
            let page = ChecksumTablePage::assume_verified(bytes, place.offset, FILE).unwrap();
            assert_eq!(page.entry(position), *checksum);
        }
    });
}

#[test]
fn table_pages_hold_511_checksums() {
    assert_eq!([0, 1, 511, 512].map(checksum_table_pages), [0, 1, 1, 2]);
    assert_eq!(checksum_position(CHECKSUMS_PER_PAGE), (1, 0));
}

#[test]
fn every_damage_of_a_table_page_is_refused() {
    let table = encode_checksum_table(&[1, 2, 3], identity(4096));
    let verify = |page: &[u8]| ChecksumTablePage::verify(page, identity(4096), FILE).is_ok();
    refuses_every_bit_flip(&table, verify);
    refuses_every_truncation(&table, verify);
    for other in wrong_identities(identity(4096)) {
        assert!(ChecksumTablePage::verify(&table, other, FILE).is_err(), "{other:?}");
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    with_seeds(ROUNDS * 5, |rng| {
        let (footer, layout) = random_footer(rng);
        let place = identity(footer.footer_offset());
        let page = footer.encode(place);
        drop(decode(&mutate(rng, page.as_slice()), place, &layout));
        let dimension = u16::try_from(layout.dimension()).unwrap().to_le_bytes();
        let mut fuzzed = dimension.to_vec();
        fuzzed.extend_from_slice(&mutate(rng, page.as_slice()));
        nephrite_format::fuzzing::decode_footer(&fuzzed);
        nephrite_format::fuzzing::decode_footer(&random_bytes(rng, 4098));
    });
}
