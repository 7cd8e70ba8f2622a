//! Full and read-only file systems: small ones of their own, mounted where only the test's own
//! process sees them.
//!
//! Needs user namespaces or root. Where a machine gives neither, set NEPHRITE_TEST_WITHOUT_MOUNTS.

use std::ffi::CString;
use std::path::Path;

use nephrite_io::{DiskOptions, IoErrorKind, OpenOptions, block_on, open_disk, read, sync, write};

use crate::child::{is_child, run_alone_with_mounts};
use crate::support::{Bench, backends, buffer, buffer_of, skipped};

fn is_left_out() -> bool {
    let is_left_out = std::env::var_os("NEPHRITE_TEST_WITHOUT_MOUNTS").is_some();
    if is_left_out {
        skipped("no mounts");
    }
    is_left_out
}

/// Keeps this process's mounts from those that it was forked from.
fn keep_mounts_here() {
    mount(Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE, None);
}

fn mount(target: &Path, kind: Option<&str>, flags: libc::c_ulong, data: Option<&str>) {
    let text = |text: &str| CString::new(text).unwrap();
    let target = text(target.to_str().unwrap());
    let (kind, data) = (kind.map(text), data.map(text));
    let pointer =
        |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: all strings are terminated and live until the call returns, or are null, which the
    // call allows for these arguments.
    let outcome = unsafe {
        libc::mount(c"none".as_ptr(), target.as_ptr(), pointer(&kind), flags, pointer(&data).cast())
    };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_file_system_that_fills_up_is_full_and_opens_again() {
    if is_left_out() {
        return;
    }
    if !is_child() {
        return run_alone_with_mounts(
            "mounts::a_file_system_that_fills_up_is_full_and_opens_again",
        );
    }
    keep_mounts_here();
    for backend in backends() {
        let options = DiskOptions::new().backend(backend);
        let bench = Bench::new(options);
        mount(bench.directory(), Some("tmpfs"), 0, Some("size=256k"));
        let file = bench.create("file");

        let mut outcomes = (0..128).map(|index| {
            block_on(write(&*bench.disk, &file, index * 4096, buffer_of(&[1; 4096]))).map(drop)
        });
        let full = outcomes.find_map(Result::err).expect("256 KiB are fewer than 128 blocks");
        let again = open_disk(options, bench.directory()).unwrap();
        let reopened =
            block_on(again.open(&bench.path("file"), OpenOptions::read_write())).unwrap();

        assert_eq!(full.kind(), IoErrorKind::Full, "{full}");
        assert!(again.report().reason.contains("could not be written"), "{}", again.report());
        let bytes = block_on(read(&*again, &reopened, 0, buffer(4096))).unwrap();
        assert_eq!(bytes.as_slice(), [1; 4096]);
        block_on(sync(&*again, &reopened)).unwrap();
    }
}

#[test]
fn a_read_only_file_system_can_be_read() {
    if is_left_out() {
        return;
    }
    if !is_child() {
        return run_alone_with_mounts("mounts::a_read_only_file_system_can_be_read");
    }
    keep_mounts_here();
    for backend in backends() {
        let directory = tempfile::tempdir().unwrap();
        mount(directory.path(), Some("tmpfs"), 0, Some("size=256k"));
        let path = directory.path().join("file");
        std::fs::write(&path, [2; 4096]).unwrap();
        mount(directory.path(), None, libc::MS_REMOUNT | libc::MS_RDONLY, None);

        let disk = open_disk(DiskOptions::new().backend(backend), directory.path()).unwrap();
        let file = block_on(disk.open(&path, OpenOptions::read_only())).unwrap();
        let bytes = block_on(read(&*disk, &file, 0, buffer(4096))).unwrap();
        let refused = block_on(disk.open(&path, OpenOptions::read_write())).unwrap_err();

        assert_eq!(bytes.as_slice(), [2; 4096]);
        assert_eq!(refused.kind(), IoErrorKind::ReadOnly);
        assert!(disk.report().reason.contains("could not be written"), "{}", disk.report());
        assert_eq!(disk.report().chosen, backend);
        drop(disk);
        mount(directory.path(), None, libc::MS_REMOUNT, None);
    }
}
