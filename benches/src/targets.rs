//! `targets`: how fast the engine is, with the limit of the device measured in the same run.
//!
//! | command | question |
//! |---|---|
//! | `import` | how fast does a bulk load become durable, as a share of sequential direct writes? |
//! | `synced` | how many durable single writes, from 1, 16 and 64 writers? |
//! | `sustained` | how many random updates in the long run, and what do reads cost meanwhile? |
//! | `open`   | how long from a cold start to the first vector? |
//! | `hot`    | what does a cached read cost, beside a flat array and a locked hash map? |
//! | `cold`   | how many random reads, as a share of what the device gives at that depth? |
//! | `space`  | what do vectors of each dimension take on disk once compacted? |
//! | `io`     | what does our I/O layer add to `fio`, beside the other ways to read a file? |
//!
//! Every measurement is repeated and alternates with its baseline; figures are medians with the
//! smallest and largest beside them. Everything is written below `--dir`, in a directory that is
//! removed at the end. Not here: comparisons with other engines.

use std::{io::Write, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    Outcome, cold, hot, import, io, machine, open,
    place::{self, Place},
    report::Report,
    space, sustained, synced,
};

/// Measure Nephrite beside the limits of the device it runs on
#[derive(Debug, Parser)]
#[command(name = "targets", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    place: place::PlaceArguments,
    /// Print one JSON object instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bulk load: batches of `put_many`, buffered, with a flush at the end
    Import(import::ImportArguments),
    /// Durable single writes from several writers at once
    Synced(synced::SyncedArguments),
    /// Random updates of more than the cache holds, beside reads
    Sustained(sustained::SustainedArguments),
    /// From a cold start to the first vector
    Open(open::OpenArguments),
    /// Random reads of vectors that are in memory
    Hot(hot::HotArguments),
    /// Random reads of vectors that are not
    Cold(cold::ColdArguments),
    /// Bytes on disk after compaction, by dimension and page size
    Space(space::SpaceArguments),
    /// Reads and writes of one file without an engine, beside `fio` and others
    Io(io::IoArguments),
}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).and_then(|report| print(&report, arguments.json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("targets: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(report: &Report, json: bool) -> Outcome<()> {
    let mut output = std::io::stdout().lock();
    if json {
        writeln!(output, "{}", report.to_json())?;
    } else {
        writeln!(output, "{report}")?;
    }
    Ok(())
}

fn run(arguments: &Arguments) -> Outcome<Report> {
    let place = Place::prepare(&arguments.place)?;
    let mut tables = Vec::new();
    let figures = match &arguments.command {
        Command::Import(arguments) => import::run(&place, arguments)?,
        Command::Synced(arguments) => synced::run(&place, arguments)?,
        Command::Sustained(arguments) => sustained::run(&place, arguments)?,
        Command::Open(arguments) => open::run(&place, arguments)?,
        Command::Hot(arguments) => hot::run(&place, arguments)?,
        Command::Cold(arguments) => cold::run(&place, arguments)?,
        Command::Space(arguments) => space::run(&place, arguments)?,
        Command::Io(arguments) => {
            let results = io::run(&place, arguments)?;
            tables = results.tables;
            results.figures
        }
    };
    Ok(Report { machine: machine::describe(&place), figures, tables })
}
