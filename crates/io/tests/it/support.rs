//! What the tests share: disks of all backends in a directory of their own, and buffers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nephrite_io::memory::AlignedBuf;
use nephrite_io::{
    BackendChoice, Disk, DiskOptions, FileHandle, IoBuffer, IoStats, OpenOptions, block_on,
    open_disk,
};
use tempfile::TempDir;

/// A disk in a directory that goes away with it. At the end of every scenario it is shut down, and
/// its counters are checked.
pub(crate) struct Bench {
    pub(crate) disk: Arc<dyn Disk>,
    directory: TempDir,
    shuts_down: bool,
}

/// The backends that must work here. A Linux machine that blocks rings must say so by failing, not
/// by testing less; the confined leg sets NEPHRITE_TEST_WITHOUT_URING.
pub(crate) fn backends() -> Vec<BackendChoice> {
    let uring =
        cfg!(target_os = "linux") && std::env::var_os("NEPHRITE_TEST_WITHOUT_URING").is_none();
    let mut backends = vec![BackendChoice::Positional, BackendChoice::Mmap];
    if uring {
        backends.push(BackendChoice::Uring);
    } else if cfg!(target_os = "linux") {
        skipped("no rings");
    }
    backends
}

/// Says that something is left out, which the checks count.
pub(crate) fn skipped(what: &str) {
    println!("\nSKIPPED: {what}");
}

pub(crate) fn benches() -> Vec<Bench> {
    backends().into_iter().map(|backend| Bench::new(DiskOptions::new().backend(backend))).collect()
}

impl Bench {
    /// Where little memory may be locked, NEPHRITE_TEST_RING_ENTRIES keeps rings small.
    pub(crate) fn new(options: DiskOptions) -> Self {
        let options = match std::env::var("NEPHRITE_TEST_RING_ENTRIES") {
            Ok(entries) => options.ring_entries(entries.parse().unwrap()),
            Err(_) => options,
        };
        let directory = tempfile::tempdir().unwrap();
        let disk = open_disk(options, directory.path()).unwrap();
        Self { disk, directory, shuts_down: true }
    }

    /// Lets go of the disk as a program does that forgets to shut it down.
    pub(crate) fn drop_without_shutdown(mut self) {
        self.shuts_down = false;
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn create(&self, name: &str) -> FileHandle {
        block_on(self.disk.open(&self.path(name), OpenOptions::read_write().create_new())).unwrap()
    }

    /// A new file with these bytes, which the disk opens with direct I/O if it can.
    pub(crate) fn file_with(&self, name: &str, bytes: &[u8]) -> FileHandle {
        std::fs::write(self.path(name), bytes).unwrap();
        block_on(self.disk.open(&self.path(name), OpenOptions::read_write())).unwrap()
    }

    /// An existing file that nobody changes any more, which the mmap backend maps.
    pub(crate) fn sealed(&self, name: &str) -> FileHandle {
        block_on(self.disk.open(&self.path(name), OpenOptions::read_only().sealed())).unwrap()
    }

    pub(crate) fn name(&self) -> String {
        self.disk.report().chosen.to_string()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if self.shuts_down && !std::thread::panicking() {
            // Where the drain timed out, the test knows; what was given up is counted all the same.
            let _ = block_on(self.disk.shutdown());
            assert_balanced(self.disk.stats());
        }
    }
}

pub(crate) fn buffer(len: usize) -> IoBuffer {
    IoBuffer::Owned(AlignedBuf::zeroed(len).unwrap())
}

pub(crate) fn buffer_of(bytes: &[u8]) -> IoBuffer {
    let mut buffer = AlignedBuf::zeroed(bytes.len()).unwrap();
    buffer.copy_from_slice(bytes);
    IoBuffer::Owned(buffer)
}

/// The invariant of an idle disk.
pub(crate) fn assert_balanced(stats: IoStats) {
    assert_eq!(stats.submitted, stats.delivered + stats.orphaned, "{stats:?}");
    assert_eq!((stats.ring_overflows, stats.ring_strays), (0, 0), "{stats:?}");
}

/// A small generator of pseudo-random numbers (xorshift), so that a seed replays a run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
