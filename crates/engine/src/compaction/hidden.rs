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

use super::{
    Goal, Worth,
    choice::{self, Yield},
    pace::Pace,
    rewrite,
};
use crate::{
    core::{Core, DatabaseCore},
    error::Error,
    segment::Segment,
    version::Version,
    wal::SpaceWish,
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

    /// Room for a delete that a full disk refused: flushes, so that the log comes free, and
    /// rewrites what deletes have left little of; all of it with the room of the reserve. Whether
    /// it makes sense to try again.
    pub(crate) async fn relieve(&self, database: &Arc<DatabaseCore>) -> bool {
        let relief = self.begin_relief().await;
        let mut flushed = self.ask_flush_all().await.is_ok();
        let mut freed = false;
        if !flushed || choice::is_worth_room(&database.version.load()) {
            freed = self.ask_task(database, Goal::Room).await.is_ok();
            flushed = flushed || freed && self.ask_flush_all().await.is_ok();
        }
        let ready = self.wal.ask_space(SpaceWish::Ready).await;
        self.end_relief(relief).await;
        freed || flushed && ready
    }

    /// Gives back what it can of a database; fails when that is nothing.
    pub(super) async fn make_room(&self, database: &DatabaseCore) -> Result<(), Error> {
        database.check()?;
        if self.compact_pieces(database, Worth::Much).await {
            return Ok(());
        }
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        Err(IoError::new(IoOperation::Write, self.paths.root(), full).into())
    }

    /// Rewrites segments with rows that memtables hide one by one, those of which the least is left
    /// first, as long as they fit. Whether some room came back.
    pub(super) async fn compact_hidden(&self, database: &DatabaseCore, worth: Worth) -> bool {
        // No flush takes the room that comes back before the last of them has got what it needs.
        let _alone = self.flushing.lock().await;
        let mut freed = false;
        for (found, segment) in self.segments_with_hidden(database).await {
            loop {
                match self.try_compact(database, &choice::alone(&segment)).await {
                    Ok(()) => freed = true,
                    Err(error) if error.is_disk_full() && self.give_way(found, worth).await => {
                        continue;
                    }
                    Err(_) => return freed,
                }
                break;
            }
        }
        freed
    }

    /// Whether the reserve gave way to a rewrite, which it can be enough for.
    pub(super) async fn give_way(&self, found: Yield, worth: Worth) -> bool {
        let is_worth = worth == Worth::Any || found.is_much();
        is_worth && found.left <= self.reserve.bytes_max() && self.reserve.release().await
    }

    /// Segments with rows that memtables hide, those with the fewest other bytes first.
    async fn segments_with_hidden(&self, database: &DatabaseCore) -> Vec<(Yield, Arc<Segment>)> {
        let version = database.version.load();
        let mut found = Vec::new();
        if !version.is_dirty() {
            return found;
        }
        for segment in &version.segments {
            let Some(mut plan) = self.plan(&version, &choice::alone(segment)) else { continue };
            plan.hidden = Some(Hidden::new(database, Arc::clone(&version)));
            let _held = self.read.work.hold(plan.work_bytes());
            let mut pace = Pace::new(self, database, None);
            // One that cannot be read is no way to make room.
            let survey = rewrite::survey(self, database.id_kind, &plan, &mut pace).await;
            let Ok(survey) = survey else { continue };
            if 0 < survey.hidden {
                let bytes = |rows| u64::from(rows) * segment.row_bytes();
                let (left, hidden) = (bytes(survey.rows), bytes(survey.hidden));
                found.push((Yield { left, dead: hidden }, Arc::clone(segment)));
            }
        }
        found.sort_by_key(|(found, segment)| (found.left, segment.order()));
        found
    }
}
