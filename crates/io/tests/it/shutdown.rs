//! The end of a disk, and its peace before that.

use nephrite_io::{DiskOptions, IoErrorKind, OpenOptions, block_on, read, write};

use crate::support::{Bench, assert_balanced, backends, benches, buffer};

#[test]
fn shutdown_lets_requests_in_flight_finish() {
    for bench in benches() {
        let file = bench.file_with("file", &vec![4; 1 << 20]);
        let reads: Vec<_> = (0..600u64)
            .map(|index| read(&*bench.disk, &file, index % 256 * 4096, buffer(4096)))
            .collect();

        block_on(bench.disk.shutdown()).unwrap();

        for read in reads {
            assert!(block_on(read).unwrap().as_slice().iter().all(|byte| *byte == 4));
        }
        assert_balanced(bench.disk.stats());
    }
}

#[test]
fn after_a_shutdown_everything_is_refused() {
    for bench in benches() {
        let file = bench.file_with("file", &[4; 4096]);
        block_on(bench.disk.shutdown()).unwrap();

        let read = block_on(read(&*bench.disk, &file, 0, buffer(4096))).unwrap_err();
        let write = block_on(write(&*bench.disk, &file, 0, buffer(4096))).unwrap_err();
        let open = block_on(bench.disk.open(&bench.path("file"), OpenOptions::read_only()));

        assert_eq!(read.kind(), IoErrorKind::Closed);
        assert_eq!((write.kind(), write.offset()), (IoErrorKind::Closed, Some(0)));
        assert_eq!(open.unwrap_err().kind(), IoErrorKind::Closed);
        assert!(file.poisoned().is_none());
        block_on(bench.disk.shutdown()).unwrap();
        assert_balanced(bench.disk.stats());
    }
}

#[test]
fn submitters_racing_with_a_shutdown_all_get_an_answer() {
    for backend in backends() {
        for _ in 0..20 {
            let options = DiskOptions::new().backend(backend).ring_entries(32);
            let bench = Bench::new(options);
            let file = bench.file_with("file", &[4; 4096]);

            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        let read = || block_on(read(&*bench.disk, &file, 0, buffer(4096)));
                        while let Ok(bytes) = read() {
                            assert_eq!(bytes.as_slice()[0], 4);
                        }
                        assert_eq!(read().unwrap_err().kind(), IoErrorKind::Closed);
                    });
                }
                block_on(read(&*bench.disk, &file, 0, buffer(4096))).unwrap();
                block_on(bench.disk.shutdown()).unwrap();
            });

            assert_balanced(bench.disk.stats());
        }
    }
}

#[cfg(target_os = "linux")]
mod alone {
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use nephrite_io::{Operation, Request};

    use super::*;
    use crate::child::{is_child, run_alone, run_until_abort};

    /// Names of this process's threads that belong to a disk.
    fn io_threads() -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks
            .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
            .filter(|name| name.starts_with("nephrite-"))
            .collect()
    }

    /// A joined thread's entry may outlive the join by an instant.
    fn assert_no_thread_is_left() {
        for _ in 0..10_000 {
            if io_threads().is_empty() {
                return;
            }
            std::thread::yield_now();
        }
        panic!("threads left: {:?}", io_threads());
    }

    #[test]
    fn no_thread_is_left_after_shutdown_or_drop() {
        if !is_child() {
            return run_alone("shutdown::alone::no_thread_is_left_after_shutdown_or_drop");
        }
        for backend in backends() {
            let bench = Bench::new(DiskOptions::new().backend(backend));
            let file = bench.file_with("file", &[4; 4096]);
            block_on(read(&*bench.disk, &file, 0, buffer(4096))).unwrap();
            assert!(!io_threads().is_empty());
            block_on(bench.disk.shutdown()).unwrap();
            assert_no_thread_is_left();
            drop(bench);

            let bench = Bench::new(DiskOptions::new().backend(backend));
            let file = bench.file_with("file", &[4; 4096]);
            drop(read(&*bench.disk, &file, 0, buffer(4096)));
            bench.drop_without_shutdown();
            assert_no_thread_is_left();
        }
    }

    fn processor_time() -> Duration {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the pointer is to writable memory of the right type.
        let outcome = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
        assert_eq!(outcome, 0);
        // SAFETY: zeroed at first, and filled in by the successful call.
        let usage = unsafe { usage.assume_init() };
        let time = |value: libc::timeval| {
            Duration::from_secs(u64::try_from(value.tv_sec).unwrap())
                + Duration::from_micros(u64::try_from(value.tv_usec).unwrap())
        };
        time(usage.ru_utime) + time(usage.ru_stime)
    }

    #[test]
    fn an_idle_disk_uses_no_processor_time() {
        if !is_child() {
            return run_alone("shutdown::alone::an_idle_disk_uses_no_processor_time");
        }
        let benches = benches();
        for bench in &benches {
            let file = bench.file_with("file", &[4; 4096]);
            block_on(read(&*bench.disk, &file, 0, buffer(4096))).unwrap();
        }
        let before = processor_time();
        let (never, signal) = (Mutex::new(()), Condvar::new());

        let idle = Duration::from_secs(1);
        drop(signal.wait_timeout_while(never.lock().unwrap(), idle, |()| true));

        let used = processor_time() - before;
        assert!(used < Duration::from_millis(20), "{used:?} of processor time in an idle second");
    }

    #[test]
    fn a_completion_that_panics_ends_the_process() {
        if !is_child() {
            let test = "shutdown::alone::a_completion_that_panics_ends_the_process";
            let said = run_until_abort(test);
            assert!(said.contains("a completion callback panicked on an I/O thread"), "{said}");
            return;
        }
        let bench = benches().pop().unwrap();
        let file = bench.file_with("file", &[4; 4096]);
        let operation = Operation::Read { offset: 0, buffer: buffer(4096) };
        let on_complete = Box::new(|_| panic!("planned"));

        bench.disk.submit(vec![Request { file, operation, on_complete }]);

        block_on(std::future::pending::<()>());
    }

    #[test]
    fn a_forked_child_is_refused() {
        if !is_child() {
            return run_alone("shutdown::alone::a_forked_child_is_refused");
        }
        for bench in benches() {
            let file = bench.file_with("file", &[4; 4096]);

            // SAFETY: the forked process only uses the disk, whose locks no other thread holds
            // while it is idle, and the allocator, which may be used after a fork; then it ends
            // without running destructors.
            let process = unsafe { libc::fork() };
            if process == 0 {
                let read = block_on(read(&*bench.disk, &file, 0, buffer(4096)));
                let open = block_on(bench.disk.open(file.path(), OpenOptions::read_only()));
                let refused = read.is_err_and(|error| error.kind() == IoErrorKind::Closed)
                    && open.is_err_and(|error| error.kind() == IoErrorKind::Closed);
                // SAFETY: ends the forked process at once.
                unsafe { libc::_exit(i32::from(!refused)) };
            }
            let mut status = -1;
            // SAFETY: waits for our own child, and writes its status into our variable.
            let waited = unsafe { libc::waitpid(process, &raw mut status, 0) };

            assert_eq!((waited, status), (process, 0), "{}", bench.name());
            block_on(read(&*bench.disk, &file, 0, buffer(4096))).unwrap();
        }
    }
}
