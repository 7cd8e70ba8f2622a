//! The backend with system calls that misbehave on purpose.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};

use super::*;
use crate::completion::block_on;
use crate::disk::{Disk, read, sync, write, write_synced};
use crate::error::IoOperation;
use crate::file::{FileHandle, OpenOptions};
use crate::memory::{AlignedBuf, Arena};
use crate::options::DiskOptions;
use crate::system_disk::SystemDisk;

/// What the next calls do, before everything works again.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Transfers at most so many bytes.
    Short(usize),
    /// Fails.
    Fail(io::ErrorKind),
}

#[derive(Clone, Default)]
struct Scripted {
    acts: Arc<Mutex<VecDeque<Act>>>,
    /// Closed: calls wait here.
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Scripted {
    fn of(acts: impl IntoIterator<Item = Act>) -> Self {
        let acts = Arc::new(Mutex::new(acts.into_iter().collect()));
        Self { acts, gate: Arc::default() }
    }

    fn shut(&self) {
        *self.gate.0.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.gate.0.lock().unwrap() = false;
        self.gate.1.notify_all();
    }

    fn next(&self, len: usize) -> io::Result<usize> {
        let (shut, opened) = &*self.gate;
        drop(opened.wait_while(shut.lock().unwrap(), |shut| *shut).unwrap());
        match self.acts.lock().unwrap().pop_front() {
            None => Ok(len),
            Some(Act::Short(count)) => Ok(count.min(len)),
            Some(Act::Fail(kind)) => Err(kind.into()),
        }
    }
}

impl Calls for Scripted {
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = self.next(bytes.len())?;
        SystemCalls.read_at(file, &mut bytes[..len], offset)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let len = self.next(bytes.len())?;
        SystemCalls.write_at(file, &bytes[..len], offset)
    }

    fn write_through_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let len = self.next(bytes.len())?;
        SystemCalls.write_through_at(file, &bytes[..len], offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.next(0)?;
        SystemCalls.sync(file)
    }
}

struct Bench {
    disk: SystemDisk,
    calls: Scripted,
    file: FileHandle,
    _directory: tempfile::TempDir,
}

fn bench(acts: impl IntoIterator<Item = Act>) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let calls = Scripted::of(acts);
    let options = DiskOptions::new().positional_threads(4);
    let disk = SystemDisk::new(&options, directory.path(), Box::new(calls.clone()), |_, _| None);
    let options = OpenOptions::read_write().create().direct(false);
    let file = FileHandle::open(&directory.path().join("file"), options).unwrap();
    file.os().set_len(65_536).unwrap();
    Bench { disk, calls, file, _directory: directory }
}

fn buffer(len: usize, byte: u8) -> IoBuffer {
    let mut buffer = AlignedBuf::zeroed(len).unwrap();
    buffer.fill(byte);
    IoBuffer::Owned(buffer)
}

#[test]
fn short_counts_and_interruptions_are_invisible_to_the_caller() {
    let interrupted = Act::Fail(io::ErrorKind::Interrupted);
    let busy = Act::Fail(io::ErrorKind::WouldBlock);
    let bench = bench([Act::Short(100), interrupted, Act::Short(1), busy]);

    block_on(write(&bench.disk, &bench.file, 10, buffer(4096, 7))).unwrap();
    bench.calls.acts.lock().unwrap().extend([Act::Short(4095), interrupted]);
    let bytes = block_on(read(&bench.disk, &bench.file, 10, buffer(4096, 0))).unwrap();

    assert!(bytes.as_slice().iter().all(|byte| *byte == 7));
    let stats = bench.disk.stats();
    assert_eq!((stats.short_counts, stats.retries, stats.errors), (3, 3, 0));
    assert_eq!((stats.bytes_written, stats.bytes_read), (4096, 4096));
}

#[test]
fn a_write_that_makes_no_progress_fails() {
    let bench = bench([Act::Short(10), Act::Short(0)]);

    let error = block_on(write(&bench.disk, &bench.file, 0, buffer(4096, 7))).unwrap_err();

    assert!(error.to_string().contains("stopped accepting data after 10 bytes"), "{error}");
    assert!(bench.file.poisoned().is_some());
}

#[test]
fn a_failed_sync_poisons_the_file_and_is_not_repeated() {
    let bench = bench([Act::Fail(io::ErrorKind::StorageFull)]);

    let first = block_on(sync(&bench.disk, &bench.file)).unwrap_err();
    let second = block_on(sync(&bench.disk, &bench.file)).unwrap_err();

    assert_eq!((first.kind(), second.kind()), (IoErrorKind::Full, IoErrorKind::Poisoned));
    assert!(second.to_string().contains(&first.to_string()), "{second}");
    assert_eq!(bench.disk.stats().syncs, 0);
}

#[test]
fn each_half_of_a_durable_write_can_fail_and_poisons_the_file() {
    let full = Act::Fail(io::ErrorKind::StorageFull);
    let halves =
        [(vec![full], IoOperation::Write), (vec![Act::Short(4096), full], IoOperation::Sync)];
    for (acts, half) in halves {
        let bench = bench(acts);

        let failed = write_synced(&bench.disk, &bench.file, 8192, buffer(4096, 7));
        let error = block_on(failed).unwrap_err();
        let later = block_on(write_synced(&bench.disk, &bench.file, 0, buffer(1, 7))).unwrap_err();

        assert_eq!((error.operation(), error.kind()), (half, IoErrorKind::Full));
        assert_eq!((error.offset(), error.len()), (Some(8192), Some(4096)));
        assert_eq!(later.kind(), IoErrorKind::Poisoned);
        let stats = bench.disk.stats();
        assert_eq!((stats.writes, stats.syncs, stats.synced_writes), (0, 0, 0));
    }
}

#[test]
fn a_short_durable_write_syncs_only_after_the_rest() {
    // If the sync came early, the failure would hit the rest of the write.
    let acts = [Act::Short(100), Act::Short(3996), Act::Fail(io::ErrorKind::StorageFull)];
    let bench = bench(acts);

    let failed = write_synced(&bench.disk, &bench.file, 0, buffer(4096, 7));
    let error = block_on(failed).unwrap_err();

    assert_eq!(error.operation(), IoOperation::Sync);
    assert_eq!(std::fs::read(bench.file.path()).unwrap()[..4096], [7; 4096]);
}

#[test]
fn a_dropped_read_keeps_its_memory_until_it_ends() {
    let bench = bench([]);
    let arena = Arena::new(4096).unwrap();
    // SAFETY: the only region of this arena, and no slice of it is held.
    let region = unsafe { arena.region(0, 4096) };
    bench.calls.shut();

    drop(read(&bench.disk, &bench.file, 0, IoBuffer::Region(region)));
    let held = Arc::strong_count(&arena);
    bench.calls.open();
    block_on(bench.disk.shutdown()).unwrap();

    assert_eq!((held, Arc::strong_count(&arena)), (2, 1));
    let stats = bench.disk.stats();
    assert_eq!((stats.submitted, stats.delivered, stats.orphaned), (1, 0, 1));
}

#[test]
fn blocked_writes_leave_threads_to_reads() {
    /// Blocks writes only.
    struct SlowWrites(Scripted);
    impl Calls for SlowWrites {
        fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
            SystemCalls.read_at(file, bytes, offset)
        }
        fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
            self.0.write_at(file, bytes, offset)
        }
        fn write_through_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
            self.0.write_through_at(file, bytes, offset)
        }
        fn sync(&self, file: &File) -> io::Result<()> {
            SystemCalls.sync(file)
        }
    }
    let (plain, calls) = (bench([]), Scripted::default());
    let options = DiskOptions::new().positional_threads(4);
    let slow = Box::new(SlowWrites(calls.clone()));
    let disk = SystemDisk::new(&options, std::path::Path::new("."), slow, |_, _| None);
    calls.shut();
    let writes: Vec<_> =
        (0..20).map(|index| write(&disk, &plain.file, index * 4096, buffer(4096, 1))).collect();

    for index in 0..16 {
        block_on(read(&disk, &plain.file, index * 4096, buffer(4096, 0))).unwrap();
    }

    assert_eq!((disk.stats().reads, disk.stats().writes), (16, 0));
    calls.open();
    for write in writes {
        block_on(write).unwrap();
    }
    block_on(disk.shutdown()).unwrap();
    assert_eq!(disk.stats().delivered, 36);
}
