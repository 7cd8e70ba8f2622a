//! A piece of a scan: some consecutive ids, and the reads that bring their vectors.
//!
//! Where most pages of a stretch are needed and not in memory, it is read in one transfer past the
//! cache ([`BulkRead`]); all other pages go through the cache. So rows that lie in the order of
//! their ids come at the speed of sequential reads, also when newer segments and memtables have
//! some of the ids, and scattered rows cost a read of a page each.
//!
//! Cancel safety: a piece whose vectors nobody waited for keeps what was read.

use std::{ops::Range, sync::Arc};

use nephrite_format::Id;
use nephrite_io::memory::AlignedBuf;

use super::{From, Located, Source};
use crate::{
    error::Error,
    lookup::{Place, View, in_memory},
    segment::{BulkPages, BulkRead, Purpose, ReadContext, Segment},
    vector::VectorRef,
};

/// Ids of a piece at most, but for those that share a page with the last one.
pub(super) const ENTRIES_MAX: usize = 2048;
/// Bytes of vectors from which a piece is large enough.
const BYTES: usize = 256 << 10;
/// Pages from which one transfer is better than several.
const BULK_PAGES_MIN: usize = 4;
/// Buffers that are kept for the next read.
const SPARES_MAX: usize = 4;

/// Buffers of reads that are over.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<AlignedBuf>);

impl Spares {
    fn put(&mut self, pages: BulkPages) {
        if self.0.len() < SPARES_MAX {
            self.0.extend(pages.into_buffer());
        }
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Piece {
    entries: Vec<Located>,
    bulks: Vec<Bulk>,
}

/// A stretch that is read in one transfer.
#[derive(Debug)]
pub(super) struct Bulk {
    source: usize,
    pages: Range<u32>,
    state: State,
}

#[derive(Debug)]
enum State {
    Reading(BulkRead),
    Read(BulkPages),
    /// Its pages are read one by one, which tells what is wrong.
    Failed,
}

/// How many of the located ids make the next piece.
pub(super) fn len(sources: &[Source], located: &std::collections::VecDeque<Located>) -> usize {
    let mut bytes = 0;
    let enough = located.iter().position(|entry| {
        bytes += sources[entry.source].row_bytes();
        BYTES <= bytes
    });
    let Some(last) = enough else { return located.len() };
    // What lies in the same page goes with it.
    let page = page_of(sources, &located[last]);
    let same = located.iter().skip(last + 1);
    let same = same.take_while(|entry| page.is_some() && page_of(sources, entry) == page);
    last + 1 + same.count()
}

fn page_of(sources: &[Source], entry: &Located) -> Option<(usize, u32)> {
    let segment = sources[entry.source].segment()?;
    Some((entry.source, segment.page_of(entry.row)))
}

/// Starts the reads of the stretches that these ids need.
pub(super) async fn start_bulks(
    context: &ReadContext,
    sources: &[Source],
    entries: &[Located],
    spares: &mut Spares,
) -> Result<Vec<Bulk>, Error> {
    let mut pages: Vec<(usize, u32)> =
        entries.iter().filter_map(|entry| page_of(sources, entry)).collect();
    pages.sort_unstable();
    pages.dedup();
    let mut bulks = Vec::new();
    for (source, pages) in stretches(sources, &pages) {
        let segment = sources[source].segment().expect("only segments have pages");
        let spare = spares.0.pop();
        let read = segment.start_bulk_read(context, pages.clone(), spare).await?;
        bulks.extend(read.map(|read| Bulk { source, pages, state: State::Reading(read) }));
    }
    Ok(bulks)
}

impl Piece {
    pub(super) fn new(entries: Vec<Located>, bulks: Vec<Bulk>) -> Self {
        Self { entries, bulks }
    }

    /// The vectors, in the order of the ids. May be called again after an error.
    pub(super) async fn vectors(
        &mut self,
        view: View<'_>,
        sources: &[Source],
        spares: &mut Spares,
    ) -> Result<Vec<Option<VectorRef>>, Error> {
        for bulk in &mut self.bulks {
            bulk.finish().await;
        }
        let mut vectors = Vec::with_capacity(self.entries.len());
        vectors.extend(self.entries.iter().map(|entry| self.at_hand(sources, entry)));
        self.fetch_missing(view, sources, &mut vectors).await?;
        for bulk in self.bulks.drain(..) {
            let State::Read(pages) = bulk.state else { continue };
            let segment = sources[bulk.source].segment().expect("only segments have pages");
            pages.fill_cache(segment, view.context);
            spares.put(pages);
        }
        Ok(vectors)
    }

    /// A copy of a vector that a memtable or a stretch has.
    fn at_hand(&self, sources: &[Source], entry: &Located) -> Option<VectorRef> {
        match &sources[entry.source].from {
            From::Memory(memtable) => Some(in_memory(memtable, entry.row).into_owned()),
            From::Segment(segment, _) => {
                let page = segment.page_of(entry.row);
                let covers =
                    |bulk: &&Bulk| bulk.source == entry.source && bulk.pages.contains(&page);
                let State::Read(pages) = &self.bulks.iter().find(covers)?.state else {
                    return None;
                };
                pages.row(segment, entry.row).map(VectorRef::copied)
            }
        }
    }

    /// Reads the others through the cache.
    async fn fetch_missing(
        &self,
        view: View<'_>,
        sources: &[Source],
        vectors: &mut [Option<VectorRef>],
    ) -> Result<(), Error> {
        let missing = vectors.iter().enumerate().filter(|(_, vector)| vector.is_none());
        let missing: Vec<usize> = missing.map(|(at, _)| at).collect();
        let place = |at: &usize| {
            let Located { source, row, .. } = self.entries[*at];
            let segment = sources[source].segment().expect("memtables have theirs at hand");
            Place::Segment(Arc::clone(segment), row)
        };
        let places: Vec<Place> = missing.iter().map(place).collect();
        for (at, vector) in missing.iter().zip(view.fetch(&places, Purpose::Scan).await?) {
            // A copy: a scan that nobody goes on with pins nothing.
            vectors[*at] = vector.map(VectorRef::into_owned);
        }
        Ok(())
    }

    pub(super) fn into_ids(self) -> impl Iterator<Item = Id> {
        self.entries.into_iter().map(|entry| entry.id)
    }
}

impl Bulk {
    async fn finish(&mut self) {
        if let State::Reading(read) = &self.state {
            // An error is told by the reads of its pages.
            self.state = read.pages().await.map_or(State::Failed, State::Read);
        }
    }
}

/// Stretches of which most pages are needed and not in memory.
fn stretches<'a>(
    sources: &'a [Source],
    pages: &'a [(usize, u32)],
) -> impl Iterator<Item = (usize, Range<u32>)> + 'a {
    let mut rest = pages;
    std::iter::from_fn(move || {
        loop {
            let (source, first) = *rest.first()?;
            let segment = sources[source].segment().expect("only segments have pages");
            let end = first.saturating_add(segment.bulk_pages());
            let count = rest.partition_point(|page| *page < (source, end));
            let (stretch, others) = rest.split_at(count);
            rest = others;
            if let Some(pages) = worth_a_transfer(segment, stretch) {
                return Some((source, pages));
            }
        }
    })
}

fn worth_a_transfer(segment: &Segment, stretch: &[(usize, u32)]) -> Option<Range<u32>> {
    let (first, last) = (stretch.first()?.1, stretch.last()?.1);
    let missing = stretch.iter().filter(|(_, page)| !segment.has_page(*page)).count();
    let span = (last - first + 1) as usize;
    (BULK_PAGES_MIN <= missing && span <= 2 * missing).then_some(first..last + 1)
}

impl Source {
    /// Bytes of a row, about.
    fn row_bytes(&self) -> usize {
        match &self.from {
            From::Memory(memtable) => memtable.layout().vector_bytes(),
            From::Segment(segment, _) => segment.vector_bytes(),
        }
    }
}
