//! The corpora and findings of the fuzz targets, through the drivers that the targets call.
//!
//! `fuzz/corpus/<target>/` holds inputs that reach far, `fuzz/findings/<target>/` those that once
//! broke a promise, under names that say what. Decoders are replayed by `nephrite-format`, foreign
//! files by the program's own tests. `docs/fuzzing.md` tells how to add one.

#[path = "../../../fuzz/replay.rs"]
mod replay;

use std::path::Path;

use nephrite_tests::fuzzing::TARGETS;

#[test]
fn every_input_that_was_kept_runs_through() {
    for (target, driver) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let seeds = replay::replay(&folder, target, driver);
        assert!(3 <= seeds, "{target} has a corpus of {seeds} files");
    }
}

#[test]
fn any_bytes_are_a_run() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for length in [0, 1, 7, 40, 150] {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_le_bytes()[7]
            })
            .collect();
        TARGETS.iter().for_each(|(_, driver)| driver(&bytes));
    }
}
