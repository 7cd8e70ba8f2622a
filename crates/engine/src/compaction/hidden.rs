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

use super::{
    choice::{self, Choice, Yield},
    pace::Pace,
    rewrite,
    room::Purpose,
};
use crate::{
    core::{Core, DatabaseCore},
    error::Error,
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
    /// failure would end the log. Done before there is an output, which a failure would leave.
    pub(super) async fn keep_in_log(&self, hidden: &Hidden) -> Result<(), Error> {
        for memtable in self.wal.bulk_unsynced() {
            memtable.make_rows_durable().await?;
        }
        self.wal.reach_disk(hidden.at).await
    }

    /// Rewrites segments with rows that memtables hide one by one, those of which the least is left
    /// first, as long as they fit. Whether some room came back.
    pub(super) async fn compact_hidden(&self, database: &DatabaseCore, purpose: Purpose) -> bool {
        // No flush takes the room that comes back before the last of them has got what it needs.
        let _alone = self.flushing.lock().await;
        let mut freed = false;
        for (found, piece) in self.pieces_with_hidden(database).await {
            if purpose.wants(found) {
                freed |= self.compact_with_reserve(database, &piece, found, purpose).await;
            }
            if freed && self.is_enough(purpose).await {
                break;
            }
        }
        freed
    }

    /// Segments with rows that memtables hide, each alone, those with the fewest other bytes first.
    async fn pieces_with_hidden(&self, database: &DatabaseCore) -> Vec<(Yield, Choice)> {
        let version = database.version.load();
        if !version.is_dirty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        for segment in &version.segments {
            let piece = choice::alone(segment);
            let Some(mut plan) = self.plan(&version, &piece) else { continue };
            plan.hidden = Some(Hidden::new(database, Arc::clone(&version)));
            let _held = self.read.work.hold(plan.work_bytes());
            self.take_loan_back();
            let mut pace = Pace::new(self, database, None);
            // One that cannot be read is no way to make room.
            let survey = rewrite::survey(self, database.id_kind, &plan, &mut pace).await;
            let Ok(survey) = survey else { continue };
            if 0 < survey.hidden {
                let bytes = |rows: u32| u64::from(rows) * segment.row_bytes();
                let (left, dead) = (bytes(survey.rows), bytes(survey.hidden));
                found.push((segment.order(), Yield { left, dead }, piece));
            }
        }
        found.sort_by_key(|(order, found, _)| (found.left, *order));
        found.into_iter().map(|(_, found, piece)| (found, piece)).collect()
    }
}
