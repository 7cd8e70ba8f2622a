//! The seed corpus of the fuzz targets, replayed in the ordinary test run.
//!
//! `fuzz/corpus/<target>/` holds seeds named `seed-*`, which [`seeds`] generates, and inputs that
//! fuzzing found worth keeping; `fuzz/findings/<target>/` those that once broke a promise. Every
//! file goes through the driver that the fuzz target calls. The seeds on disk must be what the
//! crate writes today, which makes them the golden bytes of the format: a change that is not meant
//! fails here.
//!
//! To write the seeds again, after a change that is meant:
//!
//! ```text
//! cargo run -p nephrite-format --example write_seeds
//! ```

#[path = "../../../../fuzz/replay.rs"]
mod replay;
mod seeds;

use std::fs;

use nephrite_format::fuzzing;

use self::replay::replay;
use self::seeds::{fuzz_folder, seeds};

type Driver = fn(&[u8]);

const DRIVERS: [(&str, Driver); 8] = [
    ("decode_header", fuzzing::decode_header),
    ("decode_frame", fuzzing::decode_frames),
    ("decode_wal_records", fuzzing::decode_wal_records),
    ("decode_id_page", fuzzing::decode_id_page),
    ("decode_fences", fuzzing::decode_fences),
    ("decode_filter", fuzzing::decode_filter),
    ("decode_footer", fuzzing::decode_footer),
    ("decode_manifest_edits", fuzzing::decode_manifest_edits),
];

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn every_file_of_the_corpus_is_decoded_without_a_panic() {
    for ((target, driver), (seeded, seeds)) in DRIVERS.into_iter().zip(seeds()) {
        assert_eq!(target, seeded, "each target has its seeds");
        let replayed = replay(&fuzz_folder(), target, driver);
        assert!(seeds.len() <= replayed, "{target}: {replayed} files");
    }
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn the_bytes_written_today_are_the_seeds_on_disk() {
    for (target, seeds) in seeds() {
        for (name, bytes) in seeds {
            let path = fuzz_folder().join("corpus").join(target).join(name);
            let stored = fs::read(&path).unwrap_or_default();
            assert!(
                stored == bytes,
                "{} is not what this build writes: a changed layout needs a new format version",
                path.display()
            );
        }
    }
}
