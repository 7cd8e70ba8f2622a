//! Writing a segment anew: whole pages are copied, what the log gave back is appended.
//!
//! Pages that do not hold become zeros that no id names. The file is synced before it returns; its
//! directory entry is the caller's to sync. Nothing names the file before the new manifest does.

use std::collections::BTreeMap;

use nephrite_format::{
    BLOCK_BYTES, FileId, Id, Row,
    manifest::{DatabaseMeta, SegmentMeta},
};
use nephrite_io::{FileHandle, IoBuffer, OpenOptions};

use super::{
    part::Part,
    plan::Planner,
    raw::Raw,
    salvage::{Rows, Value},
};
use crate::{
    error::Error,
    log_file::aligned,
    segment::seal::{Identity, seal},
};

/// Bytes gathered before they are written.
const TRANSFER_BYTES: usize = 1 << 20;

/// Writes a part to the segment file `file`.
pub(super) async fn write_part(
    planner: &Planner<'_>,
    database: &DatabaseMeta,
    part: &Part,
    file: FileId,
) -> Result<SegmentMeta, Error> {
    let identity = Identity {
        store: planner.known.store,
        file,
        database: database.database,
        layout: database.layout,
        id_kind: database.id_kind,
    };
    let mut writer = Writer::create(planner, identity).await?;
    if part.entries.values().any(|value| matches!(value, Value::Row(_))) {
        writer.copy(planner, part).await?;
    }
    let appended = writer.append(planner, part).await?;
    let ids = part.entries.iter().map(|(id, value)| {
        let row = match value {
            Value::Tombstone => Row::TOMBSTONE,
            Value::Row(row) => Row::new(*row),
            Value::Log { .. } | Value::Bulk { .. } => {
                appended.get(id).copied().unwrap_or(Row::TOMBSTONE)
            }
        };
        (id.clone(), row)
    });
    let ids: Vec<(Id, Row)> = ids.collect();
    let mut meta = writer.finish(&ids, part).await?;
    (meta.level, meta.live_rows) = (part.level, part.live_rows);
    Ok(meta)
}

struct Writer<'a> {
    planner: &'a Planner<'a>,
    file: FileHandle,
    identity: Identity,
    /// Whole pages that are not written yet, and where they go.
    pending: Vec<u8>,
    offset: u64,
    /// The page that is being filled.
    page: Vec<u8>,
    rows: u32,
    checksums: Vec<u64>,
}

impl<'a> Writer<'a> {
    async fn create(planner: &'a Planner<'a>, identity: Identity) -> Result<Self, Error> {
        let path = planner.reader.paths.segment(identity.file);
        let options = OpenOptions::read_write().create_new();
        let file = planner.reader.disk.open(&path, options).await?;
        let page = vec![0; identity.layout.page_bytes() as usize];
        let (pending, checksums) = (Vec::new(), Vec::new());
        let offset = BLOCK_BYTES as u64;
        Ok(Self { planner, file, identity, pending, offset, page, rows: 0, checksums })
    }

    /// Takes over the rows of the damaged segment, in their places.
    async fn copy(&mut self, planner: &Planner<'_>, part: &Part) -> Result<(), Error> {
        let Some(source) = &part.source else { return Ok(()) };
        let Some(raw) = Raw::open(&planner.reader.disk, &source.found.path).await? else {
            let what = "it vanished during the repair; run the repair again";
            return Err(Error::corrupt(&*source.found.name, 0, what));
        };
        let layout = self.identity.layout;
        let page_bytes = layout.page_bytes() as usize;
        for (number, is_whole) in (0_u32..).zip(&source.whole_pages) {
            let pages = raw.pages(layout.page_offset(number), page_bytes, 1).await?;
            match pages.get(0).filter(|_| *is_whole) {
                Some(bytes) => self.page.copy_from_slice(bytes),
                None => self.page.fill(0),
            }
            let left = source.row_count - self.rows;
            self.rows += left.min(layout.rows_per_page());
            if left >= layout.rows_per_page() {
                self.close_page().await?;
            }
        }
        Ok(())
    }

    /// Appends the vectors that lie in the log or in files of bulk records.
    async fn append(
        &mut self,
        planner: &Planner<'_>,
        part: &Part,
    ) -> Result<BTreeMap<Id, Row>, Error> {
        let mut logged = Vec::new();
        let mut bulk = Vec::new();
        for (id, value) in &part.entries {
            match *value {
                Value::Log { file, offset } => logged.push((file, offset, id)),
                Value::Bulk { segment, row } => bulk.push((segment, row, id)),
                Value::Row(_) | Value::Tombstone => {}
            }
        }
        logged.sort_unstable();
        bulk.sort_unstable();
        let mut rows = BTreeMap::new();
        let vector_bytes = self.identity.layout.vector_bytes();
        let mut open: Option<(usize, Vec<u8>)> = None;
        for (file, offset, id) in logged {
            if open.as_ref().is_none_or(|(known, _)| *known != file) {
                open = Some((file, planner.log.content(planner.reader, file).await?));
            }
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let content = open.as_ref().map_or(&[][..], |(_, content)| content);
            let vector = start.checked_add(vector_bytes).and_then(|end| content.get(start..end));
            let vector = vector.ok_or_else(|| changed(&planner.log.files[file].found.name))?;
            rows.insert(id.clone(), self.push(vector).await?);
        }
        let mut open: Option<(FileId, Raw, Rows)> = None;
        for (segment, row, id) in bulk {
            if open.as_ref().is_none_or(|(known, ..)| *known != segment) {
                let found = planner.listing.segments.get(&segment);
                let path = found.map(|found| found.path.clone());
                let path = path.unwrap_or_else(|| planner.reader.paths.segment(segment));
                let raw = Raw::open(&planner.reader.disk, &path).await?;
                let raw = raw.ok_or_else(|| changed(&path.display().to_string()))?;
                open = Some((segment, raw, Rows::default()));
            }
            let Some((_, raw, reader)) = &mut open else { continue };
            let vector = reader.get(raw, &self.identity.layout, row).await?.map(<[u8]>::to_vec);
            let vector = vector.ok_or_else(|| changed(&segment.to_string()))?;
            rows.insert(id.clone(), self.push(&vector).await?);
        }
        Ok(rows)
    }

    async fn push(&mut self, vector: &[u8]) -> Result<Row, Error> {
        let layout = self.identity.layout;
        let row = Row::new(self.rows);
        let offset = layout.page_of(row).offset;
        self.page[offset..offset + vector.len()].copy_from_slice(vector);
        self.rows += 1;
        if self.rows.is_multiple_of(layout.rows_per_page()) {
            self.close_page().await?;
        }
        Ok(row)
    }

    async fn close_page(&mut self) -> Result<(), Error> {
        let number = u32::try_from(self.checksums.len()).expect("fewer pages than rows");
        self.checksums.push(self.identity.vector_page_checksum(number, &self.page));
        self.pending.extend_from_slice(&self.page);
        self.page.fill(0);
        if TRANSFER_BYTES <= self.pending.len() {
            self.write_pending().await?;
        }
        Ok(())
    }

    async fn write_pending(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut buffer = aligned(self.pending.len())?;
        buffer.copy_from_slice(&self.pending);
        self.write(self.offset, IoBuffer::Owned(buffer)).await?;
        self.offset += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    async fn write(&self, offset: u64, buffer: IoBuffer) -> Result<(), Error> {
        nephrite_io::write(&*self.planner.reader.disk, &self.file, offset, buffer).await?;
        Ok(())
    }

    async fn finish(mut self, ids: &[(Id, Row)], part: &Part) -> Result<SegmentMeta, Error> {
        if !self.rows.is_multiple_of(self.identity.layout.rows_per_page()) {
            self.close_page().await?;
        }
        self.write_pending().await?;
        let checksums = std::mem::take(&mut self.checksums);
        let tail = seal(&self.identity, ids, self.rows, checksums, part.max_lsn, part.order)?;
        self.write(tail.offset, IoBuffer::Owned(tail.bytes)).await?;
        self.write(0, IoBuffer::Owned(self.identity.header_page()?)).await?;
        nephrite_io::sync(&*self.planner.reader.disk, &self.file).await?;
        Ok(tail.meta)
    }
}

/// What was read a moment ago cannot be read any more.
fn changed(name: &str) -> Error {
    Error::corrupt(name, 0, "it changed during the repair; run the repair again")
}
