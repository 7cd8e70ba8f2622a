//! Waiting sides that go away, at every moment, and what becomes of the memory.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use super::kernel::Act;
use super::{Bench, FILE_BYTES, Outcome, block_on, bytes};
use crate::memory::Arena;
use crate::request::{IoBuffer, Operation};

/// The moments of an operation at which its waiting side can go.
#[derive(Debug, Clone, Copy)]
enum Moment {
    BeforeTheFirstPoll,
    AfterTheFirstPoll,
    BetweenTwoPieces,
    AfterTheEnd,
}

fn poll_once(outcome: &mut Outcome) -> bool {
    outcome.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// A read into the middle third of an arena, whose other thirds are guards. Gives back whether the
/// arena was alive while the kernel had the read, and its bytes afterwards.
fn read_and_drop(moment: Moment) {
    let bench = Bench::new(32);
    assert!(block_on(bench.write(0, 4096, 7)).result.is_ok());
    let arena = Arena::new(3 * 4096).unwrap();
    // SAFETY: the regions of this arena do not overlap.
    let [mut before, target, mut after] =
        [0, 4096, 8192].map(|start| unsafe { arena.region(start, 4096) });
    before.fill(0xAA);
    after.fill(0xBB);
    bench.script.hold();
    if matches!(moment, Moment::BetweenTwoPieces) {
        bench.script.act([Act::Short(1000)]);
    }

    let buffer = IoBuffer::Region(target);
    let mut outcome = bench.submit(Operation::Read { offset: 0, buffer });
    if !matches!(moment, Moment::BeforeTheFirstPoll) {
        assert!(!poll_once(&mut outcome));
    }
    bench.script.wait_until_taken(1);
    if matches!(moment, Moment::AfterTheEnd) {
        bench.script.release(false);
        while bench.counters.reads.value() < 1 {
            std::thread::yield_now();
        }
    }
    drop(outcome);
    let held = Arc::strong_count(&arena);
    bench.script.release(false);
    let (_, stats) = bench.end();

    assert!(before.iter().all(|byte| *byte == 0xAA), "{moment:?}: written before the buffer");
    assert!(after.iter().all(|byte| *byte == 0xBB), "{moment:?}: written behind the buffer");
    if !matches!(moment, Moment::AfterTheEnd) {
        assert_eq!(held, 4, "{moment:?}: the buffer went while the kernel had it");
        assert_eq!(stats.orphaned, 1, "{moment:?}");
    }
    assert_eq!((stats.reads, stats.leaked), (1, 0), "{moment:?}");
    drop((before, after));
    assert_eq!(Arc::strong_count(&arena), 1, "{moment:?}: the buffer was not given back");
    // SAFETY: nobody has a region of this arena any more.
    let whole = unsafe { arena.region(4096, 4096) };
    assert!(whole.iter().all(|byte| *byte == 7), "{moment:?}: the read did not go to its end");
}

#[test]
fn a_buffer_lives_as_long_as_the_kernel_has_it() {
    for moment in [
        Moment::BeforeTheFirstPoll,
        Moment::AfterTheFirstPoll,
        Moment::BetweenTwoPieces,
        Moment::AfterTheEnd,
    ] {
        read_and_drop(moment);
    }
}

/// Closed and opened again, a descriptor has the same number: the kernel would write elsewhere.
#[test]
fn a_file_stays_open_as_long_as_the_kernel_has_an_operation_on_it() {
    let bench = Bench::new(32);
    let path = bench.file.path().to_owned();
    bench.script.hold();
    let second = {
        let options = crate::file::OpenOptions::read_write().direct(false);
        let file = crate::file::FileHandle::open(&path, options).unwrap();
        let buffer = super::filled(4096, 6);
        let (request, outcome) = super::request(&file, Operation::Write { offset: 0, buffer });
        bench.counters.submitted.add(1);
        assert!(bench.intake.submit(vec![request], &bench.counters).is_none());
        outcome
    };
    bench.script.wait_until_taken(1);
    // Files that would get the number of a descriptor that was closed too early.
    let decoys: Vec<_> = (0..8).map(|_| tempfile::tempfile().unwrap()).collect();

    bench.script.release(false);

    assert!(block_on(second).result.is_ok());
    assert!(decoys.iter().all(|decoy| decoy.metadata().unwrap().len() == 0));
    assert_eq!(bytes(bench.read(0, 4096)), [6; 4096]);
    bench.end();
}

/// Half of the waiting sides go; the permits of all come back.
#[test]
fn operations_nobody_waits_for_give_their_permits_back() {
    let bench = Bench::new(32);
    for round in 0..50 {
        let mut reads: Vec<_> =
            (0..60u64).map(|index| bench.read(index * 512 % FILE_BYTES, 512)).collect();
        for index in (0..60).rev().filter(|index| index % 2 == round % 2) {
            drop(reads.swap_remove(index));
        }
        for read in reads {
            bytes(read);
        }
    }

    let (_, stats) = bench.end();
    assert_eq!((stats.submitted, stats.reads), (3000, 3000));
}

#[test]
fn a_drain_that_times_out_leaks_instead_of_freeing() {
    let bench = Bench::with_drain_timeout(32, Duration::from_millis(20));
    let arena = Arena::new(4096).unwrap();
    // SAFETY: the only region of this arena, and no slice of it is held.
    let buffer = IoBuffer::Region(unsafe { arena.region(0, 4096) });
    bench.script.hold();
    let stuck = bench.submit(Operation::Read { offset: 0, buffer });
    bench.script.wait_until_taken(1);

    let (left_behind, stats) = bench.end();

    let completed = block_on(stuck);
    assert!(completed.result.unwrap_err().to_string().contains("the drain timeout passed"));
    assert!(completed.buffer.is_none());
    assert_eq!((left_behind, stats.leaked), (1, 1));
    assert_eq!(Arc::strong_count(&arena), 2, "memory that the kernel has was freed");
}
