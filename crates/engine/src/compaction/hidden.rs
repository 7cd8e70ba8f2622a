//! Hidden: rows of segments that only memtables hide, given back on a full disk without a flush.
//!
//! On a disk without one free block no memtable becomes a segment, so deletes bury no row, and a
//! compaction that looks at segments alone finds no garbage. Here it looks at the memtables too: a
//! row whose id they have is left out (or becomes a tombstone, where an older segment can have the
//! id), and the records of the database are lowered in the same edit of the manifest.
//!
//! Why nothing is lost: what hides the row is on disk in the log before the edit, and the log keeps
//! it until its memtable is a segment. Why nothing is counted twice: no flush runs between the look
//! at the memtables and the end of the swap (`Core::flushing` is held), and the flush that comes
//! later does not find the id in any segment. Why readers notice nothing: who loads the new version
//! sees at least everything that hid a row in it; others have the old one. Tested in
//! `tests/it/full_disk.rs` of this crate and `surroundings` of the workspace's tests.

use std::sync::Arc;

use nephrite_format::{IdRef, Lsn};
use nephrite_io::{IoError, IoOperation};

use super::{Goal, choice, pace::Pace, rewrite};
use crate::{
    core::{Core, DatabaseCore},
    error::Error,
    segment::Segment,
    version::Version,
};

/// What memtables say of ids, up to one log sequence number.
#[derive(Debug)]
pub(super) struct Hidden {
    version: Arc<Version>,
    at: Lsn,
}

impl Hidden {
    pub(super) fn new(database: &DatabaseCore, version: Arc<Version>) -> Self {
        Self { version, at: database.visibility.visible() }
    }

    pub(super) fn hides(&self, id: IdRef<'_>) -> bool {
        self.version.memtables().any(|memtable| memtable.find(id, self.at).is_some())
    }
}

impl Core {
    /// Makes durable in the log what hides rows; first the bulk rows that records name, whose
    /// failure would end the log.
    pub(super) async fn keep_in_log(&self, hidden: &Hidden) -> Result<(), Error> {
        for memtable in self.wal.bulk_unsynced() {
            memtable.make_rows_durable().await?;
        }
        self.wal.reach_disk(hidden.at).await
    }

    /// Room for a delete that a full disk refused: rewrites what memtables hide, then flushes.
    /// Whether something was rewritten.
    pub(crate) async fn relieve(&self, database: &Arc<DatabaseCore>) -> bool {
        let relieved = self.ask_task(database, Goal::Room).await.is_ok();
        // A failure is told to whoever finds no room for what he writes.
        let _ = self.ask_flush(database).await;
        relieved
    }

    /// Gives back what it can of a database; fails when that is nothing.
    pub(super) async fn make_room(&self, database: &DatabaseCore) -> Result<(), Error> {
        database.check()?;
        if self.compact_pieces(database).await {
            return Ok(());
        }
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        Err(IoError::new(IoOperation::Write, self.paths.root(), full).into())
    }

    /// Rewrites segments with rows that memtables hide one by one, those of which the least is left
    /// first, as long as they fit. Whether some room came back.
    pub(super) async fn compact_hidden(&self, database: &DatabaseCore) -> bool {
        // No flush takes the room that comes back before the last of them has got what it needs.
        let _alone = self.flushing.lock().await;
        let mut freed = false;
        for segment in self.segments_with_hidden(database).await {
            loop {
                match self.try_compact(database, &choice::alone(&segment)).await {
                    Ok(()) => freed = true,
                    Err(error) if error.is_disk_full() && self.reserve.release().await => continue,
                    Err(_) => return freed,
                }
                break;
            }
        }
        freed
    }

    /// Segments with rows that memtables hide, those with the fewest other bytes first.
    async fn segments_with_hidden(&self, database: &DatabaseCore) -> Vec<Arc<Segment>> {
        let version = database.version.load();
        let mut found = Vec::new();
        for segment in &version.segments {
            let Some(mut plan) = self.plan(&version, &choice::alone(segment)) else { continue };
            plan.hidden = Some(Hidden::new(database, Arc::clone(&version)));
            let _held = self.read.work.hold(plan.work_bytes());
            self.take_loan_back();
            let mut pace = Pace::new(self, database, None);
            // One that cannot be read is no way to make room.
            let survey = rewrite::survey(self, database.id_kind, &plan, &mut pace).await;
            let Ok(survey) = survey else { continue };
            if 0 < survey.hidden {
                found.push((u64::from(survey.rows) * segment.row_bytes(), Arc::clone(segment)));
            }
        }
        found.sort_by_key(|(left, segment)| (*left, segment.order()));
        found.into_iter().map(|(_, segment)| segment).collect()
    }
}
