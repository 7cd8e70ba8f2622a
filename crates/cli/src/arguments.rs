//! What can be typed: the commands, the options they share, and how a run ends.
//!
//! A command line that is not understood ends with exit code 64 instead of clap's 2, which here
//! means damage.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use nephrite::{BackendChoice, Durability, IdKind, Profile};

use crate::commands::{
    bench, cache_replay, compact, config, create, delete, demo, drop, export, flush, get, import,
    inspect, io_info, list, put, repair, simulate, stats, verify,
};
use crate::configuration::{Configuration, Flags};
use crate::context::Context;
use crate::failure::{EXIT_CODES, Failure, USAGE_CODE};
use crate::output::complain;
use crate::size::parse_size;

/// Store vectors in many databases, survive a kill, read them back.
#[derive(Debug, Parser)]
#[command(name = "nephrite", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct GlobalOptions {
    /// Print results as JSON; each command's --help lists its fields
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Memory for cache and memtables together, such as 256MiB
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<u64>,
    /// How to reach the disk: auto, uring, positional or mmap
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) backend: Option<BackendChoice>,
    /// Values to start from: balanced, high-throughput, high-durability, memory-constrained or
    /// development
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<Profile>,
    /// TOML file of options; `nephrite config` lists them
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Any option of `nephrite config`, such as flush_interval=60; may be given more than once
    #[arg(long, global = true, value_name = "NAME=VALUE", value_parser = parse_assignment)]
    pub(crate) set: Vec<(String, String)>,
    /// No progress bars and no remarks: only data and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

impl GlobalOptions {
    /// What they say about the engine's configuration.
    fn flags(&self) -> Flags {
        let set = self.set.iter().map(|(name, text)| (name.clone(), text.clone(), "--set"));
        let memory =
            self.memory.map(|bytes| ("memory_limit".into(), bytes.to_string(), "--memory"));
        let backend = self.backend.map(|name| ("backend".into(), name.to_string(), "--backend"));
        let values = set.chain(memory).chain(backend).collect();
        Flags { file: self.config.clone(), profile: self.profile, values }
    }
}

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is expected")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load, read, update, delete, kill and check: a tour with measurements
    Demo(demo::DemoArguments),
    /// Create a database (and the store around it)
    Create(create::CreateArguments),
    /// Load a .npy, .fvecs or .fbin file
    Import(import::ImportArguments),
    /// Write a database to a .npy, .fvecs or .fbin file, in id order
    Export(export::ExportArguments),
    /// Store vectors given as JSON lines on standard input
    Put(put::PutArguments),
    /// Print vectors as JSON lines
    Get(get::GetArguments),
    /// Delete vectors
    Delete(delete::DeleteArguments),
    /// List the databases of a store
    List(list::ListArguments),
    /// Show what a store, or one database, consists of
    Stats(stats::StatsArguments),
    /// Read everything and report each damaged page
    Verify(verify::VerifyArguments),
    /// Make a damaged store whole again, or say what that would cost
    Repair(repair::RepairArguments),
    /// Show what a file of a store holds, also when it is damaged
    Inspect(inspect::InspectArguments),
    /// Move everything written so far into segments
    Flush(flush::FlushArguments),
    /// Merge segments and give the space of deleted and overwritten vectors back
    Compact(compact::CompactArguments),
    /// Delete a whole database
    Drop(drop::DropArguments),
    /// Show the configuration in force, and where each value comes from
    Config(config::ConfigArguments),
    /// Replay a trace of reads against cache policies and sizes of memory
    CacheReplay(cache_replay::CacheReplayArguments),
    /// Measure the store under a workload, or the drive itself
    Bench(Box<bench::BenchArguments>),
    /// Say which I/O path a directory gets, and why
    IoInfo(io_info::IoInfoArguments),
    /// Run the engine on a simulated machine, with crashes and faults by seed
    Simulate(simulate::SimulateArguments),
    /// The process that the demo kills
    #[command(hide = true)]
    DemoChild(demo::ChildArguments),
}

/// When a write counts as done, as written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DurabilityName {
    /// Durable at the next flush
    Buffered,
    /// Durable before it is acknowledged
    Synced,
}

impl DurabilityName {
    /// The word for it, as typed and as in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Buffered => "buffered",
            Self::Synced => "synced",
        }
    }
}

impl From<DurabilityName> for Durability {
    fn from(name: DurabilityName) -> Self {
        match name {
            DurabilityName::Buffered => Self::Buffered,
            DurabilityName::Synced => Self::Synced,
        }
    }
}

/// The kind of ids, as written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum IdKindName {
    /// Whole numbers from 0 to 2^64 - 1
    U64,
    /// Texts or other bytes, 1 to 255 of them
    Bytes,
}

impl From<IdKindName> for IdKind {
    fn from(name: IdKindName) -> Self {
        match name {
            IdKindName::U64 => Self::U64,
            IdKindName::Bytes => Self::Bytes,
        }
    }
}

/// Runs one command line and says how it ended.
pub(crate) fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => return not_run(&error),
    };
    match run_command(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(sentence) = failure.sentence() {
                complain(sentence);
            }
            failure.exit_code()
        }
    }
}

fn run_command(arguments: Arguments) -> Result<(), Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    let configuration = Configuration::gather(&arguments.global.flags(), variable)?;
    let mut context = Context::new(&arguments.global, configuration);
    let outcome = dispatch(arguments.command, &mut context);
    // What was printed before a failure is handed over as well.
    let flushed = context.output.flush();
    context.shutdown.settle(outcome.and(flushed))
}

/// Prints help, the version, or what was not understood.
fn not_run(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    match error.print() {
        Err(failed) if failed.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ if asked_for => ExitCode::SUCCESS,
        _ => ExitCode::from(USAGE_CODE),
    }
}

fn dispatch(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::Demo(arguments) => demo::run(&arguments, context),
        Command::Create(arguments) => create::run(&arguments, context),
        Command::Import(arguments) => import::run(&arguments, context),
        Command::Export(arguments) => export::run(&arguments, context),
        Command::Put(arguments) => put::run(&arguments, context),
        Command::Get(arguments) => get::run(&arguments, context),
        Command::Delete(arguments) => delete::run(&arguments, context),
        Command::List(arguments) => list::run(&arguments, context),
        Command::Stats(arguments) => stats::run(&arguments, context),
        Command::Verify(arguments) => verify::run(&arguments, context),
        Command::Repair(arguments) => repair::run(&arguments, context),
        Command::Inspect(arguments) => inspect::run(&arguments, context),
        Command::Flush(arguments) => flush::run(&arguments, context),
        Command::Compact(arguments) => compact::run(&arguments, context),
        Command::Drop(arguments) => drop::run(&arguments, context),
        Command::Config(arguments) => config::run(&arguments, context),
        Command::CacheReplay(arguments) => cache_replay::run(&arguments, context),
        Command::Bench(arguments) => bench::run(&arguments, context),
        Command::IoInfo(arguments) => io_info::run(&arguments, context),
        Command::Simulate(arguments) => simulate::run(&arguments, context),
        Command::DemoChild(arguments) => demo::run_child(&arguments, context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_are_taken_after_the_command() {
        let words =
            ["nephrite", "list", "s", "--json", "--memory", "64MiB", "--backend", "positional"];
        let arguments = Arguments::try_parse_from(words).unwrap();
        assert!(arguments.global.json && !arguments.global.quiet);
        assert_eq!(arguments.global.memory, Some(64 << 20));
        assert_eq!(arguments.global.backend, Some(BackendChoice::Positional));
    }
}
