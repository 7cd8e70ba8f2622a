//! The child of the kill loop: opens the store and writes until it is killed.
//!
//! `crash_writer STORE SEED SHAPE BACKEND ROUND`; round `idle` only opens the store. Every thread
//! takes the steps of the plan in order and tells each one before and after; one more thread makes
//! and drops databases.
//! It never ends by itself, except on an error that must not happen, which it tells.

use std::process::ExitCode;

use nephrite::{
    BackendChoice, DatabaseOptions, Durability, Error,
    blocking::{Database, Store},
};
use nephrite_tests::{
    crash::Line,
    history::{DATABASES, Plan, Shape, Step, THREADS},
    vector,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, seed, shape, backend, round] = &arguments[..] else {
        eprintln!("usage: crash_writer STORE SEED tight|wide auto|positional|uring ROUND");
        return ExitCode::from(2);
    };
    let shape = if shape == "tight" { Shape::Tight } else { Shape::Wide };
    let number = |text: &str| text.parse::<u64>().expect("the parent passes numbers");
    let plan = Plan::new(number(seed), shape);
    let backend: BackendChoice = backend.parse().expect("the parent passes a backend");
    let round = (round != "idle").then(|| number(round));
    if let Err(error) = write_until_killed(store, plan, backend, round) {
        Line::Failed(error.to_string()).tell();
    }
    ExitCode::FAILURE
}

fn write_until_killed(
    path: &str,
    plan: Plan,
    backend: BackendChoice,
    round: Option<u64>,
) -> Result<(), Error> {
    let store = Store::open(path, plan.shape.config().backend(backend))?;
    let databases: Vec<Database> =
        DATABASES.iter().map(|it| store.database(it.name)).collect::<Result<_, _>>()?;
    Line::Ready.tell();
    let Some(round) = round else {
        loop {
            std::thread::park();
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, databases) = (&store, &databases);
            scope.spawn(move || report(write(store, databases, plan, round, thread)));
        }
        scope.spawn(|| report(make_and_drop(&store, round)));
    });
    Ok(())
}

/// A thread that fails ends the child.
fn report(outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        Line::Failed(error.to_string()).tell();
    }
    std::process::exit(1);
}

fn write(
    store: &Store,
    databases: &[Database],
    plan: Plan,
    round: u64,
    thread: usize,
) -> Result<(), Error> {
    for number in 0.. {
        let step = plan.step(round, thread, number);
        Line::Begin { thread, number }.tell();
        let changed = match step {
            Step::Write { database, operation, durability } => {
                operation.perform(&databases[database], thread, durability)?
            }
            Step::Flush { database } => {
                databases[database].flush()?;
                true
            }
            Step::FlushAll => {
                store.flush()?;
                true
            }
        };
        Line::Acknowledged { thread, number, changed }.tell();
    }
    Ok(())
}

/// Steps 3k, 3k + 1, 3k + 2: make `temporary <round>.<k>`, put a vector into it, drop it.
fn make_and_drop(store: &Store, round: u64) -> Result<(), Error> {
    let thread = THREADS;
    for number in 0_u64.. {
        let name = format!("temporary {round}.{}", number / 3);
        Line::Begin { thread, number }.tell();
        match number % 3 {
            0 => drop(store.create_database(&name, DatabaseOptions::new(8))?),
            1 => {
                let stamp = number / 3;
                store.database(&name)?.put_with(1, &vector(stamp, 8), Durability::Synced)?;
            }
            _ => store.drop_database(&name)?,
        }
        Line::Acknowledged { thread, number, changed: true }.tell();
    }
    Ok(())
}
