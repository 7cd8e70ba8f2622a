//! What was asked of the engine and what it promised: the model that a recovered store must fit.
//!
//! Each database has lanes, one per client: ids that only this client writes, one write at a time.
//! What is recovered must be, in each lane, the state after some number of its writes, not before
//! the last one that was promised to be durable. Lanes of one database must fit each other: a
//! write that survives was issued after others were acknowledged, and those survive as well.

use std::collections::BTreeMap;

use crate::record::{Key, Stamp};

/// What is stored: the write that each id's vector is of.
pub(crate) type Stored = BTreeMap<Key, Stamp>;

/// One write that was acknowledged, or whose outcome is not known.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    changes: Vec<(Key, Option<Stamp>)>,
    /// How many writes of each lane of the database had been acknowledged when it was issued.
    after: Vec<usize>,
}

/// The writes of one client to one database since its state was last known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lane {
    known: Stored,
    writes: Vec<Write>,
    acknowledged: usize,
    durable: usize,
    /// What readers see: after all acknowledged writes.
    pub(crate) visible: Stored,
    /// Nothing more is written until the store was opened again: the outcome of the last write is
    /// not known.
    pub(crate) blocked: bool,
}

/// What is known of a database's being there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existence {
    Present,
    /// It was being made or dropped.
    Unsure,
}

#[derive(Debug, Clone)]
pub(crate) struct DatabaseHistory {
    pub(crate) existence: Existence,
    pub(crate) lanes: Vec<Lane>,
}

/// Everything that was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) databases: BTreeMap<String, DatabaseHistory>,
    last_stamp: Stamp,
}

/// Acknowledged writes of every lane of every database at one moment.
pub(crate) type Mark = BTreeMap<String, Vec<usize>>;

impl History {
    pub(crate) fn next_stamp(&mut self) -> Stamp {
        self.last_stamp += 1;
        self.last_stamp
    }

    /// Whether a write of this number was ever issued.
    pub(crate) fn has_issued(&self, stamp: Stamp) -> bool {
        stamp <= self.last_stamp
    }

    pub(crate) fn lane(&mut self, database: &str, client: usize) -> Option<&mut Lane> {
        self.databases.get_mut(database)?.lanes.get_mut(client)
    }

    /// What has been acknowledged so far.
    pub(crate) fn mark(&self) -> Mark {
        let counts = |history: &DatabaseHistory| {
            history.lanes.iter().map(|lane| lane.acknowledged).collect()
        };
        self.databases.iter().map(|(name, history)| (name.clone(), counts(history))).collect()
    }

    /// What had been acknowledged at the mark was promised to be durable: in one database, or in
    /// all.
    pub(crate) fn promise(&mut self, mark: &Mark, database: Option<&str>) {
        for (name, history) in &mut self.databases {
            if database.is_some_and(|only| only != name) {
                continue;
            }
            let counts = mark.get(name).into_iter().flatten();
            for (lane, count) in history.lanes.iter_mut().zip(counts) {
                lane.durable = lane.durable.max((*count).min(lane.writes.len()));
            }
        }
    }

    /// A client's write begins.
    pub(crate) fn issue(
        &mut self,
        database: &str,
        client: usize,
        changes: Vec<(Key, Option<Stamp>)>,
    ) {
        let Some(history) = self.databases.get_mut(database) else { return };
        let after = history.lanes.iter().map(|lane| lane.acknowledged).collect();
        history.lanes[client].writes.push(Write { changes, after });
    }

    /// The client's last write was acknowledged.
    pub(crate) fn acknowledge(&mut self, database: &str, client: usize, synced: bool) {
        let Some(lane) = self.lane(database, client) else { return };
        let write = lane.writes.last().expect("it was issued").clone();
        lane.acknowledged = lane.writes.len();
        if synced {
            lane.durable = lane.acknowledged;
        }
        apply(&mut lane.visible, &write);
    }

    /// The client's last write was refused: it has no effect.
    pub(crate) fn refuse(&mut self, database: &str, client: usize) {
        let Some(lane) = self.lane(database, client) else { return };
        lane.writes.pop();
    }
}

fn apply(state: &mut Stored, write: &Write) {
    for (key, stamp) in &write.changes {
        match stamp {
            Some(stamp) => drop(state.insert(*key, *stamp)),
            None => drop(state.remove(key)),
        }
    }
}

impl DatabaseHistory {
    pub(crate) fn new(clients: usize) -> Self {
        let lanes = vec![Lane::default(); clients];
        Self { existence: Existence::Unsure, lanes }
    }

    /// Finds how many writes of each lane are in what was found, and goes on from there. `lane_of`
    /// says whose an id is. When the machine was off, what was found is durable.
    pub(crate) fn settle(
        &mut self,
        found: &Stored,
        lane_of: impl Fn(Key) -> usize,
        durable: bool,
    ) -> Result<(), String> {
        let mut parts = vec![Stored::new(); self.lanes.len()];
        for (key, stamp) in found {
            let part = parts.get_mut(lane_of(*key));
            let part = part.ok_or_else(|| format!("id {key:#x} was never written"))?;
            part.insert(*key, *stamp);
        }
        let cuts = self.cuts(&parts)?;
        for ((lane, part), cut) in self.lanes.iter_mut().zip(parts).zip(cuts) {
            lane.go_on(part, cut, durable);
        }
        self.existence = Existence::Present;
        Ok(())
    }

    /// The smallest number of writes for each lane that explains what was found.
    fn cuts(&self, parts: &[Stored]) -> Result<Vec<usize>, String> {
        let fits: Vec<Vec<bool>> =
            self.lanes.iter().zip(parts).map(|(lane, part)| lane.fits(part)).collect();
        let mut least: Vec<usize> = self.lanes.iter().map(|lane| lane.durable).collect();
        loop {
            let mut cuts = Vec::new();
            for (client, (lane, fits)) in self.lanes.iter().zip(&fits).enumerate() {
                let cut = (least[client]..fits.len()).find(|cut| fits[*cut]);
                let cut =
                    cut.ok_or_else(|| lane.complaint(client, &parts[client], fits, least[client]))?;
                cuts.push(cut);
            }
            let mut raised = cuts.clone();
            for (lane, cut) in self.lanes.iter().zip(&cuts) {
                for write in &lane.writes[..*cut] {
                    for (raised, after) in raised.iter_mut().zip(&write.after) {
                        *raised = (*raised).max(*after);
                    }
                }
            }
            if raised == cuts {
                return Ok(cuts);
            }
            least = raised;
        }
    }
}

impl Lane {
    /// For each number of writes, whether what was found is the state after them.
    fn fits(&self, part: &Stored) -> Vec<bool> {
        let mut state = self.known.clone();
        let mut fits = vec![state == *part];
        for write in &self.writes {
            apply(&mut state, write);
            fits.push(state == *part);
        }
        fits
    }

    fn complaint(&self, client: usize, part: &Stored, fits: &[bool], least: usize) -> String {
        let (writes, acknowledged) = (self.writes.len(), self.acknowledged);
        let issued = format!(
            "client {client} issued {writes} writes, {acknowledged} were acknowledged, the first \
             {least} must be there"
        );
        if let Some(cut) = fits.iter().rposition(|fits| *fits) {
            return format!("{issued}, but what was found is the state after {cut}");
        }
        let mut state = self.known.clone();
        self.writes.iter().for_each(|write| apply(&mut state, write));
        let differing = part.iter().filter(|(key, stamp)| state.get(key) != Some(stamp));
        let missing = state.keys().filter(|key| !part.contains_key(key));
        format!(
            "{issued}, but what was found is the state after none of them: of {} ids {} differ \
             from the last state ({:?} ...) and {} are missing ({:?} ...)",
            state.len(),
            differing.clone().count(),
            differing.clone().take(3).collect::<Vec<_>>(),
            missing.clone().count(),
            missing.clone().take(3).collect::<Vec<_>>(),
        )
    }

    fn go_on(&mut self, found: Stored, cut: usize, durable: bool) {
        if durable || cut <= self.durable {
            self.known = found.clone();
            self.writes.clear();
            self.durable = 0;
        } else {
            self.writes.truncate(cut);
            // Counts of other lanes mean nothing any more.
            self.writes.iter_mut().for_each(|write| write.after.clear());
        }
        self.acknowledged = self.writes.len();
        self.visible = found;
        self.blocked = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two clients; the first writes ids below 100.
    fn history() -> History {
        let mut history = History::default();
        let database = DatabaseHistory::new(2);
        history.databases.insert("a".to_owned(), database);
        history
    }

    fn put(history: &mut History, client: usize, key: Key) -> Stamp {
        let stamp = history.next_stamp();
        history.issue("a", client, vec![(key, Some(stamp))]);
        stamp
    }

    fn settle(history: &History, found: &[(Key, Stamp)]) -> Result<(), String> {
        let mut database = history.databases["a"].clone();
        let found = found.iter().copied().collect();
        database.settle(&found, |key| usize::from(100 <= key), true)
    }

    #[test]
    fn a_suffix_that_was_not_promised_may_be_lost() {
        let mut history = history();
        for key in 1..4 {
            put(&mut history, 0, key);
            history.acknowledge("a", 0, key == 2);
        }
        assert!(settle(&history, &[(1, 1), (2, 2), (3, 3)]).is_ok());
        assert!(settle(&history, &[(1, 1), (2, 2)]).is_ok());
        assert!(settle(&history, &[(1, 1)]).is_err(), "the second was synced");
        assert!(settle(&history, &[(2, 2), (3, 3)]).is_err(), "a hole");
        assert!(settle(&history, &[(1, 1), (2, 3)]).is_err(), "a mixture");
    }

    #[test]
    fn a_write_of_unknown_outcome_may_be_there_or_not() {
        let mut history = history();
        put(&mut history, 0, 1);
        history.acknowledge("a", 0, true);
        put(&mut history, 0, 1);

        assert!(settle(&history, &[(1, 1)]).is_ok());
        assert!(settle(&history, &[(1, 2)]).is_ok());
        assert!(settle(&history, &[]).is_err());
    }

    #[test]
    fn what_was_acknowledged_before_a_survivor_was_issued_survives() {
        let mut history = history();
        put(&mut history, 0, 1);
        history.acknowledge("a", 0, false);
        put(&mut history, 1, 100);
        history.acknowledge("a", 1, false);

        assert!(settle(&history, &[]).is_ok());
        assert!(settle(&history, &[(1, 1)]).is_ok());
        assert!(settle(&history, &[(100, 2)]).is_err());
    }

    #[test]
    fn a_promise_covers_what_was_acknowledged_at_its_mark() {
        let mut history = history();
        put(&mut history, 0, 1);
        history.acknowledge("a", 0, false);
        let mark = history.mark();
        put(&mut history, 0, 2);
        history.acknowledge("a", 0, false);
        history.promise(&mark, None);

        assert!(settle(&history, &[(1, 1)]).is_ok());
        assert!(settle(&history, &[]).is_err());
    }

    #[test]
    fn a_refused_write_has_no_effect() {
        let mut history = history();
        put(&mut history, 0, 1);
        history.refuse("a", 0);

        assert!(settle(&history, &[]).is_ok());
        assert!(settle(&history, &[(1, 1)]).is_err());
    }
}
