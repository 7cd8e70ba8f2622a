//! The engine's own tasks: jobs that change the manifest run here, never on a caller's future.
//!
//! | task | does |
//! |---|---|
//! | `nephrite-flush` | creates and drops databases, flushes memtables, on demand and when due |
//! | `nephrite-compact` | compactions, removal of files nobody reads |
//!
//! A caller's future only waits for the answer, so dropping it cancels nothing half-way.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use nephrite_format::{DatabaseId, manifest::DatabaseMeta, manifest::ManifestEdit};

use crate::{
    config::WAL_SEGMENTS_LIVE_MAX,
    core::{Core, DatabaseCore, Entry},
    error::Error,
    flush::Cause,
    jobs::{Job, Reply},
    planted::planted,
    together::either,
};

/// Looks for databases that are due to be flushed, per flush interval.
const FLUSH_TICKS: u32 = 8;
/// Least time between two such looks.
const FLUSH_TICK_MIN: Duration = Duration::from_millis(10);

/// Databases made with one change of the manifest.
const CREATE_TOGETHER: usize = 64;

impl Core {
    /// The flush task.
    pub(crate) async fn run_flushes(self: Arc<Self>) {
        let interval = self.config.flush_interval;
        // Databases fall due at their own times: a look now and then finds those that are.
        let tick = (interval / FLUSH_TICKS).max(FLUSH_TICK_MIN).min(interval);
        let mut next_look = self.runtime.now().saturating_add(tick);
        self.begin_reserve().await;
        loop {
            let grows = self.tend_reserve().await;
            let added = self.jobs.added.listen();
            let wanted = self.flush_wanted.listen();
            if let Some(job) = self.jobs.pop() {
                if self.run_job(job).await {
                    return;
                }
                continue;
            }
            let now = self.runtime.now();
            if !interval.is_zero() && next_look <= now {
                next_look = now.saturating_add(tick);
                self.take_loan_back_late();
                // The failure is kept for writers to see; the next look tries again.
                let due = self.due_databases(now.saturating_add(tick));
                let _ = self.flush_databases(&due, Cause::Asked).await;
                continue;
            }
            if self.flush_what_is_pressing().await {
                continue;
            }
            if grows {
                continue;
            }
            if interval.is_zero() {
                either(added, wanted).await;
            } else {
                let timeout = self.runtime.sleep(next_look.saturating_sub(now));
                either(either(added, wanted), timeout).await;
            }
        }
    }

    /// Databases whose oldest write will have waited for the flush interval at `then`.
    fn due_databases(&self, then: Duration) -> Vec<Arc<DatabaseCore>> {
        let mut databases = self.open_databases();
        databases.retain(|database| {
            let due = database.dirty_since.get().saturating_add(self.config.flush_interval);
            due <= then && database.version.load().is_dirty()
        });
        databases
    }

    /// Runs a job; `true` after the last one.
    async fn run_job(&self, job: Job) -> bool {
        match job {
            Job::Create { meta, reply } => self.create_databases(meta, reply).await,
            Job::Drop { name, reply } => reply.set(self.drop_database(&name).await),
            Job::Flush { database, reply } => {
                reply.set(self.flush_databases(&[database], Cause::Asked).await);
            }
            Job::FlushAll { reply } => reply.set(self.flush_all(Cause::Asked).await),
            Job::Relieve { reply } => reply.set(self.relieve().await),
            Job::Restore { reply } => reply.set(self.restore_reserve().await),
            Job::Close => {
                let outcome = self.end().await;
                self.closed.set(outcome);
                return true;
            }
        }
        false
    }

    /// Flushes, ends the other tasks and the disk, releases the lock.
    async fn end(&self) -> Result<(), Error> {
        let flushed = self.flush_all(Cause::Asked).await;
        self.wal.close();
        let skipped = self.skip_log().await;
        let log = self.wal.check();
        self.compaction_wanted.notify(usize::MAX);
        self.garbage.added.notify(usize::MAX);
        let compacted = self.compaction_ended.wait().await;
        if flushed.is_ok() {
            self.rest_reserve().await;
        }
        // What readers have let go of since the task ended.
        self.remove_garbage().await;
        let traced = match &self.tracing {
            Some(tracing) => tracing.ended.wait().await,
            None => Ok(()),
        };
        let ended = self.release().await;
        flushed.and(log).and(skipped).and(compacted).and(traced).and(ended)
    }

    /// Ends the disk and releases the directory.
    pub(crate) async fn release(&self) -> Result<(), Error> {
        let ended = self.read.disk.shutdown().await;
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(ended?)
    }

    /// After a close that flushed everything the next open need not read the log.
    async fn skip_log(&self) -> Result<(), Error> {
        let end = self.wal.ended().await;
        if (self.wal.is_needed() || self.wal.check().is_err()) && !planted("log_skipped_unflushed")
        {
            return Ok(());
        }
        let counters = self.counters(end);
        let known = self.manifest.read(|state| state.counters).await;
        if known.is_some_and(|known| known.wal_position == counters.wal_position) {
            return Ok(());
        }
        self.manifest.commit(|_| Ok((vec![ManifestEdit::Counters(counters)], ()))).await
    }

    /// Flushes every open database; goes on past failures and returns the first.
    pub(crate) async fn flush_all(&self, cause: Cause) -> Result<(), Error> {
        let mut databases = self.open_databases();
        databases.retain(|database| database.version.load().is_dirty());
        if cause == Cause::Relief {
            // Those that hold the log back first: what comes free makes room for the others.
            databases.sort_by_key(|database| {
                database.version.load().memtables().filter_map(|it| it.first_lsn()).min()
            });
        }
        self.flush_databases(&databases, cause).await
    }

    /// Flushes frozen memtables, and more when memory or log run full. `true` when something was
    /// flushed.
    async fn flush_what_is_pressing(&self) -> bool {
        let mut databases = self.open_databases();
        databases.retain(|database| database.version.load().is_dirty());
        let is_frozen = |database: &&Arc<DatabaseCore>| !database.version.load().frozen.is_empty();
        let frozen: Vec<_> = databases.iter().filter(is_frozen).cloned().collect();
        let mut flushed =
            !frozen.is_empty() && self.flush_frozen(&frozen, Cause::Pressing).await.is_ok();
        if WAL_SEGMENTS_LIVE_MAX <= self.wal.closed_segments() {
            flushed |= self.flush_log_holders(&databases).await;
        }
        if self.memtable_room() / 2 < self.memory.bytes() {
            flushed |= self.flush_largest(databases).await;
        }
        flushed
    }

    /// Flushes the databases whose records keep the oldest log segment from being recycled.
    async fn flush_log_holders(&self, databases: &[Arc<DatabaseCore>]) -> bool {
        let Some(oldest) = self.wal.oldest_closed() else { return false };
        let holds = |database: &&Arc<DatabaseCore>| {
            let first = database.version.load().memtables().filter_map(|it| it.first_lsn()).min();
            first.is_some_and(|first| first <= oldest)
        };
        let holders: Vec<_> = databases.iter().filter(holds).cloned().collect();
        if !holders.is_empty() {
            return self.flush_databases(&holders, Cause::Pressing).await.is_ok();
        }
        // What held it back may have been dropped since.
        self.wal.start_without(&[]).segment > self.log_start().await
            && self.commit_log_start().await.is_ok()
    }

    /// Where recovery would start by what the manifest says.
    async fn log_start(&self) -> u64 {
        self.manifest.read(|state| state.counters.map_or(0, |it| it.wal_position)).await
    }

    /// Tells the manifest where recovery would start, and releases the log below.
    pub(crate) async fn commit_log_start(&self) -> Result<(), Error> {
        let start = self.wal.start_without(&[]);
        let counters = self.counters(start);
        self.manifest.commit(|_| Ok((vec![ManifestEdit::Counters(counters)], ()))).await?;
        self.wal.release_below(start.segment);
        Ok(())
    }

    /// Flushes the largest databases, enough of them to make room for a while.
    async fn flush_largest(&self, databases: Vec<Arc<DatabaseCore>>) -> bool {
        let bytes = |database: &Arc<DatabaseCore>| {
            database.version.load().memtables().map(|memtable| memtable.bytes()).sum::<u64>()
        };
        let mut sizes: Vec<(u64, Arc<DatabaseCore>)> =
            databases.into_iter().map(|database| (bytes(&database), database)).collect();
        sizes.sort_by_key(|(bytes, database)| (std::cmp::Reverse(*bytes), database.id));
        let excess = self.memory.bytes().saturating_sub(self.memtable_room() / 4);
        let mut gathered = 0;
        let mut largest = Vec::new();
        for (bytes, database) in sizes {
            if excess <= gathered {
                break;
            }
            gathered += bytes;
            largest.push(database);
        }
        !largest.is_empty() && self.flush_databases(&largest, Cause::Pressing).await.is_ok()
    }

    /// Makes a database, and those that wait to be made behind it, with one change of the manifest.
    async fn create_databases(&self, meta: DatabaseMeta, reply: Arc<Reply<Arc<Entry>>>) {
        let mut made = Vec::new();
        let mut next = Some((meta, reply));
        while let Some((meta, reply)) = next {
            let taken =
                made.iter().any(|(entry, _): &(Arc<Entry>, _)| entry.meta.name == meta.name);
            match self.number_database(meta, taken) {
                Ok(entry) => made.push((entry, reply)),
                Err(error) => reply.set(Err(error)),
            }
            next = if made.len() < CREATE_TOGETHER { self.jobs.pop_create() } else { None };
        }
        let created = made.iter().map(|(entry, _)| entry.meta.clone());
        let mut edits: Vec<_> = created.map(ManifestEdit::CreateDatabase).collect();
        if edits.is_empty() {
            return;
        }
        edits.push(ManifestEdit::Counters(self.counters(self.wal.start_without(&[]))));
        let committed = self.manifest.commit(|_| Ok((edits, ()))).await;
        for (entry, reply) in made {
            reply.set(committed.clone().map(|()| {
                self.catalog_mut().insert(entry.meta.name.clone(), Arc::clone(&entry));
                entry
            }));
        }
    }

    /// The entry of a database that is about to be made.
    fn number_database(&self, mut meta: DatabaseMeta, taken: bool) -> Result<Arc<Entry>, Error> {
        if taken || self.catalog().contains_key(&meta.name) {
            return Err(Error::DatabaseExists { name: meta.name });
        }
        let id = self.next_database.fetch_add(1, Ordering::Relaxed); // only this task changes it
        meta.database = DatabaseId::new(u32::try_from(id).map_err(|_| Error::InvalidConfig {
            field: "databases",
            reason: "2^32 databases were created in this store".to_owned(),
        })?);
        Ok(Entry::new(meta))
    }

    async fn drop_database(&self, name: &str) -> Result<(), Error> {
        let missing = || Error::DatabaseNotFound { name: name.to_owned() };
        let entry = self.catalog().get(name).cloned().ok_or_else(missing)?;
        let id = entry.meta.database;
        let files = self
            .manifest
            .commit(|state| {
                let record = state.databases.get(&id).ok_or_else(missing)?;
                let files: Vec<_> = record.segments.iter().map(|segment| segment.file).collect();
                Ok((vec![ManifestEdit::DropDatabase { database: id }], files))
            })
            .await?;
        self.catalog_mut().remove(name);
        self.compactions.refused.forget(id);
        entry.dropped.store(true, Ordering::Release);
        match self.forget_open(id) {
            Some(database) => self.discard(&database).await,
            None => files.into_iter().for_each(|file| self.garbage.add(file)),
        }
        Ok(())
    }

    /// Lets go of what a dropped database holds; files go when their last reader does.
    async fn discard(&self, database: &DatabaseCore) {
        let (version, abandoned) = {
            let mut side = database.lock();
            side.dropped = true;
            database.dropped.store(true, Ordering::Release);
            let version = database.version.load();
            let fresh = self.new_memtable(database.layout, database.id_kind);
            database.publish(&mut side, version.emptied(fresh));
            (version, std::mem::take(&mut side.abandoned))
        };
        abandoned.into_iter().for_each(|file| self.garbage.add(file));
        for memtable in version.memtables() {
            memtable.set_sealed();
            self.memory.shrink(memtable.bytes());
            memtable.first_lsn().into_iter().for_each(|first| self.wal.forget(first));
            let sink = memtable.sink();
            if sink.is_created() {
                sink.close().await;
                self.garbage.add(sink.id());
            }
        }
        for segment in &version.segments {
            segment.set_obsolete(&self.garbage);
        }
    }

    /// The compaction task.
    pub(crate) async fn run_compactions(self: Arc<Self>) {
        self.note_garbage_of_closed().await;
        loop {
            let wanted = self.compaction_wanted.listen();
            let garbage = self.garbage.added.listen();
            self.remove_garbage().await;
            if self.closing.load(Ordering::Acquire) {
                self.compactions.close();
                self.compaction_ended.set(Ok(()));
                return;
            }
            self.compactions.begin();
            self.take_loan_back();
            if !self.compact_once().await {
                self.compactions.rest();
                self.lend();
                let called = either(wanted, garbage);
                let now = self.runtime.now();
                match self.compactions.next_try(now) {
                    Some(then) => either(called, self.runtime.sleep(then - now)).await,
                    None => called.await,
                }
            }
        }
    }

    /// Removes files that nobody reads any more.
    pub(crate) async fn remove_garbage(&self) {
        for file in self.garbage.take() {
            self.read.files.forget(file);
            // A file that stays is an orphan, which the next open removes.
            if self.read.disk.remove_file(&self.paths.segment(file)).await.is_ok() {
                self.garbage.note_removed();
            }
        }
    }
}
