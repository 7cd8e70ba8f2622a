//! Settling: the log is applied, what nothing names is removed, tasks are started and joined.
//!
//! A full disk or a damaged database does not keep a store from being opened. Files are removed
//! only when neither the manifest nor a record of the log can name them.
//! Tested in `tests/it/recovery.rs` and `tests/it/faults.rs`.

use std::{future::Future, sync::atomic::Ordering};

use nephrite_format::{FileId, Lsn};
use tracing::{Instrument, info_span};

use crate::{
    core::Core,
    error::Error,
    flush::Cause,
    paths::parse_segment,
    recovery::{self, RecoveredLog},
    runtime::BoxFuture,
    wal::RestingFile,
};

impl Core {
    pub(super) async fn spawn(
        &self,
        name: &str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        self.keep(self.runtime.spawn(name, Box::pin(task))).await
    }

    /// A task that others go before. Hardly anybody else waits for what its thread carries out.
    pub(super) async fn spawn_behind(
        &self,
        name: &str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        let disk = self.seat.drives.then_some(&self.read.disk);
        self.keep(self.runtime.spawn_behind(name, Box::pin(task), disk)).await
    }

    /// A task whose transfers are its own: nobody else waits for what its thread carries out.
    pub(super) async fn spawn_beside(
        &self,
        name: &str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        if !self.seat.drives {
            return self.spawn(name, task).await;
        }
        let disk = &self.read.disk;
        self.keep(self.runtime.spawn_beside(name, Box::pin(task), disk)).await
    }

    async fn keep(&self, spawned: std::io::Result<BoxFuture<()>>) -> Result<(), Error> {
        match spawned {
            Ok(joined) => {
                self.tasks.lock().await.push(joined);
                Ok(())
            }
            Err(source) => {
                self.give_up().await;
                let operation = nephrite_io::IoOperation::Threads;
                Err(nephrite_io::IoError::new(operation, self.paths.root(), source).into())
            }
        }
    }

    /// Waits until the engine's tasks have ended. Cancel safe: the next caller goes on.
    pub(crate) async fn join(&self) {
        let mut tasks = self.tasks.lock().await;
        while let Some(task) = tasks.last_mut() {
            task.await;
            tasks.pop();
        }
    }

    /// Ends the tasks of a store that could not be opened. Its directory stays as it is; the error
    /// that kept it from opening is what the caller needs to know.
    pub(super) async fn give_up(&self) {
        self.closing.store(true, Ordering::Release);
        self.wal.close();
        self.compaction_wanted.notify(usize::MAX);
        self.join().await;
        self.runtime.settle();
        let _ = self.release().await;
    }

    /// Applies the log and tidies the directory. Up to the end of the replay nothing is removed or
    /// written over: a damaged store is left as it is.
    pub(super) async fn recover(&self, log: RecoveredLog) -> Result<(), Error> {
        let has_records = !log.is_empty();
        if has_records {
            // Number 0 is no record's: as long as it is kept, no flush releases log that is still
            // to be replayed.
            self.wal.keep_from(Lsn::new(0));
            let replayed = self.replay(&log).instrument(info_span!("recover")).await;
            self.wal.forget(Lsn::new(0));
            replayed?;
            log.overwrite_rejected(&self.read.disk, &self.paths).await?;
        }
        drop(log);
        match self.manifest.make_sure().await {
            // The next change makes sure, and before that nothing is removed.
            Err(error) if error.is_disk_full() => return Ok(()),
            made => made?,
        }
        if has_records {
            self.flush_recovered().await?;
            self.commit_log_start().await?;
        }
        self.remove_orphans().await
    }

    /// Removes free log files that no segment of the log can use. One that stays is found by the
    /// next open.
    pub(super) async fn remove_spares(&self, spares: &[RestingFile]) {
        if spares.is_empty() || self.manifest.make_sure().await.is_err() {
            return;
        }
        for spare in spares {
            let _ = self.read.disk.remove_file(&self.paths.wal(spare.id)).await;
        }
    }

    /// Flushes what was replayed. A full disk or a damaged database does not keep the store from
    /// being read: the records stay in the log and in memory.
    async fn flush_recovered(&self) -> Result<(), Error> {
        for database in self.open_databases() {
            match self.flush_databases(&[database], Cause::Asked).await {
                Err(error) if error.is_disk_full() => return Ok(()),
                Err(error) if recovery::is_damage(&error) => {}
                flushed => flushed?,
            }
        }
        Ok(())
    }

    /// Removes segment files that neither the manifest nor a record in the log needs.
    async fn remove_orphans(&self) -> Result<(), Error> {
        let dirty = self.open_databases().iter().any(|database| database.version.load().is_dirty());
        let damaged = self.catalog().values().any(|entry| entry.damage.get().is_some());
        if dirty || damaged {
            return Ok(()); // the log may name rows in them
        }
        let known: std::collections::HashSet<FileId> = self
            .manifest
            .read(|state| {
                let records = state.databases.values();
                records.flat_map(|record| &record.segments).map(|segment| segment.file).collect()
            })
            .await;
        for entry in self.read.disk.list_dir(self.paths.segments_dir()).await? {
            if let Some(file) = parse_segment(&entry.name).filter(|file| !known.contains(file)) {
                self.read.disk.remove_file(&self.paths.segment(file)).await?;
            }
        }
        Ok(())
    }
}
