//! One run: a store lives, crashes, is opened again and inspected, until its steps are done.
//!
//! ```text
//! open -> inspect -> epoch (clients work) -> decide -> epoch ...
//!   ^                   |                      |
//!   +---- an image <- crash                    +-> close, drop, crash -> open
//! ```
//!
//! A crash may strike at any change of the disk, also while the store is opened or closed.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex},
};

use nephrite::{Config, DatabaseOptions, Disk, Error, IdKind, Store, runtime::Runtime};
use nephrite_io::sim::{FaultPlan, Image, SimDisk, SimOptions, SimRandom, TraceEvent, TraceHash};

use crate::{
    history::{DatabaseHistory, Existence, History},
    inspect::{Trouble, read_store},
    life::{Fork, Life},
    options::{Options, Profile},
    runtime::{Ended, SimRuntime},
    shape::Shape,
    workload::{Client, Shared, SharedState, all, lane_of, lock},
};

/// Times that a store may fail to open in a row, for faults, before it must open without them.
const OPEN_ATTEMPTS: u32 = 8;

/// What a run did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RunReport {
    /// Operations that clients carried out.
    pub steps: u64,
    /// Crashes of the machine.
    pub crashes: u64,
    /// Times the store was opened.
    pub opens: u64,
    /// Calls of the disk that were made to go wrong.
    pub faults: u64,
    /// System calls of the disk.
    pub calls: u64,
    /// The hash of everything that happened.
    pub trace_hash: u64,
    /// What the seed chose: profile, sizes, latencies.
    pub setting: String,
    /// The promise that was broken.
    pub failure: Option<String>,
    /// What the disk did in the last life of the machine, if the options said to keep it.
    pub events: Vec<TraceEvent>,
}

/// Carries out one run. The same options give the same report.
#[must_use]
pub fn simulate(options: &Options) -> RunReport {
    let mut run = Run::new(options.clone());
    let outcome = catch_unwind(AssertUnwindSafe(|| run.play()));
    run.report.failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(text)) => Some(text),
        Err(panic) => Some(format!("a panic: {}", text_of(panic.as_ref()))),
    };
    run.report.steps = lock(&run.shared).steps;
    run.report.trace_hash = run.hash.value();
    run.report.setting = format!("{:?}", run.shape);
    run.report
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without a text".to_owned())
}

/// Where the next life of the store begins.
enum Start {
    /// On a machine that was off.
    Image(Image),
    /// On the machine that it ran on before.
    Machine(SimDisk),
}

pub(crate) struct Run {
    options: Options,
    pub(crate) random: SimRandom,
    pub(crate) shape: Shape,
    shared: SharedState,
    hash: TraceHash,
    report: RunReport,
    failed_opens: u32,
    /// Counters of the present machine that are in the report already.
    counted: (u64, u64),
}

impl Run {
    fn new(options: Options) -> Self {
        let mut random = SimRandom::new(options.seed);
        let shape = Shape::new(&options, &mut random);
        let shared = Shared {
            history: History::default(),
            violation: None,
            steps_left: options.steps,
            steps: 0,
            errors_allowed: false,
            stale_allowed: false,
        };
        Self {
            options,
            random,
            shape,
            shared: Arc::new(Mutex::new(shared)),
            hash: TraceHash::default(),
            report: RunReport::default(),
            failed_opens: 0,
            counted: (0, 0),
        }
    }

    fn play(&mut self) -> Result<(), String> {
        let mut image = Image::new();
        image.create_dir(Path::new("/sim"));
        let mut start = Start::Image(image);
        loop {
            let mut life = self.begin(start);
            let fork = self.live(&life);
            self.count(&life.disk);
            if fork.is_err() {
                self.report.events = life.disk.events();
            }
            start = match fork? {
                Fork::Over => return Ok(()),
                Fork::Restart if !life.disk.has_lost_names() => {
                    life.goes_on = true;
                    Start::Machine(life.disk.reopen())
                }
                Fork::Crashed | Fork::Restart => {
                    self.report.crashes += 1;
                    let state = life.disk.crash();
                    Start::Image(state.random_image(&mut self.random))
                }
            };
        }
    }

    fn begin(&mut self, start: Start) -> Life {
        let (disk, cold) = match start {
            Start::Machine(disk) => (disk, false),
            Start::Image(image) => {
                self.counted = (0, 0);
                (self.machine(image), true)
            }
        };
        let runtime = SimRuntime::new(self.random.next_u64(), disk.clone());
        Life { disk, runtime, cold, goes_on: false }
    }

    fn machine(&mut self, image: Image) -> SimDisk {
        let shape = &self.shape;
        let mut options = SimOptions::new(self.random.next_u64())
            .latency_max(shape.latency_max)
            .direct(shape.direct);
        if self.random.chance(2, 3) && !self.is_over() {
            let span = [20, 200, 2000][self.random.index(3)];
            options = options.crash_after(self.random.below(span));
        }
        if let Some(capacity) = shape.capacity {
            options = options.capacity(capacity);
        }
        if shape.write_through {
            options = options.write_through();
        }
        if self.options.events {
            options = options.keep_events();
        }
        SimDisk::with_image(options, image)
    }

    fn count(&mut self, disk: &SimDisk) {
        let (calls, faults) = (disk.calls(), disk.faults_struck());
        self.report.calls += calls - self.counted.0;
        self.report.faults += faults - self.counted.1;
        self.counted = (calls, faults);
        self.hash.number(disk.trace_hash());
    }

    fn is_over(&self) -> bool {
        lock(&self.shared).steps_left == 0
    }

    fn set_faults(&self, disk: &SimDisk, on: bool) {
        disk.set_faults(if on { self.shape.faults() } else { FaultPlan::new() });
        if !on && self.shape.capacity.is_some() {
            disk.set_capacity(None);
        } else {
            disk.set_capacity(self.shape.capacity);
        }
    }

    fn live(&mut self, life: &Life) -> Result<Fork, String> {
        let over = self.is_over();
        self.set_faults(&life.disk, false);
        if let Some(fork) = self.repair_whole(life)? {
            return Ok(fork);
        }
        let harmful = self.shape.profile != Profile::Crashes;
        let faulty = harmful && !over && self.failed_opens < OPEN_ATTEMPTS;
        self.set_faults(&life.disk, faulty);
        let faults_before = life.disk.faults_struck();
        let store = match life.runtime.run(open(self.shape.place, self.config(life))) {
            Ended::Crashed => return Ok(Fork::Crashed),
            Ended::Stuck => return Err("opening the store never ends".to_owned()),
            Ended::Done(Ok(store)) => store,
            Ended::Done(Err(error)) => return self.not_open(life, &error),
        };
        self.report.opens += 1;
        self.set_faults(&life.disk, false);
        let opened_with_faults = faults_before < life.disk.faults_struck();
        if let Some(fork) = self.inspect(life, &store, opened_with_faults)? {
            return Ok(fork);
        }
        self.failed_opens = 0;
        if over {
            return Ok(Fork::Over);
        }
        self.set_faults(&life.disk, harmful);
        self.work(life, store)
    }

    pub(crate) fn config(&self, life: &Life) -> Config {
        let disk: Arc<dyn Disk> = Arc::new(life.disk.reopen());
        let runtime: Arc<dyn Runtime> = Arc::new(life.runtime.clone());
        Config::new()
            .memory_limit(4 << 20)
            .memtable_bytes(self.shape.memtable_bytes)
            .wal_segment_bytes(self.shape.wal_segment_bytes)
            .flush_interval(self.shape.flush_interval)
            .max_open_files(self.shape.max_open_files)
            .garbage_percent(self.shape.garbage_percent)
            .disk(disk)
            .runtime(runtime)
    }

    /// The store could not be opened.
    fn not_open(&mut self, life: &Life, error: &Error) -> Result<Fork, String> {
        match self.shape.profile {
            Profile::Corruption => {
                self.set_faults(&life.disk, false);
                return self.repair_damaged(life);
            }
            Profile::Failures if self.failed_opens < OPEN_ATTEMPTS && !self.is_over() => {
                self.failed_opens += 1;
                return Ok(if self.random.chance(1, 2) { Fork::Restart } else { Fork::Crashed });
            }
            Profile::Failures | Profile::Crashes => {}
        }
        let how = if life.cold { "after a crash" } else { "on the same machine" };
        Err(format!("the store does not open {how} although nothing goes wrong: {error}"))
    }

    /// Reads everything and holds it against the history; what was found is known from now on.
    fn inspect(
        &mut self,
        life: &Life,
        store: &Store,
        opened_with_faults: bool,
    ) -> Result<Option<Fork>, String> {
        let found = match life.runtime.run(read_store(store)) {
            Ended::Crashed => return Ok(Some(Fork::Crashed)),
            Ended::Stuck => return Err("reading the store never ends".to_owned()),
            Ended::Done(Ok(found)) => found,
            Ended::Done(Err(trouble)) => {
                return self.not_readable(trouble, opened_with_faults);
            }
        };
        let mut shared = lock(&self.shared);
        let history = &mut shared.history;
        let mut numbers = found.values().flat_map(|stored| stored.values());
        if let Some(foreign) = numbers.find(|stamp| !history.has_issued(**stamp)) {
            return Err(format!("a vector of write {foreign} was found, which was never issued"));
        }
        if self.shape.profile == Profile::Corruption && self.report.faults_seen(&life.disk) {
            // Old states may be found: what matters is that nothing else is.
            return Ok(None);
        }
        history.databases.retain(|name, database| {
            database.existence == Existence::Present || found.contains_key(name)
        });
        for name in found.keys() {
            if !history.databases.contains_key(name) {
                return Err(format!("database {name} was found, which should not be there"));
            }
        }
        let durable = life.cold || self.shape.profile == Profile::Crashes;
        for (name, database) in &mut history.databases {
            let Some(stored) = found.get(name) else {
                return Err(format!("database {name} is lost"));
            };
            let settled = database.settle(stored, lane_of, durable);
            settled.map_err(|text| format!("database {name}: {text}"))?;
        }
        Ok(None)
    }

    /// The store is open, but not everything can be read.
    fn not_readable(
        &mut self,
        trouble: Trouble,
        opened_with_faults: bool,
    ) -> Result<Option<Fork>, String> {
        match (trouble, self.shape.profile) {
            (Trouble::Error(_) | Trouble::Mismatch(_), Profile::Corruption) => Ok(Some(Fork::Over)),
            // A database whose log records could not be replayed stays closed until the next open.
            (Trouble::Error(_), Profile::Failures) if opened_with_faults => {
                self.failed_opens += 1;
                Ok(Some(Fork::Restart))
            }
            (Trouble::Error(error), _) => {
                Err(format!("reading failed although nothing went wrong: {error}"))
            }
            (Trouble::Violation(text) | Trouble::Mismatch(text), _) => Err(text),
        }
    }

    fn work(&mut self, life: &Life, store: Store) -> Result<Fork, String> {
        {
            let mut shared = lock(&self.shared);
            shared.errors_allowed = self.shape.profile != Profile::Crashes;
            shared.stale_allowed = self.shape.profile == Profile::Corruption;
        }
        loop {
            let turn = self.random.below(12);
            let ended = life.runtime.run(self.epoch(life, &store, turn));
            if let Some(violation) = lock(&self.shared).violation.take() {
                return Err(violation);
            }
            match ended {
                Ended::Crashed => return Ok(Fork::Crashed),
                Ended::Stuck => return Err("an operation never ends".to_owned()),
                Ended::Done(()) => {}
            }
            match self.random.below(8) {
                _ if self.is_over() && self.random.chance(1, 2) => return Ok(Fork::Crashed),
                _ if self.is_over() => return self.close(life, store),
                0 => return Ok(Fork::Crashed),
                1 => return self.close(life, store),
                2 => return self.let_go(life, store),
                3 => return Ok(Self::kill(life, store)),
                _ => {}
            }
        }
    }

    /// Changes the set of databases at times, then lets the clients work.
    async fn epoch(&mut self, life: &Life, store: &Store, turn: u64) {
        let count = lock(&self.shared).history.databases.len() as u64;
        let many = 3 < self.shape.databases;
        if count == 0 || (turn == 0 && count < self.shape.databases) {
            self.create(store).await;
            for _ in (1..self.shape.databases).filter(|_| many && turn.is_multiple_of(2)) {
                self.create(store).await;
            }
        } else if turn == 1 && 1 < count {
            self.drop_one(store).await;
        }
        let steps = 1 + self.random.below(40);
        let clients = (0..self.shape.clients).map(|index| {
            let (runtime, random) = (life.runtime.clone(), self.random.fork());
            let (operations, shared) = (self.shape.operations.clone(), Arc::clone(&self.shared));
            let habits = self.shape.habits();
            let store = store.clone();
            let client = Client::new(index, store, runtime, random, operations, shared, habits);
            life.runtime.start(client.run(1 + steps / self.shape.clients as u64))
        });
        all(clients.collect()).await;
    }

    async fn create(&mut self, store: &Store) {
        let dimensions = self.shape.dimensions();
        let dimension = dimensions[self.random.index(dimensions.len())];
        let kind = if self.random.chance(1, 2) { IdKind::U64 } else { IdKind::Bytes };
        let name = format!("d{}", self.random.below(1_000_000));
        let history = DatabaseHistory::new(self.shape.clients);
        if lock(&self.shared).history.databases.contains_key(&name) {
            return;
        }
        lock(&self.shared).history.databases.insert(name.clone(), history);
        let options = DatabaseOptions::new(dimension).id_kind(kind);
        let made = store.create_database(&name, options).await;
        let mut shared = lock(&self.shared);
        match made {
            Ok(_) => {
                let history = shared.history.databases.get_mut(&name);
                history.into_iter().for_each(|it| it.existence = Existence::Present);
            }
            Err(error) => {
                shared.blame("create_database", &error);
                // Nobody knows; nothing is written to it until it is found again.
                shared.block(&name);
            }
        }
    }

    async fn drop_one(&mut self, store: &Store) {
        let names: Vec<String> = lock(&self.shared).history.databases.keys().cloned().collect();
        let name = &names[self.random.index(names.len())];
        let history = lock(&self.shared).history.databases.get_mut(name).map(|history| {
            history.existence = Existence::Unsure;
        });
        assert!(history.is_some(), "it was listed");
        let dropped = store.drop_database(name).await;
        let mut shared = lock(&self.shared);
        match dropped {
            Ok(()) => drop(shared.history.databases.remove(name)),
            Err(error) => {
                shared.blame("drop_database", &error);
                shared.block(name);
            }
        }
    }

    fn close(&mut self, life: &Life, store: Store) -> Result<Fork, String> {
        let mark = lock(&self.shared).history.mark();
        match life.runtime.run(store.close()) {
            Ended::Crashed => return Ok(Fork::Crashed),
            Ended::Stuck => return Err("closing the store never ends".to_owned()),
            Ended::Done(Ok(())) => lock(&self.shared).history.promise(&mark, None),
            Ended::Done(Err(error)) => lock(&self.shared).blame("close", &error),
        }
        if let Some(violation) = lock(&self.shared).violation.take() {
            return Err(violation);
        }
        drop(store);
        Ok(if self.random.chance(1, 3) { Fork::Crashed } else { Fork::Restart })
    }

    /// Kills the process: what it wrote can be read, durable or not; what is in flight goes on.
    fn kill(life: &Life, store: Store) -> Fork {
        life.runtime.kill();
        drop(store);
        life.disk.run_until_idle();
        if life.disk.has_crashed() { Fork::Crashed } else { Fork::Restart }
    }

    /// Drops the last handle without a close; the engine closes in the background.
    fn let_go(&self, life: &Life, store: Store) -> Result<Fork, String> {
        drop(store);
        match life.runtime.run_until_idle() {
            Ended::Crashed => Ok(Fork::Crashed),
            Ended::Stuck => Err("a store that was let go never rests".to_owned()),
            Ended::Done(()) => Ok(Fork::Restart),
        }
    }
}

impl RunReport {
    /// Whether anything was made to go wrong so far.
    fn faults_seen(&self, disk: &SimDisk) -> bool {
        0 < self.faults || 0 < disk.faults_struck()
    }
}

impl Shared {
    /// Nothing more is written by a client until the store was opened again.
    pub(crate) fn block_lane(&mut self, name: &str, client: usize) {
        self.history.lane(name, client).into_iter().for_each(|lane| lane.blocked = true);
    }

    /// Nothing more is written to a database until the store was opened again.
    fn block(&mut self, name: &str) {
        if let Some(history) = self.history.databases.get_mut(name) {
            history.lanes.iter_mut().for_each(|lane| lane.blocked = true);
        }
    }
}

pub(crate) async fn open(place: &str, config: Config) -> Result<Store, Error> {
    Store::open_or_create(place, config).await
}
