//! Random reads: hot (from the cache), cold (after a reopen), and many at once.

use nephrite::IdRef;
use nephrite::blocking::{Database, Store};

use super::latency::Latencies;
use super::{Demo, MAIN};
use crate::clock::Stopwatch;
use crate::embeddings::mix;
use crate::failure::Failure;

/// Rows that the hot reads choose from, when the cache holds as many.
const HOT_ROWS: u64 = 20_000;
/// Share of the memory limit that their pages may take: half of the cache, which is half of it.
const HOT_SHARE: u64 = 4;
/// Each of these rows may lie on a page of its own, and pages are not smaller than this.
const PAGE_BYTES_MIN: u64 = 4096;
/// Hot reads, at most ten for each row.
const HOT_READS: u64 = 200_000;
/// Cold reads, each of a row of its own as far as there are that many.
const COLD_READS: u64 = 2_000;
/// Ids of one `get_many`.
const MANY_IDS: u64 = 100;
/// Ids that one `get_many` reads for a check.
const CHECKED_IDS: usize = 256;
/// Calls of `get_many`.
const MANY_CALLS: u64 = 100;

impl Demo<'_> {
    /// Reads rows that are in the cache. A first pass brings them there and checks each bit.
    pub(super) fn read_hot(&mut self, database: &Database) -> Result<(), Failure> {
        let rows = self.expected.rows;
        let page_bytes = PAGE_BYTES_MIN.max(u64::from(database.dimension()) * 4);
        let chosen = (self.memory() / HOT_SHARE / page_bytes).clamp(1, HOT_ROWS).min(rows);
        let id_of = |index: u64| index * (rows / chosen);
        let ids: Vec<u64> = (0..chosen).map(id_of).collect();
        self.check_ids(database, &ids)?;
        let mut latencies = Latencies::new();
        let mut found = 0;
        let reads = HOT_READS.min(chosen * 10);
        for read in 0..reads {
            let id = id_of(mix(read) % chosen);
            found += u64::from(latencies.time(|| database.get(id))?.is_some());
        }
        self.checks
            .require(found == reads, || format!("{found} of {reads} hot reads found a vector"));
        self.report.hot_reads = latencies.figures();
        let text = self.report.hot_reads.to_string();
        self.say("hot reads, 1 thread", &text)
    }

    /// Opens the store again and reads rows that are in no cache of ours.
    pub(super) fn read_cold(&mut self) -> Result<Store, Failure> {
        let rows = self.expected.rows;
        let stopwatch = Stopwatch::start();
        let store = self.context.open(&self.place.store())?;
        let database = store.database(MAIN)?;
        let id = mix(u64::MAX) % rows;
        let first = database.get(id)?;
        let seconds = stopwatch.seconds();
        self.check(id, first.as_deref());
        self.report.open_to_first_vector_seconds = seconds;
        self.say("open to first vector", &format!("{:>7.1} ms", seconds * 1e3))?;

        let mut latencies = Latencies::new();
        for read in 0..COLD_READS.min(rows) {
            let id = mix(read ^ super::SEED) % rows;
            let vector = latencies.time(|| database.get(id))?;
            self.check(id, vector.as_deref());
        }
        self.report.cold_reads = latencies.figures();
        let text = self.report.cold_reads.to_string();
        self.say("cold reads, 1 thread", &text)?;
        let meaning = format!("(cold: {})", self.report.cold_means);
        self.say("", &meaning)?;
        self.read_many(&database)?;
        Ok(store)
    }

    fn read_many(&mut self, database: &Database) -> Result<(), Failure> {
        let rows = self.expected.rows;
        let mut latencies = Latencies::new();
        for call in 0..MANY_CALLS {
            let ids: Vec<u64> =
                (0..MANY_IDS).map(|index| mix(!(call * MANY_IDS + index)) % rows).collect();
            let refs: Vec<IdRef<'_>> = ids.iter().map(|id| IdRef::U64(*id)).collect();
            let vectors = latencies.time(|| database.get_many(&refs))?;
            for (id, vector) in ids.iter().zip(&vectors) {
                self.check(*id, vector.as_deref());
            }
        }
        self.report.get_many_100 = latencies.figures();
        let text = self.report.get_many_100.to_string();
        self.say("get_many of 100, cold", &text)
    }

    /// Reads vectors of the main database and checks each bit for bit.
    pub(super) fn check_ids(&mut self, database: &Database, ids: &[u64]) -> Result<(), Failure> {
        let expected = self.expected;
        self.check_ids_as(database, ids, |id| expected.row_of(id))
    }

    /// Reads vectors and checks that each is the row of the generator that `row_of` tells.
    pub(super) fn check_ids_as(
        &mut self,
        database: &Database,
        ids: &[u64],
        row_of: impl Fn(u64) -> Option<u64>,
    ) -> Result<(), Failure> {
        for ids in ids.chunks(CHECKED_IDS) {
            let refs: Vec<IdRef<'_>> = ids.iter().map(|id| IdRef::U64(*id)).collect();
            for (id, vector) in ids.iter().zip(database.get_many(&refs)?) {
                self.check_as(*id, vector.as_deref(), row_of(*id));
            }
        }
        Ok(())
    }

    /// Checks one vector of the main database bit for bit.
    pub(super) fn check(&mut self, id: u64, found: Option<&[f32]>) {
        self.check_as(id, found, self.expected.row_of(id));
    }

    fn check_as(&mut self, id: u64, found: Option<&[f32]>, row: Option<u64>) {
        let holds = match (row, found) {
            (Some(row), Some(vector)) => self.embeddings.is_row(row, vector, &mut self.scratch),
            (None, None) => true,
            _ => false,
        };
        self.checks.require(holds, || format!("vector {id} is not what was written last"));
    }
}
