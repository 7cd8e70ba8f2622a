//! Far more requests than the queues hold: all are served, nothing overflows, none starves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use nephrite_io::{
    Completed, Disk, DiskOptions, FileHandle, Operation, Request, block_on, read, read_many,
};

use crate::support::{Bench, assert_balanced, backends, benches, buffer, buffer_of};

/// Counts down completions, and lets a test wait for the last one.
#[derive(Default)]
struct Countdown {
    left: Mutex<usize>,
    zero: Condvar,
    failed: AtomicUsize,
}

impl Countdown {
    fn of(count: usize) -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(count), ..Self::default() })
    }

    fn request(self: &Arc<Self>, file: &FileHandle, operation: Operation) -> Request {
        let countdown = Arc::clone(self);
        let on_complete = Box::new(move |completed: Completed| {
            countdown.failed.fetch_add(usize::from(completed.result.is_err()), Ordering::Relaxed);
            *countdown.left.lock().unwrap() -= 1;
            countdown.zero.notify_all();
        });
        Request { file: file.clone(), operation, on_complete }
    }

    fn wait(&self) {
        let left = self.zero.wait_while(self.left.lock().unwrap(), |left| *left > 0);
        assert_eq!(*left.unwrap(), 0);
        assert_eq!(self.failed.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn ten_thousand_requests_pass_a_small_ring() {
    for bench in benches() {
        let file = bench.file_with("file", &vec![3; 1 << 20]);
        let countdown = Countdown::of(10_000);
        let requests = (0..10_000u64).map(|index| {
            let offset = index % 256 * 4096;
            let operation = match index % 100 {
                0 => Operation::Sync,
                1..30 => Operation::Write { offset, buffer: buffer_of(&[3; 4096]) },
                _ => Operation::Read { offset, buffer: buffer(4096) },
            };
            countdown.request(&file, operation)
        });

        bench.disk.submit(requests.collect());
        countdown.wait();

        let stats = bench.disk.stats();
        assert_balanced(stats);
        assert!(7000 < stats.reads && 2900 <= stats.writes && 100 <= stats.syncs, "{stats:?}");
    }
}

#[test]
fn many_threads_with_single_requests_are_all_served() {
    for backend in backends() {
        let options = DiskOptions::new().backend(backend).ring_entries(32).ring_threads(2);
        let bench = Bench::new(options);
        let file = bench.file_with("file", &vec![3; 1 << 20]);
        let countdown = Countdown::of(8 * 1500);

        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (countdown, file, disk) = (&countdown, &file, &bench.disk);
                scope.spawn(move || {
                    for index in 0..1500 {
                        let offset = (index + thread) % 256 * 4096;
                        let operation = Operation::Read { offset, buffer: buffer(4096) };
                        disk.submit(vec![countdown.request(file, operation)]);
                    }
                });
            }
        });
        countdown.wait();

        assert_balanced(bench.disk.stats());
    }
}

#[test]
fn completions_may_submit_again() {
    fn chain(disk: Arc<dyn Disk>, file: FileHandle, left: usize, done: Arc<Countdown>) {
        let next = (Arc::clone(&disk), file.clone());
        let operation = Operation::Read { offset: 0, buffer: buffer(4096) };
        if left == 0 {
            return disk.submit(vec![done.request(&file, operation)]);
        }
        let on_complete = Box::new(move |completed: Completed| {
            completed.result.unwrap();
            let (disk, file) = next;
            chain(disk, file, left - 1, done);
        });
        disk.submit(vec![Request { file, operation, on_complete }]);
    }

    for bench in benches() {
        let file = bench.file_with("file", &[1; 4096]);
        let done = Countdown::of(20);

        for _ in 0..20 {
            chain(Arc::clone(&bench.disk), file.clone(), 100, Arc::clone(&done));
        }
        done.wait();

        assert_balanced(bench.disk.stats());
    }
}

#[test]
fn reads_finish_while_a_flood_of_writes_waits() {
    for bench in benches() {
        let file = bench.file_with("file", &vec![3; 1 << 20]);
        let writes = Countdown::of(4000);
        let batch = (0..4000u64).map(|index| {
            let (offset, buffer) = (index % 16 * 65_536, buffer_of(&[3; 65_536]));
            writes.request(&file, Operation::Write { offset, buffer })
        });
        let batch: Vec<Request> = batch.collect();
        std::thread::scope(|scope| {
            scope.spawn(|| bench.disk.submit(batch));

            for index in 0..5 {
                block_on(read(&*bench.disk, &file, index * 4096, buffer(4096))).unwrap();
            }
            let left = *writes.left.lock().unwrap();

            assert!(left > 0, "{}: the reads waited for all writes", bench.name());
        });
        writes.wait();
        assert_balanced(bench.disk.stats());
    }
}

#[test]
fn large_transfers_arrive_whole() {
    for bench in benches() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|index| index.to_le_bytes()[1]).collect();
        let bytes = &bytes[..2_998_272];
        let file = bench.create("file");

        block_on(nephrite_io::write(&*bench.disk, &file, 4096, buffer_of(bytes))).unwrap();
        let ranges = vec![(4096, buffer(bytes.len())), (8192, buffer(bytes.len() - 4096))];
        let back = block_on(read_many(&*bench.disk, &file, ranges)).unwrap();

        assert!(back[0].as_slice() == bytes && back[1].as_slice() == &bytes[4096..]);
    }
}
