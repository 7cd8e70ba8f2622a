//! Many pages at once: those that are not in memory are read while their caller goes on.
//!
//! What is needed of the checksum tables is read in one submission, then the pages themselves, in
//! several: the device works on the first while the others are prepared. Nothing here waits for
//! the pages. It waits for pages of the tables, which end, and for no file while it holds one.
//! Cancel safety: a dropped call leaves its loads to finish for others.

use std::{ops::Range, sync::Arc};

use nephrite_format::{
    FileId, IdRef,
    segment::{SectionKind, checksum_position},
};
use nephrite_io::{FileHandle, Request};

use super::{
    pages::{Check, Kind, Purpose},
    reader::{ReadContext, Segment},
    traffic::Traffic,
};
use crate::error::Error;

/// Loads that are submitted together: the device begins with the first while more are prepared.
const LOADS_AT_ONCE: usize = 8;

/// A page that is not in memory.
struct Missing<'a> {
    segment: &'a Arc<Segment>,
    page: u32,
    /// Where in it begins what is wanted.
    start: u32,
    /// Its page of the checksum table.
    table_page: u32,
}

/// Starts the loads of vector pages that are not in memory, ascending by segment and page: first
/// those of checksum pages that are missing, in one submission, then the pages, in eights. With
/// each page goes where in it begins a vector that is wanted.
pub(crate) async fn prefetch_vector_pages(
    context: &ReadContext,
    pages: &[(&Arc<Segment>, (u32, u32))],
    purpose: Purpose,
) -> Result<(), Error> {
    prefetch_parts(context, pages.iter().copied(), purpose.kind()).await
}

/// As [`prefetch_vector_pages`], of id pages.
pub(crate) async fn prefetch_id_pages(
    context: &ReadContext,
    pages: &[(&Arc<Segment>, u32)],
) -> Result<(), Error> {
    prefetch(context, pages, Kind::Id).await
}

impl Segment {
    /// The id pages, ascending, that a lookup of some ascending ids reads.
    pub(crate) fn id_pages_of(&self, ids: &[IdRef<'_>]) -> Vec<u32> {
        let Some(fences) = self.index.fences() else { return Vec::new() };
        let possible = self.index.possible(ids, 0..ids.len());
        let mut pages: Vec<u32> =
            possible.into_iter().filter_map(|position| fences.page_for(ids[position])).collect();
        pages.dedup();
        pages
    }

    /// Loads of the pages of the checksum table that some vector pages are verified with, as far as
    /// they are not in memory or on their way. Nothing may wait before they are submitted.
    pub(super) fn table_loads(
        &self,
        traffic: &Arc<Traffic>,
        file: &FileHandle,
        pages: Range<u32>,
    ) -> Vec<Request> {
        let table_page = |page| {
            Some(checksum_position(self.footer.checksum_index(SectionKind::VectorPages, page)?).0)
        };
        let last = pages.end.saturating_sub(1);
        let (Some(first), Some(last)) = (table_page(pages.start), table_page(last)) else {
            return Vec::new(); // whoever verifies them is told
        };
        let loads = (first..=last).filter_map(|page| {
            self.begin_load(traffic, file, Kind::Table, (page, 0), Check::Table)
        });
        loads.collect()
    }
}

pub(super) async fn prefetch(
    context: &ReadContext,
    pages: &[(&Arc<Segment>, u32)],
    kind: Kind,
) -> Result<(), Error> {
    prefetch_parts(context, pages.iter().map(|(segment, page)| (*segment, (*page, 0))), kind).await
}

async fn prefetch_parts<'a>(
    context: &ReadContext,
    pages: impl ExactSizeIterator<Item = (&'a Arc<Segment>, (u32, u32))>,
    kind: Kind,
) -> Result<(), Error> {
    let mut missing: Vec<Missing<'_>> = Vec::with_capacity(pages.len());
    missing.extend(pages.filter_map(|(segment, (page, start))| {
        let table_page = segment.missing(kind, page)?;
        Some(Missing { segment, page, start, table_page })
    }));
    if missing.len() < 2 {
        return Ok(()); // nothing to gain over loading it when it is used
    }
    let checks = checks_of(context, &missing, kind).await?;
    let files = open_files(context, &missing).await?;
    // From the first frame taken to the last submission nothing waits.
    let mut wanted = missing.iter().zip(checks);
    while 0 < wanted.len() {
        let some = wanted.by_ref().take(LOADS_AT_ONCE);
        let loads = some.filter_map(|(it, check)| {
            let file = file_of(&files, it.segment)?;
            it.segment.begin_load(&context.traffic, file, kind, (it.page, it.start), check)
        });
        submit(context, loads.collect());
    }
    Ok(())
}

/// What pages must look like, and their pages of the checksum table: those that are not in memory
/// are read in one submission.
async fn checks_of(
    context: &ReadContext,
    pages: &[Missing<'_>],
    kind: Kind,
) -> Result<Vec<Check>, Error> {
    let resident = pages.iter().map(|it| it.segment.check_if_resident(kind, it.page));
    let resident: Vec<Option<Check>> = resident.collect();
    if resident.iter().any(Option::is_none) {
        start_tables(context, pages, &resident).await?;
    }
    let mut checks = Vec::with_capacity(pages.len());
    for (Missing { segment, page, .. }, resident) in pages.iter().zip(resident) {
        checks.push(match resident {
            Some(check) => check,
            None => segment.check_for(context, kind, *page).await?,
        });
    }
    Ok(checks)
}

/// Starts the loads of the pages of checksum tables that are not in memory.
async fn start_tables(
    context: &ReadContext,
    pages: &[Missing<'_>],
    resident: &[Option<Check>],
) -> Result<(), Error> {
    let files = open_files(context, pages).await?;
    let unknown = pages.iter().zip(resident).filter(|(_, check)| check.is_none());
    let mut tables: Vec<(&Arc<Segment>, u32)> =
        unknown.map(|(it, _)| (it.segment, it.table_page)).collect();
    tables.dedup_by_key(|(segment, page)| (segment.file(), *page));
    let loads = tables.iter().filter_map(|(segment, page)| {
        let file = file_of(&files, segment)?;
        segment.begin_load(&context.traffic, file, Kind::Table, (*page, 0), Check::Table)
    });
    submit(context, loads.collect());
    Ok(())
}

/// The files of segments, ascending, as far as they can be had without waiting for others to close:
/// pages of the rest are loaded when they are used.
async fn open_files(
    context: &ReadContext,
    pages: &[Missing<'_>],
) -> Result<Vec<(FileId, FileHandle)>, Error> {
    let mut files: Vec<(FileId, FileHandle)> = Vec::new();
    let mut last = None;
    for Missing { segment, .. } in pages {
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
