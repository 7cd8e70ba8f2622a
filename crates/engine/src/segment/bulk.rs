//! Bulk reads: consecutive vector pages in one transfer, past the cache, ahead of a scan.
//!
//! A device moves 256 KiB in little more time than one page, so a scan that needs most pages of a
//! stretch reads the whole of it; one that goes on reads twice that where memory allows it. The
//! pages are verified by the scan when it comes to them, all or none: whoever meets a failure reads
//! page by page instead, and learns there which page it is. On the I/O thread that would keep the
//! device waiting for its next transfer. So would a transfer that begins when its pages of the
//! checksum table are there: they are asked for with it, and needed when it is verified.
//!
//! Guarantees: what scans read ahead stays within its share of the memory limit (`ahead`); no byte
//! is given out that does not match its checksum; nothing is evicted: pages go into memory that
//! held none so far.
//! Cancel safety: a read that nobody waits for any more ends by itself and gives its memory back.
//! Tested through scans, in `tests/it/scans.rs`.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use event_listener::Event;
use nephrite_format::{Row, VectorLayout};
use nephrite_io::{Completed, Operation, Request, memory::AlignedBuf};

use super::{
    ahead::AheadMemory,
    pages::{Kind, verify_all},
    reader::{ReadContext, Segment},
    traffic::Loading,
};
use crate::error::Error;

/// Verified pages of one segment.
#[derive(Debug)]
pub(crate) struct BulkPages {
    first: u32,
    memory: AheadMemory,
}

impl BulkPages {
    /// Where the bytes of a row are, if its page is among these.
    pub(crate) fn bytes_of(&self, segment: &Segment, row: Row) -> Option<Range<usize>> {
        let (page, part) = segment.place_of(row);
        let start = page.checked_sub(self.first)? as usize * segment.page_bytes(Kind::Vector);
        let bytes = start + part.start..start + part.end;
        (bytes.end <= self.bytes().len()).then_some(bytes)
    }

    /// All of them.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.bytes()
    }

    fn pages(&self, segment: &Segment) -> std::slice::ChunksExact<'_, u8> {
        self.bytes().chunks_exact(segment.page_bytes(Kind::Vector))
    }

    /// Puts the pages into the cache as far as it has memory that was never used.
    pub(crate) fn fill_cache(&self, segment: &Segment, context: &ReadContext) {
        for (bytes, page) in self.pages(segment).zip(self.first..) {
            if !context.pager.has_unused_memory() {
                return;
            }
            let Some(mut load) = segment.vectors.start_load_for_scan(page) else { continue };
            let mut region = load.take_buffer();
            region.copy_from_slice(bytes);
            load.complete(region, Ok(()));
        }
    }

    /// The buffer, for the next read; none when it goes back to where it is kept for all scans.
    pub(crate) fn into_buffer(self) -> Option<AlignedBuf> {
        self.memory.into_buffer()
    }
}

/// A bulk read in flight, or its outcome.
#[derive(Debug)]
pub(crate) struct BulkRead {
    delivery: Arc<Delivery>,
    pages: Range<u32>,
}

#[derive(Debug, Default)]
struct Delivery {
    outcome: Mutex<Option<Result<AheadMemory, Error>>>,
    ready: Event,
}

impl Delivery {
    fn take(&self) -> Option<Result<AheadMemory, Error>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, outcome: Result<AheadMemory, Error>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.ready.notify(usize::MAX);
    }

    async fn wait(&self) -> Result<AheadMemory, Error> {
        loop {
            let listener = self.ready.listen();
            if let Some(outcome) = self.take() {
                return outcome;
            }
            listener.await;
        }
    }
}

impl BulkRead {
    /// The pages, once they are there and verified. The caller holds no file. A dropped call loses
    /// nothing; called once more after it has answered, it waits for ever.
    pub(crate) async fn pages(
        &self,
        segment: &Segment,
        context: &ReadContext,
    ) -> Result<BulkPages, Error> {
        let first = self.pages.start;
        let checks = segment.checks(context, Kind::Vector, self.pages.clone()).await?;
        let memory = self.delivery.wait().await?; // nothing waits between this and the answer
        let place = segment.identity.page(segment.offset(Kind::Vector, first));
        let page_bytes = segment.page_bytes(Kind::Vector);
        verify_all(memory.bytes(), page_bytes, place, checks, first, &segment.name)?;
        Ok(BulkPages { first, memory })
    }
}

impl Segment {
    /// Starts a read of consecutive vector pages; `spare` is used if it is of the right size, and
    /// huge pages if `many` more are to come. The caller holds no file. `None` when scans have read
    /// ahead as much as they may.
    pub(crate) async fn start_bulk_read(
        &self,
        context: &ReadContext,
        pages: Range<u32>,
        spare: Option<AlignedBuf>,
        many: bool,
    ) -> Result<Option<BulkRead>, Error> {
        let page_bytes = self.page_bytes(Kind::Vector);
        let bytes = pages.len() * page_bytes;
        let Some(memory) = context.ahead.take(bytes, spare, many)? else { return Ok(None) };
        self.read_into(context, pages, memory, Some(context.traffic.load())).await.map(Some)
    }

    /// As [`Self::start_bulk_read`], for a compaction: in its own memory, and readers count more.
    pub(crate) async fn start_compaction_read(
        &self,
        context: &ReadContext,
        pages: Range<u32>,
    ) -> Result<BulkRead, Error> {
        let memory = context.moves.take_anyway(pages.len() * self.page_bytes(Kind::Vector))?;
        self.read_into(context, pages, memory, None).await
    }

    async fn read_into(
        &self,
        context: &ReadContext,
        pages: Range<u32>,
        mut memory: AheadMemory,
        loading: Option<Loading>,
    ) -> Result<BulkRead, Error> {
        let file = context.files.get(self.meta.file).await?;
        let mut requests = self.table_loads(&context.traffic, &file, pages.clone());
        let offset = self.offset(Kind::Vector, pages.start);
        let delivery = Arc::new(Delivery::default());
        let told = Arc::clone(&delivery);
        let buffer = memory.lend();
        let on_complete = Box::new(move |done: Completed| {
            drop(loading);
            told.set(outcome(done, memory));
        });
        let operation = Operation::Read { offset, buffer };
        requests.push(Request { file, operation, on_complete });
        context.disk.submit(requests);
        Ok(BulkRead { delivery, pages })
    }

    /// Whether a vector page is in the cache: a hint.
    pub(crate) fn has_page(&self, page: u32) -> bool {
        self.vectors.contains(page)
    }
}

/// Vector pages of a bulk read of so many bytes.
pub(crate) fn bulk_pages(layout: &VectorLayout, bytes: usize) -> u32 {
    let pages = bytes / layout.page_bytes() as usize;
    u32::try_from(pages.max(1)).unwrap_or(u32::MAX)
}

fn outcome(done: Completed, mut memory: AheadMemory) -> Result<AheadMemory, Error> {
    // The ring keeps buffers of operations that a shutdown overtook.
    let is_back = done.buffer.map(|buffer| memory.put_back(buffer));
    done.result?;
    is_back.ok_or(Error::Closed)?;
    Ok(memory)
}
