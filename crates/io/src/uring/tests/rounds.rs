//! What a round of a driver hands over and tells at once, so that device and caller work together.

use std::sync::Arc;

use super::kernel::{Script, ScriptedKernel};
use super::{Bench, Duration, Outcome, block_on, context, filled, request};
use crate::file::{FileHandle, OpenOptions};
use crate::request::Operation;
use crate::stats::Counters;
use crate::uring::driver::{Driver, Turn};

fn reads(count: u64) -> Vec<Operation> {
    let read = |index| Operation::Read { offset: index * 512, buffer: filled(512, 1) };
    (0..count).map(read).collect()
}

#[test]
fn the_device_begins_before_a_long_batch_is_queued() {
    let bench = Bench::new(32);

    for outcome in bench.submit_batch(reads(20)) {
        assert!(block_on(outcome).result.is_ok());
    }

    assert_eq!(bench.script.handed_over(), [8, 8, 4]);
    bench.end();
}

#[test]
fn a_batch_that_fits_is_handed_over_by_the_call_that_waits_for_it() {
    let bench = Bench::new(32);
    let before = bench.script.enters();

    for outcome in bench.submit_batch(reads(8)) {
        assert!(block_on(outcome).result.is_ok());
    }

    assert_eq!(bench.script.handed_over(), [8]);
    // Perhaps one to sleep before, one to take it, and one to sleep after it.
    assert!(bench.script.enters() - before <= 3, "{} enters", bench.script.enters());
    bench.end();
}

#[test]
fn a_refused_start_neither_loses_nor_doubles_operations() {
    for number in [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::EPERM] {
        for consuming in [false, true] {
            let bench = Bench::new(32);
            // Whether the first finds the thread asleep or not, some meet a start.
            for _ in 0..4 {
                bench.script.refuse(number, consuming && number != libc::EPERM);
            }

            for outcome in bench.submit_batch(reads(20)) {
                assert!(block_on(outcome).result.is_ok(), "errno {number}, {consuming}");
            }

            let is_lost = bench.degraded.get().is_some();
            assert_eq!(is_lost, number == libc::EPERM, "errno {number}");
            let performed = bench.script.pieces().len() as u64;
            let (_, stats) = bench.end();
            assert_eq!((stats.reads, stats.leaked), (20, 0), "errno {number}, {consuming}");
            assert_eq!(performed + stats.fallbacks, 20, "errno {number}, {consuming}");
        }
    }
}

/// The driver of a caller, with a file for its reads.
struct Caller {
    driver: Driver<ScriptedKernel>,
    script: Script,
    counters: Arc<Counters>,
    file: FileHandle,
    _directory: tempfile::TempDir,
}

impl Caller {
    fn new(entries: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = OpenOptions::read_write().create().direct(false);
        let file = FileHandle::open(&directory.path().join("file"), options).unwrap();
        file.os().set_len(super::FILE_BYTES).unwrap();
        let context = context(Duration::from_secs(60));
        let counters = Arc::clone(&context.counters);
        let script = Script::new(Arc::clone(&context.intake));
        let driver = Driver::of_caller(context, ScriptedKernel::new(entries, script.clone()));
        Self { driver, script, counters, file, _directory: directory }
    }

    fn adopt(&mut self, count: u64) -> Vec<Outcome> {
        let requests = reads(count).into_iter().map(|operation| request(&self.file, operation));
        let (requests, outcomes): (Vec<_>, Vec<_>) = requests.unzip();
        self.driver.adopt(requests);
        outcomes
    }

    /// How many a round tells that may tell so many.
    fn told_in(&mut self, most: usize) -> u64 {
        let before = self.counters.delivered.value();
        assert!(matches!(self.driver.turn(None, most, || true), Turn::Taken));
        self.counters.delivered.value() - before
    }
}

#[test]
fn a_callers_reads_start_in_pairs_and_in_eights_once_many_are_in_flight() {
    let mut caller = Caller::new(128);
    let outcomes = caller.adopt(90);

    assert_eq!(caller.told_in(usize::MAX), 90);

    let handed_over = caller.script.handed_over();
    let (pairs, eights) = handed_over.split_at(32);
    assert_eq!(pairs, [2; 32]);
    assert_eq!(eights, [8, 8, 8, 2]);
    for outcome in outcomes {
        assert!(block_on(outcome).result.is_ok());
    }
}

#[test]
fn a_callers_round_tells_no_more_than_it_was_asked_to() {
    let mut caller = Caller::new(32);
    let outcomes = caller.adopt(20);

    assert_eq!(caller.told_in(8), 8);
    let enters = caller.script.enters();
    assert_eq!((caller.told_in(8), caller.told_in(8)), (8, 4));

    assert_eq!(caller.script.enters(), enters, "what is complete is told without the kernel");
    for outcome in outcomes {
        assert!(block_on(outcome).result.is_ok());
    }
    assert_eq!(caller.driver.load(), 0);
}
