//! `put`: stores vectors that arrive as JSON lines on standard input.
//!
//! Lines are written in atomic batches. A bad line stops the command with its number, after the
//! lines before it are stored. Blank lines are skipped. An id that comes twice keeps the later
//! vector.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use clap::Args;
use nephrite::blocking::Database;
use nephrite::{Batch, Durability, IdRef};
use serde::Serialize;

use crate::arguments::DurabilityName;
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::records::read_line;

/// The longest line that is read: far above any vector, so that a file without line ends is an
/// error and not a memory problem.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Lines of one batch.
const BATCH_LINES: usize = 1000;
/// Values of one batch: 256 KiB of vectors, which is atomic even with the least memory.
const BATCH_VALUES: usize = 1 << 16;

/// What `--help` says after the options.
const HELP: &str = r#"Each line is {"id":7,"vector":[0.5,-1.0]}; the id is a number or a string,
as the database has them. JSON has no NaN and no infinities: write "NaN", "Infinity",
"-Infinity", or the bits of any f32 such as "0x7fa00001". A bad line is an error that names its
number; the lines before it are stored.

JSON: {"stored"}"#;

/// Arguments of `put`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct PutArguments {
    /// Directory of the store
    store: PathBuf,
    /// Name of the database
    database: String,
    /// When a batch counts as stored
    #[arg(long, value_enum, default_value = "synced")]
    durability: DurabilityName,
}

#[derive(Serialize)]
struct Stored {
    stored: u64,
}

pub(crate) fn run(arguments: &PutArguments, context: &mut Context) -> Result<(), Failure> {
    let (store, database) = context.open_database(&arguments.store, &arguments.database)?;
    let progress = Progress::counter("lines stored", context.output.quiet());
    let durability = arguments.durability.into();
    let mut writer = LineWriter {
        batch: Batch::new(),
        lines_max: BATCH_LINES.min(BATCH_VALUES / database.dimension() as usize).max(1),
        database,
        durability,
        stored: 0,
        progress,
    };
    let outcome = store_lines(&mut io::stdin().lock(), &mut writer);
    // The good lines before a bad one are stored as well.
    writer.write_batch()?;
    let stored = writer.stored;
    drop(writer);
    store.close()?;
    outcome.map_err(|failure| match failure.sentence() {
        Some(text) => {
            Failure::error(format_args!("{text}; the {stored} lines before it are stored"))
        }
        None => failure,
    })?;
    context.output.result(&Stored { stored }, format_args!("stored {stored} vectors"))
}

/// Gathers lines into batches.
struct LineWriter {
    database: Database,
    durability: Durability,
    batch: Batch,
    lines_max: usize,
    stored: u64,
    progress: Progress,
}

impl LineWriter {
    fn write_batch(&mut self) -> Result<(), Failure> {
        let lines = self.batch.len() as u64;
        if 0 < lines {
            let batch = std::mem::replace(&mut self.batch, Batch::new());
            self.database.batch_with(batch, self.durability)?;
            self.stored += lines;
            self.progress.advance(lines);
        }
        Ok(())
    }
}

fn store_lines(input: &mut impl BufRead, writer: &mut LineWriter) -> Result<(), Failure> {
    let kind = writer.database.id_kind();
    let dimension = writer.database.dimension();
    let mut line = Vec::new();
    let mut vector = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read =
            input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(|error| {
                Failure::error(format_args!("standard input line {number}: {error}"))
            })?;
        let fault =
            |what: String| Failure::error(format_args!("standard input line {number}: {what}"));
        if read == 0 {
            break;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if read as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            return Err(fault(format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        let id = read_line(&line, kind, dimension, &mut vector).map_err(fault)?;
        writer.batch.put(IdRef::from(&id), &vector);
        if writer.lines_max <= writer.batch.len() {
            writer.write_batch()?;
        }
    }
    Ok(())
}
