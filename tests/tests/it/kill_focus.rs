//! SIGKILL in the middle of a flush, a compaction, the recycling of the log, the drop of a database
//! and a close: nothing acknowledged is lost, whatever the moment. 100 rounds each at full scale.
//!
//! See `nephrite_tests::focus` for what the child does and what must be there afterwards.

use std::{collections::BTreeMap, path::Path};

use nephrite::blocking::Store;
use nephrite_tests::{
    crash::{Line, Victim},
    directories::{Kind, files_of},
    focus::{self, Focus},
    read_stamp, rounds, seed,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[test]
fn kills_during_flushes() {
    kill(Focus::Flush);
}

#[test]
fn kills_during_compactions() {
    kill(Focus::Compaction);
}

#[test]
fn kills_while_the_log_is_recycled() {
    kill(Focus::Recycling);
}

#[test]
fn kills_during_drops_of_databases() {
    kill(Focus::Drop);
}

#[test]
fn kills_during_closes() {
    kill(Focus::Close);
}

fn kill(focus: Focus) {
    let rounds = rounds(8, 100);
    let mut random = ChaCha8Rng::seed_from_u64(seed(&format!("kill during {focus}"), 11));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    focus::create(&path).unwrap();
    let (mut state, mut last) = (BTreeMap::new(), 0);
    let mut inside = 0;
    for round in 0..rounds {
        let told = kill_one(&path, focus, last, &mut random);
        inside += u64::from(told.inside);
        for iteration in last + 1..=told.begun {
            focus::changes(iteration).for_each(|it| focus::apply(&mut state, it, iteration));
        }
        last = check(&path, focus, &mut state, told.begun, round);
    }
    println!("{inside} of {rounds} kills hit a {focus}");
    assert!(inside > 0, "no kill hit a {focus}");
}

/// What the child told.
struct Told {
    /// The last iteration whose writes were all acknowledged.
    begun: u64,
    /// Its operation had begun and not ended.
    inside: bool,
}

/// Starts a child behind `last` and kills it some iterations later, soon after an operation began.
fn kill_one(path: &Path, focus: Focus, last: u64, random: &mut ChaCha8Rng) -> Told {
    let arguments = [path.to_str().unwrap().to_owned(), focus.to_string(), last.to_string()];
    let mut child =
        Victim::start(Path::new(env!("CARGO_BIN_EXE_crash_focus")), &arguments).unwrap();
    let wanted = last + random.random_range(1..4);
    let mut told = Told { begun: last, inside: false };
    while told.begun < wanted {
        let line = child.next_line().unwrap().expect("the child works until it is killed");
        note(&mut told, &line);
    }
    // The drop of a database is one write to the manifest; the others take many.
    let spins_max = if focus == Focus::Drop { 3_000 } else { 400_000 };
    for _ in 0..random.random_range(0..spins_max) {
        std::hint::spin_loop();
    }
    child.kill().unwrap().iter().for_each(|line| note(&mut told, line));
    told
}

fn note(told: &mut Told, line: &str) {
    match Line::parse(line).unwrap() {
        Line::Ready => {}
        Line::Failed(message) => panic!("the child failed: {message}"),
        Line::Begin { number, .. } => *told = Told { begun: number, inside: true },
        Line::Acknowledged { .. } => told.inside = false,
    }
}

/// Opens the store and finds out how much of the next iteration is there; gives the iteration that
/// the next child goes on behind, whose state is `state`.
fn check(path: &Path, focus: Focus, state: &mut BTreeMap<u64, u64>, begun: u64, round: u64) -> u64 {
    let store = Store::open(path, focus::config()).unwrap();
    let found = read(&store);
    let mut reached = found == *state;
    for change in focus::changes(begun + 1) {
        if reached {
            break;
        }
        focus::apply(state, change, begun + 1);
        reached = found == *state;
    }
    assert!(
        reached,
        "round {round} of {focus}: neither iteration {begun} nor a part of the next: {found:?}"
    );
    let temporary = store.list().into_iter().filter(|info| info.name.starts_with("temp"));
    temporary.for_each(|info| store.drop_database(&info.name).unwrap());
    assert!(store.verify(|_| ()).unwrap().is_clean(), "round {round} of {focus}");
    let segments = store.database(focus::NAME).unwrap().stats().unwrap();
    assert_eq!(segments.segment_rows_live, segments.records, "round {round} of {focus}");
    store.close().unwrap();
    let files = files_of(path, Kind::Segment).len();
    assert!(files <= 40, "round {round} of {focus}: {files} segment files");
    *state = found;
    begun + 1
}

fn read(store: &Store) -> BTreeMap<u64, u64> {
    let database = store.database(focus::NAME).unwrap();
    let rows = database.scan().unwrap().map(|row| row.unwrap());
    let found: BTreeMap<u64, u64> = rows
        .map(|(id, vector)| {
            let nephrite::Id::U64(id) = id else { panic!("{id:?}") };
            (id, read_stamp(&vector).unwrap())
        })
        .collect();
    assert_eq!(database.count().unwrap(), found.len() as u64);
    found
}
