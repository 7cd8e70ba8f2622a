//! Pages of a segment: from a page number to a pinned, verified page.
//!
//! A page is verified when it is loaded, on the I/O thread, before anyone sees it. Its checksum is
//! taken from the checksum table first, which is read through the cache as well, so a load that
//! fails verification fails for every waiter and is not cached.
//!
//! Guarantees: no byte of a page that does not match its checksum is ever lent out; no load waits
//! for anything while it holds a frame. A read waits for files and for other reads, which end; it
//! never waits for a guard to be dropped: without a frame it goes past the cache (`bypass`).
//! Cancel safety: a dropped read leaves its loads to finish for others.

use std::{ops::Range, sync::Arc};

use nephrite_format::{
    BLOCK_BYTES, IdRef, PageIdentity, page_checksum,
    segment::{ChecksumTablePage, Section, SectionKind, checksum_position},
};
use nephrite_io::{FileHandle, IoBuffer, Operation, Request};
use nephrite_pager::{Bypass, CachedFile, Load, LoadError, LoadWait, Lookup, PageGuard};

use super::{
    bypass::{Page, Wanted},
    reader::{ReadContext, Segment},
    traffic::Traffic,
};
use crate::{error::Error, log_file::aligned};

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
    pub(super) fn kind(self) -> Kind {
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
    /// Reads consecutive id pages past the cache and verifies them: for compaction. The caller
    /// holds no file.
    pub(crate) async fn read_id_pages(
        &self,
        context: &ReadContext,
        first: u32,
        count: u32,
    ) -> Result<IoBuffer, Error> {
        let kind = Kind::Id;
        let page_bytes = self.page_bytes(kind);
        let file = context.files.get(self.meta.file).await?;
        let buffer = IoBuffer::Owned(aligned(count as usize * page_bytes)?);
        let offset = self.offset(kind, first);
        let buffer = nephrite_io::read(&*context.disk, &file, offset, buffer).await?;
        drop(file); // nobody waits for a file while holding one
        let checks = self.checks(context, kind, first..first + count).await?;
        let place = self.identity.page(offset);
        verify_all(buffer.as_slice(), page_bytes, place, checks, first, &self.name)?;
        Ok(buffer)
    }

    /// What consecutive pages must look like, from the checksum table.
    pub(super) async fn checks(
        &self,
        context: &ReadContext,
        kind: Kind,
        pages: Range<u32>,
    ) -> Result<Vec<Check>, Error> {
        let mut checks = Vec::with_capacity(pages.len());
        for page in pages {
            checks.push(match self.check_if_resident(kind, page) {
                Some(check) => check,
                None => self.check_for(context, kind, page).await?,
            });
        }
        Ok(checks)
    }

    pub(super) fn page_bytes(&self, kind: Kind) -> usize {
        match kind {
            Kind::Vector | Kind::Scanned => self.identity.layout.page_bytes() as usize,
            Kind::Id | Kind::Table => BLOCK_BYTES,
        }
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
    pub(super) fn missing(&self, kind: Kind, page: u32) -> Option<u32> {
        let (cached, number) = self.cached(kind, page);
        if cached.contains(number) {
            return None;
        }
        let index = self.footer.checksum_index(section_of(kind), page)?;
        Some(checksum_position(index).0)
    }

    /// Takes a frame for a page that is not in memory: a request for one submission with others.
    /// Of a page of vectors the one that begins at `start` is wanted. `None` when the page is there
    /// or on its way, or no frame is free.
    pub(super) fn begin_load(
        &self,
        traffic: &Arc<Traffic>,
        file: &FileHandle,
        kind: Kind,
        (page, start): (u32, u32),
        check: Check,
    ) -> Option<Request> {
        let (cached, number) = self.cached(kind, page);
        let load = match kind {
            Kind::Scanned => cached.start_load_for_scan(number),
            Kind::Vector => cached.start_load_of_record(number, start),
            Kind::Id | Kind::Table => cached.start_load(number),
        };
        Some(self.request(traffic, file.clone(), kind, page, load?, check))
    }

    /// A page, whole.
    pub(super) async fn page(
        &self,
        context: &ReadContext,
        kind: Kind,
        page: u32,
    ) -> Result<Page, Error> {
        self.part_of_page(context, kind, page, 0..self.page_bytes(kind)).await
    }

    /// A page, whole, for the sake of what begins at byte `start`.
    pub(super) async fn page_for(
        &self,
        context: &ReadContext,
        kind: Kind,
        page: u32,
        start: u32,
    ) -> Result<Page, Error> {
        let part = 0..self.page_bytes(kind);
        self.wanted(context, Wanted { kind, page, part, start }).await
    }

    /// A part of a page, from the cache or, when no frame can be had for it, past it. What it waits
    /// for ends by itself, whatever is pinned, also by the caller.
    pub(super) async fn part_of_page(
        &self,
        context: &ReadContext,
        kind: Kind,
        page: u32,
        part: Range<usize>,
    ) -> Result<Page, Error> {
        let start = near(part.start, 0).start;
        self.wanted(context, Wanted { kind, page, part, start }).await
    }

    async fn wanted(&self, context: &ReadContext, wanted: Wanted) -> Result<Page, Error> {
        let (kind, page, mut means) = (wanted.kind, wanted.page, None);
        loop {
            let duty = match self.look_up(&wanted) {
                Lookup::Hit(guard) => return Ok(Page::Pinned(guard)),
                Lookup::Full(full) => {
                    drop(means.take()); // nobody waits for room while holding a file
                    full.await;
                    continue;
                }
                Lookup::Wait(wait) => match loaded(wait).await? {
                    Some(guard) => return Ok(Page::Pinned(guard)),
                    None => continue,
                },
                Lookup::Load(load) => Duty::Load(load),
                Lookup::Bypass(bypass) => match self.copy_resident(&wanted) {
                    Some(copied) => return Ok(copied),
                    None => Duty::Bypass(bypass),
                },
            };
            let Some(ready) = means.take().or_else(|| self.means_at_hand(context, kind, page))
            else {
                // What waits for something else would hold a frame, or room, meanwhile.
                drop(duty);
                means = Some(self.means(context, kind, page).await?);
                continue;
            };
            match duty {
                Duty::Bypass(bypass) => {
                    return self.read_past(context, wanted, ready, bypass).await;
                }
                Duty::Load(load) => {
                    let wait = load.wait();
                    let request =
                        self.request(&context.traffic, ready.file, kind, page, load, ready.check);
                    context.disk.submit_one(request);
                    if let Some(guard) = loaded(wait).await? {
                        return Ok(Page::Pinned(guard));
                    }
                }
            }
        }
    }

    /// What a read of the page takes, if nothing has to be waited for.
    fn means_at_hand(&self, context: &ReadContext, kind: Kind, page: u32) -> Option<Means> {
        let check = self.check_if_resident(kind, page)?;
        let file = context.files.find(self.meta.file)?;
        Some(Means { check, file })
    }

    /// What a read of the page takes. The caller holds no file.
    async fn means(&self, context: &ReadContext, kind: Kind, page: u32) -> Result<Means, Error> {
        let check = self.check_for(context, kind, page).await?;
        let file = context.files.get(self.meta.file).await?;
        Ok(Means { check, file })
    }

    fn look_up(&self, wanted: &Wanted) -> Lookup {
        let (cached, number) = self.cached(wanted.kind, wanted.page);
        match wanted.kind {
            Kind::Scanned => cached.get_for_scan(number),
            Kind::Vector => cached.get_record(number, wanted.start),
            Kind::Id | Kind::Table => cached.get(number),
        }
    }

    pub(super) fn cached(&self, kind: Kind, page: u32) -> (&Arc<CachedFile>, u32) {
        match kind {
            Kind::Vector | Kind::Scanned => (&self.vectors, page),
            Kind::Id => (&self.small, page),
            Kind::Table => (&self.small, self.id_pages() + page),
        }
    }

    /// What a page must look like, from the checksum table.
    pub(super) async fn check_for(
        &self,
        context: &ReadContext,
        kind: Kind,
        page: u32,
    ) -> Result<Check, Error> {
        if kind == Kind::Table {
            return Ok(Check::Table);
        }
        let index = self.footer.checksum_index(section_of(kind), page).ok_or_else(|| {
            let what = format!("page {page} is asked for, which the footer does not know");
            Error::corrupt(&*self.name, self.footer.footer_offset(), what)
        })?;
        let (table_page, position) = checksum_position(index);
        let table_bytes = Box::pin(self.page(context, Kind::Table, table_page)).await?;
        let offset = self.offset(Kind::Table, table_page);
        let table = ChecksumTablePage::assume_verified(&table_bytes, offset, &self.name)?;
        Ok(Check::Checksum(table.entry(position)))
    }

    /// What a page must look like, if the page of the checksum table is in memory.
    pub(super) fn check_if_resident(&self, kind: Kind, page: u32) -> Option<Check> {
        if kind == Kind::Table {
            return Some(Check::Table);
        }
        let index = self.footer.checksum_index(section_of(kind), page)?;
        let (table_page, position) = checksum_position(index);
        let (cached, number) = self.cached(Kind::Table, table_page);
        let offset = self.offset(Kind::Table, table_page);
        cached.look(number, |bytes| {
            let table = ChecksumTablePage::assume_verified(bytes, offset, &self.name).ok()?;
            Some(Check::Checksum(table.entry(position)))
        })?
    }

    fn request(
        &self,
        traffic: &Arc<Traffic>,
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
        let loading = traffic.load();
        let on_complete = Box::new(move |done: nephrite_io::Completed| {
            drop(loading);
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

/// What a look-up left to its caller.
enum Duty {
    Load(Load),
    Bypass(Bypass),
}

/// What a read of a page takes.
pub(super) struct Means {
    pub(super) check: Check,
    pub(super) file: FileHandle,
}

/// The page when its load has ended; `None` when that was abandoned.
async fn loaded(wait: LoadWait) -> Result<Option<PageGuard>, Error> {
    match wait.await {
        Ok(guard) => Ok(Some(guard)),
        Err(error) if error.is_abandoned() => Ok(None),
        Err(error) => Err(error.into()),
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

/// Verifies consecutive pages, the first of which is page `first` and lies at `place`.
pub(super) fn verify_all(
    bytes: &[u8],
    page_bytes: usize,
    mut place: PageIdentity,
    checks: Vec<Check>,
    first: u32,
    name: &str,
) -> Result<(), Error> {
    for ((bytes, check), page) in bytes.chunks_exact(page_bytes).zip(checks).zip(first..) {
        verify(bytes, place, check, page, name)?;
        place.offset += page_bytes as u64;
    }
    Ok(())
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
