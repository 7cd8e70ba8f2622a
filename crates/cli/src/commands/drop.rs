//! `drop`: deletes a whole database.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;

/// What `--help` says after the options.
const HELP: &str = r#"JSON: {"dropped"}"#;

/// Arguments of `drop`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct DropArguments {
    /// Directory of the store
    store: PathBuf,
    /// Name of the database; its vectors are gone afterwards
    database: String,
}

#[derive(Serialize)]
struct Dropped<'a> {
    dropped: &'a str,
}

pub(crate) fn run(arguments: &DropArguments, context: &mut Context) -> Result<(), Failure> {
    let store = context.open(&arguments.store)?;
    store.drop_database(&arguments.database)?;
    store.close()?;
    let dropped = Dropped { dropped: &arguments.database };
    context.output.result(&dropped, format_args!("dropped database {}", arguments.database))
}
