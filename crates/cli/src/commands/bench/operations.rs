//! One call of each workload: which ids it takes, what it does with them, and how it is checked.
//!
//! Ids and vectors are made before the clock starts; the marks of what was read are looked at after
//! it stops. With `--verify` a worker remembers the last version that it wrote under each id.
//! Checked by: `tests/it/bench.rs`.

use std::cell::RefCell;
use std::collections::HashMap;

use nephrite::{Durability, IdRef, VectorRef};

use super::handle::{Handle, Read};
use super::keys::{Keys, Random, Shuffle};
use super::recorder::{Kind, Recorder};
use super::vectors::{Check, Vectors};
use super::workload::Workload;
use crate::clock::Stopwatch;
use crate::failure::Failure;

/// Shares of a mixed workload, out of a hundred: reads, and reads and writes.
const MIX_READS: u64 = 83;
const MIX_READS_AND_WRITES: u64 = 97;
/// Ids of the larger reads of a mixed workload.
const MIX_IDS: u64 = 10;

/// What all calls of a workload share.
pub(super) struct Calls<'a> {
    pub(super) workload: Workload,
    pub(super) handle: Handle,
    pub(super) vectors: &'a Vectors,
    pub(super) keys: Keys,
    /// The order of a fill; `None` is ascending.
    pub(super) order: Option<Shuffle>,
    /// Ids that are stored, or that a fill stores.
    pub(super) ids: u64,
    pub(super) batch_size: u64,
    pub(super) check: Check,
    /// Whether ids may be missing, since some were deleted.
    pub(super) holes: bool,
}

/// The last version that was written under an id; `None` after a delete.
pub(super) type Written = HashMap<u64, Option<u64>>;

/// One worker: a task, or a thread.
pub(super) struct Worker<'a> {
    pub(super) random: Random,
    pub(super) recorder: &'a RefCell<Recorder>,
    pub(super) written: Written,
    ids: Vec<u64>,
    values: Vec<f32>,
    version: u64,
}

impl<'a> Worker<'a> {
    pub(super) fn new(random: Random, recorder: &'a RefCell<Recorder>, version: u64) -> Self {
        let (written, ids, values) = (Written::new(), Vec::new(), Vec::new());
        Self { random, recorder, written, ids, values, version }
    }

    fn record(&self, kind: Kind, started: Stopwatch, vectors: u64) {
        self.recorder.borrow_mut().record(kind, started, vectors);
    }
}

impl Calls<'_> {
    /// Carries out the call with this number. `due` is when it should have begun, if it is late.
    pub(super) async fn call(
        &self,
        number: u64,
        worker: &mut Worker<'_>,
        due: Option<Stopwatch>,
    ) -> Result<(), Failure> {
        match self.workload {
            Workload::FillSeq | Workload::FillRandom => {
                self.choose_next(number, worker);
                self.put(worker, Durability::Buffered, due).await
            }
            Workload::FillSync => {
                self.choose_next(number, worker);
                self.put(worker, Durability::Synced, due).await
            }
            Workload::Overwrite => {
                self.choose(worker, self.batch_size);
                self.put(worker, Durability::Buffered, due).await
            }
            Workload::ReadRandom | Workload::ReadWhileWriting => {
                self.choose(worker, 1);
                self.read(worker, due).await
            }
            Workload::MultiReadRandom => {
                self.choose(worker, self.batch_size);
                self.read_many(worker, due).await
            }
            Workload::UpdateRandom => {
                self.choose(worker, 1);
                self.update(worker, due).await
            }
            Workload::DeleteRandom => {
                self.choose(worker, 1);
                self.delete(worker, due).await
            }
            Workload::MixGraph => self.mix(worker, due).await,
            Workload::ReadSeq => self.scan(worker).await,
        }
    }

    /// The next ids of a fill.
    fn choose_next(&self, number: u64, worker: &mut Worker<'_>) {
        let first = number * self.batch_size;
        let places = first..self.ids.min(first + self.batch_size);
        worker.ids.clear();
        worker.ids.extend(places.map(|at| self.order.map_or(at, |order| order.place(at))));
    }

    fn choose(&self, worker: &mut Worker<'_>, count: u64) {
        worker.ids.clear();
        for _ in 0..count {
            worker.ids.push(self.keys.draw(&mut worker.random));
        }
    }

    /// The writer beside readers: one vector under an id that is drawn.
    pub(super) async fn write_beside(&self, worker: &mut Worker<'_>) -> Result<(), Failure> {
        self.choose(worker, 1);
        self.put(worker, Durability::Buffered, None).await
    }

    async fn put(
        &self,
        worker: &mut Worker<'_>,
        durability: Durability,
        due: Option<Stopwatch>,
    ) -> Result<(), Failure> {
        self.make(worker);
        let started = due.unwrap_or_else(Stopwatch::start);
        self.handle.put(&worker.ids, &worker.values, durability).await?;
        let count = worker.ids.len() as u64;
        worker.record(Kind::Write, started, count);
        worker.recorder.borrow_mut().vectors_written += count;
        Ok(())
    }

    /// The vectors of the chosen ids, of a version that no other write of this worker has.
    fn make(&self, worker: &mut Worker<'_>) {
        worker.values.clear();
        worker.version += 1;
        for id in &worker.ids {
            self.vectors.append(*id, worker.version, &mut worker.values);
            if self.check == Check::Bits {
                worker.written.insert(*id, Some(worker.version % super::vectors::VERSIONS));
            }
        }
    }

    async fn read(&self, worker: &Worker<'_>, due: Option<Stopwatch>) -> Result<(), Failure> {
        let id = worker.ids[0];
        let started = due.unwrap_or_else(Stopwatch::start);
        let Read { found, in_memory } = self.handle.get(id).await?;
        worker.record(kind(in_memory), started, 1);
        self.look_at(id, found.as_ref(), worker)
    }

    async fn read_many(&self, worker: &Worker<'_>, due: Option<Stopwatch>) -> Result<(), Failure> {
        let ids: Vec<IdRef<'_>> = worker.ids.iter().map(|id| IdRef::U64(*id)).collect();
        let started = due.unwrap_or_else(Stopwatch::start);
        let Read { found, in_memory } = self.handle.get_many(&ids).await?;
        worker.record(kind(in_memory), started, ids.len() as u64);
        worker
            .ids
            .iter()
            .zip(&found)
            .try_for_each(|(id, vector)| self.look_at(*id, vector.as_ref(), worker))
    }

    async fn update(&self, worker: &mut Worker<'_>, due: Option<Stopwatch>) -> Result<(), Failure> {
        let id = worker.ids[0];
        let started = due.unwrap_or_else(Stopwatch::start);
        let Read { found, .. } = self.handle.get(id).await?;
        self.look_at(id, found.as_ref(), worker)?;
        if found.is_none() {
            worker.record(Kind::Write, started, 1);
            return Ok(());
        }
        drop(found);
        self.make(worker);
        self.handle.update(id, &worker.values).await?;
        worker.record(Kind::Write, started, 1);
        worker.recorder.borrow_mut().vectors_written += 1;
        Ok(())
    }

    async fn delete(&self, worker: &mut Worker<'_>, due: Option<Stopwatch>) -> Result<(), Failure> {
        let id = worker.ids[0];
        let started = due.unwrap_or_else(Stopwatch::start);
        let was_there = self.handle.delete(id).await?;
        worker.record(Kind::Write, started, 1);
        if self.check == Check::Bits {
            worker.written.insert(id, None);
        }
        let mut recorder = worker.recorder.borrow_mut();
        recorder.found += u64::from(was_there);
        recorder.missing += u64::from(!was_there);
        Ok(())
    }

    async fn mix(&self, worker: &mut Worker<'_>, due: Option<Stopwatch>) -> Result<(), Failure> {
        let share = worker.random.below(100);
        if MIX_READS_AND_WRITES <= share {
            self.choose(worker, MIX_IDS);
            return self.read_many(worker, due).await;
        }
        self.choose(worker, 1);
        if share < MIX_READS {
            self.read(worker, due).await
        } else {
            self.put(worker, Durability::Buffered, due).await
        }
    }

    /// Everything once, in the order of the ids.
    async fn scan(&self, worker: &Worker<'_>) -> Result<(), Failure> {
        let read = || worker.recorder.borrow().vectors_read;
        let before = read();
        let mut rows = self.handle.scan().await?;
        let mut last = None;
        loop {
            let started = Stopwatch::start();
            let Some((id, vector)) = rows.next().await? else { break };
            worker.record(Kind::Scan, started, 1);
            let IdRef::U64(id) = id.as_id_ref() else {
                return Err(Failure::error("the benchmark's database has ids of another kind"));
            };
            if last.is_some_and(|last| id <= last) {
                return Err(Failure::error(format_args!("a scan gave {id} after {last:?}")));
            }
            last = Some(id);
            self.look_at(id, Some(&vector), worker)?;
        }
        let count = read() - before;
        if !self.holes && count != self.ids {
            let text = format!("a scan found {count} vectors where {} are stored", self.ids);
            return Err(Failure::Error(text));
        }
        Ok(())
    }

    /// Checks a vector that was read, and that there is one.
    fn look_at(
        &self,
        id: u64,
        vector: Option<&VectorRef>,
        worker: &Worker<'_>,
    ) -> Result<(), Failure> {
        let mut recorder = worker.recorder.borrow_mut();
        match vector {
            Some(vector) => {
                self.vectors.version(id, vector)?;
                recorder.found += 1;
                recorder.vectors_read += 1;
            }
            None if self.holes => recorder.missing += 1,
            None => {
                return Err(Failure::Error(format!(
                    "vector {id} is missing, although it was stored and never deleted"
                )));
            }
        }
        Ok(())
    }
}

fn kind(in_memory: bool) -> Kind {
    if in_memory { Kind::Hit } else { Kind::Miss }
}
