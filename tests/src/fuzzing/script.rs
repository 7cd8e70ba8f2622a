//! Arbitrary operations on a store: against a model as it goes, and after faults and a crash.

use std::collections::BTreeSet;

use nephrite::{Batch, Durability, Error, Id, IdKind, Ids, Snapshot, Store};
use nephrite_io::sim::{Errno, Fault, FaultPlan, FaultRule, Image, Repeat, SimOptions, SimRandom};

use super::{
    input::Input,
    machine::{Crashed, Machine, blank},
    model::{self, DATABASES, Model, Stored, assert_lookups, database, id, vector_of},
};

/// Operations of one run; more bytes are left unread.
const OPERATIONS_MAX: usize = 48;
/// Rows of a bulk write: enough to bypass the log.
const ROWS_MAX: u8 = 120;
/// Ids are numbers below this one, so that they meet.
const KEYS: u8 = 24;

/// Carries out operations and checks every answer.
///
/// # Panics
/// When one is not what the model says.
pub fn store_ops(data: &[u8]) {
    let machine = Machine::healthy(blank());
    let mut script = Script::new();
    match script.play(&machine, &mut Input::new(data)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("nothing was to go wrong: {error}"),
        Err(Crashed) => panic!("nobody asked for a crash"),
    }
    let model = script.end(&machine);
    check(&machine, &model);
}

/// Carries out operations while a call of the disk fails and the machine crashes before some
/// change; then the store must hold what was promised.
///
/// # Panics
/// When it does not.
pub fn store_crash(data: &[u8]) {
    let mut input = Input::new(data);
    let seed = u64::from(input.byte());
    let (plan, expects_errors) = fault_plan(&mut input);
    let mut options = SimOptions::new(seed).faults(plan);
    if input.below(4) != 0 {
        options = options.crash_after(input.number() % 600);
    }
    if input.below(2) == 0 {
        options = options.write_through();
    }
    let machine = Machine::new(options, blank(), seed);
    let mut script = Script::new();
    if let Ok(Err(error)) = script.play(&machine, &mut input) {
        let struck = 0 < machine.disk.faults_struck();
        assert!(expects_errors && struck, "nothing was to go wrong: {error}");
    }
    machine.disk.set_faults(FaultPlan::new());
    let state = machine.disk.crash_state();
    let mut random = SimRandom::new(seed);
    for image in [state.image(&[]), state.random_image(&mut random)] {
        recover(image, &script.model, &mut random);
    }
}

/// Opens what a crash left; once more after a crash in recovery.
fn recover(image: Image, model: &Model, random: &mut SimRandom) {
    let changes = random.below(40);
    let again = Machine::new(SimOptions::new(changes).crash_after(changes), image.clone(), 3);
    if again.open().is_err() {
        let image = again.disk.crash_state().random_image(random);
        check(&Machine::healthy(image), model);
    }
    drop(again);
    check(&Machine::healthy(image), model);
}

/// The store opens, verifies clean and holds what the model allows.
fn check(machine: &Machine, model: &Model) {
    let store = machine.open().expect("this machine does not crash");
    let store = store.unwrap_or_else(|error| panic!("the store does not open: {error}"));
    let read = async {
        for (at, (name, _, _)) in DATABASES.iter().enumerate() {
            let database = database(&store, at).await?;
            let found = model::read(&database.snapshot().await?, name).await?;
            model.assert_recovered(at, &found);
            let keys: Vec<u64> = found.keys().copied().chain(0..u64::from(KEYS)).collect();
            assert_lookups(&database, &keys, &found).await?;
        }
        let report = store.verify(|_| {}).await?;
        assert!(report.is_clean(), "verify reports {:?}", report.damage);
        Ok::<(), Error>(())
    };
    machine.run_through(read).unwrap_or_else(|error| panic!("a whole store refuses: {error}"));
    machine.let_go(&store);
}

/// One call that fails, or none. Says whether errors are the engine's right.
fn fault_plan(input: &mut Input<'_>) -> (FaultPlan, bool) {
    let faults = [
        Fault::Error(Errno::ALL[input.index(Errno::ALL.len())]),
        Fault::Short,
        Fault::Zero,
        Fault::SyncForgets,
        Fault::SyncKeeps,
    ];
    let repeat = if input.below(4) == 0 { Repeat::Forever } else { Repeat::Once };
    let fault = faults[input.index(faults.len())];
    let nth = input.number() % 800;
    if nth == 0 {
        return (FaultPlan::new(), false);
    }
    let rule = FaultRule::new(fault, &[]).nth(nth).repeat(repeat);
    (FaultPlan::new().with(rule), true)
}

fn bytes_of(id: &Id) -> Option<&[u8]> {
    match id {
        Id::Bytes(bytes) => Some(bytes),
        Id::U64(_) => None,
    }
}

/// A script on its way.
pub(super) struct Script {
    model: Model,
    store: Option<Store>,
    snapshot: Option<(usize, Snapshot, Stored)>,
}

/// How an operation ended: done or refused by the engine, or the machine crashed.
type Went = Result<Result<(), Error>, Crashed>;

/// Goes on after an operation that came through.
macro_rules! done {
    ($ended:expr) => {
        match $ended? {
            Ok(value) => value,
            Err(error) => return Ok(Err(error)),
        }
    };
}

impl Script {
    pub(super) fn new() -> Self {
        Self { model: Model::new(), store: None, snapshot: None }
    }

    /// Carries out what the bytes say, until one is refused.
    pub(super) fn play(&mut self, machine: &Machine, input: &mut Input<'_>) -> Went {
        self.store = Some(done!(machine.open()));
        for at in 0..DATABASES.len() {
            let store = self.store();
            done!(machine.run(database(&store, at)));
        }
        for _ in 0..OPERATIONS_MAX {
            if input.is_empty() {
                break;
            }
            done!(self.step(machine, input));
        }
        Ok(Ok(()))
    }

    /// Closes the store; what it must hold.
    pub(super) fn end(mut self, machine: &Machine) -> Model {
        drop(self.snapshot.take());
        if let Some(store) = self.store.take() {
            machine.run_through(store.close()).expect("a store that nothing happened to closes");
            self.model.promise(None);
        }
        self.model
    }

    fn store(&self) -> Store {
        self.store.clone().expect("it is open while a script runs")
    }

    fn step(&mut self, machine: &Machine, input: &mut Input<'_>) -> Went {
        let choice = input.below(16);
        let at = usize::from(input.below(2));
        match choice {
            0..=2 => self.change(machine, at, input, Durability::Buffered),
            3 => self.change(machine, at, input, Durability::Synced),
            4 => self.batch(machine, at, input),
            5 => self.bulk(machine, at, input),
            6 => self.flush(machine, Some(at)),
            7 => self.flush(machine, None),
            8 => self.compact(machine, at),
            9 => self.reopen(machine),
            10 => self.take_snapshot(machine, at),
            11 => self.read_snapshot(machine),
            12 => self.read_all(machine, at),
            _ => self.look_up(machine, at, input),
        }
    }

    /// A put, or a delete.
    fn change(
        &mut self,
        machine: &Machine,
        at: usize,
        input: &mut Input<'_>,
        durability: Durability,
    ) -> Went {
        let key = u64::from(input.below(KEYS));
        let stamp = (input.below(3) != 0).then(|| self.model.next_stamp());
        let was_there = self.model.visible(at).contains_key(&key);
        self.model.issue(at, &[(key, stamp)]);
        let store = self.store();
        done!(machine.run(async {
            let database = database(&store, at).await?;
            let id = id(database.id_kind(), key);
            match stamp {
                Some(stamp) => database.put_with(&id, &vector_of(at, stamp), durability).await?,
                None => {
                    let deleted = database.delete_with(&id, durability).await?;
                    assert_eq!(deleted, was_there, "delete of {id}");
                }
            }
            Ok(())
        }));
        // A delete of what is not there writes nothing, so it promises nothing.
        if durability == Durability::Synced && (stamp.is_some() || was_there) {
            self.model.promise(None);
        }
        Ok(Ok(()))
    }

    fn batch(&mut self, machine: &Machine, at: usize, input: &mut Input<'_>) -> Went {
        let kind = DATABASES[at].1;
        let (mut batch, mut changes) = (Batch::new(), Vec::new());
        for _ in 0..=input.below(8) {
            let key = u64::from(input.below(KEYS));
            let stamp = (input.below(3) != 0).then(|| self.model.next_stamp());
            match stamp {
                Some(stamp) => batch.put(&id(kind, key), &vector_of(at, stamp)),
                None => batch.delete(&id(kind, key)),
            }
            changes.push((key, stamp));
        }
        self.model.issue(at, &changes);
        let store = self.store();
        let apply =
            async { database(&store, at).await?.batch_with(batch, Durability::Synced).await };
        done!(machine.run(apply));
        if changes.iter().any(|(_, stamp)| stamp.is_some()) {
            self.model.promise(None);
        }
        Ok(Ok(()))
    }

    fn bulk(&mut self, machine: &Machine, at: usize, input: &mut Input<'_>) -> Went {
        let (first, count) = (u64::from(input.byte()), u64::from(input.below(ROWS_MAX)) + 1);
        let is_synced = input.below(2) == 0;
        let durability = if is_synced { Durability::Synced } else { Durability::Buffered };
        let keys: Vec<u64> = (first..first + count).collect();
        let stamps: Vec<_> = keys.iter().map(|_| self.model.next_stamp()).collect();
        let changes: Vec<_> = keys.iter().copied().zip(stamps.iter().copied().map(Some)).collect();
        self.model.issue(at, &changes);
        let vectors: Vec<f32> = stamps.iter().flat_map(|stamp| vector_of(at, *stamp)).collect();
        let names: Vec<Id> = keys.iter().map(|key| id(IdKind::Bytes, *key)).collect();
        let names: Vec<&[u8]> = names.iter().filter_map(bytes_of).collect();
        let ids = match (DATABASES[at].1, input.below(2)) {
            (IdKind::Bytes, _) => Ids::Bytes(&names),
            (_, 0) => Ids::Consecutive(first),
            _ => Ids::U64(&keys),
        };
        let store = self.store();
        let put = async { database(&store, at).await?.put_many(ids, &vectors, durability).await };
        done!(machine.run(put));
        if is_synced {
            self.model.promise(None);
        }
        Ok(Ok(()))
    }

    fn flush(&mut self, machine: &Machine, at: Option<usize>) -> Went {
        let store = self.store();
        done!(machine.run(async {
            match at {
                Some(at) => database(&store, at).await?.flush().await,
                None => store.flush().await,
            }
        }));
        self.model.promise(at);
        Ok(Ok(()))
    }

    fn compact(&self, machine: &Machine, at: usize) -> Went {
        let store = self.store();
        machine.run(async { database(&store, at).await?.compact().await })
    }

    fn reopen(&mut self, machine: &Machine) -> Went {
        drop(self.snapshot.take());
        let store = self.store.take().expect("it is open while a script runs");
        done!(machine.run(store.close()));
        self.model.promise(None);
        drop(store);
        self.store = Some(done!(machine.open()));
        Ok(Ok(()))
    }

    fn take_snapshot(&mut self, machine: &Machine, at: usize) -> Went {
        let store = self.store();
        let taken = machine.run(async { database(&store, at).await?.snapshot().await });
        self.snapshot = Some((at, done!(taken), self.model.visible(at).clone()));
        Ok(Ok(()))
    }

    /// What a snapshot holds does not change, whatever was written since.
    fn read_snapshot(&mut self, machine: &Machine) -> Went {
        let Some((at, snapshot, expected)) = self.snapshot.take() else { return Ok(Ok(())) };
        let found = done!(machine.run(model::read(&snapshot, DATABASES[at].0)));
        assert_eq!(found, expected, "a snapshot of {}", DATABASES[at].0);
        Ok(Ok(()))
    }

    fn read_all(&self, machine: &Machine, at: usize) -> Went {
        let (store, name) = (self.store(), DATABASES[at].0);
        let expected = self.model.visible(at);
        machine.run(async {
            let snapshot = database(&store, at).await?.snapshot().await?;
            let found = model::read(&snapshot, name).await?;
            assert_eq!(found, *expected, "a scan of {name}");
            Ok(())
        })
    }

    fn look_up(&self, machine: &Machine, at: usize, input: &mut Input<'_>) -> Went {
        let keys: BTreeSet<u64> = (0..=input.below(6)).map(|_| u64::from(input.byte())).collect();
        let keys: Vec<u64> = keys.into_iter().collect();
        let (store, expected) = (self.store(), self.model.visible(at));
        machine.run(async { assert_lookups(&database(&store, at).await?, &keys, expected).await })
    }
}
