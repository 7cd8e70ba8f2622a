//! Files written with the crate, read with a reader written from `docs/format.md` alone.
//!
//! When one of these tests fails, either the code or the page is wrong.

mod reader;

use std::collections::BTreeMap;

use nephrite_format::filter::IdFilter;
use nephrite_format::frame::{FrameHeader, FrameKind, build_frame};
use nephrite_format::id_run::IdIndex;
use nephrite_format::manifest::{Counters, DatabaseMeta, FlushEdit, ManifestEdit, SegmentMeta};
use nephrite_format::segment::{RowOrder, SegmentFooter, SegmentSummary, encode_checksum_table};
use nephrite_format::vector::encode_f32;
use nephrite_format::wal::{
    BulkEncoder, BulkHeader, IdColumnForm, OperationsEncoder, bulk_len, delete_len, id_len,
    operations_len, put_len,
};
use nephrite_format::{
    DatabaseId, ElementType, FileDetail, FileHeader, FileId, FrameSequence, Generation, Id, IdKind,
    Lsn, Row, RowsChecksum, SegmentDetail, StoreId, VectorLayout, page_checksum,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use self::reader::{Added, AnyId, Edit, Frame, Header, Layout, Record};
use crate::support::{KINDS, bits, build_run, random_entries, random_vector, with_seeds};

/// Rows of a bulk load; Miri is some hundred times slower.
const ROWS: u32 = if cfg!(miri) { 20 } else { 200 };

fn any(id: &Id) -> AnyId {
    match id {
        Id::U64(number) => AnyId::Number(*number),
        Id::Bytes(bytes) => AnyId::Bytes(bytes.to_vec()),
    }
}

fn header(detail: FileDetail) -> FileHeader {
    FileHeader {
        store: StoreId::new([0x17; 16]),
        file: FileId::new(0x0102_0304_0506_0708),
        generation: Generation::new(0x1112_1314_1516_1718),
        detail,
    }
}

fn segment_header(kind: IdKind, layout: VectorLayout) -> FileHeader {
    let database = DatabaseId::new(0x2122_2324);
    header(FileDetail::Segment(SegmentDetail { database, id_kind: kind, layout }))
}

fn frame_header(kind: FrameKind, sequence: u64, record_count: u32) -> FrameHeader {
    FrameHeader {
        kind,
        payload_bytes: 0,
        record_count,
        sequence: FrameSequence::new(sequence),
        first_lsn: Lsn::new(1000 + sequence),
        durable_through: FrameSequence::new(sequence - 1),
    }
}

/// Header and vector pages of a segment, as the engine lays rows out.
fn vector_pages(header: &FileHeader, layout: &VectorLayout, rows: &[Vec<f32>]) -> Vec<u8> {
    let mut file = header.encode().to_vec();
    let pages = layout.pages_for(u32::try_from(rows.len()).expect("a few"));
    file.resize(4096 + (pages * layout.page_bytes()) as usize, 0);
    for (row, vector) in rows.iter().enumerate() {
        let row = Row::new(u32::try_from(row).expect("a few"));
        let start = usize::try_from(layout.row_offset(row)).expect("a small file");
        encode_f32(vector, &mut file[start..start + layout.vector_bytes()]);
    }
    file
}

/// Completes a segment file: checksum table and footer over the pages that are there.
fn seal(file: &mut Vec<u8>, header: &FileHeader, footer: &SegmentFooter) {
    let mut checksums = Vec::new();
    for section in &footer.sections()[..footer.sections().len() - 1] {
        for page in 0..u32::try_from(section.page_count()).expect("a few") {
            let offset = section.page_offset(page);
            let start = usize::try_from(offset).expect("a small file");
            let bytes = &file[start..start + section.page_bytes as usize];
            checksums.push(page_checksum(header.identity(offset), bytes));
        }
    }
    file.extend(encode_checksum_table(&checksums, header.identity(file.len() as u64)));
    file.extend_from_slice(footer.encode(header.identity(0)).as_slice());
}

/// A sealed segment with these entries, and what its ids mean.
fn sorted_segment(
    rng: &mut ChaCha8Rng,
    kind: IdKind,
    dimension: u32,
    count: usize,
) -> (Vec<u8>, BTreeMap<AnyId, Option<Vec<u32>>>) {
    let layout = VectorLayout::for_dimension(dimension, ElementType::F32).expect("in range");
    let header = segment_header(kind, layout);
    let entries = random_entries(rng, kind, count);
    let run = build_run(kind, &entries);
    let row_count = run.entry_count - run.tombstone_count;
    let rows: Vec<_> = (0..row_count).map(|_| random_vector(rng, dimension)).collect();
    let mut file = vector_pages(&header, &layout, &rows);
    let fences = run.fences.encode();
    file.extend_from_slice(&run.pages);
    file.extend_from_slice(&fences);
    let mut filter = IdFilter::for_ids(run.entry_count);
    entries.iter().for_each(|(id, _)| filter.insert(id.as_id_ref()));
    file.extend_from_slice(&filter.encode());
    let summary = SegmentSummary {
        database: DatabaseId::new(0x2122_2324),
        row_count,
        entry_count: run.entry_count,
        tombstone_count: run.tombstone_count,
        id_index: IdIndex::Sorted,
        row_order: RowOrder::IdOrder,
        max_lsn: Lsn::new(4711),
    };
    let blocks = u32::try_from(fences.len() / 4096).expect("a few");
    let id_pages = run.fences.page_count();
    let filter_pages = IdFilter::page_count_for(run.entry_count);
    let footer = SegmentFooter::with_filter(summary, &layout, id_pages, blocks, filter_pages);
    seal(&mut file, &header, &footer.expect("counts that fit"));
    let content = entries
        .iter()
        .map(|(id, row)| (any(id), (!row.is_tombstone()).then(|| bits(&rows[row.get() as usize]))));
    (file, content.collect())
}

#[test]
fn sorted_segments_agree() {
    let count = if cfg!(miri) { 20 } else { 3000 };
    with_seeds(3, |rng| {
        for kind in KINDS {
            for dimension in [3, 100, if cfg!(miri) { 70 } else { 768 }] {
                let (file, content) = sorted_segment(rng, kind, dimension, count);
                let read = reader::segment(&file);
                assert_eq!(read.content, content);
                let tombstones = content.values().filter(|vector| vector.is_none()).count();
                assert_eq!(read.tombstones as usize, tombstones);
                assert_eq!(read.rows as usize, content.len() - tombstones);
                assert_eq!((read.database, read.highest_lsn), (0x2122_2324, 4711));
                assert_eq!((read.in_id_order, read.dense), (true, false));
            }
        }
    });
}

#[test]
fn dense_segments_agree() {
    with_seeds(3, |rng| {
        let layout = VectorLayout::with_page_bytes(768, ElementType::F32, 12_288).unwrap();
        let header = segment_header(IdKind::U64, layout);
        let rows: Vec<_> = (0..9).map(|_| random_vector(rng, 768)).collect();
        let mut file = vector_pages(&header, &layout, &rows);
        let first = 1 << 40;
        let summary = SegmentSummary {
            database: DatabaseId::new(0x2122_2324),
            row_count: 9,
            entry_count: 7,
            tombstone_count: 0,
            id_index: IdIndex::Dense { first, count: 7, first_row: Row::new(2) },
            row_order: RowOrder::Arrival,
            max_lsn: Lsn::new(1),
        };
        let footer = SegmentFooter::new(summary, &layout, 0, 0).unwrap();
        seal(&mut file, &header, &footer);
        let read = reader::segment(&file);
        let id = |row: u64| AnyId::Number(first + row);
        let content = rows[2..].iter().zip(0..).map(|(row, number)| (id(number), Some(bits(row))));
        assert_eq!(read.content, content.collect());
        assert_eq!((read.in_id_order, read.dense), (false, true));
    });
}

/// A put and a delete in one record.
fn operations_record(kind: IdKind, ids: &[Id; 2], vector: &[f32]) -> Vec<u8> {
    let dimension = u32::try_from(vector.len()).expect("short");
    let layout = VectorLayout::for_dimension(dimension, ElementType::F32).expect("in range");
    let body = put_len((&ids[0]).into(), &layout) + delete_len((&ids[1]).into());
    let mut record = vec![0; operations_len(body)];
    let mut encoder =
        OperationsEncoder::new(&mut record, DatabaseId::new(0x3132), kind, &layout, 2);
    encoder.put((&ids[0]).into(), vector);
    encoder.delete((&ids[1]).into());
    assert_eq!(encoder.finish(), record.len());
    record
}

fn bulk_record(header: &BulkHeader, form: IdColumnForm, ids: &[Id]) -> Vec<u8> {
    let consecutive = matches!(form, IdColumnForm::Consecutive { .. });
    let id_bytes = if consecutive { 8 } else { ids.iter().map(|id| id_len(id.into())).sum() };
    let mut record = vec![0; bulk_len(id_bytes)];
    let mut encoder = BulkEncoder::new(&mut record, header, form);
    if !consecutive {
        ids.iter().for_each(|id| encoder.id(id.into()));
    }
    assert_eq!(encoder.finish(), record.len());
    record
}

#[test]
fn logs_agree() {
    let vector = [1.5, f32::NAN, -0.0];
    let numbers = [Id::from(7), Id::from(u64::MAX)];
    let texts = [Id::from("seven"), Id::from("x")];
    let bulk = BulkHeader {
        database: DatabaseId::new(5),
        segment: FileId::new(6),
        first_row: Row::new(8),
        row_count: 2,
        rows_checksum: 0x4142_4344_4546_4748,
    };
    let consecutive = [Id::from(40), Id::from(41)];
    let first = [
        operations_record(IdKind::U64, &numbers, &vector),
        operations_record(IdKind::Bytes, &texts, &vector),
    ];
    let second = [
        bulk_record(&bulk, IdColumnForm::Consecutive { first: 40 }, &consecutive),
        bulk_record(&bulk, IdColumnForm::U64, &numbers),
        bulk_record(&bulk, IdColumnForm::Bytes, &texts),
    ];
    let header = header(FileDetail::Wal { position: 3, segment_bytes: 1 << 20 });
    let mut file = header.encode().to_vec();
    for (sequence, records) in [(9, first.concat()), (10, second.concat())] {
        let place = header.identity(file.len() as u64);
        let count = if sequence == 9 { 2 } else { 3 };
        let fields = frame_header(FrameKind::WalRecords, sequence, count);
        file.extend(build_frame(place, &fields, &records));
    }
    file.resize(file.len() + 8192, 0);

    let read = Header::read(&file);
    assert_eq!((read.kind, reader::u64_at(&read.detail, 0)), (1, 3));
    assert_eq!(reader::u64_at(&read.detail, 8), 1 << 20);
    let frames = reader::frames(&file, &read);
    assert_eq!(frames.len(), 2);
    check_frame(&frames[0], 1, 9);
    check_frame(&frames[1], 1, 10);
    let operations = |ids: &[Id; 2]| Record::Operations {
        database: 0x3132,
        dimension: 3,
        operations: vec![(any(&ids[0]), Some(bits(&vector))), (any(&ids[1]), None)],
    };
    assert_eq!(reader::records(&frames[0]), [operations(&numbers), operations(&texts)]);
    let bulk = |ids: &[Id; 2]| Record::Bulk {
        database: 5,
        segment: 6,
        checksum: 0x4142_4344_4546_4748,
        first_row: 8,
        ids: ids.iter().map(any).collect(),
    };
    assert_eq!(reader::records(&frames[1]), [bulk(&consecutive), bulk(&numbers), bulk(&texts)]);
}

fn check_frame(frame: &Frame, kind: u8, sequence: u64) {
    assert_eq!((frame.kind, frame.sequence), (kind, sequence));
    assert_eq!((frame.first_lsn, frame.durable_through), (1000 + sequence, sequence - 1));
}

#[test]
fn checksums_of_bulk_rows_agree() {
    with_seeds(3, |rng| {
        for dimension in [3, 64, if cfg!(miri) { 70 } else { 1536 }] {
            let layout = VectorLayout::for_dimension(dimension, ElementType::F32).unwrap();
            let header = segment_header(IdKind::U64, layout);
            let rows: Vec<_> = (0..ROWS).map(|_| random_vector(rng, dimension)).collect();
            let file = vector_pages(&header, &layout, &rows);
            let first = rng.random_range(0..ROWS / 2);
            let place = header.identity(layout.row_offset(Row::new(first)));
            let mut checksum = RowsChecksum::new(place);
            for row in &rows[first as usize..] {
                let mut bytes = vec![0; layout.vector_bytes()];
                encode_f32(row, &mut bytes);
                checksum.update(&bytes);
            }
            let read = reader::rows_checksum(&file, &Header::read(&file), first, ROWS - first);
            assert_eq!(read, checksum.finish());
        }
    });
}

fn segment_meta(min_id: Id, max_id: Id) -> SegmentMeta {
    SegmentMeta {
        file: FileId::new(51),
        generation: Generation::new(52),
        file_bytes: 53 * 4096,
        row_count: 540,
        entry_count: 550,
        tombstone_count: 56,
        live_rows: 57,
        level: 58,
        order: 59,
        max_lsn: Lsn::new(60),
        min_id,
        max_id,
    }
}

#[test]
fn manifests_agree() {
    let layout = VectorLayout::for_dimension(100, ElementType::F32).unwrap();
    let create = ManifestEdit::CreateDatabase(DatabaseMeta {
        database: DatabaseId::new(70),
        name: "grün".to_owned(),
        id_kind: IdKind::Bytes,
        layout,
    });
    let counters = ManifestEdit::Counters(Counters {
        next_file: FileId::new(81),
        next_database: DatabaseId::new(82),
        next_generation: Generation::new(83),
        next_lsn: Lsn::new(84),
        wal_position: 85,
        wal_sequence: FrameSequence::new(86),
    });
    let flush = ManifestEdit::Flush(FlushEdit {
        database: DatabaseId::new(70),
        flushed_lsn: Lsn::new(91),
        live_records: 92,
        added: vec![
            segment_meta(Id::from("a"), Id::from("zz")),
            segment_meta(Id::from(3), Id::from(4)),
        ],
        removed: vec![FileId::new(93), FileId::new(94)],
    });
    let dropped = ManifestEdit::DropDatabase { database: DatabaseId::new(70) };
    let log_segment = ManifestEdit::LogSegment { position: 85, file: FileId::new(95) };
    let parts = [
        (FrameKind::ManifestSnapshot, vec![create]),
        (FrameKind::ManifestSnapshotEnd, vec![counters, log_segment]),
        (FrameKind::ManifestEdits, vec![flush, dropped]),
    ];
    let header = header(FileDetail::Manifest { capacity_bytes: 99 });
    let mut file = header.encode().to_vec();
    for ((kind, edits), sequence) in parts.iter().zip(1..) {
        let (payload, count) = ManifestEdit::encode_all(edits);
        let place = header.identity(file.len() as u64);
        file.extend(build_frame(place, &frame_header(*kind, sequence, count), &payload));
    }

    let read = Header::read(&file);
    assert_eq!((read.kind, reader::u64_at(&read.detail, 0)), (3, 99));
    let frames = reader::frames(&file, &read);
    let kinds: Vec<u8> = frames.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [2, 3, 4]);
    let edits: Vec<Edit> = frames.iter().flat_map(reader::edits).collect();
    assert_eq!(edits, expected_edits());
}

fn expected_edits() -> Vec<Edit> {
    let added = |smallest, largest| Added {
        numbers64: [51, 52, 53 * 4096, 59, 60],
        numbers32: [540, 550, 56, 57, 58],
        smallest,
        largest,
    };
    let bytes = |text: &str| AnyId::Bytes(text.as_bytes().to_vec());
    vec![
        Edit::Create {
            database: 70,
            layout: Layout {
                dimension: 100,
                id_kind: 2,
                stride: 448,
                page: 4096,
                rows_per_page: 9,
            },
            name: "grün".to_owned(),
        },
        Edit::Counters {
            file: 81,
            generation: 83,
            lsn: 84,
            position: 85,
            sequence: 86,
            database: 82,
        },
        Edit::LogSegment { position: 85, file: 95 },
        Edit::Flush {
            database: 70,
            lsn: 91,
            live: 92,
            added: vec![added(bytes("a"), bytes("zz")), added(AnyId::Number(3), AnyId::Number(4))],
            removed: vec![93, 94],
        },
        Edit::Drop { database: 70 },
    ]
}
