//! One segment: which pages hold, and which ids they give.
//!
//! Every page is checked against its entry of the checksum table. A table page that is damaged
//! itself still serves: an entry that agrees with its page proves both. One flipped bit in a page
//! that is no vector page is mended, for a bounded number of pages. Where the parts lie says
//! `anatomy`; what the id pages give, `index`.
//! Tested in `tests/it/repair*`.

mod anatomy;
mod index;

use nephrite_format::{
    BLOCK_BYTES_U64, Id, Lsn, Row,
    filter::IdFilter,
    manifest::SegmentMeta,
    mend::mend_sealed,
    page_checksum,
    segment::{CHECKSUMS_PER_PAGE, ChecksumTablePage, checksum_position},
};

use self::anatomy::Anatomy;
use super::{
    listing::Found,
    raw::{Raw, header_of},
    work::Reader,
};
use crate::{error::Error, segment::seal::Identity, verify::Damage};

/// Pages of one segment that are tried for a flipped bit; each costs about 10 ms.
const MENDS_MAX: u32 = 64;

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
}
