//! A piece of a scan: some consecutive ids, and the reads that bring their vectors.
//!
//! Where most pages of a stretch are needed, those that are not in memory are read past the cache
//! ([`BulkRead`]), in one transfer but for long parts that are in memory; all other pages go
//! through the cache. So rows that lie in the order of their ids come at the speed of sequential
//! reads, also when newer segments and memtables have some of the ids, and scattered rows cost a
//! read of a page each. A page of such a stretch that is missing alone is read past the cache as
//! well: the frame that it would take is, by the cache's order, that of a page which the scan comes
//! to next, and so each miss would be followed by another.
//!
//! Cancel safety: a piece whose vectors nobody waited for keeps what was read.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use nephrite_format::{Id, Row};
use nephrite_io::memory::AlignedBuf;

use super::{From, Located, Source};
use crate::{
    error::Error,
    lookup::{Place, View, in_memory},
    segment::{BulkPages, BulkRead, PIECE_BYTES, Purpose, ReadContext, Segment, bulk_pages},
    vector::VectorRef,
};

/// Runs of ids that are located ahead, and those of a piece, but for what shares a page with them.
pub(super) const ENTRIES_MAX: usize = 2048;
/// Needed pages from which one transfer is better than several.
const BULK_PAGES_MIN: usize = 4;
/// A transfer goes on over fewer pages in a row that are in memory, and ends before so many: a
/// device moves 64 KiB in less time than it takes to begin anew.
const RESIDENT_PAGES_MAX: u32 = 16;
/// Buffers that are kept for the next read.
const SPARES_MAX: usize = 4;

/// How large pieces are, and so their transfers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    /// For a scan that may end soon.
    First,
    /// For one that goes on: in huge pages, where there are any.
    Many,
}

impl Size {
    pub(super) fn bytes(self, context: &ReadContext) -> usize {
        match self {
            Self::First => PIECE_BYTES,
            Self::Many => context.ahead.piece_bytes(),
        }
    }
}

/// Buffers of reads that are over.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<AlignedBuf>);

impl Spares {
    pub(super) fn put(&mut self, pages: BulkPages) {
        if self.0.len() < SPARES_MAX {
            self.0.extend(pages.into_buffer());
        }
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Piece {
    entries: Vec<Located>,
    /// The pages that they need, with their sources, ascending.
    pages: Vec<(usize, u32)>,
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

/// How many of the located runs make the next piece; the last of them may have to be split for it.
pub(super) fn cut(
    context: &ReadContext,
    sources: &[Source],
    located: &mut VecDeque<Located>,
    size: Size,
) -> usize {
    let piece = size.bytes(context);
    let mut bytes = 0;
    let enough = located.iter().position(|run| {
        bytes += run.count as usize * sources[run.source].row_bytes(piece);
        piece <= bytes
    });
    let Some(last) = enough else { return located.len() };
    let run = &located[last];
    let too_many = (bytes - piece) / sources[run.source].row_bytes(piece);
    split(located, last, run.count - u32::try_from(too_many).unwrap_or(0));
    // What lies in the same page goes with it.
    let last_page = page_of(sources, located[last].source, located[last].last_row());
    let mut count = last + 1;
    while let (Some(page), Some(run)) = (last_page, located.get(count)) {
        if page_of(sources, run.source, run.first_row()) != Some(page) {
            break;
        }
        let rows = sources[run.source].layout().rows_per_page();
        split(located, count, rows - run.first_row().get() % rows);
        count += 1;
    }
    count
}

/// Leaves `count` ids in a run; the others follow as one of their own.
fn split(located: &mut VecDeque<Located>, at: usize, count: u32) {
    if let Some(others) = located[at].split_off(count) {
        located.insert(at + 1, others);
    }
}

fn page_of(sources: &[Source], source: usize, row: Row) -> Option<(usize, u32)> {
    Some((source, sources[source].segment()?.page_of(row)))
}

/// The pages that these ids need, with their sources, ascending.
pub(super) fn pages_of(sources: &[Source], entries: &[Located]) -> Vec<(usize, u32)> {
    let mut pages = Vec::new();
    for run in entries {
        let Some(segment) = sources[run.source].segment() else { continue };
        for page in segment.page_of(run.first_row())..=segment.page_of(run.last_row()) {
            if pages.last() != Some(&(run.source, page)) {
                pages.push((run.source, page));
            }
        }
    }
    pages.sort_unstable();
    pages.dedup();
    pages
}

/// Starts these transfers, as far as there is memory for them.
pub(super) async fn start_bulks(
    context: &ReadContext,
    sources: &[Source],
    transfers: Vec<(usize, Range<u32>)>,
    spares: &mut Spares,
    size: Size,
) -> Result<Vec<Bulk>, Error> {
    let mut bulks = Vec::with_capacity(transfers.len());
    let many = matches!(size, Size::Many);
    for (source, pages) in transfers {
        let segment = sources[source].segment().expect("only segments have pages");
        let spare = spares.0.pop();
        let read = segment.start_bulk_read(context, pages.clone(), spare, many).await?;
        bulks.extend(read.map(|read| Bulk { source, pages, state: State::Reading(read) }));
    }
    Ok(bulks)
}

impl Piece {
    pub(super) fn new(entries: Vec<Located>, pages: Vec<(usize, u32)>, bulks: Vec<Bulk>) -> Self {
        Self { entries, pages, bulks }
    }

    /// Waits for its reads, and reads what no stretch brings through the cache. May be called
    /// again after an error, and loses nothing when it is dropped.
    pub(super) async fn read(
        &mut self,
        view: View<'_>,
        sources: &[Source],
    ) -> Result<Vec<VectorRef>, Error> {
        for bulk in &mut self.bulks {
            bulk.finish(sources, view.context).await;
        }
        if self.pages.iter().all(|page| self.has(*page)) {
            return Ok(Vec::new());
        }
        let mut places = Vec::new();
        for run in &self.entries {
            let Some(segment) = sources[run.source].segment() else { continue };
            let missing = run.rows().filter(|row| !self.has((run.source, segment.page_of(*row))));
            places.extend(missing.map(|row| Place::Segment(Arc::clone(segment), row)));
        }
        let found = view.fetch(&places, Purpose::Scan).await?;
        // Copies: a scan that nobody goes on with pins nothing.
        let found = found.into_iter().map(|vector| vector.map(VectorRef::into_owned));
        Ok(found.map(|vector| vector.expect("a row that was located has a vector")).collect())
    }

    /// Whether a stretch has brought a page.
    fn has(&self, (source, page): (usize, u32)) -> bool {
        self.bulks.iter().any(|bulk| {
            bulk.source == source
                && bulk.pages.contains(&page)
                && matches!(bulk.state, State::Read(_))
        })
    }

    /// What was read, to be handed out; `others` are the vectors that [`Self::read`] gave.
    pub(super) fn into_ready(
        self,
        others: Vec<VectorRef>,
        sources: &[Source],
        context: &ReadContext,
        copies: bool,
    ) -> Ready {
        let mut stretches = Vec::with_capacity(self.bulks.len());
        for Bulk { source, state, .. } in self.bulks {
            let State::Read(pages) = state else { continue };
            let segment = sources[source].segment().expect("only segments have pages");
            pages.fill_cache(segment, context);
            stretches.push((source, Arc::new(pages)));
        }
        let (entries, others) = (self.entries.into(), others.into_iter());
        Ready { entries, stretches, others, copies }
    }
}

/// Vectors that are there, in the order of their ids.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// None of them empty.
    entries: VecDeque<Located>,
    /// What was read in one transfer, with its source.
    stretches: Vec<(usize, Arc<BulkPages>)>,
    /// The vectors of entries that no stretch has.
    others: std::vec::IntoIter<VectorRef>,
    /// Whether vectors of stretches are copied, not lent.
    copies: bool,
}

impl Ready {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn next(&mut self, sources: &[Source]) -> Option<(Id, VectorRef)> {
        let run = self.entries.front_mut()?;
        let source = run.source;
        let (id, row) = run.pop()?;
        if run.count == 0 {
            self.entries.pop_front();
        }
        let vector = match &sources[source].from {
            From::Memory(memtable) => in_memory(memtable, row).into_owned(),
            From::Segment(segment, _) => match self.in_stretch(source, segment, row) {
                Some(vector) => vector,
                None => self.others.next().expect("what no stretch has was read by itself"),
            },
        };
        Some((id, vector))
    }

    fn in_stretch(&self, source: usize, segment: &Segment, row: Row) -> Option<VectorRef> {
        let of_source = self.stretches.iter().filter(|(of, _)| *of == source);
        let mut found =
            of_source.filter_map(|(_, pages)| Some((pages, pages.bytes_of(segment, row)?)));
        let (pages, bytes) = found.next()?;
        Some(match self.copies {
            true => VectorRef::copied(&pages.bytes()[bytes]),
            false => VectorRef::in_bulk(Arc::clone(pages), bytes.start, bytes.len()),
        })
    }

    /// What vectors may still point into.
    pub(super) fn into_stretches(self) -> impl Iterator<Item = Arc<BulkPages>> {
        self.stretches.into_iter().map(|(_, pages)| pages)
    }
}

impl Bulk {
    async fn finish(&mut self, sources: &[Source], context: &ReadContext) {
        if let State::Reading(read) = &self.state {
            let segment = sources[self.source].segment().expect("only segments have pages");
            // An error is told by the reads of its pages.
            self.state = read.pages(segment, context).await.map_or(State::Failed, State::Read);
        }
    }
}

/// The transfers of stretches of which most pages are needed: of what is not in memory.
pub(super) fn transfers<'a>(
    sources: &'a [Source],
    pages: &'a [(usize, u32)],
    bytes: usize,
) -> impl Iterator<Item = (usize, Range<u32>)> + 'a {
    let mut rest = pages;
    let stretches = std::iter::from_fn(move || {
        let (source, first) = *rest.first()?;
        let segment = sources[source].segment().expect("only segments have pages");
        let end = first.saturating_add(bulk_pages(segment.layout(), bytes));
        let count = rest.partition_point(|page| *page < (source, end));
        let (stretch, others) = rest.split_at(count);
        rest = others;
        Some((source, segment, stretch))
    });
    let dense = stretches.filter(|(_, _, stretch)| are_mostly_needed(stretch));
    dense.flat_map(|(source, segment, stretch)| {
        let missing = stretch.iter().map(|page| page.1).filter(|page| !segment.has_page(*page));
        ranges(missing).map(move |pages| (source, pages))
    })
}

/// Whether these are most pages from the first to the last of them.
fn are_mostly_needed(pages: &[(usize, u32)]) -> bool {
    let [first, .., last] = pages else { return false };
    let span = (last.1 - first.1 + 1) as usize;
    BULK_PAGES_MIN <= pages.len() && span <= 2 * pages.len()
}

/// The transfers that bring some ascending pages.
fn ranges(missing: impl Iterator<Item = u32>) -> impl Iterator<Item = Range<u32>> {
    let mut missing = missing.peekable();
    std::iter::from_fn(move || {
        let first = missing.next()?;
        let mut end = first + 1;
        while let Some(page) = missing.next_if(|page| page - end < RESIDENT_PAGES_MAX) {
            end = page + 1;
        }
        Some(first..end)
    })
}

impl Source {
    /// The share of a row in a piece of so many bytes: a piece of one segment is one transfer.
    fn row_bytes(&self, piece: usize) -> usize {
        let layout = self.layout();
        piece.div_ceil((bulk_pages(layout, piece) * layout.rows_per_page()) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_goes_on_over_few_pages_that_are_in_memory_and_ends_before_many() {
        let last = RESIDENT_PAGES_MAX;
        let missing = [3, 4, 7, 7 + last, 8 + 2 * last, u32::MAX - 1];

        let ranges: Vec<_> = ranges(missing.into_iter()).collect();

        let first = 3..8 + last;
        let wanted = [first, 8 + 2 * last..9 + 2 * last, u32::MAX - 1..u32::MAX];
        assert_eq!(ranges, wanted);
    }
}
