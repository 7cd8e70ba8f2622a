//! What is kept for a fuzz target, through its driver: `corpus/<target>` and `findings/<target>`.
//!
//! The tests of each crate that has drivers include this file, so that an ordinary test run holds
//! on stable what fuzzing has found. The name of each input is printed before it runs: that of the
//! last one is shown when it fails.

use std::fs;
use std::path::Path;

/// Runs every input that is kept for a target; returns how many its corpus has. `folder` is the
/// one that this file lies in.
pub(crate) fn replay(folder: &Path, target: &str, driver: impl Fn(&[u8])) -> usize {
    let mut seeds = 0;
    for kind in ["corpus", "findings"] {
        let Ok(entries) = fs::read_dir(folder.join(kind).join(target)) else { continue };
        for entry in entries {
            let path = entry.expect(target).path();
            eprintln!("{}", path.display());
            driver(&fs::read(&path).expect(target));
            seeds += usize::from(kind == "corpus");
        }
    }
    seeds
}
