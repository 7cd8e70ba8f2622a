//! Many threads, few frames: every byte that a guard shows is the byte of its page.
//!
//! Threads look up random pages of files with pages of different sizes, hold guards for a while,
//! fail loads, abandon loads, complete loads on other threads, and drop files under guards. Every
//! eight bytes of a page hold its stamp (file and page number). A run that ends shows that nothing
//! deadlocked; the books are checked afterwards.
//! The random numbers are seeded by the thread's number, so a failure names its thread.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use nephrite_io::memory::Region;
use pollster::block_on;

use super::Pager;
use crate::{CachePolicy, CachedFile, Load, LoadError, LoadWait, Lookup, PageGuard, PagerConfig};

/// Look-ups of each thread.
const LOOKUPS: u32 = if cfg!(miri) { 60 } else { 20_000 };
/// Words from one that is stamped and checked to the next.
const STEP: usize = if cfg!(miri) { 127 } else { 1 };
const THREADS: u32 = if cfg!(miri) { 3 } else { 6 };

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        // xorshift64: good enough to spread look-ups.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 32) % u64::from(limit)).unwrap()
    }
}

/// A file and the number that its stamps carry.
#[derive(Clone)]
struct Stamped {
    file: Arc<CachedFile>,
    number: u32,
}

impl Stamped {
    fn stamp(&self, page: u32) -> u64 {
        (u64::from(self.number) << 32) | u64::from(page)
    }

    fn check(&self, guard: &PageGuard, page: u32) {
        let stamp = self.stamp(page).to_le_bytes();
        assert_eq!(guard.len(), self.file.page_bytes() as usize);
        for (index, bytes) in guard.chunks(8).enumerate().step_by(STEP) {
            assert_eq!(bytes, stamp, "file {} page {page} word {index}", self.number);
        }
    }

    fn fill(&self, page: u32, buffer: &mut Region) {
        let stamp = self.stamp(page).to_le_bytes();
        buffer.chunks_mut(8).step_by(STEP).for_each(|bytes| bytes.copy_from_slice(&stamp));
    }
}

/// One thread: what it holds, and where it sends the loads that others complete.
struct Reader {
    random: Random,
    held: Vec<(Stamped, u32, PageGuard)>,
    device: Sender<(Stamped, Load, Region)>,
}

impl Reader {
    fn read(&mut self, target: &Stamped, page: u32) {
        match target.file.get(page) {
            Lookup::Hit(guard) => self.keep(target, page, guard),
            Lookup::Wait(wait) => self.finish(target, page, wait),
            Lookup::Load(load) => self.load(target, page, load),
            Lookup::Bypass(_) => panic!("this cache has no room for reads past it"),
            Lookup::Full(wait) => {
                self.let_go();
                block_on(wait);
            }
        }
        if self.random.below(3) == 0 {
            self.let_go();
        }
    }

    fn load(&mut self, target: &Stamped, page: u32, mut load: Load) {
        let wait = load.wait();
        match self.random.below(20) {
            0 => drop(load),
            1 => {
                let mut buffer = load.take_buffer();
                buffer.fill(0xee);
                load.complete(buffer, Err(LoadError::new(std::io::Error::other("planned"))));
            }
            2..12 => {
                let mut buffer = load.take_buffer();
                target.fill(page, &mut buffer);
                load.complete(buffer, Ok(()));
            }
            _ => {
                let buffer = load.take_buffer();
                self.device.send((target.clone(), load, buffer)).unwrap();
            }
        }
        if self.random.below(10) == 0 {
            drop(wait);
        } else {
            self.finish(target, page, wait);
        }
    }

    fn finish(&mut self, target: &Stamped, page: u32, wait: LoadWait) {
        // Not to hold guards while waiting is the rule that keeps everybody moving.
        self.let_go();
        match block_on(wait) {
            Ok(guard) => self.keep(target, page, guard),
            Err(error) => assert!(error.is_abandoned() || error.to_string().contains("planned")),
        }
    }

    fn keep(&mut self, target: &Stamped, page: u32, guard: PageGuard) {
        target.check(&guard, page);
        if self.random.below(4) == 0 {
            self.held.push((target.clone(), page, guard.clone()));
        }
        self.held.push((target.clone(), page, guard));
    }

    fn let_go(&mut self) {
        for (target, page, guard) in self.held.drain(..) {
            target.check(&guard, page);
        }
    }
}

/// Runs `each` on every thread, beside a device thread that completes loads sent to it.
fn run(each: impl Fn(u32, &mut Reader) + Sync) {
    let (device, requests) = channel::<(Stamped, Load, Region)>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (target, load, mut buffer) in requests {
                target.fill(load.page(), &mut buffer);
                load.complete(buffer, Ok(()));
            }
        });
        for thread in 0..THREADS {
            let (device, each) = (device.clone(), &each);
            scope.spawn(move || {
                let random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(thread + 1));
                let mut reader = Reader { random, held: Vec::new(), device };
                each(thread, &mut reader);
                reader.let_go();
            });
        }
        drop(device);
    });
}

fn assert_books_balance(pager: &Pager) {
    let stats = pager.stats();
    assert_eq!((stats.frames_resident, stats.frames_loading, stats.pins), (0, 0, 0), "{stats:?}");
    assert_eq!((stats.frames_lost, stats.files, stats.bytes_tables), (0, 0, 0), "{stats:?}");
    assert_eq!(pager.shared.credit_available(), pager.shared.sizes.pin_limit_units);
    assert!(stats.classes.iter().all(|class| class.frames == class.frames_free), "{stats:?}");
}

/// All threads read the same files of these page sizes.
fn read_shared_files(config: PagerConfig, page_sizes: &[u32], pages: u32) {
    let pager = Pager::new(config).unwrap();
    let files: Vec<_> = (0..)
        .zip(page_sizes)
        .map(|(number, &size)| Stamped { file: pager.open_file(size, pages).unwrap(), number })
        .collect();

    run(|_, reader| {
        for _ in 0..LOOKUPS {
            let which = reader.random.below(u32::try_from(files.len()).unwrap());
            // Squared, so that some pages are hot.
            let page = reader.random.below(pages) * reader.random.below(pages) / pages;
            reader.read(&files[which as usize], page);
        }
    });

    let stats = pager.stats();
    assert!(0 < stats.hits + stats.joins && 0 < stats.misses && 0 < stats.evictions, "{stats:?}");
    drop(files);
    assert_books_balance(&pager);
}

#[test]
fn one_frame_and_many_readers() {
    read_shared_files(PagerConfig::new(4096).largest_page_bytes(4096), &[4096], 4);
}

#[test]
fn two_frames_and_many_readers() {
    read_shared_files(PagerConfig::new(8192).largest_page_bytes(4096), &[4096], 6);
}

#[test]
fn a_dozen_frames_and_two_files() {
    read_shared_files(PagerConfig::new(12 * 4096).largest_page_bytes(4096), &[4096, 4096], 40);
}

#[test]
fn a_dozen_frames_under_the_second_policy() {
    let config = PagerConfig::new(12 * 4096).largest_page_bytes(4096).policy(CachePolicy::S3Fifo);

    read_shared_files(config, &[4096, 4096], 40);
}

#[test]
fn many_page_sizes_in_a_small_cache() {
    let sizes = [4096, 8192, 12_288, 20_480, 65_536];

    read_shared_files(PagerConfig::new(40 * 4096), &sizes, if cfg!(miri) { 8 } else { 30 });
}

#[test]
fn files_come_and_go_under_their_guards() {
    let pager = Pager::new(PagerConfig::new(16 * 4096).largest_page_bytes(8192)).unwrap();

    run(|thread, reader| {
        for round in 0..LOOKUPS / 20 {
            let size = 4096 * (1 + round % 2);
            let number = thread * LOOKUPS + round;
            let target = Stamped { file: pager.open_file(size, 8).unwrap(), number };
            for _ in 0..10 {
                let page = reader.random.below(8);
                reader.read(&target, page);
            }
        }
    });

    assert_books_balance(&pager);
}
