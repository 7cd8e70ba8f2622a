//! The same random operations give the same bytes and the same failures on every backend, and both
//! agree with a plain array of bytes.

use nephrite_io::{
    Disk, DiskOptions, FileHandle, IoErrorKind, OpenOptions, block_on, read, read_many, sync,
    write_many,
};

use crate::support::{Bench, Random, assert_balanced, backends, buffer, buffer_of};

const FILE_BLOCKS_MAX: u64 = 300;
const BLOCK: u64 = 4096;

/// Offsets and lengths are multiples of `unit` bytes.
struct Player<'a> {
    disk: &'a dyn Disk,
    file: FileHandle,
    unit: u64,
    random: Random,
    model: Vec<u8>,
    log: Vec<String>,
}

impl Player<'_> {
    fn play(mut self, steps: usize) -> Vec<String> {
        for _ in 0..steps {
            let line = match self.random.below(10) {
                0..4 => self.write_some(),
                4..8 => self.read_some(),
                8 => self.change_length(),
                _ => format!("sync {:?}", block_on(sync(self.disk, &self.file)).is_ok()),
            };
            self.log.push(line);
        }
        let on_disk = std::fs::read(self.file.path()).unwrap();
        assert!(on_disk == self.model, "the file differs from the model at the end");
        self.log
    }

    fn range(&mut self, len_max: u64) -> (u64, u64) {
        let units = FILE_BLOCKS_MAX * BLOCK / self.unit;
        let offset = self.random.below(units) * self.unit;
        let len = (1 + self.random.below(len_max / self.unit)) * self.unit;
        (offset, len.min(FILE_BLOCKS_MAX * BLOCK - offset))
    }

    fn write_some(&mut self) -> String {
        let count = 1 + self.random.below(4);
        let mut ranges: Vec<(u64, Vec<u8>)> = Vec::new();
        for _ in 0..count {
            let (offset, len) = self.range(64 * BLOCK);
            let overlaps = |(other, bytes): &(u64, Vec<u8>)| {
                *other < offset + len && offset < *other + bytes.len() as u64
            };
            // The order of writes in flight is free, so they must not overlap.
            if !ranges.iter().any(overlaps) {
                let byte = self.random.below(256).to_le_bytes()[0];
                ranges.push((offset, vec![byte; usize::try_from(len).unwrap()]));
            }
        }
        for (offset, bytes) in &ranges {
            let start = usize::try_from(*offset).unwrap();
            let end = start + bytes.len();
            self.model.resize(self.model.len().max(end), 0);
            self.model[start..end].copy_from_slice(bytes);
        }
        let batch = ranges.iter().map(|(offset, bytes)| (*offset, buffer_of(bytes))).collect();
        block_on(write_many(self.disk, &self.file, batch)).unwrap();
        format!(
            "write {:?}",
            ranges.iter().map(|(offset, bytes)| (offset, bytes.len())).collect::<Vec<_>>()
        )
    }

    fn read_some(&mut self) -> String {
        let (offset, len) = self.range(200 * BLOCK);
        let len = usize::try_from(len).unwrap();
        let start = usize::try_from(offset).unwrap();
        let outcome = block_on(read(self.disk, &self.file, offset, buffer(len)));
        match (outcome, self.model.get(start..start + len)) {
            (Ok(bytes), Some(expected)) => {
                assert!(bytes.as_slice() == expected, "read of {len} at {offset}");
                format!("read {len} at {offset}")
            }
            (Err(error), None) => {
                assert_eq!(error.kind(), IoErrorKind::UnexpectedEof);
                assert_eq!((error.offset(), error.len()), (Some(offset), Some(len as u64)));
                format!("{error}")
            }
            (outcome, expected) => {
                panic!(
                    "read of {len} at {offset}: {outcome:?}, in the model: {}",
                    expected.is_some()
                )
            }
        }
    }

    fn change_length(&mut self) -> String {
        let len = self.random.below(FILE_BLOCKS_MAX * BLOCK / self.unit) * self.unit;
        // Now and then an odd end, which no direct read can reach.
        let len = if self.random.below(3) == 0 { len + self.random.below(BLOCK) } else { len };
        block_on(self.disk.set_len(&self.file, len)).unwrap();
        self.model.resize(usize::try_from(len).unwrap(), 0);
        format!("length {:?}", block_on(self.disk.file_len(&self.file)).unwrap())
    }
}

fn run(bench: &Bench, direct: bool, seed: u64) -> Vec<String> {
    let path = bench.path(&format!("{direct}-{seed}"));
    let options = OpenOptions::read_write().create_new().direct(direct);
    let file = block_on(bench.disk.open(&path, options)).unwrap();
    let unit = if direct { BLOCK } else { 1 };
    let (random, model, log) = (Random::new(seed), Vec::new(), Vec::new());
    let log = Player { disk: &*bench.disk, file, unit, random, model, log }.play(150);
    assert_balanced(bench.disk.stats());
    // The path differs between benches and is part of messages.
    let directory = bench.directory().display().to_string();
    log.into_iter().map(|line| line.replace(&directory, "")).collect()
}

#[test]
fn all_backends_agree_on_random_operations() {
    let benches: Vec<Bench> = backends()
        .into_iter()
        .map(|backend| Bench::new(DiskOptions::new().backend(backend).ring_entries(32)))
        .collect();
    for direct in [false, true] {
        for seed in 1..=4 {
            let mut logs = benches.iter().map(|bench| (bench.name(), run(bench, direct, seed)));
            let (first_name, first) = logs.next().unwrap();
            for (name, log) in logs {
                assert_eq!(first, log, "{first_name} and {name}, seed {seed}, direct {direct}");
            }
        }
    }
}

#[test]
fn a_batch_of_reads_comes_back_in_order() {
    for bench in crate::support::benches() {
        let bytes: Vec<u8> = (0..64u8).flat_map(|block| vec![block; 4096]).collect();
        let file = bench.file_with("file", &bytes);
        let order: Vec<u64> = (0..64).rev().collect();

        let ranges = order.iter().map(|block| (block * BLOCK, buffer(4096))).collect();
        let buffers = block_on(read_many(&*bench.disk, &file, ranges)).unwrap();

        let firsts: Vec<u64> =
            buffers.iter().map(|bytes| u64::from(bytes.as_slice()[4095])).collect();
        assert_eq!(firsts, order, "{}", bench.name());
    }
}
