//! Memtable: the rows and ids a database received since its last flush.
//!
//! Rows are appended in order of arrival into chunks that are laid out exactly as the pages of a
//! segment, so a flush writes them as they are. Large writes go to the segment file while the
//! memtable still fills (write-behind), and rows of bulk batches are made durable there before
//! the log record that names them.
//!
//! Guarantees: a row's bytes never change once its index entry exists; a reader that found a
//! version in the index may read the row without a lock. Only one thread appends at a time: the
//! holder of the database's write lock. Readers take the index lock shared and briefly.
//! Lock order: database write lock, then `index`, then `tail`, then `chunks`, then `written`.
//! Not here: which versions a reader may see (the database's visible sequence number).

mod column;
mod id_table;
mod index;
mod keys;
mod listing;
mod memory;
mod order;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use nephrite_format::{BLOCK_BYTES, Id, IdKind, IdRef, Lsn, Row, VectorLayout, vector::encode_f32};
use nephrite_io::{
    IoBuffer,
    memory::{Appender, Chunk, ChunkPool, HUGE_PAGE_BYTES},
};

pub(crate) use self::{
    index::{MemIndex, Version},
    listing::{Listing, Place},
    memory::MemtableMemory,
};
use crate::{
    error::Error,
    planted::planted,
    segment::{
        sink::SegmentSink,
        traffic::{PIECE_BYTES, Pace},
    },
};

/// Largest chunk: a huge page, mapped with one page fault where pages of 4 KiB take 512. On these
/// and on clearing pages a bulk load spent more time than on copying; so large chunks come from a
/// pool, too.
const CHUNK_BYTES_MAX: usize = HUGE_PAGE_BYTES;
/// Where a memtable is expected to fill up: this part of it at the most.
const FIRST_SHARE: u64 = 4;
/// Largest write: several of them in flight reach the device's bandwidth.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// First chunk of a memtable, so that ten thousand small databases stay small.
const CHUNK_BYTES_FIRST: usize = 16 << 10;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Memtable {
    layout: VectorLayout,
    pool: Arc<ChunkPool>,
    /// Replaced when a write to it failed (a full disk) and the flush is tried again.
    sink: RwLock<Arc<SegmentSink>>,
    index: RwLock<MemIndex>,
    chunks: RwLock<Vec<Span>>,
    tail: Mutex<Tail>,
    written: Mutex<Written>,
    /// Set once a durable segment holds everything.
    sealed: AtomicBool,
    /// The first file failed: log records may name rows in it that never arrive there.
    moved: AtomicBool,
    /// Log records name rows in the segment file.
    bulk: AtomicBool,
    /// Rows that [`Self::make_rows_durable`] has made durable.
    durable_rows: AtomicU32,
    chunk_bytes: AtomicU64,
    index_bytes: AtomicU64,
    /// Sequence number of the first record, `u64::MAX` while there is none.
    first_lsn: AtomicU64,
    last_lsn: AtomicU64,
}

/// A chunk and the byte offset of its first page among the memtable's pages.
#[derive(Clone, Debug)]
struct Span {
    start: u64,
    chunk: Arc<Chunk>,
}

#[derive(Debug, Default)]
struct Tail {
    /// Rows appended, skipped ones of closed pages included.
    rows: u32,
    appender: Option<Appender>,
    next_chunk_bytes: usize,
}

/// How far the rows have been handed to the segment file.
#[derive(Debug, Default)]
struct Written {
    bytes: u64,
}

/// Where a row's vector lies in memory.
#[derive(Clone, Debug)]
pub(crate) struct RowBytes {
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) start: usize,
}

impl Memtable {
    pub(crate) fn new(
        layout: VectorLayout,
        kind: IdKind,
        sink: Arc<SegmentSink>,
        pool: Arc<ChunkPool>,
        seed: u64,
    ) -> Self {
        Self {
            layout,
            pool,
            sink: RwLock::new(sink),
            index: RwLock::new(MemIndex::new(kind, seed)),
            chunks: RwLock::new(Vec::new()),
            tail: Mutex::new(Tail::default()),
            written: Mutex::new(Written::default()),
            sealed: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            bulk: AtomicBool::new(false),
            durable_rows: AtomicU32::new(0),
            chunk_bytes: AtomicU64::new(0),
            index_bytes: AtomicU64::new(0),
            first_lsn: AtomicU64::new(u64::MAX),
            last_lsn: AtomicU64::new(0),
        }
    }

    /// About so many bytes of rows will come: chunks are large from the first one on.
    pub(crate) fn expect(&self, bytes: u64) {
        let bytes = usize::try_from(bytes / FIRST_SHARE).unwrap_or(usize::MAX);
        lock(&self.tail).next_chunk_bytes = bytes; // clamped when the chunk is made
    }

    /// Appends consecutive rows (row-major, whole vectors); returns the first. They are not
    /// findable until [`Self::insert`] names them. Caller: the holder of the write lock, so that
    /// rows of one record stay together.
    pub(crate) fn append_rows(&self, vectors: &[f32]) -> Result<Row, Error> {
        let mut tail = lock(&self.tail);
        let first = tail.rows;
        for vector in vectors.chunks_exact(self.layout.dimension() as usize) {
            self.write_row(&mut tail, vector)?;
        }
        Ok(Row::new(first))
    }

    fn write_row(&self, tail: &mut Tail, vector: &[f32]) -> Result<(), Error> {
        let stride = self.layout.stride_bytes() as usize;
        let rows_per_page = self.layout.rows_per_page();
        let ends_page = (tail.rows + 1).is_multiple_of(rows_per_page);
        let page_rest = self.layout.page_bytes() as usize - rows_per_page as usize * stride;
        let bytes = stride + if ends_page { page_rest } else { 0 };
        let appender = self.appender_with_room(tail)?;
        let vector_bytes = self.layout.vector_bytes();
        appender.append_with(bytes, |target| encode_f32(vector, &mut target[..vector_bytes]));
        tail.rows += 1;
        Ok(())
    }

    /// The appender, in a new chunk when the current one is full: a chunk holds whole pages, so it
    /// either has room for a row or for nothing.
    fn appender_with_room<'a>(&self, tail: &'a mut Tail) -> Result<&'a mut Appender, Error> {
        let full = tail.appender.as_ref().is_none_or(|appender| appender.remaining() == 0);
        if full {
            let page = self.layout.page_bytes() as usize;
            let wanted = tail.next_chunk_bytes.clamp(CHUNK_BYTES_FIRST, CHUNK_BYTES_MAX);
            let bytes = (wanted / page).max(1) * page;
            tail.next_chunk_bytes = wanted * 2;
            let made = self.pool.chunk(bytes);
            let (appender, chunk) =
                made.map_err(|error| Error::Cache { reason: error.to_string().into() })?;
            let held = chunk.memory_bytes() as u64;
            let mut chunks = self.chunks.write().unwrap_or_else(PoisonError::into_inner);
            let start =
                chunks.last().map_or(0, |last: &Span| last.start + last.chunk.capacity() as u64);
            chunks.push(Span { start, chunk });
            self.chunk_bytes.fetch_add(held, Ordering::Relaxed); // a counter
            tail.appender = Some(appender);
        }
        Ok(tail.appender.as_mut().expect("set just above when it was absent"))
    }

    /// Leaves the rest of the current page empty, so that what was written so far can be made
    /// durable without ever being written again.
    pub(crate) fn close_page(&self) {
        let rows_per_page = self.layout.rows_per_page();
        let mut tail = lock(&self.tail);
        let over = tail.rows % rows_per_page;
        if over == 0 {
            return;
        }
        let used = over as usize * self.layout.stride_bytes() as usize;
        let rest = self.layout.page_bytes() as usize - used;
        let appender = tail.appender.as_mut().expect("an unfinished page lies in a chunk");
        appender.append_with(rest, |_| ()); // chunks start zeroed
        tail.rows += rows_per_page - over;
    }

    /// Makes versions findable. `lsn` is the record's; versions become visible to readers once
    /// the database's visible number reaches it.
    pub(crate) fn insert(&self, lsn: Lsn, fill: impl FnOnce(&mut MemIndex)) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        fill(&mut index);
        self.index_bytes.store(index.bytes() as u64, Ordering::Relaxed); // a gauge
        self.first_lsn.fetch_min(lsn.get(), Ordering::Release);
        self.last_lsn.fetch_max(lsn.get(), Ordering::Release);
    }

    pub(crate) fn find(&self, id: IdRef<'_>, at: Lsn) -> Option<Version> {
        if self.is_empty() {
            return None;
        }
        self.index().find(id, at)
    }

    pub(crate) fn find_newest(&self, id: IdRef<'_>) -> Option<Version> {
        self.index().find_newest(id)
    }

    /// One lock for many ids.
    pub(crate) fn find_many(
        &self,
        ids: &[IdRef<'_>],
        at: Lsn,
        mut found: impl FnMut(usize, Version),
    ) {
        if self.is_empty() {
            return;
        }
        let index = self.index();
        for (position, id) in ids.iter().enumerate() {
            if let Some(version) = index.find(*id, at) {
                found(position, version);
            }
        }
    }

    /// Ids and newest rows at or below `at`, ascending.
    pub(crate) fn sorted(&self, at: Lsn) -> Vec<(Id, Row)> {
        self.index().sorted(at)
    }

    fn index(&self) -> RwLockReadGuard<'_, MemIndex> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a row found in the index lies.
    pub(crate) fn row(&self, row: Row) -> RowBytes {
        let at = self.layout.row_offset(row) - BLOCK_BYTES as u64;
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
        let after = chunks.partition_point(|span| span.start <= at);
        let span = &chunks[after.checked_sub(1).expect("the index names only appended rows")];
        let start = usize::try_from(at - span.start).expect("within a chunk of at most 2 MiB");
        RowBytes { chunk: Arc::clone(&span.chunk), start }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first_lsn.load(Ordering::Acquire) == u64::MAX
    }

    pub(crate) fn first_lsn(&self) -> Option<Lsn> {
        let lsn = self.first_lsn.load(Ordering::Acquire);
        (lsn != u64::MAX).then(|| Lsn::new(lsn))
    }

    pub(crate) fn last_lsn(&self) -> Lsn {
        Lsn::new(self.last_lsn.load(Ordering::Acquire))
    }

    /// Rows appended, skipped ones of closed pages included.
    pub(crate) fn rows(&self) -> u32 {
        lock(&self.tail).rows
    }

    pub(crate) fn set_sealed(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    pub(crate) fn layout(&self) -> &VectorLayout {
        &self.layout
    }

    /// The segment file these rows go to.
    pub(crate) fn sink(&self) -> Arc<SegmentSink> {
        Arc::clone(&self.sink.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts over in another file. The old one stays on disk while the log may name its rows.
    pub(crate) fn replace_sink(&self, sink: Arc<SegmentSink>) -> Arc<SegmentSink> {
        let mut written = lock(&self.written);
        written.bytes = 0;
        self.moved.store(true, Ordering::Release);
        self.durable_rows.store(0, Ordering::Release);
        let mut current = self.sink.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut current, sink)
    }

    /// A log record that names rows in the segment file is about to be staged.
    pub(crate) fn note_bulk(&self) {
        self.bulk.store(true, Ordering::Release); // before the record can be in the log
    }

    /// Whether log records may name rows in the segment file.
    pub(crate) fn has_bulk(&self) -> bool {
        self.bulk.load(Ordering::Acquire)
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> u64 {
        self.chunk_bytes.load(Ordering::Relaxed) + self.index_bytes.load(Ordering::Relaxed)
    }

    /// Hands whole writes to the segment file, once enough has gathered to be worth a file.
    /// Waits only while more is in flight than the device needs.
    ///
    /// Cancel safety: ranges are claimed and submitted without an await between.
    pub(crate) async fn write_behind(&self, pace: Pace) -> Result<(), Error> {
        if self.ready_bytes() == 0 || self.sealed.load(Ordering::Acquire) {
            return Ok(());
        }
        let sink = self.sink();
        let file = match sink.file().await {
            Ok(file) => file,
            // Its database was dropped meanwhile.
            Err(_) if self.sealed.load(Ordering::Acquire) => return Ok(()),
            Err(error) => return Err(error),
        };
        sink.lengthen(&file, BLOCK_BYTES as u64 + self.ready_end()).await;
        sink.make_room_at(pace, WRITE_BYTES_MAX).await?;
        let mut written = lock(&self.written);
        if sink.id() != self.sink().id() {
            return Ok(());
        }
        let target = self.ready_end();
        let writes = self.unwritten(&mut written, target);
        sink.claim(&writes);
        drop(written);
        if !writes.is_empty() {
            sink.submit_claimed(&file, writes);
        }
        Ok(())
    }

    /// Makes every row appended so far durable in the (still unsealed) segment file, for a log
    /// record that names them. Rows appended later begin a new page.
    pub(crate) async fn make_rows_durable(&self) -> Result<(), Error> {
        if self.sealed.load(Ordering::Acquire) {
            return Ok(());
        }
        let sink = self.sink();
        self.close_page();
        let rows = self.rows();
        // Acquire/Release: whoever sees the number also knows that the sync is done.
        if self.durable_rows.load(Ordering::Acquire) == rows {
            return Ok(());
        }
        self.write_pages(Pace::Awaited).await?;
        if !planted("bulk_rows_unsynced") {
            sink.sync().await?;
        }
        if self.moved.load(Ordering::Acquire) && !self.sealed.load(Ordering::Acquire) {
            let reason = "bulk rows could not be written to the file that the log names".into();
            return Err(Error::Poisoned { cause: reason });
        }
        self.durable_rows.fetch_max(rows, Ordering::Release);
        Ok(())
    }

    /// Writes every finished page, waits for the file; a page that still takes
    /// rows is left for later.
    pub(crate) async fn write_pages(&self, pace: Pace) -> Result<(), Error> {
        let target = {
            let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
            let page = u64::from(self.layout.page_bytes());
            chunks.last().map_or(0, |last| {
                let committed = last.chunk.committed() as u64;
                last.start + committed / page * page
            })
        };
        let pending = lock(&self.written).bytes < target;
        let sink = self.sink();
        if !pending && !sink.is_created() {
            return Ok(());
        }
        let file = sink.file().await?;
        sink.lengthen(&file, BLOCK_BYTES as u64 + target).await;
        loop {
            sink.make_room_at(pace, PIECE_BYTES).await?;
            let mut written = lock(&self.written);
            if sink.id() != self.sink().id() {
                // The flush goes on in another file, because a write to this one failed.
                drop(written);
                return sink.drain().await;
            }
            let step = target.min(written.bytes + PIECE_BYTES as u64);
            let writes = self.unwritten(&mut written, step);
            sink.claim(&writes);
            let done = target <= written.bytes;
            drop(written);
            sink.submit_claimed(&file, writes);
            if done {
                break;
            }
        }
        sink.drain().await
    }

    /// Whole writes that have gathered since the last one.
    fn ready_bytes(&self) -> u64 {
        self.ready_end().saturating_sub(lock(&self.written).bytes)
    }

    /// End of the last whole write that has gathered. Small first chunks wait for larger ones, or
    /// for the flush.
    fn ready_end(&self) -> u64 {
        let page = self.layout.page_bytes() as usize;
        let piece = (WRITE_BYTES_MAX / page).max(1) * page;
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
        let ready = |span: &Span| {
            let (committed, capacity) = (span.chunk.committed(), span.chunk.capacity());
            if committed == capacity { capacity } else { committed / piece * piece }
        };
        match chunks.iter().rev().find(|span| 0 < ready(span)) {
            Some(span) if WRITE_BYTES_MAX / 2 < span.chunk.capacity() => {
                span.start + ready(span) as u64
            }
            _ => 0,
        }
    }

    /// The writes for the pages from `written` to `target`, which become written.
    fn unwritten(&self, written: &mut Written, target: u64) -> Vec<(u64, IoBuffer)> {
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
        let mut writes = Vec::new();
        let first = chunks
            .partition_point(|span| span.start + span.chunk.capacity() as u64 <= written.bytes);
        for span in &chunks[first..] {
            let to = target.min(span.start + span.chunk.capacity() as u64);
            while written.bytes < to {
                let from = written.bytes;
                let start = usize::try_from(from - span.start).expect("within a chunk");
                let len = usize::try_from(to - from).expect("within a chunk").min(WRITE_BYTES_MAX);
                let buffer = IoBuffer::Chunk { chunk: Arc::clone(&span.chunk), start, len };
                writes.push((BLOCK_BYTES as u64 + from, buffer));
                written.bytes += len as u64;
            }
        }
        writes
    }

    /// Every page of the rows in order, as `(page bytes)` slices. After the last row was appended.
    pub(crate) fn for_each_page(&self, mut visit: impl FnMut(&[u8])) {
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner).clone();
        for span in &chunks {
            for page in span.chunk.bytes().chunks_exact(self.layout.page_bytes() as usize) {
                visit(page);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
