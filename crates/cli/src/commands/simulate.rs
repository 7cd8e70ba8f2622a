//! `simulate`: the whole engine on a simulated machine, by seed, with crashes and faults.
//!
//! Each run is deterministic; what fails is printed as the command that replays it. Exits with 0
//! only if every run held.

use std::time::Duration;

use clap::Args;
use nephrite_simulation::{
    Action, Campaign, CampaignReport, Exhaustive, Operation, Options, Profile, STEPS, fail_nth,
    shrink, simulate,
};
use serde::Serialize;

use crate::clock::Stopwatch;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::complain;

/// What `--help` says after the options.
const HELP: &str = r#"JSON: {"runs","steps","crashes","opens","faults","calls","failures",
       "trace_hash","seconds","failed":[{"replay","what"}]}
With --exhaustive and --fail-nth: {"runs","crashes","images","failures","seconds"}
Faults besides crashes: none; failures (calls fail, are short or slow, the disk runs full);
       corruption (bytes are damaged, lost, or land elsewhere)"#;

/// Arguments of `simulate`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct SimulateArguments {
    /// Seed of the first run; each further one has the next
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Operations of one run
    #[arg(long, default_value_t = STEPS)]
    steps: u64,
    /// How many runs [default: 1, or as many as the minutes allow]
    #[arg(long)]
    runs: Option<u64>,
    /// Begins no further run after this many minutes
    #[arg(long)]
    minutes: Option<f64>,
    /// What goes wrong besides crashes: none, failures or corruption [default: the seed chooses]
    #[arg(long, value_name = "KIND")]
    faults: Option<Profile>,
    /// How many clients work at a time, 1 to 4 [default: the seed chooses]
    #[arg(long)]
    clients: Option<usize>,
    /// Leaves out operations, such as scan,flush
    #[arg(long, value_delimiter = ',')]
    without: Vec<Operation>,
    /// On how many threads; the result does not depend on it
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Carries out each run twice and compares what happened
    #[arg(long)]
    twice: bool,
    /// Makes the first run that fails smaller before it is printed
    #[arg(long)]
    shrink: bool,
    /// Instead of random runs: every script of up to this many operations, a crash before every
    /// change of the disk, every image it may leave, and a crash in every recovery
    #[arg(long, value_name = "LENGTH")]
    exhaustive: Option<usize>,
    /// With --exhaustive: only this part of the scripts, such as 1/8
    #[arg(long, default_value = "0/1", value_parser = parse_part)]
    part: (u64, u64),
    /// Instead of random runs: a few scripts with each call of the disk failing in each way
    #[arg(long)]
    fail_nth: bool,
    /// Prints what the disk did in the last life of the first run that failed
    #[arg(long)]
    events: bool,
}

/// The report as JSON.
#[derive(Serialize)]
struct Summary {
    runs: u64,
    steps: u64,
    crashes: u64,
    opens: u64,
    faults: u64,
    calls: u64,
    failures: usize,
    trace_hash: String,
    seconds: f64,
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct Failed {
    replay: String,
    what: String,
}

impl Summary {
    fn new(report: &CampaignReport, seconds: f64) -> Self {
        let failed = report.failures.iter();
        Self {
            runs: report.runs,
            steps: report.steps,
            crashes: report.crashes,
            opens: report.opens,
            faults: report.faults,
            calls: report.calls,
            failures: report.failures.len(),
            trace_hash: format!("{:016x}", report.trace_hash),
            seconds,
            failed: failed
                .map(|it| Failed { replay: it.options.to_string(), what: it.text.clone() })
                .collect(),
        }
    }
}

impl SimulateArguments {
    fn options(&self) -> Options {
        let mut options = Options::new(self.seed).steps(self.steps);
        if let Some(profile) = self.faults {
            options = options.profile(profile);
        }
        if let Some(clients) = self.clients {
            options = options.clients(clients);
        }
        self.without.iter().fold(options, |options, operation| options.without(*operation))
    }
}

fn parse_part(text: &str) -> Result<(u64, u64), String> {
    let (part, of) = text.split_once('/').ok_or("PART/OF is expected")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    Ok((number(part)?, number(of)?.max(1)))
}

pub(crate) fn run(arguments: &SimulateArguments, context: &mut Context) -> Result<(), Failure> {
    let watch = Stopwatch::start();
    let limit = arguments.minutes.map(|minutes| Duration::try_from_secs_f64(minutes * 60.0));
    let limit = limit.transpose().map_err(|_| {
        Failure::Usage("--minutes needs a number of minutes from zero on".to_owned())
    })?;
    let go_on = || limit.is_none_or(|limit| watch.elapsed() < limit);
    if let Some(length) = arguments.exhaustive {
        let (part, of) = arguments.part;
        let report = Exhaustive::new(length).part(part, of).run(go_on);
        let counted = Counted {
            runs: report.scripts,
            crashes: report.crashes,
            images: report.images,
            failures: report.failures.len(),
            seconds: watch.seconds(),
        };
        context.output.result(&counted, format_args!("{report}"))?;
        return verdict(&report.failures);
    }
    if arguments.fail_nth {
        return fail_each_call(&watch, context);
    }
    let runs = arguments.runs.unwrap_or(if limit.is_some() { u64::MAX } else { 1 });
    let mut campaign = Campaign::new(arguments.options(), runs).jobs(arguments.jobs);
    if arguments.twice {
        campaign = campaign.twice();
    }
    let report = campaign
        .run(go_on, |failure| complain(format_args!("{}: {}", failure.options, failure.text)));
    let report = report.map_err(Failure::error)?;
    let seconds = watch.seconds();
    let summary = Summary::new(&report, seconds);
    context.output.result(
        &summary,
        format_args!(
            "{} runs, {} steps, {} crashes, {} opens, {} faults, {} failures in {seconds:.1} s \
             (trace {})",
            summary.runs,
            summary.steps,
            summary.crashes,
            summary.opens,
            summary.faults,
            summary.failures,
            summary.trace_hash,
        ),
    )?;
    let Some(first) = report.failures.first() else { return Ok(()) };
    explain(arguments, &first.options, context)?;
    Err(Failure::error(format_args!("{} of {} runs failed", report.failures.len(), report.runs)))
}

/// The scripts whose calls fail one after the other.
fn fail_each_call(watch: &Stopwatch, context: &mut Context) -> Result<(), Failure> {
    use Action::{Batch, Compact, Delete, Flush, Put, PutSynced, Reopen};
    let scripts: [&[Action]; 4] = [
        &[PutSynced(0, 1), Flush(0), Put(0, 2), Reopen],
        &[Put(0, 1), Batch(1), Delete(0, 1), Flush(0)],
        &[Put(0, 1), Flush(0), PutSynced(0, 1), Compact(0), Put(1, 1)],
        &[Put(1, 1), Put(0, 1), Reopen, PutSynced(1, 2), Reopen],
    ];
    let (mut runs, mut failures) = (0, Vec::new());
    for script in scripts {
        let report = fail_nth(script, 1);
        runs += report.runs;
        failures.extend(report.failures);
    }
    let failed = failures.len();
    let seconds = watch.seconds();
    let counted = Counted { runs, crashes: runs, images: 3 * runs, failures: failed, seconds };
    context.output.result(
        &counted,
        format_args!("{runs} runs with a failing call, {failed} wrong in {seconds:.1} s"),
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

/// What a check that goes over all cases counted.
#[derive(Serialize)]
struct Counted {
    runs: u64,
    crashes: u64,
    images: u64,
    failures: usize,
    seconds: f64,
}

/// More about a run that failed, as far as it was asked for.
fn explain(
    arguments: &SimulateArguments,
    failed: &Options,
    context: &mut Context,
) -> Result<(), Failure> {
    let smallest = if arguments.shrink { shrink(failed) } else { None };
    if let Some(smaller) = &smallest {
        complain(format_args!("smaller: {}: {}", smaller.options, smaller.text));
    }
    if arguments.events {
        let options = smallest.map_or_else(|| failed.clone(), |smaller| smaller.options);
        let report = simulate(&options.keep_events());
        context.output.line(format_args!("{}", report.setting))?;
        for event in report.events {
            context.output.line(format_args!("{event}"))?;
        }
    }
    Ok(())
}
