//! The segment of a second reader: sections, checksum table, id pages, fences and filter.
//! Each function cites the part of `docs/format.md` that it follows.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::{AnyId, Header, Layout, assert_zero, id_at, index, u16_at, u32_at, u64_at};

/// "Segments": what a sealed segment says about each id; tombstones have no vector.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) database: u32,
    pub(crate) rows: u32,
    pub(crate) tombstones: u32,
    pub(crate) highest_lsn: u64,
    pub(crate) in_id_order: bool,
    pub(crate) dense: bool,
    pub(crate) content: BTreeMap<AnyId, Option<Vec<u32>>>,
}

struct Section {
    kind: u16,
    page: u32,
    offset: u64,
    length: u64,
}

pub(crate) fn segment(file: &[u8]) -> Segment {
    let header = Header::read(file);
    assert_eq!(header.kind, 2, "kind of file");
    let layout = Layout::read(&header.detail[4..24]);
    assert_zero(&header.detail[24..], "rest of the detail");
    let start = file.len() - 4096;
    let footer = &file[start..];
    assert_eq!(&footer[0..8], b"NPHFOOT\x1a", "footer magic");
    assert_eq!(header.checksum(start as u64, &footer[..4088]), u64_at(footer, 4088), "footer");
    assert_eq!(footer[8..24], header.store, "store in the footer");
    assert_eq!(u64_at(footer, 24), header.file, "file in the footer");
    assert_eq!(u64_at(footer, 32), header.generation, "generation in the footer");
    assert_eq!(u64_at(footer, 40), file.len() as u64, "length in the footer");
    assert_eq!(u32_at(footer, 56), u32_at(&header.detail, 0), "database in the footer");
    assert_zero(&footer[74..76], "74..76 of the footer");
    assert_zero(&footer[96..128], "96..128 of the footer");
    let sections = sections(footer);
    check_pages(file, &header, &sections);
    let dense = footer[72] == 1;
    let rows =
        if dense { dense_rows(footer) } else { sorted_rows(file, &sections, layout.id_kind) };
    assert_eq!(rows.len(), u32_at(footer, 64) as usize, "count of ids");
    let content =
        rows.into_iter().map(|(id, row)| (id, (row != 0xffff_ffff).then(|| layout.row(file, row))));
    Segment {
        database: u32_at(footer, 56),
        rows: u32_at(footer, 60),
        tombstones: u32_at(footer, 68),
        highest_lsn: u64_at(footer, 48),
        in_id_order: footer[73] & 1 == 1,
        dense,
        content: content.collect(),
    }
}

/// "Footer page": the section table; sections lie back to back up to the footer.
fn sections(footer: &[u8]) -> Vec<Section> {
    let count = u32_at(footer, 92) as usize;
    let sections: Vec<Section> = (0..count)
        .map(|number| &footer[128 + 32 * number..][..32])
        .map(|entry| {
            let required = u16_at(entry, 0) != 17;
            assert_eq!(u16_at(entry, 2), u16::from(required), "only the filter is optional");
            assert_zero(&entry[24..], "24..32 of a section");
            Section {
                kind: u16_at(entry, 0),
                page: u32_at(entry, 4),
                offset: u64_at(entry, 8),
                length: u64_at(entry, 16),
            }
        })
        .collect();
    assert_zero(&footer[128 + 32 * count..4088], "rest of the footer");
    let mut next = 4096;
    for section in &sections {
        assert_eq!(section.offset, next, "section {}", section.kind);
        next += section.length;
    }
    assert_eq!(next + 4096, u64_at(footer, 40), "sections end at the footer");
    sections
}

/// "Checksum table": every page of every other section, in order.
fn check_pages(file: &[u8], header: &Header, sections: &[Section]) {
    let table = sections.iter().find(|section| section.kind == 4).expect("a checksum table");
    let mut checksums = Vec::new();
    for start in (table.offset..table.offset + table.length).step_by(4096) {
        let page = &file[index(start)..][..4096];
        assert_eq!(header.checksum(start, &page[..4088]), u64_at(page, 4088), "table page");
        checksums.extend((0..511).map(|number| u64_at(page, 8 * number)));
    }
    let mut checksums = checksums.into_iter();
    for section in sections.iter().filter(|section| section.kind != 4) {
        for start in
            (section.offset..section.offset + section.length).step_by(section.page as usize)
        {
            let page = &file[index(start)..][..section.page as usize];
            let stored = checksums.next().expect("a checksum for every page");
            assert_eq!(header.checksum(start, page), stored, "page at {start}");
        }
    }
    assert!(checksums.all(|checksum| checksum == 0), "zero after the last checksum");
}

fn dense_rows(footer: &[u8]) -> Vec<(AnyId, u32)> {
    let (count, first, row) = (u32_at(footer, 76), u64_at(footer, 80), u32_at(footer, 88));
    (0..count).map(|number| (AnyId::Number(first + u64::from(number)), row + number)).collect()
}

/// "Id pages" and "Fences": all entries, and the fences must agree with them.
fn sorted_rows(file: &[u8], sections: &[Section], kind: u8) -> Vec<(AnyId, u32)> {
    let find = |kind| sections.iter().find(|section| section.kind == kind).expect("a section");
    let (ids, fences) = (find(2), find(3));
    let mut rows = Vec::new();
    let mut firsts = Vec::new();
    for page in file[index(ids.offset)..][..index(ids.length)].chunks(4096) {
        let entries = id_page(page, kind);
        firsts.push(entries[0].0.clone());
        rows.extend(entries);
    }
    assert!(rows.is_sorted_by(|left, right| left.0 < right.0), "ids ascend");
    firsts.push(rows[rows.len() - 1].0.clone());
    let blob = &file[index(fences.offset)..][..index(fences.length)];
    assert_eq!(read_fences(blob, kind), firsts, "fences");
    if let Some(filter) = sections.iter().find(|section| section.kind == 17) {
        let blob = &file[index(filter.offset)..][..index(filter.length)];
        rows.iter().for_each(|(id, _)| assert!(is_in_filter(blob, id), "{id:?} is denied"));
    }
    rows
}

/// "Filter": whether an id may be in the run.
fn is_in_filter(blob: &[u8], id: &AnyId) -> bool {
    const FACTORS: [u32; 8] = [
        0x47b6_137b,
        0x4497_4d91,
        0x8824_ad5b,
        0xa2b7_289d,
        0x7054_95c7,
        0x2df1_424b,
        0x9efc_4947,
        0x5c6b_fb31,
    ];
    assert_eq!(blob[0], 1, "form of the filter");
    let count = u64_at(blob, 8);
    assert_zero(&blob[1..8], "1..8 of the filter");
    assert_zero(&blob[16..32], "16..32 of the filter");
    assert_zero(&blob[32 + 32 * index(count)..], "rest of the filter");
    let hash = match id {
        AnyId::Number(number) => xxh3_64(&number.to_le_bytes()),
        AnyId::Bytes(bytes) => xxh3_64(bytes),
    };
    let block =
        index(u64::try_from((u128::from(hash) * u128::from(count)) >> 64).expect("a block"));
    let low = u32::try_from(hash % (1 << 32)).expect("the lower half");
    (0..8).all(|word| {
        let bit = low.wrapping_mul(FACTORS[word]) / (1 << 27);
        u32_at(blob, 32 + 32 * block + 4 * word) / (1 << bit) % 2 == 1
    })
}

fn id_page(page: &[u8], kind: u8) -> Vec<(AnyId, u32)> {
    let count = usize::from(u16_at(page, 0));
    assert_eq!(page[2], kind, "kind of an id page");
    assert_zero(&page[3..8], "3..8 of an id page");
    if kind == 1 {
        assert_zero(&page[8 + 8 * count..2728], "ids not in use");
        assert_zero(&page[2728 + 4 * count..], "rows not in use");
        let entry =
            |number| (AnyId::Number(u64_at(page, 8 + 8 * number)), u32_at(page, 2728 + 4 * number));
        return (0..count).map(entry).collect();
    }
    let mut end = 8 + 2 * count;
    let mut entries = Vec::new();
    for number in 0..count {
        let at = usize::from(u16_at(page, 8 + 2 * number));
        assert_eq!(at, end, "entries have no gaps");
        let (id, len) = id_at(page, at + 4, kind);
        entries.push((id, u32_at(page, at)));
        end = at + 4 + len;
    }
    assert_zero(&page[end..], "rest of an id page");
    entries
}

fn read_fences(blob: &[u8], kind: u8) -> Vec<AnyId> {
    assert_eq!(blob[0], kind, "kind of fences");
    assert_zero(&blob[1..4], "1..4 of fences");
    let mut ids = Vec::new();
    let mut at = 16;
    for _ in 0..=u32_at(blob, 4) {
        let (id, len) = id_at(blob, at, kind);
        ids.push(id);
        at += len;
    }
    assert_eq!(at as u64, u64_at(blob, 8), "length of fences");
    assert_zero(&blob[at..], "padding of fences");
    assert_eq!(blob.len(), at.div_ceil(4096) * 4096, "whole blocks of fences");
    ids
}
