//! Carrying a repair out, in the order that a crash anywhere forgives (see the module header).
//!
//! Nothing that is damaged is deleted: it is moved aside, and copies of manifests with it. The new
//! manifest gets its name only when everything that it names is synced.
//! Tested in `tests/it/repair*`, with crashes in the simulation.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use nephrite_format::{
    BLOCK_BYTES, DatabaseId, FileId, FrameSequence, Generation, Lsn,
    manifest::{Counters, SegmentMeta},
};
use nephrite_io::{IoBuffer, IoErrorKind, OpenOptions};

use super::{
    listing::{self, Listing, directory_name},
    log::Log,
    output::write_part,
    plan::{DatabasePlan, Planner},
    raw::Raw,
    report::RepairReport,
    state::Known,
    work::Reader,
};
use crate::{
    error::Error,
    log_file::aligned,
    manifest::{self, DatabaseRecord, ManifestState},
    paths::{StorePaths, segment_name},
};

impl Reader {
    pub(super) async fn move_back(&self, listing: &Listing) -> Result<(), Error> {
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

    pub(super) async fn carry_out(
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
                        SegmentMeta { order, live_rows, ..kept.clone() }
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
            let whole = content.len().next_multiple_of(BLOCK_BYTES);
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
