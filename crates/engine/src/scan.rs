//! Scans: every id and vector of one snapshot, ascending by id.
//!
//! A merge over the memtables (sorted once, at the start) and the id runs of the segments, read a
//! page at a time; of one id the newest entry wins and tombstones are left out. Consecutive ids
//! that a segment stores as a run are merged as runs (`source`). Vectors are fetched in pieces
//! (`piece`), the next ones while one is handed out: few at first, more the longer the scan goes
//! on. They are lent out of what was read in one transfer, and copied while one of an earlier piece
//! is still held, and where they come from the cache or a memtable.
//! Cancel safety: `next` may be dropped; the scan goes on with the next call.

mod piece;
mod source;

use std::{collections::VecDeque, sync::Arc};

use nephrite_format::{Id, IdRef};

use self::{
    piece::{Piece, Ready, Size, Spares, pages_of, start_bulks, transfers},
    source::{Entries, From, Located, Source},
};
use crate::{
    error::Error,
    lookup::View,
    segment::{BulkPages, ReadContext},
    snapshot::SnapshotInner,
    vector::VectorRef,
};

/// Pieces that are read ahead at most.
const AHEAD_MAX: usize = 8;
/// From so many pieces ahead on, which is from its second fetch on, a scan may take huge pages.
const MANY: usize = 2;

/// Ids and vectors of a snapshot in ascending order of the ids; see [`crate::Database::scan`].
#[derive(Debug)]
pub struct Scan {
    snapshot: Arc<SnapshotInner>,
    sources: Vec<Source>,
    /// Located, in no piece yet; kept here so that a dropped `next` loses none.
    located: VecDeque<Located>,
    /// Being read, in order.
    ahead: VecDeque<Piece>,
    ahead_max: usize,
    spares: Spares,
    ready: Ready,
    /// What vectors that were handed out earlier may still point into.
    lent: Vec<Arc<BulkPages>>,
}

impl Scan {
    /// Sources newest first: of one id the first source wins.
    pub(crate) fn new(snapshot: Arc<SnapshotInner>) -> Self {
        let version = &snapshot.version;
        let memory = version.memtables().filter(|memtable| !memtable.is_empty());
        let mut sources: Vec<Source> = memory
            .map(|memtable| Source {
                entries: Entries::Listed(memtable.sorted(snapshot.at).into()),
                from: From::Memory(Arc::clone(memtable)),
            })
            .collect();
        sources.extend(version.segments.iter().map(|segment| Source {
            entries: Entries::of(segment),
            from: From::Segment(Arc::clone(segment), 0),
        }));
        Self {
            snapshot,
            sources,
            located: VecDeque::new(),
            ahead: VecDeque::new(),
            ahead_max: 0,
            spares: Spares::default(),
            ready: Ready::default(),
            lent: Vec::new(),
        }
    }

    /// The next id and its vector; `None` at the end.
    ///
    /// # Errors
    /// `Io`, or `Corrupt` naming the page; calling it again tries again.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing; the next one goes on.
    pub async fn next(&mut self) -> Result<Option<(Id, VectorRef)>, Error> {
        if self.ready.is_empty() {
            self.fetch().await?;
        }
        Ok(self.ready.next(&self.sources))
    }

    /// The next id and its vector, if they were fetched already.
    pub(crate) fn next_ready(&mut self) -> Option<(Id, VectorRef)> {
        self.ready.next(&self.sources)
    }

    /// Fetches the next piece, and starts those after it.
    async fn fetch(&mut self) -> Result<(), Error> {
        self.take_back();
        let core = Arc::clone(&self.snapshot.handle);
        let context = &core.core().read;
        self.ahead_max = (self.ahead_max + 1).min(AHEAD_MAX);
        while self.wants_more(context) && self.locate(context).await? {
            let size = if self.ahead_max < MANY { Size::First } else { Size::Many };
            let count = piece::cut(context, &self.sources, &mut self.located, size);
            let entries = &self.located.make_contiguous()[..count];
            let (sources, spares) = (&self.sources, &mut self.spares);
            let pages = pages_of(sources, entries);
            let transfers: Vec<_> = transfers(sources, &pages, size.bytes(context)).collect();
            if !self.ahead.is_empty() && !context.ahead.has_room_for(transfers.len()) {
                break; // without memory its pages would be read one by one
            }
            let bulks = start_bulks(context, sources, transfers, spares, size).await?;
            let entries = self.located.drain(..count).collect();
            self.ahead.push_back(Piece::new(entries, pages, bulks));
        }
        let Some(piece) = self.ahead.front_mut() else { return Ok(()) };
        let view = View { context, version: &self.snapshot.version, at: self.snapshot.at };
        let others = piece.read(view, &self.sources).await?;
        let piece = self.ahead.pop_front().expect("the piece that was read");
        let copies = !self.lent.is_empty();
        self.ready = piece.into_ready(others, &self.sources, context, copies);
        Ok(())
    }

    /// Keeps the buffers that no vector points into any more for the next reads.
    fn take_back(&mut self) {
        self.lent.extend(std::mem::take(&mut self.ready).into_stretches());
        for pages in std::mem::take(&mut self.lent) {
            match Arc::try_unwrap(pages) {
                Ok(pages) => self.spares.put(pages),
                Err(pages) => self.lent.push(pages),
            }
        }
    }

    /// Whether another piece is to be started: one at least, more while there is memory for them.
    fn wants_more(&self, context: &ReadContext) -> bool {
        self.ahead.is_empty() || self.ahead.len() < self.ahead_max && context.ahead.has_room_for(1)
    }

    /// Locates as many ids as a piece may have; false when there are none left.
    async fn locate(&mut self, context: &ReadContext) -> Result<bool, Error> {
        while self.located.len() < piece::ENTRIES_MAX {
            for source in self.sources.iter_mut().filter(|source| source.entries.is_empty()) {
                source.fill(context).await?;
            }
            if !self.merge() {
                break;
            }
        }
        Ok(!self.located.is_empty())
    }

    /// Takes ids until a source has to list more, or there are enough; false when none is left.
    fn merge(&mut self) -> bool {
        let listing = self.sources.iter().filter(|source| !source.entries.is_empty()).count();
        match listing {
            0 => return false,
            1 => {
                self.take_from_only_one();
                return true;
            }
            _ => {}
        }
        while self.located.len() < piece::ENTRIES_MAX {
            let smallest = self.pop_smallest();
            if !smallest.is_tombstone() {
                self.located.push_back(smallest);
            }
            let still = self.sources.iter().filter(|source| !source.entries.is_empty()).count();
            if still < listing {
                break;
            }
        }
        true
    }

    /// As [`Self::merge`], where nothing is to be merged.
    fn take_from_only_one(&mut self) {
        let mut sources = self.sources.iter_mut().enumerate();
        let Some((at, source)) = sources.find(|(_, source)| !source.entries.is_empty()) else {
            return;
        };
        while self.located.len() < piece::ENTRIES_MAX {
            let Some(found) = source.entries.pop(at, u32::MAX) else { break };
            if !found.is_tombstone() {
                self.located.push_back(found);
            }
        }
    }

    /// Takes the smallest id from every source that has it, and what follows it in a run below the
    /// next id of any other; the newest source says where it is. Some source has an id.
    fn pop_smallest(&mut self) -> Located {
        let heads = || {
            let heads = self.sources.iter().enumerate();
            heads.filter_map(|(at, source)| Some((source.entries.first()?, at)))
        };
        let (first, newest) = heads().min().expect("some source has an id");
        let next = heads().filter(|(_, at)| *at != newest).map(|(id, _)| id).min();
        let most = match (first, next) {
            (IdRef::U64(first), Some(IdRef::U64(next))) => next - first,
            (_, _) => u64::MAX,
        };
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let smallest = self.sources[newest].entries.pop(newest, most).expect("it has a first");
        for older in &mut self.sources[newest + 1..] {
            if older.entries.first() == Some(smallest.first_id()) {
                older.entries.pop(newest, 1);
            }
        }
        smallest
    }
}
