//! What clients read, and whether it is what they wrote.
//!
//! A client knows what its own ids hold; of the others it checks only that somebody wrote it. What
//! a held snapshot gives must not change, however much happens meanwhile.

use nephrite::{Database, Id, IdRef, Snapshot};

use super::{Client, lane_of, lock};
use crate::{
    history::Stored,
    inspect::{Trouble, identify},
    record::{Key, id_of},
};

/// Ids of a held snapshot that are also looked up one by one.
const LOOKED_UP: usize = 5;

/// A snapshot, and what its client's ids were when it was made.
pub(super) struct Held {
    name: String,
    database: Database,
    snapshot: Snapshot,
    expected: Stored,
}

impl Client {
    pub(super) async fn get(&mut self, database: &Database) {
        let expected = self.visible(database);
        let key = self.key();
        let id = id_of(database.id_kind(), key);
        match database.get(&id).await {
            Ok(found) => {
                self.check(database.name(), &[id], &[key], &[found.as_deref()], expected.as_ref());
            }
            Err(error) => lock(&self.shared).blame("a get", &error),
        }
    }

    pub(super) async fn get_many(&mut self, database: &Database) {
        let expected = self.visible(database);
        let keys: Vec<Key> = (0..1 + self.random.below(8)).map(|_| self.key()).collect();
        let ids: Vec<Id> = keys.iter().map(|key| id_of(database.id_kind(), *key)).collect();
        let borrowed: Vec<IdRef<'_>> = ids.iter().map(Id::as_id_ref).collect();
        match database.get_many(&borrowed).await {
            Ok(found) => {
                let found: Vec<_> = found.iter().map(|vector| vector.as_deref()).collect();
                self.check(database.name(), &ids, &keys, &found, expected.as_ref());
            }
            Err(error) => lock(&self.shared).blame("a get_many", &error),
        }
    }

    /// What was found for ids of this client against what it should be.
    fn check(
        &self,
        name: &str,
        ids: &[Id],
        keys: &[Key],
        found: &[Option<&[f32]>],
        expected: Option<&Stored>,
    ) {
        for ((id, key), found) in ids.iter().zip(keys).zip(found) {
            let stamp = match found.map(|vector| identify(name, id, vector)).transpose() {
                Ok(found) => found.map(|(_, stamp)| stamp),
                Err(Trouble::Violation(text) | Trouble::Mismatch(text)) => {
                    return self.complain(text);
                }
                Err(Trouble::Error(_)) => None,
            };
            let mut shared = lock(&self.shared);
            if stamp.is_some_and(|stamp| !shared.history.has_issued(stamp)) {
                shared
                    .complain(format!("{name}: {id} has a vector of write {stamp:?}, not issued"));
            }
            let wanted = expected.map(|expected| expected.get(key).copied());
            if wanted.is_some_and(|wanted| wanted != stamp) && !shared.stale_allowed {
                shared.complain(format!("{name}: {id} reads as {stamp:?}, should be {wanted:?}"));
            }
        }
    }

    pub(super) async fn scan(&self, database: &Database) {
        let expected = self.visible(database);
        let scanned = async {
            let mut found = Stored::new();
            let mut scan = database.scan().await?;
            while let Some((id, vector)) = scan.next().await? {
                let (key, stamp) = identify(database.name(), &id, &vector)?;
                found.insert(key, stamp);
            }
            Ok::<_, Trouble>(found)
        };
        match scanned.await {
            Ok(mut found) => {
                found.retain(|key, _| lane_of(*key) == self.index);
                self.compare(database.name(), "a scan", &found, expected.as_ref());
            }
            Err(Trouble::Violation(text) | Trouble::Mismatch(text)) => self.complain(text),
            Err(Trouble::Error(error)) => lock(&self.shared).blame("a scan", &error),
        }
    }

    fn compare(&self, name: &str, what: &str, found: &Stored, expected: Option<&Stored>) {
        let mut shared = lock(&self.shared);
        if expected.is_some_and(|expected| expected != found) && !shared.stale_allowed {
            let expected = expected.map_or(0, Stored::len);
            let found = found.len();
            shared.complain(format!("{name}: {what} gives {found} ids, not the {expected} stored"));
        }
    }

    pub(super) async fn count(&self, database: &Database) {
        if let Err(error) = database.count().await {
            lock(&self.shared).blame("a count", &error);
        }
    }

    /// Takes a snapshot, or reads the one taken some steps ago, which nothing may have changed.
    pub(super) async fn snapshot(&mut self, database: &Database) {
        let Some(held) = self.held.take() else {
            let Some(expected) = self.visible(database) else { return };
            match database.snapshot().await {
                Ok(snapshot) => {
                    let name = database.name().to_owned();
                    let database = database.clone();
                    self.held = Some(Held { name, database, snapshot, expected });
                }
                Err(error) => lock(&self.shared).blame("a snapshot", &error),
            }
            return;
        };
        let read = async {
            let mut found = Stored::new();
            let mut scan = held.snapshot.scan().await?;
            while let Some((id, vector)) = scan.next().await? {
                let (key, stamp) = identify(&held.name, &id, &vector)?;
                found.insert(key, stamp);
            }
            let kind = held.database.id_kind();
            for key in found.keys().copied().take(LOOKED_UP).chain([0]) {
                let id = id_of(kind, key);
                let vector = held.snapshot.get(&id).await?;
                let looked_up =
                    vector.map(|vector| identify(&held.name, &id, &vector)).transpose()?;
                if looked_up.map(|(_, stamp)| stamp) != found.get(&key).copied() {
                    let text = format!("a held snapshot gives {id} by scan, not by get");
                    return Err(Trouble::Mismatch(text));
                }
            }
            Ok::<_, Trouble>(found)
        };
        match read.await {
            Ok(mut found) => {
                found.retain(|key, _| lane_of(*key) == self.index);
                self.compare(&held.name, "a held snapshot", &found, Some(&held.expected));
            }
            Err(Trouble::Violation(text) | Trouble::Mismatch(text)) => self.complain(text),
            Err(Trouble::Error(error)) => lock(&self.shared).blame("a held snapshot", &error),
        }
    }
}
