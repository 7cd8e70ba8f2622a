//! Whoever asked goes away: futures, executors, threads, disks.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use nephrite_io::{
    Completed, Disk, DiskOptions, FileHandle, IoError, OpenOptions, Operation, Request, block_on,
    read, read_many, sync, write, write_synced,
};

use crate::support::{Bench, assert_balanced, backends, benches, buffer, buffer_of};

const BLOCK: u64 = 4096;

/// Wakes whoever holds the other end.
struct Bell(Mutex<Sender<()>>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // Who waited may be gone.
        let _ = self.0.lock().unwrap().send(());
    }
}

pub(super) fn bell() -> (Waker, Receiver<()>) {
    let (sender, receiver) = channel();
    (Waker::from(Arc::new(Bell(Mutex::new(sender)))), receiver)
}

/// Every kind of operation, one after the other. Blocks 1 and 3 of the file are never touched.
async fn session(disk: Arc<dyn Disk>, file: FileHandle) -> Result<(), IoError> {
    let written = write(&*disk, &file, 0, buffer_of(&[1; 4096])).await?;
    sync(&*disk, &file).await?;
    let synced = write_synced(&*disk, &file, 2 * BLOCK, buffer_of(&[2; 4096])).await?;
    let again = read(&*disk, &file, 0, written).await?;
    assert_eq!(again.as_slice(), [1; 4096]);
    let many = vec![(BLOCK, buffer(4096)), (2 * BLOCK, synced), (3 * BLOCK, buffer(4096))];
    let blocks = read_many(&*disk, &file, many).await?;
    let firsts: Vec<u8> = blocks.iter().map(|block| block.as_slice()[0]).collect();
    assert_eq!(firsts, [9, 2, 9]);
    Ok(())
}

/// Polls until the future has waited so many times, then drops it. Whether it got to its end.
fn drop_at_wait<T>(mut future: Pin<Box<dyn Future<Output = T>>>, waits: usize) -> bool {
    let (waker, rung) = bell();
    for wait in 0.. {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(_) => return true,
            Poll::Pending if wait == waits => return false,
            Poll::Pending => rung.recv().unwrap(),
        }
    }
    unreachable!("the loop has no end of its own")
}

#[test]
fn a_future_can_be_dropped_at_every_point_where_it_waits() {
    for bench in benches() {
        let file = bench.file_with("file", &[9; 4 * 4096]);
        let session = || Box::pin(session(Arc::clone(&bench.disk), file.clone()));

        let waits = (0..).find(|waits| drop_at_wait(session(), *waits)).unwrap();

        assert!(waits <= 5, "{waits} waits for five operations");
        block_on(session()).unwrap();
        block_on(bench.disk.shutdown()).unwrap();
        let bytes = std::fs::read(bench.path("file")).unwrap();
        let firsts: Vec<u8> = bytes.chunks(4096).map(|block| block[0]).collect();
        assert_eq!(firsts, [1, 9, 2, 9], "{}", bench.name());
        assert_balanced(bench.disk.stats());
    }
}

/// An executor's thread ends with tasks on it: futures and wakers go together, in no good order.
#[test]
fn an_executor_can_go_with_operations_in_flight() {
    for backend in backends() {
        let bench = Bench::new(DiskOptions::new().backend(backend).ring_entries(32));
        let file = bench.file_with("file", &[9; 4 * 4096]);
        for _ in 0..10 {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut tasks: Vec<_> = (0..100)
                        .map(|_| Box::pin(session(Arc::clone(&bench.disk), file.clone())))
                        .collect();
                    let (waker, rung) = bell();
                    for task in &mut tasks {
                        let _ = task.as_mut().poll(&mut Context::from_waker(&waker));
                    }
                    drop(rung);
                });
            });
        }

        block_on(session(Arc::clone(&bench.disk), file)).unwrap();

        block_on(bench.disk.shutdown()).unwrap();
        let stats = bench.disk.stats();
        assert_eq!(stats.errors, 0, "{}: {stats:?}", bench.name());
        assert_balanced(stats);
    }
}

/// The kernel cancels what a thread has in flight when the thread ends, so operations must never be
/// in flight on behalf of the threads that ask for them.
#[test]
fn threads_that_submit_and_end_at_once_lose_nothing() {
    for bench in benches() {
        let file = bench.file_with("file", &vec![0; 64 * 4096]);
        let (sender, outcomes) = channel();
        for thread in 0..64u8 {
            let (disk, file, sender) = (Arc::clone(&bench.disk), file.clone(), sender.clone());
            let submit = move || {
                let batch = (0..20).map(|index| {
                    let offset = u64::from(thread) * BLOCK;
                    let buffer = buffer_of(&[thread; 4096]);
                    let operation = match index {
                        0 => Operation::Sync,
                        _ => Operation::Write { offset, buffer },
                    };
                    let sender = sender.clone();
                    let tell = move |completed: Completed| sender.send(completed.result).unwrap();
                    Request { file: file.clone(), operation, on_complete: Box::new(tell) }
                });
                disk.submit(batch.collect());
            };
            // Nobody joins it: it ends when it has submitted.
            drop(std::thread::Builder::new().spawn(submit).unwrap());
        }
        drop(sender);

        let results: Vec<Result<(), IoError>> = outcomes.iter().collect();

        assert_eq!(results.len(), 64 * 20);
        for result in results {
            result.unwrap();
        }
        block_on(bench.disk.shutdown()).unwrap();
        let bytes = std::fs::read(bench.path("file")).unwrap();
        for (thread, block) in (0..64u8).zip(bytes.chunks(4096)) {
            assert!(block.iter().all(|byte| *byte == thread), "block {thread}");
        }
        assert_balanced(bench.disk.stats());
    }
}

/// A task that holds many finished operations without looking at them holds no entry of the ring.
#[test]
fn operations_end_although_nobody_polls() {
    for backend in backends() {
        let bench = Bench::new(DiskOptions::new().backend(backend).ring_entries(32));
        let file = bench.file_with("file", &[9; 4096]);
        let unpolled: Vec<_> =
            (0..500).map(|_| read(&*bench.disk, &file, 0, buffer(4096))).collect();

        assert_eq!(block_on(read(&*bench.disk, &file, 0, buffer(4096))).unwrap().len(), 4096);

        for read in unpolled {
            block_on(read).unwrap();
        }
        assert_balanced(bench.disk.stats());
    }
}

/// A closed ring gives its memory back some time after the close.
#[test]
fn disks_open_and_close_over_and_over() {
    for backend in backends() {
        for round in 0..30 {
            let bench = Bench::new(DiskOptions::new().backend(backend));
            let file = bench.file_with("file", &[9; 4096]);
            let pending = read(&*bench.disk, &file, 0, buffer(4096));
            match round % 2 {
                0 => drop(bench),
                _ => bench.drop_without_shutdown(),
            }
            block_on(pending).unwrap();
        }
    }
}

/// The disk goes first, then the futures of what it had in flight.
#[test]
fn futures_may_outlive_their_disk() {
    for backend in backends() {
        let bench = Bench::new(DiskOptions::new().backend(backend));
        let file = bench.file_with("file", &[9; 65_536]);
        let reads: Vec<_> = (0..100u64)
            .map(|index| read(&*bench.disk, &file, index % 16 * BLOCK, buffer(4096)))
            .collect();

        bench.drop_without_shutdown();

        for read in reads {
            assert_eq!(block_on(read).unwrap().as_slice(), [9; 4096]);
        }
    }
}

/// Handle and name go while a read is in flight; the file itself stays until the read has ended.
#[test]
fn a_file_may_go_by_handle_and_name_before_its_read_ends() {
    for bench in benches() {
        let file = bench.file_with("file", &[9; 4096]);
        let pending = read(&*bench.disk, &file, 0, buffer(4096));
        drop(file);
        std::fs::remove_file(bench.path("file")).unwrap();

        assert_eq!(block_on(pending).unwrap().as_slice(), [9; 4096], "{}", bench.name());

        let path = bench.path("file");
        assert!(block_on(bench.disk.open(&path, OpenOptions::read_only())).is_err());
        block_on(bench.disk.shutdown()).unwrap();
        assert_balanced(bench.disk.stats());
    }
}
