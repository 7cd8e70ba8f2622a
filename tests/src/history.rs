//! The writes of the kill loop: what each thread of a child does, and what must be left of it.
//!
//! Every step follows from (seed, round, thread, number), so parent and child agree on the whole
//! history without talking about it. Threads write to ids of their own in every database (a
//! *lane*), so the history of a lane is that of one thread and its states are known.
//! A stamp is used once in the life of a store: what is read back tells which step wrote it.

use std::collections::BTreeMap;

use nephrite::{
    Batch, Config, DatabaseOptions, Durability, Error, Id, IdKind, Ids,
    blocking::{Database, Store},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Stamp, vector};

/// Threads that write.
pub const THREADS: usize = 4;
/// Ids of a lane.
pub const SLOTS: u64 = 160;
/// Rows whose vectors exceed 2 MiB in the database of the largest dimension: synced, they bypass
/// the log.
const ROWS_PAST_LOG: usize = 520;

/// A database of the kill loop.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Planned {
    /// Its name.
    pub name: &'static str,
    /// Elements per vector.
    pub dimension: usize,
    /// Kind of its ids.
    pub id_kind: IdKind,
}

/// The databases of the kill loop.
pub const DATABASES: [Planned; 4] = [
    Planned { name: "tiny", dimension: 16, id_kind: IdKind::U64 },
    Planned { name: "words", dimension: 33, id_kind: IdKind::Bytes },
    Planned { name: "images", dimension: 128, id_kind: IdKind::U64 },
    Planned { name: "pages", dimension: 1024, id_kind: IdKind::U64 },
];

/// How large the engine's buffers are while it is being killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the two shapes of the kill loop")]
pub enum Shape {
    /// Memtables and log segments of 256 KiB: flushes and recycled log segments all the time.
    Tight,
    /// Memtables of 3 MiB: most of what is recovered comes from the log and from bulk rows.
    Wide,
}

impl Shape {
    /// The configuration.
    #[must_use]
    pub fn config(self) -> Config {
        match self {
            Self::Tight => crate::small().flush_interval(std::time::Duration::from_millis(30)),
            Self::Wide => Config::new()
                .memory_limit(16 << 20)
                .memtable_bytes(3 << 20)
                .wal_segment_bytes(1 << 20),
        }
    }
}

/// One step of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the steps of the kill loop")]
pub enum Step {
    /// A write to the thread's lane in a database.
    Write {
        /// Index in [`DATABASES`].
        database: usize,
        /// What is written.
        operation: Operation,
        /// When it counts.
        durability: Durability,
    },
    /// A flush of one database.
    Flush {
        /// Index in [`DATABASES`].
        database: usize,
    },
    /// A flush of the store.
    FlushAll,
}

/// A write to one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the writes of the kill loop")]
pub enum Operation {
    /// `put`.
    Put(u64, Stamp),
    /// `update`: only when the slot is taken.
    Update(u64, Stamp),
    /// `delete`.
    Delete(u64),
    /// `batch`: a put, or a delete where there is no stamp.
    Batch(Vec<(u64, Option<Stamp>)>),
    /// `put_many` of consecutive slots, with consecutive stamps.
    Rows(u64, u64, Stamp),
    /// `put_many` of any slots, repeated ones included, with consecutive stamps.
    Scattered(Vec<u64>, Stamp),
}

/// What a lane holds: slots and the stamps of their vectors.
pub type LaneState = BTreeMap<u64, Stamp>;

/// Everything that threads will do.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// Of the whole loop.
    pub seed: u64,
    /// What the engine can take.
    pub shape: Shape,
}

impl Plan {
    /// A plan.
    #[must_use]
    pub fn new(seed: u64, shape: Shape) -> Self {
        Self { seed, shape }
    }

    /// Step `number` of a thread in a round.
    #[must_use]
    pub fn step(&self, round: u64, thread: usize, number: u64) -> Step {
        let mut seed = [0; 32];
        let parts = [self.seed, round, thread as u64, number];
        for (bytes, part) in seed.chunks_exact_mut(8).zip(parts) {
            bytes.copy_from_slice(&part.to_le_bytes());
        }
        let mut random = ChaCha8Rng::from_seed(seed);
        let stamp = round << 40 | (thread as u64) << 36 | number << 12;
        let database = [0, 0, 1, 1, 2, 2, 2, 3][random.random_range(0..8)];
        match random.random_range(0..1000) {
            0..8 => return Step::Flush { database },
            8..11 => return Step::FlushAll,
            _ => {}
        }
        let durability = match random.random_range(0..5) {
            0 => Durability::Synced,
            _ => Durability::Buffered,
        };
        let operation = self.operation(&mut random, database, durability, stamp);
        Step::Write { database, operation, durability }
    }

    fn operation(
        &self,
        random: &mut ChaCha8Rng,
        database: usize,
        durability: Durability,
        stamp: Stamp,
    ) -> Operation {
        let slot = random.random_range(0..SLOTS);
        match random.random_range(0..100) {
            0..50 => Operation::Put(slot, stamp),
            50..62 => Operation::Update(slot, stamp),
            62..76 => Operation::Delete(slot),
            76..90 => Operation::Batch(batch(random, stamp)),
            90..96 => {
                let count = rows(random, database);
                Operation::Rows(random.random_range(0..=SLOTS - count), count, stamp)
            }
            _ => {
                let past_log = self.shape == Shape::Wide
                    && DATABASES[database].dimension == 1024
                    && durability == Durability::Synced;
                let count = if past_log {
                    ROWS_PAST_LOG
                } else {
                    usize::try_from(rows(random, database)).expect("below SLOTS")
                };
                let slots = (0..count).map(|_| random.random_range(0..SLOTS)).collect();
                Operation::Scattered(slots, stamp)
            }
        }
    }
}

/// Up to 20 operations, some on the same slot.
fn batch(random: &mut ChaCha8Rng, stamp: Stamp) -> Vec<(u64, Option<Stamp>)> {
    let count = random.random_range(2..20);
    let entry = |at| {
        let slot = random.random_range(0..SLOTS / 4);
        (slot, (random.random_range(0..3) != 0).then_some(stamp + at))
    };
    (0..count).map(entry).collect()
}

/// Row counts on both sides of 64 KiB, from where buffered rows bypass the log.
fn rows(random: &mut ChaCha8Rng, database: usize) -> u64 {
    match DATABASES[database].dimension {
        1024 => random.random_range(2..40),
        _ => random.random_range(1..SLOTS),
    }
}

impl Operation {
    /// Changes a model of the lane; `false` when there was nothing to change.
    pub fn apply(&self, lane: &mut LaneState) -> bool {
        match self {
            Self::Put(slot, stamp) => {
                lane.insert(*slot, *stamp);
            }
            Self::Update(slot, stamp) => match lane.get_mut(slot) {
                Some(held) => *held = *stamp,
                None => return false,
            },
            Self::Delete(slot) => return lane.remove(slot).is_some(),
            Self::Batch(operations) => {
                for (slot, stamp) in operations {
                    match stamp {
                        Some(stamp) => lane.insert(*slot, *stamp),
                        None => lane.remove(slot),
                    };
                }
            }
            Self::Rows(first, count, stamp) => {
                lane.extend((0..*count).map(|row| (first + row, stamp + row)));
            }
            Self::Scattered(slots, stamp) => {
                lane.extend(slots.iter().copied().zip(*stamp..));
            }
        }
        true
    }

    /// Does it for real; `false` when there was nothing to change.
    ///
    /// # Errors
    /// What the engine says, except `NotFound`, which is an answer.
    pub fn perform(
        &self,
        database: &Database,
        thread: usize,
        durability: Durability,
    ) -> Result<bool, Error> {
        let kind = database.id_kind();
        let dimension = database.dimension() as usize;
        let id = |slot: u64| lane_id(kind, thread, slot);
        match self {
            Self::Put(slot, stamp) => {
                database.put_with(&id(*slot), &vector(*stamp, dimension), durability)?;
            }
            Self::Update(slot, stamp) => {
                let vector = vector(*stamp, dimension);
                match database.update_with(&id(*slot), &vector, durability) {
                    Err(Error::NotFound { .. }) => return Ok(false),
                    updated => updated?,
                }
            }
            Self::Delete(slot) => return database.delete_with(&id(*slot), durability),
            Self::Batch(operations) => {
                let mut batch = Batch::new();
                for (slot, stamp) in operations {
                    match stamp {
                        Some(stamp) => batch.put(&id(*slot), &vector(*stamp, dimension)),
                        None => batch.delete(&id(*slot)),
                    }
                }
                database.batch_with(batch, durability)?;
            }
            Self::Rows(first, count, stamp) if kind == IdKind::U64 => {
                let vectors = vectors(*stamp, *count, dimension);
                let Id::U64(first) = id(*first) else { unreachable!("numbers were asked for") };
                database.put_many(Ids::Consecutive(first), &vectors, durability)?;
            }
            Self::Rows(first, count, stamp) => {
                let slots: Vec<u64> = (*first..first + count).collect();
                return Self::Scattered(slots, *stamp).perform(database, thread, durability);
            }
            Self::Scattered(slots, stamp) => {
                let vectors = vectors(*stamp, slots.len() as u64, dimension);
                let ids: Vec<Id> = slots.iter().map(|slot| id(*slot)).collect();
                put_many(database, &ids, &vectors, durability)?;
            }
        }
        Ok(true)
    }
}

fn vectors(first: Stamp, count: u64, dimension: usize) -> Vec<f32> {
    (first..first + count).flat_map(|stamp| vector(stamp, dimension)).collect()
}

/// `put_many` under owned ids, which are all of the database's kind.
///
/// # Errors
/// As `put_many`.
pub fn put_many(
    database: &Database,
    ids: &[Id],
    vectors: &[f32],
    durability: Durability,
) -> Result<(), Error> {
    let mut numbers = Vec::new();
    let mut names: Vec<&[u8]> = Vec::new();
    for id in ids {
        match id {
            Id::U64(number) => numbers.push(*number),
            Id::Bytes(name) => names.push(name),
        }
    }
    let ids = match database.id_kind() {
        IdKind::U64 => Ids::U64(&numbers),
        _ => Ids::Bytes(&names),
    };
    database.put_many(ids, vectors, durability)
}

/// The id of a slot of a thread.
#[must_use]
pub fn lane_id(kind: IdKind, thread: usize, slot: u64) -> Id {
    match kind {
        IdKind::U64 => Id::U64(thread as u64 * 1_000 + slot),
        _ => Id::Bytes(format!("thread {thread}/slot {slot:05}").into_bytes().into()),
    }
}

/// Thread and slot of an id.
///
/// # Errors
/// When no lane has it.
pub fn lane_of(id: &Id) -> Result<(usize, u64), String> {
    let unknown = || format!("id {id} belongs to no lane");
    let (thread, slot) = match id {
        Id::U64(number) => (number / 1_000, number % 1_000),
        Id::Bytes(name) => {
            let name = std::str::from_utf8(name).map_err(|_| unknown())?;
            let parts = name.strip_prefix("thread ").and_then(|rest| rest.split_once("/slot "));
            let (thread, slot) = parts.ok_or_else(unknown)?;
            let number = |text: &str| text.parse::<u64>().map_err(|_| unknown());
            (number(thread)?, number(slot)?)
        }
    };
    let thread = usize::try_from(thread).map_err(|_| unknown())?;
    if THREADS <= thread || SLOTS <= slot {
        return Err(unknown());
    }
    Ok((thread, slot))
}

/// Makes the databases of the kill loop in a new store.
///
/// # Errors
/// As `create_database`.
pub fn create_databases(store: &Store) -> Result<(), Error> {
    for planned in DATABASES {
        let dimension = u32::try_from(planned.dimension).expect("a planned dimension is small");
        let options = DatabaseOptions::new(dimension).id_kind(planned.id_kind);
        store.create_database(planned.name, options)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_the_same_each_time_and_uses_every_kind_of_step() {
        let plan = Plan::new(7, Shape::Wide);
        let mut seen = [0_u32; 8];
        for number in 0..4000 {
            let step = plan.step(3, 1, number);
            assert_eq!(step, plan.step(3, 1, number));
            let kind = match step {
                Step::Flush { .. } => 0,
                Step::FlushAll => 1,
                Step::Write { operation, .. } => match operation {
                    Operation::Put(..) => 2,
                    Operation::Update(..) => 3,
                    Operation::Delete(_) => 4,
                    Operation::Batch(_) => 5,
                    Operation::Rows(..) => 6,
                    Operation::Scattered(..) => 7,
                },
            };
            seen[kind] += 1;
        }
        assert!(seen.iter().all(|count| 0 < *count), "{seen:?}");
    }

    #[test]
    fn lanes_are_told_from_their_ids() {
        for kind in [IdKind::U64, IdKind::Bytes] {
            for (thread, slot) in [(0, 0), (3, SLOTS - 1)] {
                assert_eq!(lane_of(&lane_id(kind, thread, slot)), Ok((thread, slot)));
            }
        }
        assert!(lane_of(&Id::U64(999)).is_err());
        assert!(lane_of(&Id::Bytes((*b"temp").into())).is_err());
    }
}
