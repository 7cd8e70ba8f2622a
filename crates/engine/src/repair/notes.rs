//! What the report says of records that are lost, of what is made anew, and of what is moved away.
//!
//! Nothing is read or written here: everything is told from the log, the manifest and the plans.
//! Tested in `tests/it/repair*`.

use std::collections::{BTreeMap, BTreeSet};

use nephrite_format::{DatabaseId, FileId, Id};

use super::{
    log::{Cut, Log},
    plan::{DatabasePlan, Planner, name_of},
    report::{Loss, LossKind, Rebuilt, RepairReport},
    state::Known,
};

/// Records between those that could be read, and ids that broken frames seem to name.
pub(super) fn note_lost_records(known: &Known, log: &Log, report: &mut RepairReport) {
    let flushed = known.state.databases.values().map(|record| record.flushed_lsn.get()).max();
    let flushed = if known.is_whole { 0 } else { flushed.unwrap_or(0) };
    let mut count = 0;
    let mut last: Option<u64> = None;
    for frame in log.needed(known) {
        if let Some(last) = last.filter(|last| *last < frame.first_lsn) {
            count += frame.first_lsn - last.max(flushed + 1).min(frame.first_lsn);
        }
        last = last.max(Some(frame.end_lsn()));
    }
    let missing = if known.is_whole { log.missing(known) } else { None };
    let broken = log.broken.iter().filter(|broken| {
        !known.is_whole
            || log.files.iter().any(|it| it.named.is_some() && it.found.name == broken.file)
    });
    let broken: Vec<_> = broken.collect();
    let file = broken.first().map_or_else(|| "wal".to_owned(), |broken| broken.file.clone());
    if 0 < count || missing.is_some() {
        let (count, what) = match (count, missing) {
            (0, Some(missing)) => {
                (None, format!("frames of the log from {} on cannot be read", missing.sequence))
            }
            _ => (Some(count), "records of the log cannot be read".to_owned()),
        };
        report.losses.push(Loss {
            kind: LossKind::Records,
            database: None,
            ids: Vec::new(),
            range: None,
            count,
            file: file.clone(),
            what,
        });
    }
    for Cut { file, last_lsn } in &log.cut {
        let what = "what the missing part of this log segment held is not known";
        let what = match last_lsn {
            Some(last) => format!("{what}: writes after number {last} may be lost"),
            None => what.to_owned(),
        };
        report.losses.push(Loss {
            kind: LossKind::Records,
            database: None,
            ids: Vec::new(),
            range: None,
            count: None,
            file: file.clone(),
            what,
        });
    }
    let mut ids: BTreeMap<DatabaseId, BTreeSet<Id>> = BTreeMap::new();
    for (database, id) in broken.iter().flat_map(|broken| &broken.ids) {
        ids.entry(*database).or_default().insert(id.clone());
    }
    for (database, ids) in ids {
        let Some(name) = name_of(known, database) else { continue };
        report.losses.push(Loss {
            kind: LossKind::Doubtful,
            database: Some(name),
            count: Some(ids.len() as u64),
            ids: ids.into_iter().collect(),
            range: None,
            file: file.clone(),
            what: "a damaged frame of the log seems to have written them".to_owned(),
        });
    }
}

/// What is made anew and what goes out of the way.
pub(super) fn note_what_is_done(
    planner: &Planner<'_>,
    plans: &[DatabasePlan],
    report: &mut RepairReport,
) {
    for plan in plans {
        for part in plan.parts.iter().filter(|part| part.kept.is_none()) {
            report.rebuilt.push(Rebuilt {
                file: "segment".to_owned(),
                database: Some(plan.meta.name.clone()),
                what: part.file().to_owned(),
            });
        }
    }
    let from = if planner.known.is_whole { "the old one" } else { "the files and the log" };
    let what = format!("from {from}");
    report.rebuilt.push(Rebuilt { file: "manifest".to_owned(), database: None, what });
    for found in planner.listing.manifests.values() {
        report.aside(&found.name, "replaced by a new one");
    }
    if planner.converts_log {
        for file in &planner.log.files {
            if file.named.is_some() || !planner.known.is_whole {
                report.aside(&file.found.name, "what could be read of it is in segments now");
            }
        }
    }
    if !planner.known.is_whole {
        report.cautions.push(
            "a database or a segment that only lost parts of the manifest named, and whose files \
             are missing as well, is not missed; names of databases may be lost, and deleted \
             records of old log files may be back"
                .to_owned(),
        );
        let parts = plans.iter().flat_map(|plan| &plan.parts);
        let kept: BTreeSet<FileId> =
            parts.filter_map(|part| Some(part.kept.as_ref()?.file)).collect();
        for (file, found) in &planner.listing.segments {
            if !kept.contains(file) {
                report.aside(&found.name, "no database needs it as it is");
            }
        }
    }
}

impl RepairReport {
    /// Gives a segment that was made anew its name.
    pub(super) fn name_rebuilt(&mut self, from: &str, database: &str, file: &str) {
        let same = |it: &&mut Rebuilt| {
            it.file == "segment" && it.what == from && it.database.as_deref() == Some(database)
        };
        if let Some(rebuilt) = self.rebuilt.iter_mut().find(same) {
            file.clone_into(&mut rebuilt.file);
        }
    }
}
