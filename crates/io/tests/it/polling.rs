//! Rings whose submissions a kernel thread polls: the same results, asleep or awake.

use std::time::Duration;

use nephrite_io::{
    BackendChoice, DiskOptions, IoErrorKind, block_on, open_disk, read, read_many, sync, write,
    write_synced,
};

use crate::support::{Bench, assert_balanced, backends, buffer, buffer_of};

/// None where this machine is said to have no rings (see `support`).
fn polled() -> Option<Bench> {
    let options = DiskOptions::new().backend(BackendChoice::Uring).ring_entries(32);
    // The kernel thread goes to sleep between most of the operations below.
    let options = options.submission_polling(Duration::from_millis(1));
    backends().contains(&BackendChoice::Uring).then(|| Bench::new(options))
}

#[test]
fn transfers_end_whether_the_polling_thread_sleeps_or_not() {
    let Some(bench) = polled() else { return };
    let report = bench.disk.report();
    let polls = report.ring_flags.iter().any(|flag| flag == "SQPOLL");
    assert_eq!(polls, report.polling_refusal.is_none(), "{report}");
    let (disk, file) = (&*bench.disk, bench.create("file"));

    for block in 0..100u64 {
        let bytes = [block.to_le_bytes()[0]; 4096];
        block_on(write(disk, &file, block * 4096, buffer_of(&bytes))).unwrap();
        // Longer than the idle time now and then.
        std::thread::park_timeout(Duration::from_millis(block % 4));
        let back = block_on(read(disk, &file, block * 4096, buffer(4096))).unwrap();
        assert_eq!(back.as_slice(), bytes);
    }
    block_on(sync(disk, &file)).unwrap();
    block_on(write_synced(disk, &file, 0, buffer_of(&[9; 4096]))).unwrap();
    let ranges = (0..1000u64).map(|index| (index % 100 * 4096, buffer(4096))).collect();
    let many = block_on(read_many(disk, &file, ranges)).unwrap();
    for (index, bytes) in many.iter().enumerate().filter(|(index, _)| index % 100 != 0) {
        assert_eq!(usize::from(bytes.as_slice()[4095]), index % 100);
    }

    block_on(bench.disk.shutdown()).unwrap();
    assert_balanced(bench.disk.stats());
}

#[test]
fn futures_dropped_under_polling_leave_nothing_behind() {
    let Some(bench) = polled() else { return };
    let file = bench.file_with("file", &[5; 65_536]);

    for index in 0..500u64 {
        drop(read(&*bench.disk, &file, index % 16 * 4096, buffer(4096)));
    }
    block_on(bench.disk.shutdown()).unwrap();

    assert_balanced(bench.disk.stats());
    assert_eq!(bench.disk.stats().leaked, 0);
}

/// On a machine whose device has no queues for polling, this is the way around it.
#[test]
fn completions_are_polled_for_or_the_report_says_why_not() {
    if !backends().contains(&BackendChoice::Uring) {
        return;
    }
    let options = DiskOptions::new().backend(BackendChoice::Uring).ring_entries(32);
    let bench = Bench::new(options.completion_polling(true));
    let report = bench.disk.report();
    assert_ne!(report.completions_polled, report.completion_refusal.is_some(), "{report}");
    if report.device_polls == Some(false) {
        let refusal = report.completion_refusal.as_deref().unwrap();
        assert!(refusal.contains("poll_queues=N"), "{refusal}");
        assert!(report.to_string().contains(refusal), "{report}");
    }
    assert_eq!(report.degraded, None, "the other rings go on");

    let (disk, file) = (&*bench.disk, bench.create("file"));
    for block in 0..50u64 {
        let bytes = [block.to_le_bytes()[0]; 4096];
        block_on(write(disk, &file, block * 4096, buffer_of(&bytes))).unwrap();
        let back = block_on(read(disk, &file, block * 4096, buffer(4096))).unwrap();
        assert_eq!(back.as_slice(), bytes);
    }
    block_on(sync(disk, &file)).unwrap();
    block_on(write_synced(disk, &file, 0, buffer_of(&[9; 4096]))).unwrap();
    if report.device_polls == Some(false) {
        assert_eq!(bench.disk.stats().fallbacks, 0);
    }
}

#[test]
fn nothing_is_polled_for_unless_asked_for() {
    let bench = Bench::new(DiskOptions::new());

    let report = bench.disk.report();
    assert_eq!((report.completions_polled, report.completion_refusal), (false, None));
}

#[test]
fn an_idle_time_out_of_range_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let options = DiskOptions::new().submission_polling(Duration::from_secs(61));

    let error = open_disk(options, directory.path()).unwrap_err();

    assert_eq!(error.kind(), IoErrorKind::InvalidRequest);
}
