//! What fuzz targets need of the program, which is no library: its readers of foreign files.
#![expect(dead_code, unused_imports, reason = "the program uses what the targets do not")]

#[path = "../../crates/cli/src/vectors/mod.rs"]
mod vectors;

/// Runs the driver of a target.
///
/// # Panics
/// When there is no such target, or it has a finding.
pub fn run(target: &str, data: &[u8]) {
    let found = vectors::fuzzing::TARGETS.iter().find(|(name, _)| *name == target);
    let (_, driver) = found.expect("a target of this list");
    driver(data);
}
