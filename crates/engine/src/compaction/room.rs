//! Room: what the compaction task does on a full disk.
//!
//! Every compaction goes down the same ladder: all its inputs; then single segments with rows that
//! memtables hide (`hidden`), so that what was deleted goes without a flush, for which there is no
//! room; then those with garbage, those with the fewest live bytes first, for each rewrite gives
//! back more than it took, and one without live rows takes nothing. What finds no room has a part
//! of the reserve, if somebody waits for it who has a claim ([`Purpose`]), it may be enough, and no
//! reader keeps the inputs, so that their room comes back. A relief merges the small segments that
//! reliefs leave, too.
//!
//! Guarantees: a segment that is not worth it, or cannot be read, keeps no other from being
//! rewritten. A rewrite is tried again only with another part of the reserve, of which there are
//! few, and nobody makes it whole meanwhile. No flush takes the room of the reserve before the
//! rewrite of a relief. Runs on the compaction task only, and waits for no other but through
//! `Core::flushing`, and for the log's committer.
//! Tested in `reserve` and `full_disk` of this crate's tests, and in `surroundings` of the
//! workspace's.

use std::{collections::BTreeSet, sync::Arc};

use super::choice::{self, Choice, Yield};
use crate::{
    core::{Core, DatabaseCore},
    error::Error,
};

/// For whom segments are rewritten one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Nobody waits: without the reserve.
    Due,
    /// Deletes wait: segments of which a good part is garbage, until there is enough room.
    Relief,
    /// Somebody wants to be rid of all garbage.
    Asked,
}

impl Purpose {
    pub(super) fn wants(self, found: Yield) -> bool {
        self != Self::Relief || found.is_much()
    }
}

impl Core {
    /// Whether a relief should ask for a rewrite of the database. `flushes_fail`: rows that
    /// memtables hide count.
    pub(crate) fn may_give_room(&self, database: &DatabaseCore, flushes_fail: bool) -> bool {
        let version = database.version.load();
        let merges = || choice::newest_small(&version).is_some();
        flushes_fail && version.is_dirty() || choice::is_worth_room(&version) || merges()
    }

    /// Gives back what it can of a database; fails when that is nothing.
    pub(super) async fn make_room(&self, database: &DatabaseCore) -> Result<(), Error> {
        database.check()?;
        if self.compact_pieces(database, Purpose::Relief).await {
            return Ok(());
        }
        Err(Error::disk_full(self.paths.root()))
    }

    /// Rewrites segments one by one, as long as they fit. Whether some room came back.
    pub(super) async fn compact_pieces(&self, database: &DatabaseCore, purpose: Purpose) -> bool {
        if purpose == Purpose::Due {
            return self.rewrite_pieces(database, purpose).await;
        }
        self.begin_relief().await;
        let freed = self.rewrite_pieces(database, purpose).await;
        self.end_relief().await;
        freed
    }

    async fn rewrite_pieces(&self, database: &DatabaseCore, purpose: Purpose) -> bool {
        let mut freed = false;
        // What goes in one step may be what a tombstone of the other was kept for.
        loop {
            let hidden = self.compact_hidden(database, purpose).await;
            let dead = self.compact_dead(database, purpose).await;
            let merged = purpose == Purpose::Relief && self.merge_small(database).await;
            if !hidden && !dead && !merged {
                return freed;
            }
            freed = true;
            if self.is_enough(purpose).await {
                return freed;
            }
        }
    }

    /// Whether a relief needs no more room.
    pub(super) async fn is_enough(&self, purpose: Purpose) -> bool {
        purpose == Purpose::Relief && self.reserve_could_be_whole().await
    }

    /// Of segments with garbage, the smallest first.
    async fn compact_dead(&self, database: &DatabaseCore, purpose: Purpose) -> bool {
        // No flush takes the room of the reserve, or that which comes back. What nobody asked for
        // has none of it, and may take long.
        let _alone = match purpose {
            Purpose::Due => None,
            _ => Some(self.flushing.lock().await),
        };
        let mut tried = BTreeSet::new();
        let mut freed = false;
        loop {
            // A statement of its own: what the version consists of is gone before the rewrite, so
            // that its room comes back with it.
            let pieces = choice::pieces_with_garbage(&database.version.load());
            let next = pieces
                .into_iter()
                .find(|(found, piece)| purpose.wants(*found) && tried.insert(piece.inputs.clone()));
            let Some((found, piece)) = next else { return freed };
            freed |= self.compact_with_reserve(database, &piece, found, purpose).await;
            if freed && self.is_enough(purpose).await {
                return freed;
            }
        }
    }

    /// The small newest segments. It takes what it gives back, at the most.
    async fn merge_small(&self, database: &DatabaseCore) -> bool {
        let _alone = self.flushing.lock().await;
        let choice = choice::newest_small(&database.version.load());
        let Some((found, choice)) = choice else { return false };
        self.compact_with_reserve(database, &choice, found, Purpose::Relief).await
    }

    /// A compaction that may have parts of the reserve. Whether room came back.
    pub(super) async fn compact_with_reserve(
        &self,
        database: &DatabaseCore,
        choice: &Choice,
        found: Yield,
        purpose: Purpose,
    ) -> bool {
        loop {
            self.remove_garbage().await;
            let removed = self.garbage.removed();
            let Err(error) = self.try_compact(database, choice).await else {
                return removed < self.garbage.removed();
            };
            let gives_way = error.is_disk_full()
                && purpose != Purpose::Due
                && !is_kept_by_readers(database, choice)
                && self.could_have_room(found.left).await
                && self.give_reserve().await;
            if !gives_way {
                // What the attempt has left.
                self.remove_garbage().await;
                return false;
            }
        }
    }
}

/// Whether more than the version of the database has some input: its room would not come back.
fn is_kept_by_readers(database: &DatabaseCore, choice: &Choice) -> bool {
    let version = database.version.load();
    let mut inputs = version.segments.iter().filter(|it| choice.inputs.contains(&it.file()));
    inputs.any(|input| 1 < Arc::strong_count(input))
}
