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
       "ring_entries","ring_threads","positional_threads","direct","alignment","device",
       "write_cache"}"#;

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
    positional_threads: u32,
    direct: bool,
    alignment: u32,
    device: Option<String>,
    write_cache: Option<String>,
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
            positional_threads: report.positional_threads,
            direct: report.direct,
            alignment: report.alignment,
            device: report.device,
            write_cache: report.write_cache,
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
