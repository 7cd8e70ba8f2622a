//! What the compaction task does next, and what it does when that fails.
//!
//! First what callers ask for, then what is due in open databases, then what is due in databases
//! that are closed, which are opened for it. What failed is not chosen again at once (`refused`):
//! other inputs are, if they are worth it.
//!
//! On a full disk every compaction goes down the same ladder: all its inputs; then single segments
//! with rows that memtables hide (`hidden`), so that what was deleted goes without a flush, for
//! which there is no room; then those with garbage, those with the fewest live bytes first, for
//! each rewrite gives back more than it took, and one without live rows takes nothing; when not
//! even the smallest fits, the reserve gives its room back, and they go on. Tested in
//! `tests/it/compaction.rs` of this crate and in `surroundings` of the workspace's tests.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use nephrite_format::{DatabaseId, FileId};

use super::{
    Goal, Wish,
    choice::{self, Choice},
};
use crate::{
    core::{Core, DatabaseCore, Entry},
    error::Error,
    manifest::DatabaseRecord,
};

/// Databases that are closed and whose compaction is due.
#[derive(Debug, Default)]
pub(crate) struct Cold(Mutex<BTreeSet<DatabaseId>>);

impl Cold {
    fn add(&self, databases: impl IntoIterator<Item = DatabaseId>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(databases);
    }

    /// Takes the first that may be tried.
    fn take(&self, may: impl Fn(DatabaseId) -> bool) -> Option<DatabaseId> {
        let mut databases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = databases.iter().copied().find(|database| may(*database))?;
        databases.remove(&next);
        Some(next)
    }
}

impl Core {
    /// Does one compaction that is asked for or due; `false` when there is none.
    pub(crate) async fn compact_once(&self) -> bool {
        if let Some(Wish { database, goal, reply }) = self.compactions.next_asked() {
            self.compactions.set_serves(true);
            let outcome = match goal {
                Goal::Merge => self.compact_all(&database).await,
                Goal::Room => self.make_room(&database).await,
            };
            self.compactions.set_serves(false);
            reply.set(outcome);
            return true;
        }
        for database in self.open_databases() {
            if self.compact_due(&database).await {
                return true;
            }
        }
        self.compact_cold().await
    }

    /// Whether a compaction of the database is worth it and may be tried.
    fn choose(&self, database: &DatabaseCore) -> Option<Choice> {
        let version = database.version.load();
        let percent = self.config.garbage_percent;
        let choice = choice::choose(&version, percent)?;
        if self.may_try(database, &choice) {
            return Some(choice);
        }
        let others = choice::pieces_worth(&version, percent);
        others.into_iter().find(|piece| self.may_try(database, piece))
    }

    fn may_try(&self, database: &DatabaseCore, choice: &Choice) -> bool {
        self.compactions.refused.allows(database.id, &files(choice), self.runtime.now())
    }

    /// Does what is due in an open database; `false` when nothing is, or it failed.
    async fn compact_due(&self, database: &DatabaseCore) -> bool {
        let Some(choice) = self.choose(database) else { return false };
        let whole = self.try_compact(database, &choice).await;
        let Err(error) = whole else { return true };
        error.is_disk_full() && self.compact_pieces(database).await
    }

    /// Does what is due in closed databases.
    async fn compact_cold(&self) -> bool {
        loop {
            if self.check_open().is_err() {
                return false;
            }
            let now = self.runtime.now();
            let may = |database| !self.compactions.refused.concerns(database, now);
            let Some(database) = self.compactions.cold.take(may) else { return false };
            let Some(entry) = self.entry_of(database).await else { continue };
            // One that cannot be opened says so to whoever asks for it.
            let Ok(database) = self.database(&entry).await else { continue };
            if self.compact_due(&database).await {
                return true;
            }
        }
    }

    async fn entry_of(&self, database: DatabaseId) -> Option<Arc<Entry>> {
        let name = |record: &DatabaseRecord| record.meta.name.clone();
        let name = self.manifest.read(|state| state.databases.get(&database).map(name)).await?;
        self.catalog().get(&name).cloned()
    }

    /// Databases are being closed: remembers those whose compaction is due.
    pub(crate) fn note_closed(&self, closed: &[Arc<DatabaseCore>]) {
        let due = |database: &&Arc<DatabaseCore>| {
            choice::choose(&database.version.load(), self.config.garbage_percent).is_some()
        };
        let mut due = closed.iter().filter(due).map(|database| database.id).peekable();
        if due.peek().is_some() {
            self.compactions.cold.add(due);
            self.compaction_wanted.notify(1);
        }
    }

    /// Remembers what an earlier life of the store left to be compacted.
    pub(crate) async fn note_garbage_of_closed(&self) {
        let percent = u64::from(self.config.garbage_percent);
        let due = self.manifest.read(|state| {
            let due = |record: &&DatabaseRecord| choice::is_due(record, percent);
            state.databases.values().filter(due).map(|it| it.meta.database).collect::<Vec<_>>()
        });
        self.compactions.cold.add(due.await);
    }

    /// Everything into one segment, or on a disk without room for that piece by piece: then
    /// success means that no segment has garbage, and a merge of all waits for room.
    async fn compact_all(&self, database: &DatabaseCore) -> Result<(), Error> {
        database.check()?;
        let Some(whole) = choice::whole(&database.version.load()) else { return Ok(()) };
        let Err(error) = self.try_compact(database, &whole).await else { return Ok(()) };
        if !error.is_disk_full() {
            return Err(error);
        }
        let freed = self.compact_pieces(database).await;
        let is_clean = || choice::smallest(&database.version.load()).is_none();
        match choice::whole(&database.version.load()) {
            Some(whole) if freed => match self.try_compact(database, &whole).await {
                // One segment of all takes the live bytes once more.
                Err(error) if error.is_disk_full() && is_clean() => Ok(()),
                merged => merged,
            },
            Some(_) if !is_clean() => Err(error),
            Some(_) | None => Ok(()),
        }
    }

    /// Rewrites segments one by one, as long as they fit; on a disk without any room with that of
    /// the reserve. Whether some room came back.
    pub(super) async fn compact_pieces(&self, database: &DatabaseCore) -> bool {
        let mut freed = false;
        // What goes in one step may be what a tombstone of the other was kept for.
        loop {
            let hidden = self.compact_hidden(database).await;
            let dead = self.compact_dead(database).await;
            if !hidden && !dead {
                return freed;
            }
            freed = true;
        }
    }

    /// Of segments with garbage, the smallest first.
    async fn compact_dead(&self, database: &DatabaseCore) -> bool {
        let mut freed = false;
        while let Some(piece) = choice::smallest(&database.version.load()) {
            match self.try_compact(database, &piece).await {
                Ok(()) => freed = true,
                Err(error) if error.is_disk_full() && self.reserve.release().await => {}
                Err(_) => break,
            }
        }
        freed
    }

    /// A compaction whose outcome is counted and, when it fails, remembered.
    pub(super) async fn try_compact(
        &self,
        database: &DatabaseCore,
        choice: &Choice,
    ) -> Result<(), Error> {
        let outcome = self.compact(database, choice).await;
        self.compactions.note(outcome.is_ok());
        if let Err(error) = &outcome {
            let now = self.runtime.now();
            self.compactions.refused.add(database.id, files(choice), error, now);
        }
        outcome
    }
}

fn files(choice: &Choice) -> Vec<FileId> {
    choice.inputs.iter().map(|input| input.file()).collect()
}
