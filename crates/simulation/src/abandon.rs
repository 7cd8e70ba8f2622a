//! Writes whose futures are dropped half-way: applied as a whole, or not at all.
//!
//! The client polls its write a few times and drops it. Then it flushes, after which whatever was
//! staged is visible and durable, and looks: all of the write's ids have its vectors, or none has.
//! From there on the outcome is known, and the history goes on with it.

use std::{future::poll_fn, pin::pin, task::Poll};

use nephrite::{Batch, Database, Durability, Error, Id, IdRef, led};

use crate::{
    inspect::{Trouble, identify},
    record::{Key, Stamp, id_of, vector},
    workload::{Client, lock},
};

/// Polls of a write before it is dropped, at the most.
const POLLS_MAX: u64 = 6;

/// What is left of a dropped write.
enum Left {
    All,
    Nothing,
    /// What was read says neither.
    Unknown,
}

impl Client {
    /// Begins a batch of puts and drops it, unless it ends before that.
    pub(crate) async fn abandon(&mut self, database: &Database) {
        if self.visible(database).is_none() {
            return;
        }
        let durability = self.durability();
        let (mut batch, mut changes) = (Batch::new(), Vec::<(Key, Option<Stamp>)>::new());
        for _ in 0..1 + self.random.below(4) {
            let key = self.key();
            if changes.iter().any(|(other, _)| *other == key) {
                continue;
            }
            let stamp = self.stamp();
            batch.put(&id_of(database.id_kind(), key), &vector(stamp, key, database.dimension()));
            changes.push((key, Some(stamp)));
        }
        let name = database.name().to_owned();
        let mark = {
            let mut shared = lock(&self.shared);
            let mark = shared.history.mark();
            shared.history.issue(&name, self.index, changes.clone());
            mark
        };
        let (polls, leads) = (1 + self.random.below(POLLS_MAX), self.random.chance(1, 2));
        let call = database.batch_with(batch, durability);
        // One that leads leaves a commit behind that others wait for.
        let ended = match leads {
            true => poll_some(led(call), polls).await,
            false => poll_some(call, polls).await,
        };
        let synced = durability == Durability::Synced;
        let mut shared = lock(&self.shared);
        match ended {
            Some(Ok(())) => {
                shared.history.acknowledge(&name, self.index, synced);
                if synced {
                    shared.history.promise(&mark, None);
                }
            }
            Some(Err(error)) => {
                shared.blame("a write that was to be dropped", &error);
                shared.block_lane(&name, self.index);
            }
            None => {
                drop(shared);
                self.settle_dropped(database, &changes).await;
            }
        }
    }

    /// Finds out what became of a write whose future was dropped.
    async fn settle_dropped(&self, database: &Database, changes: &[(Key, Option<Stamp>)]) {
        let name = database.name();
        let looked = async {
            database.flush().await?;
            self.left_of(database, changes).await
        };
        let looked = looked.await;
        let mut shared = lock(&self.shared);
        match looked {
            Ok(Left::All) => shared.history.acknowledge(name, self.index, true),
            Ok(Left::Nothing) => shared.history.refuse(name, self.index),
            Ok(Left::Unknown) => shared.block_lane(name, self.index),
            Err(error) => {
                shared.blame("looking for what a dropped write left", &error);
                shared.block_lane(name, self.index);
            }
        }
    }

    async fn left_of(
        &self,
        database: &Database,
        changes: &[(Key, Option<Stamp>)],
    ) -> Result<Left, Error> {
        let ids: Vec<Id> = changes.iter().map(|(key, _)| id_of(database.id_kind(), *key)).collect();
        let borrowed: Vec<IdRef<'_>> = ids.iter().map(Id::as_id_ref).collect();
        let found = database.get_many(&borrowed).await?;
        let mut present = 0;
        for ((id, (_, stamp)), found) in ids.iter().zip(changes).zip(&found) {
            let Some(found) = found else { continue };
            match identify(database.name(), id, found) {
                Ok((_, found)) => present += usize::from(Some(found) == *stamp),
                Err(Trouble::Violation(text) | Trouble::Mismatch(text)) => {
                    self.complain(text);
                    return Ok(Left::Unknown);
                }
                Err(Trouble::Error(error)) => return Err(error),
            }
        }
        if present == changes.len() {
            return Ok(Left::All);
        }
        if 0 < present {
            let (name, all) = (database.name(), changes.len());
            self.doubt(format!("{name}: {present} of {all} ids of a dropped batch are there"));
            return Ok(Left::Unknown);
        }
        Ok(Left::Nothing)
    }
}

/// Polls a future this often; none when it is not ready by then, and dropped.
async fn poll_some<T>(future: impl Future<Output = T>, polls: u64) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        left -= 1;
        if left == 0 { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}
