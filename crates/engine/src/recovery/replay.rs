//! Second pass over the log: its records become memtables.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use nephrite_format::{
    DatabaseId, IdRef, Lsn, Row,
    frame::FrameView,
    vector::decode_f32_vec,
    wal::{BulkRecord, Operation, OperationsRecord, WalRecord},
};

use super::{
    RecoveredLog,
    bulk::{Bulk, read_rows},
    records,
};
use crate::{
    core::{Core, DatabaseCore, Entry},
    error::Error,
    flush::Cause,
    log_file,
    memtable::Version as RowVersion,
    paths::{manifest_name, wal_name},
    planted::planted,
};

impl Core {
    /// The second pass: applies the records to memtables, flushing when they are full.
    pub(crate) async fn replay(&self, log: &RecoveredLog) -> Result<(), Error> {
        let entries: BTreeMap<DatabaseId, Arc<Entry>> =
            self.catalog().values().map(|entry| (entry.meta.database, Arc::clone(entry))).collect();
        let flushed: BTreeMap<DatabaseId, Lsn> = self
            .manifest
            .read(|state| {
                let records = state.databases.iter();
                records.map(|(database, record)| (*database, record.flushed_lsn)).collect()
            })
            .await;
        // Nothing was made yet in this life.
        let next_database = self.next_database.load(Ordering::Relaxed); // alone
        for segment in &log.chain {
            let name = wal_name(segment.wal.id);
            let content = super::content(&self.read.disk, &self.paths, segment.wal).await?;
            let mut frames: Vec<(u64, FrameView<'_>)> = Vec::new();
            let first = Some(segment.start.sequence);
            log_file::read_frames(&content, &segment.header, first, |at, frame| {
                if frame.header.sequence < segment.end {
                    frames.push((at, frame));
                }
                Ok(())
            })?;
            for (at, frame) in frames {
                for (record, lsn) in records(&frame, &name, at).zip(frame.header.first_lsn.get()..)
                {
                    let (lsn, record) = (Lsn::new(lsn), record?);
                    let id = database_of(&record);
                    if next_database <= u64::from(id.get()) {
                        let (file, _) = self.manifest.content().await?;
                        let what = format!(
                            "its last frames are missing: it does not know database {id}, of \
                             which {name} has records"
                        );
                        return Err(Error::corrupt(manifest_name(file), 0, what));
                    }
                    // Dropped, or in a segment already: its files are not even opened.
                    let needed = flushed.get(&id).is_some_and(|flushed| *flushed < lsn);
                    if let Some(entry) = entries.get(&id).filter(|_| needed) {
                        self.apply(entry, lsn, record, &name, at).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn apply(
        &self,
        entry: &Arc<Entry>,
        lsn: Lsn,
        record: WalRecord<'_>,
        name: &str,
        at: u64,
    ) -> Result<(), Error> {
        if entry.damage.get().is_some() {
            return Ok(());
        }
        let database = match self.database(entry).await {
            Ok(database) => database,
            Err(error) if is_damage(&error) => {
                // Its records stay in the log; whoever opens the database gets the error.
                let _ = entry.damage.set(error);
                self.wal.keep_from(lsn);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if lsn <= database.visibility.visible() {
            return Ok(());
        }
        match record {
            WalRecord::Operations(operations) => {
                self.apply_operations(&database, lsn, &operations, name, at)?;
            }
            WalRecord::Bulk(bulk) => self.apply_bulk(&database, lsn, &bulk, name, at).await?,
        }
        database.visibility.publish(lsn);
        if self.config.memtable_limit() <= database.version.load().active.bytes() {
            self.flush_replayed(&database).await?;
        } else if self.memtable_room() <= self.memory.bytes() {
            for database in self.open_databases() {
                self.flush_replayed(&database).await?;
            }
        }
        Ok(())
    }

    /// Flushes to make room for more records. On a full disk the rest stays in memory, which held
    /// it before the crash, so that the store can be read; it is not tried again meanwhile.
    async fn flush_replayed(&self, database: &Arc<DatabaseCore>) -> Result<(), Error> {
        if self.memory.failure().is_some() {
            return Ok(());
        }
        match self.flush_databases(&[Arc::clone(database)], Cause::Asked).await {
            Err(error) if is_damage(&error) || error.is_disk_full() => Ok(()),
            flushed => flushed,
        }
    }

    fn apply_operations(
        &self,
        database: &DatabaseCore,
        lsn: Lsn,
        record: &OperationsRecord<'_>,
        name: &str,
        at: u64,
    ) -> Result<(), Error> {
        if record.dimension != database.layout.dimension() || record.id_kind != database.id_kind {
            return Err(Error::corrupt(name, at, "a record does not fit its database"));
        }
        let memtable = Arc::clone(&database.version.load().active);
        let before = memtable.bytes();
        let mut versions: Vec<(IdRef<'_>, RowVersion)> = Vec::new();
        for operation in record.operations() {
            let row = match operation {
                Operation::Put { vector, .. } => memtable.append_rows(&decode_f32_vec(vector))?,
                Operation::Delete { .. } => Row::TOMBSTONE,
            };
            versions.push((operation.id(), RowVersion { lsn, row }));
        }
        if planted("batch_cut_in_replay") && 1 < versions.len() {
            versions.pop();
        }
        self.index_recovered(&memtable, lsn, before, |index| {
            versions.into_iter().for_each(|(id, version)| index.insert(id, version));
        });
        Ok(())
    }

    async fn apply_bulk(
        &self,
        database: &DatabaseCore,
        lsn: Lsn,
        record: &BulkRecord<'_>,
        name: &str,
        at: u64,
    ) -> Result<(), Error> {
        if record.ids.kind() != database.id_kind {
            return Err(Error::corrupt(name, at, "a bulk record does not fit its database"));
        }
        let memtable = Arc::clone(&database.version.load().active);
        let before = memtable.bytes();
        let mut first_row = None;
        let mut failed = None;
        let bulk = Bulk::of(record);
        let (disk, paths) = (&self.read.disk, &self.paths);
        let read = read_rows(disk, paths, &database.layout, &bulk, |row| {
            match memtable.append_rows(&decode_f32_vec(row)) {
                Ok(row) => {
                    first_row.get_or_insert(row);
                }
                Err(error) => failed = Some(error),
            }
        });
        let read = read.await?;
        if let Some(error) = failed {
            return Err(error);
        }
        if let Err(what) = read {
            return Err(Error::corrupt(name, at, what)); // it was whole in the first pass
        }
        let first = first_row.expect("a bulk record has rows").get();
        self.index_recovered(&memtable, lsn, before, |index| {
            for (id, row) in record.ids.iter().zip(first..) {
                index.insert(id, RowVersion { lsn, row: Row::new(row) });
            }
        });
        Ok(())
    }

    fn index_recovered(
        &self,
        memtable: &crate::memtable::Memtable,
        lsn: Lsn,
        bytes_before: u64,
        fill: impl FnOnce(&mut crate::memtable::MemIndex),
    ) {
        if memtable.is_empty() {
            self.wal.keep_from(lsn);
        }
        memtable.insert(lsn, fill);
        self.memory.grow(memtable.bytes() - bytes_before);
    }
}

/// Whether an error is about the files of one database: it stays as it is and the others are
/// served.
pub(crate) fn is_damage(error: &Error) -> bool {
    use nephrite_io::IoErrorKind;
    match error {
        Error::Corrupt { .. } | Error::VersionUnsupported { .. } => true,
        Error::Io(io) => matches!(
            io.kind(),
            IoErrorKind::NotFound | IoErrorKind::UnexpectedEof | IoErrorKind::Other
        ),
        _ => false,
    }
}

fn database_of(record: &WalRecord<'_>) -> DatabaseId {
    match record {
        WalRecord::Operations(operations) => operations.database,
        WalRecord::Bulk(bulk) => bulk.database,
    }
}
