//! `bench device`: the drive itself, as a small fio.
//!
//! A file is written in full in the named directory, measured under each combination of access,
//! block size and depth, and removed. Figures are of one thread. Names are fio's.
//!
//! Checked by: `tests/it/bench.rs`, also beside `fio` where it is installed.

pub(super) mod transfer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, value_parser};
use nephrite::{DiskOptions, open_disk};
use nephrite_io::{OpenOptions, block_on};
use serde::Serialize;
use tempfile::TempPath;

use self::transfer::{Access, Interrupt, Job, Measured, Submitter, Target};
use super::machine::Machine;
use super::plan::parse_seconds;
use super::recorder::Latencies;
use crate::context::Context;
use crate::failure::Failure;
use crate::figures::{bytes, latency};
use crate::size::parse_size;

/// Blocks are multiples of this, as direct I/O wants them.
const BLOCK_BYTES: u64 = 4096;
/// The largest block, and so the step of the file's size.
const BLOCK_BYTES_MAX: u64 = 16 << 20;

const HELP: &str = r#"JSON, one object for each measurement: {"access","block_bytes","iodepth",
       "registered_buffers","submitted_by","operations","seconds","operations_per_second",
       "bytes_per_second","latency_ns":{"count","mean","p50","p90","p99","p999","p9999","max"},
       "cpu_seconds","cpu_seconds_per_operation","file_bytes","backend","direct","machine"}"#;

/// Arguments of `bench device`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct DeviceArguments {
    /// Directory on the drive; a file is made in it and removed
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// What to measure
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',')]
    #[arg(default_value = "randread,randwrite,read,write,fdatasync")]
    rw: Vec<Access>,
    /// Block sizes of random transfers and of fdatasync
    #[arg(long, value_name = "SIZE", value_parser = parse_block, value_delimiter = ',')]
    #[arg(default_value = "4KiB")]
    bs: Vec<u64>,
    /// Block sizes of sequential transfers
    #[arg(long, value_name = "SIZE", value_parser = parse_block, value_delimiter = ',')]
    #[arg(default_value = "1MiB")]
    sequential_bs: Vec<u64>,
    /// Random transfers in flight
    #[arg(long, value_parser = value_parser!(u16).range(1..=1024), value_delimiter = ',')]
    #[arg(default_value = "1,32,128")]
    iodepth: Vec<u16>,
    /// Sequential transfers in flight
    #[arg(long, value_parser = value_parser!(u16).range(1..=1024), default_value_t = 8)]
    sequential_iodepth: u16,
    /// Size of the file
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "1GiB")]
    size: u64,
    /// Seconds for each measurement
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "2")]
    duration: Duration,
    /// Seconds of transfers before each measurement that are not counted: a drive is not what it is
    /// while it still writes what the file was filled with
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "0.5")]
    ramp_time: Duration,
    /// Measure random transfers also through the disk's own threads, with buffers registered with
    /// the kernel and without
    #[arg(long)]
    fixedbufs: bool,
    /// Go through the system's cache: 0, or bypass it: 1
    #[arg(long, value_name = "0|1", default_value_t = 1)]
    #[arg(value_parser = value_parser!(u8).range(..=1))]
    direct: u8,
    /// Of the order of random blocks
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One measurement as JSON.
#[derive(Serialize)]
struct Row<'a> {
    access: &'static str,
    block_bytes: u64,
    iodepth: usize,
    registered_buffers: bool,
    submitted_by: &'static str,
    operations: u64,
    seconds: f64,
    operations_per_second: f64,
    bytes_per_second: f64,
    latency_ns: Latencies,
    cpu_seconds: Option<f64>,
    cpu_seconds_per_operation: Option<f64>,
    file_bytes: u64,
    backend: String,
    direct: bool,
    machine: &'a Machine,
}

pub(super) fn run(arguments: &DeviceArguments, context: &mut Context) -> Result<(), Failure> {
    refuse(arguments)?;
    context.shutdown.listen()?;
    let options = DiskOptions::new()
        .backend(context.config().settings().backend)
        .direct(arguments.direct == 1)
        .registered_buffers(arguments.fixedbufs);
    let size = arguments.size.next_multiple_of(BLOCK_BYTES_MAX);
    let (target, file) = open_target(options, &arguments.directory, size)?;
    let direct = target.file.is_direct();
    if arguments.direct == 1 && !direct {
        return Err(Failure::error(
            "--direct: files here cannot bypass the system's cache; --direct 0 measures that cache",
        ));
    }
    let machine = Machine::new(&target.disk.report());
    if !context.output.json() {
        context.output.line(format_args!("{}", machine.describe()))?;
        context.output.flush()?;
    }
    measure_all(arguments, &target, &machine, context)?;
    drop(file);
    block_on(target.disk.shutdown()).map_err(Failure::error)
}

/// What does not go together.
fn refuse(arguments: &DeviceArguments) -> Result<(), Failure> {
    if arguments.fixedbufs && !arguments.rw.iter().any(|access| access.is_random()) {
        return Err(Failure::Usage(
            "--fixedbufs: only random transfers are measured with it; add randread to --rw".into(),
        ));
    }
    if arguments.size < BLOCK_BYTES_MAX {
        return Err(Failure::Usage("--size: the file has at least 16 MiB".to_owned()));
    }
    Ok(())
}

fn measure_all(
    arguments: &DeviceArguments,
    target: &Target,
    machine: &Machine,
    context: &mut Context,
) -> Result<(), Failure> {
    let shutdown = &context.shutdown;
    let interrupt: Interrupt<'_> = &|| shutdown.check();
    transfer::fill(target, interrupt)?;
    for job in jobs(arguments) {
        let measured = transfer::run(target, &job, &|| context.shutdown.check())?;
        tell(&job, &measured, target, machine, context)?;
    }
    Ok(())
}

/// Every combination that was asked for.
fn jobs(arguments: &DeviceArguments) -> Vec<Job> {
    let mut jobs = Vec::new();
    for access in &arguments.rw {
        let submitters: &[Submitter] = match access.is_random() && arguments.fixedbufs {
            true => &[Submitter::Caller, Submitter::Disk, Submitter::DiskRegistered],
            false => &[Submitter::Caller],
        };
        let (sizes, depths): (&[u64], &[u16]) = match access {
            Access::RandomRead | Access::RandomWrite => (&arguments.bs, &arguments.iodepth),
            Access::Synced => (&arguments.bs, &[1]),
            Access::SequentialRead | Access::SequentialWrite => {
                (&arguments.sequential_bs, std::slice::from_ref(&arguments.sequential_iodepth))
            }
        };
        for block_bytes in sizes {
            for depth in depths {
                jobs.extend(submitters.iter().map(|submitter| Job {
                    access: *access,
                    block_bytes: *block_bytes,
                    depth: usize::from(*depth),
                    ramp: arguments.ramp_time,
                    duration: arguments.duration,
                    submitter: *submitter,
                    seed: arguments.seed,
                }));
            }
        }
    }
    jobs
}

fn tell(
    job: &Job,
    measured: &Measured,
    target: &Target,
    machine: &Machine,
    context: &mut Context,
) -> Result<(), Failure> {
    let report = target.disk.report();
    let of_latency = measured.latencies;
    let per_operation =
        measured.cpu_seconds.map(|seconds| seconds / measured.operations.max(1) as f64);
    let row = Row {
        access: job.access.name(),
        block_bytes: job.block_bytes,
        iodepth: job.depth,
        registered_buffers: job.submitter == Submitter::DiskRegistered
            && 0 < report.registered_bytes,
        submitted_by: if measured.by_caller { "caller" } else { "disk" },
        operations: measured.operations,
        seconds: measured.seconds,
        operations_per_second: measured.operations_per_second,
        bytes_per_second: measured.bytes_per_second,
        latency_ns: of_latency,
        cpu_seconds: measured.cpu_seconds,
        cpu_seconds_per_operation: per_operation,
        file_bytes: target.bytes,
        backend: report.chosen.to_string(),
        direct: target.file.is_direct(),
        machine,
    };
    if context.output.json() {
        context.output.document(&row)?;
    } else {
        let cpu =
            per_operation.map_or_else(String::new, |it| format!("  cpu/op {:.2} us", it * 1e6));
        let registered = if row.registered_buffers { ", registered" } else { "" };
        context.output.line(format_args!(
            "{:<9} bs {:>9} depth {:>4}: {:>9.0}/s {:>8.1} MB/s  p50 {} p99 {} p99.9 {} \
             max {}{cpu}  ({}, by {}{registered})",
            row.access,
            bytes(row.block_bytes),
            row.iodepth,
            row.operations_per_second,
            row.bytes_per_second / 1e6,
            latency(of_latency.p50),
            latency(of_latency.p99),
            latency(of_latency.p999),
            latency(of_latency.max),
            row.backend,
            row.submitted_by,
        ))?;
    }
    context.output.flush()
}

/// A disk and an empty file in a directory. The file goes with the path; where a file may be open
/// without a name it has none from the beginning, so that nothing is left even by a kill.
pub(super) fn open_target(
    options: DiskOptions,
    directory: &Path,
    bytes: u64,
) -> Result<(Target, Option<TempPath>), Failure> {
    let failed = |error: std::io::Error| {
        Failure::error(format_args!(
            "making a file in {}: {error}; name a directory that can be written",
            directory.display()
        ))
    };
    let file = tempfile::Builder::new()
        .prefix("nephrite-bench-device-")
        .tempfile_in(directory)
        .map_err(failed)?;
    let path = file.into_temp_path();
    let disk: Arc<dyn nephrite::Disk> = open_disk(options, directory).map_err(Failure::error)?;
    let open = disk.open(&path, OpenOptions::read_write());
    let file = block_on(open).map_err(Failure::error)?;
    let path = (!cfg!(unix)).then_some(path);
    Ok((Target { disk, file, bytes }, path))
}

/// A block size: a multiple of 4 KiB up to 16 MiB.
fn parse_block(text: &str) -> Result<u64, String> {
    let block = parse_size(text)?;
    let whole = block != 0 && block.is_multiple_of(BLOCK_BYTES) && block <= BLOCK_BYTES_MAX;
    let accepted = "a multiple of 4KiB up to 16MiB";
    if whole { Ok(block) } else { Err(accepted.to_owned()) }
}
