//! `verify`: reads every byte of a store and reports each damaged page.

use std::path::PathBuf;

use clap::Args;
use nephrite::{Damage, VerifyOptions, VerifyReport};
use serde::Serialize;

use crate::clock::Stopwatch;
use crate::context::Context;
use crate::failure::Failure;
use crate::figures::{bytes, count};
use crate::progress::Progress;
use crate::size::parse_size;

/// What `--help` says after the options.
const HELP: &str = r#"Exit code 0: clean. Exit code 2: damage, one line for each damaged page.

JSON: {"clean","files","pages","bytes","seconds",
       "damage":[{"file","page","offset","database","what"}]}"#;

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct VerifyArguments {
    /// Directory of the store
    store: PathBuf,
    /// Bytes to read per second at the most, such as 50MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    rate: Option<u64>,
}

#[derive(Serialize)]
struct Verified {
    clean: bool,
    files: u64,
    pages: u64,
    bytes: u64,
    seconds: f64,
    damage: Vec<DamageLine>,
}

#[derive(Serialize)]
pub(super) struct DamageLine {
    file: String,
    page: Option<u64>,
    offset: u64,
    database: Option<String>,
    what: String,
}

pub(crate) fn run(arguments: &VerifyArguments, context: &mut Context) -> Result<(), Failure> {
    let stopwatch = Stopwatch::start();
    let store = context.open(&arguments.store)?;
    let options = VerifyOptions::new().rate(arguments.rate.unwrap_or(0));
    let mut progress = Progress::bytes("verifying", context.output.quiet());
    let report = store.verify_with(options, |at| progress.reach(at.bytes, at.bytes_total))?;
    drop(progress);
    store.close()?;
    let clean = report.is_clean();
    print(report, stopwatch.seconds(), context)?;
    if clean { Ok(()) } else { Err(Failure::ReportedDamage) }
}

fn print(report: VerifyReport, seconds: f64, context: &mut Context) -> Result<(), Failure> {
    let verified = Verified {
        clean: report.is_clean(),
        files: report.files,
        pages: report.pages,
        bytes: report.bytes,
        seconds,
        damage: report.damage.into_iter().map(DamageLine::from).collect(),
    };
    let output = &mut context.output;
    if output.json() {
        return output.document(&verified);
    }
    for damage in &verified.damage {
        output.line(format_args!("{damage}"))?;
    }
    let verdict = match verified.damage.len() {
        0 => "clean".to_string(),
        found => format!("{found} damaged"),
    };
    output.remark(format_args!(
        "{verdict}: read {} files, {} pages, {} in {seconds:.2} s",
        count(verified.files),
        count(verified.pages),
        bytes(verified.bytes)
    ))
}

impl From<Damage> for DamageLine {
    fn from(damage: Damage) -> Self {
        let Damage { file, page, offset, database, what, .. } = damage;
        Self { file, page, offset, database, what }
    }
}

impl std::fmt::Display for DamageLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if let Some(page) = self.page {
            write!(f, " page {page}")?;
        }
        write!(f, " at byte {}", self.offset)?;
        if let Some(database) = &self.database {
            write!(f, " (database {database})")?;
        }
        write!(f, ": {}", self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damage_line_names_file_page_and_database() {
        let mut damage = DamageLine {
            file: "segments/07.seg".into(),
            page: Some(812),
            offset: 3_330_048,
            database: Some("books".into()),
            what: "the checksum differs".into(),
        };
        let whole =
            "segments/07.seg page 812 at byte 3330048 (database books): the checksum differs";
        assert_eq!(damage.to_string(), whole);
        (damage.page, damage.database) = (None, None);
        assert_eq!(damage.to_string(), "segments/07.seg at byte 3330048: the checksum differs");
    }
}
