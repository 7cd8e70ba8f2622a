//! How headers, edits, sections and pages are told as parts.
//!
//! Only what was decoded already is shown here, under the names that people see; an id page is
//! parsed for its ids, and one that does not hold is a damaged part.
//! Tested in `inspect`, and in the tests of the command that prints parts.

use super::Part;
use crate::BLOCK_BYTES_U64;
use crate::header::{FileDetail, FileHeader, SegmentDetail};
use crate::id_run::IdPage;
use crate::manifest::ManifestEdit;
use crate::segment::{Section, SectionKind};

pub(super) fn header_part(header: &FileHeader) -> Part {
    let part = Part::new(0, BLOCK_BYTES_U64, format!("header page of a {}", header.kind()))
        .field("store", header.store)
        .field("file", header.file)
        .field("generation", header.generation);
    match header.detail {
        FileDetail::Wal { position, segment_bytes } => {
            part.field("position", position).field("length", segment_bytes)
        }
        FileDetail::Manifest { capacity_bytes } => part.field("length", capacity_bytes),
        FileDetail::Segment(detail) => part
            .field("database", detail.database)
            .field("ids", detail.id_kind)
            .field("layout", detail.layout),
    }
}

pub(super) fn edit_part(edit: &ManifestEdit, at: u64) -> Part {
    match edit {
        ManifestEdit::CreateDatabase(meta) => Part::new(at, 0, "a database appears")
            .field("database", meta.database)
            .field("name", &meta.name)
            .field("ids", meta.id_kind)
            .field("layout", meta.layout),
        ManifestEdit::DropDatabase { database } => {
            Part::new(at, 0, "a database disappears").field("database", database)
        }
        ManifestEdit::Flush(flush) => {
            let files = |files: Vec<String>| files.join(" ");
            let added = flush.added.iter().map(|it| format!("{:016x}", it.file.get())).collect();
            let removed = flush.removed.iter().map(|it| format!("{:016x}", it.get())).collect();
            Part::new(at, 0, "segments of a database")
                .field("database", flush.database)
                .field("flushed through", flush.flushed_lsn)
                .field("records", flush.live_records)
                .field("added", files(added))
                .field("removed", files(removed))
        }
        ManifestEdit::Counters(counters) => Part::new(at, 0, "next numbers")
            .field("file", counters.next_file)
            .field("record", counters.next_lsn)
            .field("log position", counters.wal_position)
            .field("log sequence", counters.wal_sequence)
            .field("database", counters.next_database),
        ManifestEdit::LogSegment { position, file } => {
            Part::new(at, 0, "a log segment").field("position", position).field("file", file)
        }
    }
}

pub(super) fn section_part(section: &Section, damaged: u64) -> Part {
    Part::new(section.offset, section.bytes, format!("section {:?}", section.kind))
        .field("pages", section.page_count())
        .field("bytes of a page", section.page_bytes)
        .field("damaged", damaged)
}

pub(super) fn page_part(
    part: Part,
    segment: &SegmentDetail,
    section: &Section,
    bytes: &[u8],
) -> Part {
    if section.kind != SectionKind::IdPages {
        return part;
    }
    match IdPage::parse(bytes, segment.id_kind, "file", part.offset) {
        Ok(page) => {
            let id_of =
                |at: usize| page.get(at).map_or_else(|e| e.to_string(), |it| it.0.to_string());
            let (first, last) = (id_of(0), id_of(page.len() - 1));
            part.field("ids", page.len()).field("first", first).field("last", last)
        }
        Err(error) => part.damaged(error),
    }
}
