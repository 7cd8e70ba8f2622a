//! Rings that the calling thread drives: for blocking calls (`drive`) and as an object for hosts.

mod begins;
mod closing;

use std::future::Future;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nephrite_io::{
    BackendChoice, CallerRing, DiskOptions, FileHandle, IoErrorKind, OpenOptions, block_on, drive,
    read, read_many, sync, write, write_many, write_synced,
};

use crate::child::{is_child, run_alone};
use crate::support::{Bench, assert_balanced, backends, buffer, buffer_of};

/// None where this machine is said to have no rings (see `support`).
pub(crate) fn ring(options: DiskOptions) -> Option<Bench> {
    let uring = BackendChoice::Uring;
    backends().contains(&uring).then(|| Bench::new(options.backend(uring)))
}

pub(crate) fn blocks(bench: &Bench) -> FileHandle {
    let bytes: Vec<u8> = (0..64u8).flat_map(|block| [block; 4096]).collect();
    bench.file_with("blocks", &bytes)
}

/// What the threads of the disk did meanwhile, by the wake-ups that they needed.
fn wakes(bench: &Bench) -> u64 {
    bench.disk.stats().ring_wakes
}

pub(crate) fn pipe(bench: &Bench, name: &str) -> (FileHandle, std::fs::File) {
    let path = bench.path(name);
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let options = OpenOptions::read_write().direct(false);
    let reader = block_on(bench.disk.open(&path, options)).unwrap();
    (reader, std::fs::File::options().read(true).write(true).open(&path).unwrap())
}

#[test]
fn transfers_of_a_driven_future_need_no_other_thread() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let file = blocks(&bench);
    let before = wakes(&bench);

    for block in 0..64u8 {
        let bytes = drive(&*bench.disk, read(&*bench.disk, &file, 0, buffer(4096)));
        assert_eq!(bytes.unwrap().as_slice()[0], 0, "submitted outside, so by another thread");
        let bytes = drive(&*bench.disk, async {
            read(&*bench.disk, &file, u64::from(block) * 4096, buffer(4096)).await
        });
        assert_eq!(bytes.unwrap().as_slice()[0], block);
    }

    let stats = bench.disk.stats();
    assert_eq!(stats.caller_driven, 64, "{stats:?}");
    assert!(wakes(&bench) - before <= 64);
    assert_balanced(stats);
}

#[test]
fn many_requests_that_are_all_refused_leave_the_ring_idle() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    blocks(&bench);
    let file = block_on(bench.disk.open(&bench.path("blocks"), OpenOptions::read_only())).unwrap();

    let refused = drive(&*bench.disk, async {
        let wanted = (0..16).map(|block| (block * 4096, buffer(4096))).collect();
        write_many(&*bench.disk, &file, wanted).await
    });

    assert_eq!(refused.unwrap_err().kind(), IoErrorKind::InvalidRequest);
    block_on(bench.disk.shutdown()).unwrap();
    assert_balanced(bench.disk.stats());
}

#[test]
fn every_operation_gives_the_same_results_on_a_callers_ring() {
    for bench in crate::support::benches() {
        let file = bench.create("file");
        let disk = &*bench.disk;

        drive(disk, async {
            let bytes: Vec<u8> = (0..3u8).flat_map(|part| vec![part; 1 << 20]).collect();
            write(disk, &file, 0, buffer_of(&bytes)).await.unwrap();
            sync(disk, &file).await.unwrap();
            write_synced(disk, &file, 1 << 20, buffer_of(&[9; 4096])).await.unwrap();
            let back = read(disk, &file, 0, buffer(3 << 20)).await.unwrap();
            assert!(back.as_slice()[..1 << 20] == bytes[..1 << 20]);
            assert_eq!(back.as_slice()[1 << 20..(1 << 20) + 4096], [9; 4096]);
            let ranges = (0..500).map(|index| (index % 700 * 4096, buffer(4096))).collect();
            assert_eq!(read_many(disk, &file, ranges).await.unwrap().len(), 500);
            let past = read(disk, &file, 3 << 20, buffer(4096)).await.unwrap_err();
            assert_eq!(past.kind(), IoErrorKind::UnexpectedEof);
            if file.is_direct() {
                let odd = read(disk, &file, 1, buffer(4096)).await.unwrap_err();
                assert_eq!(odd.kind(), IoErrorKind::InvalidRequest);
            }
            assert_eq!(disk.file_len(&file).await.unwrap(), 3 << 20);
        });

        assert_balanced(bench.disk.stats());
        let on_ring = bench.name() == "uring";
        assert_eq!(0 < bench.disk.stats().caller_driven, on_ring);
        assert_eq!(0 < bench.disk.stats().caller_parks, !on_ring);
    }
}

#[test]
fn a_lone_read_of_cached_bytes_does_not_enter_the_ring() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    std::fs::write(bench.path("file"), [7; 10_000]).unwrap();
    let options = OpenOptions::read_only().direct(false);
    let file = block_on(bench.disk.open(&bench.path("file"), options)).unwrap();
    let read_at = |offset, len| {
        drive(&*bench.disk, async { read(&*bench.disk, &file, offset, buffer(len)).await })
    };
    // The first read may find the pages not yet readable without a wait.
    read_at(0, 10_000).unwrap();
    let before = bench.disk.stats();

    assert_eq!(read_at(3, 9_000).unwrap().as_slice(), [7; 9_000]);
    let after = bench.disk.stats();
    let past = read_at(9_000, 2_000).unwrap_err();

    assert_eq!(after.ring_enters, before.ring_enters);
    assert_eq!((after.reads - before.reads, after.bytes_read - before.bytes_read), (1, 9_000));
    assert_eq!((past.kind(), past.offset()), (IoErrorKind::UnexpectedEof, Some(9_000)));
    assert_balanced(bench.disk.stats());
}

/// Such a read takes as long as a request would, so it is none.
#[test]
fn a_read_of_cached_bytes_has_ended_when_it_is_first_polled() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    std::fs::write(bench.path("file"), [7; 8192]).unwrap();
    let options = OpenOptions::read_only().direct(false);
    let file = block_on(bench.disk.open(&bench.path("file"), options)).unwrap();
    let disk = &*bench.disk;
    let before = disk.stats();
    let poll = |read: &mut nephrite_io::IoFuture<_>| {
        read.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };

    drive(disk, async {
        read(disk, &file, 0, buffer(8192)).await.unwrap();
        let mut again = read(disk, &file, 4096, buffer(4096));
        let Poll::Ready(Ok(bytes)) = poll(&mut again) else { panic!("it has not ended") };
        assert_eq!(bytes.as_slice(), [7; 4096]);
        // Not while the ring is busy: what was asked for first may go first.
        let busy = read_many(disk, &file, vec![(0, buffer(4096)), (4096, buffer(4096))]);
        let mut later = read(disk, &file, 0, buffer(4096));
        assert!(poll(&mut later).is_pending());
        busy.await.unwrap();
        later.await.unwrap();
        // A closed disk takes nothing in.
        let end = disk.shutdown();
        let refused = read(disk, &file, 0, buffer(4096)).await.unwrap_err();
        assert_eq!(refused.kind(), IoErrorKind::Closed);
        drop(end);
    });

    let stats = disk.stats();
    assert_eq!((stats.caller_driven, stats.reads - before.reads), (5, 5), "{stats:?}");
    assert_eq!(stats.bytes_read - before.bytes_read, 8192 + 4 * 4096);
}

/// A future that is ready when another thread has woken it often enough.
struct Woken(Arc<AtomicUsize>, usize, mpsc::Sender<Waker>);

impl Future for Woken {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.1 <= self.0.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        self.2.send(context.waker().clone()).unwrap();
        Poll::Pending
    }
}

fn wake_from_elsewhere(times: usize) -> (Woken, std::thread::JoinHandle<()>) {
    let (sender, wakers) = mpsc::channel::<Waker>();
    let count = Arc::new(AtomicUsize::new(0));
    let woken = Woken(Arc::clone(&count), times, sender);
    let waking = move || {
        for waker in wakers.iter().take(times) {
            count.fetch_add(1, Ordering::SeqCst);
            waker.wake();
        }
    };
    (woken, std::thread::Builder::new().spawn(waking).unwrap())
}

#[test]
fn a_foreign_wake_ends_the_sleep_while_nothing_is_in_flight() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let (woken, thread) = wake_from_elsewhere(1000);

    drive(&*bench.disk, woken);

    thread.join().unwrap();
}

/// The read of the pipe ends only after the foreign wakes: without them this would hang.
#[test]
fn a_foreign_wake_ends_the_sleep_in_the_ring() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let (reader, mut writer) = pipe(&bench, "pipe");

    let bytes = drive(&*bench.disk, async {
        let mut stuck = read(&*bench.disk, &reader, 0, buffer(4096));
        let (woken, thread) = wake_from_elsewhere(1000);
        woken.await;
        thread.join().unwrap();
        assert!(stuck.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        std::io::Write::write_all(&mut writer, &[8; 4096]).unwrap();
        stuck.await.unwrap()
    });

    assert_eq!(bytes.as_slice(), [8; 4096]);
    assert!(0 < bench.disk.stats().caller_driven);
}

#[test]
fn what_a_future_leaves_in_flight_has_ended_when_drive_returns() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let file = blocks(&bench);

    for polls in 0..3 {
        let before = bench.disk.stats();
        drive(&*bench.disk, async {
            for index in 0..50u64 {
                let mut future = read(&*bench.disk, &file, index * 4096, buffer(4096));
                for _ in 0..polls {
                    let mut context = Context::from_waker(Waker::noop());
                    let _ = future.as_mut().poll(&mut context).is_ready();
                }
            }
        });
        let after = bench.disk.stats();

        assert_eq!(after.orphaned - before.orphaned, 50);
        assert_balanced(after);
    }
}

#[test]
fn a_panic_while_polling_leaves_nothing_in_flight() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let file = blocks(&bench);

    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        drive(&*bench.disk, async {
            let _kept: Vec<_> = (0..50u64)
                .map(|index| read(&*bench.disk, &file, index * 4096, buffer(4096)))
                .collect();
            panic!("planned");
        });
    }));

    assert!(outcome.is_err());
    assert_balanced(bench.disk.stats());
    let again = drive(&*bench.disk, async { read(&*bench.disk, &file, 0, buffer(4096)).await });
    assert!(again.is_ok());
    assert_eq!(bench.disk.stats().caller_driven, 51);
}

#[test]
fn drive_inside_drive_serves_both() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let Some(other) = ring(DiskOptions::new()) else { return };
    let (file, elsewhere) = (blocks(&bench), blocks(&other));

    drive(&*bench.disk, async {
        let outer = read(&*bench.disk, &file, 4096, buffer(4096));
        let inner = drive(&*bench.disk, async {
            read(&*bench.disk, &file, 8192, buffer(4096)).await.unwrap()
        });
        let foreign = drive(&*other.disk, async {
            read(&*other.disk, &elsewhere, 4096, buffer(4096)).await.unwrap()
        });
        assert_eq!(bench.disk.stats().delivered, bench.disk.stats().submitted);
        let later = read(&*bench.disk, &file, 3 * 4096, buffer(4096));
        assert_eq!((inner.as_slice()[0], foreign.as_slice()[0]), (2, 1));
        assert_eq!(outer.await.unwrap().as_slice()[0], 1);
        assert_eq!(later.await.unwrap().as_slice()[0], 3);
    });

    assert_eq!(bench.disk.stats().caller_driven, 3);
    assert_eq!(other.disk.stats().caller_driven, 1);
    assert_balanced(bench.disk.stats());
}

/// Each wake of the outer future that the inner wait takes note of must still reach the outer one.
#[test]
fn a_wake_during_an_inner_drive_is_not_lost() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let file = blocks(&bench);

    drive(&*bench.disk, async {
        let mut outer = pin!(read(&*bench.disk, &file, 4096, buffer(4096)));
        std::future::poll_fn(|context| {
            if let Poll::Ready(bytes) = outer.as_mut().poll(context) {
                assert_eq!(bytes.unwrap().as_slice()[0], 1);
                return Poll::Ready(());
            }
            let read_more = async { read(&*bench.disk, &file, 8192, buffer(4096)).await };
            drive(&*bench.disk, read_more).unwrap();
            Poll::Pending
        })
        .await;
    });

    assert_balanced(bench.disk.stats());
}

#[test]
fn threads_past_the_limit_park_and_are_counted() {
    let Some(bench) = ring(DiskOptions::new().caller_rings(2)) else { return };
    let file = blocks(&bench);
    let barrier = std::sync::Barrier::new(6);

    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                drive(&*bench.disk, async {
                    barrier.wait();
                    for block in 0..64u8 {
                        let offset = u64::from(block) * 4096;
                        let bytes = read(&*bench.disk, &file, offset, buffer(4096)).await.unwrap();
                        assert_eq!(bytes.as_slice()[4095], block);
                    }
                    barrier.wait();
                });
            });
        }
    });

    let stats = bench.disk.stats();
    assert_eq!((stats.caller_parks, stats.caller_driven, stats.reads), (4, 128, 6 * 64 + 1));
    assert_eq!(bench.disk.report().caller_refusal, None, "that there are enough is no fault");
    // The rings of threads that have ended are free again.
    std::thread::scope(|scope| {
        scope.spawn(|| drive(&*bench.disk, async {})).join().unwrap();
    });
    assert_balanced(bench.disk.stats());
}

#[test]
fn no_ring_for_callers_where_none_is_wanted() {
    let Some(bench) = ring(DiskOptions::new().caller_rings(0)) else { return };
    let file = blocks(&bench);

    drive(&*bench.disk, async { read(&*bench.disk, &file, 0, buffer(4096)).await.unwrap() });
    let refused = CallerRing::new(&bench.disk).unwrap_err();

    assert_eq!((bench.disk.stats().caller_driven, bench.disk.stats().caller_parks), (0, 1));
    assert_eq!(refused.kind(), IoErrorKind::Unsupported);
}

pub(crate) fn is_readable(descriptor: RawFd, milliseconds: i32) -> bool {
    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: the one structure is ours, and writable.
    0 < unsafe { libc::poll(&raw mut poll, 1, milliseconds) }
}

#[test]
fn a_host_polls_its_ring_when_the_descriptor_says_so() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let (reader, mut writer) = pipe(&bench, "pipe");
    let ring = CallerRing::new(&bench.disk).unwrap();
    let descriptor = ring.as_raw_fd();

    let mut stuck = ring.during(|| read(&*bench.disk, &reader, 0, buffer(4096)));
    assert_eq!((ring.in_flight(), ring.poll()), (1, 1));
    assert!(!is_readable(descriptor, 0));
    assert_eq!(ring.wait(Some(Duration::from_millis(1))), 1, "the time was up");
    std::io::Write::write_all(&mut writer, &[8; 4096]).unwrap();
    assert!(is_readable(descriptor, 10_000));
    assert_eq!(ring.poll(), 0);

    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(bytes) = stuck.as_mut().poll(&mut context) else { panic!("still pending") };
    assert_eq!(bytes.unwrap().as_slice(), [8; 4096]);
    assert_balanced(bench.disk.stats());
}

#[test]
fn a_host_that_drops_its_ring_has_its_operations_carried_to_the_end() {
    let Some(bench) = ring(DiskOptions::new().ring_entries(32)) else { return };
    let file = blocks(&bench);
    let ring = CallerRing::new(&bench.disk).unwrap();

    let reads: Vec<_> = ring.during(|| {
        let one = |index| read(&*bench.disk, &file, index % 64 * 4096, buffer(4096));
        (0..600u64).map(one).collect()
    });
    drop(ring);

    for (index, read) in reads.into_iter().enumerate() {
        assert_eq!(usize::from(block_on(read).unwrap().as_slice()[0]), index % 64);
    }
    let stats = bench.disk.stats();
    assert!((128..600).contains(&stats.caller_driven), "the rest went to other threads: {stats:?}");
    assert_balanced(stats);
}

#[test]
fn threads_that_end_at_once_lose_nothing() {
    let Some(bench) = ring(DiskOptions::new().caller_rings(8)) else { return };
    let file = blocks(&bench);
    let before = bench.disk.stats().submitted;

    for _ in 0..50 {
        std::thread::scope(|scope| {
            for block in 0..4u64 {
                let (disk, file) = (&*bench.disk, &file);
                scope.spawn(move || {
                    drive(disk, async {
                        drop(read(disk, file, block * 4096, buffer(4096)));
                        drop(write(disk, file, block * 4096, buffer_of(&[3; 4096])));
                    });
                });
            }
        });
    }
    block_on(bench.disk.shutdown()).unwrap();

    let stats = bench.disk.stats();
    assert_eq!((stats.errors, stats.submitted - before), (0, 400));
    // Where a thread had to do without a ring, another may have been done before the drop.
    if stats.caller_parks == 0 {
        assert_eq!(stats.orphaned, 400);
    }
    assert_balanced(stats);
}

#[test]
fn a_forked_child_does_not_touch_the_ring_of_its_parent() {
    if !is_child() {
        return run_alone("caller_ring::a_forked_child_does_not_touch_the_ring_of_its_parent");
    }
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let file = blocks(&bench);
    let one = || async { read(&*bench.disk, &file, 4096, buffer(4096)).await };
    drive(&*bench.disk, one()).unwrap();

    drive(&*bench.disk, async {
        let in_flight = one();
        // SAFETY: the forked process only uses the disk, whose locks no other thread holds while
        // it is idle, and the allocator, which may be used after a fork; then it ends at once.
        let process = unsafe { libc::fork() };
        if process == 0 {
            let refused = drive(&*bench.disk, one()).is_err_and(|error| {
                error.kind() == IoErrorKind::Closed && error.to_string().contains("forked")
            });
            // SAFETY: ends the forked process at once.
            unsafe { libc::_exit(i32::from(!refused)) };
        }
        let mut status = -1;
        // SAFETY: waits for our own child, and writes its status into our variable.
        let waited = unsafe { libc::waitpid(process, &raw mut status, 0) };
        assert_eq!((waited, status), (process, 0));
        in_flight.await.unwrap();
    });
    assert_eq!(bench.disk.stats().caller_driven, 2);
}
