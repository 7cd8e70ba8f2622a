//! `compact`: merges the segments of one database or of all, without their garbage.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::clock::Stopwatch;
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Progress;

/// What `--help` says after the options.
const HELP: &str = r#"JSON: {"compactions", "bytes_read", "bytes_written", "compact_seconds"}"#;

/// Arguments of `compact`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct CompactArguments {
    /// Directory of the store
    store: PathBuf,
    /// Name of the database; all databases when it is left out
    database: Option<String>,
}

#[derive(Serialize)]
struct Compacted {
    compactions: u64,
    bytes_read: u64,
    bytes_written: u64,
    compact_seconds: f64,
}

pub(crate) fn run(arguments: &CompactArguments, context: &mut Context) -> Result<(), Failure> {
    let store = context.open(&arguments.store)?;
    let progress = Progress::spinner("compacting", context.output.quiet());
    let stopwatch = Stopwatch::start();
    match &arguments.database {
        Some(name) => store.database(name)?.compact()?,
        None => store.compact()?,
    }
    let stats = store.stats();
    let compacted = Compacted {
        compactions: stats.compactions,
        bytes_read: stats.compaction_bytes_read,
        bytes_written: stats.compaction_bytes_written,
        compact_seconds: stopwatch.seconds(),
    };
    store.close()?;
    drop(progress);
    context.output.result(
        &compacted,
        format_args!(
            "{} compactions read {} bytes and wrote {} in {:.3} s",
            compacted.compactions,
            compacted.bytes_read,
            compacted.bytes_written,
            compacted.compact_seconds
        ),
    )
}
