//! Every operation of every disk, dropped after each number of polls up to the one that ends it.
//!
//! Two ways of polling: a patient executor polls when it was woken, a restless one polls in a row
//! and so drops at moments at which nothing has woken it yet. A caller-driven ring and the
//! simulated disk move only when they are told to, so there the moments are the same each time.
//! Whatever was dropped, at the end the counters balance, all memory was given back, no lock is
//! held, and the blocks that nobody wrote are as they were.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::task::{Context, Poll};

use nephrite_io::memory::Arena;
use nephrite_io::sim::{Image, SimDisk, SimOptions, Stepped};
use nephrite_io::{
    Disk, FileHandle, IoBuffer, IoError, IoErrorKind, OpenOptions, block_on, read, read_many, sync,
    write, write_many, write_synced,
};

use super::drops::bell;
use crate::support::{assert_balanced, benches, buffer};

const BLOCK: usize = 4096;

/// More polls in a row than this do not show anything new.
const POLLS_IN_A_ROW_MAX: usize = 6;

/// An operation, told only how it went.
type Attempt = Pin<Box<dyn Future<Output = Result<(), IoError>>>>;

/// A disk, a file of four blocks of nines on it, and the memory that transfers had.
struct Scene<'a> {
    name: String,
    disk: &'a dyn Disk,
    root: &'a Path,
    file: FileHandle,
    arenas: Vec<Arc<Arena>>,
    names: usize,
    waiter: Waiter<'a>,
}

/// Lets a disk go on until a waker is called.
type Waiter<'a> = Box<dyn Fn(&Receiver<()>) + 'a>;

/// Begins an operation.
type Beginning = fn(&mut Scene<'_>) -> Attempt;

const OPERATIONS: [(&str, Beginning); 15] = [
    ("read", |scene| {
        let block = scene.memory();
        ends(read(scene.disk, &scene.file, 0, block))
    }),
    ("write", |scene| {
        let block = scene.memory();
        ends(write(scene.disk, &scene.file, 0, block))
    }),
    ("sync", |scene| ends(sync(scene.disk, &scene.file))),
    ("durable write", |scene| {
        let block = scene.memory();
        ends(write_synced(scene.disk, &scene.file, 0, block))
    }),
    ("reads", |scene| {
        let ranges = vec![(8192, scene.memory()), (0, scene.memory()), (12_288, scene.memory())];
        ends(read_many(scene.disk, &scene.file, ranges))
    }),
    ("writes", |scene| {
        let ranges = vec![(8192, scene.memory()), (0, scene.memory())];
        ends(write_many(scene.disk, &scene.file, ranges))
    }),
    ("open", |scene| {
        let path = scene.fresh();
        ends(scene.disk.open(&path, OpenOptions::read_write().create()))
    }),
    ("length", |scene| ends(scene.disk.file_len(&scene.file))),
    ("change of length", |scene| ends(scene.disk.set_len(&scene.file, 4 * BLOCK as u64))),
    ("list", |scene| ends(scene.disk.list_dir(scene.root))),
    ("directory", |scene| {
        let path = scene.fresh();
        ends(scene.disk.create_dir(&path))
    }),
    ("rename", |scene| {
        let (from, to) = (scene.made(), scene.fresh());
        ends(scene.disk.rename(&from, &to))
    }),
    ("removal", |scene| {
        let path = scene.made();
        ends(scene.disk.remove_file(&path))
    }),
    ("sync of a directory", |scene| ends(scene.disk.sync_dir(scene.root))),
    ("lock", |scene| {
        let taken = scene.disk.lock(&scene.root.join("lock"));
        Box::pin(async move {
            match taken.await {
                // One that was dropped is still being taken, or given back.
                Err(error) if error.kind() == IoErrorKind::Locked => Ok(()),
                outcome => outcome.map(drop),
            }
        })
    }),
];

fn ends<T: 'static>(operation: impl Future<Output = Result<T, IoError>> + 'static) -> Attempt {
    Box::pin(async move { operation.await.map(drop) })
}

impl<'a> Scene<'a> {
    fn new(name: String, disk: &'a dyn Disk, root: &'a Path, waiter: Waiter<'a>) -> Self {
        let path = root.join("file");
        let (arenas, names) = (Vec::new(), 0);
        let file = served(&waiter, disk.open(&path, OpenOptions::read_write().create()));
        let mut scene = Self { name, disk, root, file: file.unwrap(), arenas, names, waiter };
        for block in 0..4 {
            let mut nines = scene.memory();
            nines.as_mut_slice().unwrap().fill(9);
            let offset = (block * BLOCK) as u64;
            let written = write(disk, &scene.file, offset, nines);
            scene.wait(written).unwrap();
        }
        scene
    }

    /// A block of an arena that this scene looks at again at the end.
    fn memory(&mut self) -> IoBuffer {
        let arena = Arena::new(BLOCK).unwrap();
        // SAFETY: the only region of this arena, and no slice of it is held.
        let mut region = unsafe { arena.region(0, BLOCK) };
        region.fill(7);
        self.arenas.push(arena);
        IoBuffer::Region(region)
    }

    fn fresh(&mut self) -> PathBuf {
        self.names += 1;
        self.root.join(format!("name-{}", self.names))
    }

    /// A new file.
    fn made(&mut self) -> PathBuf {
        let path = self.fresh();
        self.wait(self.disk.open(&path, OpenOptions::read_write().create())).unwrap();
        path
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        served(&self.waiter, future)
    }

    /// Polls so many times and then drops. Whether it got to its end.
    fn drop_after(&self, mut attempt: Attempt, polls: usize, patient: bool) -> bool {
        let (waker, rung) = bell();
        for poll in 0..polls {
            if 0 < poll && patient {
                (self.waiter)(&rung);
            }
            if let Poll::Ready(outcome) = attempt.as_mut().poll(&mut Context::from_waker(&waker)) {
                outcome.unwrap();
                return true;
            }
        }
        false
    }

    fn drop_at_every_poll(&mut self) {
        for (name, operation) in OPERATIONS {
            let ends_after = |polls: &usize| {
                let attempt = operation(self);
                self.drop_after(attempt, *polls, true)
            };
            let polls = (0..).find(ends_after);
            assert!(polls <= Some(3), "{name} on {}: {polls:?} polls", self.name);
            for polls in 0..=POLLS_IN_A_ROW_MAX {
                let attempt = operation(self);
                self.drop_after(attempt, polls, false);
            }
        }
    }

    /// Nobody wrote to the blocks 1 and 3.
    fn check_bytes(&self) {
        for block in 0..4 {
            let offset = (block * BLOCK) as u64;
            let bytes = self.wait(read(self.disk, &self.file, offset, buffer(BLOCK))).unwrap();
            let byte = if block % 2 == 0 { 7 } else { 9 };
            assert!(bytes.as_slice() == [byte; BLOCK], "block {block} on {}", self.name);
        }
    }

    /// After the end of everything.
    fn check_memory(&self) {
        let kept = self.arenas.iter().filter(|arena| 1 < Arc::strong_count(arena)).count();
        assert_eq!(kept, 0, "of {} buffers on {}", self.arenas.len(), self.name);
        let stats = self.disk.stats();
        assert_eq!(stats.leaked, 0, "{}: {stats:?}", self.name);
        assert_balanced(stats);
    }
}

fn served<T>(waiter: &Waiter<'_>, future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let (waker, rung) = bell();
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        waiter(&rung);
    }
}

/// Whether nobody has the lock of a directory of the operating system.
fn is_free(root: &Path) -> bool {
    let file = std::fs::File::options().write(true).open(root.join("lock")).unwrap();
    file.try_lock().is_ok()
}

#[test]
fn every_operation_can_be_dropped_after_every_poll() {
    for bench in benches() {
        let (disk, root) = (&*bench.disk, bench.directory());
        let waiter = Box::new(|rung: &Receiver<()>| rung.recv().unwrap());
        let mut scene = Scene::new(bench.name(), disk, root, waiter);

        scene.drop_at_every_poll();

        scene.check_bytes();
        block_on(disk.shutdown()).unwrap();
        scene.check_memory();
        assert!(is_free(root), "{}", bench.name());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn every_operation_of_a_callers_ring_can_be_dropped_after_every_poll() {
    let Some(bench) = crate::caller_ring::ring(nephrite_io::DiskOptions::new()) else { return };
    let (disk, root) = (&*bench.disk, bench.directory());
    let ring = nephrite_io::CallerRing::new(&bench.disk).unwrap();
    let scene = ring.during(|| {
        let waiter = Box::new(|rung: &Receiver<()>| {
            while rung.try_recv().is_err() {
                // With nothing in flight here it is another thread that will ring.
                if ring.wait(None) == 0 {
                    return rung.recv().unwrap();
                }
            }
        });
        let mut scene = Scene::new("a caller's ring".to_owned(), disk, root, waiter);

        scene.drop_at_every_poll();

        scene.check_bytes();
        scene
    });
    while 0 < ring.wait(None) {}
    block_on(disk.shutdown()).unwrap();
    scene.check_memory();
    let stats = disk.stats();
    assert!(0 < stats.orphaned && 0 < stats.caller_driven, "{stats:?}");
    assert!(is_free(root));
}

#[test]
fn every_operation_of_the_simulated_disk_can_be_dropped_after_every_poll() {
    for seed in 0..10 {
        let root = Path::new("/data");
        let mut image = Image::new();
        image.create_dir(root);
        let disk = SimDisk::with_image(SimOptions::new(seed), image);
        let waiter = Box::new(|rung: &Receiver<()>| {
            while rung.try_recv().is_err() {
                assert_ne!(disk.step(), Stepped::Idle, "somebody waits for nothing");
            }
        });
        let mut scene = Scene::new(format!("seed {seed}"), &disk, root, waiter);

        scene.drop_at_every_poll();

        scene.check_bytes();
        disk.run_until_idle();
        scene.check_memory();
        assert!(0 < disk.stats().orphaned, "{:?}", disk.stats());
        scene.wait(disk.lock(&root.join("lock"))).unwrap();
    }
}

/// Who asked for the end may go; it comes all the same, and others can wait for it.
#[test]
fn a_shutdown_can_be_dropped_after_every_poll() {
    for polls in 0..3 {
        for bench in benches() {
            let file = bench.file_with("file", &[9; BLOCK]);
            let pending = read(&*bench.disk, &file, 0, buffer(BLOCK));
            let mut end = bench.disk.shutdown();
            let (waker, _rung) = bell();
            for _ in 0..polls {
                if end.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    break;
                }
            }
            drop(end);

            block_on(bench.disk.shutdown()).unwrap();

            block_on(pending).unwrap();
            assert_balanced(bench.disk.stats());
        }
    }
}
