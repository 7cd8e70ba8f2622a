//! Updates and deletes of single vectors, buffered, and what is read afterwards.

use nephrite::blocking::{Database, Store};
use nephrite::{Durability, Error};

use super::Demo;
use super::expected::Expected;
use super::latency::Latencies;
use crate::failure::Failure;
use crate::figures::count;

impl Demo<'_> {
    pub(super) fn change(&mut self, store: &Store, database: &Database) -> Result<(), Failure> {
        let after = Expected::changed(self.expected.rows);
        let mut latencies = Latencies::new();
        let mut vector = vec![0.0; database.dimension() as usize];
        for id in after.updated_ids() {
            let row = after.row_of(id).expect("an updated id is not deleted");
            self.embeddings.fill(row, &mut vector);
            latencies.time(|| database.update_with(id, &vector, Durability::Buffered))?;
        }
        self.report.updates = latencies.figures();
        let text = self.report.updates.to_string();
        self.say("updates, buffered", &text)?;

        let mut latencies = Latencies::new();
        for id in after.deleted_ids() {
            let was_there = latencies.time(|| database.delete_with(id, Durability::Buffered))?;
            self.checks.require(was_there, || format!("delete did not find vector {id}"));
        }
        self.report.deletes = latencies.figures();
        let text = self.report.deletes.to_string();
        self.say("deletes, buffered", &text)?;

        self.expected = after;
        self.check_changes(database)?;
        store.flush()?;
        self.check_changes(database)
    }

    /// Reads every changed vector, and looks that absent ones stay absent.
    fn check_changes(&mut self, database: &Database) -> Result<(), Failure> {
        let expected = self.expected;
        let changed: Vec<u64> = expected.updated_ids().chain(expected.deleted_ids()).collect();
        self.check_ids(database, &changed)?;
        let found = database.count()?;
        self.checks.require(found == expected.count(), || {
            format!("{} vectors, where {} are expected", count(found), count(expected.count()))
        });
        if let Some(id) = expected.deleted_ids().next() {
            let zeros = vec![0.0; database.dimension() as usize];
            let refused = database.update_with(id, &zeros, Durability::Buffered);
            self.checks.require(matches!(refused, Err(Error::NotFound { .. })), || {
                format!("an update of the deleted vector {id} was not refused")
            });
        }
        Ok(())
    }
}
