//! The seeds of the decoders' fuzz targets: valid bytes of every kind, written by this build.
//!
//! They are the golden bytes of the format, too: `corpus` compares them with those on disk, and
//! `examples/write_seeds.rs`, which includes this file, writes them again after a change that is
//! meant.

use std::path::PathBuf;
use std::slice;

use nephrite_format::filter::IdFilter;
use nephrite_format::frame::{FrameHeader, FrameKind, build_frame};
use nephrite_format::fuzzing;
use nephrite_format::id_run::{IdIndex, IdRun, IdRunBuilder};
use nephrite_format::manifest::{Counters, DatabaseMeta, FlushEdit, ManifestEdit, SegmentMeta};
use nephrite_format::segment::{RowOrder, SegmentFooter, SegmentSummary};
use nephrite_format::wal::{
    BulkEncoder, BulkHeader, IdColumnForm, OperationsEncoder, bulk_len, delete_len, id_len,
    operations_len, put_len,
};
use nephrite_format::{
    DatabaseId, ElementType, FileDetail, FileHeader, FileId, FrameSequence, Generation, Id, IdKind,
    IdRef, Lsn, Row, SegmentDetail, StoreId, VectorLayout,
};

/// Name and bytes.
pub(crate) type Seed = (&'static str, Vec<u8>);

/// The seeds of each target.
pub(crate) fn seeds() -> [(&'static str, Vec<Seed>); 8] {
    [
        ("decode_header", header_seeds()),
        ("decode_frame", frame_seeds()),
        ("decode_wal_records", wal_seeds()),
        ("decode_id_page", id_page_seeds()),
        ("decode_fences", fence_seeds()),
        ("decode_filter", filter_seeds()),
        ("decode_footer", footer_seeds()),
        ("decode_manifest_edits", manifest_seeds()),
    ]
}

/// The folder of corpora and findings.
pub(crate) fn fuzz_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn layout(dimension: u32) -> VectorLayout {
    VectorLayout::for_dimension(dimension, ElementType::F32).expect("in range")
}

fn header_seeds() -> Vec<Seed> {
    let detail =
        SegmentDetail { database: DatabaseId::new(4), id_kind: IdKind::Bytes, layout: layout(768) };
    let details = [
        ("seed-wal", FileDetail::Wal { position: 2, segment_bytes: 64 << 20 }),
        ("seed-segment", FileDetail::Segment(detail)),
        ("seed-manifest", FileDetail::Manifest { capacity_bytes: 1 << 20 }),
    ];
    let encode = |detail| {
        let (store, file) = (StoreId::new(*b"0123456789abcdef"), FileId::new(5));
        let generation = Generation::new(6);
        FileHeader { store, file, generation, detail }.encode().to_vec()
    };
    details.into_iter().map(|(name, detail)| (name, encode(detail))).collect()
}

fn frame_seeds() -> Vec<Seed> {
    let build = |kind, payload: &[u8]| {
        let header = FrameHeader {
            kind,
            payload_bytes: 0,
            record_count: 1,
            sequence: FrameSequence::new(7),
            first_lsn: Lsn::new(8),
            durable_through: FrameSequence::new(6),
        };
        build_frame(fuzzing::identity(8192), &header, payload)
    };
    vec![
        ("seed-empty", build(FrameKind::ManifestSnapshotEnd, b"")),
        ("seed-short", build(FrameKind::WalRecords, b"some records")),
        ("seed-two-blocks", build(FrameKind::ManifestEdits, &[0xa5; 5000])),
        ("seed-blank", vec![0; 64]),
    ]
}

fn wal_seeds() -> Vec<Seed> {
    let numbers = [1, u64::MAX].map(Id::from);
    let texts = ["a", "some longer id"].map(Id::from);
    let bulk = |form, ids: &[Id]| bulk_record(form, ids);
    let all = [
        operations_record(IdKind::U64, &numbers),
        operations_record(IdKind::Bytes, &texts),
        bulk(IdColumnForm::Consecutive { first: 40 }, &[]),
        bulk(IdColumnForm::U64, &numbers),
        bulk(IdColumnForm::Bytes, &texts),
    ];
    let counted = |count: u16, payload: &[u8]| [&count.to_le_bytes(), payload].concat();
    vec![
        ("seed-operations-u64", counted(1, &all[0])),
        ("seed-operations-bytes", counted(1, &all[1])),
        ("seed-bulk-consecutive", counted(1, &all[2])),
        ("seed-bulk-u64", counted(1, &all[3])),
        ("seed-bulk-bytes", counted(1, &all[4])),
        ("seed-all", counted(5, &all.concat())),
    ]
}

fn operations_record(kind: IdKind, ids: &[Id; 2]) -> Vec<u8> {
    let [put, delete] = ids;
    let layout = layout(3);
    let body = put_len(put.into(), &layout) + delete_len(delete.into());
    let mut record = vec![0; operations_len(body)];
    let mut encoder = OperationsEncoder::new(&mut record, DatabaseId::new(2), kind, &layout, 2);
    encoder.put(put.into(), &[1.0, -2.5, f32::INFINITY]);
    encoder.delete(delete.into());
    assert_eq!(encoder.finish(), record.len());
    record
}

fn bulk_record(form: IdColumnForm, ids: &[Id]) -> Vec<u8> {
    let header = BulkHeader {
        database: DatabaseId::new(3),
        segment: FileId::new(9),
        first_row: Row::new(10),
        row_count: 2,
        rows_checksum: 11,
    };
    let id_bytes = if ids.is_empty() { 8 } else { ids.iter().map(IdRef::from).map(id_len).sum() };
    let mut record = vec![0; bulk_len(id_bytes)];
    let mut encoder = BulkEncoder::new(&mut record, &header, form);
    ids.iter().for_each(|id| encoder.id(id.into()));
    assert_eq!(encoder.finish(), record.len());
    record
}

fn runs() -> [(u8, IdRun); 2] {
    let row = |index: u32| if index.is_multiple_of(5) { Row::TOMBSTONE } else { Row::new(index) };
    let numbers: Vec<_> =
        (0..700).map(|index| (Id::from(u64::from(index) * 3), row(index))).collect();
    let texts: Vec<_> =
        (0..500).map(|index| (Id::from(format!("id-{index:06}")), row(index))).collect();
    let run = |kind, entries: &[(Id, Row)]| {
        let mut builder = IdRunBuilder::new(kind);
        entries.iter().for_each(|(id, row)| builder.push(id.as_id_ref(), *row));
        builder.finish()
    };
    [(0, run(IdKind::U64, &numbers)), (1, run(IdKind::Bytes, &texts))]
}

fn id_page_seeds() -> Vec<Seed> {
    let [numbers, texts] = runs();
    let page = |(code, run): &(u8, IdRun), from| [&[*code], &run.pages[from..][..4096]].concat();
    let last = |run: &(u8, IdRun)| page(run, run.1.pages.len() - 4096);
    vec![
        ("seed-u64-full", page(&numbers, 0)),
        ("seed-u64-last", last(&numbers)),
        ("seed-bytes-full", page(&texts, 0)),
        ("seed-bytes-last", last(&texts)),
    ]
}

fn fence_seeds() -> Vec<Seed> {
    let [numbers, texts] = runs();
    let blob = |(code, run): &(u8, IdRun)| [&[*code], &run.fences.encode()[..]].concat();
    vec![("seed-u64", blob(&numbers)), ("seed-bytes", blob(&texts))]
}

fn filter_seeds() -> Vec<Seed> {
    let mut filter = IdFilter::for_ids(100);
    (0..50).for_each(|id| filter.insert(IdRef::U64(id)));
    (0..50_u8).for_each(|id| filter.insert(IdRef::Bytes(&[b'a', id])));
    vec![("seed-mixed", filter.encode()), ("seed-empty", IdFilter::for_ids(0).encode())]
}

fn footer_seeds() -> Vec<Seed> {
    let summary = SegmentSummary {
        database: DatabaseId::new(4),
        row_count: 100,
        entry_count: 100,
        tombstone_count: 0,
        id_index: IdIndex::Sorted,
        row_order: RowOrder::IdOrder,
        max_lsn: Lsn::new(12),
    };
    let id_index = IdIndex::Dense { first: 13, count: 100, first_row: Row::new(0) };
    let encode = |summary, id_pages, fence_pages| {
        let footer = SegmentFooter::new(summary, &layout(128), id_pages, fence_pages);
        let page = footer.expect("counts that fit").encode(fuzzing::identity(0));
        [&128_u16.to_le_bytes(), page.as_slice()].concat()
    };
    let dense = SegmentSummary { id_index, row_order: RowOrder::Arrival, ..summary };
    let filtered = SegmentFooter::with_filter(summary, &layout(128), 1, 1, 1);
    let filtered = filtered.expect("counts that fit").encode(fuzzing::identity(0));
    vec![
        ("seed-sorted", encode(summary, 1, 1)),
        ("seed-dense", encode(dense, 0, 0)),
        ("seed-filtered", [&128_u16.to_le_bytes(), filtered.as_slice()].concat()),
    ]
}

fn manifest_seeds() -> Vec<Seed> {
    let create = ManifestEdit::CreateDatabase(DatabaseMeta {
        database: DatabaseId::new(1),
        name: "vectors".to_owned(),
        id_kind: IdKind::U64,
        layout: layout(100),
    });
    let segment = SegmentMeta {
        file: FileId::new(2),
        generation: Generation::new(1),
        file_bytes: 16_384,
        row_count: 8,
        entry_count: 9,
        tombstone_count: 1,
        live_rows: 7,
        level: 0,
        order: 3,
        max_lsn: Lsn::new(30),
        min_id: Id::from(1),
        max_id: Id::from(99),
    };
    let texts = SegmentMeta { min_id: Id::from("a"), max_id: Id::from("b"), ..segment.clone() };
    let flush = ManifestEdit::Flush(FlushEdit {
        database: DatabaseId::new(1),
        flushed_lsn: Lsn::new(30),
        live_records: 7,
        added: vec![segment, texts],
        removed: vec![FileId::new(4), FileId::new(5)],
    });
    let counters = ManifestEdit::Counters(Counters {
        next_file: FileId::new(10),
        next_database: DatabaseId::new(2),
        next_generation: Generation::new(3),
        next_lsn: Lsn::new(31),
        wal_position: 1,
        wal_sequence: FrameSequence::new(17),
    });
    let dropped = ManifestEdit::DropDatabase { database: DatabaseId::new(1) };
    let encode = |edits: &[ManifestEdit]| {
        let (payload, count) = ManifestEdit::encode_all(edits);
        let count = u16::try_from(count).expect("a few");
        [&count.to_le_bytes(), &payload[..]].concat()
    };
    vec![
        ("seed-create", encode(slice::from_ref(&create))),
        ("seed-flush", encode(slice::from_ref(&flush))),
        ("seed-counters", encode(slice::from_ref(&counters))),
        ("seed-all", encode(&[create, flush, counters, dropped])),
    ]
}
