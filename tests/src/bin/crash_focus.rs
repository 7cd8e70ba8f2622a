//! The child of `kill_focus`: does one kind of operation again and again until it is killed.
//!
//! `crash_focus STORE flush|compaction|recycling|drop|close ITERATION`

use std::process::ExitCode;

use nephrite_tests::{
    crash::Line,
    focus::{self, Focus},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, focus, iteration] = &arguments[..] else {
        eprintln!("usage: crash_focus STORE flush|compaction|recycling|drop|close ITERATION");
        return ExitCode::from(2);
    };
    let focus: Focus = focus.parse().expect("the parent passes an operation");
    let iteration = iteration.parse().expect("the parent passes a number");
    if let Err(error) = focus::work(store, focus, iteration) {
        Line::Failed(error.to_string()).tell();
    }
    ExitCode::FAILURE
}
