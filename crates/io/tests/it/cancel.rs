//! Futures dropped while their operation is in flight.

use nephrite_io::{DiskOptions, block_on, read};

use crate::support::{Bench, assert_balanced, backends, buffer};

#[test]
fn futures_dropped_after_one_poll_leave_the_others_alone() {
    for backend in backends() {
        let bench = Bench::new(DiskOptions::new().backend(backend).ring_entries(32));
        let file = bench.file_with("file", &[5; 65_536]);
        let mut kept = Vec::new();

        for index in 0..500u64 {
            let mut future = read(&*bench.disk, &file, index % 16 * 4096, buffer(4096));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let finished = future.as_mut().poll(&mut context).is_ready();
            if index % 2 == 0 && !finished {
                kept.push(future);
            }
        }
        for future in kept {
            let bytes = block_on(future).unwrap();
            assert!(bytes.as_slice().iter().all(|byte| *byte == 5));
        }
        block_on(bench.disk.shutdown()).unwrap();

        assert_balanced(bench.disk.stats());
    }
}

/// A named pipe stands in for a slow device: a ring's read of it stays in flight until the test
/// writes to the other end. (Positional reads of pipes fail; there an injected system call does
/// the same in the unit tests.)
#[cfg(target_os = "linux")]
mod with_pipes {
    use std::fs::File;
    use std::io::Write;
    use std::sync::Arc;

    use std::time::Duration;

    use nephrite_io::memory::Arena;
    use nephrite_io::{BackendChoice, FileHandle, IoBuffer, OpenOptions};

    use super::*;

    fn ring(options: DiskOptions) -> Option<Bench> {
        let uring = BackendChoice::Uring;
        backends().contains(&uring).then(|| Bench::new(options.backend(uring)))
    }

    fn pipe(bench: &Bench, name: &str) -> (FileHandle, File) {
        let path = bench.path(name);
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let options = OpenOptions::read_write().direct(false);
        let reader = block_on(bench.disk.open(&path, options)).unwrap();
        (reader, File::options().read(true).write(true).open(&path).unwrap())
    }

    #[test]
    fn a_dropped_read_keeps_its_memory_until_it_ends() {
        let Some(bench) = ring(DiskOptions::new()) else { return };
        let (reader, mut writer) = pipe(&bench, "pipe");
        let arena = Arena::new(4096).unwrap();
        // SAFETY: the only region of this arena, and no slice of it is held.
        let region = unsafe { arena.region(0, 4096) };

        drop(read(&*bench.disk, &reader, 0, IoBuffer::Region(region)));
        let held_in_flight = Arc::strong_count(&arena);
        writer.write_all(&[9; 4096]).unwrap();
        block_on(bench.disk.shutdown()).unwrap();

        let stats = bench.disk.stats();
        assert_eq!(held_in_flight, 2, "the region went while the kernel had it");
        assert_eq!(Arc::strong_count(&arena), 1, "the region was not freed at the end");
        assert_eq!((stats.orphaned, stats.leaked), (1, 0));
        assert_balanced(stats);
    }

    #[test]
    fn a_drain_that_times_out_leaks_and_tells() {
        let Some(bench) = ring(DiskOptions::new().drain_timeout(Duration::from_millis(50))) else {
            return;
        };
        let (reader, _writer) = pipe(&bench, "pipe");
        let arena = Arena::new(4096).unwrap();
        // SAFETY: the only region of this arena, and no slice of it is held.
        let region = unsafe { arena.region(0, 4096) };
        let stuck = read(&*bench.disk, &reader, 0, IoBuffer::Region(region));

        let error = block_on(bench.disk.shutdown()).unwrap_err();

        assert!(error.to_string().contains("1 operations did not come back"), "{error}");
        assert!(block_on(stuck).unwrap_err().to_string().contains("drain timeout"));
        assert_eq!(Arc::strong_count(&arena), 2, "memory that the kernel has was freed");
        let stats = bench.disk.stats();
        assert_eq!((stats.leaked, stats.submitted), (1, stats.delivered + stats.orphaned));
    }
}
