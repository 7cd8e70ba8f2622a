//! Arbitrary operations on a page cache, one thread, loads in any order.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use nephrite_pager::{
    CachePolicy, CachedFile, Load, LoadError, LoadWait, Lookup, PageGuard, Pager, PagerConfig,
};

use super::input::Input;

const OPERATIONS_MAX: usize = 400;
/// Frames of the cache, in bytes: a few pages of the largest size.
const CACHE_BYTES: usize = 256 << 10;
const PAGE_BYTES: [u32; 3] = [4096, 8192, 20_480];
const PAGES: u32 = 40;
/// Guards and loads held at one time, each.
const HELD_MAX: usize = 12;

/// Looks pages up, loads, fails and abandons them, holds and drops guards.
///
/// # Panics
/// When a page has other bytes than its own, a waiter is forgotten, a guard is not counted, or a
/// cache that nobody holds anything of refuses.
pub fn pager_ops(data: &[u8]) {
    let mut input = Input::new(data);
    let policy = if input.below(2) == 0 { CachePolicy::Clock } else { CachePolicy::S3Fifo };
    let config = PagerConfig::new(CACHE_BYTES).policy(policy);
    let pager = Pager::new(config).expect("a small cache can be made");
    let mut run =
        Run { files: Vec::new(), next_tag: 0, guards: Vec::new(), loads: Vec::new(), pager };
    for page_bytes in PAGE_BYTES {
        run.open(page_bytes);
    }
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        run.step(&mut input);
    }
    run.end();
}

/// A file, and what tells its pages from those of others.
struct File {
    cached: Arc<CachedFile>,
    tag: u8,
}

/// A load that was not completed yet, and who waits for it.
struct Loading {
    load: Load,
    tag: u8,
    waits: Vec<LoadWait>,
}

struct Held {
    guard: PageGuard,
    tag: u8,
    page: u32,
}

struct Run {
    pager: Arc<Pager>,
    files: Vec<File>,
    next_tag: u8,
    guards: Vec<Held>,
    loads: Vec<Loading>,
}

impl Run {
    fn open(&mut self, page_bytes: u32) {
        let cached = self.pager.open_file(page_bytes, PAGES).expect("a small file can be opened");
        self.next_tag = self.next_tag.wrapping_add(1);
        self.files.push(File { cached, tag: self.next_tag });
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(8) {
            0..=3 => self.look_up(input),
            4 if !self.loads.is_empty() => {
                let loading = self.loads.swap_remove(input.index(self.loads.len()));
                self.finish(loading, input.below(4));
            }
            5 if !self.guards.is_empty() => {
                drop(self.guards.swap_remove(input.index(self.guards.len())));
            }
            6 => self.close(input),
            _ => self.check_held(),
        }
    }

    fn look_up(&mut self, input: &mut Input<'_>) {
        let file = &self.files[input.index(self.files.len())];
        let (tag, page) = (file.tag, u32::from(input.byte()) % PAGES);
        let found = match input.below(2) {
            0 => file.cached.get(page),
            _ => file.cached.get_for_scan(page),
        };
        match found {
            Lookup::Hit(guard) => {
                assert_page(&guard, tag, page);
                self.hold(Held { guard, tag, page });
            }
            Lookup::Load(load) => {
                let waits = vec![load.wait()];
                let loading = Loading { load, tag, waits };
                if self.loads.len() < HELD_MAX {
                    self.loads.push(loading);
                } else {
                    self.finish(loading, 0);
                }
            }
            Lookup::Wait(wait) => {
                let is_it = |it: &&mut Loading| it.tag == tag && it.load.page() == page;
                let loading = self.loads.iter_mut().find(is_it);
                loading.expect("somebody loads what is waited for").waits.push(wait);
            }
            Lookup::Full(_) | Lookup::Bypass(_) => {
                let is_held = !self.guards.is_empty() || !self.loads.is_empty();
                assert!(is_held, "nobody holds anything and the cache is full");
            }
        }
    }

    fn hold(&mut self, held: Held) {
        if self.guards.len() < HELD_MAX {
            self.guards.push(held);
        }
    }

    /// Completes a load, with its page or an error, or drops it.
    fn finish(&mut self, loading: Loading, how: u8) {
        let Loading { mut load, tag, mut waits } = loading;
        let page = load.page();
        for wait in &mut waits {
            assert!(poll(wait).is_pending(), "nothing was loaded yet");
        }
        match how {
            3 => drop(load),
            _ => {
                let mut buffer = load.take_buffer();
                buffer.fill(byte_of(tag, page));
                let failed = LoadError::new(std::io::Error::other("it was asked for"));
                load.complete(buffer, if how == 2 { Err(failed) } else { Ok(()) });
            }
        }
        for mut wait in waits {
            let Poll::Ready(loaded) = poll(&mut wait) else { panic!("a waiter is forgotten") };
            match loaded {
                Ok(guard) => {
                    assert!(how < 2, "a failed load gives a page");
                    assert_page(&guard, tag, page);
                    self.hold(Held { guard, tag, page });
                }
                Err(error) => assert_eq!((how, error.is_abandoned()), (how.max(2), how == 3)),
            }
        }
    }

    /// Closes a file, whose pages may be held or loading still, and opens another one.
    fn close(&mut self, input: &mut Input<'_>) {
        let at = input.index(self.files.len());
        let closed = self.files.swap_remove(at);
        let page_bytes = closed.cached.page_bytes();
        drop(closed);
        self.open(page_bytes);
    }

    fn check_held(&self) {
        self.guards.iter().for_each(|held| assert_page(&held.guard, held.tag, held.page));
        let stats = self.pager.stats();
        assert_eq!(stats.pins, self.guards.len() as u64, "guards that are held");
        assert_eq!(stats.frames_loading, self.loads.len() as u64, "loads that go on");
        assert_eq!(stats.frames_lost, 0, "no load was dropped without its buffer");
    }

    fn end(mut self) {
        self.check_held();
        for loading in std::mem::take(&mut self.loads) {
            self.finish(loading, 0);
        }
        self.guards.clear();
        self.check_held();
        for file in &self.files {
            let found = file.cached.get(0);
            let is_free = matches!(found, Lookup::Hit(_) | Lookup::Load(_) | Lookup::Wait(_));
            assert!(is_free, "nobody holds anything and the cache is full");
        }
    }
}

fn poll(wait: &mut LoadWait) -> Poll<Result<PageGuard, LoadError>> {
    Pin::new(wait).poll(&mut Context::from_waker(Waker::noop()))
}

fn byte_of(tag: u8, page: u32) -> u8 {
    tag.wrapping_mul(41).wrapping_add(u8::try_from(page).expect("files are small")) | 1
}

fn assert_page(bytes: &[u8], tag: u8, page: u32) {
    let expected = byte_of(tag, page);
    let wrong = bytes.iter().position(|byte| *byte != expected);
    assert_eq!(wrong, None, "page {page} of file {tag} has a byte of another one");
}
