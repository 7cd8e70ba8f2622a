//! Flush: memtables become segments.
//!
//! ```text
//! freeze -> wait until its writes are acknowledged -> rest of the rows | look at what they hide
//!        -> id run, checksums, footer -> sync file -> sync directory -> manifest -> publish
//!        -> log space released
//! ```
//!
//! Runs on the flush task only, of each database the oldest memtable first. Up to
//! [`FLUSH_TOGETHER`] databases, with no more than one large memtable's bytes in all, go through it
//! together: their files are written and synced at the same time, directory and manifest once.
//! What a flush holds beside the memtable is 16 bytes for each id, counted as work, and pieces.
//! A failure leaves the memtable where it is, to be tried again; nothing acknowledged depends on
//! it, since the log keeps the records. Safe under a kill at any point: until the manifest names a
//! segment it is an orphan that the next open removes.

mod effect;
mod output;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak, atomic::Ordering},
};

use nephrite_format::{
    DatabaseId, FileId, FrameSequence, Generation, Lsn,
    manifest::{Counters, FlushEdit, ManifestEdit},
};
use tracing::{Instrument, info_span};

use self::effect::Effect;
use crate::{
    core::{Core, DatabaseCore},
    error::Error,
    memtable::{Listing, Memtable},
    planted::planted,
    segment::{Segment, traffic::Pace},
    together::{Beside, all},
    wal::LogPosition,
};

/// Databases flushed with one change of the manifest.
const FLUSH_TOGETHER: usize = 32;

/// Why a flush runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A caller, the interval or the recovery asks for it.
    Asked,
    /// Memtables or log are full.
    Pressing,
    /// A full disk refuses deletes: the reserve gives way to it.
    Relief,
}

/// A memtable whose segment is on disk and not yet part of its database.
struct Prepared<'a> {
    database: &'a Arc<DatabaseCore>,
    memtable: Arc<Memtable>,
    effect: Effect,
    /// None when the memtable leaves nothing behind.
    segment: Option<Arc<Segment>>,
    first: Option<Lsn>,
    last: Lsn,
}

impl Core {
    /// Brings everything written to databases before the call into segments. Goes on past
    /// failures and returns the first.
    pub(crate) async fn flush_databases(
        &self,
        databases: &[Arc<DatabaseCore>],
        cause: Cause,
    ) -> Result<(), Error> {
        for database in databases {
            let mut side = database.lock();
            if !side.dropped && !database.version.load().active.is_empty() {
                self.freeze(database, &mut side);
            }
        }
        self.flush_frozen(databases, cause).await
    }

    /// Flushes what is frozen, of each database the oldest first, several databases at a time.
    /// What is frozen meanwhile is left to the next call: else jobs would wait as long as others
    /// write.
    pub(crate) async fn flush_frozen(
        &self,
        databases: &[Arc<DatabaseCore>],
        cause: Cause,
    ) -> Result<(), Error> {
        let started = self.runtime.now();
        let mut outcome = Ok(());
        // Versions in which nothing is left of what is frozen now.
        let goals: HashMap<DatabaseId, u64> = databases
            .iter()
            .map(|database| (database.id, database.version.load().flushes_of_frozen()))
            .collect();
        let is_left =
            |database: &DatabaseCore| database.version.load().flushes < goals[&database.id];
        let mut waiting: VecDeque<Arc<DatabaseCore>> = databases.iter().cloned().collect();
        loop {
            let group = self.next_group(&mut waiting);
            if group.is_empty() {
                break;
            }
            let round = info_span!("flush", databases = group.len());
            let outcomes = self.flush_group(&group, cause).instrument(round).await;
            let is_full = |flushed: &Result<bool, Error>| {
                flushed.as_ref().is_err_and(|error| error.is_disk_full())
            };
            let again = cause == Cause::Relief
                && outcomes.iter().any(is_full)
                && self.find_room_for_flush().await;
            for (database, flushed) in group.iter().zip(outcomes) {
                if again && is_full(&flushed) {
                    waiting.push_back(Arc::clone(database));
                    continue;
                }
                self.note_flush(database, &flushed);
                if flushed.is_ok() && is_left(database) {
                    waiting.push_back(Arc::clone(database));
                }
                outcome = outcome.and(flushed.map(drop));
            }
        }
        let took = self.runtime.now().saturating_sub(started);
        self.counters.flush_time.note(took);
        self.memory.rest();
        self.lend();
        self.close_cold_databases();
        outcome
    }

    /// Databases whose oldest frozen memtables together are worth one round.
    fn next_group(&self, waiting: &mut VecDeque<Arc<DatabaseCore>>) -> Vec<Arc<DatabaseCore>> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(database) = waiting.pop_front() {
            let version = database.version.load();
            let Some(memtable) = version.frozen.last() else { continue };
            let more = bytes + memtable.bytes();
            if !group.is_empty() && self.config.memtable_limit() < more {
                waiting.push_front(database);
                break;
            }
            bytes = more;
            group.push(database);
            if FLUSH_TOGETHER <= group.len() {
                break;
            }
        }
        group
    }

    /// Remembers whether segments can be written.
    fn note_flush(&self, database: &DatabaseCore, flushed: &Result<bool, Error>) {
        self.memory.set_failure(flushed.as_ref().err().cloned());
        let sink_failed = || {
            let version = database.version.load();
            version.frozen.last().is_some_and(|memtable| memtable.sink().failure().is_some())
        };
        match flushed {
            Ok(_) => self.memory.set_unwritable(None),
            Err(error) if error.is_disk_full() || sink_failed() => {
                self.memory.set_unwritable(Some(error.clone()));
            }
            // Damage of one database is nobody else's business.
            Err(_) => {}
        }
    }

    /// Flushes the oldest frozen memtable of each database: written at the same time, named by one
    /// change of the manifest.
    async fn flush_group(
        &self,
        group: &[Arc<DatabaseCore>],
        cause: Cause,
    ) -> Vec<Result<bool, Error>> {
        all(group.iter().map(|database| self.wait_for_compactions(database, cause))).await;
        // The compactions that were waited for may need it.
        let _alone = self.flushing.lock().await;
        let prepared = all(group.iter().map(|database| self.prepare(database))).await;
        let mut outcomes: Vec<Result<bool, Error>> = Vec::with_capacity(group.len());
        let mut whole = Vec::with_capacity(group.len());
        for prepared in prepared {
            outcomes.push(prepared.map(|prepared| {
                let found = prepared.is_some();
                whole.extend(prepared);
                found
            }));
        }
        if whole.is_empty() {
            return outcomes;
        }
        if let Err(error) = self.make_part(&whole).await {
            for outcome in outcomes.iter_mut().filter(|outcome| matches!(outcome, Ok(true))) {
                *outcome = Err(error.clone());
            }
        }
        outcomes
    }

    /// Makes segments part of their databases: on disk, then for readers.
    async fn make_part(&self, prepared: &[Prepared<'_>]) -> Result<(), Error> {
        if prepared.iter().any(|prepared| prepared.segment.is_some())
            && !planted("directory_sync_skipped")
        {
            let synced = self.read.files.sync_names().await;
            let written = prepared.iter().filter(|prepared| prepared.segment.is_some());
            // Each of them is given up, not only the first.
            let checks: Vec<_> =
                written.map(|prepared| prepared.memtable.sink().check_name()).collect();
            synced?;
            checks.into_iter().collect::<Result<(), Error>>()?;
        }
        let firsts: Vec<Lsn> = prepared.iter().filter_map(|prepared| prepared.first).collect();
        let start = self.wal.start_without(&firsts);
        let swap = self.swaps.lock().await;
        if planted("log_reused_early") {
            self.wal.release_below(start.segment);
        }
        self.commit_flush(prepared, start).await?;
        prepared.iter().for_each(|prepared| self.publish_flush(prepared));
        drop(swap);
        firsts.into_iter().for_each(|first| self.wal.forget(first));
        self.wal.release_below(start.segment);
        self.compaction_wanted.notify(1);
        Ok(())
    }

    /// Writes the oldest frozen memtable of a database to its segment and syncs it.
    async fn prepare<'a>(
        &self,
        database: &'a Arc<DatabaseCore>,
    ) -> Result<Option<Prepared<'a>>, Error> {
        let version = database.version.load();
        let Some(memtable) = version.frozen.last().map(Arc::clone) else { return Ok(None) };
        if database.check().is_err() {
            return Ok(None);
        }
        // After a commit of unknown outcome the manifest on disk may name this memtable's file: it
        // must stay as it is.
        if !planted("segment_rewritten") {
            self.manifest.check().await?;
        }
        self.wal.nudge();
        let last = memtable.last_lsn();
        database.visibility.reached(last, || self.wal.check()).await?;
        if memtable.sink().failure().is_some() {
            self.replace_sink(database, &memtable).await;
        }
        let replaced = std::mem::take(&mut database.lock().replaced);
        replaced.iter().filter_map(Weak::upgrade).for_each(|live| live.end_forward());
        let version = database.version.load();
        let ids = Listing::new(&memtable, version.segments.is_empty(), &self.read.work);
        self.note_fill();
        memtable.close_page();
        let leaves_rows = 0 < ids.summary().count();
        let mut pages = Beside::new(async {
            if leaves_rows { memtable.write_pages(Pace::Background).await } else { Ok(()) }
        });
        let effect = pages.while_waiting_for(self.effect(database, &version, &ids)).await;
        // Also when there is no effect: nothing is left in flight behind a failure.
        let written = pages.finish().await;
        let effect = effect?;
        written?;
        let segment = match ids.summary().count() {
            0 => None,
            _ => {
                let segment = self.write_segment(database, &memtable, &ids).await?;
                segment.set_seen_in(effect.seen_in);
                Some(segment)
            }
        };
        let first = memtable.first_lsn();
        Ok(Some(Prepared { database, memtable, effect, segment, first, last }))
    }

    /// A write to the memtable's file failed: starts over in another one. The old one goes at once
    /// (on a full disk its space is what is needed), or once no log record needs it any more.
    async fn replace_sink(&self, database: &DatabaseCore, memtable: &Memtable) {
        let old = memtable.replace_sink(self.new_sink());
        // Writes that are still in flight would bring the file's blocks back.
        let _ = old.drain().await;
        if memtable.has_bulk() && !planted("named_rows_removed") {
            old.close().await;
            database.lock().abandoned.push(old.id());
        } else if old.remove().await.is_err() {
            self.garbage.add(old.id());
        }
    }

    async fn commit_flush(
        &self,
        prepared: &[Prepared<'_>],
        start: LogPosition,
    ) -> Result<(), Error> {
        let counters = self.counters(start);
        let commit = self.manifest.commit(|state| {
            let mut edits = Vec::with_capacity(prepared.len() + 1);
            for flush in prepared {
                let database = flush.database;
                let Some(record) = state.databases.get(&database.id) else {
                    return Err(Error::DatabaseNotFound { name: database.name.clone() });
                };
                let mut edit = FlushEdit {
                    database: database.id,
                    flushed_lsn: flush.last,
                    live_records: flush.effect.live_records,
                    added: flush.segment.iter().map(|segment| segment.meta()).collect(),
                    removed: Vec::new(),
                };
                flush.effect.update_metas(&record.segments, &mut edit);
                edits.push(ManifestEdit::Flush(edit));
            }
            edits.push(ManifestEdit::Counters(counters));
            Ok((edits, ()))
        });
        commit.await
    }

    /// The numbers that the manifest keeps, with the log starting at `start`.
    pub(crate) fn counters(&self, start: LogPosition) -> Counters {
        Counters {
            next_file: FileId::new(self.next_file.load(Ordering::Relaxed)),
            next_database: DatabaseId::new(
                u32::try_from(self.next_database.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            ),
            next_generation: Generation::new(1),
            next_lsn: self.wal.next_lsn(),
            wal_position: start.segment,
            wal_sequence: FrameSequence::new(start.sequence.get()),
        }
    }

    /// Under the lock on swaps.
    fn publish_flush(&self, flush: &Prepared<'_>) {
        let Prepared { database, memtable, effect, segment, .. } = flush;
        let mut side = database.lock();
        let version = database.version.load();
        let version = version.flushed(memtable, segment.clone(), effect.live_records);
        database.publish(&mut side, version);
        let abandoned = std::mem::take(&mut side.abandoned);
        drop(side);
        for (segment, rows) in &effect.buried {
            segment.live().bury(rows);
        }
        memtable.set_sealed();
        abandoned.into_iter().for_each(|file| self.garbage.add(file));
        let sink = memtable.sink();
        if segment.is_none() && sink.is_created() {
            self.garbage.add(sink.id()); // rows were written ahead, but all were deleted again
        }
        self.memory.shrink(memtable.bytes());
        self.counters.flushes.fetch_add(1, Ordering::Relaxed); // a counter
        let rows = segment.as_ref().map_or(0, |segment| segment.live_rows());
        self.counters.flushed_rows.fetch_add(u64::from(rows), Ordering::Relaxed); // a counter
    }
}
