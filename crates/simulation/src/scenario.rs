//! Short scripts of operations on two databases with two ids each, and what they promise.

use std::fmt;

use nephrite::{Batch, DatabaseOptions, Durability, Error, IdKind, Store};

use crate::{
    boot::Boot,
    history::{DatabaseHistory, Existence, History},
    inspect::{Trouble, read_store},
    record::{id_of, vector},
    runtime::Ended,
};

const DIMENSION: u32 = 3;
const DATABASES: [&str; 2] = ["a", "b"];

/// One operation of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Stores an id of a database, or replaces it, buffered.
    Put(usize, u64),
    /// The same, synced.
    PutSynced(usize, u64),
    /// Deletes an id, buffered.
    Delete(usize, u64),
    /// Stores one id and deletes the other, synced and together.
    Batch(usize),
    /// Flushes a database.
    Flush(usize),
    /// Flushes and compacts a database.
    Compact(usize),
    /// Closes the store and opens it again.
    Reopen,
}

impl Action {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut actions = vec![Self::Reopen];
        for database in 0..DATABASES.len() {
            actions.extend([Self::Batch(database), Self::Flush(database), Self::Compact(database)]);
            for key in 1..=2 {
                actions.extend([
                    Self::Put(database, key),
                    Self::PutSynced(database, key),
                    Self::Delete(database, key),
                ]);
            }
        }
        actions
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

/// How a script went.
#[derive(Debug)]
pub(crate) enum Went {
    Through,
    Crashed,
    /// An operation failed; the script ended there.
    Refused(Error),
    Broken(String),
}

impl fmt::Display for Went {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Through => write!(formatter, "it came through"),
            Self::Crashed => write!(formatter, "the machine crashed"),
            Self::Refused(error) => write!(formatter, "refused: {error}"),
            Self::Broken(text) => write!(formatter, "{text}"),
        }
    }
}

/// A script on its way, with what it has promised.
pub(crate) struct Script {
    pub(crate) history: History,
    store: Option<Store>,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self { history: History::default(), store: None }
    }

    /// Runs the script on a machine.
    pub(crate) fn play(&mut self, boot: &Boot, actions: &[Action]) -> Went {
        match self.try_play(boot, actions) {
            Ok(()) => Went::Through,
            Err(went) => went,
        }
    }

    fn try_play(&mut self, boot: &Boot, actions: &[Action]) -> Result<(), Went> {
        self.store = Some(ended(boot.open(), "opening")?);
        for name in DATABASES {
            self.create(boot, name)?;
        }
        for action in actions {
            self.act(boot, *action)?;
        }
        Ok(())
    }

    fn store(&self) -> Store {
        self.store.clone().expect("it is open while a script runs")
    }

    fn create(&mut self, boot: &Boot, name: &str) -> Result<(), Went> {
        let store = self.store();
        self.history.databases.insert(name.to_owned(), DatabaseHistory::new(1));
        let made = store.create_database(name, DatabaseOptions::new(DIMENSION));
        ended(boot.runtime.run(made), "creating a database")?;
        let history = self.history.databases.get_mut(name).expect("it was just inserted");
        history.existence = Existence::Present;
        Ok(())
    }

    fn act(&mut self, boot: &Boot, action: Action) -> Result<(), Went> {
        match action {
            Action::Put(at, key) => self.put(boot, at, key, Durability::Buffered),
            Action::PutSynced(at, key) => self.put(boot, at, key, Durability::Synced),
            Action::Delete(at, key) => self.delete(boot, at, key),
            Action::Batch(at) => self.batch(boot, at),
            Action::Flush(at) => self.flush(boot, at, false),
            Action::Compact(at) => self.flush(boot, at, true),
            Action::Reopen => self.reopen(boot),
        }
    }

    fn put(
        &mut self,
        boot: &Boot,
        at: usize,
        key: u64,
        durability: Durability,
    ) -> Result<(), Went> {
        let (store, name, stamp) = (self.store(), DATABASES[at], self.history.next_stamp());
        let mark = self.history.mark();
        self.history.issue(name, 0, vec![(key, Some(stamp))]);
        let put = async {
            let database = store.database(name).await?;
            let vector = vector(stamp, key, DIMENSION);
            database.put_with(&id_of(IdKind::U64, key), &vector, durability).await
        };
        ended(boot.runtime.run(put), "a put")?;
        let synced = durability == Durability::Synced;
        self.history.acknowledge(name, 0, synced);
        if synced {
            self.history.promise(&mark, None);
        }
        Ok(())
    }

    fn delete(&mut self, boot: &Boot, at: usize, key: u64) -> Result<(), Went> {
        let (store, name) = (self.store(), DATABASES[at]);
        self.history.issue(name, 0, vec![(key, None)]);
        let delete = async { store.database(name).await?.delete(key).await };
        ended(boot.runtime.run(delete), "a delete")?;
        self.history.acknowledge(name, 0, false);
        Ok(())
    }

    fn batch(&mut self, boot: &Boot, at: usize) -> Result<(), Went> {
        let (store, name, stamp) = (self.store(), DATABASES[at], self.history.next_stamp());
        let mark = self.history.mark();
        self.history.issue(name, 0, vec![(1, Some(stamp)), (2, None)]);
        let apply = async {
            let mut batch = Batch::new();
            batch.put(1, &vector(stamp, 1, DIMENSION));
            batch.delete(2);
            store.database(name).await?.batch_with(batch, Durability::Synced).await
        };
        ended(boot.runtime.run(apply), "a batch")?;
        self.history.acknowledge(name, 0, true);
        self.history.promise(&mark, None);
        Ok(())
    }

    fn flush(&mut self, boot: &Boot, at: usize, compact: bool) -> Result<(), Went> {
        let (store, name, mark) = (self.store(), DATABASES[at], self.history.mark());
        let flush = async {
            let database = store.database(name).await?;
            database.flush().await?;
            if compact { database.compact().await } else { Ok(()) }
        };
        ended(boot.runtime.run(flush), "a flush")?;
        self.history.promise(&mark, Some(name));
        Ok(())
    }

    fn reopen(&mut self, boot: &Boot) -> Result<(), Went> {
        let (store, mark) = (self.store(), self.history.mark());
        ended(boot.runtime.run(store.close()), "a close")?;
        self.history.promise(&mark, None);
        drop((store, self.store.take()));
        self.store = Some(ended(boot.open(), "opening again")?);
        Ok(())
    }

    /// Lets go of the store, however it is; the machine goes on.
    pub(crate) fn let_go(&mut self, boot: &Boot) {
        if let Some(store) = self.store.take() {
            // A store that refuses to close is let go all the same.
            let _ = boot.runtime.run(store.close());
        }
        let _ = boot.runtime.run_until_idle();
    }

    /// Whether the store on this machine holds what the script promised.
    pub(crate) fn check(&self, boot: &Boot) -> Result<(), Went> {
        let store = ended(boot.open(), "recovery")?;
        let found = match boot.runtime.run(read_store(&store)) {
            Ended::Done(Ok(found)) => found,
            Ended::Done(Err(Trouble::Error(error))) => return Err(Went::Refused(error)),
            Ended::Done(Err(Trouble::Violation(text) | Trouble::Mismatch(text))) => {
                return Err(Went::Broken(text));
            }
            Ended::Crashed => return Err(Went::Crashed),
            Ended::Stuck => return Err(Went::Broken("reading never ends".to_owned())),
        };
        for (name, database) in &self.history.databases {
            let Some(stored) = found.get(name) else {
                if database.existence == Existence::Present {
                    return Err(Went::Broken(format!("database {name} is lost")));
                }
                continue;
            };
            let settled = database.clone().settle(stored, |_| 0, true);
            settled.map_err(|text| Went::Broken(format!("database {name}: {text}")))?;
        }
        Ok(())
    }
}

fn ended<T>(ended: Ended<Result<T, Error>>, what: &str) -> Result<T, Went> {
    match ended {
        Ended::Done(Ok(value)) => Ok(value),
        Ended::Done(Err(error)) => Err(Went::Refused(error)),
        Ended::Crashed => Err(Went::Crashed),
        Ended::Stuck => Err(Went::Broken(format!("{what} never ends"))),
    }
}
