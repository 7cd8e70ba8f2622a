//! Several rings of one thread, rings of closed disks, and a ring that a fork finds with work.

use std::future::poll_fn;
use std::os::fd::AsRawFd;
use std::task::{Context, Poll, Waker};

use nephrite_io::{CallerRing, DiskOptions, block_on, drive, read, write_synced};

use crate::caller_ring::{blocks, is_readable, pipe, ring};
use crate::child::{is_child, run_alone};
use crate::support::{Bench, assert_balanced, buffer, buffer_of};

/// Entering one ring waits for the other; that wait must not come back to the first.
#[test]
fn two_rings_of_a_thread_that_both_have_work_are_served() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let file = blocks(&bench);
    let (first, second) =
        (CallerRing::new(&bench.disk).unwrap(), CallerRing::new(&bench.disk).unwrap());
    let one = |block: u64| read(&*bench.disk, &file, block * 4096, buffer(4096));

    let early = first.during(|| one(1));
    let late = second.during(|| one(2));
    let rest = first.during(|| second.wait(None));

    assert_eq!((first.in_flight(), rest), (0, 0));
    assert_eq!(block_on(early).unwrap().as_slice()[0], 1);
    assert_eq!(block_on(late).unwrap().as_slice()[0], 2);
    assert_balanced(bench.disk.stats());
}

#[test]
fn a_hosts_ring_with_work_is_polled_inside_drive() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let file = blocks(&bench);
    let host = CallerRing::new(&bench.disk).unwrap();
    let one = |block: u64| read(&*bench.disk, &file, block * 4096, buffer(4096));
    let hosted = host.during(|| one(1));

    let driven = drive(&*bench.disk, async {
        let driven = one(2);
        host.poll();
        driven.await.unwrap()
    });
    while 0 < host.wait(None) {}

    assert_eq!(driven.as_slice()[0], 2);
    assert_eq!(block_on(hosted).unwrap().as_slice()[0], 1);
    assert_eq!(bench.disk.stats().caller_driven, 2);
}

/// A wake that comes with the last completion leaves a completion of its own behind. A host that
/// sleeps until the descriptor is readable would never sleep again.
#[test]
fn after_a_poll_the_descriptor_of_an_idle_ring_is_not_readable() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let (reader, writer) = pipe(&bench, "pipe");
    let host = CallerRing::new(&bench.disk).unwrap();

    let writer = &writer;
    for _ in 0..300 {
        let mut stuck = host.during(|| read(&*bench.disk, &reader, 0, buffer(4096)));
        std::thread::scope(|scope| {
            let mut waking = None;
            host.run(poll_fn(|context: &mut Context<'_>| {
                let waker = context.waker().clone();
                waking.get_or_insert_with(|| {
                    scope.spawn(move || {
                        std::io::Write::write_all(&mut &*writer, &[8; 4096]).unwrap();
                        waker.wake();
                    })
                });
                stuck.as_mut().poll(context).map(|bytes| drop(bytes.unwrap()))
            }));
        });

        assert_eq!(host.poll(), 0);
        assert!(!is_readable(host.as_raw_fd(), 0), "there is nothing to tell");
    }
}

fn rings_open() -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().contains("io_uring")).count()
}

/// A thread that lives on while others open and close disks.
#[test]
fn rings_of_closed_disks_do_not_pile_up_in_a_thread() {
    if !is_child() {
        return run_alone(
            "caller_rings_together::rings_of_closed_disks_do_not_pile_up_in_a_thread",
        );
    }
    let mut rings_max = 0;
    for _ in 0..10 {
        let Some(bench) = ring(DiskOptions::new().ring_threads(1)) else { return };
        let file = blocks(&bench);
        drive(&*bench.disk, async { read(&*bench.disk, &file, 0, buffer(4096)).await.unwrap() });
        rings_max = rings_max.max(rings_open());
        std::thread::scope(|scope| {
            scope.spawn(|| block_on(bench.disk.shutdown()).unwrap());
        });
    }

    assert_eq!(rings_max, 2, "the disk's own and this thread's");
}

/// What the parent has queued is the parent's to carry out.
#[test]
fn a_forked_child_does_not_carry_out_what_its_parent_has_queued() {
    if !is_child() {
        return run_alone(
            "caller_rings_together::a_forked_child_does_not_carry_out_what_its_parent_has_queued",
        );
    }
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let file = blocks(&bench);
    let host = CallerRing::new(&bench.disk).unwrap();
    let mut queued = host.during(|| write_synced(&*bench.disk, &file, 0, buffer_of(&[9; 4096])));

    // SAFETY: the forked process only uses the ring, whose locks no other thread holds while it is
    // idle, and the allocator, which may be used after a fork; then it ends at once.
    let process = unsafe { libc::fork() };
    if process == 0 {
        let left = host.poll();
        let told = queued.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let refused = left == 0 && matches!(told, Poll::Ready(Err(_)));
        // SAFETY: ends the forked process at once.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = -1;
    // SAFETY: waits for our own child, and writes its status into our variable.
    let waited = unsafe { libc::waitpid(process, &raw mut status, 0) };

    assert_eq!((waited, status), (process, 0));
    assert_eq!(first_byte(&bench), 0, "the child has written");
    while 0 < host.wait(None) {}
    assert_eq!(first_byte(&bench), 9);
    block_on(queued).unwrap();
}

fn first_byte(bench: &Bench) -> u8 {
    std::fs::read(bench.path("blocks")).unwrap()[0]
}
