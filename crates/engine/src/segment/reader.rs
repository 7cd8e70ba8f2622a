//! An open segment: from ids to rows, from rows to pinned pages.
//!
//! Fences and filter are kept in memory (`memory_index`); id pages and vector pages are read
//! through the cache (`pages`).
//! Cancel safety: reads change nothing.

use std::{
    ops::Range,
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use nephrite_format::{
    BLOCK_BYTES, DatabaseId, FileHeader, FileId, IdKind, IdRef, Row, StoreId, VectorLayout,
    filter::IdHash,
    id_run::{IdIndex, IdPage, Share},
    manifest::SegmentMeta,
    segment::{Section, SectionKind, SegmentFooter},
};
use nephrite_io::{Disk, FileHandle, IoBuffer};
use nephrite_pager::{CachedFile, Pager, RowTable};

use super::{
    ahead::AheadRoom,
    garbage::Garbage,
    live_rows::LiveRows,
    memory_index::{IndexPlace, MemoryIndex, MetadataMemory},
    pages::Kind,
    prefetch::prefetch,
    seal::{Identity, Tail},
    traffic::Traffic,
    work_memory::WorkMemory,
};
use crate::{error::Error, files::OpenFiles, log_file::aligned, paths::segment_name};

/// Ids whose id pages are loaded in one submission.
const ID_PAGES_AHEAD: usize = 128;

/// Ids per id page from which walking the pages beats searching them.
const MERGE_IDS_PER_PAGE: usize = 16;
/// Id pages that a walk loads in one submission.
const ID_PAGES_AT_ONCE: u32 = 32;

/// What reading needs from the store.
#[derive(Debug)]
pub(crate) struct ReadContext {
    pub(crate) store: StoreId,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) files: Arc<OpenFiles>,
    pub(crate) pager: Arc<Pager>,
    /// Vectors that one call keeps pinned; further ones are copied.
    pub(crate) pinned_max: usize,
    /// What open segments keep in memory beside their pages.
    pub(crate) metadata: Arc<MetadataMemory>,
    /// What flushes and compactions hold.
    pub(crate) work: Arc<WorkMemory>,
    /// What scans may read ahead.
    pub(crate) ahead: Arc<AheadRoom>,
    /// Pieces that compactions move.
    pub(crate) moves: Arc<AheadRoom>,
    /// Page loads, and what background writes may have in flight beside them.
    pub(crate) traffic: Arc<Traffic>,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(super) identity: Identity,
    pub(super) name: Arc<str>,
    pub(super) meta: SegmentMeta,
    pub(super) footer: SegmentFooter,
    pub(super) index: MemoryIndex,
    pub(super) vectors: Arc<CachedFile>,
    /// Id pages, then checksum table pages.
    pub(super) small: Arc<CachedFile>,
    pub(super) live: Arc<LiveRows>,
    /// See `seen_ids`; zero: in none.
    pub(super) seen_in: AtomicU64,
    /// Told, when the last reader is gone, that the file may be removed. Set when the segment is
    /// no longer part of a database.
    pub(super) garbage: OnceLock<Arc<Garbage>>,
}

impl Segment {
    /// Opens a segment that the manifest names: reads header, footer and fences.
    ///
    /// # Errors
    /// `Io`; `Corrupt` naming file and offset when they do not fit the manifest or each other.
    pub(crate) async fn open(
        context: &ReadContext,
        database: DatabaseId,
        layout: VectorLayout,
        id_kind: IdKind,
        meta: SegmentMeta,
    ) -> Result<Self, Error> {
        let identity =
            Identity { store: context.store, file: meta.file, database, layout, id_kind };
        let name: Arc<str> = segment_name(meta.file).into();
        let file = context.files.get(meta.file).await?;
        check_length(context, &file, &meta, &name).await?;
        let footer_offset = meta.file_bytes - BLOCK_BYTES as u64;
        let wanted = vec![
            (0, IoBuffer::Owned(aligned(BLOCK_BYTES)?)),
            (footer_offset, IoBuffer::Owned(aligned(BLOCK_BYTES)?)),
        ];
        let pages = nephrite_io::read_many(&*context.disk, &file, wanted).await?;
        check_header(pages[0].as_slice(), &identity, &name)?;
        let place = identity.page(footer_offset);
        let footer = SegmentFooter::decode(pages[1].as_slice(), place, &layout, &name)?;
        check_summary(&footer, &meta, database, &name)?;
        let place = IndexPlace { identity: &identity, footer: &footer, name: &name };
        let index = place.read(context, &file).await?;
        Self::assemble(context, identity, meta, footer, index)
    }

    /// The segment that was just written, without reading it back.
    pub(crate) fn from_tail(
        context: &ReadContext,
        identity: Identity,
        tail: Tail,
    ) -> Result<Self, Error> {
        let index = MemoryIndex::new(context, tail.fences, tail.filter);
        Self::assemble(context, identity, tail.meta, tail.footer, index)
    }

    fn assemble(
        context: &ReadContext,
        identity: Identity,
        meta: SegmentMeta,
        footer: SegmentFooter,
        index: MemoryIndex,
    ) -> Result<Self, Error> {
        let vector_pages = page_count(&footer, SectionKind::VectorPages);
        let small_pages = page_count(&footer, SectionKind::IdPages)
            + page_count(&footer, SectionKind::ChecksumTable);
        let layout = &identity.layout;
        let rows = (layout.stride_bytes(), layout.rows_per_page());
        let vectors =
            context.pager.open_file_of_records(layout.page_bytes(), vector_pages, rows)?;
        let block = u32::try_from(BLOCK_BYTES).expect("4096");
        let small = context.pager.open_file(block, small_pages)?;
        let name = segment_name(meta.file).into();
        let live = LiveRows::new(&meta, &context.metadata);
        Ok(Self {
            identity,
            name,
            meta,
            footer,
            index,
            vectors,
            small,
            live,
            seen_in: AtomicU64::new(0),
            garbage: OnceLock::new(),
        })
    }

    /// The manifest's entry, with the live rows of now.
    pub(crate) fn meta(&self) -> SegmentMeta {
        SegmentMeta { live_rows: self.live_rows(), ..self.meta.clone() }
    }

    pub(crate) fn live_rows(&self) -> u32 {
        self.live.count()
    }

    /// Rows that no newer segment or tombstone hides; goes on counting in the segment that replaces
    /// this one.
    pub(crate) fn live(&self) -> &Arc<LiveRows> {
        &self.live
    }

    pub(crate) fn id_kind(&self) -> IdKind {
        self.identity.id_kind
    }

    pub(crate) fn database(&self) -> DatabaseId {
        self.identity.database
    }

    /// Where rows of this segment may be remembered; `None` when finding them is a subtraction.
    pub(crate) fn row_table(&self) -> Option<&Arc<RowTable>> {
        self.index.rows()
    }

    /// Bytes of a row in its page.
    pub(crate) fn row_bytes(&self) -> u64 {
        u64::from(self.identity.layout.page_bytes() / self.identity.layout.rows_per_page())
    }

    pub(crate) fn row_count(&self) -> u32 {
        self.meta.row_count
    }

    pub(crate) fn file(&self) -> FileId {
        self.meta.file
    }

    pub(crate) fn order(&self) -> u64 {
        self.meta.order
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.meta.file_bytes
    }

    pub(crate) fn tombstones(&self) -> u32 {
        self.meta.tombstone_count
    }

    /// The file goes to `garbage` when the last reader of this segment is gone.
    pub(crate) fn set_obsolete(&self, garbage: &Arc<Garbage>) {
        let _ = self.garbage.set(Arc::clone(garbage)); // once is enough
    }

    /// Whether an id may be in here, by the range of ids.
    pub(crate) fn may_contain(&self, id: IdRef<'_>) -> bool {
        self.meta.min_id.as_id_ref() <= id && id <= self.meta.max_id.as_id_ref()
    }

    /// Smallest and largest id.
    pub(crate) fn id_range(&self) -> (IdRef<'_>, IdRef<'_>) {
        (self.meta.min_id.as_id_ref(), self.meta.max_id.as_id_ref())
    }

    /// Whether the ranges of ids overlap.
    pub(crate) fn overlaps(&self, min: IdRef<'_>, max: IdRef<'_>) -> bool {
        self.meta.min_id.as_id_ref() <= max && min <= self.meta.max_id.as_id_ref()
    }

    pub(crate) fn dense(&self) -> Option<(u64, Row, u32)> {
        match self.footer.summary().id_index {
            IdIndex::Dense { first, count, first_row } => Some((first, first_row, count)),
            IdIndex::Sorted => None,
        }
    }

    /// The row of an id (or its tombstone); `None` when the id is not in here.
    pub(crate) async fn find(
        &self,
        context: &ReadContext,
        id: IdRef<'_>,
    ) -> Result<Option<Row>, Error> {
        if !self.may_contain(id) {
            return Ok(None);
        }
        let Some(fences) = self.index.fences() else {
            return Ok(self.footer.summary().id_index.find_dense(id));
        };
        let Some((page, share)) = fences.place_for(id) else { return Ok(None) };
        let guard = self.page(context, Kind::Id, page).await?;
        self.find_in_page(&guard, page, id, share)
    }

    /// As [`Self::find`], from memory alone; `None` when the id page is not there.
    #[inline]
    pub(crate) fn find_resident(&self, id: IdRef<'_>) -> Result<Option<Option<Row>>, Error> {
        let Some(fences) = self.index.fences() else {
            return Ok(Some(self.footer.summary().id_index.find_dense(id)));
        };
        let Some((page, share)) = fences.place_for(id) else { return Ok(Some(None)) };
        let near = IdPage::likely_bytes(id, share);
        let Some(guard) = self.small.try_hit(page, near) else { return Ok(None) };
        self.find_in_page(&guard, page, id, share).map(Some)
    }

    /// The row of an id, when that takes no id page; else asks the processor for what
    /// [`Self::find_resident`] needs first.
    #[inline]
    pub(crate) fn prefetch_id_entry(&self, id: IdRef<'_>) -> Option<Option<Row>> {
        let Some(fences) = self.index.fences() else {
            return Some(self.footer.summary().id_index.find_dense(id));
        };
        let Some(page) = fences.page_for(id) else { return Some(None) };
        self.small.prefetch_entry(page);
        None
    }

    /// The second step after [`Self::prefetch_id_entry`].
    #[inline]
    pub(crate) fn prefetch_id_page(&self, id: IdRef<'_>) {
        let place = self.index.fences().and_then(|fences| fences.place_for(id));
        if let Some((page, share)) = place {
            self.small.prefetch_frame(page, IdPage::likely_bytes(id, share));
        }
    }

    fn find_in_page(
        &self,
        bytes: &[u8],
        page: u32,
        id: IdRef<'_>,
        share: Share,
    ) -> Result<Option<Row>, Error> {
        self.small.trace_read(page, 0..self.small.page_bytes());
        let parsed = self.parse_id_page(bytes, page)?;
        let row = parsed.find_near(id, share)?;
        row.map_or(Ok(()), |row| self.check_row(row, page))?;
        Ok(row)
    }

    /// An id page may name only rows that exist.
    fn check_row(&self, row: Row, page: u32) -> Result<(), Error> {
        if row.is_tombstone() || row.get() < self.row_count() {
            return Ok(());
        }
        let what = format!("id page {page} names row {row} of {} rows", self.row_count());
        Err(Error::corrupt(&*self.name, self.offset(Kind::Id, page), what))
    }

    fn parse_id_page<'a>(&'a self, bytes: &'a [u8], page: u32) -> Result<IdPage<'a>, Error> {
        let offset = self.offset(Kind::Id, page);
        Ok(IdPage::parse(bytes, self.identity.id_kind, &self.name, offset)?)
    }

    /// Whether the filter says that an id is not in here.
    #[inline]
    pub(crate) fn denies(&self, hash: impl FnOnce() -> IdHash) -> bool {
        self.index.filter().is_some_and(|filter| !filter.may_contain(hash()))
    }

    /// The id page that a lookup of `id` reads; `None` when it reads none.
    pub(crate) fn id_page_of(&self, id: IdRef<'_>) -> Option<u32> {
        self.index.fences()?.page_for(id)
    }

    /// Finds many ascending ids: calls `found` with the position of each id that is in here. An id
    /// page is looked up once.
    pub(crate) async fn find_sorted(
        self: &Arc<Self>,
        context: &ReadContext,
        ids: &[IdRef<'_>],
        mut found: impl FnMut(usize, Row),
    ) -> Result<(), Error> {
        let start = ids.partition_point(|id| *id < self.meta.min_id.as_id_ref());
        let end = ids.partition_point(|id| *id <= self.meta.max_id.as_id_ref());
        let Some(fences) = self.index.fences() else {
            let index = self.footer.summary().id_index;
            for (position, id) in (start..end).zip(&ids[start..end]) {
                if let Some(row) = index.find_dense(*id) {
                    found(position, row);
                }
            }
            return Ok(());
        };
        let positions = self.index.possible(ids, start..end);
        let Some((first, last)) = positions.first().zip(positions.last()) else { return Ok(()) };
        let page_of = |position: &usize| fences.page_for(ids[*position]);
        let pages = page_of(first).unwrap_or(0)..page_of(last).map_or(self.id_pages(), |it| it + 1);
        if pages.len() * MERGE_IDS_PER_PAGE < positions.len() {
            let found = |at, row| found(start + at, row);
            return self.merge_sorted(context, &ids[start..end], pages, found).await;
        }
        for window in positions.chunks(ID_PAGES_AHEAD) {
            self.find_in_pages(context, ids, window, &mut found).await?;
        }
        Ok(())
    }

    /// Finds the ids at ascending positions, whose id pages are loaded in one submission.
    async fn find_in_pages(
        self: &Arc<Self>,
        context: &ReadContext,
        ids: &[IdRef<'_>],
        positions: &[usize],
        mut found: impl FnMut(usize, Row),
    ) -> Result<(), Error> {
        let page_of = |position: &usize| Some((*position, self.id_page_of(ids[*position])?));
        let places: Vec<(usize, u32)> = positions.iter().filter_map(page_of).collect();
        let mut pages: Vec<(&Arc<Self>, u32)> =
            places.iter().map(|(_, page)| (self, *page)).collect();
        pages.dedup_by_key(|(_, page)| *page);
        prefetch(context, &pages, Kind::Id).await?;
        for place in places.chunk_by(|one, other| one.1 == other.1) {
            let page = place[0].1;
            let guard = self.page(context, Kind::Id, page).await?;
            for (position, _) in place {
                if let Some(row) = self.find_in_page(&guard, page, ids[*position], Share::HALF)? {
                    found(*position, row);
                }
            }
        }
        Ok(())
    }

    /// As [`Self::find_sorted`] when there are several ids to a page: walks both in order. All ids
    /// that the segment has lie in the pages `among`.
    async fn merge_sorted(
        self: &Arc<Self>,
        context: &ReadContext,
        ids: &[IdRef<'_>],
        among: Range<u32>,
        mut found: impl FnMut(usize, Row),
    ) -> Result<(), Error> {
        let mut position = 0;
        for page in among.clone() {
            if (page - among.start).is_multiple_of(ID_PAGES_AT_ONCE) {
                let end = among.end.min(page + ID_PAGES_AT_ONCE);
                let pages: Vec<(&Arc<Self>, u32)> = (page..end).map(|page| (self, page)).collect();
                prefetch(context, &pages, Kind::Id).await?;
            }
            let guard = self.page(context, Kind::Id, page).await?;
            for entry in self.parse_id_page(&guard, page)?.iter() {
                let (id, row) = entry?;
                while ids.get(position).is_some_and(|wanted| *wanted < id) {
                    position += 1;
                }
                // An id may be asked for more than once.
                while ids.get(position) == Some(&id) {
                    self.check_row(row, page)?;
                    found(position, row);
                    position += 1;
                }
            }
            if ids.len() <= position {
                break;
            }
        }
        Ok(())
    }

    /// Number of id pages; 0 for a dense segment.
    pub(crate) fn id_pages(&self) -> u32 {
        page_count(&self.footer, SectionKind::IdPages)
    }

    /// All entries of one id page, in order.
    pub(crate) async fn id_page_entries(
        &self,
        context: &ReadContext,
        page: u32,
    ) -> Result<Vec<(nephrite_format::Id, Row)>, Error> {
        let guard = self.page(context, Kind::Id, page).await?;
        let parsed = self.parse_id_page(&guard, page)?;
        let entries: Result<Vec<_>, _> =
            parsed.iter().map(|entry| entry.map(|(id, row)| (id.to_id(), row))).collect();
        Ok(entries?)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Some(garbage) = self.garbage.get() {
            garbage.add(self.meta.file);
        }
    }
}

pub(super) fn page_count(footer: &SegmentFooter, kind: SectionKind) -> u32 {
    let pages = footer.section(kind).map_or(0, Section::page_count);
    u32::try_from(pages).expect("a decoded footer holds fewer than 2^32 pages")
}

async fn check_length(
    context: &ReadContext,
    file: &FileHandle,
    meta: &SegmentMeta,
    name: &str,
) -> Result<(), Error> {
    let found = context.disk.file_len(file).await?;
    if found == meta.file_bytes && 2 * BLOCK_BYTES as u64 <= found {
        return Ok(());
    }
    let what = format!("the file has {found} bytes where the manifest says {}", meta.file_bytes);
    Err(Error::corrupt(name, found.min(meta.file_bytes), what))
}

fn check_header(page: &[u8], identity: &Identity, name: &str) -> Result<(), Error> {
    let header = FileHeader::decode(page, name)?;
    header.expect_identity(identity.store, identity.file, name)?;
    if header.segment(name)? == identity.header().segment(name)? {
        return Ok(());
    }
    Err(Error::corrupt(name, 0, "the header describes another database than the manifest"))
}

fn check_summary(
    footer: &SegmentFooter,
    meta: &SegmentMeta,
    database: DatabaseId,
    name: &str,
) -> Result<(), Error> {
    let summary = footer.summary();
    let fits = summary.database == database
        && summary.row_count == meta.row_count
        && summary.entry_count == meta.entry_count
        && footer.file_bytes() == meta.file_bytes;
    if fits {
        return Ok(());
    }
    let what = "the footer does not fit the manifest".to_owned();
    Err(Error::corrupt(name, footer.footer_offset(), what))
}
