//! Rounds of SIGKILL at random moments over mixed writes to several databases by several threads.
//!
//! A child writes by a plan (`history`) and tells every step it begins and every one that is
//! acknowledged; the parent kills it and looks at what is there. Checked after each kill:
//!
//! - what each thread wrote to each database is the state after some prefix of its steps: nothing
//!   that was acknowledged is lost in the middle, no batch or row set is there in part, no byte of
//!   a vector is wrong;
//! - that prefix reaches at least to the last step that was durable: a synced write that was
//!   acknowledged, everything acknowledged before it began (in any database), flushes likewise;
//! - within a database, everything acknowledged before a surviving write began survives as well;
//! - outcomes of `update` and `delete` are those of the model;
//! - databases whose creation or drop was acknowledged are there or gone;
//! - `verify` is clean, and the directory stays within the bounds that [`Bounds`] states.
//!
//! Every other round the check is done on a copy, so that the child recovers what a killed child
//! left, round after round; every seventh round a child is killed while it recovers.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use nephrite::{BackendChoice, Durability, Error, blocking::Store};
use nephrite_tests::{
    crash::{Line, Victim},
    directories::{Kind, bytes_of, crash_image, files_of},
    history::{DATABASES, LaneState, Plan, SLOTS, Shape, Step, THREADS, create_databases, lane_of},
    read_stamp, rounds, seed,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[test]
fn kills_lose_nothing_acknowledged_with_the_automatic_backend() {
    let seed = seed("kill loop, auto", 0x6b69_6c6c);
    let rounds = rounds(100, 300);
    Loop::new(Plan::new(seed, Shape::Tight), BackendChoice::Auto).run(rounds);
}

#[test]
fn kills_lose_nothing_acknowledged_with_the_positional_backend() {
    let seed = seed("kill loop, positional", 0x706f_7369);
    let rounds = rounds(50, 300);
    Loop::new(Plan::new(seed, Shape::Wide), BackendChoice::Positional).run(rounds);
}

/// Largest sizes of the directory after a round was recovered and closed.
struct Bounds {
    wal_bytes: u64,
    segment_bytes: u64,
    segment_files: usize,
}

impl Bounds {
    /// Log: 8 full segments force a flush, 4 spares are kept, one is being written, one made ready
    /// and two may fill while a flush runs.
    /// Segments: a compaction waits until half of the rows are garbage, its output lies beside its
    /// input for a while, and a database that was just flushed has one memtable more. Flushes wait
    /// for compactions from 24 files of a database on; recovery, which cannot wait, flushes up to 8
    /// full segments of the log.
    fn of(shape: Shape) -> Self {
        let (wal_segment, memtable) = match shape {
            Shape::Tight => (256 << 10, 256 << 10),
            Shape::Wide => (1 << 20, 3 << 20),
        };
        let live: u64 = DATABASES
            .iter()
            .map(|it| THREADS as u64 * SLOTS * (it.dimension as u64 * 4).next_multiple_of(64))
            .sum();
        Self {
            wal_bytes: (8 + 4 + 1 + 1 + 2) * wal_segment,
            segment_bytes: 3 * live + DATABASES.len() as u64 * memtable,
            segment_files: DATABASES.len() * (24 + 8 + 1),
        }
    }
}

/// What the steps of a round were and when.
#[derive(Default)]
pub(super) struct Observed {
    /// Per thread and step: the last step of each thread acknowledged when it began.
    begun: Vec<Vec<[i64; THREADS]>>,
    /// Per thread and step: whether it changed anything.
    changed: Vec<Vec<bool>>,
    /// Per thread and database: the last step that must have survived.
    floor: [[i64; DATABASES.len()]; THREADS],
    /// Steps of the thread that makes and drops databases.
    churn_begun: i64,
    churn_acknowledged: i64,
}

impl Observed {
    pub(super) fn new() -> Self {
        Self {
            begun: vec![Vec::new(); THREADS],
            changed: vec![Vec::new(); THREADS],
            floor: [[-1; DATABASES.len()]; THREADS],
            churn_begun: -1,
            churn_acknowledged: -1,
        }
    }

    fn acknowledged(&self) -> [i64; THREADS] {
        std::array::from_fn(|thread| self.changed[thread].len() as i64 - 1)
    }

    pub(super) fn acknowledged_count(&self) -> usize {
        self.changed.iter().map(Vec::len).sum()
    }

    pub(super) fn note(&mut self, plan: &Plan, round: u64, line: Line) {
        match line {
            Line::Ready => {}
            Line::Failed(message) => panic!("round {round}: the child failed: {message}"),
            Line::Begin { thread: THREADS, number } => self.churn_begun = number as i64,
            Line::Acknowledged { thread: THREADS, number, .. } => {
                self.churn_acknowledged = number as i64;
            }
            Line::Begin { thread, number } => {
                assert_eq!(self.begun[thread].len() as u64, number);
                let acknowledged = self.acknowledged();
                self.begun[thread].push(acknowledged);
            }
            Line::Acknowledged { thread, number, changed } => {
                assert_eq!(self.changed[thread].len() as u64, number);
                self.changed[thread].push(changed);
                self.raise_floor(plan, round, thread, number);
            }
        }
    }

    /// What an acknowledged step makes durable.
    fn raise_floor(&mut self, plan: &Plan, round: u64, thread: usize, number: u64) {
        let at = usize::try_from(number).unwrap();
        let covered: Vec<usize> = match plan.step(round, thread, number) {
            Step::Write { durability: Durability::Buffered, .. } => return,
            Step::Write { .. } if !self.changed[thread][at] => return,
            Step::Write { .. } | Step::FlushAll => (0..DATABASES.len()).collect(),
            Step::Flush { database } => vec![database],
        };
        let mut before = self.begun[thread][at];
        before[thread] = number as i64;
        for database in covered {
            for (floor, before) in self.floor.iter_mut().zip(before) {
                floor[database] = floor[database].max(before);
            }
        }
    }
}

/// What is looked at after a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// The directory itself: the next child begins with a store that was closed.
    Original,
    /// A copy: the next child recovers what the killed one left.
    Copy,
}

/// Where the recovered state of a lane lies in the history of its thread.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// A step that certainly survived, or -1.
    survived: i64,
    /// The last step whose survival the state does not contradict.
    reaches: i64,
}

pub(super) struct Loop {
    pub(super) plan: Plan,
    backend: BackendChoice,
    pub(super) directory: tempfile::TempDir,
    pub(super) random: ChaCha8Rng,
    /// Per thread and database, at the beginning of the round.
    lanes: Vec<Vec<LaneState>>,
    /// Temporary databases that outlived their round.
    leftovers: BTreeSet<String>,
    bounds: Bounds,
    pub(super) totals: Totals,
}

#[derive(Default)]
pub(super) struct Totals {
    pub(super) steps: usize,
    pub(super) lost: usize,
    wal_bytes_max: u64,
    segment_bytes_max: u64,
}

impl Loop {
    pub(super) fn new(plan: Plan, backend: BackendChoice) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store =
            Store::create(directory.path().join("store"), plan.shape.config().backend(backend));
        let store = store.unwrap();
        create_databases(&store).unwrap();
        store.close().unwrap();
        Self {
            plan,
            backend,
            directory,
            random: ChaCha8Rng::seed_from_u64(plan.seed),
            lanes: vec![vec![LaneState::new(); DATABASES.len()]; THREADS],
            leftovers: BTreeSet::new(),
            bounds: Bounds::of(plan.shape),
            totals: Totals::default(),
        }
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn run(mut self, rounds: u64) {
        for round in 1..=rounds {
            let observed = self.kill_one(round);
            if round % 7 == 0 {
                self.kill_during_recovery(round);
            }
            self.totals.steps += observed.acknowledged_count();
            if round % 2 == 0 {
                self.check_a_copy(round, &observed);
            } else {
                let store = self.store();
                self.check(round, &observed, &store, Checked::Original);
                self.check_size(round);
            }
        }
        println!(
            "{rounds} rounds of SIGKILL ({}): {} steps acknowledged, {} buffered ones lost, \
             log at most {} KiB, segments at most {} KiB",
            self.backend,
            self.totals.steps,
            self.totals.lost,
            self.totals.wal_bytes_max >> 10,
            self.totals.segment_bytes_max >> 10,
        );
    }

    fn start(&self, round: &str) -> Victim {
        self.start_on(&self.store(), Path::new(env!("CARGO_BIN_EXE_crash_writer")), round)
    }

    /// Starts a child on a store that lies anywhere.
    pub(super) fn start_on(&self, store: &Path, program: &Path, round: &str) -> Victim {
        let shape = if self.plan.shape == Shape::Tight { "tight" } else { "wide" };
        let arguments = [
            store.to_str().unwrap().to_owned(),
            self.plan.seed.to_string(),
            shape.to_owned(),
            self.backend.to_string(),
            round.to_owned(),
        ];
        Victim::start(program, &arguments).unwrap()
    }

    /// Lets a child work for a random number of steps and kills it.
    fn kill_one(&mut self, round: u64) -> Observed {
        let mut observed = Observed::new();
        let steps = match self.random.random_range(0..4) {
            0 => self.random.random_range(0..20),
            1 => self.random.random_range(0..1500),
            _ => self.random.random_range(0..400),
        };
        let mut child = self.start(&round.to_string());
        let mut ready = false;
        while !ready || observed.acknowledged_count() < steps {
            let line = child.next_line().unwrap().unwrap_or_else(|| {
                panic!("round {round}: the child ended after {:?}", observed.acknowledged())
            });
            let line = Line::parse(&line).unwrap();
            ready |= line == Line::Ready;
            observed.note(&self.plan, round, line);
        }
        self.spin();
        for line in child.kill().unwrap() {
            observed.note(&self.plan, round, Line::parse(&line).unwrap());
        }
        observed
    }

    /// So that the kill does not always follow a line.
    fn spin(&mut self) {
        for _ in 0..self.random.random_range(0..30_000) {
            std::hint::spin_loop();
        }
    }

    /// Kills children while they open the store; these never write.
    fn kill_during_recovery(&mut self, round: u64) {
        for _ in 0..3 {
            let child = self.start("idle");
            for _ in 0..self.random.random_range(0..200) {
                self.spin();
            }
            for line in child.kill().unwrap() {
                assert_eq!(Line::parse(&line), Ok(Line::Ready), "round {round}");
            }
        }
    }

    fn check_a_copy(&mut self, round: u64, observed: &Observed) {
        let image = self.directory.path().join("image");
        crash_image(&self.store(), &image);
        self.check(round, observed, &image, Checked::Copy);
        std::fs::remove_dir_all(&image).unwrap();
    }

    pub(super) fn check(&mut self, round: u64, observed: &Observed, path: &Path, what: Checked) {
        let config = self.plan.shape.config().backend(self.backend);
        let store = Store::open(path, config)
            .unwrap_or_else(|error| panic!("round {round}: the store does not open: {error}"));
        let mut found = [[Found { survived: -1, reaches: -1 }; DATABASES.len()]; THREADS];
        for (database, planned) in DATABASES.iter().enumerate() {
            let recovered = read_lanes(&store, planned.name, round);
            for (thread, state) in recovered.into_iter().enumerate() {
                found[thread][database] = self.place(round, observed, thread, database, state);
            }
        }
        self.check_order(round, observed, &found);
        self.check_temporaries(round, observed, &store, what);
        let report = store.verify(|_| ()).unwrap();
        assert!(report.is_clean(), "round {round}: {:#?}", report.damage);
        store.close().unwrap();
    }

    /// Finds the recovered state of a lane among the states it went through, and makes it the
    /// one the next round begins with.
    fn place(
        &mut self,
        round: u64,
        observed: &Observed,
        thread: usize,
        database: usize,
        recovered: LaneState,
    ) -> Found {
        let floor = observed.floor[thread][database];
        let mut state = self.lanes[thread][database].clone();
        let mut found: Option<Found> = None;
        let mut last = -1;
        for number in 0..observed.begun[thread].len() {
            let step = self.plan.step(round, thread, number as u64);
            let Step::Write { database: other, operation, .. } = step else { continue };
            if other != database {
                continue;
            }
            if state == recovered {
                let survived = found.map_or(last, |found| found.survived);
                found = Some(Found { survived, reaches: number as i64 - 1 });
            }
            let changed = operation.apply(&mut state);
            if let Some(told) = observed.changed[thread].get(number) {
                assert_eq!(
                    *told, changed,
                    "round {round}: outcome of step {number} of thread {thread}: {operation:?}"
                );
            }
            last = number as i64;
        }
        if state == recovered {
            let survived = found.map_or(last, |found| found.survived);
            found = Some(Found { survived, reaches: i64::MAX });
        }
        let acknowledged = observed.changed[thread].len() as i64 - 1;
        let name = DATABASES[database].name;
        let Some(found) = found else {
            let differs = difference(&self.lanes[thread][database], &state, &recovered);
            panic!(
                "round {round}: what thread {thread} wrote to {name:?} is no prefix of its \
                 {acknowledged} acknowledged steps (durable through {floor}): {differs}"
            );
        };
        assert!(
            floor <= found.reaches,
            "round {round}: thread {thread} in {name:?} was durable through step {floor}, only {} \
             is there",
            found.reaches
        );
        self.totals.lost += usize::try_from((acknowledged - found.reaches).max(0)).unwrap();
        self.lanes[thread][database] = recovered;
        found
    }

    /// What was acknowledged before a surviving write of the same database began survives too.
    fn check_order(
        &self,
        round: u64,
        observed: &Observed,
        found: &[[Found; DATABASES.len()]; THREADS],
    ) {
        for (writer, by_database) in found.iter().enumerate() {
            for (database, place) in by_database.iter().enumerate() {
                let Ok(survived) = usize::try_from(place.survived) else { continue };
                for (earlier, before) in observed.begun[writer][survived].iter().enumerate() {
                    let reaches = found[earlier][database].reaches;
                    assert!(
                        *before <= reaches,
                        "round {round}: step {survived} of thread {writer} in {:?} survived, but \
                         step {before} of thread {earlier}, acknowledged before it began, did not \
                         ({reaches} did)",
                        DATABASES[database].name
                    );
                }
            }
        }
    }

    fn check_temporaries(&mut self, round: u64, observed: &Observed, store: &Store, what: Checked) {
        let listed = store.list().into_iter().map(|info| info.name);
        let there: BTreeSet<String> =
            listed.filter(|name| name.starts_with("temporary ")).collect();
        let mut expected = self.leftovers.clone();
        let last = observed.churn_begun;
        if 0 <= last {
            let name = format!("temporary {round}.{}", last / 3);
            let acknowledged = observed.churn_acknowledged == last;
            match (last % 3, acknowledged) {
                // Being made or being dropped: either is right.
                (0 | 2, false) if there.contains(&name) => drop(expected.insert(name)),
                (0, true) => drop(expected.insert(name)),
                (1, _) => {
                    check_temporary(store, &name, last / 3, acknowledged, round);
                    expected.insert(name);
                }
                _ => {}
            }
        }
        assert_eq!(there, expected, "round {round}: databases that should be there");
        self.leftovers = expected;
        if what == Checked::Original {
            for name in std::mem::take(&mut self.leftovers) {
                store.drop_database(&name).unwrap();
                assert!(matches!(store.database(&name), Err(Error::DatabaseNotFound { .. })));
            }
        }
    }

    fn check_size(&mut self, round: u64) {
        let wal = bytes_of(&self.store(), Kind::Wal);
        let files = files_of(&self.store(), Kind::Segment);
        let segments: u64 = files.iter().map(|file| file.bytes).sum();
        let Bounds { wal_bytes, segment_bytes, segment_files } = self.bounds;
        assert!(wal <= wal_bytes, "round {round}: the log has {wal} bytes of at most {wal_bytes}");
        assert!(
            segments <= segment_bytes && files.len() <= segment_files,
            "round {round}: {} segments have {segments} bytes; {segment_files} of {segment_bytes} \
             bytes in all are the most",
            files.len()
        );
        self.totals.wal_bytes_max = self.totals.wal_bytes_max.max(wal);
        self.totals.segment_bytes_max = self.totals.segment_bytes_max.max(segments);
    }
}

fn check_temporary(store: &Store, name: &str, stamp: i64, acknowledged: bool, round: u64) {
    let database = store.database(name).unwrap();
    match database.get(1).unwrap() {
        Some(found) => assert_eq!(read_stamp(&found), Ok(stamp as u64), "round {round}: {name}"),
        None => assert!(!acknowledged, "round {round}: a synced write to {name} is lost"),
    }
}

/// Everything in a database by lane. Every vector is checked bit for bit.
fn read_lanes(store: &Store, name: &str, round: u64) -> Vec<LaneState> {
    let database = store.database(name).unwrap();
    let mut lanes: Vec<LaneState> = vec![BTreeMap::new(); THREADS];
    let mut count = 0;
    for row in database.scan().unwrap() {
        let (id, vector) = row.unwrap();
        let (thread, slot) = lane_of(&id).unwrap();
        let stamp = read_stamp(&vector)
            .unwrap_or_else(|what| panic!("round {round}: id {id} of {name:?}: {what}"));
        assert!(lanes[thread].insert(slot, stamp).is_none(), "id {id} comes twice");
        count += 1;
    }
    assert_eq!(database.count().unwrap(), count, "round {round}: count of {name:?}");
    lanes
}

/// The first slots in which a recovered state is neither the first nor the last of the round.
fn difference(first: &LaneState, last: &LaneState, found: &LaneState) -> String {
    let slots: BTreeSet<u64> =
        first.keys().chain(last.keys()).chain(found.keys()).copied().collect();
    let differing = slots.into_iter().filter(|slot| found.get(slot) != last.get(slot));
    let told: Vec<String> = differing
        .take(5)
        .map(|slot| {
            let show = |state: &LaneState| match state.get(&slot) {
                Some(stamp) => {
                    let step = (stamp >> 12) & 0x00ff_ffff;
                    format!("round {} step {step} row {}", stamp >> 40, stamp & 0xfff)
                }
                None => "nothing".to_owned(),
            };
            format!("slot {slot}: {} -> {} but {}", show(first), show(last), show(found))
        })
        .collect();
    told.join("; ")
}
