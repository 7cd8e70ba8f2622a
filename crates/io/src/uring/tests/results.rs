//! Results, orders and refusals that a healthy kernel does not give on demand.

use super::kernel::Act;
use super::{Bench, FILE_BYTES, block_on, bytes, errno, filled};
use crate::error::IoErrorKind;
use crate::request::{IoBuffer, Operation};

#[test]
fn short_counts_are_resumed_until_every_byte_is_there() {
    let bench = Bench::new(32);
    bench.script.act([Act::Short(1), Act::Short(4094), Act::Perform]);
    assert!(block_on(bench.write(100, 4096, 7)).result.is_ok());
    bench.script.act([Act::Short(4095)]);

    assert_eq!(bytes(bench.read(100, 4096)), [7; 4096]);

    let (_, stats) = bench.end();
    assert_eq!((stats.short_counts, stats.errors), (3, 0));
    assert_eq!((stats.delivered, stats.orphaned), (2, 0));
}

/// Errors are retried where the kernel means "again", a bounded number of times.
#[test]
fn interruptions_are_retried_and_end() {
    for number in [libc::EINTR, libc::EAGAIN] {
        let bench = Bench::new(32);
        bench.script.act([Act::Post(-number); 100]);
        assert_eq!(bytes(bench.read(0, 512)), [0; 512], "errno {number}");
        bench.script.act([Act::Post(-number); 200]);

        assert_eq!(errno(bench.read(0, 512)), Some(number));

        let (_, stats) = bench.end();
        assert_eq!((stats.errors, stats.delivered), (1, 2));
        assert_eq!(stats.retries, 100 + 128);
    }
}

#[test]
fn a_cancellation_that_nobody_asked_for_is_retried_once() {
    let bench = Bench::new(32);
    bench.script.act([Act::Post(-libc::ECANCELED)]);
    let first = bench.write(0, 512, 3);
    assert!(block_on(first).result.is_ok());
    bench.script.act([Act::Post(-libc::ECANCELED); 2]);

    assert_eq!(errno(bench.read(0, 512)), Some(libc::ECANCELED));

    bench.end();
}

/// A sync that was cancelled may have been the one that reported the lost write.
#[test]
fn a_failed_sync_is_not_asked_for_again() {
    for number in [libc::EIO, libc::ENOSPC, libc::ECANCELED, libc::EAGAIN] {
        let bench = Bench::new(32);
        bench.script.act([Act::Post(-number)]);

        assert_eq!(errno(bench.submit(Operation::Sync)), Some(number));
        let later = block_on(bench.submit(Operation::Sync)).result.unwrap_err();

        assert_eq!(later.kind(), IoErrorKind::Poisoned);
        assert!(bench.script.pieces().is_empty(), "the kernel was asked to sync again");
        let (_, stats) = bench.end();
        assert_eq!((stats.syncs, stats.retries), (0, 0));
    }
}

/// The sign of a completion's result is not part of the errno.
#[test]
fn errors_keep_their_number_and_their_place() {
    let bench = Bench::new(32);
    bench.script.act([Act::Post(-libc::EIO)]);

    let error = block_on(bench.read(8192, 4096)).result.unwrap_err();

    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert_eq!((error.offset(), error.len()), (Some(8192), Some(4096)));
    assert!(error.to_string().contains("Input/output error"), "{error}");
    bench.end();
}

/// These are about the file or the request. The ring goes on.
#[test]
fn errors_of_files_do_not_take_the_ring_away() {
    for number in [libc::EIO, libc::EINVAL, libc::ENOSPC, libc::EBADF, libc::EFAULT] {
        let bench = Bench::new(32);
        bench.script.act([Act::Post(-number)]);

        assert_eq!(errno(bench.read(0, 4096)), Some(number));
        assert_eq!(bytes(bench.read(0, 512)), [0; 512]);

        assert_eq!(bench.degraded.get(), None, "errno {number}");
        let (_, stats) = bench.end();
        assert_eq!(stats.fallbacks, 0);
    }
}

/// Waiting sides are served in whatever order the kernel answers.
#[test]
fn completions_in_reverse_order_reach_their_own_waiters() {
    let bench = Bench::new(64);
    for block in 0..40u8 {
        assert!(block_on(bench.write(u64::from(block) * 512, 512, block)).result.is_ok());
    }
    bench.script.hold();
    let reads: Vec<_> = (0..40u8).map(|block| bench.read(u64::from(block) * 512, 512)).collect();
    bench.script.wait_until_taken(40);

    bench.script.release(true);

    for (block, read) in (0..40u8).zip(reads) {
        assert_eq!(bytes(read), [block; 512], "block {block}");
    }
    bench.end();
}

/// The table has as many slots as the ring has entries, so a second completion for the same token
/// comes while another operation has the slot.
#[test]
fn a_late_second_completion_does_not_end_the_next_operation_in_its_slot() {
    let bench = Bench::new(32);
    assert!(block_on(bench.write(0, 512, 1)).result.is_ok());
    bench.script.act([Act::PostTwice]);
    assert_eq!(bytes(bench.read(0, 512)), [1; 512]);

    // Short of its end, the next one would pass for finished if it took the late completion.
    bench.script.act([Act::Short(100), Act::Short(100)]);
    let next = bench.read(0, 512);

    assert_eq!(bytes(next), [1; 512]);
    let (_, stats) = bench.end();
    assert_eq!((stats.ring_strays, stats.short_counts), (1, 2));
}

/// What is in flight never exceeds the entries, so twice as many completions always fit.
#[test]
fn the_kernel_never_has_more_than_the_ring_has_entries() {
    let bench = Bench::new(32);
    bench.script.hold();
    let mut operations: Vec<_> = (0..300u64)
        .map(|index| Operation::Read { offset: index * 512 % FILE_BYTES, buffer: filled(512, 1) })
        .collect();
    operations.extend((0..20).map(|_| Operation::Sync));
    operations.extend(
        (0..300u64).map(|index| Operation::Write { offset: index * 512, buffer: filled(512, 2) }),
    );
    let outcomes = bench.submit_batch(operations);
    // One entry is the wake-up's.
    bench.script.wait_until_taken(31);

    bench.script.release(true);

    for outcome in outcomes {
        assert!(block_on(outcome).result.is_ok());
    }
    assert_eq!(bench.script.taken_max(), 31);
    bench.end();
}

/// Some refusals come before the kernel took the queue, some after; neither loses an operation or
/// performs one twice.
#[test]
fn a_refused_enter_neither_loses_nor_doubles_operations() {
    for number in [libc::EINTR, libc::EAGAIN, libc::EBUSY] {
        for consuming in [false, true] {
            let bench = Bench::new(32);
            for _ in 0..5 {
                bench.script.refuse(number, consuming);
            }
            let writes: Vec<_> = (0..20).map(|index| bench.write(index * 512, 512, 9)).collect();

            for write in writes {
                assert!(block_on(write).result.is_ok(), "errno {number}, {consuming}");
            }

            let pieces = bench.script.pieces();
            assert_eq!(pieces.len(), 20, "errno {number}, {consuming}");
            let (_, stats) = bench.end();
            assert_eq!((stats.leaked, stats.fallbacks), (0, 0));
        }
    }
}

#[test]
fn a_kernel_that_refuses_for_good_is_left_without_losing_an_operation() {
    let bench = Bench::new(32);
    bench.script.refuse(libc::EPERM, false);
    let writes: Vec<_> = (0..20).map(|index| bench.write(index * 512, 512, 9)).collect();

    for write in writes {
        assert!(block_on(write).result.is_ok());
    }

    let reason = bench.degraded.get().expect("the ring is lost");
    assert!(reason.contains("refuses to be entered"), "{reason}");
    let (_, stats) = bench.end();
    assert_eq!((stats.fallbacks, stats.leaked, stats.writes), (20, 0, 20));
}

/// Nothing is polled for while nothing happens: the thread enters to sleep, and to wake.
#[test]
fn an_idle_thread_enters_the_kernel_once_and_stays() {
    let bench = Bench::new(32);
    for _ in 0..10 {
        bytes(bench.read(0, 512));
    }

    // A read is a wake-up, at most two enters to take it and its answer, and the next sleep.
    assert!(bench.script.enters() <= 10 * 4 + 1, "{} enters", bench.script.enters());
    bench.end();
}

/// The sync of a durable write is asked for after all its bytes, however short the counts.
#[test]
fn a_durable_write_syncs_after_its_last_byte() {
    let bench = Bench::new(32);
    bench.script.act([Act::Short(100), Act::Post(-libc::EINTR), Act::Short(100)]);

    let operation = Operation::WriteSynced { offset: 0, buffer: filled(4096, 5) };
    assert!(block_on(bench.submit(operation)).result.is_ok());

    let pieces = [(0, 4096), (100, 3996), (200, 3896), (0, 0)];
    assert_eq!(bench.script.pieces(), pieces, "a sync has neither place nor length");
    bench.end();
}

#[test]
fn buffers_come_back_with_every_failure() {
    let bench = Bench::new(32);
    bench.script.act([Act::Post(-libc::EIO)]);

    let completed = block_on(bench.read(0, 4096));

    assert!(completed.result.is_err());
    assert_eq!(completed.buffer.as_ref().map(IoBuffer::len), Some(4096));
    bench.end();
}
