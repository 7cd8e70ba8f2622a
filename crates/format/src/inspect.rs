//! Inspection: what any file of ours holds, from its bytes alone, also when it is damaged.
//!
//! Parts are handed out in file order with what is wrong with them; reading goes on behind damage
//! where that is possible. Foreign files are refused. Nothing is held but one page or frame, and a
//! file's checksum table. Not here: opening files, and how the parts are shown.
//! Tested here: whole, damaged, cut and foreign bytes.

mod parts;
mod segment;

use self::parts::{edit_part, header_part};
use crate::checksum::PageIdentity;
use crate::cursor::u64_at;
use crate::frame::{FrameError, FrameKind, FrameView, decode_frame, peek_frame_bytes};
use crate::header::{FileDetail, FileHeader, MAGIC};
use crate::ids::{FileId, Generation, StoreId};
use crate::manifest::ManifestEdits;
use crate::trace::{TRACE_MAGIC, decode_block, decode_header};
use crate::wal::{WalRecord, WalRecords};
use crate::{BLOCK_BYTES, BLOCK_BYTES_U64};

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "all or the gist")]
pub enum Detail {
    /// Header, footer, sections, edits, and every damaged place.
    #[default]
    Summary,
    /// Every page and frame as well.
    Pages,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a plain record")]
pub struct Part {
    /// Where it begins.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// What it is.
    pub what: String,
    /// What it says, by name.
    pub fields: Vec<(&'static str, String)>,
    /// What is wrong with it.
    pub damage: Option<String>,
}

impl Part {
    fn new(offset: u64, bytes: u64, what: impl Into<String>) -> Self {
        Self { offset, bytes, what: what.into(), fields: Vec::new(), damage: None }
    }

    fn field(mut self, name: &'static str, value: impl ToString) -> Self {
        self.fields.push((name, value.to_string()));
        self
    }

    fn damaged(mut self, what: impl ToString) -> Self {
        self.damage = Some(what.to_string());
        self
    }
}

/// What a file is, as far as its bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inspected {
    /// A segment of the log.
    Log,
    /// A segment.
    Segment,
    /// A manifest.
    Manifest,
    /// A trace of page reads.
    Trace,
    /// No bytes at all, like the lock file.
    Empty,
    /// A header page of ours behind which nothing can be recognized.
    Unknown,
}

/// Reads a file's parts. `read` gives the bytes of a range, fewer where the file ends or cannot be
/// read; `visit` gets the parts. `None` for a file that is not ours.
pub fn inspect(
    file_bytes: u64,
    detail: Detail,
    read: &mut dyn FnMut(u64, usize) -> Vec<u8>,
    visit: &mut dyn FnMut(Part),
) -> Option<Inspected> {
    let mut walk = Walk { file_bytes, detail, read, visit };
    if file_bytes == 0 {
        (walk.visit)(Part::new(0, 0, "nothing: a lock file, or one that was never written"));
        return Some(Inspected::Empty);
    }
    let head = walk.block(0);
    if head.first_chunk() == Some(&TRACE_MAGIC) {
        walk.trace(&head);
        return Some(Inspected::Trace);
    }
    match FileHeader::decode(&head, "file") {
        Ok(header) => {
            (walk.visit)(header_part(&header));
            Some(walk.body(&header))
        }
        Err(error) => walk.damaged_header(&head, &error.to_string()),
    }
}

struct Walk<'a> {
    file_bytes: u64,
    detail: Detail,
    read: &'a mut dyn FnMut(u64, usize) -> Vec<u8>,
    visit: &'a mut dyn FnMut(Part),
}

impl Walk<'_> {
    fn block(&mut self, offset: u64) -> Vec<u8> {
        (self.read)(offset, BLOCK_BYTES)
    }

    fn body(&mut self, header: &FileHeader) -> Inspected {
        match header.detail {
            FileDetail::Wal { .. } => {
                self.frames(header.identity(0));
                Inspected::Log
            }
            FileDetail::Manifest { .. } => {
                self.frames(header.identity(0));
                Inspected::Manifest
            }
            FileDetail::Segment(segment) => {
                self.segment(header, &segment);
                Inspected::Segment
            }
        }
    }

    /// Goes on with what the damaged header still says, or with what lies where frames begin.
    fn damaged_header(&mut self, head: &[u8], error: &str) -> Option<Inspected> {
        let has_magic = head.first_chunk() == Some(&MAGIC);
        let first = self.block(BLOCK_BYTES_U64);
        let has_frame = peek_frame_bytes(&first).is_some();
        let last = self.file_bytes.checked_sub(BLOCK_BYTES_U64);
        let end = last.map(|last| self.block(last)).unwrap_or_default();
        let has_footer = end.starts_with(&crate::segment::FOOTER_MAGIC);
        if !has_magic && !has_frame && !has_footer {
            return None;
        }
        let part = Part::new(0, head.len() as u64, "header page").damaged(error);
        let Some(head) = head.first_chunk::<BLOCK_BYTES>() else {
            (self.visit)(part);
            return Some(Inspected::Unknown);
        };
        let mut store = [0; 16];
        store.copy_from_slice(&head[24..40]);
        let (file, generation) = (u64_at(head, 40), u64_at(head, 48));
        let part = part.field("store", StoreId::new(store)).field("file", file);
        (self.visit)(part.field("generation", generation));
        let (file, generation) = (FileId::new(file), Generation::new(generation));
        let place = PageIdentity::new(StoreId::new(store), file, generation, 0);
        if has_frame {
            self.frames(place);
            return Some(if first[12] == 1 { Inspected::Log } else { Inspected::Manifest });
        }
        if has_footer {
            let (offset, bytes) = (last.unwrap_or(0), BLOCK_BYTES_U64);
            let what = "not read: the layout is in the header page";
            (self.visit)(Part::new(offset, bytes, "footer page").field("content", what));
            return Some(Inspected::Segment);
        }
        Some(Inspected::Unknown)
    }

    fn frames(&mut self, place: PageIdentity) {
        let (mut at, mut blank, mut stale) = (BLOCK_BYTES_U64, 0_u64, 0_u64);
        let mut frames = 0_u64;
        while at < self.file_bytes {
            let mut bytes = self.block(at);
            if let Some(len) = peek_frame_bytes(&bytes).filter(|len| BLOCK_BYTES < *len) {
                let left = usize::try_from(self.file_bytes - at).unwrap_or(usize::MAX);
                bytes = (self.read)(at, len.min(left));
            }
            let len = match decode_frame(&bytes, place.at(at)) {
                Ok(frame) => {
                    frames += 1;
                    self.frame(&frame, at);
                    frame.total_bytes as u64
                }
                Err(FrameError::Blank) => {
                    blank += 1;
                    BLOCK_BYTES_U64
                }
                Err(FrameError::Stale { .. }) => {
                    stale += 1;
                    BLOCK_BYTES_U64
                }
                Err(error) => {
                    let plausible = peek_frame_bytes(&bytes).is_some();
                    if plausible || self.detail == Detail::Pages {
                        let what = if plausible { "frame" } else { "block" };
                        (self.visit)(Part::new(at, BLOCK_BYTES_U64, what).damaged(error));
                    }
                    BLOCK_BYTES_U64
                }
            };
            at += len;
        }
        let part =
            Part::new(BLOCK_BYTES_U64, self.file_bytes.saturating_sub(BLOCK_BYTES_U64), "sum");
        let part = part.field("frames", frames).field("blank blocks", blank);
        (self.visit)(part.field("frames of earlier lives", stale));
    }

    fn frame(&mut self, frame: &FrameView<'_>, at: u64) {
        let header = &frame.header;
        let is_log = header.kind == FrameKind::WalRecords;
        let part = Part::new(at, frame.total_bytes as u64, format!("frame of {:?}", header.kind))
            .field("sequence", header.sequence)
            .field("records", header.record_count)
            .field("first record", header.first_lsn)
            .field("durable through", header.durable_through);
        if !is_log || self.detail == Detail::Pages {
            (self.visit)(part);
        }
        if is_log {
            self.records(frame, at);
        } else {
            self.edits(frame, at);
        }
    }

    fn records(&mut self, frame: &FrameView<'_>, at: u64) {
        let lsns = frame.header.first_lsn.get()..;
        let records = WalRecords::new(frame.payload, frame.header.record_count, "file", at);
        for (record, lsn) in records.zip(lsns) {
            let part = Part::new(at, 0, "record").field("number", lsn);
            match record {
                Err(error) => (self.visit)(part.damaged(error)),
                Ok(_) if self.detail == Detail::Summary => {}
                Ok(WalRecord::Operations(record)) => (self.visit)(
                    part.field("database", record.database)
                        .field("operations", record.count())
                        .field("dimension", record.dimension),
                ),
                Ok(WalRecord::Bulk(record)) => (self.visit)(
                    part.field("database", record.database)
                        .field("segment", record.segment)
                        .field("first row", record.first_row)
                        .field("rows", record.row_count),
                ),
            }
        }
    }

    fn edits(&mut self, frame: &FrameView<'_>, at: u64) {
        for edit in ManifestEdits::new(frame.payload, frame.header.record_count, "file", at) {
            (self.visit)(match edit {
                Ok(edit) => edit_part(&edit, at),
                Err(error) => Part::new(at, 0, "edit").damaged(error),
            });
        }
    }

    fn trace(&mut self, head: &[u8]) {
        let part = Part::new(0, BLOCK_BYTES_U64, "header page of a trace");
        let store = match decode_header(head, "file") {
            Ok(store) => store,
            Err(error) => return (self.visit)(part.damaged(error)),
        };
        (self.visit)(part.field("store", store));
        let (mut at, mut count, mut lost) = (BLOCK_BYTES_U64, 0_usize, 0_u64);
        while at < self.file_bytes {
            let bytes = self.block(at);
            let mut reads = Vec::new();
            match decode_block(&bytes, store, at, "file", &mut reads) {
                Ok(dropped) => {
                    count += reads.len();
                    lost += u64::from(dropped);
                    if self.detail == Detail::Pages {
                        let part = Part::new(at, BLOCK_BYTES_U64, "block of reads");
                        (self.visit)(
                            part.field("reads", reads.len()).field("lost before", dropped),
                        );
                    }
                }
                Err(error) => {
                    (self.visit)(Part::new(at, BLOCK_BYTES_U64, "block of reads").damaged(error));
                }
            }
            at += BLOCK_BYTES_U64;
        }
        let part =
            Part::new(BLOCK_BYTES_U64, self.file_bytes.saturating_sub(BLOCK_BYTES_U64), "sum");
        (self.visit)(part.field("reads", count).field("lost", lost));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameHeader, build_frame};
    use crate::ids::{FrameSequence, Lsn};
    use crate::manifest::ManifestEdit;

    /// A manifest with three frames of edits.
    fn manifest() -> Vec<u8> {
        let header = FileHeader {
            store: StoreId::new([3; 16]),
            file: FileId::new(2),
            generation: Generation::new(0),
            detail: FileDetail::Manifest { capacity_bytes: 6 * BLOCK_BYTES_U64 },
        };
        let mut content = header.encode().to_vec();
        for sequence in 1..4 {
            let edit = ManifestEdit::LogSegment { position: sequence, file: FileId::new(9) };
            let (payload, count) = ManifestEdit::encode_all(&[edit]);
            let frame = FrameHeader {
                kind: FrameKind::ManifestEdits,
                payload_bytes: 0,
                record_count: count,
                sequence: FrameSequence::new(sequence),
                first_lsn: Lsn::new(0),
                durable_through: FrameSequence::new(sequence - 1),
            };
            let place = header.identity(content.len() as u64);
            content.extend(build_frame(place, &frame, &payload));
        }
        content.resize(6 * BLOCK_BYTES, 0);
        content
    }

    fn parts(content: &[u8], detail: Detail) -> (Option<Inspected>, Vec<Part>) {
        let mut parts = Vec::new();
        let mut read = |offset: u64, len: usize| {
            let start = usize::try_from(offset).unwrap().min(content.len());
            content[start..content.len().min(start.saturating_add(len))].to_vec()
        };
        let bytes = content.len() as u64;
        let found = inspect(bytes, detail, &mut read, &mut |part| parts.push(part));
        (found, parts)
    }

    #[test]
    fn a_whole_manifest_shows_its_edits_and_no_damage() {
        let (found, parts) = parts(&manifest(), Detail::Summary);
        assert_eq!(found, Some(Inspected::Manifest));
        assert!(parts.iter().all(|part| part.damage.is_none()), "{parts:?}");
        assert_eq!(parts.iter().filter(|part| part.what == "a log segment").count(), 3);
    }

    #[test]
    fn a_damaged_frame_is_named_with_its_offset_and_what_follows_is_shown() {
        let mut content = manifest();
        content[2 * BLOCK_BYTES + 70] ^= 1;
        let (_, parts) = parts(&content, Detail::Summary);
        let damaged: Vec<u64> =
            parts.iter().filter(|it| it.damage.is_some()).map(|it| it.offset).collect();
        assert_eq!(damaged, [2 * BLOCK_BYTES_U64]);
        assert_eq!(parts.iter().filter(|part| part.what == "a log segment").count(), 2);
    }

    #[test]
    fn a_damaged_header_is_named_and_the_frames_behind_it_are_shown() {
        let mut content = manifest();
        content[300] ^= 1;
        let (found, parts) = parts(&content, Detail::Summary);
        assert_eq!(found, Some(Inspected::Manifest));
        assert!(parts[0].damage.is_some());
        assert_eq!(parts.iter().filter(|part| part.what == "a log segment").count(), 3);
    }

    #[test]
    fn foreign_bytes_are_refused_and_an_empty_file_is_not() {
        assert_eq!(parts(b"#!/bin/sh\n", Detail::Pages).0, None);
        assert_eq!(parts(&[0; 9000], Detail::Pages).0, None);
        assert_eq!(parts(&[], Detail::Pages).0, Some(Inspected::Empty));
    }

    #[test]
    fn no_change_and_no_cut_makes_it_panic() {
        let content = manifest();
        let step = if cfg!(miri) { 9001 } else { 37 };
        for offset in (0..content.len()).step_by(step) {
            let mut changed = content.clone();
            changed[offset] ^= 1 << (offset % 8);
            let _ = parts(&changed, Detail::Pages);
            let _ = parts(&content[..offset], Detail::Pages);
        }
    }
}
