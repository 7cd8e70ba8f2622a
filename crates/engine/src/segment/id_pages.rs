//! Id pages on their way to disk, in pieces while they are made: a flush or compaction holds a
//! piece of its id run, never all of it.
//!
//! Guarantees: pieces follow the rows in the file without a gap, and every page has its checksum.
//! The piece that is being filled is counted as work; the few pages before it stay with the
//! builder.

use std::sync::Arc;

use nephrite_format::{
    BLOCK_BYTES,
    id_run::{IdRun, IdRunBuilder},
    page_checksum,
};
use nephrite_io::{IoBuffer, memory::AlignedBuf};

use super::{
    filter_memory::Filter,
    seal::{Identity, TailPages},
    sink::SegmentSink,
    work_memory::Held,
};
use crate::{error::Error, log_file::aligned};

/// Finished id pages are written when they come to this.
const ID_BYTES: usize = 256 << 10;
/// Pages that are finished are taken over when they come to this: what holds them until then, and
/// all there is of a short run, is a small vector.
const TAKEN_BYTES: usize = 32 << 10;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct IdPageWriter<'a> {
    sink: &'a Arc<SegmentSink>,
    identity: &'a Identity,
    /// Where the first page goes.
    start: u64,
    written: u32,
    piece: Option<Piece>,
    /// Of the pages of the rows, then of the id pages so far.
    checksums: Vec<u64>,
}

/// Pages that are not in the file yet.
#[derive(Debug)]
pub(crate) struct Piece {
    buffer: AlignedBuf,
    filled: usize,
    _held: Held,
}

impl Piece {
    pub(crate) fn pages(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }
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
        Self { sink, identity, start, written: 0, piece: None, checksums }
    }

    /// Takes over the builder's finished pages, if they are worth it, and starts writing pieces
    /// that are full; waits only while too much is in flight. Gives the bytes whose writing began.
    pub(crate) async fn take(&mut self, builder: &mut IdRunBuilder) -> Result<u64, Error> {
        if builder.finished_bytes() < TAKEN_BYTES {
            return Ok(0);
        }
        let mut begun = 0;
        let pages = builder.drain_pages();
        let mut rest = pages.as_slice();
        while !rest.is_empty() {
            let piece = self.piece()?;
            let (now, later) = rest.split_at(rest.len().min(ID_BYTES - piece.filled));
            piece.buffer[piece.filled..piece.filled + now.len()].copy_from_slice(now);
            piece.filled += now.len();
            rest = later;
            if piece.filled == ID_BYTES {
                begun += self.write().await?;
            }
        }
        Ok(begun)
    }

    fn piece(&mut self) -> Result<&mut Piece, Error> {
        let piece = match self.piece.take() {
            Some(piece) => piece,
            None => {
                let held = self.sink.work().hold(ID_BYTES as u64);
                Piece { buffer: aligned(ID_BYTES)?, filled: 0, _held: held }
            }
        };
        Ok(self.piece.insert(piece))
    }

    /// Starts writing the piece, which is full.
    async fn write(&mut self) -> Result<u64, Error> {
        let Some(piece) = self.piece.take() else { return Ok(0) };
        let offset = self.start + u64::from(self.written) * BLOCK_BYTES as u64;
        let pages = piece.buffer.chunks_exact(BLOCK_BYTES);
        for (page, at) in pages.zip((offset..).step_by(BLOCK_BYTES)) {
            self.checksums.push(page_checksum(self.identity.page(at), page));
            self.written += 1;
        }
        let file = self.sink.file().await?;
        self.sink.make_room(ID_BYTES).await?;
        self.sink.submit(&file, vec![(offset, IoBuffer::Owned(piece.buffer))]);
        Ok(ID_BYTES as u64)
    }

    /// What is left to be written with the tail.
    pub(crate) fn finish(self, run: IdRun, filter: Option<Filter>) -> TailPages {
        let begun = self.piece.as_ref().map_or(0, |piece| piece.filled);
        let rest = u32::try_from((begun + run.pages.len()) / BLOCK_BYTES);
        let id_page_count = self.written + rest.expect("fewer pages than rows");
        TailPages {
            id_piece: self.piece,
            id_pages: run.pages,
            id_page_count,
            fences: Some(run.fences),
            filter,
            checksums: self.checksums,
        }
    }
}
