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
    let io = &stats.io;
    let numbers = [
        ("databases", stats.databases),
        ("databases_open", stats.databases_open),
        ("memory_limit_bytes", stats.memory_limit_bytes),
        ("memtable_bytes", stats.memtable_bytes),
        ("cache_bytes", stats.cache_bytes),
        ("cache_metadata_bytes", stats.cache_metadata_bytes),
        ("cache_hits", stats.cache_hits),
        ("cache_misses", stats.cache_misses),
        ("cache_evictions", stats.cache_evictions),
        ("cache_loads_failed", stats.cache_loads_failed),
        ("pages_pinned", stats.pages_pinned),
        ("files_open", stats.files_open),
        ("files_opened", stats.files_opened),
        ("files_evicted", stats.files_evicted),
        ("flushes", stats.flushes),
        ("rows_flushed", stats.rows_flushed),
        ("compactions", stats.compactions),
        ("write_stalls", stats.write_stalls),
        ("wal_frames", stats.wal_frames),
        ("wal_records", stats.wal_records),
        ("wal_syncs", stats.wal_syncs),
        ("wal_bytes_written", stats.wal_bytes_written),
        ("wal_segments_full", stats.wal_segments_full),
        ("wal_segments_created", stats.wal_segments_created),
        ("wal_segments_recycled", stats.wal_segments_recycled),
        ("io_submitted", io.submitted),
        ("io_delivered", io.delivered),
        ("io_orphaned", io.orphaned),
        ("io_reads", io.reads),
        ("io_writes", io.writes),
        ("io_syncs", io.syncs),
        ("io_synced_writes", io.synced_writes),
        ("io_synced_writes_through", io.synced_writes_through),
        ("io_bytes_read", io.bytes_read),
        ("io_bytes_written", io.bytes_written),
        ("io_short_counts", io.short_counts),
        ("io_retries", io.retries),
        ("io_errors", io.errors),
        ("io_ring_enters", io.ring_enters),
    ];
    numbers.into_iter().map(|(name, number)| (name, number.into())).collect()
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
