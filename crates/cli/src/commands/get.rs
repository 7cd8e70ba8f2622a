//! `get`: prints vectors as JSON lines, in the order asked for.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use nephrite::{Id, IdRef};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::complain;
use crate::records::{id_from_word, write_line};

/// Ids looked up by one call of the engine.
const LOOKUP_IDS: usize = 1000;

/// What `--help` says after the options.
const HELP: &str = r#"Prints one line per id, {"id":7,"vector":[0.5,-1.0]}, with or without
--json. Values read back to the same bits; infinities and NaN are strings: "Infinity",
"-Infinity", "NaN", or the bits of another NaN such as "0x7fa00001". An id that is not UTF-8 is
{"hex":"ff00"}. Ids that are not stored are named on standard error, and the exit code is 3."#;

/// Arguments of `get`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct GetArguments {
    /// Directory of the store
    store: PathBuf,
    /// Name of the database
    database: String,
    /// Ids: numbers or texts, as the database has them; after `--` they may begin with a dash
    #[arg(required = true)]
    ids: Vec<OsString>,
}

pub(crate) fn run(arguments: &GetArguments, context: &mut Context) -> Result<(), Failure> {
    let (store, database) = context.open_database(&arguments.store, &arguments.database)?;
    let kind = database.id_kind();
    let ids: Vec<Id> = arguments
        .ids
        .iter()
        .map(|word| id_from_word(word, kind))
        .collect::<Result<_, _>>()
        .map_err(Failure::Error)?;
    let mut missing = false;
    let mut line = Vec::new();
    for ids in ids.chunks(LOOKUP_IDS) {
        let refs: Vec<IdRef<'_>> = ids.iter().map(IdRef::from).collect();
        for (id, vector) in refs.iter().zip(database.get_many(&refs)?) {
            let Some(vector) = vector else {
                missing = true;
                complain(format_args!("id {id} is not in database {}", arguments.database));
                continue;
            };
            line.clear();
            write_line(*id, &vector, &mut line);
            context.output.bytes(&line)?;
        }
    }
    store.close()?;
    if missing { Err(Failure::ReportedMissing) } else { Ok(()) }
}
