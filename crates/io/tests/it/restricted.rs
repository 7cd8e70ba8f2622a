//! Machines that forbid rings: a system call filter like a container's, before and after the start.
//!
//! Each test runs in a process of its own, since a filter stays for the life of the process.

use nephrite_io::{
    BackendChoice, DiskOptions, IoErrorKind, block_on, drive, open_disk, read, sync, write,
};

use crate::child::{is_child, run_alone};
use crate::filter::forbid;
use crate::support::{Bench, assert_balanced, backends, buffer, buffer_of};

#[test]
fn auto_degrades_where_rings_are_forbidden_and_says_why() {
    if !is_child() {
        return run_alone("restricted::auto_degrades_where_rings_are_forbidden_and_says_why");
    }
    forbid(libc::SYS_io_uring_setup, libc::EPERM);

    let bench = Bench::new(DiskOptions::new());

    let report = bench.disk.report();
    assert_eq!((report.requested, report.chosen), (BackendChoice::Auto, BackendChoice::Positional));
    assert!(report.reason.contains("seccomp") || report.reason.contains("sysctl"), "{report}");
    let file = bench.create("file");
    block_on(write(&*bench.disk, &file, 0, buffer_of(&[8; 4096]))).unwrap();
    block_on(sync(&*bench.disk, &file)).unwrap();
    let bytes = block_on(read(&*bench.disk, &file, 0, buffer(4096))).unwrap();
    assert_eq!(bytes.as_slice(), [8; 4096]);
}

/// What a forced ring says in this process, where it does not work.
fn forced_ring_error() -> String {
    let directory = tempfile::tempdir().unwrap();
    let options = DiskOptions::new().backend(BackendChoice::Uring);
    let error = open_disk(options, directory.path()).unwrap_err();
    assert_eq!(error.kind(), IoErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("io_uring was asked for, but"), "{error}");
    error.to_string()
}

#[test]
fn a_forced_ring_fails_loudly_where_it_is_forbidden() {
    if !is_child() {
        return run_alone("restricted::a_forced_ring_fails_loudly_where_it_is_forbidden");
    }
    forbid(libc::SYS_io_uring_setup, libc::EPERM);
    assert_names_the_filter(&forced_ring_error());
    let report = Bench::new(DiskOptions::new()).disk.report();
    assert_eq!(report.limits.seccomp.as_deref(), Some("filter"), "{report}");
}

/// The sysctl, where it is set, is the cause that is named instead.
fn assert_names_the_filter(text: &str) {
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let switched_off = sysctl.is_ok_and(|level| level.trim() != "0");
    let cure = if switched_off { "sysctl" } else { "allow io_uring_setup, io_uring_enter" };
    assert!(text.contains(cure), "{text}");
}

/// Some profiles answer EACCES instead.
#[test]
fn a_filter_that_says_eacces_is_named_as_one() {
    if !is_child() {
        return run_alone("restricted::a_filter_that_says_eacces_is_named_as_one");
    }
    forbid(libc::SYS_io_uring_setup, libc::EACCES);

    assert_names_the_filter(&forced_ring_error());
    let report = Bench::new(DiskOptions::new()).disk.report();
    assert_eq!(report.chosen, BackendChoice::Positional, "{report}");
    assert_names_the_filter(&report.reason);
}

#[test]
fn a_forced_ring_fails_loudly_where_the_kernel_has_none() {
    if !is_child() {
        return run_alone("restricted::a_forced_ring_fails_loudly_where_the_kernel_has_none");
    }
    forbid(libc::SYS_io_uring_setup, libc::ENOSYS);

    let error = forced_ring_error();

    assert!(error.contains("run on Linux 5.11 or later, outside the sandbox"), "{error}");
}

/// Without the right to lock memory at all. Root has that right whatever the limit, so the process
/// becomes somebody else first.
#[test]
fn a_forced_ring_without_lockable_memory_names_the_limit() {
    if !is_child() {
        return run_alone("restricted::a_forced_ring_without_lockable_memory_names_the_limit");
    }
    if !backends().contains(&BackendChoice::Uring) {
        return;
    }
    become_nobody();
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit lives until the call returns.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const none) }, 0);

    let report = Bench::new(DiskOptions::new()).disk.report();
    assert_eq!(report.limits.locked_memory_bytes, Some(0), "{report}");
    if report.chosen == BackendChoice::Uring {
        // A kernel that counts the rings of a process against its control group instead.
        return;
    }
    assert!(report.reason.contains("ulimit -l"), "{report}");
    assert!(forced_ring_error().contains("raise it (`ulimit -l`, LimitMEMLOCK) to 8 MiB"));
}

pub(crate) fn become_nobody() {
    const NOBODY: u32 = 65_534;
    // SAFETY: the call takes nothing and reports about this process.
    if unsafe { libc::geteuid() } == 0 {
        // SAFETY: the call takes only numbers, and changes the user of all threads.
        assert_eq!(unsafe { libc::setuid(NOBODY) }, 0);
    }
}

#[test]
fn a_kernel_without_rings_is_named() {
    if !is_child() {
        return run_alone("restricted::a_kernel_without_rings_is_named");
    }
    forbid(libc::SYS_io_uring_setup, libc::ENOSYS);

    let bench = Bench::new(DiskOptions::new());

    assert_eq!(bench.disk.report().chosen, BackendChoice::Positional);
    assert!(bench.disk.report().reason.contains("ENOSYS"), "{}", bench.disk.report());
}

#[test]
fn a_sandbox_that_lets_rings_be_set_up_but_not_used_is_noticed() {
    if !is_child() {
        return run_alone(
            "restricted::a_sandbox_that_lets_rings_be_set_up_but_not_used_is_noticed",
        );
    }
    if !backends().contains(&BackendChoice::Uring) {
        return;
    }
    forbid(libc::SYS_io_uring_enter, libc::EPERM);

    let bench = Bench::new(DiskOptions::new());

    let report = bench.disk.report();
    assert_eq!(report.chosen, BackendChoice::Positional, "{report}");
    assert!(report.reason.contains("refuse"), "{report}");
}

#[test]
fn a_filter_installed_later_degrades_a_running_disk() {
    if !is_child() {
        return run_alone("restricted::a_filter_installed_later_degrades_a_running_disk");
    }
    if !backends().contains(&BackendChoice::Uring) {
        return;
    }
    let bench = Bench::new(DiskOptions::new().backend(BackendChoice::Uring));
    let file = bench.file_with("file", &[6; 65_536]);
    block_on(read(&*bench.disk, &file, 0, buffer(4096))).unwrap();

    forbid(libc::SYS_io_uring_enter, libc::EPERM);
    for index in 0..100 {
        let bytes = block_on(read(&*bench.disk, &file, index % 16 * 4096, buffer(4096)));
        assert_eq!(bytes.unwrap().as_slice(), [6; 4096], "read {index}");
    }

    let (report, stats) = (bench.disk.report(), bench.disk.stats());
    assert!(report.degraded.is_some_and(|reason| reason.contains("refuses to be entered")));
    assert!(99 <= stats.fallbacks, "{stats:?}");
    assert_balanced(stats);
    block_on(bench.disk.shutdown()).unwrap();
}

#[test]
fn callers_without_a_ring_of_their_own_are_served_by_the_disks_threads() {
    if !is_child() {
        return run_alone(
            "restricted::callers_without_a_ring_of_their_own_are_served_by_the_disks_threads",
        );
    }
    if !backends().contains(&BackendChoice::Uring) {
        return;
    }
    for errno in [libc::ENOMEM, libc::EPERM] {
        let bench = Bench::new(DiskOptions::new().backend(BackendChoice::Uring));
        let file = bench.file_with("file", &[6; 65_536]);
        if errno == libc::ENOMEM {
            no_lockable_memory();
        } else {
            forbid(libc::SYS_io_uring_setup, errno);
        }

        for _ in 0..2 {
            let one = async { read(&*bench.disk, &file, 4096, buffer(4096)).await };
            assert_eq!(drive(&*bench.disk, one).unwrap().as_slice(), [6; 4096]);
        }

        let (report, stats) = (bench.disk.report(), bench.disk.stats());
        assert_eq!(report.degraded, None, "the ring threads go on");
        // A privileged process may lock what it likes.
        if let Some(reason) = report.caller_refusal {
            assert_eq!((stats.caller_driven, stats.caller_parks), (0, 2), "{reason}");
        } else {
            assert_eq!((errno, stats.caller_driven), (libc::ENOMEM, 2));
        }
        assert_balanced(stats);
        block_on(bench.disk.shutdown()).unwrap();
        if errno == libc::ENOMEM {
            lockable_memory_again();
        }
    }
}

fn limit_lockable_memory(bytes: libc::rlim_t) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours and writable.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) }, 0);
    limit.rlim_cur = bytes.min(limit.rlim_max);
    // SAFETY: the structure lives until the call returns.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }, 0);
}

fn no_lockable_memory() {
    limit_lockable_memory(0);
}

fn lockable_memory_again() {
    limit_lockable_memory(libc::RLIM_INFINITY);
}

/// Takes all descriptors that this process may have, until they are dropped.
fn no_descriptor_left() -> Vec<std::fs::File> {
    let limit = libc::rlimit { rlim_cur: 512, rlim_max: 512 };
    // SAFETY: the structure lives until the call returns.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect()
}

#[test]
fn a_thread_that_was_refused_a_ring_gets_one_when_the_cause_is_gone() {
    if !is_child() {
        return run_alone(
            "restricted::a_thread_that_was_refused_a_ring_gets_one_when_the_cause_is_gone",
        );
    }
    if !backends().contains(&BackendChoice::Uring) {
        return;
    }
    let bench = Bench::new(DiskOptions::new().backend(BackendChoice::Uring));
    let file = bench.file_with("file", &[6; 65_536]);
    let one = || async { read(&*bench.disk, &file, 4096, buffer(4096)).await };

    let taken = no_descriptor_left();
    for _ in 0..40 {
        assert_eq!(drive(&*bench.disk, one()).unwrap().as_slice(), [6; 4096]);
    }
    drop(taken);
    let refusal = bench.disk.report().caller_refusal.expect("there was no descriptor for a ring");
    assert!(refusal.contains("ulimit -n"), "{refusal}");
    assert_eq!(bench.disk.stats().caller_driven, 0);

    for _ in 0..100 {
        assert_eq!(drive(&*bench.disk, one()).unwrap().as_slice(), [6; 4096]);
    }
    assert!(0 < bench.disk.stats().caller_driven, "{:?}", bench.disk.stats());
    assert_eq!(bench.disk.report().caller_refusal, None);
}

#[test]
fn a_callers_ring_that_is_refused_later_passes_its_requests_on() {
    if !is_child() {
        return run_alone(
            "restricted::a_callers_ring_that_is_refused_later_passes_its_requests_on",
        );
    }
    if !backends().contains(&BackendChoice::Uring) {
        return;
    }
    let bench = Bench::new(DiskOptions::new().backend(BackendChoice::Uring));
    let file = bench.file_with("file", &[6; 65_536]);
    let one = || async { read(&*bench.disk, &file, 4096, buffer(4096)).await };
    drive(&*bench.disk, one()).unwrap();

    forbid(libc::SYS_io_uring_enter, libc::EPERM);
    for _ in 0..20 {
        assert_eq!(drive(&*bench.disk, one()).unwrap().as_slice(), [6; 4096]);
    }

    let (report, stats) = (bench.disk.report(), bench.disk.stats());
    assert!(report.degraded.is_some_and(|reason| reason.contains("refuses to be entered")));
    assert_eq!((stats.caller_driven, stats.fallbacks), (2, 20), "{stats:?}");
    assert_balanced(stats);
    block_on(bench.disk.shutdown()).unwrap();
}
