//! `flush`: moves everything written so far from the log into segments.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::clock::Stopwatch;
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Progress;

/// What `--help` says after the options.
const HELP: &str = r#"JSON: {"flush_seconds"}"#;

/// Arguments of `flush`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct FlushArguments {
    /// Directory of the store
    store: PathBuf,
}

#[derive(Serialize)]
struct Flushed {
    flush_seconds: f64,
}

pub(crate) fn run(arguments: &FlushArguments, context: &mut Context) -> Result<(), Failure> {
    let store = context.open(&arguments.store)?;
    let progress = Progress::spinner("flushing", context.output.quiet());
    let stopwatch = Stopwatch::start();
    store.flush()?;
    let flushed = Flushed { flush_seconds: stopwatch.seconds() };
    store.close()?;
    drop(progress);
    context.output.result(&flushed, format_args!("flushed in {:.3} s", flushed.flush_seconds))
}
