//! Registered buffers: the same bytes with them, without them, and where they are refused.

use std::sync::Arc;

use nephrite_io::memory::Arena;
use nephrite_io::{
    BackendChoice, DiskOptions, FileHandle, IoBuffer, OpenOptions, block_on, read, write,
};

use crate::child::{is_child, run_alone};
use crate::restricted::become_nobody;
use crate::support::{Bench, backends};

const BLOCK: usize = 4096;

/// Blocks of the arenas: two that are written, and two to read them into. Small, so that two rings
/// and their registrations fit where 64 KiB may be locked.
const BLOCKS: usize = 4;

fn options() -> DiskOptions {
    DiskOptions::new().backend(BackendChoice::Uring).ring_entries(32)
}

/// None where this machine is said to have no rings (see `support`).
fn registering() -> Option<Bench> {
    let has_rings = backends().contains(&BackendChoice::Uring);
    has_rings.then(|| Bench::new(options().registered_buffers(true)))
}

/// A window that no other one of the test overlaps.
fn region(arena: &Arc<Arena>, block: usize, blocks: usize) -> IoBuffer {
    // SAFETY: each test uses a window once at a time, and takes no slices of the arena.
    IoBuffer::Region(unsafe { arena.region(block * BLOCK, blocks * BLOCK) })
}

fn filled(arena: &Arc<Arena>, block: usize, blocks: usize, byte: u8) -> IoBuffer {
    let mut buffer = region(arena, block, blocks);
    buffer.as_mut_slice().unwrap().fill(byte);
    buffer
}

/// Writes blocks from the arena, reads them into other windows of it, and checks every byte.
fn exercise(bench: &Bench, file: &FileHandle, arena: &Arc<Arena>) {
    let disk = &*bench.disk;
    for (block, byte) in [(0, 1), (1, 2)] {
        let offset = (block * BLOCK) as u64;
        block_on(write(disk, file, offset, filled(arena, block, 1, byte))).unwrap();
    }
    let back = block_on(read(disk, file, 0, region(arena, 2, 2))).unwrap();
    for (block, byte) in back.as_slice().chunks(BLOCK).zip(1u8..) {
        assert!(block.iter().all(|found| *found == byte));
    }
}

#[test]
fn transfers_of_a_registered_arena_move_the_same_bytes() {
    let Some(bench) = registering() else { return };
    let arena = Arena::new(BLOCKS * BLOCK).unwrap();
    bench.disk.register_arena(&arena);
    let file = bench.create("file");

    exercise(&bench, &file, &arena);

    let report = bench.disk.report();
    assert_eq!(report.registration_refusal, None, "{report}");
    assert_eq!(report.registered_bytes, arena.len() as u64);
    assert!(report.to_string().contains("bytes of buffers"), "{report}");
    let registered = if file.is_direct() { 3 } else { 0 };
    assert_eq!(bench.disk.stats().registered_transfers, registered);
    let bytes = std::fs::read(bench.path("file")).unwrap();
    assert!(bytes.chunks(BLOCK).zip(1u8..).all(|(block, byte)| block == [byte; BLOCK]));
}

#[test]
fn every_ring_registers_for_itself() {
    if !backends().contains(&BackendChoice::Uring) {
        return;
    }
    let bench = Bench::new(options().registered_buffers(true).ring_threads(2));
    let arena = Arena::new(BLOCKS * BLOCK).unwrap();
    bench.disk.register_arena(&arena);
    let file = bench.create("file");

    // Batches go to the rings in turns.
    exercise(&bench, &file, &arena);

    assert_eq!(bench.disk.report().registered_bytes, 2 * arena.len() as u64);
}

#[test]
fn nothing_is_registered_unless_asked_for() {
    if !backends().contains(&BackendChoice::Uring) {
        return;
    }
    let bench = Bench::new(options());
    let arena = Arena::new(BLOCKS * BLOCK).unwrap();
    bench.disk.register_arena(&arena);
    let file = bench.create("file");

    exercise(&bench, &file, &arena);

    let report = bench.disk.report();
    assert_eq!((report.registered_bytes, report.registration_refusal), (0, None));
    assert_eq!(bench.disk.stats().registered_transfers, 0);
    assert_eq!(Arc::strong_count(&arena), 1);
}

#[test]
fn buffered_files_and_other_memory_do_without() {
    let Some(bench) = registering() else { return };
    let (arena, other) = (Arena::new(BLOCKS * BLOCK).unwrap(), Arena::new(BLOCKS * BLOCK).unwrap());
    bench.disk.register_arena(&arena);
    let buffered = OpenOptions::read_write().create_new().direct(false);
    let buffered = block_on(bench.disk.open(&bench.path("buffered"), buffered)).unwrap();
    let file = bench.create("file");

    exercise(&bench, &buffered, &arena);
    exercise(&bench, &file, &other);

    assert_eq!(bench.disk.stats().registered_transfers, 0);
}

#[test]
fn an_arena_that_its_owner_let_go_is_freed_with_the_next_one() {
    let Some(bench) = registering() else { return };
    let file = bench.create("file");
    let (first, second) =
        (Arena::new(BLOCKS * BLOCK).unwrap(), Arena::new((BLOCKS + 1) * BLOCK).unwrap());
    bench.disk.register_arena(&first);
    exercise(&bench, &file, &first);
    let kept = Arc::downgrade(&first);
    drop(first);
    assert!(kept.upgrade().is_some(), "the ring names it");

    bench.disk.register_arena(&second);
    exercise(&bench, &file, &second);

    assert!(kept.upgrade().is_none());
    assert_eq!(bench.disk.report().registered_bytes, second.len() as u64);
}

#[test]
fn a_shutdown_lets_go_of_the_arena() {
    let Some(bench) = registering() else { return };
    let arena = Arena::new(BLOCKS * BLOCK).unwrap();
    bench.disk.register_arena(&arena);
    exercise(&bench, &bench.create("file"), &arena);

    block_on(bench.disk.shutdown()).unwrap();
    drop(bench);

    assert_eq!(Arc::strong_count(&arena), 1);
}

/// Root may lock memory whatever the limit, so the process becomes somebody else first.
#[test]
fn where_memory_may_not_be_locked_transfers_go_on_without() {
    const LOCKED_MAX: u64 = 1 << 20;
    if !is_child() {
        return run_alone("registered::where_memory_may_not_be_locked_transfers_go_on_without");
    }
    become_nobody();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours and writable.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) }, 0);
    limit.rlim_cur = limit.rlim_max.min(LOCKED_MAX);
    // SAFETY: the limit lives until the call returns.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }, 0);
    let Some(bench) = registering() else { return };
    let arena = Arena::new(8 << 20).unwrap();
    bench.disk.register_arena(&arena);

    exercise(&bench, &bench.create("file"), &arena);

    let (report, stats) = (bench.disk.report(), bench.disk.stats());
    let reason = report.registration_refusal.as_deref().expect("it was refused");
    assert!(reason.contains("ulimit -l"), "{reason}");
    assert_eq!((report.registered_bytes, stats.registered_transfers), (0, 0));
    assert_eq!(stats.registrations_refused, 1);
}
