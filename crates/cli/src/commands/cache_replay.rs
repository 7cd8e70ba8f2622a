//! `cache-replay`: what a trace of reads says about memory and cache policies.
//!
//! For each size of memory it prints the share of reads that would have been hits under each
//! policy by page alone, the same with records retained as the cache does it, and the bounds: the
//! best that any fixed choice of pages, or of records, could do. Reads the trace only, no store.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;

use clap::Args;
use nephrite::CachePolicy;
use nephrite::replay::{Footprint, Replay, Replayed, Trace};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::size::parse_size;

/// What `--help` says after the options.
const HELP: &str = r#"Record a trace with --set record_trace=FILE on any command that reads a store,
or with Config::record_trace in a program.

JSON: {"reads","dropped","cut_off","pages","page_bytes","records","record_bytes",
       "memory":[{"bytes","policies":[{"policy","hit_ratio","retaining_hit_ratio"}],
       "best_pages","best_records"}]}; hit ratios are shares of the reads, from 0 to 1"#;

/// Parts of what the trace touches that are tried as memory when no size is given.
const MEMORY_PARTS: [u64; 5] = [32, 16, 8, 4, 2];

/// The least memory that is tried without being asked for.
const MEMORY_MIN: u64 = 1 << 20;

/// Arguments of `cache-replay`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct CacheReplayArguments {
    /// A trace of reads
    trace: PathBuf,
    /// Memory of the cache, such as 64MiB; may be given more than once. Without it --memory, or
    /// else parts of what the trace touches
    #[arg(long = "size", value_name = "SIZE", value_parser = parse_size)]
    sizes: Vec<u64>,
    /// clock or s3-fifo; may be given more than once. Without it, all
    #[arg(long = "policy", value_name = "NAME")]
    policies: Vec<CachePolicy>,
}

#[derive(Serialize)]
struct Report {
    reads: u64,
    dropped: u64,
    cut_off: bool,
    pages: u64,
    page_bytes: u64,
    records: u64,
    record_bytes: u64,
    memory: Vec<Memory>,
}

#[derive(Serialize)]
struct Memory {
    bytes: u64,
    policies: Vec<Ratios>,
    best_pages: f64,
    best_records: f64,
}

#[derive(Serialize)]
struct Ratios {
    policy: &'static str,
    hit_ratio: f64,
    retaining_hit_ratio: f64,
}

pub(crate) fn run(arguments: &CacheReplayArguments, context: &mut Context) -> Result<(), Failure> {
    let name = arguments.trace.display();
    let unreadable = |error: io::Error| Failure::error(format_args!("{name}: {error}"));
    let file = File::open(&arguments.trace).map_err(unreadable)?;
    let trace = Trace::read(BufReader::new(file), &name.to_string()).map_err(|error| {
        // The engine's sentence names the file already.
        let damaged = error.kind() == io::ErrorKind::InvalidData;
        if damaged { Failure::Damage(error.to_string()) } else { unreadable(error) }
    })?;
    let (dropped, cut_off) = (trace.dropped, trace.cut_off);
    let replay = Replay::new(trace.reads);
    let touched = replay.footprint();
    let policies: &[CachePolicy] =
        if arguments.policies.is_empty() { &CachePolicy::ALL } else { &arguments.policies };
    let sizes = match (&arguments.sizes[..], context.configuration.memory_flag()) {
        ([], Some(bytes)) => vec![bytes],
        (wanted, _) => sizes(wanted, &touched),
    };
    let memory: Result<_, _> =
        sizes.iter().map(|bytes| memory(&replay, *bytes, policies, touched.reads)).collect();
    let report = Report {
        reads: touched.reads,
        dropped,
        cut_off,
        pages: touched.pages,
        page_bytes: touched.page_bytes,
        records: touched.records,
        record_bytes: touched.record_bytes,
        memory: memory?,
    };
    if context.output.json() { context.output.document(&report) } else { print(&report, context) }
}

fn sizes(wanted: &[u64], touched: &Footprint) -> Vec<u64> {
    if !wanted.is_empty() {
        return wanted.to_vec();
    }
    let parts = MEMORY_PARTS.iter().map(|part| (touched.page_bytes / part).max(MEMORY_MIN));
    let mut sizes: Vec<u64> = parts.collect();
    sizes.dedup();
    sizes
}

fn memory(
    replay: &Replay,
    bytes: u64,
    policies: &[CachePolicy],
    reads: u64,
) -> Result<Memory, Failure> {
    let limit = usize::try_from(bytes)
        .map_err(|_| Failure::Usage(format!("{bytes} bytes are more than can be addressed")))?;
    let ratios = policies.iter().map(|policy| {
        let pages = replay.by_page(limit, *policy).map_err(Failure::error)?;
        let retaining = replay.retaining(limit, *policy).map_err(Failure::error)?;
        Ok(Ratios {
            policy: policy.name(),
            hit_ratio: Replayed::hit_ratio(&pages),
            retaining_hit_ratio: Replayed::hit_ratio(&retaining),
        })
    });
    Ok(Memory {
        bytes,
        policies: ratios.collect::<Result<_, Failure>>()?,
        best_pages: share(replay.best_pages(limit), reads),
        best_records: share(replay.best_records(limit), reads),
    })
}

#[expect(clippy::cast_precision_loss, reason = "a share, for people")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn print(report: &Report, context: &mut Context) -> Result<(), Failure> {
    let output = &mut context.output;
    let Report { reads, dropped, pages, page_bytes, records, record_bytes, .. } = report;
    output.line(format_args!("reads    {reads} ({dropped} more were not recorded)"))?;
    output.line(format_args!("pages    {pages}, {page_bytes} bytes"))?;
    output.line(format_args!("records  {records}, {record_bytes} bytes"))?;
    if report.cut_off {
        output.line(format_args!("the trace is cut off: its store was not closed"))?;
    }
    output.line(format_args!(
        "{:>14}  {:<10} {:>8} {:>10} {:>11} {:>13}",
        "memory", "policy", "hits", "retaining", "best pages", "best records"
    ))?;
    for memory in &report.memory {
        for ratios in &memory.policies {
            output.line(format_args!(
                "{:>14}  {:<10} {:>7.2}% {:>9.2}% {:>10.2}% {:>12.2}%",
                memory.bytes,
                ratios.policy,
                100.0 * ratios.hit_ratio,
                100.0 * ratios.retaining_hit_ratio,
                100.0 * memory.best_pages,
                100.0 * memory.best_records
            ))?;
        }
    }
    Ok(())
}
