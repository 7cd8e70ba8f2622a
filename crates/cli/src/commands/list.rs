//! `list`: the databases of a store, in name order.

use std::path::PathBuf;

use clap::Args;
use nephrite::DatabaseInfo;
use nephrite::blocking::Store;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::figures::count;
use crate::output::complain;

/// What `--help` says after the options.
const HELP: &str = r#"JSON:
{"databases":[{"name","dimension","id_kind","element_type","vectors"}]}; vectors is null for a
database that cannot be read, whose fault is named on standard error."#;

/// Arguments of `list`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ListArguments {
    /// Directory of the store
    store: PathBuf,
}

#[derive(Serialize)]
struct Listing {
    databases: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    dimension: u32,
    id_kind: String,
    element_type: String,
    vectors: Option<u64>,
}

pub(crate) fn run(arguments: &ListArguments, context: &mut Context) -> Result<(), Failure> {
    let store = context.open(&arguments.store)?;
    let mut databases = Vec::new();
    let mut first_failure = None;
    for info in store.list() {
        let vectors = match vectors_in(&store, &info) {
            Ok(vectors) => Some(vectors),
            Err(failure) => {
                complain(format_args!(
                    "database {}: {}",
                    info.name,
                    failure.sentence().unwrap_or("?")
                ));
                first_failure.get_or_insert(failure);
                None
            }
        };
        databases.push(Entry {
            name: info.name,
            dimension: info.dimension,
            id_kind: info.id_kind.to_string(),
            element_type: info.element_type.to_string(),
            vectors,
        });
    }
    databases.sort_by(|left, right| left.name.cmp(&right.name));
    store.close()?;
    print(&Listing { databases }, context)?;
    match first_failure {
        Some(Failure::Damage(_)) => Err(Failure::ReportedDamage),
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn vectors_in(store: &Store, info: &DatabaseInfo) -> Result<u64, Failure> {
    Ok(store.database(&info.name)?.count()?)
}

fn print(listing: &Listing, context: &mut Context) -> Result<(), Failure> {
    let output = &mut context.output;
    if output.json() {
        return output.document(listing);
    }
    let width = listing.databases.iter().map(|entry| entry.name.chars().count()).max();
    let Some(width) = width.map(|width| width.max("database".len())) else {
        return output.remark(format_args!("no databases"));
    };
    output.line(format_args!(
        "{:width$}  {:>9}  {:>5}  {:>7}  {:>15}",
        "database", "dimension", "ids", "element", "vectors"
    ))?;
    for entry in &listing.databases {
        let vectors = entry.vectors.map_or_else(|| "unreadable".to_string(), count);
        output.line(format_args!(
            "{:width$}  {:>9}  {:>5}  {:>7}  {:>15}",
            entry.name, entry.dimension, entry.id_kind, entry.element_type, vectors
        ))?;
    }
    Ok(())
}
