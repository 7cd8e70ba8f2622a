//! What the manifest says: databases with their segments, counters, and the log that is needed.
//!
//! A state is built by edits alone, from files and by the engine alike; an edit that does not fit
//! is refused with the reason. The engine's own are checked before they go to disk.
//! Not here: files and frames. Tested in `tests/it/damage*` and by the fuzz target of manifests.

use std::collections::BTreeMap;

use nephrite_format::{
    DatabaseId, FileId, Lsn,
    manifest::{Counters, DatabaseMeta, FlushEdit, ManifestEdit, SegmentMeta},
};

/// Largest number of a record, frame, log segment, file or age that is believed: no store counts
/// that far, and whoever counts on from there does not overflow.
pub(crate) const NUMBER_MAX: u64 = u64::MAX >> 1;

/// What the manifest says.
#[derive(Clone, Debug, Default)]
pub(crate) struct ManifestState {
    pub(crate) databases: BTreeMap<DatabaseId, DatabaseRecord>,
    pub(crate) counters: Option<Counters>,
    /// Log segments that recovery needs, by position.
    pub(crate) log: BTreeMap<u64, FileId>,
}

/// One database in the manifest.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseRecord {
    pub(crate) meta: DatabaseMeta,
    pub(crate) flushed_lsn: Lsn,
    pub(crate) live_records: u64,
    /// Ascending age: later ones shadow earlier ones.
    pub(crate) segments: Vec<SegmentMeta>,
}

impl ManifestState {
    /// Applies an edit, or says why it does not fit.
    pub(super) fn apply(&mut self, edit: &ManifestEdit) -> Result<(), String> {
        match edit {
            ManifestEdit::CreateDatabase(meta) => self.create(meta),
            ManifestEdit::DropDatabase { database } => match self.databases.remove(database) {
                Some(_) => Ok(()),
                None => Err(format!("database {database} is dropped but does not exist")),
            },
            ManifestEdit::Flush(flush) => self.flush(flush),
            ManifestEdit::Counters(counters) => {
                self.counters = Some(*counters);
                self.log = self.log.split_off(&counters.wal_position);
                Ok(())
            }
            ManifestEdit::LogSegment { position, file } => {
                match self.log.insert(*position, *file) {
                    None => Ok(()),
                    Some(other) => Err(format!("log segment {position} is {other} and {file}")),
                }
            }
        }
    }

    /// Refuses numbers that the engine could not count on from.
    pub(super) fn check_numbers(&self) -> Result<(), String> {
        let within = |what: &str, number: u64| {
            if number <= NUMBER_MAX { Ok(()) } else { Err(format!("{what} is {number}")) }
        };
        if let Some(counters) = &self.counters {
            within("the next file", counters.next_file.get())?;
            within("the next record number", counters.next_lsn.get())?;
            within("the log's position", counters.wal_position)?;
            within("the log's frame number", counters.wal_sequence.get())?;
        }
        for (position, file) in &self.log {
            within("the position of a log segment", *position)?;
            within("the file of a log segment", file.get())?;
        }
        for record in self.databases.values() {
            within("the number of a flushed record", record.flushed_lsn.get())?;
            within("a number of records", record.live_records)?;
            for segment in &record.segments {
                within("the file of a segment", segment.file.get())?;
                within("the age of a segment", segment.order)?;
                within("the length of a segment", segment.file_bytes)?;
            }
        }
        Ok(())
    }

    fn create(&mut self, meta: &DatabaseMeta) -> Result<(), String> {
        let record = DatabaseRecord {
            meta: meta.clone(),
            flushed_lsn: Lsn::new(0),
            live_records: 0,
            segments: Vec::new(),
        };
        match self.databases.insert(meta.database, record) {
            None => Ok(()),
            Some(_) => Err(format!("database {} is created twice", meta.database)),
        }
    }

    fn flush(&mut self, flush: &FlushEdit) -> Result<(), String> {
        let record = self
            .databases
            .get_mut(&flush.database)
            .ok_or_else(|| format!("database {} is flushed but does not exist", flush.database))?;
        for removed in &flush.removed {
            let before = record.segments.len();
            record.segments.retain(|segment| segment.file != *removed);
            if record.segments.len() == before {
                return Err(format!("segment {removed} is removed but not part of the database"));
            }
        }
        for added in &flush.added {
            if record.segments.iter().any(|segment| segment.order == added.order) {
                return Err(format!("segment {} has the age of another one", added.file));
            }
            record.segments.push(added.clone());
        }
        record.segments.sort_unstable_by_key(|segment| segment.order);
        record.flushed_lsn = record.flushed_lsn.max(flush.flushed_lsn);
        record.live_records = flush.live_records;
        Ok(())
    }

    /// Makes sure that edits of the engine fit before they go to disk, where one that does not
    /// would keep the store from ever being opened again.
    pub(super) fn check(&self, edits: &[ManifestEdit]) {
        let mut part = Self { counters: self.counters, log: self.log.clone(), ..Self::default() };
        for edit in edits {
            let database = match edit {
                ManifestEdit::CreateDatabase(meta) => Some(meta.database),
                ManifestEdit::DropDatabase { database } => Some(*database),
                ManifestEdit::Flush(flush) => Some(flush.database),
                ManifestEdit::Counters(_) | ManifestEdit::LogSegment { .. } => None,
            };
            let known = database.and_then(|database| self.databases.get_key_value(&database));
            if let Some((database, record)) = known {
                part.databases.entry(*database).or_insert_with(|| record.clone());
            }
        }
        for edit in edits {
            let applied = part.apply(edit);
            assert!(applied.is_ok(), "the engine made an edit that does not fit: {applied:?}");
        }
    }

    /// The edits that build this state from nothing.
    pub(super) fn as_edits(&self) -> Vec<ManifestEdit> {
        let mut edits = Vec::new();
        for (database, record) in &self.databases {
            edits.push(ManifestEdit::CreateDatabase(record.meta.clone()));
            if record.segments.is_empty() && record.flushed_lsn == Lsn::new(0) {
                continue;
            }
            edits.push(ManifestEdit::Flush(FlushEdit {
                database: *database,
                flushed_lsn: record.flushed_lsn,
                live_records: record.live_records,
                added: record.segments.clone(),
                removed: Vec::new(),
            }));
        }
        edits.extend(self.counters.map(ManifestEdit::Counters));
        let log = self.log.iter();
        edits.extend(
            log.map(|(position, file)| ManifestEdit::LogSegment {
                position: *position,
                file: *file,
            }),
        );
        edits
    }
}
