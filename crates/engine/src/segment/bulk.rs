//! Bulk reads: consecutive vector pages in one transfer, past the cache, ahead of a scan.
//!
//! A device moves 256 KiB in little more time than one page, so a scan that needs most pages of a
//! stretch reads the whole of it. The pages are verified on the I/O thread, all or none: whoever
//! meets a failure reads page by page instead, and learns there which page it is.
//!
//! Guarantees: what scans read ahead stays within its share of the memory limit, over all scans
//! ([`AheadRoom`]), and is counted in the work memory; no byte is given out that does not match
//! its checksum; nothing is evicted: pages go into memory that held none so far.
//! Cancel safety: a read that nobody waits for any more ends by itself and gives its memory back.
//! Tested through scans, in `tests/it/scans.rs`.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use event_listener::Event;
use nephrite_format::Row;
use nephrite_io::{Completed, IoBuffer, Operation, Request, memory::AlignedBuf};

use super::{
    pages::{Kind, verify_all},
    reader::{ReadContext, Segment},
    traffic::PIECE_BYTES,
    work_memory::{Held, WorkMemory},
};
use crate::{error::Error, log_file::aligned};

/// What all scans together may read ahead.
#[derive(Debug)]
pub(crate) struct AheadRoom {
    work: Arc<WorkMemory>,
    most: u64,
    taken: AtomicU64,
}

/// Some of it, counted until it is dropped.
#[derive(Debug)]
struct Ahead {
    room: Arc<AheadRoom>,
    bytes: u64,
    _held: Held,
}

impl AheadRoom {
    pub(crate) fn new(work: &Arc<WorkMemory>, most: u64) -> Self {
        Self { work: Arc::clone(work), most, taken: AtomicU64::new(0) }
    }

    /// Whether there is room for another bulk read: a hint.
    pub(crate) fn is_there(&self) -> bool {
        self.taken.load(Ordering::Relaxed) + PIECE_BYTES as u64 <= self.most // as in `try_take`
    }

    fn try_take(self: &Arc<Self>, bytes: u64) -> Option<Ahead> {
        let more = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.most);
        // Relaxed: a gauge that guards no memory.
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Ahead { room: Arc::clone(self), bytes, _held: self.work.hold(bytes) })
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Ordering::Relaxed); // as in `try_take`
    }
}

/// Verified pages of one segment.
#[derive(Debug)]
pub(crate) struct BulkPages {
    first: u32,
    buffer: IoBuffer,
    _ahead: Ahead,
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
        self.buffer.as_slice()
    }

    fn pages(&self, segment: &Segment) -> std::slice::ChunksExact<'_, u8> {
        self.buffer.as_slice().chunks_exact(segment.page_bytes(Kind::Vector))
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

    /// The buffer, for the next read.
    pub(crate) fn into_buffer(self) -> Option<AlignedBuf> {
        match self.buffer {
            IoBuffer::Owned(buffer) => Some(buffer),
            _ => None,
        }
    }
}

/// A bulk read in flight, or its outcome.
#[derive(Debug)]
pub(crate) struct BulkRead(Arc<Delivery>);

#[derive(Debug, Default)]
struct Delivery {
    outcome: Mutex<Option<Result<BulkPages, Error>>>,
    ready: Event,
}

impl Delivery {
    fn take(&self) -> Option<Result<BulkPages, Error>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, outcome: Result<BulkPages, Error>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.ready.notify(usize::MAX);
    }
}

impl BulkRead {
    /// The pages. Called once more after it has answered, it waits for ever.
    pub(crate) async fn pages(&self) -> Result<BulkPages, Error> {
        loop {
            let listener = self.0.ready.listen();
            if let Some(outcome) = self.0.take() {
                return outcome;
            }
            listener.await;
        }
    }
}

impl Segment {
    /// Starts a read of consecutive vector pages; `spare` is used if it is of the right size. The
    /// caller holds no file. `None` when scans have read ahead as much as they may.
    pub(crate) async fn start_bulk_read(
        &self,
        context: &ReadContext,
        pages: Range<u32>,
        spare: Option<AlignedBuf>,
    ) -> Result<Option<BulkRead>, Error> {
        let page_bytes = self.page_bytes(Kind::Vector);
        let bytes = pages.len() * page_bytes;
        let Some(ahead) = context.ahead.try_take(bytes as u64) else { return Ok(None) };
        let checks = self.checks(context, Kind::Vector, pages.clone()).await?;
        let buffer = match spare.filter(|spare| spare.len() == bytes) {
            Some(buffer) => buffer,
            None => aligned(bytes)?,
        };
        let file = context.files.get(self.meta.file).await?;
        let offset = self.offset(Kind::Vector, pages.start);
        let delivery = Arc::new(Delivery::default());
        let told = Arc::clone(&delivery);
        let (place, name) = (self.identity.page(offset), Arc::clone(&self.name));
        let loading = context.traffic.load();
        let on_complete = Box::new(move |done: Completed| {
            drop(loading);
            let all_match =
                |bytes: &[u8]| verify_all(bytes, page_bytes, place, checks, pages.start, &name);
            told.set(outcome(done, pages.start, ahead, all_match));
        });
        let operation = Operation::Read { offset, buffer: IoBuffer::Owned(buffer) };
        context.disk.submit(vec![Request { file, operation, on_complete }]);
        Ok(Some(BulkRead(delivery)))
    }

    /// Whether a vector page is in the cache: a hint.
    pub(crate) fn has_page(&self, page: u32) -> bool {
        self.vectors.contains(page)
    }

    /// Vector pages of a bulk read: as many as make 256 KiB.
    pub(crate) fn bulk_pages(&self) -> u32 {
        let pages = PIECE_BYTES / self.page_bytes(Kind::Vector);
        u32::try_from(pages.max(1)).expect("at most 64")
    }
}

fn outcome(
    done: Completed,
    first: u32,
    ahead: Ahead,
    verify: impl FnOnce(&[u8]) -> Result<(), Error>,
) -> Result<BulkPages, Error> {
    done.result?;
    // The ring keeps buffers of operations that a shutdown overtook.
    let buffer = done.buffer.ok_or(Error::Closed)?;
    verify(buffer.as_slice())?;
    Ok(BulkPages { first, buffer, _ahead: ahead })
}
