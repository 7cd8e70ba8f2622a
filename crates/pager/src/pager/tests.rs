//! Behaviour of the cache seen by its users, and what it leaves behind inside.
//! What is dropped: `drops`. Memory that is lent: `loan`. Sizes of caches and pages: `sizes`.

mod drops;
// Elsewhere memory does not go back; an interpreter takes minutes for each of them.
#[cfg(all(target_os = "linux", not(miri)))]
mod loan;
mod sizes;

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use pollster::block_on;

use super::Pager;
use crate::{
    CachedFile, FrameWait, Load, LoadError, LoadWait, Lookup, PageGuard, PageRead, PagerConfig,
    TraceRecorder,
};

const PAGE: u32 = 4096;

/// A cache of so many frames of 4096 bytes, all of which may be pinned.
fn cache(frames: usize) -> Arc<Pager> {
    let bytes = frames * 4096;
    Pager::new(PagerConfig::new(bytes).largest_page_bytes(PAGE).pin_limit_bytes(bytes)).unwrap()
}

fn load_of(file: &Arc<CachedFile>, page: u32) -> Load {
    match file.get(page) {
        Lookup::Load(load) => load,
        other => panic!("page {page}: {other:?} instead of a load"),
    }
}

fn wait_of(file: &Arc<CachedFile>, page: u32) -> LoadWait {
    match file.get(page) {
        Lookup::Wait(wait) => wait,
        other => panic!("page {page}: {other:?} instead of a wait for its load"),
    }
}

fn hit_of(file: &Arc<CachedFile>, page: u32) -> PageGuard {
    match file.get(page) {
        Lookup::Hit(guard) => guard,
        other => panic!("page {page}: {other:?} instead of a hit"),
    }
}

fn full_of(file: &Arc<CachedFile>, page: u32) -> FrameWait {
    match file.get(page) {
        Lookup::Full(wait) => wait,
        other => panic!("page {page}: {other:?} instead of a full cache"),
    }
}

/// Completes a load with the page number in every byte.
fn complete(mut load: Load) {
    let byte = u8::try_from(load.page() % 251).unwrap();
    let mut buffer = load.take_buffer();
    buffer.fill(byte);
    load.complete(buffer, Ok(()));
}

fn load_page(file: &Arc<CachedFile>, page: u32) {
    complete(load_of(file, page));
}

/// Gets the page, loading it if need be.
fn page(file: &Arc<CachedFile>, page: u32) -> PageGuard {
    match file.get(page) {
        Lookup::Hit(guard) => guard,
        Lookup::Load(load) => {
            let wait = load.wait();
            complete(load);
            block_on(wait).unwrap()
        }
        other => panic!("page {page}: {other:?}"),
    }
}

fn holds(guard: &PageGuard, page: u32) -> bool {
    let byte = u8::try_from(page % 251).unwrap();
    // The interpreter takes its time for each byte.
    let step = if cfg!(miri) { 1001 } else { 1 };
    guard.iter().step_by(step).all(|&seen| seen == byte)
}

/// Counts its wake-ups.
#[derive(Default)]
struct Alarm(AtomicUsize);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<F: Future + Unpin>(future: &mut F, alarm: &Arc<Alarm>) -> Poll<F::Output> {
    let waker = Waker::from(Arc::clone(alarm));
    Pin::new(future).poll(&mut Context::from_waker(&waker))
}

/// All frames are free and all of the pin budget is there.
fn assert_empty(pager: &Pager) {
    let stats = pager.stats();
    assert_eq!((stats.frames_resident, stats.frames_loading, stats.pins), (0, 0, 0));
    assert_eq!(pager.shared.credit_available(), pager.shared.sizes.pin_limit_units);
    for class in stats.classes {
        assert_eq!(class.frames_free, class.frames, "{class:?}");
    }
}

#[test]
fn two_readers_make_one_load() {
    let pager = cache(4);
    let file = pager.open_file(PAGE, 10).unwrap();

    let load = load_of(&file, 3);
    let (first, second) = (load.wait(), wait_of(&file, 3));
    complete(load);
    let (first, second) = (block_on(first).unwrap(), block_on(second).unwrap());

    assert!(holds(&first, 3) && first.same_page(&second));
    let stats = pager.stats();
    assert_eq!((stats.misses, stats.joins, stats.hits, stats.pins), (1, 1, 0, 2));
}

#[test]
fn waiters_are_woken_once_by_completion() {
    let pager = cache(4);
    let file = pager.open_file(PAGE, 10).unwrap();
    let load = load_of(&file, 0);
    let (alarm, mut wait) = (Arc::new(Alarm::default()), wait_of(&file, 0));
    assert!(poll(&mut wait, &alarm).is_pending());
    assert!(poll(&mut wait, &alarm).is_pending());

    complete(load);

    assert_eq!(alarm.0.load(Ordering::SeqCst), 1);
    assert!(matches!(poll(&mut wait, &alarm), Poll::Ready(Ok(_))));
}

#[test]
fn a_hit_after_the_load_finds_the_page() {
    let pager = cache(2);
    let file = pager.open_file(PAGE, 10).unwrap();
    assert!(!file.contains(9));
    load_page(&file, 9);

    assert!(file.contains(9));
    let guard = hit_of(&file, 9);

    assert!(holds(&guard, 9));
    assert_eq!((guard.len(), guard.as_ptr().addr() % 4096), (4096, 0));
    assert_eq!(pager.stats().hits, 1);
}

#[test]
fn a_try_loads_nothing_and_hits_what_is_there() {
    let pager = cache(2);
    let file = pager.open_file(PAGE, 3).unwrap();
    file.prefetch_entry(1);
    file.prefetch_frame(1, 0..4096);
    assert!(file.try_hit(1, 0..64).is_none() && file.try_hit(3, 0..64).is_none());
    assert_eq!(pager.stats().misses, 0);
    let loading = load_of(&file, 2);
    load_page(&file, 1);

    file.prefetch_entry(1);
    file.prefetch_frame(1, 4000..4096);
    let guard = file.try_hit(1, 4000..4096).unwrap();

    assert!(holds(&guard, 1) && file.try_hit(2, 0..64).is_none());
    assert_eq!((pager.stats().pins, pager.stats().hits), (1, 1));
    drop((guard, loading, file));
    assert_empty(&pager);
}

#[test]
fn a_failed_load_is_not_cached() {
    let pager = cache(2);
    let file = pager.open_file(PAGE, 10).unwrap();
    let mut load = load_of(&file, 1);
    let (own, other) = (load.wait(), wait_of(&file, 1));

    let buffer = load.take_buffer();
    load.complete(buffer, Err(LoadError::new(io::Error::other("bad sector"))));

    for wait in [own, other] {
        let error = block_on(wait).unwrap_err();
        assert!(!error.is_abandoned());
        assert_eq!(error.source().unwrap().to_string(), "bad sector");
    }
    assert!(!file.contains(1));
    assert_empty(&pager);
    load_page(&file, 1);
    assert!(holds(&hit_of(&file, 1), 1));
    assert_eq!(pager.stats().loads_failed, 1);
}

#[test]
fn an_abandoned_load_wakes_its_waiters() {
    let pager = cache(1);
    let file = pager.open_file(PAGE, 10).unwrap();
    let load = load_of(&file, 1);
    let (alarm, mut wait) = (Arc::new(Alarm::default()), wait_of(&file, 1));
    assert!(poll(&mut wait, &alarm).is_pending());

    drop(load);

    assert_eq!(alarm.0.load(Ordering::SeqCst), 1);
    let Poll::Ready(Err(error)) = poll(&mut wait, &alarm) else { panic!("not told") };
    assert!(error.is_abandoned());
    assert_empty(&pager);
    assert!(holds(&page(&file, 1), 1));
}

#[test]
fn a_frame_whose_buffer_is_still_out_is_set_aside() {
    let pager = cache(2);
    let file = pager.open_file(PAGE, 10).unwrap();
    let mut load = load_of(&file, 1);
    let mut buffer = load.take_buffer();

    drop(load);
    buffer.fill(0xff);

    assert_eq!(pager.stats().frames_lost, 1);
    for number in 0..6 {
        assert!(holds(&page(&file, number), number));
        assert_eq!((buffer[0], buffer[4095]), (0xff, 0xff));
    }
}

#[test]
fn the_buffer_of_another_load_is_refused() {
    let pager = cache(4);
    let file = pager.open_file(PAGE, 10).unwrap();
    let (mut first, mut second) = (load_of(&file, 1), load_of(&file, 2));
    let (first_wait, second_wait) = (first.wait(), second.wait());
    let (first_buffer, second_buffer) = (first.take_buffer(), second.take_buffer());

    first.complete(second_buffer, Ok(()));
    second.complete(first_buffer, Ok(()));

    assert!(!block_on(first_wait).unwrap_err().is_abandoned());
    assert!(block_on(second_wait).unwrap_err().to_string().contains("another load"));
    assert_eq!(pager.stats().frames_lost, 2);
    assert!(!file.contains(1) && !file.contains(2));
}

#[test]
fn eviction_never_takes_a_pinned_frame() {
    let pager = cache(4);
    let file = pager.open_file(PAGE, 100).unwrap();
    let kept = page(&file, 7);

    for number in 8..100 {
        drop(page(&file, number));
    }

    assert!(holds(&kept, 7) && file.contains(7));
    assert!(kept.same_page(&hit_of(&file, 7)));
    assert_eq!(pager.stats().evictions, 93 - 4);
}

#[test]
fn evicted_pages_are_loaded_again() {
    let pager = cache(2);
    let file = pager.open_file(PAGE, 3).unwrap();

    for round in 0..5 {
        for number in 0..3 {
            assert!(holds(&page(&file, number), number), "round {round}");
        }
    }

    assert_eq!(pager.stats().frames_resident, 2);
}

#[test]
fn resident_pages_beyond_the_pin_limit_are_full_until_a_guard_goes() {
    let pager = Pager::new(PagerConfig::new(8 * 4096).largest_page_bytes(PAGE)).unwrap();
    let file = pager.open_file(PAGE, 8).unwrap();
    (0..8).for_each(|number| load_page(&file, number));
    let mut guards: Vec<_> = (0..6).map(|number| hit_of(&file, number)).collect();

    let mut wait = full_of(&file, 7);
    let alarm = Arc::new(Alarm::default());
    assert!(poll(&mut wait, &alarm).is_pending());
    assert!(guards[0].same_page(&hit_of(&file, 0)), "a pinned page may be pinned again");
    assert!(poll(&mut wait, &alarm).is_pending());
    guards.pop();

    assert_eq!(alarm.0.load(Ordering::SeqCst), 1);
    assert!(poll(&mut wait, &alarm).is_ready());
    assert!(holds(&hit_of(&file, 7), 7));
    assert_eq!(pager.stats().refusals, 1);
}

#[test]
fn refused_lookups_wake_nobody() {
    let pager = Pager::new(PagerConfig::new(8 * 4096).largest_page_bytes(PAGE)).unwrap();
    let file = pager.open_file(PAGE, 20).unwrap();
    (0..8).for_each(|number| load_page(&file, number));
    let _guards: Vec<_> = (0..6).map(|number| hit_of(&file, number)).collect();
    let alarm = Arc::new(Alarm::default());
    // One needs budget for a resident page, the other a frame besides.
    let mut waits = [full_of(&file, 7), full_of(&file, 12)];
    assert!(waits.iter_mut().all(|wait| poll(wait, &alarm).is_pending()));

    for _ in 0..5 {
        let mut again = [full_of(&file, 7), full_of(&file, 6), full_of(&file, 13)];
        assert!(again.iter_mut().all(|wait| poll(wait, &alarm).is_pending()));
    }

    assert_eq!(alarm.0.load(Ordering::SeqCst), 0);
    assert!(waits.iter_mut().all(|wait| poll(wait, &alarm).is_pending()));
}

#[test]
fn a_miss_with_everything_pinned_is_full_until_a_guard_goes() {
    let pager = cache(2);
    let file = pager.open_file(PAGE, 8).unwrap();
    let guards = [page(&file, 0), page(&file, 1)];

    let wait = full_of(&file, 2);
    drop(guards);
    block_on(wait);

    assert!(holds(&page(&file, 2), 2));
}

#[test]
fn a_miss_with_everything_loading_is_full_until_a_load_ends() {
    for outcome in [Ok(()), Err(LoadError::abandoned())] {
        let pager = cache(1);
        let file = pager.open_file(PAGE, 8).unwrap();
        let mut load = load_of(&file, 0);

        let wait = full_of(&file, 1);
        let buffer = load.take_buffer();
        load.complete(buffer, outcome);
        block_on(wait);

        load_page(&file, 1);
    }
}

#[test]
fn a_guard_leaves_only_with_its_last_clone() {
    let pager = cache(1);
    let file = pager.open_file(PAGE, 8).unwrap();
    let first = page(&file, 0);
    let second = first.clone();
    let mut wait = full_of(&file, 1);
    let alarm = Arc::new(Alarm::default());

    drop(first);
    assert!(poll(&mut wait, &alarm).is_pending());
    assert!(holds(&second, 0));
    drop(second);

    assert!(poll(&mut wait, &alarm).is_ready());
    load_page(&file, 1);
}

#[test]
fn hot_pages_survive_a_scan() {
    let pager = cache(16);
    let file = pager.open_file(PAGE, 200).unwrap();
    for _ in 0..4 {
        (0..8).for_each(|number| drop(page(&file, number)));
    }

    for number in 100..120 {
        match file.get_for_scan(number) {
            Lookup::Load(load) => complete(load),
            other => panic!("{other:?}"),
        }
    }

    assert!((0..8).all(|number| file.contains(number)));
}

#[test]
fn a_scan_does_not_keep_pages() {
    let pager = cache(2);
    let file = pager.open_file(PAGE, 10).unwrap();
    (0..2).for_each(|number| load_page(&file, number));
    drop(hit_of(&file, 1));
    for _ in 0..10 {
        assert!(matches!(file.get_for_scan(0), Lookup::Hit(_)));
    }

    load_page(&file, 2);

    assert!(file.contains(1) && !file.contains(0));
}

#[test]
fn prefetching_changes_nothing_whatever_it_is_asked_for() {
    let pager = cache(2);
    let file = pager.open_file(PAGE, 10).unwrap();
    load_page(&file, 0);
    let before = pager.stats();

    for page in [0, 1, 9, 10, u32::MAX] {
        file.prefetch_entry(page);
        file.prefetch_frame(page, 0..512);
        file.prefetch_frame(page, u32::MAX..u32::MAX);
    }

    assert_eq!(pager.stats(), before);
}

#[test]
fn a_trace_tells_what_was_read_of_which_file() {
    let recorder = Arc::new(TraceRecorder::new(100));
    let config = PagerConfig::new(1 << 20).trace(Arc::clone(&recorder));
    let pager = Pager::new(config).unwrap();
    let (first, second) = (pager.open_file(4096, 9).unwrap(), pager.open_file(12_288, 9).unwrap());

    first.trace_read(3, 512..1024);
    second.trace_read(8, 0..12_288);

    let mut reads = Vec::new();
    assert_eq!(recorder.take(&mut reads), 0);
    let whole = PageRead { file: 1, page: 8, start: 0, length: 192, page_units: 3 };
    assert_eq!(reads, [PageRead { file: 0, page: 3, start: 8, length: 8, page_units: 1 }, whole]);
}

#[test]
fn memory_is_accounted_for() {
    let pager = Pager::new(PagerConfig::new(1 << 20)).unwrap();
    let file = pager.open_file(12_288, 3000).unwrap();
    load_page(&file, 0);
    load_page(&file, 2999);

    let stats = pager.stats();

    assert_eq!((stats.bytes_arena, stats.bytes_pin_limit), (1 << 20, 768 << 10));
    assert_eq!(
        stats.bytes_tables,
        2 * (4096 + 64) + 3 * size_of::<std::sync::OnceLock<Box<u32>>>()
    );
    assert!(256 * 16 <= stats.bytes_metadata && stats.bytes_metadata < 32 << 10, "{stats:?}");
    assert_eq!((stats.classes.len(), stats.classes[0].page_bytes), (1, 12_288));
}

#[test]
fn handles_cross_threads() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<(Load, LoadWait, FrameWait, PageGuard, Arc<Pager>, Arc<CachedFile>)>();
    is_sync::<(PageGuard, Pager, CachedFile)>();
}
