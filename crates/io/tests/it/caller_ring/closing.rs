//! Disks that are shut down while callers drive rings of their own.

use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use nephrite_io::{DiskOptions, FileHandle, IoBuffer, IoError, IoErrorKind, block_on, drive, read};

use super::{blocks, pipe, ring};
use crate::support::{Bench, assert_balanced, buffer};

#[test]
fn a_closed_disk_refuses_a_driven_future() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let file = blocks(&bench);
    let one = || async { read(&*bench.disk, &file, 0, buffer(4096)).await };
    drive(&*bench.disk, one()).unwrap();

    drive(&*bench.disk, bench.disk.shutdown()).unwrap();

    assert_eq!(drive(&*bench.disk, one()).unwrap_err().kind(), IoErrorKind::Closed);
    let inside = drive(&*bench.disk, async { one().await.unwrap_err().kind() });
    assert_eq!(inside, IoErrorKind::Closed);
    assert_balanced(bench.disk.stats());
}

#[test]
fn a_batch_of_nothing_leaves_the_ring_idle() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    drive(&*bench.disk, async { bench.disk.submit(Vec::new()) });

    block_on(bench.disk.shutdown()).unwrap();
    assert_balanced(bench.disk.stats());
}

/// A thread that drives a read, which has been submitted when this returns.
fn read_in_flight<'a>(
    scope: &'a Scope<'a, '_>,
    bench: &'a Bench,
    reader: &'a FileHandle,
) -> ScopedJoinHandle<'a, Result<IoBuffer, IoError>> {
    let (started, has_started) = mpsc::channel();
    let caller = scope.spawn(move || {
        drive(&*bench.disk, async {
            let read = read(&*bench.disk, reader, 0, buffer(4096));
            started.send(()).unwrap();
            read.await
        })
    });
    has_started.recv().unwrap();
    caller
}

#[test]
fn a_shutdown_waits_for_what_a_caller_has_in_flight() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let (reader, mut writer) = pipe(&bench, "pipe");

    std::thread::scope(|scope| {
        let caller = read_in_flight(scope, &bench, &reader);
        let mut shutdown = bench.disk.shutdown();
        let mut context = Context::from_waker(Waker::noop());
        assert!(shutdown.as_mut().poll(&mut context).is_pending());
        std::io::Write::write_all(&mut writer, &[8; 4096]).unwrap();

        block_on(shutdown).unwrap();
        assert_balanced(bench.disk.stats());
        assert_eq!(caller.join().unwrap().unwrap().as_slice(), [8; 4096]);
    });
}

#[test]
fn a_caller_whose_device_is_stuck_is_told_at_shutdown() {
    let options = DiskOptions::new().drain_timeout(Duration::from_millis(50));
    let Some(bench) = ring(options) else { return };
    let (reader, _writer) = pipe(&bench, "pipe");

    std::thread::scope(|scope| {
        let caller = read_in_flight(scope, &bench, &reader);

        let error = block_on(bench.disk.shutdown()).unwrap_err();

        assert!(error.to_string().contains("1 operations did not come back"), "{error}");
        let told = caller.join().unwrap().unwrap_err();
        assert!(told.to_string().contains("drain timeout"), "{told}");
    });
    assert_eq!(bench.disk.stats().leaked, 1);
}
