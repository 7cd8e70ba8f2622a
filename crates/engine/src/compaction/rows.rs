//! The rows of a compaction's output: read ahead, copied, written behind.
//!
//! Pieces of [`PIECE_BYTES`] with rows to keep are read in the order in which they lie, some of
//! them ahead: more while somebody waits for the compaction. The rows that live on are laid out in
//! pieces of the same size, and the sink says how many of those may be in flight. What is read and
//! what is written lies in huge pages where the memory limit has room for them: a device is told of
//! each page of a transfer.
//!
//! Memory: the room for moves (`segment/ahead`); beyond it a second huge page, and then as many
//! buffers, counted all the same:
//! of the pieces read ahead, the one copied, the one gathered, and what the sink has in flight.
//! Not here: which rows live on, ids, the budget (`pace`).

use std::{collections::VecDeque, ops::Range, sync::Arc};

use nephrite_format::{Row, VectorLayout};

use super::{
    pace::Pace,
    rewrite::{Plan, Survey},
};
use crate::{
    core::Core,
    error::Error,
    segment::{
        AheadMemory, AheadRoom, BulkRead, PIECE_BYTES, row_set::RowSet, seal::Identity,
        sink::SegmentSink,
    },
};

/// Pieces that are read ahead.
const AHEAD: usize = 2;
/// The same while somebody waits.
const AHEAD_PRESSED: usize = 4;

/// Pages read or written at once: a piece, or the one page that is larger.
fn pages_at_once(layout: &VectorLayout) -> u32 {
    (PIECE_BYTES / layout.page_bytes() as usize).max(1).try_into().expect("at most 64 pages")
}

/// Second pass: copies the rows that live on. Gives the checksums of the output's pages.
pub(super) async fn copy_rows(
    core: &Core,
    sink: &Arc<SegmentSink>,
    identity: Identity,
    plan: &Plan,
    survey: &Survey,
    pace: &mut Pace<'_>,
) -> Result<Vec<u64>, Error> {
    let layout = identity.layout;
    let mut writer = RowWriter::new(sink, &core.read.moves, identity);
    let mut ahead: VecDeque<(Piece, BulkRead)> = VecDeque::with_capacity(AHEAD_PRESSED);
    let mut next = Piece::first(plan, survey, &layout);
    loop {
        let most = if pace.is_pressed() { AHEAD_PRESSED } else { AHEAD };
        while let Some(piece) = next
            && ahead.len() < most
        {
            let segment = &plan.inputs[piece.input];
            let read = segment.start_compaction_read(&core.read, piece.pages()).await?;
            ahead.push_back((piece, read));
            next = piece.next(plan, survey, &layout);
        }
        let Some((piece, reading)) = ahead.pop_front() else { break };
        let pages = reading.pages(&plan.inputs[piece.input], &core.read).await?;
        pace.pay(pages.bytes().len() as u64).await?;
        for start in piece.row_starts(&survey.live[piece.input], &layout) {
            writer.push(&pages.bytes()[start..start + layout.vector_bytes()], pace).await?;
        }
    }
    writer.finish(pace).await
}

/// Pages of an input that are read at once.
#[derive(Clone, Copy, Debug)]
struct Piece {
    input: usize,
    first_page: u32,
    page_count: u32,
}

impl Piece {
    /// The first one with rows to keep; the oldest input comes first.
    fn first(plan: &Plan, survey: &Survey, layout: &VectorLayout) -> Option<Self> {
        Self::find(plan, survey, layout, plan.inputs.len().checked_sub(1)?, 0)
    }

    fn next(self, plan: &Plan, survey: &Survey, layout: &VectorLayout) -> Option<Self> {
        Self::find(plan, survey, layout, self.input, self.first_page + self.page_count)
    }

    fn find(
        plan: &Plan,
        survey: &Survey,
        layout: &VectorLayout,
        input: usize,
        mut from: u32,
    ) -> Option<Self> {
        for input in (0..=input).rev() {
            let (pages, live) = (plan.inputs[input].vector_pages(), &survey.live[input]);
            let start = from * layout.rows_per_page();
            if let Some(row) = live.rows_within(start, u32::MAX).next() {
                let first_page = layout.page_of(row).page;
                let page_count = pages_at_once(layout).min(pages - first_page);
                return Some(Self { input, first_page, page_count });
            }
            from = 0;
        }
        None
    }

    fn pages(self) -> Range<u32> {
        self.first_page..self.first_page + self.page_count
    }

    /// Where the rows to keep begin in the bytes of the piece.
    fn row_starts(self, live: &RowSet, layout: &VectorLayout) -> impl Iterator<Item = usize> {
        let start = self.first_page * layout.rows_per_page();
        let end = start.saturating_add(self.page_count * layout.rows_per_page());
        live.rows_within(start, end).map(move |row| {
            let place = layout.page_of(row);
            (place.page - self.first_page) as usize * layout.page_bytes() as usize + place.offset
        })
    }
}

/// Lays rows out in pages and writes them in large pieces.
struct RowWriter<'a> {
    sink: &'a Arc<SegmentSink>,
    room: &'a Arc<AheadRoom>,
    identity: Identity,
    buffer: Option<AheadMemory>,
    /// First page of the buffer.
    first_page: u32,
    rows: u32,
    checksums: Vec<u64>,
}

impl<'a> RowWriter<'a> {
    fn new(sink: &'a Arc<SegmentSink>, room: &'a Arc<AheadRoom>, identity: Identity) -> Self {
        Self { sink, room, identity, buffer: None, first_page: 0, rows: 0, checksums: Vec::new() }
    }

    fn pages_per_buffer(&self) -> u32 {
        pages_at_once(&self.identity.layout)
    }

    async fn push(&mut self, row: &[u8], pace: &mut Pace<'_>) -> Result<(), Error> {
        let place = self.identity.layout.page_of(Row::new(self.rows));
        if self.first_page + self.pages_per_buffer() <= place.page {
            self.write(self.pages_per_buffer(), pace).await?;
            self.first_page = place.page;
        }
        let page_bytes = self.identity.layout.page_bytes() as usize;
        let buffer = match &mut self.buffer {
            Some(buffer) => buffer,
            None => {
                let bytes = self.pages_per_buffer() as usize * page_bytes;
                self.buffer.insert(self.room.take_anyway(bytes)?)
            }
        };
        let layout = &self.identity.layout;
        let start = (place.page - self.first_page) as usize * page_bytes;
        let page = &mut buffer.bytes_mut()[start..start + page_bytes];
        let end = place.offset + row.len();
        page[place.offset..end].copy_from_slice(row);
        self.rows += 1;
        // The memory has been used before, and not all of a page is rows.
        let next = match self.rows % layout.rows_per_page() {
            0 => page_bytes,
            _ => place.offset + layout.stride_bytes() as usize,
        };
        page[end..next].fill(0);
        Ok(())
    }

    async fn write(&mut self, pages: u32, pace: &mut Pace<'_>) -> Result<(), Error> {
        let Some(buffer) = self.buffer.take() else { return Ok(()) };
        let layout = &self.identity.layout;
        let len = pages as usize * layout.page_bytes() as usize;
        let bytes = buffer.bytes()[..len].chunks_exact(layout.page_bytes() as usize);
        for (page, number) in bytes.zip(self.first_page..) {
            self.checksums.push(self.identity.vector_page_checksum(number, page));
        }
        let offset = layout.page_offset(self.first_page);
        let file = self.sink.file().await?;
        self.sink.make_room(len).await?;
        self.sink.submit_piece(&file, offset, buffer, len);
        drop(file); // nobody waits while holding a file
        pace.pay(len as u64).await
    }

    /// Writes what is left; gives the checksums of all pages.
    async fn finish(mut self, pace: &mut Pace<'_>) -> Result<Vec<u64>, Error> {
        let layout = &self.identity.layout;
        let (pages, next) = (layout.pages_for(self.rows), layout.page_of(Row::new(self.rows)));
        if let Some(buffer) = &mut self.buffer
            && 0 < next.offset
        {
            let page_bytes = layout.page_bytes() as usize;
            let start = (next.page - self.first_page) as usize * page_bytes;
            buffer.bytes_mut()[start + next.offset..start + page_bytes].fill(0);
        }
        self.write(pages - self.first_page.min(pages), pace).await?;
        Ok(self.checksums)
    }
}
