//! `create`: a new database, and the store around it when there is none.

use std::path::PathBuf;

use clap::Args;
use nephrite::{DatabaseOptions, IdKind};
use serde::Serialize;

use crate::arguments::IdKindName;
use crate::context::Context;
use crate::failure::Failure;

/// What `--help` says after the options.
const HELP: &str = r#"JSON: {"database","dimension","id_kind"}"#;

/// Arguments of `create`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct CreateArguments {
    /// Directory of the store; made when absent
    store: PathBuf,
    /// Name of the new database
    database: String,
    /// Values per vector
    #[arg(long, value_name = "D")]
    dim: u32,
    /// Kind of ids
    #[arg(long, value_enum, default_value = "u64")]
    ids: IdKindName,
}

#[derive(Serialize)]
struct Created<'a> {
    database: &'a str,
    dimension: u32,
    id_kind: String,
}

pub(crate) fn run(arguments: &CreateArguments, context: &mut Context) -> Result<(), Failure> {
    let kind = IdKind::from(arguments.ids);
    let store = context.open_or_create(&arguments.store)?;
    let options = DatabaseOptions::new(arguments.dim).id_kind(kind);
    store.create_database(&arguments.database, options)?;
    store.close()?;
    let created = Created {
        database: &arguments.database,
        dimension: arguments.dim,
        id_kind: kind.to_string(),
    };
    context.output.result(
        &created,
        format_args!(
            "created database {} with {} values per vector and {kind} ids",
            arguments.database, arguments.dim
        ),
    )
}
