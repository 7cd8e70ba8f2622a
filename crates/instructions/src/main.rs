//! How many instructions the hot paths take, compared with what is recorded in `counts.txt`.
//!
//! | command | what it does |
//! |---|---|
//! | `check FILE` | counts and compares; fails if a path takes more than is allowed |
//! | `record FILE` | counts and writes the file anew |
//! | `run PATH` | runs one path: what callgrind is put around |
//!
//! Guarantee: counts depend on the code and the compiler, hardly on the machine. Callgrind shows
//! programs a processor of its own with AVX2 and without AVX-512, whatever is below; nothing is
//! timed; files are carried by threads, not by a ring of this kernel. What differs between runs is
//! hash seeds and where things lie in memory: below half a percent.
//! Not here: times. A path may take more instructions and less time; then `record` is the answer.
//!
//! Checked by: the tests of `counts.rs`; `planted.sh` shows that one more hash per read fails.

mod callgrind;
mod counts;
mod paths;

use std::{path::Path, process::ExitCode};

use counts::Counts;

/// Why nothing was counted.
pub(crate) type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["run", name] => callgrind::run(name),
        ["check", file] => check(Path::new(file)),
        ["record", file] => record(Path::new(file)),
        _ => Err("usage: nephrite-instructions check FILE | record FILE | run PATH".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nephrite-instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: &Path) -> Result<(), Failure> {
    let recorded = std::fs::read_to_string(file)
        .map_err(|error| format!("{}: {error}", file.display()))?
        .parse::<Counts>()
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let counted = callgrind::count()?;
    let report = recorded.compare(&counted);
    println!("{report}");
    match report.holds() {
        true => Ok(()),
        false => Err(format!(
            "a path takes more instructions than {} allows; if that is right, write it anew with \
             `cargo run --profile instructions -p nephrite-instructions -- record {}`",
            file.display(),
            file.display()
        )
        .into()),
    }
}

fn record(file: &Path) -> Result<(), Failure> {
    let counted = callgrind::count()?;
    print!("{counted}");
    Ok(std::fs::write(file, counted.to_string())?)
}
