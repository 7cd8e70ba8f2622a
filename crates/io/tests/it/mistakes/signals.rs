//! A storm of signals, which interrupts every sleep and every system call of every thread.

use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use nephrite_io::{block_on, drive, read, read_many, sync, write};

use crate::child::{is_child, run_alone};
use crate::support::{assert_balanced, benches, buffer, buffer_of};

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_signal: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Five thousand signals a second, to whichever thread the kernel picks, without SA_RESTART: system
/// calls that sleep end with EINTR.
fn start_storm() {
    let handler: extern "C" fn(libc::c_int) = count;
    // SAFETY: all zeros are a valid value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // SAFETY: the structure lives during the call; the handler only adds to an atomic number.
    let installed = unsafe { libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut()) };
    assert_eq!(installed, 0);
    let every = libc::timeval { tv_sec: 0, tv_usec: 200 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: the structure lives during the call.
    let started = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
    assert_eq!(started, 0);
}

#[test]
fn a_storm_of_signals_changes_no_result() {
    if !is_child() {
        return run_alone("mistakes::signals::a_storm_of_signals_changes_no_result");
    }
    let benches = benches();
    start_storm();
    for bench in &benches {
        let file = bench.file_with("file", &vec![0; 256 * 4096]);
        for round in 0..40u8 {
            let writes: Vec<_> = (0..32u64)
                .map(|block| write(&*bench.disk, &file, block * 4096, buffer_of(&[round; 4096])))
                .collect();
            for write in writes {
                block_on(write).unwrap();
            }
            block_on(sync(&*bench.disk, &file)).unwrap();
            let ranges = || (0..64u64).map(|block| (block * 4096, buffer(4096))).collect();
            let blocks = block_on(read_many(&*bench.disk, &file, ranges())).unwrap();
            let driven = drive(&*bench.disk, read(&*bench.disk, &file, 0, buffer(4096))).unwrap();

            let written = |byte: &u8| *byte == round;
            assert!(blocks[..32].iter().all(|block| block.as_slice().iter().all(written)));
            assert!(blocks[32..].iter().all(|block| block.as_slice() == [0; 4096]));
            assert_eq!(driven.as_slice(), [round; 4096], "{} round {round}", bench.name());
        }
        block_on(bench.disk.shutdown()).unwrap();
        let stats = bench.disk.stats();
        assert_eq!((stats.errors, stats.fallbacks), (0, 0), "{}: {stats:?}", bench.name());
        assert_balanced(stats);
    }
    let signals = SIGNALS.load(Ordering::Relaxed);
    assert!(100 < signals, "only {signals} signals came");
}
