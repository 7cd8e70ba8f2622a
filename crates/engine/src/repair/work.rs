//! The steps of a repair: look at everything, plan each database, tell, and carry it out.
//!
//! Up to the last step nothing is written but what puts an interrupted repair's files back.
//! Tested in `tests/it/repair*`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use nephrite_format::{DatabaseId, ElementType, FileId, VectorLayout, wal::WalRecord};
use nephrite_io::{Disk, IoErrorKind};

use super::{
    RepairMode,
    listing::Listing,
    log::{self, Log},
    notes::{note_lost_records, note_what_is_done},
    plan::{Planner, Source},
    raw::{Raw, header_of},
    report::{Loss, LossKind, RepairReport},
    salvage,
    state::{self, Known},
};
use crate::{
    config::Config,
    error::Error,
    opening::Opening,
    paths::{StorePaths, segment_name},
};

/// Where a repair reads and writes.
pub(super) struct Reader {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) paths: StorePaths,
}

/// Looks at a store that is not open, and repairs it unless only looking is asked for.
///
/// Of `config` only the disk and its backend are used.
///
/// # Errors
/// `Locked` when the store is open; `NotAStore`; `VersionUnsupported` for files of a newer build;
/// `Io`. After an error the store is as it was, or the next repair goes on from where this one
/// stopped. Damage is no error: it is in the report.
///
/// # Cancel safety
/// A future that is dropped half-way is like a crash: the next repair finishes it.
pub async fn repair(
    path: impl AsRef<Path>,
    config: Config,
    mode: RepairMode,
) -> Result<RepairReport, Error> {
    let (disk, paths) = Opening::prepare_existing(path.as_ref(), config)?.into_parts();
    let lock = disk.lock(&paths.lock()).await.map_err(|error| match error.kind() {
        IoErrorKind::Locked => Error::Locked { path: paths.root().to_owned() },
        _ => error.into(),
    })?;
    let reader = Reader { disk, paths };
    let outcome = reader.run(mode).await;
    drop(lock);
    let closed = reader.disk.shutdown().await;
    let report = outcome?;
    closed?;
    Ok(report)
}

impl Reader {
    async fn run(&self, mode: RepairMode) -> Result<RepairReport, Error> {
        let mut report = RepairReport { dry_run: mode == RepairMode::DryRun, ..Default::default() };
        let mut listing = Listing::read(&self.disk, &self.paths).await?;
        let mut known = state::read(self, &listing, &mut report).await?;
        listing.forget_unneeded(&self.paths, &known);
        if mode == RepairMode::Repair && !listing.moved(&self.paths).is_empty() {
            self.move_back(&listing).await?;
            listing = Listing::read(&self.disk, &self.paths).await?;
            listing.forget_unneeded(&self.paths, &known);
        }
        let log = log::read(self, &known, &listing, &mut report).await?;
        known.check_against(&log, &listing, &mut report);
        let sources = self.sources(&mut known, &listing, &log, &mut report).await?;
        let converts_log = self.must_convert(&known, &listing, &log, &mut report).await?;
        let planner =
            Planner { reader: self, known: &known, listing: &listing, log: &log, converts_log };
        let mut plans = Vec::new();
        for (database, sources) in sources {
            let Some(record) = known.state.databases.get(&database) else { continue };
            plans.extend(planner.database(record, sources, &mut report).await?);
        }
        if converts_log {
            note_lost_records(&known, &log, &mut report);
        }
        if !report.is_clean() {
            note_what_is_done(&planner, &plans, &mut report);
        }
        if mode == RepairMode::Repair {
            self.carry_out(&planner, &plans, &mut report).await?;
        }
        Ok(report)
    }

    /// The segments of each database. Without a whole manifest the files themselves are asked, and
    /// databases that only they know appear under made-up names.
    async fn sources(
        &self,
        known: &mut Known,
        listing: &Listing,
        log: &Log,
        report: &mut RepairReport,
    ) -> Result<BTreeMap<DatabaseId, Vec<Source>>, Error> {
        let mut sources: BTreeMap<DatabaseId, Vec<Source>> = BTreeMap::new();
        for (database, record) in &known.state.databases {
            let named = record.segments.iter();
            let named = named.map(|meta| Source { file: meta.file, meta: Some(meta.clone()) });
            sources.insert(*database, named.collect());
        }
        if known.is_whole {
            return Ok(sources);
        }
        let named: BTreeSet<FileId> =
            sources.values().flatten().map(|source| source.file).collect();
        for (file, found) in &listing.segments {
            let is_made = listing.made_from.is_some_and(|first| first <= *file);
            if is_made || named.contains(file) || known.removed.contains(file) {
                continue;
            }
            let Some(raw) = Raw::open(&self.disk, &found.path).await? else { continue };
            let page = raw.block(0).await?;
            if page.as_deref().is_some_and(|page| page.iter().all(|byte| *byte == 0)) {
                continue; // not sealed: bulk records say what it holds
            }
            let (header, _) = header_of(page.as_deref(), &found.name)?;
            let header = header.filter(|it| it.store == known.store && it.file == *file);
            match header.and_then(|header| header.segment(&found.name).ok()) {
                Some(detail) if !known.dropped.contains(&detail.database) => {
                    let (id_kind, layout) = (detail.id_kind, detail.layout);
                    known.adopt(detail.database, id_kind, layout);
                    let source = Source { file: *file, meta: None };
                    sources.entry(detail.database).or_default().push(source);
                }
                Some(_) => {}
                None => report.losses.push(Loss {
                    kind: LossKind::Range,
                    database: None,
                    ids: Vec::new(),
                    range: None,
                    count: None,
                    file: found.name.clone(),
                    what: "neither its header nor a manifest says whose it is".to_owned(),
                }),
            }
        }
        let mut logged = Vec::new();
        let frames = log.needed(known);
        log.visit(self, known, frames, |_, _, _, record| {
            if let WalRecord::Operations(record) = record {
                logged.push((record.database, record.id_kind, record.dimension));
            }
        })
        .await?;
        for (database, id_kind, dimension) in logged {
            let Ok(layout) = VectorLayout::for_dimension(dimension, ElementType::F32) else {
                continue;
            };
            if !known.dropped.contains(&database) {
                known.adopt(database, id_kind, layout);
                sources.entry(database).or_default();
            }
        }
        Ok(sources)
    }

    /// Whether the log cannot be left to recovery.
    async fn must_convert(
        &self,
        known: &Known,
        listing: &Listing,
        log: &Log,
        report: &mut RepairReport,
    ) -> Result<bool, Error> {
        if !known.is_whole || log.is_damaged {
            return Ok(true);
        }
        if let Some(missing) = log.missing(known) {
            let (file, offset) = match log.broken.first() {
                Some(broken) => (broken.file.clone(), broken.offset),
                None => ("wal".to_owned(), 0),
            };
            let what = format!("frame {} is missing, though it was on disk", missing.sequence);
            report.note(&file, offset, None, what);
            return Ok(true);
        }
        let lost = salvage::first_lost_rows(self, known, listing, log).await?;
        if let Some(segment) = lost {
            let what = "rows of a bulk record do not have their checksum".to_owned();
            report.note(&segment_name(segment), 0, None, what);
        }
        Ok(lost.is_some())
    }
}
