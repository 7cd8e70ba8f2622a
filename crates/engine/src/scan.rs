//! Scans: every id and vector of one snapshot, ascending by id.
//!
//! A merge over the memtables (sorted once, at the start) and the id runs of the segments, read a
//! page at a time; of one id the newest entry wins and tombstones are left out. Vectors are
//! fetched in pieces (`piece`), the next ones while one is handed out: few at first, more the
//! longer the scan goes on. They are lent out of what was read in one transfer, and copied while
//! one of an earlier piece is still held, and where they come from the cache or a memtable.
//! Cancel safety: `next` may be dropped; the scan goes on with the next call.

mod piece;

use std::{collections::VecDeque, sync::Arc};

use nephrite_format::{Id, IdRef, Row};

use self::piece::{Piece, Ready, Spares, pages_of, start_bulks};
use crate::{
    error::Error,
    lookup::View,
    memtable::Memtable,
    segment::{BulkPages, ReadContext, Segment, prefetch_id_pages},
    snapshot::SnapshotInner,
    vector::VectorRef,
};

/// Pieces that are read ahead at most.
const AHEAD_MAX: usize = 6;
/// From so many pieces ahead on, which is from its second fetch on, a scan may take huge pages.
const MANY: usize = 2;
/// Id pages that are read in one submission.
const ID_PAGES_AT_ONCE: u32 = 32;

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

/// The newest entry of an id: a row of one of the sources.
#[derive(Clone, Debug)]
struct Located {
    id: Id,
    source: usize,
    row: Row,
}

/// Entries of one memtable or segment, ascending.
#[derive(Debug)]
struct Source {
    entries: Entries,
    from: From,
}

#[derive(Debug)]
enum Entries {
    Listed(VecDeque<(Id, Row)>),
    /// Consecutive ids in consecutive rows.
    Dense {
        next: u64,
        row: u32,
        left: u32,
    },
}

#[derive(Debug)]
enum From {
    Memory(Arc<Memtable>),
    /// With the next id page.
    Segment(Arc<Segment>, u32),
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
            let count = piece::len(&self.sources, &self.located);
            let entries = &self.located.make_contiguous()[..count];
            let pages = pages_of(&self.sources, entries);
            let (sources, spares) = (&self.sources, &mut self.spares);
            let many = MANY <= self.ahead_max;
            let bulks = start_bulks(context, sources, &pages, spares, many).await?;
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
        self.ahead.is_empty() || self.ahead.len() < self.ahead_max && context.ahead.is_there()
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
            if !smallest.row.is_tombstone() {
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
            let Some((id, row)) = source.entries.pop() else { break };
            if !row.is_tombstone() {
                self.located.push_back(Located { id, source: at, row });
            }
        }
    }

    /// Takes the smallest id from every source that has it; the newest source says where it is.
    /// Some source has an id.
    fn pop_smallest(&mut self) -> Located {
        let heads = self.sources.iter().enumerate();
        let heads = heads.filter_map(|(at, source)| Some((source.entries.first()?, at)));
        let (_, newest) = heads.min().expect("some source has an id");
        let (id, row) = self.sources[newest].entries.pop().expect("it has a first");
        for older in &mut self.sources[newest + 1..] {
            if older.entries.first() == Some(id.as_id_ref()) {
                older.entries.pop();
            }
        }
        Located { id, source: newest, row }
    }
}

impl Entries {
    fn of(segment: &Segment) -> Self {
        match segment.dense() {
            Some((next, row, left)) => Self::Dense { next, row: row.get(), left },
            None => Self::Listed(VecDeque::new()),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Listed(entries) => entries.is_empty(),
            Self::Dense { left, .. } => *left == 0,
        }
    }

    fn first(&self) -> Option<IdRef<'_>> {
        match self {
            Self::Listed(entries) => Some(entries.front()?.0.as_id_ref()),
            Self::Dense { left: 0, .. } => None,
            Self::Dense { next, .. } => Some(IdRef::U64(*next)),
        }
    }

    fn pop(&mut self) -> Option<(Id, Row)> {
        let (next, row, left) = match self {
            Self::Listed(entries) => return entries.pop_front(),
            Self::Dense { next, row, left } => (next, row, left),
        };
        *left = left.checked_sub(1)?;
        let popped = (Id::U64(*next), Row::new(*row));
        // The last id may be the largest number.
        (*next, *row) = (next.wrapping_add(1), row.wrapping_add(1));
        Some(popped)
    }
}

impl Source {
    /// Lists the ids of the next id page, if there is one.
    async fn fill(&mut self, context: &ReadContext) -> Result<(), Error> {
        let (Entries::Listed(entries), From::Segment(segment, next)) =
            (&mut self.entries, &mut self.from)
        else {
            return Ok(());
        };
        if segment.id_pages() <= *next {
            return Ok(());
        }
        if next.is_multiple_of(ID_PAGES_AT_ONCE) {
            let end = segment.id_pages().min(*next + ID_PAGES_AT_ONCE);
            let pages: Vec<_> = (*next..end).map(|page| (&*segment, page)).collect();
            prefetch_id_pages(context, &pages).await?;
        }
        entries.extend(segment.id_page_entries(context, *next).await?);
        *next += 1;
        Ok(())
    }

    fn segment(&self) -> Option<&Arc<Segment>> {
        match &self.from {
            From::Memory(_) => None,
            From::Segment(segment, _) => Some(segment),
        }
    }
}
