//! A ring whose completions are polled for: nothing but transfers may come to it, so its thread
//! parks instead of reading an event there.

use super::*;

/// What the device holds back completes while the thread polls, without a wake.
#[test]
fn transfers_of_a_polled_ring_complete_and_an_idle_one_does_not_enter() {
    let bench = Bench::polled(32);
    for round in 0..20u64 {
        let offset = round * 8192;
        let byte = round.to_le_bytes()[0];
        block_on(bench.write(offset, 4096, byte)).result.unwrap();
        let reads: Vec<_> = (0..40).map(|_| bench.read(offset, 4096)).collect();
        assert!(reads.into_iter().all(|read| bytes(read) == [byte; 4096]));
    }
    // Everything has ended; whatever the thread still does, it does not ask the kernel again.
    let enters = bench.script.enters();
    bench.intake.rouse(&bench.counters);
    block_on(bench.write(0, 4096, 7)).result.unwrap();
    assert!(bench.script.enters() <= enters + 1, "an idle ring is not polled");

    assert_eq!(bench.end().0, 0);
}

#[test]
fn a_close_waits_for_what_the_device_holds_back() {
    let bench = Bench::polled(32);
    bench.script.hold();
    let late = bench.read(0, 4096);
    bench.script.wait_until_taken(1);

    bench.intake.close(&bench.counters);
    bench.script.release(false);

    assert_eq!(bytes(late), [0; 4096]);
    assert_eq!(bench.end().0, 0);
}

/// A file on another device, which cannot be polled.
#[test]
fn a_file_that_refuses_polling_is_served_all_the_same() {
    let bench = Bench::polled(32);
    bench.script.act([kernel::Act::Post(-libc::EOPNOTSUPP)]);

    assert_eq!(bytes(bench.read(4096, 4096)), [0; 4096]);

    let refusal = bench.degraded.get().expect("the rest goes to other rings");
    assert!(refusal.contains("refuses a read"), "{refusal}");
    assert_eq!(bench.end().0, 0);
}
