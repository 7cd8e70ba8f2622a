//! Random operations against a model in memory, with small memtables and log segments, databases of
//! both kinds of ids, reopening and dropping in between.
//!
//! Every step may be any operation; after some, everything is compared: get, get_many (repeated
//! and absent ids included), contains, count, scan, and all of them on snapshots that were made
//! earlier and must not have changed. The seed is printed.

use std::{collections::BTreeMap, ops::Range, path::PathBuf};

use nephrite::{
    BackendChoice, Batch, Config, DatabaseOptions, Durability, Error, Id, IdKind, IdRef, Ids,
    VectorRef,
    blocking::{Database, Scan, Snapshot, Store},
};
use nephrite_tests::{
    Scale, Stamp, assert_vector, directories::crash_image, history::put_many, new_store, seed,
    small, vector,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

type State = BTreeMap<Id, Stamp>;

/// A database and what it must hold.
struct Subject {
    name: String,
    dimension: usize,
    id_kind: IdKind,
    /// Ids are made from numbers below this.
    ids: u64,
    database: Database,
    state: State,
    snapshots: Vec<(Snapshot, State)>,
}

struct Model {
    random: ChaCha8Rng,
    directory: tempfile::TempDir,
    config: Config,
    store: Option<Store>,
    subjects: Vec<Subject>,
    next_stamp: Stamp,
    step: u64,
    path: PathBuf,
    images: u64,
}

impl Model {
    fn new(seed: u64, config: Config) -> Self {
        let (directory, store) = new_store(config.clone());
        let path = directory.path().join("store");
        let mut model = Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            directory,
            config,
            store: Some(store),
            subjects: Vec::new(),
            next_stamp: 1,
            step: 0,
            path,
            images: 0,
        };
        for (dimension, kind, ids) in
            [(7, IdKind::U64, 60), (64, IdKind::U64, 3000), (33, IdKind::Bytes, 500)]
        {
            model.create(dimension, kind, ids);
        }
        model
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("the store is open between steps")
    }

    fn create(&mut self, dimension: u32, id_kind: IdKind, ids: u64) {
        let name = format!("database {}", self.next_stamp);
        self.next_stamp += 1;
        let options = DatabaseOptions::new(dimension).id_kind(id_kind);
        let database = self.store().create_database(&name, options).unwrap();
        self.subjects.push(Subject {
            name,
            dimension: dimension as usize,
            id_kind,
            ids,
            database,
            state: State::new(),
            snapshots: Vec::new(),
        });
    }

    fn stamps(&mut self, count: u64) -> Range<Stamp> {
        let first = self.next_stamp;
        self.next_stamp += count;
        first..self.next_stamp
    }

    fn run(mut self, steps: u64) {
        for step in 0..steps {
            self.step = step;
            self.one_step();
        }
        self.check_everything();
        self.reopen();
        self.check_everything();
        let report = self.store().verify(|_| ()).unwrap();
        assert!(report.is_clean(), "{report:?}");
    }

    fn one_step(&mut self) {
        let at = self.random.random_range(0..self.subjects.len());
        match self.random.random_range(0..1000) {
            0..400 => self.write(at),
            400..600 => self.bulk(at),
            600..900 => self.read(at),
            900..940 => self.subjects[at].check(self.step),
            940..965 => self.subjects[at].database.flush().unwrap(),
            965..975 => self.store().flush().unwrap(),
            975..985 => self.snapshot(at),
            985..990 => self.reopen(),
            990..994 => self.crash(),
            994..997 => self.replace(at),
            _ => self.check_everything(),
        }
    }

    fn durability(&mut self) -> Durability {
        if self.random.random_range(0..10) == 0 { Durability::Synced } else { Durability::Buffered }
    }

    fn write(&mut self, at: usize) {
        let durability = self.durability();
        let stamp = self.stamps(1).start;
        let operation = self.random.random_range(0..10);
        let id = self.subjects[at].id(&mut self.random);
        let step = self.step;
        let Subject { database, state, dimension, .. } = &mut self.subjects[at];
        let vector = vector(stamp, *dimension);
        match operation {
            0..6 => {
                database.put_with(&id, &vector, durability).unwrap();
                state.insert(id, stamp);
            }
            6..8 => match (database.update_with(&id, &vector, durability), state.get_mut(&id)) {
                (Ok(()), Some(held)) => *held = stamp,
                (Err(Error::NotFound { id: named }), None) => assert_eq!(named, id),
                (outcome, held) => panic!("step {step}: update of {id}: {outcome:?}, {held:?}"),
            },
            _ => {
                let there = database.delete_with(&id, durability).unwrap();
                assert_eq!(there, state.remove(&id).is_some(), "step {step}: delete of {id}");
            }
        }
    }

    /// A batch or rows; ids repeat.
    fn bulk(&mut self, at: usize) {
        let durability = self.durability();
        let count = match self.random.random_range(0..10) {
            // On both sides of 64 KiB, from where rows bypass the log; below what is atomic.
            0 => self.random.random_range(1..600).min(180_000 / (4 * self.subjects[at].dimension)),
            _ => self.random.random_range(1..30),
        };
        let count = count as u64;
        let stamps = self.stamps(count);
        match self.random.random_range(0..10) {
            0..5 => self.batch(at, stamps, durability),
            5..7 if self.subjects[at].id_kind == IdKind::U64 => {
                let first = self.random.random_range(0..self.subjects[at].ids);
                let subject = &mut self.subjects[at];
                let vectors = subject.vectors(stamps.clone());
                let ids = Ids::Consecutive(first);
                subject.database.put_many(ids, &vectors, durability).unwrap();
                subject.state.extend((first..).map(Id::U64).zip(stamps));
            }
            _ => {
                let ids: Vec<Id> =
                    (0..count).map(|_| self.subjects[at].id(&mut self.random)).collect();
                let subject = &mut self.subjects[at];
                let vectors = subject.vectors(stamps.clone());
                put_many(&subject.database, &ids, &vectors, durability).unwrap();
                subject.state.extend(ids.into_iter().zip(stamps));
            }
        }
    }

    fn batch(&mut self, at: usize, stamps: Range<Stamp>, durability: Durability) {
        let mut batch = Batch::new();
        let Subject { dimension, .. } = self.subjects[at];
        for stamp in stamps {
            let id = self.subjects[at].id(&mut self.random);
            let state = &mut self.subjects[at].state;
            if self.random.random_range(0..3) == 0 {
                batch.delete(&id);
                state.remove(&id);
            } else {
                batch.put(&id, &vector(stamp, dimension));
                state.insert(id, stamp);
            }
        }
        self.subjects[at].database.batch_with(batch, durability).unwrap();
    }

    fn read(&mut self, at: usize) {
        let count = self.random.random_range(0..60);
        let ids: Vec<Id> = (0..count).map(|_| self.subjects[at].id(&mut self.random)).collect();
        let subject = &self.subjects[at];
        subject.check_ids(&ids, self.step);
        for (snapshot, state) in subject.snapshots.iter().take(1) {
            let asked: Vec<IdRef<'_>> = ids.iter().map(Id::as_id_ref).collect();
            compare_many(&ids, snapshot.get_many(&asked).unwrap(), state, self.step);
        }
    }

    fn snapshot(&mut self, at: usize) {
        let subject = &mut self.subjects[at];
        subject.snapshots.push((subject.database.snapshot().unwrap(), subject.state.clone()));
        if 4 < subject.snapshots.len() {
            subject.snapshots.remove(0);
        }
    }

    fn check_everything(&self) {
        let listed: Vec<String> = self.store().list().into_iter().map(|info| info.name).collect();
        let mut names: Vec<&str> = self.subjects.iter().map(|it| it.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(listed, names);
        for subject in &self.subjects {
            subject.check(self.step);
        }
    }

    /// Closes or only drops the store, and opens it again.
    fn reopen(&mut self) {
        let store = self.store.take().expect("the store is open between steps");
        if self.random.random_range(0..2) == 0 {
            store.close().unwrap();
        }
        for subject in &mut self.subjects {
            subject.snapshots.clear();
        }
        // Databases keep the store open.
        let kept = std::mem::take(&mut self.subjects);
        let kept: Vec<_> = kept.into_iter().map(Subject::into_parts).collect();
        drop(store);
        self.open(kept);
    }

    fn open(&mut self, kept: Vec<Parts>) {
        let store = Store::open(&self.path, self.config.clone());
        let store = store.unwrap_or_else(|error| panic!("step {}: {error}", self.step));
        self.subjects = kept.into_iter().map(|parts| parts.open(&store)).collect();
        self.store = Some(store);
    }

    /// Goes on with what a crash after a synced write would have left.
    fn crash(&mut self) {
        let stamp = self.stamps(1).start;
        let at = self.random.random_range(0..self.subjects.len());
        let subject = &mut self.subjects[at];
        let id = Id::clone(&subject.id(&mut self.random));
        let vector = vector(stamp, subject.dimension);
        subject.database.put_with(&id, &vector, Durability::Synced).unwrap();
        subject.state.insert(id, stamp);
        self.images += 1;
        let image = self.directory.path().join(format!("image {}", self.images));
        crash_image(&self.path, &image);
        let kept: Vec<_> =
            std::mem::take(&mut self.subjects).into_iter().map(Subject::into_parts).collect();
        drop(self.store.take());
        std::fs::remove_dir_all(&self.path).unwrap();
        self.path = image;
        self.open(kept);
    }

    /// Drops a database and makes another one.
    fn replace(&mut self, at: usize) {
        let subject = self.subjects.swap_remove(at);
        self.store().drop_database(&subject.name).unwrap();
        let gone = subject.database.get(subject.id(&mut self.random).as_id_ref());
        assert!(matches!(gone, Err(Error::DatabaseNotFound { .. })), "{gone:?}");
        // Its snapshots stay readable.
        for (snapshot, state) in &subject.snapshots {
            compare_scan(snapshot.scan().unwrap(), state, self.step);
        }
        let dimension = self.random.random_range(2..200);
        self.create(dimension, subject.id_kind, subject.ids);
    }
}

/// A subject without its store.
struct Parts {
    name: String,
    ids: u64,
    state: State,
}

impl Parts {
    fn open(self, store: &Store) -> Subject {
        let database = store.database(&self.name).unwrap();
        Subject {
            name: self.name,
            dimension: database.dimension() as usize,
            id_kind: database.id_kind(),
            ids: self.ids,
            database,
            state: self.state,
            snapshots: Vec::new(),
        }
    }
}

impl Subject {
    fn into_parts(self) -> Parts {
        Parts { name: self.name, ids: self.ids, state: self.state }
    }

    fn id(&self, random: &mut ChaCha8Rng) -> Id {
        // Half of them from a corner, so that ids are written again and again.
        let number = match random.random_range(0..2) {
            0 => random.random_range(0..self.ids / 10),
            _ => random.random_range(0..self.ids),
        };
        match self.id_kind {
            IdKind::U64 => Id::U64(number),
            // Prefixes of each other, long ones, and bytes that are no text.
            _ => {
                let mut name = vec![b'a'; usize::try_from(1 + number % 9).unwrap()];
                let rest = u16::try_from(number / 9).unwrap();
                name.extend_from_slice(&rest.to_le_bytes());
                name.resize(name.len() + usize::try_from(number % 7 * 34).unwrap(), 0xfe);
                Id::Bytes(name.into())
            }
        }
    }

    fn vectors(&self, stamps: Range<Stamp>) -> Vec<f32> {
        stamps.flat_map(|stamp| vector(stamp, self.dimension)).collect()
    }

    #[track_caller]
    fn check_ids(&self, ids: &[Id], step: u64) {
        let asked: Vec<IdRef<'_>> = ids.iter().map(Id::as_id_ref).collect();
        compare_many(ids, self.database.get_many(&asked).unwrap(), &self.state, step);
        for id in ids {
            let contains = self.database.contains(id).unwrap();
            assert_eq!(contains, self.state.contains_key(id), "step {step}: contains {id}");
            let found = self.database.get(id).unwrap();
            compare(id, found.as_deref(), &self.state, step);
        }
    }

    #[track_caller]
    fn check(&self, step: u64) {
        assert_eq!(self.database.count().unwrap(), self.state.len() as u64, "step {step}: count");
        let stats = self.database.stats().unwrap();
        assert_eq!(stats.records, self.state.len() as u64);
        compare_scan(self.database.scan().unwrap(), &self.state, step);
        for (snapshot, state) in &self.snapshots {
            assert_eq!(snapshot.count().unwrap(), state.len() as u64, "step {step}: snapshot");
            compare_scan(snapshot.scan().unwrap(), state, step);
        }
    }
}

#[track_caller]
fn compare(id: &Id, found: Option<&[f32]>, state: &State, step: u64) {
    match (found, state.get(id)) {
        (Some(found), Some(stamp)) => {
            assert_vector(found, *stamp, format_args!("step {step}: id {id}"));
        }
        (None, None) => {}
        (found, expected) => {
            panic!("step {step}: id {id}: found {:?}, expected stamp {expected:?}", found.is_some())
        }
    }
}

#[track_caller]
fn compare_many(ids: &[Id], found: Vec<Option<VectorRef>>, state: &State, step: u64) {
    assert_eq!(ids.len(), found.len());
    for (id, found) in ids.iter().zip(found) {
        compare(id, found.as_deref(), state, step);
    }
}

#[track_caller]
fn compare_scan(scan: Scan, state: &State, step: u64) {
    let mut expected = state.iter();
    for row in scan {
        let (id, found) = row.unwrap();
        let (wanted, stamp) = expected.next().unwrap_or_else(|| panic!("step {step}: extra {id}"));
        assert_eq!(id, *wanted, "step {step}: scan");
        assert_vector(&found, *stamp, format_args!("step {step}: scan, id {id}"));
    }
    assert_eq!(expected.next(), None, "step {step}: the scan ends early");
}

fn steps() -> u64 {
    Scale::from_environment().pick(3_000, 100_000)
}

#[test]
fn random_operations_agree_with_a_model() {
    Model::new(seed("model", 0x6d6f_6465), small()).run(steps());
}

#[test]
fn random_operations_agree_with_a_model_with_the_smallest_buffers() {
    let config = Config::new()
        .memory_limit(4 << 20)
        .memtable_bytes(256 << 10)
        .wal_segment_bytes(256 << 10)
        .max_open_files(5)
        .backend(BackendChoice::Positional);
    Model::new(seed("model, smallest buffers", 0x736d_616c), config).run(steps());
}

#[test]
fn random_operations_agree_with_a_model_when_every_write_is_synced() {
    let config = small().default_durability(Durability::Synced);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(directory.path().join("store"), config).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(12)).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(seed("model, synced", 5));
    let mut state = State::new();
    for stamp in 0..300 {
        let id = random.random_range(0..40_u64);
        if random.random_range(0..4) == 0 {
            let there = state.remove(&Id::U64(id)).is_some();
            assert_eq!(database.delete(id).unwrap(), there);
        } else {
            database.put(id, &vector(stamp, 12)).unwrap();
            state.insert(Id::U64(id), stamp);
        }
        if stamp % 30 == 0 {
            // The store's own durability is the default of all writes: nothing is ever lost.
            let image = directory.path().join(format!("image {stamp}"));
            crash_image(&directory.path().join("store"), &image);
            let store = Store::open(&image, small()).unwrap();
            compare_scan(store.database("a").unwrap().scan().unwrap(), &state, stamp);
        }
    }
}
