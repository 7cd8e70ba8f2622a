//! `demo`: a tour of the store with measurements and checks.
//!
//! Load, read hot and cold, update, delete, write durably with 1 and with 64 writers, then kill a
//! writing child process several times and check everything that was acknowledged, bit for bit.
//! Vectors come from a seeded generator, so nothing needs to be kept for the checks. The exit
//! code is 0 only if every check held.
//!
//! Checked by: `tests/it/demo.rs` at small sizes.

mod changes;
mod checks;
mod child;
mod crash;
mod expected;
mod latency;
mod load;
mod place;
mod reads;
mod report;
mod writers;

use std::path::PathBuf;

use clap::{Args, value_parser};
use nephrite::DatabaseOptions;
use nephrite::blocking::Store;

pub(crate) use child::{ChildArguments, run_child};

use crate::clock::Stopwatch;
use crate::context::Context;
use crate::embeddings::Embeddings;
use crate::failure::Failure;
use crate::figures::count;
use checks::Checks;
use expected::Expected;
use place::Place;
use report::Report;

/// Every figure of a run follows from this seed, the number of vectors and the dimension.
const SEED: u64 = 0x6e65_7068_7269_7465;
/// The database of the tour.
const MAIN: &str = "embeddings";

/// What `--help` says after the options.
const HELP: &str = r#"Exit code 0 only if every check held.

JSON: {"vectors","dimension","store","kept","backend","direct_io","backend_reason","cold_means",
       "load":{"vectors_per_second","megabytes_per_second","load_seconds","flush_seconds",
               "generator_wait_seconds"},
       "hot_reads","cold_reads","get_many_100","updates","deletes":{"operations",
               "per_second","p50_ns","p90_ns","p99_ns","p999_ns","max_ns"},
       "open_to_first_vector_seconds",
       "synced":{"one_writer_per_second","writers","many_writers_per_second","ratio"},
       "kill":{"rounds","acknowledged_writes","vectors_checked","in_flight_whole",
               "in_flight_absent","reopen_seconds_max"},
       "verify":{"files","pages","bytes","clean"},"bytes_on_disk","bytes_of_vectors",
       "checks","checks_failed","failures","seconds"}"#;

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct DemoArguments {
    /// Directory to work in, kept afterwards: a new or empty one, or one from an earlier demo
    /// (default: a temporary directory, removed at the end)
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How many vectors to load
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = value_parser!(u64).range(1..))]
    vectors: u64,
    /// Values per vector
    #[arg(long, value_name = "D", default_value_t = 768)]
    #[arg(value_parser = value_parser!(u32).range(1..))]
    dim: u32,
}

/// One run: where it works, what must be there, and what was found.
struct Demo<'a> {
    context: &'a mut Context,
    place: Place,
    embeddings: Embeddings,
    expected: Expected,
    checks: Checks,
    report: Report,
    /// Reused by the checks of single vectors.
    scratch: Vec<f32>,
}

pub(crate) fn run(arguments: &DemoArguments, context: &mut Context) -> Result<(), Failure> {
    let stopwatch = Stopwatch::start();
    let dimension = arguments.dim as usize;
    let place = Place::prepare(arguments.dir.as_deref())?;
    let report = Report::new(arguments.vectors, arguments.dim, &place);
    let mut demo = Demo {
        context,
        place,
        embeddings: Embeddings::new(SEED, dimension),
        expected: Expected::loaded(arguments.vectors),
        checks: Checks::default(),
        report,
        scratch: Vec::new(),
    };
    let place = demo.place.describe();
    demo.say("store", &place)?;
    demo.tour(arguments.dim)?;
    demo.report.seconds = stopwatch.seconds();
    demo.finish()
}

impl Demo<'_> {
    fn tour(&mut self, dimension: u32) -> Result<(), Failure> {
        let config = self.context.config();
        let store = self.context.watch(|| Store::create(self.place.store(), config))?;
        self.backend(&store)?;
        let database = store.create_database(MAIN, DatabaseOptions::new(dimension))?;
        self.load(&store, &database)?;
        self.read_hot(&database)?;
        drop(database);
        store.close()?;

        let store = self.read_cold()?;
        let database = store.database(MAIN)?;
        self.change(&store, &database)?;
        self.write_synced(&store, dimension)?;
        drop(database);
        store.close()?;

        self.kill_and_check(dimension)?;
        self.check_everything()
    }

    fn backend(&mut self, store: &Store) -> Result<(), Failure> {
        let backend = store.backend_report();
        self.report.backend = backend.chosen.to_string();
        self.report.backend_reason = backend.reason.clone();
        self.report.direct_io = backend.direct;
        self.report.cold_means = if backend.direct {
            "from the device, past the operating system's memory; the device may cache"
        } else {
            "our cache is empty, but this file system has no direct I/O, so the operating system \
             may still hold the pages in memory"
        };
        let text = format!("{}: {}", backend.chosen, backend.reason);
        self.say("backend", &text)
    }

    /// The memory limit of the store in bytes.
    fn memory(&self) -> u64 {
        self.context.config().settings().memory_limit_bytes
    }

    /// One line of the table; nothing with `--json`, where the table is one document at the end.
    fn say(&mut self, label: &str, text: &str) -> Result<(), Failure> {
        if self.context.output.json() {
            return Ok(());
        }
        self.context.output.line(format_args!("{label:<22}{text}"))?;
        self.context.output.flush()
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.report.record_checks(&self.checks);
        let verdict = self.checks.verdict();
        let seconds = self.report.seconds;
        let text = match &verdict {
            Ok(made) => format!("all {} held, in {seconds:.1} s", count(*made)),
            Err(_) => {
                format!("{} of {} FAILED", count(self.checks.failed), count(self.checks.made))
            }
        };
        self.say("checks", &text)?;
        for failure in self.checks.failures.clone() {
            self.say("", &failure)?;
        }
        if self.context.output.json() {
            self.context.output.document(&self.report)?;
        }
        self.place.leave()?;
        verdict.map(|_| ()).map_err(Failure::Error)
    }
}
