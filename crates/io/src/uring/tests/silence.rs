//! Kernels from which nothing comes, and which do not even let anyone wait for it in peace.

use std::sync::Arc;
use std::time::Duration;

use super::kernel::{Script, ScriptedKernel};
use super::{Bench, block_on, bytes, context, errno, filled, request};
use crate::file::{FileHandle, OpenOptions};
use crate::request::Operation;
use crate::uring::driver::{Driver, Turn};

const SHORT: Duration = Duration::from_millis(20);

/// The first may be the whole time, each later one is less than the one before.
fn assert_one_wait(limits: &[Duration], interruptions: usize) {
    assert!(interruptions < limits.len(), "{limits:?}");
    assert!(limits.is_sorted_by(|earlier, later| later < earlier), "restarted: {limits:?}");
}

#[test]
fn interruptions_do_not_restart_the_time_of_a_drain() {
    let bench = Bench::new(32);
    bench.script.hold();
    let read = bench.read(0, 512);
    bench.script.wait_until_taken(1);
    for _ in 0..3 {
        bench.script.refuse(libc::EINTR, false);
    }
    bench.intake.close(&bench.counters);
    bench.script.wait_until_refused();
    let limits = bench.script.limits();
    bench.script.release(false);

    bytes(read);

    assert_one_wait(&limits, 2);
    bench.end();
}

#[test]
fn a_drain_ends_in_a_storm_of_signals_too() {
    let bench = Bench::with_drain_timeout(32, SHORT);
    bench.script.hold();
    let stuck = bench.read(0, 512);
    bench.script.wait_until_taken(1);
    bench.script.refuse_for_good(libc::EINTR);

    let (left_behind, stats) = bench.end();

    let error = block_on(stuck).result.unwrap_err();
    assert!(error.to_string().contains("the drain timeout passed"), "{error}");
    assert_eq!((left_behind, stats.leaked), (1, 1));
}

/// What the kernel never took is done without it; what it has cannot be asked for any more.
#[test]
fn a_kernel_that_stays_out_of_memory_is_left() {
    for number in [libc::EAGAIN, libc::EBUSY] {
        let bench = Bench::with_drain_timeout(32, SHORT);
        bench.script.hold();
        let taken = bench.read(0, 512);
        bench.script.wait_until_taken(1);
        bench.script.refuse_for_good(number);

        let write = bench.write(4096, 512, 9);

        assert!(block_on(write).result.is_ok(), "errno {number}");
        let error = block_on(taken).result.unwrap_err();
        assert!(error.to_string().contains("refuses to be entered"), "{error}");
        let reason = bench.degraded.get().expect("the ring is lost");
        assert!(reason.contains("refuses to be entered"), "{reason}");
        let (left_behind, stats) = bench.end();
        assert_eq!((left_behind, stats.leaked, stats.fallbacks), (1, 1, 1));
    }
}

/// A driver whose rounds a caller takes, with one read that the kernel keeps, and its file.
fn with_a_read_that_is_kept(drain_timeout: Duration) -> Kept {
    let directory = tempfile::tempdir().unwrap();
    let options = OpenOptions::read_write().create().direct(false);
    let file = FileHandle::open(&directory.path().join("file"), options).unwrap();
    let context = context(drain_timeout);
    let (intake, counters) = (Arc::clone(&context.intake), Arc::clone(&context.counters));
    let script = Script::new(Arc::clone(&intake));
    let mut driver = Driver::new(context, ScriptedKernel::new(32, script.clone()));
    let buffer = filled(512, 1);
    let (request, outcome) = request(&file, Operation::Read { offset: 0, buffer });
    script.hold();
    driver.adopt(vec![request]);
    assert!(matches!(driver.turn(Some(Duration::ZERO), usize::MAX, || true), Turn::Taken));
    intake.close(&counters);
    Kept { driver, script, outcome, _directory: directory }
}

struct Kept {
    driver: Driver<ScriptedKernel>,
    script: Script,
    outcome: super::Outcome,
    _directory: tempfile::TempDir,
}

#[test]
fn interruptions_do_not_restart_the_time_of_a_callers_drain() {
    let mut kept = with_a_read_that_is_kept(Duration::from_secs(60));
    for _ in 0..4 {
        kept.script.refuse(libc::EINTR, false);
        assert!(matches!(kept.driver.turn(None, usize::MAX, || true), Turn::Taken));
    }

    // The first is that of the round before the close.
    assert_one_wait(&kept.script.limits()[1..], 3);
    kept.script.refuse(libc::EPERM, false);
    assert!(matches!(kept.driver.turn(None, usize::MAX, || true), Turn::Over { stuck: 1 }));
    assert!(errno(kept.outcome).is_none(), "an error of ours, not of the system");
}

#[test]
fn a_callers_drain_ends_in_a_storm_of_signals_too() {
    let mut kept = with_a_read_that_is_kept(SHORT);
    kept.script.refuse_for_good(libc::EINTR);

    while let Turn::Taken = kept.driver.turn(None, usize::MAX, || true) {}

    let error = block_on(kept.outcome).result.unwrap_err();
    assert!(error.to_string().contains("the drain timeout passed"), "{error}");
}
