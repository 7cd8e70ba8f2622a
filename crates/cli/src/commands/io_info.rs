//! `io-info`: which I/O path a directory gets, and why.
//!
//! Probes with real reads, writes and syncs in the directory, as opening a store there would;
//! leaves nothing behind.

use std::path::PathBuf;

use clap::Args;
use nephrite::{BackendReport, DiskOptions, open_disk};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;

/// What `--help` says after the options.
const HELP: &str = r#"JSON: {"requested","chosen","reason","degraded","kernel","ring_flags",
       "ring_entries","ring_threads","polling_refusal","completions_polled",
       "completion_refusal","caller_rings","caller_refusal","positional_threads","direct",
       "alignment","memory_alignment","device","device_polls","write_cache","writes_through",
       "scheduler","rotational","transfer_bytes_max","file_system",
       "registered_bytes","registration_refusal",
       "mapping":{"files","refusals","first_refusal","fallbacks"},
       "limits":{"locked_memory_bytes","open_files","io_uring_disabled","seccomp"}};
       what is unknown is null, and a limit that does not exist is "unlimited""#;

/// Arguments of `io-info`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct IoInfoArguments {
    /// Directory to probe; it must exist
    #[arg(default_value = ".")]
    directory: PathBuf,
}

/// A backend report with stable field names.
#[derive(Serialize)]
pub(crate) struct IoInfo {
    requested: String,
    chosen: String,
    reason: String,
    degraded: Option<String>,
    kernel: Option<String>,
    ring_flags: Vec<String>,
    ring_entries: u32,
    ring_threads: u32,
    polling_refusal: Option<String>,
    completions_polled: bool,
    completion_refusal: Option<String>,
    device_polls: Option<bool>,
    caller_rings: u32,
    caller_refusal: Option<String>,
    positional_threads: u32,
    direct: bool,
    alignment: u32,
    device: Option<String>,
    write_cache: Option<String>,
    writes_through: bool,
    memory_alignment: u32,
    file_system: Option<String>,
    scheduler: Option<String>,
    rotational: Option<bool>,
    transfer_bytes_max: Option<u64>,
    registered_bytes: u64,
    registration_refusal: Option<String>,
    mapping: Option<Mapping>,
    limits: Limits,
}

#[derive(Serialize)]
struct Mapping {
    files: u64,
    refusals: u64,
    first_refusal: Option<String>,
    fallbacks: u64,
}

#[derive(Serialize)]
struct Limits {
    locked_memory_bytes: Option<Limit>,
    open_files: Option<Limit>,
    io_uring_disabled: Option<u32>,
    seccomp: Option<String>,
}

/// A number, or the word `unlimited`.
#[derive(Serialize)]
#[serde(untagged)]
enum Limit {
    Number(u64),
    Word(&'static str),
}

impl From<u64> for Limit {
    fn from(number: u64) -> Self {
        if number == u64::MAX { Self::Word("unlimited") } else { Self::Number(number) }
    }
}

impl From<BackendReport> for IoInfo {
    fn from(report: BackendReport) -> Self {
        Self {
            requested: report.requested.to_string(),
            chosen: report.chosen.to_string(),
            reason: report.reason,
            degraded: report.degraded,
            kernel: report.kernel,
            ring_flags: report.ring_flags,
            ring_entries: report.ring_entries,
            ring_threads: report.ring_threads,
            polling_refusal: report.polling_refusal,
            completions_polled: report.completions_polled,
            completion_refusal: report.completion_refusal,
            device_polls: report.device_polls,
            caller_rings: report.caller_rings,
            caller_refusal: report.caller_refusal,
            positional_threads: report.positional_threads,
            direct: report.direct,
            alignment: report.alignment,
            device: report.device,
            write_cache: report.write_cache,
            writes_through: report.writes_through,
            memory_alignment: report.memory_alignment,
            file_system: report.file_system,
            scheduler: report.scheduler,
            rotational: report.rotational,
            transfer_bytes_max: report.transfer_bytes_max,
            registered_bytes: report.registered_bytes,
            registration_refusal: report.registration_refusal,
            mapping: report.mapping.map(|mapping| Mapping {
                files: mapping.files,
                refusals: mapping.refusals,
                first_refusal: mapping.first_refusal,
                fallbacks: mapping.fallbacks,
            }),
            limits: Limits {
                locked_memory_bytes: report.limits.locked_memory_bytes.map(Limit::from),
                open_files: report.limits.open_files.map(Limit::from),
                io_uring_disabled: report.limits.io_uring_disabled,
                seccomp: report.limits.seccomp,
            },
        }
    }
}

pub(crate) fn run(arguments: &IoInfoArguments, context: &mut Context) -> Result<(), Failure> {
    if !arguments.directory.is_dir() {
        return Err(Failure::error(format_args!(
            "{} is not a directory: name one that exists",
            arguments.directory.display()
        )));
    }
    let options = DiskOptions::new().backend(context.config().settings().backend);
    let disk = open_disk(options, &arguments.directory).map_err(Failure::error)?;
    let report = disk.report();
    drop(disk);
    if context.output.json() {
        context.output.document(&IoInfo::from(report))
    } else {
        context.output.line(format_args!("{report}"))
    }
}
