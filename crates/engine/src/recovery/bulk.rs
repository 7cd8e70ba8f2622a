//! Rows of bulk records: they lie in a segment file that was not sealed when the store stopped.

use std::sync::Arc;

use nephrite_format::{
    DatabaseId, FileId, Generation, Lsn, PageIdentity, Row, RowsChecksum, VectorLayout,
    wal::BulkRecord,
};
use nephrite_io::{Disk, IoBuffer};

use super::Source;
use crate::{
    error::Error,
    log_file,
    paths::{StorePaths, segment_name},
    planted::planted,
};

/// The part of a bulk record that checking its rows needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bulk {
    database: DatabaseId,
    segment: FileId,
    first_row: Row,
    row_count: u32,
    rows_checksum: u64,
}

impl Bulk {
    pub(super) fn of(record: &BulkRecord<'_>) -> Self {
        Self {
            database: record.database,
            segment: record.segment,
            first_row: record.first_row,
            row_count: record.row_count,
            rows_checksum: record.rows_checksum,
        }
    }
}

/// What became of the rows of a bulk record.
pub(super) enum Checked {
    /// They are all in their segment file.
    Whole,
    /// Nobody asks for them: they are flushed, or their database is gone.
    NotNeeded,
    /// Why they are not there.
    Missing(String),
}

/// Looks for the rows of a bulk record in their segment file.
pub(super) async fn check_bulk(
    source: Source<'_>,
    lsn: Lsn,
    bulk: &Bulk,
) -> Result<Checked, Error> {
    let Some(record) = source.manifest.databases.get(&bulk.database) else {
        return Ok(Checked::NotNeeded);
    };
    if lsn <= record.flushed_lsn {
        return Ok(Checked::NotNeeded);
    }
    let layout = record.meta.layout;
    let mut checksum = RowsChecksum::new(PageIdentity::new(
        source.store,
        bulk.segment,
        Generation::new(0),
        layout.row_offset(bulk.first_row),
    ));
    let read = read_rows(source.disk, source.paths, &layout, bulk, |row| checksum.update(row));
    match read.await? {
        Err(what) => Ok(Checked::Missing(what)),
        Ok(()) if checksum.finish() == bulk.rows_checksum => Ok(Checked::Whole),
        Ok(()) if planted("bulk_rows_unchecked") => Ok(Checked::Whole),
        Ok(()) => {
            let name = segment_name(bulk.segment);
            let what = format!("the rows of a bulk record in {name} do not match their checksum");
            Ok(Checked::Missing(what))
        }
    }
}

/// Gives the rows of a bulk record in order; the inner error says why they cannot be read.
pub(super) async fn read_rows(
    disk: &Arc<dyn Disk>,
    paths: &StorePaths,
    layout: &VectorLayout,
    bulk: &Bulk,
    mut visit: impl FnMut(&[u8]),
) -> Result<Result<(), String>, Error> {
    let name = segment_name(bulk.segment);
    let file =
        match disk.open(&paths.segment(bulk.segment), nephrite_io::OpenOptions::read_write()).await
        {
            Ok(file) => file,
            Err(error) if error.kind() == nephrite_io::IoErrorKind::NotFound => {
                return Ok(Err(format!("{name}, which a bulk record names, does not exist")));
            }
            Err(error) => return Err(error.into()),
        };
    // The rows may be only in the operating system's memory so far; frames written from now on say
    // that what came before them is on disk.
    nephrite_io::sync(&**disk, &file).await?;
    let bytes = disk.file_len(&file).await?;
    let last_row = Row::new(bulk.first_row.get() + bulk.row_count - 1);
    let (first_page, last_page) =
        (layout.page_of(bulk.first_row).page, layout.page_of(last_row).page);
    if bytes < layout.page_offset(last_page + 1) {
        return Ok(Err(format!("{name} ends before the rows of a bulk record")));
    }
    let pages_at_once = ((1 << 20) / layout.page_bytes()).max(1);
    let mut row = bulk.first_row.get();
    let mut page = first_page;
    while page <= last_page {
        let count = pages_at_once.min(last_page - page + 1);
        let len = count as usize * layout.page_bytes() as usize;
        let buffer = IoBuffer::Owned(log_file::aligned(len)?);
        let buffer = nephrite_io::read(&**disk, &file, layout.page_offset(page), buffer).await?;
        while row <= last_row.get() && layout.page_of(Row::new(row)).page < page + count {
            let place = layout.page_of(Row::new(row));
            let start = (place.page - page) as usize * layout.page_bytes() as usize + place.offset;
            visit(&buffer.as_slice()[start..start + layout.vector_bytes()]);
            row += 1;
        }
        page += count;
    }
    Ok(Ok(()))
}
