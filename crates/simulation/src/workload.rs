//! Clients: tasks that write, read and check what they read, each on ids of its own.
//! What is read: `reads`.

mod reads;

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nephrite::{Batch, Database, Durability, Error, Id, IdKind, Ids, Store, led, runtime::Runtime};
use nephrite_io::sim::SimRandom;

use self::reads::Held;
use crate::{
    history::{History, Stored},
    options::Operation,
    record::{Key, Stamp, id_of, vector},
    runtime::SimRuntime,
    shape::Habits,
};

/// Ids of one client begin at its number times this.
const LANE_KEYS: Key = 1 << 20;
/// Ids that are written one by one.
const SMALL_KEYS: u64 = 24;
/// Where ids of bulk writes begin in a lane.
const BULK_FIRST: Key = 1000;

/// Of the steps of all clients, one in so many writes may commit its own frame.
const LED_ONE_IN: u64 = 3;

/// Whose id this is.
pub(crate) fn lane_of(key: Key) -> usize {
    usize::try_from(key / LANE_KEYS).unwrap_or(usize::MAX)
}

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) history: History,
    /// The first broken promise.
    pub(crate) violation: Option<String>,
    pub(crate) steps_left: u64,
    pub(crate) steps: u64,
    /// Whether errors are the engine's right: something was made to go wrong.
    pub(crate) errors_allowed: bool,
    /// Whether old values are, too: bytes were damaged.
    pub(crate) stale_allowed: bool,
}

pub(crate) type SharedState = Arc<Mutex<Shared>>;

pub(crate) fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn complain(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    /// Notes an error of a call; a violation unless something was made to go wrong.
    pub(crate) fn blame(&mut self, what: &str, error: &Error) {
        if !self.errors_allowed {
            self.complain(format!("{what} failed although nothing went wrong: {error}"));
        }
    }
}

/// One client.
pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) store: Store,
    pub(crate) runtime: SimRuntime,
    pub(crate) random: SimRandom,
    pub(crate) operations: Vec<Operation>,
    pub(crate) shared: SharedState,
    pub(crate) habits: Habits,
    held: Option<Held>,
}

impl Client {
    pub(crate) fn new(
        index: usize,
        store: Store,
        runtime: SimRuntime,
        random: SimRandom,
        operations: Vec<Operation>,
        shared: SharedState,
        habits: Habits,
    ) -> Self {
        Self { index, store, runtime, random, operations, shared, habits, held: None }
    }

    /// Does this many steps, or until a promise was broken.
    pub(crate) async fn run(mut self, steps: u64) {
        for _ in 0..steps {
            {
                let mut shared = lock(&self.shared);
                if shared.violation.is_some() || shared.steps_left == 0 {
                    return;
                }
                shared.steps_left -= 1;
                shared.steps += 1;
            }
            let operation = self.operations[self.random.index(self.operations.len())];
            self.step(operation).await;
        }
    }

    async fn step(&mut self, operation: Operation) {
        match operation {
            Operation::FlushStore => self.flush_store().await,
            Operation::Pause => {
                let pause = Duration::from_micros(self.random.below(40_000));
                self.runtime.sleep(pause).await;
            }
            _ => {
                if let Some(database) = self.database().await {
                    self.step_on(operation, &database).await;
                }
            }
        }
    }

    async fn step_on(&mut self, operation: Operation, database: &Database) {
        match operation {
            Operation::Put => self.put(database).await,
            Operation::Update => self.update(database).await,
            Operation::Delete => self.delete(database).await,
            Operation::Batch => self.batch(database).await,
            Operation::Bulk => self.bulk(database).await,
            Operation::Get => self.get(database).await,
            Operation::GetMany => self.get_many(database).await,
            Operation::Scan => self.scan(database).await,
            Operation::Count => self.count(database).await,
            Operation::Snapshot => self.snapshot(database).await,
            Operation::Flush => self.flush(database).await,
            Operation::Compact => self.compact(database).await,
            Operation::Abandon => self.abandon(database).await,
            Operation::FlushStore | Operation::Pause => {}
        }
    }

    /// One of the databases that are surely there.
    async fn database(&mut self) -> Option<Database> {
        let names: Vec<String> = lock(&self.shared).history.databases.keys().cloned().collect();
        if names.is_empty() {
            return None;
        }
        let name = &names[self.random.index(names.len())];
        match self.store.database(name).await {
            Ok(database) => Some(database),
            Err(error) => {
                lock(&self.shared).blame("opening a database", &error);
                None
            }
        }
    }

    pub(crate) fn key(&mut self) -> Key {
        let base = self.index as u64 * LANE_KEYS;
        if self.random.chance(1, 6) {
            return base + BULK_FIRST + self.random.below(400);
        }
        base + 1 + self.random.below(SMALL_KEYS)
    }

    pub(crate) fn durability(&mut self) -> Durability {
        let synced = self.random.chance(1, self.habits.one_synced_in);
        if synced { Durability::Synced } else { Durability::Buffered }
    }

    pub(crate) fn stamp(&self) -> Stamp {
        lock(&self.shared).history.next_stamp()
    }

    /// What this client sees of a database; none while that is not known.
    pub(crate) fn visible(&self, database: &Database) -> Option<Stored> {
        let mut shared = lock(&self.shared);
        let lane = shared.history.lane(database.name(), self.index)?;
        (!lane.blocked).then(|| lane.visible.clone())
    }

    /// Carries out a write and keeps the history of it.
    async fn write(
        &self,
        database: &Database,
        durability: Durability,
        changes: Vec<(Key, Option<Stamp>)>,
        call: impl Future<Output = Result<(), Error>>,
    ) {
        let name = database.name();
        let (mark, leads) = {
            let mut shared = lock(&self.shared);
            let mark = shared.history.mark();
            shared.history.issue(name, self.index, changes);
            (mark, shared.steps.is_multiple_of(LED_ONE_IN))
        };
        // As the blocking API does it.
        let outcome = if leads { led(call).await } else { call.await };
        let mut shared = lock(&self.shared);
        match outcome {
            Ok(()) => {
                let synced = durability == Durability::Synced;
                shared.history.acknowledge(name, self.index, synced);
                if synced {
                    shared.history.promise(&mark, None);
                }
            }
            Err(Error::BatchTooLarge { .. }) => shared.history.refuse(name, self.index),
            Err(error) => {
                shared.blame("a write", &error);
                let lane = shared.history.lane(name, self.index);
                lane.into_iter().for_each(|lane| lane.blocked = true);
            }
        }
    }

    async fn put(&mut self, database: &Database) {
        if self.visible(database).is_none() {
            return;
        }
        let (key, stamp, durability) = (self.key(), self.stamp(), self.durability());
        let id = id_of(database.id_kind(), key);
        let vector = vector(stamp, key, database.dimension());
        let call = database.put_with(&id, &vector, durability);
        self.write(database, durability, vec![(key, Some(stamp))], call).await;
    }

    async fn update(&mut self, database: &Database) {
        let Some(visible) = self.visible(database) else { return };
        let (key, stamp, durability) = (self.key(), self.stamp(), self.durability());
        let id = id_of(database.id_kind(), key);
        let vector = vector(stamp, key, database.dimension());
        if visible.contains_key(&key) {
            let call = database.update_with(&id, &vector, durability);
            self.write(database, durability, vec![(key, Some(stamp))], call).await;
            return;
        }
        match database.update_with(&id, &vector, durability).await {
            Err(Error::NotFound { .. }) => {}
            Err(error) => lock(&self.shared).blame("an update", &error),
            Ok(()) => self.doubt(format!("update of {id}, which is not stored, succeeded")),
        }
    }

    async fn delete(&mut self, database: &Database) {
        let Some(visible) = self.visible(database) else { return };
        let (key, durability) = (self.key(), self.durability());
        let id = id_of(database.id_kind(), key);
        if visible.contains_key(&key) {
            let call = async {
                match database.delete_with(&id, durability).await {
                    Ok(false) => {
                        self.doubt(format!("delete of {id}, which is stored, found nothing"));
                        Ok(())
                    }
                    other => other.map(drop),
                }
            };
            self.write(database, durability, vec![(key, None)], call).await;
            return;
        }
        match database.delete_with(&id, durability).await {
            Ok(false) => {}
            Ok(true) => self.doubt(format!("delete of {id}, which is not stored, found it")),
            Err(error) => lock(&self.shared).blame("a delete", &error),
        }
    }

    async fn batch(&mut self, database: &Database) {
        if self.visible(database).is_none() {
            return;
        }
        let durability = self.durability();
        let (mut batch, mut changes) = (Batch::new(), Vec::new());
        for _ in 0..1 + self.random.below(6) {
            let key = self.key();
            let id = id_of(database.id_kind(), key);
            if self.random.chance(1, 4) {
                batch.delete(&id);
                changes.push((key, None));
            } else {
                let stamp = self.stamp();
                batch.put(&id, &vector(stamp, key, database.dimension()));
                changes.push((key, Some(stamp)));
            }
        }
        let call = database.batch_with(batch, durability);
        self.write(database, durability, changes, call).await;
    }

    /// Enough vectors that they bypass the log, most of the time.
    async fn bulk(&mut self, database: &Database) {
        if self.visible(database).is_none() {
            return;
        }
        let row_bytes = u64::from(database.dimension()) * 4;
        let (least, most) = self.habits.bulk_bytes;
        let bytes = least + self.random.below(most - least);
        let rows = (bytes / row_bytes).clamp(1, 400);
        let first = self.index as u64 * LANE_KEYS + BULK_FIRST + self.random.below(400 - rows + 1);
        let (stamp, durability) = (self.stamp(), self.durability());
        let keys: Vec<Key> = (first..first + rows).collect();
        let vectors: Vec<f32> =
            keys.iter().flat_map(|key| vector(stamp, *key, database.dimension())).collect();
        let changes = keys.iter().map(|key| (*key, Some(stamp))).collect();
        let ids: Vec<Id> = keys.iter().map(|key| id_of(database.id_kind(), *key)).collect();
        let bytes: Vec<&[u8]> = ids.iter().filter_map(bytes_of).collect();
        let ids = match database.id_kind() {
            IdKind::Bytes => Ids::Bytes(&bytes),
            _ if self.random.chance(1, 2) => Ids::Consecutive(first),
            _ => Ids::U64(&keys),
        };
        let call = database.put_many(ids, &vectors, durability);
        self.write(database, durability, changes, call).await;
    }

    async fn flush(&self, database: &Database) {
        let mark = lock(&self.shared).history.mark();
        let flushed = database.flush().await;
        let mut shared = lock(&self.shared);
        match flushed {
            Ok(()) => shared.history.promise(&mark, Some(database.name())),
            Err(error) => shared.blame("a flush", &error),
        }
    }

    /// A compaction changes nothing that is stored, and promises nothing.
    async fn compact(&self, database: &Database) {
        if let Err(error) = database.compact().await {
            lock(&self.shared).blame("a compaction", &error);
        }
    }

    async fn flush_store(&self) {
        let mark = lock(&self.shared).history.mark();
        let flushed = self.store.flush().await;
        let mut shared = lock(&self.shared);
        match flushed {
            Ok(()) => shared.history.promise(&mark, None),
            Err(error) => shared.blame("a flush of the store", &error),
        }
    }

    pub(crate) fn complain(&self, text: String) {
        lock(&self.shared).complain(text);
    }

    /// Complains unless old values may be read.
    pub(crate) fn doubt(&self, text: String) {
        let mut shared = lock(&self.shared);
        if !shared.stale_allowed {
            shared.complain(text);
        }
    }
}

fn bytes_of(id: &Id) -> Option<&[u8]> {
    match id {
        Id::Bytes(bytes) => Some(bytes),
        Id::U64(_) => None,
    }
}

/// Waits for all.
pub(crate) async fn all(futures: Vec<nephrite::runtime::BoxFuture<()>>) {
    for future in futures {
        future.await;
    }
}
