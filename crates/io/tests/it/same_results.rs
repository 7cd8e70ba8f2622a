//! The same random operations give the same bytes and the same failures on every disk, and all
//! agree with a plain array of bytes.
//!
//! A disk joins by one line in [`contenders`]. Files are read back through the disk, never behind
//! its back, so a disk need not be one of the operating system.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nephrite_io::sim::{SimDisk, SimOptions};
use nephrite_io::{
    BackendChoice, Disk, DiskOptions, FileHandle, IoBuffer, IoError, IoErrorKind, IoFuture,
    OpenOptions, block_on, open_disk, read, read_many, sync, write, write_many,
};

use crate::support::{Random, assert_balanced, backends, buffer, buffer_of};

const FILE_BLOCKS_MAX: u64 = 300;
const BLOCK: u64 = 4096;

/// Every disk that has to give the same results, with its name.
fn contenders(directory: &Path) -> Vec<(String, Arc<dyn Disk>)> {
    let system = |backend: BackendChoice| {
        let options = DiskOptions::new().backend(backend).ring_entries(32);
        (backend.to_string(), open_disk(options, directory).unwrap())
    };
    let simulated: Arc<dyn Disk> = Arc::new(SimDisk::new(SimOptions::new(1).immediate()));
    block_on(simulated.create_dir(directory)).unwrap();
    let mut disks: Vec<_> = backends().into_iter().map(system).collect();
    disks.push(("simulated".to_owned(), simulated));
    disks
}

/// Offsets and lengths are multiples of `unit` bytes.
struct Player<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    file: FileHandle,
    direct: bool,
    unit: u64,
    random: Random,
    model: Vec<u8>,
    log: Vec<String>,
}

impl Player<'_> {
    fn play(mut self, steps: usize) -> Vec<String> {
        for _ in 0..steps {
            let line = match self.random.below(20) {
                0..7 => self.write_some(),
                7..12 => self.read_one(),
                12..15 => self.read_sealed(),
                15..17 => self.change_length(),
                17 => self.rename(),
                18 => self.misuse(),
                _ => told(&block_on(sync(self.disk, &self.file))),
            };
            self.log.push(line);
        }
        let whole = block_on(self.read_whole(&self.buffered())).unwrap();
        assert!(whole.as_slice() == self.model, "the file differs from the model at the end");
        self.remove();
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

    fn read_one(&mut self) -> String {
        let (offset, len) = self.range(200 * BLOCK);
        let outcome = read(self.disk, &self.file, offset, buffer(usize::try_from(len).unwrap()));
        self.check_read(offset, len, block_on(outcome))
    }

    /// Reads through a handle of its own, which a disk may map.
    fn read_sealed(&mut self) -> String {
        let file = self.sealed();
        let mut lines = Vec::new();
        for _ in 0..4 {
            let (offset, len) = self.range(20 * BLOCK);
            let outcome = read(self.disk, &file, offset, buffer(usize::try_from(len).unwrap()));
            lines.push(self.check_read(offset, len, block_on(outcome)));
        }
        lines.push(told(&block_on(write(self.disk, &file, 0, buffer(4096))).map(drop)));
        lines.join(", ")
    }

    fn sealed(&self) -> FileHandle {
        let options = OpenOptions::read_only().sealed().direct(self.direct);
        block_on(self.disk.open(&self.path, options)).unwrap()
    }

    /// The same for reads of any length.
    fn buffered(&self) -> FileHandle {
        let options = OpenOptions::read_only().sealed().direct(false);
        block_on(self.disk.open(&self.path, options)).unwrap()
    }

    fn read_whole(&self, file: &FileHandle) -> IoFuture<IoBuffer> {
        read(self.disk, file, 0, buffer(self.model.len()))
    }

    fn check_read(&self, offset: u64, len: u64, outcome: Result<IoBuffer, IoError>) -> String {
        let start = usize::try_from(offset).unwrap();
        let end = start + usize::try_from(len).unwrap();
        let line = format!("read {len} at {offset}: {}", told(&outcome));
        match (outcome, self.model.get(start..end)) {
            (Ok(bytes), Some(expected)) => assert!(bytes.as_slice() == expected, "{line}"),
            (Err(error), None) => {
                assert_eq!(error.kind(), IoErrorKind::UnexpectedEof);
                let cut = format!("after {} of", self.model.len().saturating_sub(start));
                assert!(error.to_string().contains(&cut), "{error}: {cut}");
            }
            (_, expected) => panic!("{line}, in the model: {}", expected.is_some()),
        }
        line
    }

    fn change_length(&mut self) -> String {
        let len = self.random.below(FILE_BLOCKS_MAX * BLOCK / self.unit) * self.unit;
        // Now and then an odd end, which no direct read can reach.
        let len = if self.random.below(3) == 0 { len + self.random.below(BLOCK) } else { len };
        block_on(self.disk.set_len(&self.file, len)).unwrap();
        self.model.resize(usize::try_from(len).unwrap(), 0);
        format!("length {:?}", block_on(self.disk.file_len(&self.file)).unwrap())
    }

    /// Renames the file while a sealed handle is open, which goes on working.
    fn rename(&mut self) -> String {
        let (from, sealed) = (self.path.clone(), self.buffered());
        let to = from.with_extension(self.random.below(3).to_string());
        let outcome = block_on(self.disk.rename(&from, &to));
        if outcome.is_ok() {
            self.path = to;
            let options = OpenOptions::read_write().direct(self.direct);
            self.file = block_on(self.disk.open(&self.path, options)).unwrap();
        }
        let len = self.model.len() as u64;
        let whole = block_on(self.read_whole(&sealed));
        format!("rename {}, {}", told(&outcome), self.check_read(0, len, whole))
    }

    /// What every disk has to refuse, in the same way.
    fn misuse(&self) -> String {
        let missing = self.path.with_extension("missing");
        let beyond = i64::MAX.unsigned_abs() / BLOCK * BLOCK;
        let open = |path: &Path, options| told(&block_on(self.disk.open(path, options)).map(drop));
        [
            open(&missing, OpenOptions::read_only().sealed()),
            open(&self.path, OpenOptions::read_write().create_new()),
            told(&block_on(self.disk.rename(&missing, &self.path))),
            told(&block_on(self.disk.remove_file(&missing))),
            told(&block_on(self.disk.set_len(&self.sealed(), 0))),
            told(&block_on(sync(self.disk, &self.sealed()))),
            told(&block_on(read(self.disk, &self.file, beyond, buffer(8192))).map(drop)),
            told(&block_on(read(self.disk, &self.sealed(), beyond, buffer(8192))).map(drop)),
        ]
        .join(", ")
    }

    /// A removed file can be read to the end by who has it open.
    fn remove(&self) {
        let sealed = self.buffered();
        block_on(self.disk.remove_file(&self.path)).unwrap();
        let whole = block_on(self.read_whole(&sealed)).unwrap();
        assert!(whole.as_slice() == self.model);
    }
}

/// An outcome without what differs between disks: paths, and the words of the system.
fn told<T>(outcome: &Result<T, IoError>) -> String {
    match outcome {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!(
            "{:?} in {:?} at {:?} of {:?}",
            error.kind(),
            error.operation(),
            error.offset(),
            error.len()
        ),
    }
}

fn run(disk: &dyn Disk, path: PathBuf, direct: bool, seed: u64) -> Vec<String> {
    let options = OpenOptions::read_write().create_new().direct(direct);
    let file = block_on(disk.open(&path, options)).unwrap();
    let unit = if direct { BLOCK } else { 1 };
    let (random, model, log) = (Random::new(seed), Vec::new(), Vec::new());
    let log = Player { disk, path, file, direct, unit, random, model, log }.play(150);
    assert_balanced(disk.stats());
    log
}

#[test]
fn all_disks_agree_on_random_operations() {
    let directory = tempfile::tempdir().unwrap();
    let contenders = contenders(directory.path());
    for direct in [false, true] {
        for seed in 1..=4 {
            let mut logs = contenders.iter().map(|(name, disk)| {
                let path = directory.path().join(format!("{name}-{direct}-{seed}"));
                (name, run(&**disk, path, direct, seed))
            });
            let (first_name, first) = logs.next().unwrap();
            for (name, log) in logs {
                assert_eq!(first, log, "{first_name} and {name}, seed {seed}, direct {direct}");
            }
        }
    }
    for (name, disk) in contenders {
        let mapped = 0 < disk.stats().map_reads;
        assert_eq!(mapped, name == "mmap", "{name}: {:?}", disk.stats());
    }
}

#[test]
fn a_batch_of_reads_comes_back_in_order() {
    for bench in crate::support::benches() {
        let bytes: Vec<u8> = (0..64u8).flat_map(|block| vec![block; 4096]).collect();
        let file = bench.file_with("file", &bytes);
        let order: Vec<u64> = (0..64).rev().collect();

        for file in [file, bench.sealed("file")] {
            let ranges = order.iter().map(|block| (block * BLOCK, buffer(4096))).collect();
            let buffers = block_on(read_many(&*bench.disk, &file, ranges)).unwrap();

            let firsts: Vec<u64> =
                buffers.iter().map(|bytes| u64::from(bytes.as_slice()[4095])).collect();
            assert_eq!(firsts, order, "{}", bench.name());
        }
    }
}
