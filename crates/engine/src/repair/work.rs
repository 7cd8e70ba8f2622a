//! The steps of a repair, in the order that a crash anywhere forgives (see the module header).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use nephrite_format::{
    DatabaseId, ElementType, FileId, FrameSequence, Generation, Id, Lsn, VectorLayout,
    manifest::{Counters, DatabaseMeta},
    wal::WalRecord,
};
use nephrite_io::{Disk, IoBuffer, IoErrorKind, OpenOptions};

use super::{
    RepairMode,
    listing::{self, Listing, directory_name},
    log::{self, Cut, Log},
    output::write_part,
    plan::{DatabasePlan, Planner, Source, name_of},
    raw::{Raw, header_of},
    report::{Loss, LossKind, Rebuilt, RepairReport},
    state::{self, Known},
};
use crate::{
    config::Config,
    error::Error,
    log_file::aligned,
    manifest::{self, DatabaseRecord, ManifestState},
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
        let lost = super::salvage::first_lost_rows(self, known, listing, log).await?;
        if let Some(segment) = lost {
            let what = "rows of a bulk record do not have their checksum".to_owned();
            report.note(&segment_name(segment), 0, None, what);
        }
        Ok(lost.is_some())
    }

    async fn move_back(&self, listing: &Listing) -> Result<(), Error> {
        for (from, to) in listing.moved(&self.paths) {
            self.disk.rename(&from, &to).await?;
        }
        self.sync_directories(&self.paths).await
    }

    async fn sync_directories(&self, paths: &StorePaths) -> Result<(), Error> {
        for path in [paths.wal_dir(), paths.segments_dir(), paths.root()] {
            self.disk.sync_dir(path).await?;
        }
        Ok(())
    }

    async fn carry_out(
        &self,
        planner: &Planner<'_>,
        plans: &[DatabasePlan],
        report: &mut RepairReport,
    ) -> Result<(), Error> {
        let listing = planner.listing;
        if report.is_clean() {
            for directory in &listing.interrupted {
                let text = "an interrupted repair: the store needs none of these files\n";
                self.write_report(&self.paths.root().join(directory), text).await?;
            }
            return Ok(());
        }
        for directory in [self.paths.wal_dir(), self.paths.segments_dir()] {
            self.disk.create_dir(directory).await?;
        }
        let counted = planner.known.state.counters.map_or(0, |counters| counters.next_file.get());
        let removed = planner.known.removed.last().map_or(0, |file| file.get());
        let highest = counted.max(listing.highest_file()).max(removed);
        let next_file = AtomicU64::new(highest + 1);
        let directory = directory_name(listing.next_number);
        let aside = StorePaths::new(&self.paths.root().join(&directory));
        self.begin(&aside, FileId::new(highest + 1)).await?;
        let state = self.write_segments(planner, plans, &next_file, report).await?;
        let new = self.write_manifest(planner, state, &next_file).await?;
        self.set_aside(planner, &aside, report).await?;
        manifest::publish(&self.disk, &self.paths, new).await?;
        for file in listing.manifests.keys() {
            self.remove_if_there(&self.paths.manifest(*file)).await?;
        }
        self.disk.sync_dir(self.paths.root()).await?;
        report.directory = Some(directory);
        for interrupted in &listing.interrupted {
            let text = "an interrupted repair: its files were moved back before the next one\n";
            self.write_report(&self.paths.root().join(interrupted), text).await?;
        }
        self.write_report(aside.root(), &report.to_string()).await
    }

    /// Makes the directory for what is set aside. As long as it has no report, segments from
    /// `first` on are known to be of a repair that did not come to its end.
    async fn begin(&self, aside: &StorePaths, first: FileId) -> Result<(), Error> {
        for path in [aside.root(), aside.wal_dir(), aside.segments_dir()] {
            self.disk.create_dir(path).await?;
        }
        self.write_file(&aside.root().join(listing::made_from_name(first)), b"").await?;
        self.disk.sync_dir(aside.root()).await?;
        Ok(self.disk.sync_dir(self.paths.root()).await?)
    }

    /// Writes what is made anew; returns the state that names it.
    async fn write_segments(
        &self,
        planner: &Planner<'_>,
        plans: &[DatabasePlan],
        next_file: &AtomicU64,
        report: &mut RepairReport,
    ) -> Result<ManifestState, Error> {
        let mut state = planner.known.state.clone();
        for plan in plans {
            let mut record = DatabaseRecord {
                meta: plan.meta.clone(),
                flushed_lsn: plan.flushed_lsn,
                live_records: plan.live_records,
                segments: Vec::new(),
            };
            for part in &plan.parts {
                let meta = match &part.kept {
                    Some(kept) => {
                        let (order, live_rows) = (part.order, part.live_rows);
                        nephrite_format::manifest::SegmentMeta { order, live_rows, ..kept.clone() }
                    }
                    None => {
                        let file = FileId::new(next_file.fetch_add(1, Ordering::Relaxed)); // alone
                        report.name_rebuilt(part.file(), &plan.meta.name, &segment_name(file));
                        write_part(planner, &plan.meta, part, file).await?
                    }
                };
                record.segments.push(meta);
            }
            state.databases.insert(plan.meta.database, record);
        }
        self.disk.sync_dir(self.paths.segments_dir()).await?;
        Ok(state)
    }

    async fn write_manifest(
        &self,
        planner: &Planner<'_>,
        mut state: ManifestState,
        next_file: &AtomicU64,
    ) -> Result<FileId, Error> {
        let (known, log) = (planner.known, planner.log);
        let old = known.state.counters;
        let start = crate::recovery::log_start(&known.state);
        let mut counters = Counters {
            // Whatever the manifest itself and the next files get is above this.
            next_file: FileId::new(next_file.load(Ordering::Relaxed) + 1), // alone
            next_generation: old.map_or(Generation::new(1), |old| old.next_generation),
            next_lsn: next_lsn(&state, log, old),
            wal_position: start.segment,
            wal_sequence: start.sequence,
            next_database: next_database(&state, known, old),
        };
        if planner.converts_log {
            let last = known.state.log.keys().last().copied().unwrap_or(0);
            let position = last.max(log.end_position).max(start.segment);
            let sequence = log.end_sequence.max(start.sequence.get());
            counters.wal_position = position + 1;
            counters.wal_sequence = FrameSequence::new(sequence + 1);
            state.log.clear();
        }
        state.counters = Some(counters);
        let (disk, paths) = (&self.disk, &self.paths);
        manifest::write_unpublished(disk, paths, known.store, next_file, state).await
    }

    /// Moves what is damaged away, keeping its place within the store in the name.
    async fn set_aside(
        &self,
        planner: &Planner<'_>,
        aside: &StorePaths,
        report: &RepairReport,
    ) -> Result<(), Error> {
        let manifests = &planner.listing.manifests;
        if planner.known.is_whole {
            for (file, found) in manifests {
                self.copy(&found.path, &aside.manifest(*file)).await?;
            }
        }
        for known in &report.set_aside {
            let from = self.paths.root().join(&known.file);
            let is_manifest = manifests.values().any(|found| found.name == known.file);
            if is_manifest && planner.known.is_whole {
                continue;
            }
            match self.disk.rename(&from, &aside.root().join(&known.file)).await {
                Err(error) if error.kind() != IoErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        self.sync_directories(aside).await?;
        self.sync_directories(&self.paths).await
    }

    async fn copy(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let Some(raw) = Raw::open(&self.disk, from).await? else { return Ok(()) };
        let content = raw.content().await?;
        self.write_file(to, &content).await
    }

    async fn write_file(&self, path: &Path, content: &[u8]) -> Result<(), Error> {
        let file = self.disk.open(path, OpenOptions::read_write().create()).await?;
        if !content.is_empty() {
            let whole = content.len().next_multiple_of(nephrite_format::BLOCK_BYTES);
            let mut buffer = aligned(whole)?;
            buffer[..content.len()].copy_from_slice(content);
            nephrite_io::write(&*self.disk, &file, 0, IoBuffer::Owned(buffer)).await?;
        }
        self.disk.set_len(&file, content.len() as u64).await?;
        nephrite_io::sync(&*self.disk, &file).await?;
        Ok(())
    }

    async fn write_report(&self, directory: &Path, text: &str) -> Result<(), Error> {
        self.write_file(&directory.join(listing::REPORT), text.as_bytes()).await?;
        Ok(self.disk.sync_dir(directory).await?)
    }

    async fn remove_if_there(&self, path: &Path) -> Result<(), Error> {
        match self.disk.remove_file(path).await {
            Err(error) if error.kind() != IoErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn next_lsn(state: &ManifestState, log: &Log, old: Option<Counters>) -> Lsn {
    let flushed = state.databases.values().map(|record| record.flushed_lsn.get() + 1).max();
    let counted = old.map_or(1, |old| old.next_lsn.get());
    Lsn::new(counted.max(log.end_lsn).max(flushed.unwrap_or(1)))
}

fn next_database(state: &ManifestState, known: &Known, old: Option<Counters>) -> DatabaseId {
    let used = state.databases.keys().chain(&known.dropped).max().map_or(0, |id| id.get());
    let counted = old.map_or(1, |old| old.next_database.get());
    DatabaseId::new(counted.max(used.saturating_add(1)))
}

/// Records between those that could be read, and ids that broken frames seem to name.
fn note_lost_records(known: &Known, log: &Log, report: &mut RepairReport) {
    let flushed = known.state.databases.values().map(|record| record.flushed_lsn.get()).max();
    let flushed = if known.is_whole { 0 } else { flushed.unwrap_or(0) };
    let mut count = 0;
    let mut last: Option<u64> = None;
    for frame in log.needed(known) {
        if let Some(last) = last.filter(|last| *last < frame.first_lsn) {
            count += frame.first_lsn - last.max(flushed + 1).min(frame.first_lsn);
        }
        last = last.max(Some(frame.end_lsn()));
    }
    let missing = if known.is_whole { log.missing(known) } else { None };
    let broken = log.broken.iter().filter(|broken| {
        !known.is_whole
            || log.files.iter().any(|it| it.named.is_some() && it.found.name == broken.file)
    });
    let broken: Vec<_> = broken.collect();
    let file = broken.first().map_or_else(|| "wal".to_owned(), |broken| broken.file.clone());
    if 0 < count || missing.is_some() {
        let (count, what) = match (count, missing) {
            (0, Some(missing)) => {
                (None, format!("frames of the log from {} on cannot be read", missing.sequence))
            }
            _ => (Some(count), "records of the log cannot be read".to_owned()),
        };
        report.losses.push(Loss {
            kind: LossKind::Records,
            database: None,
            ids: Vec::new(),
            range: None,
            count,
            file: file.clone(),
            what,
        });
    }
    for Cut { file, last_lsn } in &log.cut {
        let what = "what the missing part of this log segment held is not known";
        let what = match last_lsn {
            Some(last) => format!("{what}: writes after number {last} may be lost"),
            None => what.to_owned(),
        };
        report.losses.push(Loss {
            kind: LossKind::Records,
            database: None,
            ids: Vec::new(),
            range: None,
            count: None,
            file: file.clone(),
            what,
        });
    }
    let mut ids: BTreeMap<DatabaseId, BTreeSet<Id>> = BTreeMap::new();
    for (database, id) in broken.iter().flat_map(|broken| &broken.ids) {
        ids.entry(*database).or_default().insert(id.clone());
    }
    for (database, ids) in ids {
        let Some(name) = name_of(known, database) else { continue };
        report.losses.push(Loss {
            kind: LossKind::Doubtful,
            database: Some(name),
            count: Some(ids.len() as u64),
            ids: ids.into_iter().collect(),
            range: None,
            file: file.clone(),
            what: "a damaged frame of the log seems to have written them".to_owned(),
        });
    }
}

/// What is made anew and what goes out of the way.
fn note_what_is_done(planner: &Planner<'_>, plans: &[DatabasePlan], report: &mut RepairReport) {
    for plan in plans {
        for part in plan.parts.iter().filter(|part| part.kept.is_none()) {
            report.rebuilt.push(Rebuilt {
                file: "segment".to_owned(),
                database: Some(plan.meta.name.clone()),
                what: part.file().to_owned(),
            });
        }
    }
    let from = if planner.known.is_whole { "the old one" } else { "the files and the log" };
    let what = format!("from {from}");
    report.rebuilt.push(Rebuilt { file: "manifest".to_owned(), database: None, what });
    for found in planner.listing.manifests.values() {
        report.aside(&found.name, "replaced by a new one");
    }
    if planner.converts_log {
        for file in &planner.log.files {
            if file.named.is_some() || !planner.known.is_whole {
                report.aside(&file.found.name, "what could be read of it is in segments now");
            }
        }
    }
    if !planner.known.is_whole {
        report.cautions.push(
            "a database or a segment that only lost parts of the manifest named, and whose files \
             are missing as well, is not missed; names of databases may be lost, and deleted \
             records of old log files may be back"
                .to_owned(),
        );
        let parts = plans.iter().flat_map(|plan| &plan.parts);
        let kept: BTreeSet<FileId> =
            parts.filter_map(|part| Some(part.kept.as_ref()?.file)).collect();
        for (file, found) in &planner.listing.segments {
            if !kept.contains(file) {
                report.aside(&found.name, "no database needs it as it is");
            }
        }
    }
}

impl RepairReport {
    /// Gives a segment that was made anew its name.
    fn name_rebuilt(&mut self, from: &str, database: &str, file: &str) {
        let same = |it: &&mut Rebuilt| {
            it.file == "segment" && it.what == from && it.database.as_deref() == Some(database)
        };
        if let Some(rebuilt) = self.rebuilt.iter_mut().find(same) {
            file.clone_into(&mut rebuilt.file);
        }
    }
}

impl Known {
    /// Makes a database that only its files know.
    fn adopt(
        &mut self,
        database: DatabaseId,
        id_kind: nephrite_format::IdKind,
        layout: VectorLayout,
    ) {
        if self.state.databases.contains_key(&database) {
            return;
        }
        let name = format!("recovered-{database}");
        let meta = DatabaseMeta { database, name, id_kind, layout };
        let flushed_lsn = Lsn::new(0);
        let record = DatabaseRecord { meta, flushed_lsn, live_records: 0, segments: Vec::new() };
        self.state.databases.insert(database, record);
    }
}

impl Listing {
    /// Files that an interrupted repair moved and that the manifest in force does not name stay
    /// where they are.
    fn forget_unneeded(&mut self, paths: &StorePaths, known: &Known) {
        if !known.is_whole {
            return;
        }
        let records = known.state.databases.values();
        let segments: BTreeSet<FileId> =
            records.flat_map(|record| &record.segments).map(|segment| segment.file).collect();
        let logs: BTreeSet<FileId> = known.state.log.values().copied().collect();
        self.manifests.retain(|file, found| found.path == paths.manifest(*file));
        self.segments
            .retain(|file, found| found.path == paths.segment(*file) || segments.contains(file));
        self.logs.retain(|file, found| found.path == paths.wal(*file) || logs.contains(file));
    }
}
