//! `stats`: what a store, or one database, consists of, and what opening it has cost.
//!
//! Counters begin when this command opens the store; sizes are those of the store.

use std::path::PathBuf;

use clap::Args;
use nephrite::{DatabaseStats, StoreStats};
use serde_json::{Map, Value};

use super::io_info::IoInfo;
use crate::context::Context;
use crate::failure::Failure;
use crate::figures::count;

/// What `--help` says after the options.
const HELP: &str = r#"JSON of a store: one number for each line that is printed without --json, such
as {"databases","memory_limit_bytes","wal_bytes_written","io_reads","io_bytes_read"}, and
"backend", the object of `io-info`.

JSON of a database: {"name","dimension","id_kind","vectors","page_bytes","rows_per_page",
       "segments","segment_bytes","segment_rows","segment_rows_live","tombstones",
       "memtables","memtable_bytes"}"#;

/// Arguments of `stats`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct StatsArguments {
    /// Directory of the store
    store: PathBuf,
    /// Name of a database; without it, the whole store
    database: Option<String>,
}

pub(crate) fn run(arguments: &StatsArguments, context: &mut Context) -> Result<(), Failure> {
    let store = context.open(&arguments.store)?;
    let lines = match &arguments.database {
        Some(name) => database_lines(&store.database(name)?.stats()?),
        None => {
            let mut lines = store_lines(&store.stats());
            let backend = IoInfo::from(store.backend_report());
            lines.push(("backend", serde_json::to_value(backend).map_err(Failure::error)?));
            lines
        }
    };
    store.close()?;
    print(lines, context)
}

type Line = (&'static str, Value);

fn store_lines(stats: &StoreStats) -> Vec<Line> {
    stats.metrics().iter().map(|metric| (metric.name, metric.value.into())).collect()
}

fn database_lines(stats: &DatabaseStats) -> Vec<Line> {
    vec![
        ("name", stats.name.clone().into()),
        ("dimension", stats.dimension.into()),
        ("id_kind", stats.id_kind.to_string().into()),
        ("vectors", stats.records.into()),
        ("page_bytes", stats.page_bytes.into()),
        ("rows_per_page", stats.rows_per_page.into()),
        ("segments", stats.segments.into()),
        ("segment_bytes", stats.segment_bytes.into()),
        ("segment_rows", stats.segment_rows.into()),
        ("segment_rows_live", stats.segment_rows_live.into()),
        ("tombstones", stats.tombstones.into()),
        ("memtables", stats.memtables.into()),
        ("memtable_bytes", stats.memtable_bytes.into()),
    ]
}

fn print(lines: Vec<Line>, context: &mut Context) -> Result<(), Failure> {
    let output = &mut context.output;
    if output.json() {
        let object: Map<String, Value> =
            lines.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        return output.document(&object);
    }
    for (name, value) in lines {
        match value {
            Value::Object(parts) => {
                let chosen = parts.get("chosen").and_then(Value::as_str).unwrap_or("unknown");
                output.line(format_args!("{name:<22} {chosen:>20}"))?;
            }
            Value::String(text) => output.line(format_args!("{name:<22} {text:>20}"))?,
            other => {
                let number = other.as_u64().map_or_else(|| other.to_string(), count);
                output.line(format_args!("{name:<22} {number:>20}"))?;
            }
        }
    }
    Ok(())
}
