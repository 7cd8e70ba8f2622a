//! `simulate`: the whole engine on a simulated machine, by seed, with crashes and faults.
//!
//! Each run is deterministic; what fails is printed as the command that replays it. Exits with 0
//! only if every run held.

use std::time::Duration;

use clap::Args;
use nephrite_simulation::{
    Campaign, CampaignReport, Operation, Options, Profile, STEPS, shrink, simulate,
};
use serde::Serialize;

use super::simulate_all::{self, FailingArguments, ScopeArguments};

use crate::clock::Stopwatch;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::complain;

/// What `--help` says after the options.
const HELP: &str = r#"JSON: {"runs","steps","crashes","opens","faults","calls","failures",
       "trace_hash","seconds","failed":[{"replay","what"}]}
With --exhaustive: {"scripts","scripts_in_all","crashes","images","images_of_recovery",
       "duplicates","failures","seconds"}
With --fail-nth: {"runs","refused","opened","failures","seconds","by_fault":[{"fault","runs",
       "refused","failures"}]}
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
    #[command(flatten)]
    scope: ScopeArguments,
    #[command(flatten)]
    failing: FailingArguments,
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

pub(crate) fn run(arguments: &SimulateArguments, context: &mut Context) -> Result<(), Failure> {
    let watch = Stopwatch::start();
    let limit = arguments.minutes.map(|minutes| Duration::try_from_secs_f64(minutes * 60.0));
    let limit = limit.transpose().map_err(|_| {
        Failure::Usage("--minutes needs a number of minutes from zero on".to_owned())
    })?;
    let go_on = || limit.is_none_or(|limit| watch.elapsed() < limit);
    if let Some(checks) = arguments.scope.checks() {
        return simulate_all::exhaustive(&checks.jobs(arguments.jobs), go_on, &watch, context);
    }
    if arguments.failing.is_wanted() {
        return simulate_all::fail_each_call(&arguments.failing, &watch, context);
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
