//! Id pages on their way to disk, in pieces while they are made: a flush or compaction holds a
//! piece of its id run, never all of it.
//!
//! Guarantee: pieces follow the rows in the file without a gap, and every page has its checksum.

use std::sync::Arc;

use nephrite_format::{BLOCK_BYTES, filter::IdFilter, id_run::IdRun, page_checksum};
use nephrite_io::IoBuffer;

use super::{
    seal::{Identity, TailPages},
    sink::SegmentSink,
};
use crate::{error::Error, log_file::aligned};

/// Finished id pages are written when they come to this: a buffer of that size is mapped.
pub(crate) const ID_BYTES: usize = 256 << 10;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct IdPageWriter<'a> {
    sink: &'a Arc<SegmentSink>,
    identity: &'a Identity,
    /// Where the first page goes.
    start: u64,
    written: u32,
    /// Of the pages of the rows, then of the id pages so far.
    checksums: Vec<u64>,
}

impl<'a> IdPageWriter<'a> {
    /// Behind so many rows, whose pages have these checksums.
    pub(crate) fn new(
        sink: &'a Arc<SegmentSink>,
        identity: &'a Identity,
        rows: u32,
        checksums: Vec<u64>,
    ) -> Self {
        let layout = &identity.layout;
        let start = layout.page_offset(layout.pages_for(rows));
        Self { sink, identity, start, written: 0, checksums }
    }

    /// Starts writing the next pages; waits only while too much is in flight.
    pub(crate) async fn write(&mut self, pages: &[u8]) -> Result<(), Error> {
        let offset = self.start + u64::from(self.written) * BLOCK_BYTES as u64;
        for (page, at) in pages.chunks_exact(BLOCK_BYTES).zip((offset..).step_by(BLOCK_BYTES)) {
            self.checksums.push(page_checksum(self.identity.page(at), page));
            self.written += 1;
        }
        let mut buffer = aligned(pages.len())?;
        buffer.copy_from_slice(pages);
        let file = self.sink.file().await?;
        self.sink.make_room(ID_BYTES).await?;
        self.sink.submit(&file, vec![(offset, IoBuffer::Owned(buffer))]);
        Ok(())
    }

    /// What is left to be written with the tail.
    pub(crate) fn finish(self, run: IdRun, filter: Option<IdFilter>) -> TailPages {
        let rest = u32::try_from(run.pages.len() / BLOCK_BYTES).expect("fewer pages than rows");
        let id_page_count = self.written + rest;
        let (fences, checksums) = (Some(run.fences), self.checksums);
        TailPages { id_pages: run.pages, id_page_count, fences, filter, checksums }
    }
}
