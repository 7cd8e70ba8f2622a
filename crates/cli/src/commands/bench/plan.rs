//! The options of `bench`, and which of them go together.
//!
//! A combination that would measure something else than what was asked for is refused with the
//! name of the option, before anything is written.
//!
//! Checked by: the tests below, and `tests/it/bench.rs` for the exit code.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedI64ValueParser;
use clap::{ArgAction, Args, value_parser};
use nephrite::{BackendChoice, MAX_DIMENSION};

use super::keys::Distribution;
use super::vectors::{Check, DIMENSION_MIN, IDS_MAX};
use super::workload::Workload;
use crate::context::Context;
use crate::failure::Failure;
use crate::size::parse_size;

/// Calls in flight on all threads together.
const IN_FLIGHT_MAX: u64 = 4096;
/// Ids of one call.
const BATCH_MAX: u64 = 1 << 20;

/// The options of the workloads.
#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    /// What to do, in this order; reads need an earlier fill or --use-existing
    #[arg(value_name = "WORKLOAD", required = true, value_enum)]
    workloads: Vec<Workload>,
    /// Directory to work in: keeps its store in nephrite-bench, and fills replace that store's
    /// database (default: a temporary directory, removed at the end)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Vectors to store, and operations of each workload [default: 100000; with --use-existing,
    /// as many as there are]
    #[arg(long, value_parser = value_parser!(u64).range(1..IDS_MAX))]
    num: Option<u64>,
    /// Values per vector [default: 128, or those of the existing database]
    #[arg(long, value_parser = dimensions())]
    dim: Option<u32>,
    /// Threads that call
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u64).range(1..=1024))]
    threads: u64,
    /// Calls in flight on each thread: 1 uses the blocking interface, more use async tasks
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u64).range(1..=1024))]
    iodepth: u64,
    /// Ids per call [default: 1000 for fillseq and fillrandom, 100 for multireadrandom, else 1]
    #[arg(long, value_name = "IDS", value_parser = value_parser!(u64).range(1..=BATCH_MAX))]
    batch_size: Option<u64>,
    /// Memory for cached pages: sets the memory limit to twice as much
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    cache_size: Option<u64>,
    /// 1: fail where files cannot bypass the system's cache; 0: go through that cache [default:
    /// bypass it where possible]
    #[arg(long, value_name = "0|1", num_args = 0..=1, default_missing_value = "1")]
    #[arg(action = ArgAction::Set, value_parser = parse_switch, require_equals = true)]
    direct: Option<bool>,
    /// Which ids are taken: uniform, or zipf:0.99 with the popular ids scattered
    #[arg(long, value_name = "NAME")]
    distribution: Option<Distribution>,
    /// Seconds for each workload, instead of --num operations; a fill ends at --num as well
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    duration: Option<Duration>,
    /// Calls per second, begun on schedule whatever the store does; a latency counts from when
    /// the call was due
    #[arg(long, value_name = "CALLS", value_parser = value_parser!(u64).range(1..=1_000_000_000))]
    rate: Option<u64>,
    /// Everything random follows from this
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Work on what an earlier run left in --dir
    #[arg(long)]
    use_existing: bool,
    /// Read everything once before each workload that reads
    #[arg(long, conflicts_with = "cold")]
    hot: bool,
    /// Open the store anew before each workload that reads
    #[arg(long)]
    cold: bool,
    /// Check every bit of every read, and after each workload what it left
    #[arg(long)]
    verify: bool,
    /// Measure the device at the same block size and depth, before and after each workload
    #[arg(long)]
    with_device_limit: bool,
    /// Write a report with plots, which opens without a network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What the caches hold when a workload begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Temperature {
    AsLeft,
    Hot,
    Cold,
}

impl Temperature {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AsLeft => "as left",
            Self::Hot => "hot",
            Self::Cold => "cold",
        }
    }
}

/// Options that are known to go together.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) workloads: Vec<Workload>,
    pub(super) dir: Option<PathBuf>,
    pub(super) num: Option<u64>,
    pub(super) dim: Option<u32>,
    pub(super) threads: u64,
    pub(super) iodepth: u64,
    pub(super) batch_size: Option<u64>,
    pub(super) cache_size: Option<u64>,
    pub(super) direct: Option<bool>,
    pub(super) distribution: Distribution,
    pub(super) duration: Option<Duration>,
    pub(super) rate: Option<u64>,
    pub(super) seed: u64,
    pub(super) use_existing: bool,
    pub(super) temperature: Temperature,
    pub(super) check: Check,
    pub(super) with_device_limit: bool,
    pub(super) html: Option<PathBuf>,
}

impl Plan {
    pub(super) fn new(arguments: &PlanArguments, context: &Context) -> Result<Self, Failure> {
        let memory = context.configuration.memory_flag().is_some();
        let backend = context.config().settings().backend;
        refusal(arguments, memory, backend).map_or(Ok(()), |text| Err(Failure::Usage(text)))?;
        let temperature = match (arguments.hot, arguments.cold) {
            (true, _) => Temperature::Hot,
            (_, true) => Temperature::Cold,
            _ => Temperature::AsLeft,
        };
        Ok(Self {
            workloads: arguments.workloads.clone(),
            dir: arguments.dir.clone(),
            num: arguments.num,
            dim: arguments.dim,
            threads: arguments.threads,
            iodepth: arguments.iodepth,
            batch_size: arguments.batch_size,
            cache_size: arguments.cache_size,
            direct: arguments.direct,
            distribution: arguments.distribution.unwrap_or(Distribution::Uniform),
            duration: arguments.duration,
            rate: arguments.rate,
            seed: arguments.seed,
            use_existing: arguments.use_existing,
            temperature,
            check: if arguments.verify { Check::Bits } else { Check::Marks },
            with_device_limit: arguments.with_device_limit,
            html: arguments.html.clone(),
        })
    }

    /// Ids of each call of a workload.
    pub(super) fn batch_size(&self, workload: Workload) -> u64 {
        match self.batch_size {
            Some(batch_size) if workload.takes_batches() => batch_size,
            _ => workload.batch_size_default(),
        }
    }
}

/// Why these options do not go together.
fn refusal(arguments: &PlanArguments, memory: bool, backend: BackendChoice) -> Option<String> {
    of_places(arguments, memory, backend).or_else(|| of_workloads(arguments))
}

fn of_places(arguments: &PlanArguments, memory: bool, backend: BackendChoice) -> Option<String> {
    let mapped = backend == BackendChoice::Mmap;
    let in_flight = arguments.threads * arguments.iodepth;
    let refusals = [
        (
            arguments.use_existing && arguments.dir.is_none(),
            "--use-existing: name the directory of the earlier run with --dir",
        ),
        (
            arguments.use_existing && arguments.workloads.iter().any(|it| it.starts_empty()),
            "--use-existing: a fill starts with an empty database; leave one of them out",
        ),
        (
            memory && arguments.cache_size.is_some(),
            "--cache-size: it sets the memory limit, and so does --memory; give one of them",
        ),
        (
            mapped && arguments.direct == Some(true),
            "--direct: a mapping goes through the system's cache; leave out --backend mmap",
        ),
        (
            IN_FLIGHT_MAX < in_flight,
            "--iodepth: more than 4096 calls in flight on all threads together",
        ),
    ];
    first(&refusals)
}

fn of_workloads(arguments: &PlanArguments) -> Option<String> {
    let any = |what: fn(Workload) -> bool| arguments.workloads.iter().any(|it| what(*it));
    let first_reads = !arguments.use_existing
        && arguments.workloads.first().is_some_and(|first| !first.starts_empty());
    let scans = arguments.workloads.contains(&Workload::ReadSeq);
    let limitless = arguments.workloads.contains(&Workload::DeleteRandom);
    let refusals = [
        (
            first_reads,
            "WORKLOAD: the first one needs vectors; begin with a fill, or add --use-existing",
        ),
        (
            arguments.hot && !any(Workload::reads),
            "--hot: none of these workloads reads; leave it out",
        ),
        (
            arguments.cold && !any(Workload::reads),
            "--cold: none of these workloads reads; leave it out",
        ),
        (
            arguments.batch_size.is_some() && !any(Workload::takes_batches),
            "--batch-size: all of these workloads take one id at a time; leave it out",
        ),
        (
            arguments.distribution.is_some() && !any(Workload::draws_ids),
            "--distribution: none of these workloads draws ids; leave it out",
        ),
        (arguments.rate.is_some() && scans, "--rate: a scan is one call; leave out readseq"),
        (
            arguments.with_device_limit && limitless,
            "--with-device-limit: deleterandom moves no vectors; leave one of them out",
        ),
    ];
    first(&refusals)
}

fn first(refusals: &[(bool, &str)]) -> Option<String> {
    refusals.iter().find(|(holds, _)| *holds).map(|(_, text)| (*text).to_owned())
}

fn dimensions() -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(i64::from(DIMENSION_MIN)..=i64::from(MAX_DIMENSION))
}

/// A time in seconds, such as `2` or `0.5`, up to a year.
pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    const YEAR: f64 = 366.0 * 86_400.0;
    match text.parse::<f64>() {
        Ok(seconds) if 0.0 < seconds && seconds <= YEAR => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("seconds, more than 0, such as 10 or 0.5".to_owned()),
    }
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "0" | "false" => Ok(false),
        "1" | "true" => Ok(true),
        _ => Err("0 or 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        plan: PlanArguments,
    }

    fn refused(line: &str, memory: bool, backend: BackendChoice) -> Option<String> {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        refusal(&Line::try_parse_from(words).unwrap().plan, memory, backend)
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_name() {
        for (line, option) in [
            ("readrandom", "WORKLOAD"),
            ("fillseq --hot", "--hot"),
            ("fillseq --cold", "--cold"),
            ("fillseq --use-existing --dir d", "--use-existing"),
            ("readrandom --use-existing", "--use-existing"),
            ("readrandom --use-existing --dir d --batch-size 7", "--batch-size"),
            ("fillseq --distribution uniform", "--distribution"),
            ("fillseq readseq --rate 5", "--rate"),
            ("fillseq deleterandom --with-device-limit", "--with-device-limit"),
            ("fillseq --threads 1024 --iodepth 1024", "--iodepth"),
        ] {
            let refusal = refused(line, false, BackendChoice::Auto);
            assert!(
                refusal.as_ref().is_some_and(|it| it.starts_with(option)),
                "{line}: {refusal:?}"
            );
        }
        let refusal = refused("fillseq --cache-size 1MiB", true, BackendChoice::Auto);
        assert!(refusal.is_some_and(|it| it.starts_with("--cache-size")));
        let refusal = refused("fillseq --direct", false, BackendChoice::Mmap);
        assert!(refusal.is_some_and(|it| it.starts_with("--direct")));
    }

    #[test]
    fn what_goes_together_is_taken() {
        for line in [
            "fillseq readrandom --hot --distribution zipf:0.99",
            "fillrandom multireadrandom --batch-size 10 --cold --direct=0",
            "readrandom --use-existing --dir d --rate 100 --duration 0.5 --with-device-limit",
            "fillsync --threads 2 --iodepth 32 --direct",
        ] {
            assert_eq!(refused(line, false, BackendChoice::Auto), None, "{line}");
        }
        assert_eq!(refused("fillseq --cache-size 64MiB", false, BackendChoice::Mmap), None);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for line in [
            "fillseq --num 0",
            "fillseq --dim 3",
            "fillseq --dim 16385",
            "fillseq --threads 0",
            "fillseq --iodepth 0",
            "fillseq --batch-size 0",
            "fillseq --duration 0",
            "fillseq --duration nan",
            "fillseq --rate 0",
            "fillseq --distribution zipf:0",
            "fillseq --direct=2",
            "fillseq --hot --cold",
            "fillslow",
            "",
        ] {
            let words = ["bench"].into_iter().chain(line.split_whitespace());
            assert!(Line::try_parse_from(words).is_err(), "{line}");
        }
    }
}
