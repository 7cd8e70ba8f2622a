//! Callgrind around this program: `run` is what it watches, `count` starts it and reads its file.
//!
//! A path has a run of its own. Callgrind collects only inside [`counted`], and only on the thread
//! that is in it.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    Failure,
    counts::{self, Counts},
    paths::{Call, OPERATIONS, PATHS},
};

/// The name by which callgrind knows [`counted`].
const COUNTED: &str = "nephrite_instructions::callgrind::counted*";

/// Callgrind finds this function by its name: it must be one of its own.
#[inline(never)]
fn counted(call: Call<'_>) -> Result<(), Failure> {
    call()
}

/// Runs a path: twice to make what is made lazily or with the second visit, once to be counted.
pub(crate) fn run(name: &str) -> Result<(), Failure> {
    let named = PATHS.iter().find(|(known, _)| *known == name);
    let (_, path) = named.ok_or_else(|| format!("no path is named {name}"))?;
    path.run(|call| {
        call()?;
        call()?;
        counted(call)
    })
}

/// Runs every path under callgrind; what it counted.
pub(crate) fn count() -> Result<Counts, Failure> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("counts");
    let mut counts = Counts::new(counts::compiler()?);
    for (name, _) in PATHS {
        let status = Command::new("valgrind")
            .args(["--tool=callgrind", "--quiet"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(format!("--toggle-collect={COUNTED}"))
            .arg(env::current_exe()?)
            .args(["run", name])
            .stdout(Stdio::null())
            .status()
            .map_err(|error| format!("starting valgrind: {error}; install valgrind"))?;
        if !status.success() {
            return Err(format!("{name} fails under valgrind: {status}").into());
        }
        let total = total(&file)?;
        if total == 0.0 {
            return Err(format!("{name}: callgrind has not seen `{COUNTED}`").into());
        }
        counts.push(name, total / OPERATIONS as f64);
    }
    Ok(counts)
}

/// What a file of callgrind says was executed.
fn total(file: &Path) -> Result<f64, Failure> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or_else(|| format!("{}: no total", file.display()))?.trim().parse()?)
}
