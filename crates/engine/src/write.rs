//! The write path: validate, append rows, stage a log record, index, acknowledge.
//!
//! Everything between taking a database's write lock and releasing it is synchronous, so a write
//! whose future is dropped is either staged as a whole or not at all.
//!
//! Small writes put their vectors into the log. Large ones (see [`is_bulk`]) do not: their rows go
//! straight to the segment file and the log gets a record that names and checksums them, so that
//! a bulk load writes each vector once.

mod change;
mod validate;

use std::sync::{Arc, atomic::Ordering};

use nephrite_format::{
    IdRef, Lsn, Row, RowsChecksum,
    wal::{BulkEncoder, BulkHeader, IdColumnForm},
};

pub(crate) use self::{
    change::{Change, is_bulk},
    validate::validate_id,
};
use self::{
    change::{
        append, encode_operations, insert, only_id, record_bytes, update_checksum, vector_bytes,
    },
    validate::validate,
};

use crate::{
    batch::Ids,
    config::Durability,
    core::{Core, DatabaseCore, WriteSide},
    error::Error,
    memtable::Memtable,
    relief::RELIEFS_MAX,
    segment::traffic::Pace,
    version::Version,
    wal::{Claim, Record, Refusal, Staged, may_lead},
};

/// Share of the memtables' memory that deletes have beyond it at the least.
const KEPT_SHARE: u64 = 16;

/// What must still hold when the change is staged.
#[derive(Clone, Copy)]
pub(crate) enum Condition {
    None,
    /// Nothing was written to the change's only id since it was looked up: nothing newer than
    /// `memory_lsn` is in memory, and nothing was flushed since.
    Unchanged {
        memory_lsn: Lsn,
        flushes: u64,
    },
}

/// How often a full disk has refused one change of a caller.
#[derive(Debug, Default)]
pub(crate) struct Refusals(u32);

/// How an attempt to stage ended without an error.
enum Attempt {
    Staged(Staged, Option<Arc<Memtable>>),
    /// Visible already.
    Done(Option<Arc<Memtable>>),
    NoRoom,
    ConditionFailed,
}

/// What became of a change that was not refused.
enum Accepted {
    /// It waits for its frame of the log.
    Staged(Staged),
    /// Visible already.
    Done,
    ConditionFailed,
}

impl Core {
    /// Applies a change; `false` when its condition did not hold.
    ///
    /// Cancel safety: dropped early, the change is applied as a whole or not at all.
    pub(crate) async fn write(
        &self,
        database: &Arc<DatabaseCore>,
        change: Change<'_>,
        durability: Durability,
        condition: Condition,
    ) -> Result<bool, Error> {
        let mut refusals = Refusals::default();
        self.write_after(database, change, durability, condition, &mut refusals).await
    }

    /// The same of a change that may have been refused before.
    pub(crate) async fn write_after(
        &self,
        database: &Arc<DatabaseCore>,
        change: Change<'_>,
        durability: Durability,
        condition: Condition,
        refusals: &mut Refusals,
    ) -> Result<bool, Error> {
        let change = change.in_cheapest_form(&database.layout);
        let accepted = loop {
            match self.accept(database, change, durability, condition).await {
                // Nothing was staged.
                Err(error) if error.is_disk_full() => {
                    refusals.0 += 1;
                    self.after_refusal(change.claim(), refusals.0, error).await?;
                }
                accepted => break accepted?,
            }
        };
        match accepted {
            Accepted::Staged(staged) => {
                if staged.leads {
                    self.seat.lead(&staged).await;
                }
                staged.wait().await.map(|()| true)
            }
            Accepted::Done => Ok(true),
            Accepted::ConditionFailed => Ok(false),
        }
    }

    /// What a change that a full disk has refused waits for before it is tried again; else it fails
    /// with that error. Deletes are what makes room, so room is made for them. Vectors that are
    /// refused for the sake of deletes learn whether that still holds.
    async fn after_refusal(&self, claim: Claim, refusals: u32, error: Error) -> Result<(), Error> {
        match claim {
            Claim::Kept if refusals <= RELIEFS_MAX => match self.ask_relief().await {
                // What was in the way may be gone all the same.
                Err(_) if 1 < refusals => Err(error),
                _ => Ok(()),
            },
            Claim::Common if refusals == 1 && self.wal.is_kept_for_deletes() => {
                self.ask_restore().await.map_err(|_| error)
            }
            Claim::Kept | Claim::Common => Err(error),
        }
    }

    /// Stages the change once it has room. An error leaves nothing behind.
    async fn accept(
        &self,
        database: &DatabaseCore,
        change: Change<'_>,
        durability: Durability,
        condition: Condition,
    ) -> Result<Accepted, Error> {
        self.check_open()?;
        validate(database, change)?;
        let bytes = self.check_size(database, change, durability)?;
        if durability == Durability::Synced {
            self.prepare_sync().await?;
        }
        let vectors = vector_bytes(&database.layout, change) as u64;
        let promise = self.lending.promise(vectors.max(bytes as u64));
        let (accepted, memtable) = loop {
            self.admit(change.claim()).await?;
            match self.stage(database, change, durability, condition, bytes)? {
                Attempt::Staged(staged, memtable) => break (Accepted::Staged(staged), memtable),
                Attempt::Done(memtable) => break (Accepted::Done, memtable),
                Attempt::ConditionFailed => return Ok(Accepted::ConditionFailed),
                Attempt::NoRoom => self.wal.wait_for_room(bytes, change.claim()).await?,
            }
        };
        drop(promise);
        if let Some(memtable) = memtable {
            // Only a head start for the flush: a failure does not touch what was promised.
            let pace = match durability {
                Durability::Buffered => Pace::Background,
                Durability::Synced => Pace::Awaited,
            };
            if let Err(error) = memtable.write_behind(pace).await {
                self.memory.set_unwritable(Some(error));
                self.flush_wanted.notify(1);
            }
        }
        Ok(accepted)
    }

    /// Bytes of the change's log record, if it can be atomic at all.
    fn check_size(
        &self,
        database: &DatabaseCore,
        change: Change<'_>,
        durability: Durability,
    ) -> Result<usize, Error> {
        let vectors = vector_bytes(&database.layout, change) as u64;
        let memtable = self.config.memtable_limit();
        if memtable < vectors {
            return Err(Error::BatchTooLarge { bytes: vectors, limit: memtable });
        }
        let bytes = record_bytes(&database.layout, change, durability);
        let limit = self.wal.record_bytes_max();
        if limit < bytes {
            return Err(Error::BatchTooLarge { bytes: bytes as u64, limit: limit as u64 });
        }
        Ok(bytes)
    }

    /// A sync must make earlier bulk rows durable first. Done here, before anything is promised, a
    /// full disk refuses this write and harms nothing; the committer then finds little left to do.
    /// While segments cannot be written the write is refused at once, until a flush works again.
    async fn prepare_sync(&self) -> Result<(), Error> {
        if let Some(error) = self.memory.unwritable() {
            self.flush_wanted.notify(1);
            return Err(error);
        }
        for memtable in self.wal.bulk_unsynced() {
            if let Err(error) = memtable.make_rows_durable().await {
                self.memory.set_unwritable(Some(error.clone()));
                self.flush_wanted.notify(1);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits while the memtables together hold as much as they may. Deletes may take what others
    /// leave of the share, however much work goes on: on a full disk nothing is flushed before they
    /// have made room.
    async fn admit(&self, claim: Claim) -> Result<(), Error> {
        if self.has_room(claim) {
            return Ok(());
        }
        self.counters.write_stalls.fetch_add(1, Ordering::Relaxed); // a counter
        loop {
            let listener = self.memory.freed.listen();
            if self.has_room(claim) {
                return Ok(());
            }
            self.check_open()?;
            self.wal.check()?;
            let failure = self.memory.failure();
            self.flush_wanted.notify(1);
            if let Some(error) = failure {
                return Err(error);
            }
            listener.await;
        }
    }

    /// Whether the memtables hold less than they may now, after taking back what they need.
    fn has_room(&self, claim: Claim) -> bool {
        self.take_loan_back();
        let room = self.memtable_room();
        let limit = match claim {
            Claim::Common => room,
            Claim::Kept => self.memtable_share().max(room + room / KEPT_SHARE),
        };
        self.memory.bytes() < limit
    }

    fn stage(
        &self,
        database: &DatabaseCore,
        change: Change<'_>,
        durability: Durability,
        condition: Condition,
        bytes: usize,
    ) -> Result<Attempt, Error> {
        let mut side = database.lock();
        database.check()?;
        let memtable = self.writable_memtable(database, &mut side);
        if memtable.is_empty() {
            database.dirty_since.set(self.runtime.now());
        }
        if let Condition::Unchanged { memory_lsn, flushes } = condition {
            let version = database.version.load();
            let newer =
                newest_in_memory(&version, only_id(change)).is_some_and(|it| memory_lsn < it);
            if newer || version.flushes != flushes {
                return Ok(Attempt::ConditionFailed);
            }
        }
        match self.wal.has_room(bytes, change.claim()) {
            Ok(()) => {}
            Err(Refusal::NoRoom) => return Ok(Attempt::NoRoom),
            Err(Refusal::Failed(error)) => return Err(error),
        }
        let before = memtable.bytes();
        let attempt = self.append_and_log(database, &memtable, change, durability, bytes);
        let grown = memtable.bytes() - before;
        self.memory.grow(grown);
        drop(side);
        self.take_loan_back();
        attempt
    }

    /// Rows, record and index entries of a change, in this order: rows that no record names are
    /// garbage and harm nobody.
    fn append_and_log(
        &self,
        database: &DatabaseCore,
        memtable: &Arc<Memtable>,
        change: Change<'_>,
        durability: Durability,
        bytes: usize,
    ) -> Result<Attempt, Error> {
        let first_row = append(memtable, change)?;
        match self.log(database, memtable, change, durability, first_row, bytes) {
            Ok((staged, waits)) => {
                let (lsn, layout) = (staged.lsn, &database.layout);
                memtable.insert(lsn, |index| insert(index, layout, change, first_row, lsn));
                let bulk = is_bulk(layout, change, durability).then(|| Arc::clone(memtable));
                if waits {
                    return Ok(Attempt::Staged(staged, bulk));
                }
                database.visibility.publish(lsn);
                Ok(Attempt::Done(bulk))
            }
            Err(Refusal::NoRoom) => Ok(Attempt::NoRoom),
            Err(Refusal::Failed(error)) => Err(error),
        }
    }

    /// The active memtable, a fresh one when it is full. Under the write lock.
    fn writable_memtable(&self, database: &DatabaseCore, side: &mut WriteSide) -> Arc<Memtable> {
        let version = database.version.load();
        if version.active.bytes() < self.config.memtable_limit() {
            return Arc::clone(&version.active);
        }
        let fresh = self.freeze(database, side);
        fresh.expect(self.config.memtable_limit());
        fresh
    }

    /// Replaces the active memtable by an empty one, which is returned. Under the write lock.
    pub(crate) fn freeze(&self, database: &DatabaseCore, side: &mut WriteSide) -> Arc<Memtable> {
        let version = database.version.load();
        let fresh = self.new_memtable(database.layout, database.id_kind);
        database.publish(side, version.frozen_with(Arc::clone(&fresh)));
        self.flush_wanted.notify(1);
        fresh
    }

    /// Stages the record; tells whether its writer waits for the log.
    fn log(
        &self,
        database: &DatabaseCore,
        memtable: &Arc<Memtable>,
        change: Change<'_>,
        durability: Durability,
        first_row: Row,
        bytes: usize,
    ) -> Result<(Staged, bool), Refusal> {
        let bulk = is_bulk(&database.layout, change, durability);
        let synced = durability == Durability::Synced;
        let waits = synced || database.visibility.has_pending();
        if waits {
            database.visibility.add_pending();
        }
        let record = Record {
            bytes,
            synced,
            claim: change.claim(),
            waiting: waits.then_some(&database.visibility),
            bulk: bulk.then_some(memtable),
            // A bulk write may wait for the device between this and its turn to lead.
            leads: synced && !bulk && may_lead(),
        };
        let first_of_memtable = memtable.first_lsn().is_none();
        if bulk {
            memtable.note_bulk();
        }
        let staged = self.wal.stage(&record, first_of_memtable, |target| {
            if let (Change::Rows(ids, vectors), true) = (change, bulk) {
                self.encode_bulk(target, database, memtable, ids, vectors, first_row);
            } else {
                encode_operations(target, database, change);
            }
        });
        if staged.is_err() && waits {
            database.visibility.forget_pending();
        }
        Ok((staged?, waits))
    }

    fn encode_bulk(
        &self,
        target: &mut [u8],
        database: &DatabaseCore,
        memtable: &Memtable,
        ids: Ids<'_>,
        vectors: &[f32],
        first_row: Row,
    ) {
        let layout = &database.layout;
        let file = memtable.sink().id();
        let place = self.identity(database, file).page(layout.row_offset(first_row));
        let mut checksum = RowsChecksum::new(place);
        update_checksum(&mut checksum, vectors);
        let row_count = vectors.len() / layout.dimension() as usize;
        let header = BulkHeader {
            database: database.id,
            segment: file,
            first_row,
            row_count: u32::try_from(row_count).expect("a memtable holds fewer rows"),
            rows_checksum: checksum.finish(),
        };
        let form = match ids {
            Ids::Consecutive(first) => IdColumnForm::Consecutive { first },
            Ids::U64(_) => IdColumnForm::U64,
            Ids::Bytes(_) => IdColumnForm::Bytes,
        };
        let mut encoder = BulkEncoder::new(target, &header, form);
        if !matches!(ids, Ids::Consecutive(_)) {
            (0..row_count).for_each(|row| encoder.id(ids.get(row)));
        }
        let written = encoder.finish();
        assert_eq!(written, target.len(), "the record has the length that was reserved");
    }
}

/// Sequence number of the newest write to an id that is still in memory, acknowledged or not.
fn newest_in_memory(version: &Version, id: IdRef<'_>) -> Option<Lsn> {
    let newest = version.memtables().find_map(|memtable| memtable.find_newest(id));
    newest.map(|found| found.lsn)
}
