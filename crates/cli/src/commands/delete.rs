//! `delete`: removes vectors and says whether each was there.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use nephrite::{Durability, Id, IdRef};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::complain;
use crate::records::{id_from_word, id_json};

/// What `--help` says after the options.
const HELP: &str = r#"JSON: one line per id, {"id","deleted"}, where deleted is false for an id
that was not stored. Such ids are named on standard error, and the exit code is 3. Each delete
is on disk before the next begins."#;

/// Arguments of `delete`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct DeleteArguments {
    /// Directory of the store
    store: PathBuf,
    /// Name of the database
    database: String,
    /// Ids: numbers or texts, as the database has them; after `--` they may begin with a dash
    #[arg(required = true)]
    ids: Vec<OsString>,
}

#[derive(Serialize)]
struct Deleted {
    id: Box<RawValue>,
    deleted: bool,
}

pub(crate) fn run(arguments: &DeleteArguments, context: &mut Context) -> Result<(), Failure> {
    let (store, database) = context.open_database(&arguments.store, &arguments.database)?;
    let kind = database.id_kind();
    let ids: Vec<Id> = arguments
        .ids
        .iter()
        .map(|word| id_from_word(word, kind))
        .collect::<Result<_, _>>()
        .map_err(Failure::Error)?;
    let mut missing = false;
    for id in &ids {
        let deleted = database.delete_with(id, Durability::Synced)?;
        if !deleted {
            missing = true;
            complain(format_args!("id {id} is not in database {}", arguments.database));
        }
        let result = Deleted { id: id_json(IdRef::from(id)), deleted };
        if context.output.json() {
            context.output.document(&result)?;
        } else if deleted {
            context.output.remark(format_args!("deleted {id}"))?;
        }
    }
    store.close()?;
    if missing { Err(Failure::ReportedMissing) } else { Ok(()) }
}
