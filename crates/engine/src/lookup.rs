//! The read path: one id, many ids, existence, count, on one version of a database.
//!
//! A read of what is in memory completes on its first poll: no lock beyond the memtable's, no
//! system call, no task switch. What is missing is read in one go for all ids of the call.
//!
//! Pins: a call keeps at most `pinned_max` vectors pinned and copies the others. Nothing waits for
//! pins, its own or others': a page that gets no frame is read past the cache. So readers cannot
//! deadlock each other or themselves, however small the cache.
//! Cancel safety: reads change nothing; a dropped read leaves its loads to finish for others.

use std::sync::Arc;

use crate::{
    error::Error,
    memtable::Memtable,
    segment::{
        LastCopied, Purpose, ReadContext, Seen, Segment, prefetch_id_pages, prefetch_vector_pages,
    },
    vector::VectorRef,
    version::Version,
};
use nephrite_format::{IdRef, Lsn, Row, filter::IdHash};

/// Ids whose id pages are read in one submission.
const ID_PAGES_AT_ONCE: usize = 256;
/// Of so few ids, ascending, the id pages of all segments are read in one submission.
const FEW_IDS: usize = 512;

/// One version as seen up to one log sequence number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) context: &'a ReadContext,
    pub(crate) version: &'a Version,
    pub(crate) at: Lsn,
}

/// Where the newest visible version of an id lies.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Memory(Arc<Memtable>, Row),
    Segment(Arc<Segment>, Row),
    /// Deleted, or never stored.
    Absent,
}

/// What is known of an id, with the sequence number of what was found in memory.
pub(crate) struct Existence {
    pub(crate) exists: bool,
    pub(crate) memory_lsn: Lsn,
}

impl View<'_> {
    /// The vector of an id.
    pub(crate) async fn get(&self, id: IdRef<'_>) -> Result<Option<VectorRef>, Error> {
        match self.locate(id).await? {
            Place::Absent => Ok(None),
            Place::Memory(memtable, row) => Ok(Some(in_memory(&memtable, row))),
            Place::Segment(segment, row) => Ok(Some(segment.vector(self.context, row).await?)),
        }
    }

    /// Whether an id is stored, and when it was last written if that is still in memory.
    pub(crate) async fn existence(&self, id: IdRef<'_>) -> Result<Existence, Error> {
        if let Some(found) = self.find_in_memory(id) {
            return Ok(Existence { exists: !found.1.row.is_tombstone(), memory_lsn: found.1.lsn });
        }
        let place = self.locate_in_segments(id).await?;
        let exists = !matches!(place, Place::Absent);
        Ok(Existence { exists, memory_lsn: Lsn::new(0) })
    }

    /// Where an id lies.
    pub(crate) async fn locate(&self, id: IdRef<'_>) -> Result<Place, Error> {
        match self.find_in_memory(id) {
            Some((memtable, found)) => Ok(memory_place(memtable, found.row)),
            None => self.locate_in_segments(id).await,
        }
    }

    fn find_in_memory(&self, id: IdRef<'_>) -> Option<(&Arc<Memtable>, crate::memtable::Version)> {
        self.version.memtables().find_map(|memtable| Some((memtable, memtable.find(id, self.at)?)))
    }

    async fn locate_in_segments(&self, id: IdRef<'_>) -> Result<Place, Error> {
        let mut hash = None;
        let mut hash_of = || *hash.get_or_insert_with(|| IdHash::of(id));
        if let Some(place) = self.known_place(id, &mut hash_of) {
            return Ok(place);
        }
        for (position, segment) in self.version.candidates(id) {
            if segment.denies(&mut hash_of) {
                continue;
            }
            if let Some(row) = segment.find(self.context, id).await? {
                if let Some(known) = self.version.known() {
                    known.keep(id, hash_of(), position, row);
                }
                return Ok(segment_place(segment, row));
            }
        }
        Ok(Place::Absent)
    }

    /// Where an id lies in segments, if it was found there lately.
    fn known_place(&self, id: IdRef<'_>, hash: impl FnOnce() -> IdHash) -> Option<Place> {
        let (position, row) = self.version.known()?.find(id, hash())?;
        Some(segment_place(&self.version.segments[position], row))
    }

    /// The vectors of many ids, in the order of the ids.
    pub(crate) async fn get_many(
        &self,
        ids: &[IdRef<'_>],
    ) -> Result<Vec<Option<VectorRef>>, Error> {
        let places = self.locate_many(ids).await?;
        self.fetch(&places, Purpose::Point).await
    }

    /// Where many ids lie, in the order of the ids.
    pub(crate) async fn locate_many(&self, ids: &[IdRef<'_>]) -> Result<Vec<Place>, Error> {
        let mut places: Vec<Option<Place>> = vec![None; ids.len()];
        for memtable in self.version.memtables() {
            memtable.find_many(ids, self.at, |position, found| {
                places[position].get_or_insert_with(|| memory_place(memtable, found.row));
            });
        }
        let mut sought = Vec::with_capacity(ids.len());
        for (position, place) in places.iter_mut().enumerate().filter(|(_, it)| it.is_none()) {
            let mut id = Sought::new(ids[position], position);
            *place = self.known_place(id.id, || id.hash());
            if place.is_none() {
                sought.push(id);
            }
        }
        while !sought.is_empty() {
            sought = self.look_in_next_segments(sought, &mut places).await?;
        }
        Ok(places.into_iter().map(|place| place.unwrap_or(Place::Absent)).collect())
    }

    /// Looks every id up in the next segment that can have it; the id pages of all of them are read
    /// in one submission. Gives back the ids that are still to be found.
    async fn look_in_next_segments<'i>(
        &self,
        sought: Vec<Sought<'i>>,
        places: &mut [Option<Place>],
    ) -> Result<Vec<Sought<'i>>, Error> {
        let mut steps: Vec<Step<'i, '_>> = sought
            .into_iter()
            .filter_map(|mut sought| {
                let (at, segment) = sought.next_segment(self.version)?;
                Some(Step { sought, at, segment })
            })
            .collect();
        steps.sort_unstable_by_key(|step| (step.segment.file(), step.sought.id));
        let mut left = Vec::new();
        for window in steps.chunks_mut(ID_PAGES_AT_ONCE) {
            let mut pages: Vec<(&Arc<Segment>, u32)> = Vec::with_capacity(window.len());
            pages.extend(window.iter().filter_map(|step| Some((step.segment, step.id_page()?))));
            pages.dedup_by_key(|(segment, page)| (segment.file(), *page));
            prefetch_id_pages(self.context, &pages).await?;
            for Step { sought, at, segment } in window {
                let Some(row) = segment.find(self.context, sought.id).await? else {
                    left.push(sought.clone());
                    continue;
                };
                if let Some(known) = self.version.known() {
                    known.keep(sought.id, sought.hash(), *at, row);
                }
                places[sought.position] = Some(segment_place(segment, row));
            }
        }
        Ok(left)
    }

    /// The vectors at many places. Pages that are not in memory are read together, per
    /// `pinned_max` places.
    pub(crate) async fn fetch(
        &self,
        places: &[Place],
        purpose: Purpose,
    ) -> Result<Vec<Option<VectorRef>>, Error> {
        let (mut vectors, mut last) = (Vec::with_capacity(places.len()), LastCopied::default());
        for part in places.chunks(self.context.pinned_max) {
            release(&mut vectors); // one call keeps no more than its share pinned
            self.prefetch(part, purpose).await?;
            for place in part {
                let vector = match place {
                    Place::Absent => None,
                    Place::Memory(memtable, row) => Some(in_memory(memtable, *row)),
                    Place::Segment(segment, row) => {
                        let context = self.context;
                        Some(segment.vector_of_many(context, *row, purpose, &mut last).await?)
                    }
                };
                vectors.push(vector);
            }
        }
        Ok(vectors)
    }

    /// Starts the loads of all pages that are not in memory.
    async fn prefetch(&self, places: &[Place], purpose: Purpose) -> Result<(), Error> {
        let mut pages: Vec<(&Arc<Segment>, (u32, u32))> = places
            .iter()
            .filter_map(|place| match place {
                Place::Segment(segment, row) if !segment.is_kept(*row) => {
                    Some((segment, segment.start_of(*row)))
                }
                Place::Segment(..) | Place::Memory(..) | Place::Absent => None,
            })
            .collect();
        pages.sort_unstable_by_key(|(segment, place)| (segment.file(), *place));
        pages.dedup_by_key(|(segment, (page, _))| (segment.file(), *page));
        prefetch_vector_pages(self.context, &pages, purpose).await
    }

    /// Number of ids that are stored.
    pub(crate) async fn count(&self) -> Result<u64, Error> {
        let mut counted = std::collections::BTreeSet::new();
        let mut count = self.version.live_records;
        for memtable in self.version.memtables().filter(|memtable| !memtable.is_empty()) {
            let mut news = memtable.sorted(self.at);
            // Newer memtables come first: an id that was counted there is settled.
            news.retain(|(id, _)| !counted.contains(id));
            let ids: Vec<IdRef<'_>> = news.iter().map(|(id, _)| id.as_id_ref()).collect();
            let before = exist_in_segments(self.context, &self.version.segments, &ids).await?;
            for ((_, row), existed) in news.iter().zip(before) {
                match (existed, row.is_tombstone()) {
                    (true, true) => count -= 1,
                    (false, false) => count += 1,
                    (true, false) | (false, true) => {}
                }
            }
            if !self.version.frozen.is_empty() {
                counted.extend(news.into_iter().map(|(id, _)| id));
            }
        }
        Ok(count)
    }
}

/// Whether ascending ids are stored in segments (newest first) and not deleted there.
async fn exist_in_segments(
    context: &ReadContext,
    segments: &[Arc<Segment>],
    ids: &[IdRef<'_>],
) -> Result<Vec<bool>, Error> {
    let settled = find_in_segments(context, segments, ids, None, |_, _| ()).await?;
    Ok(settled.into_iter().map(|row| row.is_some_and(|row| !row.is_tombstone())).collect())
}

/// The newest entry of each of the ascending ids; `found` also learns which segment has it. `seen`
/// says which ids the segments it covers need not be asked about.
pub(crate) async fn find_in_segments(
    context: &ReadContext,
    segments: &[Arc<Segment>],
    ids: &[IdRef<'_>],
    seen: Option<Seen<'_>>,
    mut found: impl FnMut(&Arc<Segment>, Row),
) -> Result<Vec<Option<Row>>, Error> {
    let mut rows: Vec<Option<Row>> = vec![None; ids.len()];
    let (Some(min), Some(max)) = (ids.first(), ids.last()) else { return Ok(rows) };
    let mut all = Left::new(ids, |_| true);
    let mut doubtful = Left::new(ids, |at| seen.is_some_and(|seen| seen.maybe[at]));
    let covers = |it: &Segment| seen.is_some_and(|seen| it.seen_in() == Some(seen.generation));
    let asked = || segments.iter().filter(|segment| segment.overlaps(*min, *max));
    if doubtful.ids.len() <= FEW_IDS {
        prefetch_doubtful(context, asked().filter(|it| covers(it)), &doubtful.ids).await?;
    }
    for segment in asked() {
        let left = if covers(segment) { &doubtful } else { &all };
        let mut settled = 0;
        let settle = |position: usize, row| {
            // An id may be asked for, and told, more than once.
            if rows[left.positions[position]].is_none() {
                rows[left.positions[position]] = Some(row);
                settled += 1;
                found(segment, row);
            }
        };
        segment.find_sorted(context, &left.ids, settle).await?;
        if settled != 0 {
            all.settle(ids, &rows);
            doubtful.settle(ids, &rows);
        }
        if all.ids.is_empty() {
            break;
        }
    }
    Ok(rows)
}

/// Reads the id pages that a lookup of some ascending ids in these segments needs, or the first of
/// them, in one submission.
async fn prefetch_doubtful<'a>(
    context: &ReadContext,
    segments: impl Iterator<Item = &'a Arc<Segment>>,
    ids: &[IdRef<'_>],
) -> Result<(), Error> {
    let pages = segments
        .flat_map(|segment| segment.id_pages_of(ids).into_iter().map(move |page| (segment, page)));
    let mut pages: Vec<(&Arc<Segment>, u32)> = pages.take(ID_PAGES_AT_ONCE).collect();
    pages.sort_unstable_by_key(|(segment, page)| (segment.file(), *page));
    prefetch_id_pages(context, &pages).await
}

/// Ids that no segment had so far, and where they are among the ids of the call.
struct Left<'a> {
    ids: Vec<IdRef<'a>>,
    positions: Vec<usize>,
}

impl<'a> Left<'a> {
    fn new(all: &[IdRef<'a>], which: impl Fn(usize) -> bool) -> Self {
        let positions: Vec<usize> = (0..all.len()).filter(|at| which(*at)).collect();
        Self { ids: positions.iter().map(|at| all[*at]).collect(), positions }
    }

    fn settle(&mut self, all: &[IdRef<'a>], rows: &[Option<Row>]) {
        self.positions.retain(|at| rows[*at].is_none());
        self.ids.clear();
        self.ids.extend(self.positions.iter().map(|at| all[*at]));
    }
}

/// An id that is looked for in one segment after the other.
#[derive(Clone, Debug)]
struct Sought<'a> {
    id: IdRef<'a>,
    /// Among the ids of the call.
    position: usize,
    hash: Option<IdHash>,
    /// Candidates that were looked at.
    candidates_done: usize,
}

impl<'a> Sought<'a> {
    fn new(id: IdRef<'a>, position: usize) -> Self {
        Self { id, position, hash: None, candidates_done: 0 }
    }

    fn hash(&mut self) -> IdHash {
        *self.hash.get_or_insert_with(|| IdHash::of(self.id))
    }

    /// The next segment that can have the id and its position, newest first.
    fn next_segment<'v>(&mut self, version: &'v Version) -> Option<(usize, &'v Arc<Segment>)> {
        for (position, segment) in version.candidates(self.id).skip(self.candidates_done) {
            self.candidates_done += 1;
            if !segment.denies(|| self.hash()) {
                return Some((position, segment));
            }
        }
        None
    }
}

/// An id, and the segment that is looked into next, which is `at` this position.
struct Step<'a, 'v> {
    sought: Sought<'a>,
    at: usize,
    segment: &'v Arc<Segment>,
}

impl Step<'_, '_> {
    fn id_page(&self) -> Option<u32> {
        self.segment.id_page_of(self.sought.id)
    }
}

fn memory_place(memtable: &Arc<Memtable>, row: Row) -> Place {
    if row.is_tombstone() { Place::Absent } else { Place::Memory(Arc::clone(memtable), row) }
}

fn segment_place(segment: &Arc<Segment>, row: Row) -> Place {
    if row.is_tombstone() { Place::Absent } else { Place::Segment(Arc::clone(segment), row) }
}

pub(crate) fn in_memory(memtable: &Memtable, row: Row) -> VectorRef {
    let place = memtable.row(row);
    VectorRef::in_memory(place.chunk, place.start, memtable.layout().vector_bytes())
}

/// Copies what is pinned, so that nothing is.
fn release(vectors: &mut [Option<VectorRef>]) {
    for vector in vectors {
        *vector = vector.take().map(VectorRef::into_owned);
    }
}
