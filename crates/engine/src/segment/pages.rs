//! Pages of a segment: from a page number to a pinned, verified page.
//!
//! A page is verified when it is loaded, on the I/O thread, before anyone sees it. Its checksum is
//! taken from the checksum table first, which is read through the cache as well, so a load that
//! fails verification fails for every waiter and is not cached.
//!
//! Guarantees: no byte of a page that does not match its checksum is ever lent out; no load waits
//! for anything while it holds a frame; nothing here waits for a frame while it holds a pin.
//! Cancel safety: a dropped read leaves its loads to finish for others.

use std::{ops::Range, sync::Arc};

use nephrite_format::{
    BLOCK_BYTES, FileId, IdRef, PageIdentity, Row, page_checksum,
    segment::{ChecksumTablePage, Section, SectionKind, checksum_position},
};
use nephrite_io::{FileHandle, IoBuffer, Operation, Request};
use nephrite_pager::{CachedFile, FrameWait, Load, LoadError, Lookup, PageGuard};

use super::reader::{ReadContext, Segment, page_count};
use crate::{error::Error, log_file::aligned, vector::VectorRef};

/// How a page is checked when it is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Check {
    /// Against this checksum.
    Checksum(u64),
    /// It carries its own.
    Table,
}

/// What vectors are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Point,
    Scan,
}

impl Purpose {
    fn kind(self) -> Kind {
        match self {
            Self::Point => Kind::Vector,
            Self::Scan => Kind::Scanned,
        }
    }
}

/// Which pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Vector,
    /// Vector pages, for a scan: it leaves in the cache what others use.
    Scanned,
    Id,
    Table,
}

impl Segment {
    /// The vector page of a row.
    pub(crate) fn page_of(&self, row: Row) -> u32 {
        self.identity.layout.page_of(row).page
    }

    /// The vector of a row.
    pub(crate) async fn vector(&self, context: &ReadContext, row: Row) -> Result<VectorRef, Error> {
        let guard = self.page(context, Kind::Vector, self.page_of(row)).await?;
        self.trace_vector(row);
        Ok(self.vector_in(guard, row))
    }

    /// The vector of a row in its pinned page.
    pub(crate) fn vector_in(&self, page: PageGuard, row: Row) -> VectorRef {
        let layout = &self.identity.layout;
        let place = layout.page_of(row);
        VectorRef::in_page(page, place.offset, layout.vector_bytes())
    }

    /// Tells the trace, if there is one, that the vector of a row is being read.
    pub(crate) fn trace_vector(&self, row: Row) {
        let layout = &self.identity.layout;
        let place = layout.page_of(row);
        self.vectors.trace_read(place.page, near(place.offset, layout.vector_bytes()));
    }

    /// The vector of a row, if its page is in memory.
    #[inline]
    pub(crate) fn resident_vector(&self, row: Row) -> Option<VectorRef> {
        let layout = &self.identity.layout;
        let place = layout.page_of(row);
        let near = near(place.offset, layout.vector_bytes());
        let guard = self.vectors.try_hit(place.page, near.clone())?;
        self.vectors.trace_read(place.page, near);
        Some(VectorRef::in_page(guard, place.offset, layout.vector_bytes()))
    }

    /// Asks the processor for what [`Self::resident_vector`] needs first.
    #[inline]
    pub(crate) fn prefetch_vector_entry(&self, row: Row) {
        self.vectors.prefetch_entry(self.page_of(row));
    }

    /// The second step after [`Self::prefetch_vector_entry`].
    #[inline]
    pub(crate) fn prefetch_vector(&self, row: Row) {
        let layout = &self.identity.layout;
        let place = layout.page_of(row);
        self.vectors.prefetch_frame(place.page, near(place.offset, layout.vector_bytes()));
    }

    /// A pinned vector page, or the wait for a frame when all are pinned.
    pub(crate) async fn try_vector_page(
        &self,
        context: &ReadContext,
        page: u32,
        purpose: Purpose,
    ) -> Result<Result<PageGuard, FrameWait>, Error> {
        self.try_page(context, purpose.kind(), page).await
    }

    /// Number of vector pages.
    pub(crate) fn vector_pages(&self) -> u32 {
        page_count(&self.footer, SectionKind::VectorPages)
    }

    /// Reads consecutive vector pages past the cache and verifies them: for compaction. The caller
    /// holds no file.
    pub(crate) async fn read_vector_pages(
        &self,
        context: &ReadContext,
        first: u32,
        count: u32,
    ) -> Result<IoBuffer, Error> {
        self.read_pages(context, Kind::Vector, first, count).await
    }

    /// As [`Self::read_vector_pages`], of id pages.
    pub(crate) async fn read_id_pages(
        &self,
        context: &ReadContext,
        first: u32,
        count: u32,
    ) -> Result<IoBuffer, Error> {
        self.read_pages(context, Kind::Id, first, count).await
    }

    async fn read_pages(
        &self,
        context: &ReadContext,
        kind: Kind,
        first: u32,
        count: u32,
    ) -> Result<IoBuffer, Error> {
        let page_bytes = match kind {
            Kind::Vector | Kind::Scanned => self.identity.layout.page_bytes() as usize,
            Kind::Id | Kind::Table => BLOCK_BYTES,
        };
        let file = context.files.get(self.meta.file).await?;
        let buffer = IoBuffer::Owned(aligned(count as usize * page_bytes)?);
        let offset = self.offset(kind, first);
        let buffer = nephrite_io::read(&*context.disk, &file, offset, buffer).await?;
        drop(file); // nobody waits for a file while holding one
        for (bytes, page) in buffer.as_slice().chunks_exact(page_bytes).zip(first..) {
            let check = self.check_for(context, kind, page).await?;
            let place = self.identity.page(self.offset(kind, page));
            verify(bytes, place, check, page, &self.name)?;
        }
        Ok(buffer)
    }

    /// Name of the file and offset of an id page, for errors.
    pub(crate) fn id_page_place(&self, page: u32) -> (&str, u64) {
        (&self.name, self.offset(Kind::Id, page))
    }

    /// The id page from which on an id can be; 0 in a segment of consecutive ids.
    pub(crate) fn first_id_page(&self, id: IdRef<'_>) -> u32 {
        self.index.fences().and_then(|fences| fences.page_for(id)).unwrap_or(0)
    }

    /// The page of the checksum table that a page which is not in memory is checked with; `None`
    /// when the page is there.
    fn missing(&self, kind: Kind, page: u32) -> Option<u32> {
        let (cached, number) = self.cached(kind, page);
        if cached.contains(number) {
            return None;
        }
        let index = self.footer.checksum_index(section_of(kind), page)?;
        Some(checksum_position(index).0)
    }

    /// Takes a frame for a page that is not in memory: a request for one submission with others.
    /// `None` when the page is there or on its way, or no frame is free.
    fn begin_load(
        &self,
        file: &FileHandle,
        kind: Kind,
        page: u32,
        check: Check,
    ) -> Option<Request> {
        match self.look_up(kind, page) {
            Lookup::Load(load) => Some(self.request(file.clone(), kind, page, load, check)),
            Lookup::Hit(_) | Lookup::Wait(_) | Lookup::Full(_) => None,
        }
    }

    pub(super) async fn page(
        &self,
        context: &ReadContext,
        kind: Kind,
        page: u32,
    ) -> Result<PageGuard, Error> {
        loop {
            match self.try_page(context, kind, page).await? {
                Ok(guard) => return Ok(guard),
                Err(full) => full.await,
            }
        }
    }

    /// As [`Self::page`], but gives the wait back when every frame is pinned, so that a caller
    /// that holds pins can let go of them first.
    async fn try_page(
        &self,
        context: &ReadContext,
        kind: Kind,
        page: u32,
    ) -> Result<Result<PageGuard, FrameWait>, Error> {
        let (mut check, mut file) = (None, None);
        loop {
            let waiting = match self.look_up(kind, page) {
                Lookup::Hit(guard) => return Ok(Ok(guard)),
                Lookup::Full(full) => return Ok(Err(full)),
                Lookup::Wait(wait) => wait,
                Lookup::Load(load) => {
                    check = check.or_else(|| self.check_if_resident(kind, page));
                    file = file.or_else(|| context.files.find(self.meta.file));
                    let (Some(check), Some(file)) = (check, &file) else {
                        // A load that waits for something else would hold a frame meanwhile.
                        drop(load);
                        drop(file.take()); // nobody waits for a file while holding one
                        check = match self.try_check_for(context, kind, page).await? {
                            Ok(check) => Some(check),
                            Err(full) => return Ok(Err(full)),
                        };
                        file = Some(context.files.get(self.meta.file).await?);
                        continue;
                    };
                    let wait = load.wait();
                    let request = self.request(FileHandle::clone(file), kind, page, load, check);
                    context.disk.submit(vec![request]);
                    wait
                }
            };
            match waiting.await {
                Ok(guard) => return Ok(Ok(guard)),
                Err(error) if error.is_abandoned() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn look_up(&self, kind: Kind, page: u32) -> Lookup {
        let (cached, number) = self.cached(kind, page);
        match kind {
            Kind::Scanned => cached.get_for_scan(number),
            Kind::Vector | Kind::Id | Kind::Table => cached.get(number),
        }
    }

    fn cached(&self, kind: Kind, page: u32) -> (&Arc<CachedFile>, u32) {
        match kind {
            Kind::Vector | Kind::Scanned => (&self.vectors, page),
            Kind::Id => (&self.small, page),
            Kind::Table => (&self.small, self.id_pages() + page),
        }
    }

    /// What a page must look like, from the checksum table; or the wait for a frame.
    async fn try_check_for(
        &self,
        context: &ReadContext,
        kind: Kind,
        page: u32,
    ) -> Result<Result<Check, FrameWait>, Error> {
        if kind == Kind::Table {
            return Ok(Ok(Check::Table));
        }
        let index = self.footer.checksum_index(section_of(kind), page).ok_or_else(|| {
            let what = format!("page {page} is asked for, which the footer does not know");
            Error::corrupt(&*self.name, self.footer.footer_offset(), what)
        })?;
        let (table_page, position) = checksum_position(index);
        let guard = match Box::pin(self.try_page(context, Kind::Table, table_page)).await? {
            Ok(guard) => guard,
            Err(full) => return Ok(Err(full)),
        };
        let offset = self.offset(Kind::Table, table_page);
        let table = ChecksumTablePage::assume_verified(&guard, offset, &self.name)?;
        Ok(Ok(Check::Checksum(table.entry(position))))
    }

    /// What a page must look like, if the page of the checksum table is in memory.
    fn check_if_resident(&self, kind: Kind, page: u32) -> Option<Check> {
        if kind == Kind::Table {
            return Some(Check::Table);
        }
        let index = self.footer.checksum_index(section_of(kind), page)?;
        let (table_page, position) = checksum_position(index);
        let (cached, number) = self.cached(Kind::Table, table_page);
        if !cached.contains(number) {
            return None;
        }
        let Lookup::Hit(guard) = cached.get(number) else { return None };
        let offset = self.offset(Kind::Table, table_page);
        let table = ChecksumTablePage::assume_verified(&guard, offset, &self.name).ok()?;
        Some(Check::Checksum(table.entry(position)))
    }

    /// As [`Self::try_check_for`], waiting for a frame. The caller holds no pins.
    async fn check_for(
        &self,
        context: &ReadContext,
        kind: Kind,
        page: u32,
    ) -> Result<Check, Error> {
        loop {
            match self.try_check_for(context, kind, page).await? {
                Ok(check) => return Ok(check),
                Err(full) => full.await,
            }
        }
    }

    fn request(
        &self,
        file: FileHandle,
        kind: Kind,
        page: u32,
        mut load: Load,
        check: Check,
    ) -> Request {
        let offset = self.offset(kind, page);
        let place = self.identity.page(offset);
        let name = Arc::clone(&self.name);
        let buffer = IoBuffer::Region(load.take_buffer());
        let on_complete = Box::new(move |done: nephrite_io::Completed| {
            // A buffer that the ring kept (shutdown with operations in flight) abandons the load.
            let Some(IoBuffer::Region(region)) = done.buffer else { return };
            let outcome = match done.result {
                Err(error) => Err(Error::from(error)),
                Ok(()) => verify(&region, place, check, page, &name),
            };
            load.complete(region, outcome.map_err(LoadError::new));
        });
        Request { file, operation: Operation::Read { offset, buffer }, on_complete }
    }

    pub(super) fn offset(&self, kind: Kind, page: u32) -> u64 {
        let section: Option<&Section> = self.footer.section(section_of(kind));
        section.map_or(0, |section| section.page_offset(page))
    }
}

/// Bytes of a page that are wanted soon.
pub(super) fn near(start: usize, len: usize) -> Range<u32> {
    let end = u32::try_from(start + len).unwrap_or(u32::MAX); // pages have at most 64 KiB
    u32::try_from(start).unwrap_or(end)..end
}

fn section_of(kind: Kind) -> SectionKind {
    match kind {
        Kind::Vector | Kind::Scanned => SectionKind::VectorPages,
        Kind::Id => SectionKind::IdPages,
        Kind::Table => SectionKind::ChecksumTable,
    }
}

/// Starts the loads of vector pages that are not in memory, ascending by segment and page: one
/// submission for the checksum pages that are missing, then one for the pages themselves.
pub(crate) async fn prefetch_vector_pages(
    context: &ReadContext,
    pages: &[(&Arc<Segment>, u32)],
    purpose: Purpose,
) -> Result<(), Error> {
    prefetch(context, pages, purpose.kind()).await
}

/// As [`prefetch_vector_pages`], of id pages.
pub(crate) async fn prefetch_id_pages(
    context: &ReadContext,
    pages: &[(&Arc<Segment>, u32)],
) -> Result<(), Error> {
    prefetch(context, pages, Kind::Id).await
}

pub(super) async fn prefetch(
    context: &ReadContext,
    pages: &[(&Arc<Segment>, u32)],
    kind: Kind,
) -> Result<(), Error> {
    let mut missing: Vec<(&Arc<Segment>, u32, u32)> = Vec::with_capacity(pages.len());
    missing.extend(pages.iter().filter_map(|(segment, page)| {
        segment.missing(kind, *page).map(|table_page| (*segment, *page, table_page))
    }));
    if missing.len() < 2 {
        return Ok(()); // nothing to gain over loading it when it is used
    }
    let files = open_files(context, &missing).await?;
    let mut tables: Vec<(&Arc<Segment>, u32)> =
        missing.iter().map(|(segment, _, table_page)| (*segment, *table_page)).collect();
    tables.dedup_by_key(|(segment, page)| (segment.file(), *page));
    let loads = tables.iter().filter_map(|(segment, page)| {
        segment.begin_load(file_of(&files, segment)?, Kind::Table, *page, Check::Table)
    });
    submit(context, loads.collect());
    drop(files); // nobody waits for a file while holding one
    let mut checks = Vec::with_capacity(missing.len());
    for (segment, page, _) in &missing {
        checks.push(segment.check_for(context, kind, *page).await?);
    }
    let files = open_files(context, &missing).await?;
    // From the first frame taken to the submission nothing waits.
    let loads = missing.iter().zip(checks).filter_map(|((segment, page, _), check)| {
        segment.begin_load(file_of(&files, segment)?, kind, *page, check)
    });
    submit(context, loads.collect());
    Ok(())
}

/// The files of segments, ascending, as far as they can be had without waiting for others to close:
/// pages of the rest are loaded when they are used.
async fn open_files(
    context: &ReadContext,
    segments: &[(&Arc<Segment>, u32, u32)],
) -> Result<Vec<(FileId, FileHandle)>, Error> {
    let mut files: Vec<(FileId, FileHandle)> = Vec::new();
    let mut last = None;
    for (segment, ..) in segments {
        if last.replace(segment.file()) == Some(segment.file()) {
            continue;
        }
        if let Some(file) = context.files.try_get(segment.file()).await? {
            files.push((segment.file(), file));
        }
    }
    Ok(files)
}

fn file_of<'a>(files: &'a [(FileId, FileHandle)], segment: &Segment) -> Option<&'a FileHandle> {
    let at = files.binary_search_by_key(&segment.file(), |(id, _)| *id).ok()?;
    Some(&files[at].1)
}

fn submit(context: &ReadContext, requests: Vec<Request>) {
    if !requests.is_empty() {
        context.disk.submit(requests);
    }
}

pub(super) fn verify(
    bytes: &[u8],
    place: PageIdentity,
    check: Check,
    page: u32,
    name: &str,
) -> Result<(), Error> {
    match check {
        Check::Table => Ok(ChecksumTablePage::verify(bytes, place, name).map(drop)?),
        Check::Checksum(stored) => {
            let found = page_checksum(place, bytes);
            if found == stored {
                return Ok(());
            }
            let what =
                format!("page {page} has checksum {found:#018x} where {stored:#018x} was stored");
            Err(Error::corrupt(name, place.offset, what))
        }
    }
}
