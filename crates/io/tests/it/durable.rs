//! Durable writes: one request that writes and syncs, both ways to do it, on every backend.

use nephrite_io::{
    BackendChoice, DiskOptions, DurableWrites, IoErrorKind, IoOperation, OpenOptions, block_on,
    write_synced,
};

use crate::support::{Bench, assert_balanced, backends, buffer, buffer_of};

fn benches(ways: DurableWrites) -> Vec<Bench> {
    let options = DiskOptions::new().ring_entries(32).durable_writes(ways);
    backends().into_iter().map(|backend| Bench::new(options.backend(backend))).collect()
}

#[test]
fn a_durable_write_stores_its_bytes_and_counts_how() {
    for ways in [DurableWrites::Auto, DurableWrites::WriteThenSync, DurableWrites::WriteThrough] {
        for bench in benches(ways) {
            let file = bench.create("file");

            let back = block_on(write_synced(&*bench.disk, &file, 4096, buffer_of(&[7; 8192])));

            assert_eq!(back.unwrap().as_slice(), [7; 8192], "the buffer comes back");
            assert_eq!(std::fs::read(file.path()).unwrap()[4096..], [7; 8192]);
            let (stats, report) = (bench.disk.stats(), bench.disk.report());
            // The probe wrote and synced once.
            assert_eq!((stats.writes, stats.synced_writes), (2, 1), "{}", bench.name());
            let through = u64::from(report.writes_through && file.is_direct());
            assert_eq!((stats.synced_writes_through, stats.syncs), (through, 2 - through));
            match ways {
                DurableWrites::WriteThrough => {
                    let has_direct = report.chosen != BackendChoice::Mmap;
                    assert_eq!(report.writes_through, cfg!(target_os = "linux") && has_direct);
                }
                DurableWrites::WriteThenSync => assert!(!report.writes_through),
                _ => {}
            }
            assert_balanced(stats);
        }
    }
}

/// A write through would leave earlier bytes of a buffered file in the cache.
#[test]
fn a_buffered_file_is_always_synced() {
    for bench in benches(DurableWrites::WriteThrough) {
        let options = OpenOptions::read_write().create_new().direct(false);
        let file = block_on(bench.disk.open(&bench.path("file"), options)).unwrap();
        let before = bench.disk.stats().syncs;

        block_on(write_synced(&*bench.disk, &file, 3, buffer_of(&[7; 10]))).unwrap();

        let stats = bench.disk.stats();
        assert_eq!((stats.syncs - before, stats.synced_writes_through), (1, 0));
    }
}

#[test]
fn a_durable_write_of_nothing_is_a_sync() {
    for bench in benches(DurableWrites::WriteThrough) {
        let file = bench.create("file");
        let before = bench.disk.stats().syncs;

        block_on(write_synced(&*bench.disk, &file, 0, buffer(0))).unwrap();

        assert_eq!(bench.disk.stats().syncs - before, 1, "{}", bench.name());
    }
}

#[test]
fn a_large_durable_write_is_written_in_pieces_and_synced_once() {
    for bench in benches(DurableWrites::WriteThenSync) {
        let file = bench.create("file");
        let before = bench.disk.stats().syncs;
        let bytes: Vec<u8> = (0..5u8).flat_map(|part| vec![part; 1 << 19]).collect();

        block_on(write_synced(&*bench.disk, &file, 0, buffer_of(&bytes))).unwrap();

        assert!(std::fs::read(file.path()).unwrap() == bytes);
        assert_eq!(bench.disk.stats().syncs - before, 1, "{}", bench.name());
    }
}

#[test]
fn many_durable_writes_at_once_all_end() {
    for ways in [DurableWrites::WriteThenSync, DurableWrites::WriteThrough] {
        for bench in benches(ways) {
            let file = bench.create("file");
            let kept: Vec<_> = (0..100u64)
                .map(|index| {
                    let bytes = [index.to_le_bytes()[0]; 4096];
                    write_synced(&*bench.disk, &file, index * 4096, buffer_of(&bytes))
                })
                .enumerate()
                // Dropped ones are written all the same.
                .filter_map(|(index, future)| (index % 3 != 0).then_some(future))
                .collect();
            for future in kept {
                block_on(future).unwrap();
            }
            block_on(bench.disk.shutdown()).unwrap();

            let bytes = std::fs::read(file.path()).unwrap();
            for (index, block) in bytes.chunks(4096).enumerate() {
                assert!(block.iter().all(|byte| usize::from(*byte) == index), "block {index}");
            }
            assert_eq!(bench.disk.stats().synced_writes, 100);
            assert_balanced(bench.disk.stats());
        }
    }
}

#[test]
fn requests_that_cannot_be_are_refused_with_their_place() {
    for bench in benches(DurableWrites::Auto) {
        std::fs::write(bench.path("file"), [1; 8192]).unwrap();
        let open = OpenOptions::read_only();
        let file = block_on(bench.disk.open(&bench.path("file"), open)).unwrap();

        let error = block_on(write_synced(&*bench.disk, &file, 4096, buffer(4096))).unwrap_err();

        assert_eq!(
            (error.operation(), error.kind()),
            (IoOperation::Write, IoErrorKind::InvalidRequest)
        );
        block_on(bench.disk.shutdown()).unwrap();
        let closed = block_on(write_synced(&*bench.disk, &file, 4096, buffer(4096))).unwrap_err();
        assert_eq!((closed.kind(), closed.offset()), (IoErrorKind::Closed, Some(4096)));
    }
}

/// A named pipe takes a write and cannot be synced. (Positional writes of pipes fail at once.)
#[cfg(target_os = "linux")]
#[test]
fn a_failed_sync_half_poisons_the_file_although_the_bytes_were_written() {
    for bench in benches(DurableWrites::Auto) {
        if bench.name() != "uring" {
            continue;
        }
        let path = bench.path("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let options = OpenOptions::read_write().direct(false);
        let file = block_on(bench.disk.open(&path, options)).unwrap();

        let first = block_on(write_synced(&*bench.disk, &file, 0, buffer(10))).unwrap_err();
        let second = block_on(nephrite_io::write(&*bench.disk, &file, 0, buffer(10))).unwrap_err();

        assert_eq!((first.operation(), first.offset()), (IoOperation::Sync, Some(0)));
        assert_eq!(second.kind(), IoErrorKind::Poisoned);
        assert_eq!(bench.disk.stats().synced_writes, 0);
    }
}
