//! Verification: reads every page of every segment past the cache and checks all of it.
//!
//! Checked per segment: length, header, footer, checksum table, every vector page, every id page
//! (order and rows), the fences; and the manifest file. The log was checked when the store was
//! opened. Damage is collected, not returned as an error, and does not stop the walk.

use std::{num::NonZeroU64, time::Duration};

use nephrite_format::{
    BLOCK_BYTES, FileHeader, FileId, Id, Row,
    id_run::IdPage,
    manifest::DatabaseMeta,
    manifest::SegmentMeta,
    page_checksum,
    segment::{ChecksumTablePage, Section, SectionKind, SegmentFooter, checksum_position},
};
use nephrite_io::{FileHandle, IoBuffer};

use crate::{
    core::Core,
    error::Error,
    log_file::aligned,
    manifest::{self, ManifestState},
    paths::{manifest_name, segment_name},
    segment::seal::Identity,
};

/// Bytes read at once.
const TRANSFER_BYTES: u64 = 1 << 20;

/// How to verify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    rate: Option<NonZeroU64>,
}

impl VerifyOptions {
    /// As fast as it goes.
    #[must_use]
    pub const fn new() -> Self {
        Self { rate: None }
    }

    /// Reads at most this many bytes per second, on average since the start; 0 is no limit.
    #[must_use]
    pub const fn rate(mut self, bytes_per_second: u64) -> Self {
        self.rate = NonZeroU64::new(bytes_per_second);
        self
    }
}

/// Holds a verification to its rate.
struct Pace {
    rate: Option<NonZeroU64>,
    started: Duration,
}

impl Pace {
    /// Waits until `bytes` may have been read.
    async fn keep(&self, core: &Core, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let seconds = bytes / rate;
        let rest = u128::from(bytes % rate) * 1_000_000_000 / u128::from(rate.get());
        let due = Duration::from_secs(seconds)
            + Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX));
        let passed = core.runtime.now().saturating_sub(self.started);
        if passed < due {
            core.runtime.sleep(due - passed).await;
        }
    }
}

/// How far a verification has come.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Bytes checked so far.
    pub bytes: u64,
    /// Bytes to check in all.
    pub bytes_total: u64,
    /// Damaged places found so far.
    pub damaged: u64,
}

/// What a verification found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Files checked.
    pub files: u64,
    /// Pages checked.
    pub pages: u64,
    /// Bytes checked.
    pub bytes: u64,
    /// Every damaged place.
    pub damage: Vec<Damage>,
}

/// A damaged place.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Damage {
    /// File name within the store directory.
    pub file: String,
    /// Number of the page within its section, for vector and id pages.
    pub page: Option<u64>,
    /// Byte offset in the file.
    pub offset: u64,
    /// The database whose data it held.
    pub database: Option<String>,
    /// What is wrong.
    pub what: String,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }
}

impl Core {
    pub(crate) async fn verify(
        &self,
        options: VerifyOptions,
        mut progress: impl FnMut(VerifyProgress) + Send,
    ) -> Result<VerifyReport, Error> {
        let segments: Vec<(DatabaseMeta, SegmentMeta)> = self
            .manifest
            .read(|state| {
                let records = state.databases.values();
                let pairs = records.flat_map(|record| {
                    record.segments.iter().map(|segment| (record.meta.clone(), segment.clone()))
                });
                pairs.collect()
            })
            .await;
        let pace = Pace { rate: options.rate, started: self.runtime.now() };
        let mut report = VerifyReport::default();
        self.verify_manifest(&mut report).await?;
        let segment_bytes = segments.iter().map(|(_, segment)| segment.file_bytes);
        let bytes_total = segment_bytes.fold(report.bytes, u64::saturating_add);
        for (database, segment) in segments {
            let name = database.name.clone();
            let identity = Identity {
                store: self.store,
                file: segment.file,
                database: database.database,
                layout: database.layout,
                id_kind: database.id_kind,
            };
            let mut walk = Walk {
                core: self,
                identity,
                name: segment_name(segment.file),
                database: name,
                report: &mut report,
                progress: &mut progress,
                bytes_total,
                pace: &pace,
            };
            let known = walk.report.damage.len();
            let before = walk.report.bytes;
            walk.segment(&segment).await?;
            if !self.names(&database, segment.file).await {
                // Compacted or dropped meanwhile: no damage, and its space is given back.
                report.damage.truncate(known);
                self.read.files.forget(segment.file);
            }
            report.bytes = report.bytes.max(before.saturating_add(segment.file_bytes));
        }
        Ok(report)
    }

    /// Whether a segment is part of a database now.
    async fn names(&self, database: &DatabaseMeta, file: FileId) -> bool {
        let look = |state: &ManifestState| {
            let record = state.databases.get(&database.database);
            record.is_some_and(|record| record.segments.iter().any(|it| it.file == file))
        };
        self.manifest.read(look).await
    }

    async fn verify_manifest(&self, report: &mut VerifyReport) -> Result<(), Error> {
        let (file, content) = self.manifest.content().await?;
        report.files += 1;
        report.pages += (content.len() / BLOCK_BYTES) as u64;
        report.bytes += content.len() as u64;
        if let Err(error) = manifest::check(&content, file) {
            report.add(&manifest_name(file), None, error)?;
        }
        Ok(())
    }
}

impl VerifyReport {
    /// Notes damage; other errors are returned.
    fn add(&mut self, file: &str, database: Option<&str>, error: Error) -> Result<(), Error> {
        let (file, offset, what) = match error {
            Error::Corrupt { file, offset, what } => (file, offset, what),
            Error::VersionUnsupported { .. } => (file.to_owned(), 0, error.to_string()),
            Error::Io(ref io) if is_damage(io) => {
                (file.to_owned(), io.offset().unwrap_or(0), io.to_string())
            }
            other => return Err(other),
        };
        let database = database.map(str::to_owned);
        self.damage.push(Damage { file, page: None, offset, database, what });
        Ok(())
    }
}

/// A file that is missing or too short, or a place the device cannot read.
fn is_damage(error: &nephrite_io::IoError) -> bool {
    use nephrite_io::IoErrorKind;
    matches!(error.kind(), IoErrorKind::NotFound | IoErrorKind::UnexpectedEof | IoErrorKind::Other)
}

/// The verification of one segment.
struct Walk<'a> {
    core: &'a Core,
    identity: Identity,
    name: String,
    database: String,
    report: &'a mut VerifyReport,
    progress: &'a mut (dyn FnMut(VerifyProgress) + Send),
    bytes_total: u64,
    pace: &'a Pace,
}

impl Walk<'_> {
    async fn segment(&mut self, meta: &SegmentMeta) -> Result<(), Error> {
        self.report.files += 1;
        let walked = self.pages(meta).await;
        match walked {
            Ok(()) => Ok(()),
            Err(error) => self.report.add(&self.name, Some(&self.database), error),
        }
    }

    async fn pages(&mut self, meta: &SegmentMeta) -> Result<(), Error> {
        let core = self.core;
        let file = core.read.files.get(meta.file).await?;
        let found = core.read.disk.file_len(&file).await?;
        if found != meta.file_bytes {
            let what =
                format!("the file has {found} bytes where the manifest says {}", meta.file_bytes);
            self.report.add(
                &self.name,
                Some(&self.database),
                Error::corrupt(&self.name, found.min(meta.file_bytes), what),
            )?;
        }
        let header = self.read(&file, 0, BLOCK_BYTES as u64).await?;
        let header = FileHeader::decode(header.as_slice(), &self.name)
            .and_then(|header| {
                header.expect_identity(self.identity.store, self.identity.file, &self.name)?;
                header.segment(&self.name)
            })
            .map(drop);
        if let Err(error) = header {
            self.report.add(&self.name, Some(&self.database), error.into())?;
        }
        let Some(at) = meta.file_bytes.checked_sub(2 * BLOCK_BYTES as u64) else {
            let what = format!("the manifest says {} bytes, too few", meta.file_bytes);
            return Err(Error::corrupt(&self.name, 0, what));
        };
        let at = at + BLOCK_BYTES as u64;
        let footer = self.read(&file, at, BLOCK_BYTES as u64).await?;
        let footer = SegmentFooter::decode(
            footer.as_slice(),
            self.identity.page(at),
            &self.identity.layout,
            &self.name,
        )?;
        self.advance(2, 2 * BLOCK_BYTES as u64).await;
        let checksums = self.checksums(&file, &footer).await?;
        let kinds = [
            SectionKind::VectorPages,
            SectionKind::IdPages,
            SectionKind::Fences,
            SectionKind::Filter,
        ];
        for kind in kinds {
            if let Some(section) = footer.section(kind) {
                self.section(&file, &footer, kind, section, &checksums).await?;
            }
        }
        Ok(())
    }

    /// All checksums of the table; `None` where a table page is damaged.
    async fn checksums(
        &mut self,
        file: &FileHandle,
        footer: &SegmentFooter,
    ) -> Result<Vec<Option<u64>>, Error> {
        let count = footer.checksum_count().unwrap_or(0);
        let mut checksums = vec![None; count as usize];
        let Some(table) = footer.section(SectionKind::ChecksumTable) else {
            return Ok(checksums);
        };
        let per_page = nephrite_format::segment::CHECKSUMS_PER_PAGE;
        for page in 0..u32::try_from(table.page_count()).unwrap_or(u32::MAX) {
            let offset = table.page_offset(page);
            let bytes = self.read(file, offset, BLOCK_BYTES as u64).await?;
            self.advance(1, BLOCK_BYTES as u64).await;
            let place = self.identity.page(offset);
            match ChecksumTablePage::verify(bytes.as_slice(), place, &self.name) {
                Ok(verified) => {
                    for index in page * per_page..count.min((page + 1) * per_page) {
                        let (_, position) = checksum_position(index);
                        checksums[index as usize] = Some(verified.entry(position));
                    }
                }
                Err(error) => self.report.add(&self.name, Some(&self.database), error.into())?,
            }
        }
        Ok(checksums)
    }

    async fn section(
        &mut self,
        file: &FileHandle,
        footer: &SegmentFooter,
        kind: SectionKind,
        section: &Section,
        checksums: &[Option<u64>],
    ) -> Result<(), Error> {
        let page_bytes = u64::from(section.page_bytes);
        let pages_at_once = (TRANSFER_BYTES / page_bytes).max(1);
        let mut last: Option<Id> = None;
        let mut page = 0;
        while page < section.page_count() {
            let count = pages_at_once.min(section.page_count() - page);
            let offset = section.offset + page * page_bytes;
            let bytes = self.read(file, offset, count * page_bytes).await?;
            self.advance(count, count * page_bytes).await;
            let size = section.page_bytes as usize;
            for (bytes, number) in bytes.as_slice().chunks_exact(size).zip(page..) {
                let offset = section.offset + number * page_bytes;
                let number32 = u32::try_from(number).unwrap_or(u32::MAX);
                let stored = footer
                    .checksum_index(kind, number32)
                    .and_then(|index| checksums.get(index as usize).copied().flatten());
                let checked = self.page(kind, bytes, offset, stored, footer, &mut last);
                if let Err(what) = checked {
                    self.damaged(number, offset, what);
                }
            }
            page += count;
        }
        Ok(())
    }

    fn page(
        &self,
        kind: SectionKind,
        bytes: &[u8],
        offset: u64,
        stored: Option<u64>,
        footer: &SegmentFooter,
        last: &mut Option<Id>,
    ) -> Result<(), String> {
        let Some(stored) = stored else {
            return Err("its checksum is lost with a damaged page of the checksum table".to_owned());
        };
        let found = page_checksum(self.identity.page(offset), bytes);
        if found != stored {
            return Err(format!("checksum {found:#018x} where {stored:#018x} was stored"));
        }
        if kind == SectionKind::IdPages {
            self.id_page(bytes, offset, footer, last)?;
        }
        Ok(())
    }

    fn id_page(
        &self,
        bytes: &[u8],
        offset: u64,
        footer: &SegmentFooter,
        last: &mut Option<Id>,
    ) -> Result<(), String> {
        let kind = self.identity.id_kind;
        let page = IdPage::parse(bytes, kind, &self.name, offset).map_err(|e| e.to_string())?;
        for entry in page.iter() {
            let (id, row): (_, Row) = entry.map_err(|error| error.to_string())?;
            if last.as_ref().is_some_and(|last| id <= last.as_id_ref()) {
                return Err(format!("id {} is out of order", id.to_id()));
            }
            if !row.is_tombstone() && footer.summary().row_count <= row.get() {
                return Err(format!("id {} names row {row}, which is not there", id.to_id()));
            }
            *last = Some(id.to_id());
        }
        Ok(())
    }

    fn damaged(&mut self, page: u64, offset: u64, what: String) {
        self.report.damage.push(Damage {
            file: self.name.clone(),
            page: Some(page),
            offset,
            database: Some(self.database.clone()),
            what: format!("page {page}: {what}"),
        });
    }

    async fn read(&self, file: &FileHandle, offset: u64, len: u64) -> Result<IoBuffer, Error> {
        let len = usize::try_from(len).expect("at most a page or 1 MiB");
        let buffer = IoBuffer::Owned(aligned(len)?);
        Ok(nephrite_io::read(&*self.core.read.disk, file, offset, buffer).await?)
    }

    async fn advance(&mut self, pages: u64, bytes: u64) {
        self.report.pages += pages;
        self.report.bytes += bytes;
        (self.progress)(VerifyProgress {
            bytes: self.report.bytes.min(self.bytes_total),
            bytes_total: self.bytes_total,
            damaged: self.report.damage.len() as u64,
        });
        self.pace.keep(self.core, self.report.bytes).await;
    }
}
