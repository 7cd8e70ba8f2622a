//! Failures of writes and syncs: their kind, and that they are final for the file.

use nephrite_io::{IoErrorKind, IoOperation, OpenOptions, block_on, read, sync, write};

use crate::support::{assert_balanced, benches, buffer};

#[test]
fn a_write_without_space_is_full_and_poisons_the_file() {
    for bench in benches() {
        let options = OpenOptions::read_write().direct(false);
        let file = block_on(bench.disk.open("/dev/full".as_ref(), options)).unwrap();

        let full = block_on(write(&*bench.disk, &file, 0, buffer(4096))).unwrap_err();
        let later_write = block_on(write(&*bench.disk, &file, 0, buffer(1))).unwrap_err();
        let later_sync = block_on(sync(&*bench.disk, &file)).unwrap_err();

        assert_eq!((full.kind(), full.len()), (IoErrorKind::Full, Some(4096)));
        assert!(full.to_string().contains("free space"), "{full}");
        for later in [later_write, later_sync] {
            assert_eq!(later.kind(), IoErrorKind::Poisoned);
            assert!(later.to_string().contains(&full.to_string()), "{later}");
            assert_eq!(later.raw_os_error(), full.raw_os_error());
        }
        assert_eq!(file.poisoned().unwrap().to_string(), full.to_string());
        assert!(block_on(read(&*bench.disk, &file, 0, buffer(16))).is_ok(), "reads go on");
        assert_balanced(bench.disk.stats());
    }
}

/// A named pipe cannot be synced, which makes it a file whose sync fails.
#[test]
fn a_failed_sync_is_never_repeated_as_a_success() {
    for bench in benches() {
        let path = bench.path("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let options = OpenOptions::read_write().direct(false);
        let file = block_on(bench.disk.open(&path, options)).unwrap();

        let first = block_on(sync(&*bench.disk, &file)).unwrap_err();
        let second = block_on(sync(&*bench.disk, &file)).unwrap_err();
        let write = block_on(write(&*bench.disk, &file, 0, buffer(1))).unwrap_err();

        assert_eq!((first.operation(), first.kind()), (IoOperation::Sync, IoErrorKind::Other));
        assert_eq!(second.kind(), IoErrorKind::Poisoned);
        assert_eq!(write.kind(), IoErrorKind::Poisoned);
        assert_eq!(bench.disk.stats().errors, 3);
    }
}
