//! `simulate --exhaustive` and `simulate --fail-nth`: all cases within bounds, no random ones.

use clap::Args;
use nephrite_simulation::{Action, ActionKind, Errno, Exhaustive, FAILURES, FailNth, Fault, Scope};
use serde::Serialize;

use crate::clock::Stopwatch;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::complain;

/// What `--exhaustive` goes over.
#[derive(Debug, Args)]
#[command(next_help_heading = "All scripts within a scope")]
pub(super) struct ScopeArguments {
    /// Instead of random runs: every script of up to this many operations, a crash before every
    /// change of the disk, every image it may leave, and a crash in every recovery
    #[arg(long, value_name = "LENGTH")]
    exhaustive: Option<usize>,
    /// Only this part of the scripts: 0/8, 1/8, ... 7/8 are all
    #[arg(long, default_value = "0/1", value_parser = parse_part, requires = "exhaustive")]
    part: (u64, u64),
    /// Only these operations: put, put-synced, delete, batch, flush, compact, reopen
    #[arg(long, value_delimiter = ',', requires = "exhaustive")]
    operations: Vec<ActionKind>,
    /// On how many databases, 1 or 2
    #[arg(long, default_value_t = 2, requires = "exhaustive")]
    databases: usize,
    /// With how many ids in each, 1 or 2
    #[arg(long, default_value_t = 2, requires = "exhaustive")]
    ids: u64,
    /// Up to this many changes that were not synced every subset of them is lost; beyond, every
    /// single one, prefix and suffix, and 16 random subsets
    #[arg(long, value_name = "CHANGES", default_value_t = 6, requires = "exhaustive")]
    subsets: usize,
    /// How many of the last writes are torn
    #[arg(long, value_name = "WRITES", default_value_t = 1, requires = "exhaustive")]
    torn_writes: usize,
    /// Tears at every multiple of this many bytes, 512 for every sector [default: each write at up
    /// to 16 places]
    #[arg(long, value_name = "BYTES", requires = "exhaustive")]
    tear_bytes: Option<usize>,
    /// How many crashes may follow the first, each in the recovery from the one before
    #[arg(long, value_name = "CRASHES", default_value_t = 1, requires = "exhaustive")]
    crash_depth: u32,
    /// In the recoveries of how many images of each crash
    #[arg(long, value_name = "IMAGES", default_value_t = 1, requires = "exhaustive")]
    recoveries: u64,
    /// A crash only before every n-th change
    #[arg(long, value_name = "CHANGES", default_value_t = 1, requires = "exhaustive")]
    stride: usize,
}

/// What `--fail-nth` goes over.
#[derive(Debug, Args)]
#[command(next_help_heading = "Every call that may fail")]
pub(super) struct FailingArguments {
    /// Instead of random runs: a few scripts with their first, second, ... call of the disk failing
    /// in each way, once and from then on
    #[arg(long)]
    fail_nth: bool,
    /// Only these ways to fail: eio, enospc, eintr, eagain, ecanceled, short, zero, sync-forgets,
    /// sync-keeps
    #[arg(long, value_delimiter = ',', value_parser = parse_fault, requires = "fail_nth")]
    failing: Vec<Fault>,
    /// Only every n-th call
    #[arg(long, value_name = "CALLS", default_value_t = 1, requires = "fail_nth")]
    every: usize,
}

fn name_of(fault: Fault) -> &'static str {
    match fault {
        Fault::Error(Errno::Io) => "eio",
        Fault::Error(Errno::NoSpace) => "enospc",
        Fault::Error(Errno::Interrupted) => "eintr",
        Fault::Error(Errno::Again) => "eagain",
        Fault::Error(Errno::Cancelled) => "ecanceled",
        Fault::Short => "short",
        Fault::Zero => "zero",
        Fault::SyncForgets => "sync-forgets",
        Fault::SyncKeeps => "sync-keeps",
        _ => "other",
    }
}

fn parse_fault(text: &str) -> Result<Fault, String> {
    FAILURES.into_iter().find(|fault| name_of(*fault) == text).ok_or_else(|| {
        let names = FAILURES.map(name_of).join(", ");
        format!("`{text}` is no way to fail; there are {names}")
    })
}

fn parse_part(text: &str) -> Result<(u64, u64), String> {
    let (part, of) = text.split_once('/').ok_or("PART/OF is expected")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    match (number(part)?, number(of)?) {
        (part, of) if part < of => Ok((part, of)),
        (_, 0) => Err("0 parts are nothing".to_owned()),
        (_, of) => Err(format!("of {of} parts the first is 0 and the last {of} - 1")),
    }
}

impl ScopeArguments {
    /// The checks, if they are asked for.
    pub(super) fn checks(&self) -> Option<Exhaustive> {
        let length = self.exhaustive?;
        let scope = Scope::default().subsets_max(self.subsets).random(16);
        let scope = scope.torn_writes(self.torn_writes);
        let scope = match self.tear_bytes {
            Some(bytes) => scope.cut_bytes(bytes),
            None => scope.cuts_max(16),
        };
        let kinds = match self.operations.is_empty() {
            true => ActionKind::ALL.map(|(kind, _)| kind).to_vec(),
            false => self.operations.clone(),
        };
        let checks = Exhaustive::new(length).scope(scope).part(self.part.0, self.part.1);
        let checks = checks.actions(Action::among(&kinds, self.databases, self.ids));
        let checks = checks.crashes_in_recovery(self.recoveries).depth(self.crash_depth);
        Some(checks.stride(self.stride))
    }
}

impl FailingArguments {
    pub(super) fn is_wanted(&self) -> bool {
        self.fail_nth
    }
}

/// The report of `--exhaustive` as JSON.
#[derive(Serialize)]
struct Counted {
    scripts: u64,
    scripts_in_all: u64,
    crashes: u64,
    images: u64,
    images_of_recovery: u64,
    duplicates: u64,
    failures: usize,
    seconds: f64,
}

/// Every script, crash and image within the scope.
pub(super) fn exhaustive(
    checks: &Exhaustive,
    go_on: impl Fn() -> bool + Sync,
    watch: &Stopwatch,
    context: &mut Context,
) -> Result<(), Failure> {
    let report = checks.run(go_on).map_err(Failure::error)?;
    let counted = Counted {
        scripts: report.scripts,
        scripts_in_all: checks.scripts(),
        crashes: report.crashes,
        images: report.images,
        images_of_recovery: report.images_of_recovery,
        duplicates: report.duplicates,
        failures: report.failures.len(),
        seconds: watch.seconds(),
    };
    let (all, seconds) = (counted.scripts_in_all, counted.seconds);
    context.output.result(&counted, format_args!("of {all}: {report} in {seconds:.1} s"))?;
    verdict(&report.failures)
}

/// The report of `--fail-nth` as JSON.
#[derive(Serialize)]
struct Failing {
    runs: u64,
    refused: u64,
    opened: u64,
    failures: usize,
    seconds: f64,
    by_fault: Vec<FailingInOneWay>,
}

#[derive(Serialize)]
struct FailingInOneWay {
    fault: &'static str,
    runs: u64,
    refused: u64,
    failures: usize,
}

/// The scripts whose calls fail one after the other.
pub(super) fn fail_each_call(
    arguments: &FailingArguments,
    watch: &Stopwatch,
    context: &mut Context,
) -> Result<(), Failure> {
    use Action::{Batch, Compact, Delete, Flush, Put, PutSynced, Reopen};
    let scripts: [&[Action]; 4] = [
        &[PutSynced(0, 1), Flush(0), Put(0, 2), Reopen],
        &[Put(0, 1), Batch(1), Delete(0, 1), Flush(0)],
        &[Put(0, 1), Flush(0), PutSynced(0, 1), Compact(0), Put(1, 1)],
        &[Put(1, 1), Put(0, 1), Reopen, PutSynced(1, 2), Reopen],
    ];
    let chosen = &arguments.failing;
    let faults = if chosen.is_empty() { FAILURES.to_vec() } else { chosen.clone() };
    let (mut by_fault, mut failures, mut opened) = (Vec::new(), Vec::new(), 0);
    for fault in faults {
        let before = failures.len();
        let (mut runs, mut refused) = (0, 0);
        for script in scripts {
            let report = FailNth::new(script).faults(&[fault]).stride(arguments.every).run();
            runs += report.runs;
            refused += report.refused;
            opened += report.opened;
            failures.extend(report.failures);
        }
        let failures = failures.len() - before;
        by_fault.push(FailingInOneWay { fault: name_of(fault), runs, refused, failures });
    }
    let counted = Failing {
        runs: by_fault.iter().map(|it| it.runs).sum(),
        refused: by_fault.iter().map(|it| it.refused).sum(),
        opened,
        failures: failures.len(),
        seconds: watch.seconds(),
        by_fault,
    };
    let Failing { runs, refused, opened, seconds, .. } = counted;
    let ways: Vec<String> =
        counted.by_fault.iter().map(|it| format!("{} {}", it.fault, it.runs)).collect();
    context.output.result(
        &counted,
        format_args!(
            "{runs} runs with a failing call ({}), {refused} refused, {opened} stores opened \
             afterwards, {} wrong in {seconds:.1} s",
            ways.join(", "),
            failures.len(),
        ),
    )?;
    verdict(&failures)
}

fn verdict(failures: &[String]) -> Result<(), Failure> {
    failures.iter().for_each(complain);
    match failures.len() {
        0 => Ok(()),
        count => Err(Failure::error(format_args!("{count} checks failed"))),
    }
}
