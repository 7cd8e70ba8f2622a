//! The index of a segment: which ids its readable pages give, and bounds of those that are lost.
//!
//! Ids come in ascending order, so the ids around a lost page, or its fence, bound what it held.
//! Where the footer is lost, id pages end at the first block that is none, and the filter lies
//! right before the checksum table.
//! Tested in `tests/it/repair*`.

use nephrite_format::{
    BLOCK_BYTES, BLOCK_BYTES_U64, Id, IdKind, IdRef, MAX_ID_BYTES, Row,
    filter::IdFilter,
    id_run::{FenceIndex, IdPage},
    manifest::SegmentMeta,
    mend::mend_page,
    segment::SectionKind,
};

use super::{Survey, Walk, anatomy::Anatomy};
use crate::error::Error;

impl Walk<'_> {
    /// Reads id pages, fences and filter.
    pub(super) async fn index(
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
        let first_of = |page| fences.first_of(page).map(IdRef::to_id);
        for ((low, high), start) in survey.lost_ranges.iter_mut().zip(gap_starts) {
            if let Some(first) = u32::try_from(*start).ok().and_then(first_of) {
                *low = first;
            }
            let last = fences.last().map(IdRef::to_id);
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

fn largest(kind: IdKind) -> Id {
    match kind {
        IdKind::U64 => Id::U64(u64::MAX),
        IdKind::Bytes => Id::Bytes(vec![u8::MAX; MAX_ID_BYTES].into()),
    }
}
