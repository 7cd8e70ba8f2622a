//! One segment: which pages hold, and which ids they give.
//!
//! Every page is checked against its entry of the checksum table. A table page that is damaged
//! itself still serves: an entry that agrees with its page proves both. Where the footer is lost,
//! sections are found from what the manifest says of the segment. One flipped bit in a page that is
//! no vector page is mended, for a bounded number of pages.

use nephrite_format::{
    BLOCK_BYTES, BLOCK_BYTES_U64, FormatError, Id, Lsn, Row,
    filter::IdFilter,
    id_run::{FenceIndex, IdIndex, IdPage},
    manifest::SegmentMeta,
    mend::{mend_page, mend_sealed},
    page_checksum,
    segment::{
        CHECKSUMS_PER_PAGE, ChecksumTablePage, SectionKind, SegmentFooter, checksum_position,
    },
};

use super::{
    listing::Found,
    raw::{Raw, header_of},
    salvage::Rows,
    work::Reader,
};
use crate::{error::Error, segment::seal::Identity, verify::Damage};

/// Pages of one segment that are tried for a flipped bit; each costs about 10 ms.
const MENDS_MAX: u32 = 64;
/// Where a footer says in which row a dense segment begins.
const FIRST_ROW_AT: std::ops::Range<usize> = 88..92;

/// What a segment still holds.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) identity: Identity,
    pub(super) found: Found,
    pub(super) row_count: u32,
    /// All its ids, the lost ones included.
    pub(super) entry_count: u32,
    pub(super) max_lsn: Lsn,
    /// Ids of readable pages, ascending, with their rows or tombstones.
    pub(super) entries: Vec<(Id, Row)>,
    /// Vector pages that hold.
    pub(super) whole_pages: Vec<bool>,
    /// Bounds, both included, of ids on pages that are lost.
    pub(super) lost_ranges: Vec<(Id, Id)>,
    pub(super) filter: Option<IdFilter>,
    pub(super) tombstone_count: u32,
    pub(super) file_bytes: u64,
}

/// What came of a look at a segment.
pub(super) enum Outcome {
    /// Everything is as the manifest says.
    Whole(Survey),
    /// Some of it.
    Damaged(Survey),
    /// Nothing of it can be attributed.
    Useless,
    /// There is no such file.
    Missing,
}

/// Looks at a segment. `meta` is what the manifest says of it; without it the footer must hold.
/// Damage is added to `damage`.
pub(super) async fn survey(
    reader: &Reader,
    identity: Identity,
    found: &Found,
    meta: Option<&SegmentMeta>,
    database: &str,
    damage: &mut Vec<Damage>,
) -> Result<Outcome, Error> {
    let before = damage.len();
    let Some(raw) = Raw::open(&reader.disk, &found.path).await? else {
        let mut walk = Walk::new(None, identity, found, database, damage);
        walk.note(None, 0, "the file is missing");
        return Ok(Outcome::Missing);
    };
    let mut walk = Walk::new(Some(raw), identity, found, database, damage);
    let survey = walk.segment(meta).await?;
    Ok(match survey {
        None => Outcome::Useless,
        Some(survey) if damage.len() == before => Outcome::Whole(survey),
        Some(survey) => Outcome::Damaged(survey),
    })
}

/// Where the parts of a segment lie.
struct Anatomy {
    row_count: u32,
    entry_count: u32,
    tombstone_count: u32,
    max_lsn: Lsn,
    /// First id and its row, of a dense segment.
    dense: Option<(u64, Row)>,
    /// Blocks between vector pages and checksum table, and what they are if it is known.
    index_offset: u64,
    index_blocks: u64,
    footer: Option<SegmentFooter>,
    table_offset: u64,
    table_blocks: u64,
    file_bytes: u64,
}

struct Walk<'a> {
    raw: Option<Raw>,
    identity: Identity,
    found: &'a Found,
    database: &'a str,
    damage: &'a mut Vec<Damage>,
    mends_left: u32,
}

impl<'a> Walk<'a> {
    fn new(
        raw: Option<Raw>,
        identity: Identity,
        found: &'a Found,
        database: &'a str,
        damage: &'a mut Vec<Damage>,
    ) -> Self {
        Self { raw, identity, found, database, damage, mends_left: MENDS_MAX }
    }

    /// Tries a damaged page for a flipped bit, as often as there is patience for.
    fn mended(
        &mut self,
        page: &[u8],
        mend: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        if page.iter().all(|byte| *byte == 0) {
            return None; // never written, or overwritten
        }
        self.mends_left = self.mends_left.checked_sub(1)?;
        mend(page)
    }

    fn note(&mut self, page: Option<u64>, offset: u64, what: impl Into<String>) {
        self.damage.push(Damage {
            file: self.found.name.clone(),
            page,
            offset,
            database: Some(self.database.to_owned()),
            what: what.into(),
        });
    }

    fn raw(&self) -> &Raw {
        self.raw.as_ref().expect("a segment that is missing is not walked")
    }

    async fn segment(&mut self, meta: Option<&SegmentMeta>) -> Result<Option<Survey>, Error> {
        if !self.header().await? {
            return Ok(None);
        }
        let Some(anatomy) = self.anatomy(meta).await? else { return Ok(None) };
        let checksums = self.checksums(&anatomy).await?;
        let mut survey = Survey {
            identity: self.identity,
            found: self.found.clone(),
            row_count: anatomy.row_count,
            entry_count: anatomy.entry_count,
            max_lsn: anatomy.max_lsn,
            entries: Vec::new(),
            whole_pages: self.vector_pages(&anatomy, &checksums).await?,
            lost_ranges: Vec::new(),
            filter: None,
            tombstone_count: anatomy.tombstone_count,
            file_bytes: anatomy.file_bytes,
        };
        match anatomy.dense {
            Some((first, row)) => {
                let ids = (0..anatomy.entry_count).map(|at| {
                    (
                        Id::U64(first.wrapping_add(u64::from(at))),
                        Row::new(row.get().wrapping_add(at)),
                    )
                });
                survey.entries = ids.collect();
            }
            None => self.index(&anatomy, &checksums, meta, &mut survey).await?,
        }
        Ok(Some(survey))
    }

    /// Whether the file is the one that was looked for, as far as its header can tell.
    async fn header(&mut self) -> Result<bool, Error> {
        let page = self.raw().block(0).await?;
        let (header, problem) = header_of(page.as_deref(), &self.found.name)?;
        if let Some(what) = problem {
            self.note(None, 0, what);
        }
        let Some(header) = header else { return Ok(true) };
        if header == self.identity.header() {
            return Ok(true);
        }
        self.note(None, 0, "its header is that of another file, store or database");
        Ok(false)
    }

    async fn anatomy(&mut self, meta: Option<&SegmentMeta>) -> Result<Option<Anatomy>, Error> {
        let bytes = self.raw().bytes;
        let expected = meta.map_or(bytes / BLOCK_BYTES_U64 * BLOCK_BYTES_U64, |it| it.file_bytes);
        if bytes != expected {
            let what = format!("the file has {bytes} bytes where {expected} belong");
            self.note(None, bytes.min(expected), what);
        }
        let Some(at) = expected.checked_sub(BLOCK_BYTES_U64) else {
            return Ok(None);
        };
        let page = self.raw().block(at).await?.unwrap_or_default();
        let (place, layout) = (self.identity.page(at), self.identity.layout);
        match SegmentFooter::decode(&page, place, &layout, &self.found.name) {
            Ok(footer) => Ok(self.by_footer(footer, meta)),
            Err(error @ FormatError::FeatureUnsupported { .. }) => Err(error.into()),
            Err(error) => {
                self.note(None, at, error.to_string());
                let mended = self.mended(&page, |page| mend_sealed(page, place));
                let footer = mended.and_then(|it| {
                    SegmentFooter::decode(&it, place, &layout, &self.found.name).ok()
                });
                if let Some(footer) = footer {
                    return Ok(self.by_footer(footer, meta));
                }
                match meta {
                    Some(meta) => self.by_manifest(meta, &page).await,
                    None => Ok(None),
                }
            }
        }
    }

    fn by_footer(&mut self, footer: SegmentFooter, meta: Option<&SegmentMeta>) -> Option<Anatomy> {
        let summary = *footer.summary();
        let same = |meta: &SegmentMeta| {
            (meta.row_count, meta.entry_count, meta.tombstone_count, meta.max_lsn)
                == (
                    summary.row_count,
                    summary.entry_count,
                    summary.tombstone_count,
                    summary.max_lsn,
                )
        };
        if summary.database != self.identity.database || meta.is_some_and(|meta| !same(meta)) {
            self.note(
                None,
                footer.footer_offset(),
                "it is not the segment that the manifest means",
            );
            return None;
        }
        let table = footer.section(SectionKind::ChecksumTable)?;
        let dense = match summary.id_index {
            IdIndex::Dense { first, first_row, .. } => Some((first, first_row)),
            IdIndex::Sorted => None,
        };
        let layout = self.identity.layout;
        let index_offset = layout.page_offset(layout.pages_for(summary.row_count));
        Some(Anatomy {
            row_count: summary.row_count,
            entry_count: summary.entry_count,
            tombstone_count: summary.tombstone_count,
            max_lsn: summary.max_lsn,
            dense,
            index_offset,
            index_blocks: (table.offset - index_offset) / BLOCK_BYTES_U64,
            table_offset: table.offset,
            table_blocks: table.page_count(),
            file_bytes: footer.file_bytes(),
            footer: Some(footer),
        })
    }

    /// Sections lie end to end, and the table has as many pages as the others need.
    async fn by_manifest(
        &self,
        meta: &SegmentMeta,
        footer: &[u8],
    ) -> Result<Option<Anatomy>, Error> {
        let layout = self.identity.layout;
        let vector_pages = layout.pages_for(meta.row_count);
        let index_offset = layout.page_offset(vector_pages);
        let Some(end) = meta.file_bytes.checked_sub(BLOCK_BYTES_U64) else { return Ok(None) };
        let Some(bytes) = end.checked_sub(index_offset) else { return Ok(None) };
        let blocks = bytes / BLOCK_BYTES_U64;
        let table_blocks = (1..=blocks).find(|table| {
            let others = u64::from(vector_pages) + blocks - table;
            others.div_ceil(u64::from(CHECKSUMS_PER_PAGE)) == *table
        });
        let Some(table_blocks) = table_blocks else { return Ok(None) };
        let dense = if blocks != table_blocks {
            None
        } else if let (Id::U64(first), Some(row)) =
            (&meta.min_id, self.first_row(meta, footer).await?)
        {
            Some((*first, row))
        } else {
            return Ok(None);
        };
        Ok(Some(Anatomy {
            row_count: meta.row_count,
            entry_count: meta.entry_count,
            tombstone_count: meta.tombstone_count,
            max_lsn: meta.max_lsn,
            dense,
            index_offset,
            index_blocks: blocks - table_blocks,
            footer: None,
            table_offset: end - table_blocks * BLOCK_BYTES_U64,
            table_blocks,
            file_bytes: meta.file_bytes,
        }))
    }

    /// The row of the smallest id of a dense segment without its footer. It is certain when the ids
    /// take all rows. Otherwise what the damaged footer says must agree with the rows: behind the
    /// last id's there is only padding.
    async fn first_row(&self, meta: &SegmentMeta, footer: &[u8]) -> Result<Option<Row>, Error> {
        let Some(spare) = meta.row_count.checked_sub(meta.entry_count) else { return Ok(None) };
        if spare == 0 {
            return Ok(Some(Row::new(0)));
        }
        let stored = footer.get(FIRST_ROW_AT).and_then(|bytes| bytes.first_chunk::<4>());
        let Some(first) = stored.map(|bytes| u32::from_le_bytes(*bytes)) else { return Ok(None) };
        if spare < first {
            return Ok(None);
        }
        let mut rows = Rows::default();
        for row in first + meta.entry_count - 1..meta.row_count {
            let bytes = rows.get(self.raw(), &self.identity.layout, row).await?;
            let Some(bytes) = bytes else { return Ok(None) };
            let is_last = row == first + meta.entry_count - 1;
            if bytes.iter().all(|byte| *byte == 0) == is_last {
                return Ok(None);
            }
        }
        Ok(Some(Row::new(first)))
    }

    /// The stored checksums by number; `None` where the table cannot be read. Those of a damaged
    /// table page are given too: they must agree with their page to count.
    async fn checksums(&mut self, anatomy: &Anatomy) -> Result<Vec<Option<u64>>, Error> {
        let mut checksums = Vec::new();
        for number in 0..anatomy.table_blocks {
            let offset = anatomy.table_offset + number * BLOCK_BYTES_U64;
            let page = self.raw().block(offset).await?;
            let place = self.identity.page(offset);
            let name = self.found.name.clone();
            let Some(mut page) = page else {
                self.note(None, offset, "the page of the checksum table cannot be read");
                checksums.extend(std::iter::repeat_n(None, CHECKSUMS_PER_PAGE as usize));
                continue;
            };
            if let Err(error) = ChecksumTablePage::verify(&page, place, &name) {
                self.note(None, offset, error.to_string());
                page = self.mended(&page, |page| mend_sealed(page, place)).unwrap_or(page);
            }
            let Ok(table) = ChecksumTablePage::assume_verified(&page, offset, &name) else {
                continue;
            };
            let entries = (0..CHECKSUMS_PER_PAGE).map(|index| {
                let (_, position) = checksum_position(index);
                Some(table.entry(position))
            });
            checksums.extend(entries);
        }
        Ok(checksums)
    }

    fn is_whole(&self, offset: u64, page: Option<&[u8]>, stored: Option<Option<&u64>>) -> bool {
        match (page, stored.flatten()) {
            (Some(page), Some(stored)) => {
                page_checksum(self.identity.page(offset), page) == *stored
            }
            _ => false,
        }
    }

    async fn vector_pages(
        &mut self,
        anatomy: &Anatomy,
        checksums: &[Option<u64>],
    ) -> Result<Vec<bool>, Error> {
        let layout = self.identity.layout;
        let (page_bytes, count) =
            (layout.page_bytes() as usize, layout.pages_for(anatomy.row_count) as usize);
        let mut whole = Vec::new();
        while whole.len() < count {
            let at_once = Raw::pages_at_once(page_bytes).min(count - whole.len());
            let first = anatomy.index_offset - (count - whole.len()) as u64 * page_bytes as u64;
            let pages = self.raw().pages(first, page_bytes, at_once).await?;
            for index in 0..at_once {
                let (number, offset) = (whole.len(), first + (index * page_bytes) as u64);
                let stored = checksums.get(number).map(Option::as_ref);
                let is_whole = self.is_whole(offset, pages.get(index), stored);
                if !is_whole {
                    let what = format!("vector page {number} does not have its checksum");
                    self.note(Some(number as u64), offset, what);
                }
                whole.push(is_whole);
            }
        }
        Ok(whole)
    }

    /// Reads id pages, fences and filter.
    async fn index(
        &mut self,
        anatomy: &Anatomy,
        checksums: &[Option<u64>],
        meta: Option<&SegmentMeta>,
        survey: &mut Survey,
    ) -> Result<(), Error> {
        let blocks = self.blocks(anatomy, checksums, survey.whole_pages.len()).await?;
        let kinds = anatomy.footer.as_ref().map(|footer| {
            let pages = |kind| footer.section(kind).map_or(0, |it| to_usize(it.page_count()));
            [SectionKind::IdPages, SectionKind::Fences, SectionKind::Filter].map(pages)
        });
        let id_pages = kinds.map_or(blocks.len(), |kinds| kinds[0]).min(blocks.len());
        let mut bound: Option<Id> = None;
        let mut open_gap: Option<usize> = None;
        let mut gap_starts = Vec::new();
        let mut end = id_pages;
        for (number, block) in blocks.iter().enumerate().take(id_pages) {
            let offset = anatomy.index_offset + number as u64 * BLOCK_BYTES_U64;
            let entries = block.as_deref().and_then(|page| {
                self.id_page(page, offset, anatomy.row_count, survey.entries.last())
            });
            match (entries, block) {
                (Some(entries), _) => {
                    if let Some(start) = open_gap.take() {
                        gap_starts.push(start);
                        let last = entries[0].0.clone();
                        survey.lost_ranges.push((lower(&mut bound, meta, &last), last));
                    }
                    bound = entries.last().map(|entry| entry.0.clone());
                    survey.entries.extend(entries);
                }
                // Without a footer: here the fences begin.
                (None, Some(_)) if kinds.is_none() => {
                    end = number;
                    break;
                }
                (None, _) => {
                    if kinds.is_some() {
                        let what = format!("id page {number} does not hold");
                        self.note(Some(number as u64), offset, what);
                    }
                    open_gap.get_or_insert(number);
                }
            }
        }
        let is_short = survey.entries.len() < anatomy.entry_count as usize;
        if let Some(start) = open_gap.filter(|_| is_short) {
            gap_starts.push(start);
            let top = meta.map(|meta| meta.max_id.clone());
            let top = top.unwrap_or_else(|| largest(self.identity.id_kind));
            survey.lost_ranges.push((lower(&mut bound, meta, &top), top));
        }
        if !is_short {
            survey.lost_ranges.clear();
        }
        if let Some([ids, fences, filter]) = kinds {
            let gaps = &gap_starts;
            self.fences(anatomy, &blocks, (ids, fences), gaps, survey);
            self.filter(anatomy, &blocks, ids + fences, filter, survey);
        } else {
            self.find_filter(anatomy, &blocks[end..], survey);
        }
        Ok(())
    }

    /// The blocks between vectors and table; `None` for those that do not have their checksum.
    async fn blocks(
        &mut self,
        anatomy: &Anatomy,
        checksums: &[Option<u64>],
        vector_pages: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut blocks = Vec::new();
        for number in 0..anatomy.index_blocks {
            let offset = anatomy.index_offset + number * BLOCK_BYTES_U64;
            let page = self.raw().block(offset).await?;
            let stored = checksums.get(vector_pages + blocks.len()).map(Option::as_ref);
            if self.is_whole(offset, page.as_deref(), stored) {
                blocks.push(page);
                continue;
            }
            let place = self.identity.page(offset);
            let stored = stored.flatten().copied();
            let mended = page.zip(stored).and_then(|(page, stored)| {
                self.mended(&page, |page| mend_page(page, stored, place))
            });
            if mended.is_some() {
                self.note(None, offset, "one bit of the page or of its checksum was flipped");
            }
            blocks.push(mended);
        }
        Ok(blocks)
    }

    /// The entries of a page that is whole and fits behind what came before.
    fn id_page(
        &self,
        page: &[u8],
        offset: u64,
        row_count: u32,
        last: Option<&(Id, Row)>,
    ) -> Option<Vec<(Id, Row)>> {
        let page = IdPage::parse(page, self.identity.id_kind, &self.found.name, offset).ok()?;
        page.check().ok()?;
        let entries: Result<Vec<_>, _> =
            page.iter().map(|entry| entry.map(|(id, row)| (id.to_id(), row))).collect();
        let entries = entries.ok()?;
        let in_order = last.is_none_or(|(last, _)| *last < entries[0].0);
        let within = |row: &Row| row.is_tombstone() || row.get() < row_count;
        (in_order && entries.iter().all(|(_, row)| within(row))).then_some(entries)
    }

    /// Checks the fences, and narrows the bounds of what is lost with them.
    fn fences(
        &mut self,
        anatomy: &Anatomy,
        blocks: &[Option<Vec<u8>>],
        (first, count): (usize, usize),
        gap_starts: &[usize],
        survey: &mut Survey,
    ) {
        let Some(blob) = self.blob(anatomy, blocks, first, count, "fences") else { return };
        let offset = anatomy.index_offset + first as u64 * BLOCK_BYTES_U64;
        let kind = self.identity.id_kind;
        let fences = match FenceIndex::decode(&blob, kind, &self.found.name, offset) {
            Ok(fences) => fences,
            Err(error) => return self.note(None, offset, error.to_string()),
        };
        let first_of = |page| fences.first_of(page).map(nephrite_format::IdRef::to_id);
        for ((low, high), start) in survey.lost_ranges.iter_mut().zip(gap_starts) {
            if let Some(first) = u32::try_from(*start).ok().and_then(first_of) {
                *low = first;
            }
            let last = fences.last().map(nephrite_format::IdRef::to_id);
            if let Some(last) = last.filter(|last| *last < *high) {
                *high = last;
            }
        }
    }

    fn filter(
        &mut self,
        anatomy: &Anatomy,
        blocks: &[Option<Vec<u8>>],
        first: usize,
        count: usize,
        survey: &mut Survey,
    ) {
        let Some(blob) = self.blob(anatomy, blocks, first, count, "filter") else { return };
        let offset = anatomy.index_offset + first as u64 * BLOCK_BYTES_U64;
        match IdFilter::decode(&blob, &self.found.name, offset) {
            Ok(filter) => survey.filter = filter,
            Err(error) => self.note(None, offset, error.to_string()),
        }
    }

    /// Without a footer: the filter is what comes before the table, behind the fences.
    fn find_filter(&self, anatomy: &Anatomy, rest: &[Option<Vec<u8>>], survey: &mut Survey) {
        let pages = IdFilter::page_count_for(anatomy.entry_count) as usize;
        let Some(start) = rest.len().checked_sub(pages).filter(|start| 0 < *start) else { return };
        let blob: Option<Vec<&[u8]>> = rest[start..].iter().map(Option::as_deref).collect();
        let Some(blob) = blob.map(|pages| pages.concat()) else { return };
        survey.filter = IdFilter::decode(&blob, &self.found.name, 0).ok().flatten();
    }

    fn blob(
        &mut self,
        anatomy: &Anatomy,
        blocks: &[Option<Vec<u8>>],
        first: usize,
        count: usize,
        what: &str,
    ) -> Option<Vec<u8>> {
        let mut blob = Vec::with_capacity(count * BLOCK_BYTES);
        let mut is_whole = 0 < count;
        for number in first..first + count {
            match blocks.get(number).and_then(Option::as_deref) {
                Some(page) => blob.extend_from_slice(page),
                None => {
                    let offset = anatomy.index_offset + number as u64 * BLOCK_BYTES_U64;
                    self.note(None, offset, format!("a page of the {what} does not hold"));
                    is_whole = false;
                }
            }
        }
        is_whole.then_some(blob)
    }
}

fn to_usize(pages: u64) -> usize {
    usize::try_from(pages).unwrap_or(usize::MAX)
}

/// The lower bound of a gap: behind the last id known, or the smallest there is.
fn lower(bound: &mut Option<Id>, meta: Option<&SegmentMeta>, high: &Id) -> Id {
    let smallest = || match high {
        Id::U64(_) => Id::U64(0),
        Id::Bytes(_) => Id::Bytes([0].into()),
    };
    bound.take().or_else(|| meta.map(|meta| meta.min_id.clone())).unwrap_or_else(smallest)
}

fn largest(kind: nephrite_format::IdKind) -> Id {
    match kind {
        nephrite_format::IdKind::U64 => Id::U64(u64::MAX),
        nephrite_format::IdKind::Bytes => {
            Id::Bytes(vec![u8::MAX; nephrite_format::MAX_ID_BYTES].into())
        }
    }
}
