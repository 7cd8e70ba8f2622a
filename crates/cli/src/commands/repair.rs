//! `repair`: makes a damaged store whole again, or says what that would cost.

use std::path::PathBuf;

use clap::Args;
use nephrite::blocking::repair;
use nephrite::repair::{Loss, RepairMode, RepairReport};
use serde::Serialize;

use super::verify::DamageLine;
use crate::context::Context;
use crate::failure::Failure;

/// What `--help` says after the options.
const HELP: &str = r#"Damaged files are moved to STORE/damaged-<n>, never deleted; the
report lies with them. Verify the store afterwards, and keep the directory until nothing is missed.

Exit code 0: nothing is damaged, or all of it was (would be) rebuilt without loss.
Exit code 2: something is (would be) lost or doubtful; each id or range is named.

JSON: {"dry_run","clean","lossless","directory",
       "damage":[{"file","page","offset","database","what"}],
       "rebuilt":[{"file","database","what"}],"set_aside":[{"file","why"}],
       "losses":[{"kind","database","ids","range","count","file","what"}],"cautions":[]}
Kinds of loss: ids (absent now), range (which ids is not known), doubtful (an older vector is
served, or none), records (of the log, ids not known)."#;

/// Arguments of `repair`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct RepairArguments {
    /// Directory of the store
    store: PathBuf,
    /// Only say what would be done and lost; nothing is written
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Repaired {
    dry_run: bool,
    clean: bool,
    lossless: bool,
    directory: Option<String>,
    damage: Vec<DamageLine>,
    rebuilt: Vec<RebuiltLine>,
    set_aside: Vec<SetAsideLine>,
    losses: Vec<LossLine>,
    cautions: Vec<String>,
}

#[derive(Serialize)]
struct RebuiltLine {
    file: String,
    database: Option<String>,
    what: String,
}

#[derive(Serialize)]
struct SetAsideLine {
    file: String,
    why: String,
}

#[derive(Serialize)]
struct LossLine {
    kind: &'static str,
    database: Option<String>,
    ids: Vec<String>,
    range: Option<[String; 2]>,
    count: Option<u64>,
    file: String,
    what: String,
}

pub(crate) fn run(arguments: &RepairArguments, context: &mut Context) -> Result<(), Failure> {
    if !arguments.store.exists() {
        let sentence = format!("there is no store at {}", arguments.store.display());
        return Err(Failure::NotFound(sentence));
    }
    let mode = if arguments.dry_run { RepairMode::DryRun } else { RepairMode::Repair };
    let report = repair(&arguments.store, context.config(), mode)?;
    let is_lossless = report.is_lossless();
    print(report, context)?;
    if is_lossless { Ok(()) } else { Err(Failure::ReportedDamage) }
}

fn print(report: RepairReport, context: &mut Context) -> Result<(), Failure> {
    let output = &mut context.output;
    if output.json() {
        return output.document(&Repaired::from(report));
    }
    for line in report.to_string().lines() {
        output.line(format_args!("{line}"))?;
    }
    match &report.directory {
        Some(directory) => output.remark(format_args!(
            "repaired; what was damaged lies in {directory}, with this report"
        )),
        None if report.dry_run => output.remark(format_args!("nothing was written")),
        None => Ok(()),
    }
}

impl From<RepairReport> for Repaired {
    fn from(report: RepairReport) -> Self {
        let (clean, lossless) = (report.is_clean(), report.is_lossless());
        Self {
            dry_run: report.dry_run,
            clean,
            lossless,
            directory: report.directory,
            damage: report.damage.into_iter().map(DamageLine::from).collect(),
            rebuilt: report
                .rebuilt
                .into_iter()
                .map(|it| RebuiltLine { file: it.file, database: it.database, what: it.what })
                .collect(),
            set_aside: report
                .set_aside
                .into_iter()
                .map(|it| SetAsideLine { file: it.file, why: it.why })
                .collect(),
            losses: report.losses.into_iter().map(LossLine::from).collect(),
            cautions: report.cautions,
        }
    }
}

impl From<Loss> for LossLine {
    fn from(loss: Loss) -> Self {
        Self {
            kind: loss.kind.name(),
            database: loss.database,
            ids: loss.ids.iter().map(ToString::to_string).collect(),
            range: loss.range.map(|(first, last)| [first.to_string(), last.to_string()]),
            count: loss.count,
            file: loss.file,
            what: loss.what,
        }
    }
}
