//! Drivers of the fuzz targets for files of other programs: arbitrary bytes as a vector file or an
//! id file, read to its end in small blocks.
//!
//! `fuzz/` includes this module by path; the tests here replay corpus and findings.

use std::fs;
use std::path::Path;

use nephrite::IdKind;

use super::{IdBlock, IdFileReader, VectorReader};

/// A fuzz target: its name and its driver.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// The targets whose drivers are here.
pub(crate) const TARGETS: [Target; 4] = [
    ("import_npy", |data| read_vectors("fuzzed.npy", data)),
    ("import_fvecs", |data| read_vectors("fuzzed.fvecs", data)),
    ("import_fbin", |data| read_vectors("fuzzed.fbin", data)),
    ("import_ids", read_ids),
];

/// Reads a vector file: as many rows as it announces, or an error that names it.
fn read_vectors(name: &str, data: &[u8]) {
    with_file(name, data, |path| {
        let mut values = Vec::new();
        let mut rows = 0;
        let outcome = VectorReader::open(path).and_then(|mut reader| {
            loop {
                let count = reader.read_rows(3, &mut values)?;
                assert!(values.len() <= data.len(), "more values than the file has bytes");
                rows += count as u64;
                if count == 0 {
                    assert_eq!(rows, reader.rows(), "rows that were announced");
                    return Ok(());
                }
            }
        });
        assert_named(name, outcome);
    });
}

/// Reads an id file as either kind of ids; checking it first must come to the same.
fn read_ids(data: &[u8]) {
    for kind in [IdKind::U64, IdKind::Bytes] {
        with_file("fuzzed.txt", data, |path| {
            let checked = IdFileReader::check(path, kind);
            let mut block = IdBlock::new(kind);
            let mut read = 0;
            let outcome = IdFileReader::open(path).and_then(|mut reader| {
                loop {
                    reader.read_ids(3, &mut block)?;
                    read += block.len() as u64;
                    if block.len() == 0 {
                        return Ok(());
                    }
                }
            });
            assert_eq!(checked.as_ref().ok().copied(), outcome.as_ref().ok().map(|()| read));
            assert_named("fuzzed.txt", outcome);
        });
    }
}

fn assert_named(name: &str, outcome: Result<(), super::VectorFileError>) {
    if let Err(error) = outcome {
        let text = error.to_string();
        assert!(text.contains(name), "{text}");
    }
}

fn with_file(name: &str, data: &[u8], read: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join(name);
    fs::write(&path, data).expect("a temporary file can be written");
    read(&path);
}

#[cfg(test)]
#[path = "../../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_that_was_kept_is_read_to_its_end_or_refused() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        for (target, driver) in TARGETS {
            let seeds = replay::replay(&folder, target, driver);
            assert!(3 <= seeds, "{target} has a corpus of {seeds} files");
        }
    }
}
