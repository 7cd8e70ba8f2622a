//! The store of one run, and one workload after the other on it.
//!
//! Around each workload: the caches are made hot or cold, counters are read before and after, a
//! flush makes what was written durable (in the time of the workload), and what is stored is
//! compared with what should be. Only the workload and its flush are measured.
//! Checked by: `tests/it/bench.rs`.

use std::collections::HashMap;

use nephrite::blocking::{Database, Store};
use nephrite::{Config, DatabaseOptions, DiskOptions, IdRef, StoreStats};

use super::handle::Handle;
use super::keys::{Keys, Shuffle};
use super::limit::{Samples, Yardstick};
use super::machine::{Machine, cpu_seconds, evict, reset_peak, resident_bytes_peak};
use super::operations::Calls;
use super::outcome::Outcome;
use super::place::Place;
use super::plan::{Plan, Temperature};
use super::recorder::Latencies;
use super::vectors::{Check, Vectors};
use super::work::{self, Done, Pace};
use super::workload::Workload;
use crate::clock::Stopwatch;
use crate::context::Context;
use crate::embeddings::mix;
use crate::failure::Failure;
use crate::figures::{bytes, per_second};
use crate::progress::Progress;

/// The database of the benchmark.
const DATABASE: &str = "bench";
/// Vectors when nothing is said.
const NUM: u64 = 100_000;
const DIMENSION: u32 = 128;
/// Ids of a read that only warms or checks.
const IDS_AT_ONCE: usize = 256;

/// See the module documentation.
pub(super) struct Session<'a> {
    plan: &'a Plan,
    place: Place,
    config: Config,
    /// None only while it is being reopened.
    open: Option<Open>,
    vectors: Vectors,
    dimension: u32,
    /// Ids are below this.
    ids: u64,
    /// Whether some of them may be missing.
    holes: bool,
    yardstick: Option<Yardstick>,
    /// Workloads so far: each has random numbers of its own.
    workloads: u64,
}

struct Open {
    store: Store,
    database: Option<Database>,
}

/// Counters before a workload.
struct Before {
    stats: StoreStats,
    cpu: Option<f64>,
    watch: Stopwatch,
}

impl<'a> Session<'a> {
    pub(super) fn open(plan: &'a Plan, context: &mut Context) -> Result<Self, Failure> {
        let place = Place::prepare(plan.dir.as_deref())?;
        let config = config(plan, context)?;
        let mut session = Self {
            plan,
            place,
            config,
            open: None,
            vectors: Vectors::new(DIMENSION, plan.check),
            dimension: DIMENSION,
            ids: 0,
            holes: false,
            yardstick: None,
            workloads: 0,
        };
        session.open_store(context)?;
        session.require_direct()?;
        if plan.use_existing {
            session.find_database()?;
        }
        if !context.output.json() {
            let report = session.store()?.backend_report();
            let machine = Machine::new(&report).describe();
            context.output.line(format_args!("{machine} | {}", session.place.store().display()))?;
        }
        Ok(session)
    }

    /// Ends the run in order.
    pub(super) fn close(mut self) -> Result<(), Failure> {
        self.yardstick = None;
        if let Some(Open { store, database }) = self.open.take() {
            drop(database);
            store.close()?;
        }
        Ok(())
    }

    /// Carries out one workload.
    pub(super) fn run(
        &mut self,
        workload: Workload,
        context: &Context,
    ) -> Result<Outcome, Failure> {
        self.workloads += 1;
        if workload.starts_empty() {
            self.start_empty(workload)?;
        }
        if workload.reads() {
            self.set_temperature(context)?;
        }
        let interrupt = || context.shutdown.check();
        let mut samples = self.samples(workload, &interrupt)?;
        if let (Some(samples), Some(yardstick)) = (&mut samples, &self.yardstick) {
            yardstick.sample(samples, &interrupt)?;
        }
        let mut outcome = self.measure(workload, context)?;
        if let (Some(samples), Some(yardstick)) = (&mut samples, &self.yardstick) {
            yardstick.sample(samples, &interrupt)?;
            let (limit, ratio) =
                samples.compare(outcome.operations_per_second, outcome.bytes_per_second);
            (outcome.device_limit, outcome.device_limit_ratio) = (Some(limit), ratio);
        }
        Ok(outcome)
    }

    fn store(&self) -> Result<&Store, Failure> {
        let open = self.open.as_ref().map(|open| &open.store);
        open.ok_or_else(|| Failure::error("the store of the benchmark is closed"))
    }

    fn database(&self) -> Result<&Database, Failure> {
        let database = self.open.as_ref().and_then(|open| open.database.as_ref());
        database
            .ok_or_else(|| Failure::NotFound("there is no database yet: begin with a fill".into()))
    }

    fn open_store(&mut self, context: &Context) -> Result<(), Failure> {
        let path = self.place.store();
        let mut config = self.config.clone();
        if self.plan.direct == Some(false) {
            let options = DiskOptions::new().backend(config.settings().backend).direct(false);
            let disk = nephrite::open_disk(options, self.place.root()).map_err(Failure::error)?;
            config = config.disk(disk);
        }
        let store = match self.plan.use_existing {
            true if !path.exists() => {
                return Err(Failure::NotFound(format!(
                    "--use-existing: there is no store at {}: run a fill with this --dir first",
                    path.display()
                )));
            }
            true => context.watch(|| Store::open(&path, config))?,
            false => context.watch(|| Store::open_or_create(&path, config))?,
        };
        self.open = Some(Open { store, database: None });
        Ok(())
    }

    fn require_direct(&self) -> Result<(), Failure> {
        let report = self.store()?.backend_report();
        if self.plan.direct == Some(true) && !report.direct {
            return Err(Failure::error(format_args!(
                "--direct: files in {} cannot bypass the system's cache ({})",
                self.place.root().display(),
                report.reason
            )));
        }
        Ok(())
    }

    /// The database that an earlier run left.
    fn find_database(&mut self) -> Result<(), Failure> {
        let database = self.store()?.database(DATABASE)?;
        self.dimension = database.dimension();
        if self.plan.dim.is_some_and(|dim| dim != self.dimension) {
            return Err(Failure::Usage(format!(
                "--dim: the existing vectors have {} values; leave it out",
                self.dimension
            )));
        }
        let count = database.count()?;
        if count == 0 {
            let text = "--use-existing: the earlier run left no vectors; fill it first";
            return Err(Failure::NotFound(text.to_owned()));
        }
        // Ids go from 0 up to the last one; deleted ones are holes below it.
        let mut last = 0;
        for row in database.scan()? {
            if let IdRef::U64(id) = row?.0.as_id_ref() {
                last = id;
            }
        }
        self.ids = last + 1;
        self.holes = count != self.ids;
        self.vectors = Vectors::new(self.dimension, self.plan.check);
        self.set_database(database);
        Ok(())
    }

    fn set_database(&mut self, database: Database) {
        if let Some(open) = &mut self.open {
            open.database = Some(database);
        }
    }

    fn start_empty(&mut self, workload: Workload) -> Result<(), Failure> {
        if let Some(open) = &mut self.open {
            open.database = None;
        }
        self.dimension = self.plan.dim.unwrap_or(DIMENSION);
        let store = self.store()?;
        if store.list().iter().any(|listed| listed.name == DATABASE) {
            store.drop_database(DATABASE)?;
        }
        let database = store.create_database(DATABASE, DatabaseOptions::new(self.dimension))?;
        self.vectors = Vectors::new(self.dimension, self.plan.check);
        self.ids = workload.operations(self.plan.num.unwrap_or(NUM));
        self.holes = false;
        self.set_database(database);
        Ok(())
    }

    fn set_temperature(&mut self, context: &Context) -> Result<(), Failure> {
        match self.plan.temperature {
            Temperature::AsLeft => Ok(()),
            Temperature::Hot => self.warm(),
            Temperature::Cold => self.reopen(context),
        }
    }

    /// Reads every vector once, so that all are in memory.
    fn warm(&self) -> Result<(), Failure> {
        let cache = self.store()?.stats().cache_bytes;
        let database = self.database()?;
        let data = database.stats()?.segment_bytes;
        if cache < data {
            return Err(Failure::error(format_args!(
                "--hot: {} of segments do not fit in {} of cache; a larger --cache-size or a \
                 smaller --num is needed",
                bytes(data),
                bytes(cache)
            )));
        }
        let ids: Vec<u64> = (0..self.ids).collect();
        for some in ids.chunks(IDS_AT_ONCE) {
            let wanted: Vec<IdRef<'_>> = some.iter().map(|id| IdRef::U64(*id)).collect();
            database.get_many(&wanted)?;
        }
        Ok(())
    }

    /// Closes the store and opens it again with nothing in memory.
    fn reopen(&mut self, context: &Context) -> Result<(), Failure> {
        if let Some(Open { store, database }) = self.open.take() {
            drop(database);
            store.close()?;
        }
        evict(&self.place.store())?;
        self.open_store(context)?;
        let database = self.store()?.database(DATABASE)?;
        self.set_database(database);
        Ok(())
    }

    /// The measurements of the device beside a workload, and the file for them.
    fn samples(
        &mut self,
        workload: Workload,
        interrupt: super::device::transfer::Interrupt<'_>,
    ) -> Result<Option<Samples>, Failure> {
        if !self.plan.with_device_limit {
            return Ok(None);
        }
        if self.yardstick.is_none() {
            // The drive as it can best be reached, however the store reaches it.
            let options = DiskOptions::new();
            let data = self.ids.saturating_mul(self.vectors.bytes());
            self.yardstick = Some(Yardstick::new(options, self.place.root(), data, interrupt)?);
        }
        let page_bytes = u64::from(self.database()?.stats()?.page_bytes);
        let in_flight = self.plan.threads * self.plan.iodepth;
        let batch_size = self.plan.batch_size(workload);
        let duration = self.plan.duration;
        Ok(Some(Samples::new(workload, page_bytes, in_flight, batch_size, duration)))
    }

    fn measure(&mut self, workload: Workload, context: &Context) -> Result<Outcome, Failure> {
        let database = self.database()?.clone();
        let pace = self.pace(workload);
        let calls = self.calls(workload, &database, &pace);
        let spinner = Progress::spinner(workload.name(), context.output.quiet());
        reset_peak();
        let before =
            Before { stats: self.store()?.stats(), cpu: cpu_seconds(), watch: Stopwatch::start() };
        let done = work::run(&calls, &pace)?;
        let flush_seconds = match workload.writes() {
            true => {
                let watch = Stopwatch::start();
                self.store()?.flush()?;
                Some(watch.seconds())
            }
            false => None,
        };
        let mut outcome = self.outcome(workload, &before, &done, flush_seconds)?;
        drop(spinner);
        outcome.verified = self.check(workload, &database, &done)?;
        Ok(outcome)
    }

    fn pace(&self, workload: Workload) -> Pace {
        let plan = self.plan;
        let num = plan.num.unwrap_or(if plan.use_existing { self.ids } else { NUM });
        let batch_size = plan.batch_size(workload);
        let calls = match workload {
            _ if workload.starts_empty() => Some(self.ids.div_ceil(batch_size)),
            _ if plan.duration.is_some() => None,
            Workload::ReadSeq => Some(plan.threads),
            _ => Some(workload.operations(num).div_ceil(batch_size)),
        };
        let open_loop = plan.rate.is_some();
        let in_flight = plan.threads * plan.iodepth;
        let one_each = open_loop || workload == Workload::ReadSeq;
        Pace {
            threads: if open_loop { in_flight } else { plan.threads },
            tasks: if one_each { 1 } else { plan.iodepth },
            calls,
            duration: plan.duration,
            rate: plan.rate,
            seed: mix(plan.seed ^ mix(self.workloads)),
        }
    }

    fn calls(&self, workload: Workload, database: &Database, pace: &Pace) -> Calls<'_> {
        let shuffled = matches!(workload, Workload::FillRandom | Workload::FillSync);
        Calls {
            workload,
            handle: Handle::new(database, pace.tasks),
            vectors: &self.vectors,
            keys: Keys::new(self.ids, self.plan.distribution, self.plan.seed),
            order: shuffled.then(|| Shuffle::new(self.ids, self.plan.seed)),
            ids: self.ids,
            batch_size: self.plan.batch_size(workload),
            check: self.plan.check,
            holes: self.holes,
        }
    }

    fn outcome(
        &self,
        workload: Workload,
        before: &Before,
        done: &Done,
        flush_seconds: Option<f64>,
    ) -> Result<Outcome, Failure> {
        let seconds = before.watch.seconds();
        let cpu = cpu_seconds().zip(before.cpu).map(|(after, before)| after - before);
        let store = self.store()?;
        let (after, report) = (store.stats(), store.backend_report());
        let plan = self.plan;
        let mut outcome = Outcome {
            workload: workload.name(),
            operations: 0,
            seconds: if flush_seconds.is_some() { seconds } else { done.seconds },
            flush_seconds,
            operations_per_second: 0.0,
            bytes_per_second: 0.0,
            latency_ns: Latencies::default(),
            warm_latency_ns: None,
            cold_latency_ns: None,
            write_latency_ns: None,
            beside_writes_per_second: None,
            cpu_seconds: cpu,
            cpu_seconds_per_operation: None,
            bytes_read: after.io.bytes_read - before.stats.io.bytes_read,
            bytes_written: after.io.bytes_written - before.stats.io.bytes_written,
            read_amplification: None,
            write_amplification: None,
            resident_bytes_peak: resident_bytes_peak(),
            found: 0,
            missing: 0,
            verified: None,
            caches: if workload.reads() { plan.temperature } else { Temperature::AsLeft }.name(),
            cache_bytes: after.cache_bytes,
            memory_limit_bytes: after.memory_limit_bytes,
            vectors: self.ids,
            dimension: self.dimension,
            threads: plan.threads,
            iodepth: plan.iodepth,
            batch_size: plan.batch_size(workload),
            distribution: workload.draws_ids().then(|| plan.distribution.to_string()),
            rate: plan.rate,
            seed: plan.seed,
            backend: report.chosen.to_string(),
            backend_reason: report.reason.clone(),
            direct: report.direct,
            device_limit: None,
            device_limit_ratio: None,
            machine: Machine::new(&report),
            interval_seconds: 0.0,
            timeline: Vec::new(),
            curve: Vec::new(),
        };
        outcome.record(&done.recorder);
        outcome.divide(self.vectors.bytes());
        self.amplify(&mut outcome, done);
        Ok(outcome)
    }

    /// What the device moved for each byte that was asked for.
    fn amplify(&self, outcome: &mut Outcome, done: &Done) {
        let beside = done.beside.as_ref();
        let ratio = |moved: u64, vectors: u64| {
            let asked = vectors * self.vectors.bytes();
            (asked != 0).then(|| moved as f64 / asked as f64)
        };
        let written =
            done.recorder.vectors_written + beside.map_or(0, |beside| beside.vectors_written);
        outcome.read_amplification = ratio(outcome.bytes_read, done.recorder.vectors_read);
        outcome.write_amplification = ratio(outcome.bytes_written, written);
        outcome.beside_writes_per_second =
            beside.map(|beside| per_second(beside.operations, done.seconds));
    }

    /// Compares what is stored with what the workload wrote.
    fn check(
        &mut self,
        workload: Workload,
        database: &Database,
        done: &Done,
    ) -> Result<Option<u64>, Failure> {
        if workload.starts_empty() {
            // A fill that ran out of time has left ids out.
            self.holes = done.recorder.operations != self.ids;
            let (count, stored) = (database.count()?, done.recorder.operations);
            if count != stored {
                return Err(Failure::Error(format!(
                    "{}: {stored} vectors were stored and {count} are there",
                    workload.name()
                )));
            }
        }
        self.holes |= workload == Workload::DeleteRandom;
        if self.plan.check == Check::Marks || !workload.writes() {
            return Ok(None);
        }
        self.check_written(database, &done.written).map(Some)
    }

    /// Every id that was written holds the last version of one of its writers.
    fn check_written(
        &self,
        database: &Database,
        written: &HashMap<u64, Vec<Option<u64>>>,
    ) -> Result<u64, Failure> {
        for (id, versions) in written {
            let vector = database.get(*id)?;
            let found = vector.map(|vector| self.vectors.version(*id, &vector)).transpose()?;
            if !versions.contains(&found) {
                return Err(Failure::Damage(format!(
                    "vector {id} is of version {found:?} where the last writes were {versions:?}"
                )));
            }
        }
        Ok(written.len() as u64)
    }
}

fn config(plan: &Plan, context: &Context) -> Result<Config, Failure> {
    let config = context.config();
    let Some(cache) = plan.cache_size else { return Ok(config) };
    let config = config.memory_limit(cache.saturating_mul(2));
    let refused = |error: nephrite::Error| Failure::Usage(format!("--cache-size: {error}"));
    config.validate().map_err(refused)?;
    Ok(config)
}
