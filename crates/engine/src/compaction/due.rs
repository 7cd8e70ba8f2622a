//! What the compaction task does next, and what it does when that fails.
//!
//! First what callers ask for, then what is due in open databases, then what is due in databases
//! that are closed, which are opened for it. What failed is not chosen again at once (`refused`):
//! other inputs are, if they are worth it. While a relief makes room for deletes nothing that is
//! due begins, and what has begun ends at its next piece (`pace`), with what it has written.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use nephrite_format::DatabaseId;

use super::{
    Goal, Wish,
    choice::{self, Choice},
    room::Purpose,
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
        if self.gives_way() {
            return false; // until the relief ends
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
        self.compactions.refused.allows(database.id, &choice.inputs, self.runtime.now())
    }

    /// Does what is due in an open database; `false` when nothing is, or it failed.
    async fn compact_due(&self, database: &DatabaseCore) -> bool {
        let Some(choice) = self.choose(database) else { return false };
        let whole = self.try_compact(database, &choice).await;
        let Err(error) = whole else { return true };
        let in_pieces = error.is_disk_full() && !self.gives_way();
        in_pieces && self.compact_pieces(database, Purpose::Due).await
    }

    /// Whether what the task is at ends, and leaves the room that it has taken: nobody has asked
    /// for it, and a relief makes room for deletes.
    fn gives_way(&self) -> bool {
        self.compactions.cleans() && self.reserve.is_in_relief()
    }

    /// Fails when what the task is at should end.
    pub(super) fn check_goes_on(&self) -> Result<(), Error> {
        self.check_open()?;
        if self.gives_way() {
            return Err(Error::disk_full(self.paths.root()));
        }
        Ok(())
    }

    /// In a relief: has what is due end, and waits for that.
    pub(crate) async fn end_due_compactions(&self) {
        self.compaction_wanted.notify(usize::MAX); // one that waits for its budget
        loop {
            let progress = self.compactions.progress.listen();
            if !self.compactions.works() || !self.compactions.cleans() {
                return;
            }
            progress.await;
        }
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
            if self.gives_way() {
                self.compactions.cold.add([database.id]);
                return false;
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
        let freed = self.compact_pieces(database, Purpose::Asked).await;
        let is_clean = || choice::is_clean(&database.version.load());
        let whole = choice::whole(&database.version.load());
        match whole {
            Some(whole) if freed => match self.try_compact(database, &whole).await {
                // One segment of all takes the live bytes once more.
                Err(error) if error.is_disk_full() && is_clean() => Ok(()),
                merged => merged,
            },
            Some(_) if !is_clean() => Err(error),
            Some(_) | None => Ok(()),
        }
    }

    /// A compaction whose outcome is counted and, when it fails, remembered.
    pub(super) async fn try_compact(
        &self,
        database: &DatabaseCore,
        choice: &Choice,
    ) -> Result<(), Error> {
        self.check_goes_on()?;
        let outcome = self.compact(database, choice).await;
        self.compactions.note(outcome.is_ok());
        if let Err(error) = &outcome
            && !self.gives_way()
        {
            let now = self.runtime.now();
            self.compactions.refused.add(database.id, choice.inputs.clone(), error, now);
        }
        outcome
    }
}
