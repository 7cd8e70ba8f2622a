//! Relief: the job of the flush task that makes room for deletes on a full disk.
//!
//! ```text
//! delete is refused -> job: flush all, oldest log first -> rewrite segments with garbage
//!                           -> flush again, if it failed -> log for deletes -> reserve whole?
//! ```
//!
//! What compactions do that nobody has asked for ends before, and begins again when the relief has
//! ended: it takes room before it gives any. Each step may take a part of the reserve when it finds
//! no room. For a flush free log files go before that, for rewrites when it was not enough. Flushes
//! free the log, and rewrites give back more than they take.
//!
//! Guarantees: a caller only waits for the answer, so one that goes, or is not polled any more,
//! holds nothing up; those who ask while a relief waits share it. It ends: a flush is tried again
//! only after a free log file or a part of the reserve has gone, and nobody makes the reserve
//! whole meanwhile. A caller asks [`RELIEFS_MAX`] times at the most. Rewrites of a database end as
//! soon as something came back and the disk says that the reserve could be made whole.
//!
//! Who waits for whom: caller -> flush task -> compaction task -> `Core::flushing`, which the flush
//! task does not hold while it waits for a rewrite. The flush task waits for the log's committer
//! too, and the compaction task for a sync of it; the committer waits for the disk and the manifest
//! only. No task waits for a job of the flush task: what a compaction needs of it, it does without.
//! A flush of a relief does not wait for compactions to catch up either.
//! Tested in `surroundings` of the workspace's tests and in `tests/it/reserve.rs` of this crate.

use crate::{core::Core, error::Error, flush::Cause, wal::SpaceWish};

/// How often one delete asks for a relief before it is refused: others may have taken what the
/// reliefs before have found.
pub(crate) const RELIEFS_MAX: u32 = 8;

impl Core {
    /// Succeeds when deletes may be tried again: log has been made free, or something was given
    /// back. On the flush task only.
    pub(crate) async fn relieve(&self) -> Result<(), Error> {
        self.begin_relief().await;
        self.end_due_compactions().await;
        let outcome = self.find_room_for_deletes().await;
        self.end_relief().await;
        outcome
    }

    async fn find_room_for_deletes(&self) -> Result<(), Error> {
        self.remove_garbage().await;
        // Its outcome is the first failure, which may hide that another database found no room.
        let mut flushed = self.flush_all(Cause::Relief).await;
        let freed = self.rewrite_for_room(flushed.is_err()).await;
        // Also when nothing was rewritten: files may have lost their last reader meanwhile.
        if flushed.is_err() {
            self.remove_garbage().await;
            flushed = self.flush_all(Cause::Relief).await;
        }
        let ready = self.make_log_ready().await;
        if freed { Ok(()) } else { flushed.and(ready) }
    }

    /// Has the compaction task rewrite what gives room back; whether any came back. When flushes
    /// have failed, rows that only memtables hide are looked for as well.
    async fn rewrite_for_room(&self, flushes_fail: bool) -> bool {
        // Where the reserve was not enough, free log files may be: the flush has just made them
        // free, and a rewrite gives back more than it takes.
        self.ask_rooms(flushes_fail).await
            || self.wal.ask_space(SpaceWish::GiveBack).await.is_ok()
                && self.ask_rooms(flushes_fail).await
    }

    async fn ask_rooms(&self, flushes_fail: bool) -> bool {
        let mut freed = false;
        for database in self.open_databases() {
            if self.may_give_room(&database, flushes_fail) {
                freed |= self.ask_room(&database).await.is_ok();
            }
        }
        freed
    }

    /// Log for deletes, in a file of its own where no free one is left.
    async fn make_log_ready(&self) -> Result<(), Error> {
        loop {
            let Err(error) = self.wal.ask_space(SpaceWish::Ready).await else { return Ok(()) };
            if !error.is_disk_full() || !self.give_reserve().await {
                return Err(error);
            }
        }
    }

    /// Room for a flush of a relief: what free log files have, then a part of the reserve.
    pub(crate) async fn find_room_for_flush(&self) -> bool {
        self.wal.ask_space(SpaceWish::GiveBack).await.is_ok() || self.give_reserve().await
    }
}
