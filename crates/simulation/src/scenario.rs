//! Short scripts of operations on two databases with two ids each, and what they promise.

use std::{fmt, str::FromStr, time::Duration};

use nephrite::{Batch, DatabaseOptions, Durability, Error, IdKind, Ids, Store, runtime::Runtime};

use crate::{
    boot::Boot,
    history::{DatabaseHistory, Existence, History},
    inspect::{Trouble, read_store},
    record::{id_of, vector},
    runtime::Ended,
};

const DIMENSION: u32 = 3;
const DATABASES: [&str; 2] = ["a", "b"];
const IDS: u64 = 2;
/// Vectors of a bulk load: 66 KB, which is more than goes through the log.
const BULK: std::ops::Range<u64> = 10..5510;
/// Longer than the log waits before it writes what gathers, and marks what is durable.
const PAUSE: Duration = Duration::from_millis(25);

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
    /// Stores so many vectors at once, buffered, that they bypass the log. Not among
    /// [`Action::all`]: the images of an exhaustive check would take too long to read.
    Bulk(usize),
    /// Flushes a database.
    Flush(usize),
    /// Flushes and compacts a database.
    Compact(usize),
    /// Closes the store and opens it again.
    Reopen,
    /// Lets enough time pass for what the engine does when it is idle.
    Pause,
}

/// What an operation of a script does, whatever it does it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActionKind {
    /// [`Action::Put`], and so overwriting.
    Put,
    /// [`Action::PutSynced`].
    PutSynced,
    /// [`Action::Delete`].
    Delete,
    /// [`Action::Batch`].
    Batch,
    /// [`Action::Flush`].
    Flush,
    /// [`Action::Compact`].
    Compact,
    /// [`Action::Reopen`].
    Reopen,
    /// [`Action::Pause`].
    Pause,
}

impl ActionKind {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Put, "put"),
        (Self::PutSynced, "put-synced"),
        (Self::Delete, "delete"),
        (Self::Batch, "batch"),
        (Self::Flush, "flush"),
        (Self::Compact, "compact"),
        (Self::Reopen, "reopen"),
        (Self::Pause, "pause"),
    ];
}

/// A name that is no operation of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownAction(String);

impl fmt::Display for UnknownAction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ActionKind::ALL.map(|(_, name)| name).join(", ");
        write!(formatter, "`{}` is no operation of a script; there are {names}", self.0)
    }
}

impl std::error::Error for UnknownAction {}

impl FromStr for ActionKind {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let found = Self::ALL.into_iter().find(|(_, name)| *name == text);
        found.map(|(kind, _)| kind).ok_or_else(|| UnknownAction(text.to_owned()))
    }
}

impl Action {
    /// All of them: every kind on two databases with two ids.
    #[must_use]
    pub fn all() -> Vec<Self> {
        Self::among(&ActionKind::ALL.map(|(kind, _)| kind), DATABASES.len(), IDS)
    }

    /// Those of these kinds on the first of the two databases, or both, and the first of the two
    /// ids, or both.
    #[must_use]
    pub fn among(kinds: &[ActionKind], databases: usize, ids: u64) -> Vec<Self> {
        let (databases, ids) = (databases.clamp(1, DATABASES.len()), ids.clamp(1, IDS));
        let on = |kind: ActionKind, at: usize| -> Vec<Self> {
            match kind {
                ActionKind::Put => (1..=ids).map(|id| Self::Put(at, id)).collect(),
                ActionKind::PutSynced => (1..=ids).map(|id| Self::PutSynced(at, id)).collect(),
                ActionKind::Delete => (1..=ids).map(|id| Self::Delete(at, id)).collect(),
                ActionKind::Batch => vec![Self::Batch(at)],
                ActionKind::Flush => vec![Self::Flush(at)],
                ActionKind::Compact => vec![Self::Compact(at)],
                ActionKind::Reopen if at == 0 => vec![Self::Reopen],
                ActionKind::Pause if at == 0 => vec![Self::Pause],
                ActionKind::Reopen | ActionKind::Pause => Vec::new(),
            }
        };
        let each = |at| kinds.iter().flat_map(move |kind| on(*kind, at));
        (0..databases).flat_map(each).collect()
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
    /// Whether a flush, compaction or close that fails ends the script, as every other operation
    /// does: what they leave is known without their success.
    pub(crate) perseveres: bool,
    /// The first failure that did not end the script.
    pub(crate) refused: Option<Error>,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self { history: History::default(), store: None, perseveres: false, refused: None }
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
            match self.act(boot, *action) {
                Err(Went::Refused(error)) if self.perseveres && is_repeatable(*action) => {
                    self.refused.get_or_insert(error);
                }
                acted => acted?,
            }
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
            Action::Bulk(at) => self.bulk(boot, at),
            Action::Flush(at) => self.flush(boot, at, false),
            Action::Compact(at) => self.flush(boot, at, true),
            Action::Reopen => self.reopen(boot),
            Action::Pause => match boot.runtime.run(boot.runtime.sleep(PAUSE)) {
                Ended::Done(()) => Ok(()),
                Ended::Crashed => Err(Went::Crashed),
                Ended::Stuck => Err(Went::Broken("time stands still".to_owned())),
            },
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

    fn bulk(&mut self, boot: &Boot, at: usize) -> Result<(), Went> {
        let (store, name, stamp) = (self.store(), DATABASES[at], self.history.next_stamp());
        self.history.issue(name, 0, BULK.map(|key| (key, Some(stamp))).collect());
        let put = async {
            let database = store.database(name).await?;
            let vectors: Vec<f32> = BULK.flat_map(|key| vector(stamp, key, DIMENSION)).collect();
            database.put_many(Ids::Consecutive(BULK.start), &vectors, Durability::Buffered).await
        };
        ended(boot.runtime.run(put), "a bulk load")?;
        self.history.acknowledge(name, 0, false);
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
        match ended(boot.runtime.run(store.close()), "a close") {
            Ok(()) => self.history.promise(&mark, None),
            Err(Went::Refused(error)) if self.perseveres => {
                self.refused.get_or_insert(error);
            }
            Err(went) => return Err(went),
        }
        drop((store, self.store.take()));
        if self.refused.is_some() && boot.disk.has_lost_names() {
            return Err(Went::Refused(Error::Closed)); // nothing is started on this file system
        }
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

/// Whether it may fail without leaving doubt about what is stored.
fn is_repeatable(action: Action) -> bool {
    matches!(action, Action::Flush(_) | Action::Compact(_))
}

fn ended<T>(ended: Ended<Result<T, Error>>, what: &str) -> Result<T, Went> {
    match ended {
        Ended::Done(Ok(value)) => Ok(value),
        Ended::Done(Err(error)) => Err(Went::Refused(error)),
        Ended::Crashed => Err(Went::Crashed),
        Ended::Stuck => Err(Went::Broken(format!("{what} never ends"))),
    }
}
