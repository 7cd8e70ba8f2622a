//! Scans: every id and vector of one snapshot, ascending by id.
//!
//! A merge over the memtables (sorted once, at the start) and the id runs of the segments, read a
//! page at a time; of one id the newest entry wins and tombstones are left out. Vectors are
//! fetched in batches, one submission each, and copied, so that a scan pins nothing.
//! Cancel safety: `next` may be dropped; the scan goes on with the next call.

use std::{collections::VecDeque, sync::Arc};

use nephrite_format::{Id, Row};
use nephrite_io::Disk;

use crate::{
    error::Error,
    lookup::{Place, View},
    memtable::Memtable,
    segment::{Purpose, ReadContext, Segment},
    snapshot::SnapshotInner,
    vector::VectorRef,
};

/// Ids whose vectors are fetched together.
const BATCH: usize = 256;
/// Entries of a dense segment that are listed at a time.
const DENSE_STEP: u32 = 1024;

/// Ids and vectors of a snapshot in ascending order of the ids; see [`crate::Database::scan`].
#[derive(Debug)]
pub struct Scan {
    snapshot: Arc<SnapshotInner>,
    sources: Vec<Source>,
    /// Located, vectors not fetched yet; kept here so that a dropped `next` loses none.
    located: Vec<(Id, Place)>,
    ready: VecDeque<(Id, VectorRef)>,
}

/// Entries of one memtable or segment, ascending.
#[derive(Debug)]
struct Source {
    entries: VecDeque<(Id, Row)>,
    from: From,
}

#[derive(Debug)]
enum From {
    Memory(Arc<Memtable>),
    /// With the next id page (or, for a dense segment, the next entry).
    Segment(Arc<Segment>, u32),
}

impl Scan {
    /// Sources newest first: of one id the first source wins.
    pub(crate) fn new(snapshot: Arc<SnapshotInner>) -> Self {
        let version = &snapshot.version;
        let memory = version.memtables().filter(|memtable| !memtable.is_empty());
        let mut sources: Vec<Source> = memory
            .map(|memtable| Source {
                entries: memtable.sorted(snapshot.at).into(),
                from: From::Memory(Arc::clone(memtable)),
            })
            .collect();
        sources.extend(version.segments.iter().map(|segment| Source {
            entries: VecDeque::new(),
            from: From::Segment(Arc::clone(segment), 0),
        }));
        Self { snapshot, sources, located: Vec::new(), ready: VecDeque::new() }
    }

    /// Where its pages are read from.
    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.snapshot.handle.core().read.disk)
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
        Ok(self.ready.pop_front())
    }

    /// Fetches the next batch of vectors.
    async fn fetch(&mut self) -> Result<(), Error> {
        let core = Arc::clone(&self.snapshot.handle);
        let context = &core.core().read;
        while self.located.len() < BATCH {
            for source in &mut self.sources {
                source.fill(context).await?;
            }
            let Some((id, place)) = self.pop_smallest() else { break };
            if !matches!(place, Place::Absent) {
                self.located.push((id, place));
            }
        }
        let places: Vec<Place> = self.located.iter().map(|(_, place)| place.clone()).collect();
        let view = View { context, version: &self.snapshot.version, at: self.snapshot.at };
        let vectors = view.fetch(&places, Purpose::Scan).await?;
        // Copies: a scan that nobody goes on with pins nothing.
        let found = self.located.drain(..).zip(vectors);
        let found = found.filter_map(|((id, _), vector)| Some((id, vector?.into_owned())));
        self.ready.extend(found);
        Ok(())
    }

    /// Takes the smallest id from every source that has it; the newest source says where it is.
    fn pop_smallest(&mut self) -> Option<(Id, Place)> {
        let heads = self.sources.iter().filter_map(|source| source.entries.front());
        let id = heads.map(|(id, _)| id).min()?.clone();
        let mut place = None;
        for source in &mut self.sources {
            if source.entries.front().is_none_or(|(head, _)| *head != id) {
                continue;
            }
            let (_, row) = source.entries.pop_front().expect("it has a front");
            place.get_or_insert_with(|| source.place(row));
        }
        place.map(|place| (id, place))
    }
}

impl Source {
    async fn fill(&mut self, context: &ReadContext) -> Result<(), Error> {
        let From::Segment(segment, next) = &mut self.from else { return Ok(()) };
        if !self.entries.is_empty() {
            return Ok(());
        }
        if let Some((first, first_row, count)) = segment.dense() {
            let end = count.min(next.saturating_add(DENSE_STEP));
            let entry = |at: u32| (Id::U64(first + u64::from(at)), Row::new(first_row.get() + at));
            self.entries.extend((*next..end).map(entry));
            *next = end;
        } else if *next < segment.id_pages() {
            self.entries.extend(segment.id_page_entries(context, *next).await?);
            *next += 1;
        }
        Ok(())
    }

    fn place(&self, row: Row) -> Place {
        match &self.from {
            _ if row.is_tombstone() => Place::Absent,
            From::Memory(memtable) => Place::Memory(Arc::clone(memtable), row),
            From::Segment(segment, _) => Place::Segment(Arc::clone(segment), row),
        }
    }
}
