//! The limits: tiny caches, everything pinned, a guard that is never dropped, scans of everything.
//! Each under every policy.

use std::sync::Arc;

use super::Pager;
use crate::{Bypass, CachePolicy, CachedFile, Lookup, PageGuard, PagerConfig, PagerError};

/// Pages of a file; the interpreter takes its time for each.
const PAGES: u32 = if cfg!(miri) { 8 } else { 200 };
const ROUNDS: u32 = if cfg!(miri) { 1 } else { 3 };

fn cache(frames: usize, policy: CachePolicy) -> Arc<Pager> {
    let bytes = frames * 4096;
    let config = PagerConfig::new(bytes).largest_page_bytes(4096).pin_limit_bytes(bytes);
    Pager::new(config.policy(policy)).unwrap()
}

/// Looks a page up as a point or a scan, loading it if need be; `None` when all is pinned. Also
/// tells whether it was a hit.
fn read(file: &Arc<CachedFile>, page: u32, scan: bool) -> Option<(PageGuard, bool)> {
    match if scan { file.get_for_scan(page) } else { file.get(page) } {
        Lookup::Hit(guard) => Some((guard, true)),
        Lookup::Full(_) | Lookup::Bypass(_) => None,
        Lookup::Wait(_) => panic!("page {page} is being loaded by nobody"),
        Lookup::Load(mut load) => {
            let wait = load.wait();
            let mut buffer = load.take_buffer();
            buffer.fill(u8::try_from(page % 251).unwrap());
            load.complete(buffer, Ok(()));
            Some((pollster::block_on(wait).unwrap(), false))
        }
    }
}

fn point(file: &Arc<CachedFile>, page: u32) -> Option<(PageGuard, bool)> {
    let found = read(file, page, false);
    if let Some((guard, _)) = &found {
        assert_eq!(u32::from(guard[4095]), page % 251);
    }
    found
}

#[test]
fn a_cache_of_no_frame_is_refused_at_open() {
    let config = PagerConfig::new(4095).largest_page_bytes(4096);

    let error = Pager::new(config).unwrap_err();

    assert!(matches!(error, PagerError::TooSmall { minimum_bytes: 4096, .. }), "{error}");
}

#[test]
fn one_frame_and_two_frames_serve_every_page() {
    for (frames, policy) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
        let pager = cache(frames, CachePolicy::ALL[policy]);
        let file = pager.open_file(4096, PAGES).unwrap();
        for round in 0..ROUNDS {
            for page in 0..PAGES {
                assert!(point(&file, page).is_some(), "{frames} frames, round {round}");
                assert!(
                    read(&file, PAGES - 1 - page, true).is_some(),
                    "{frames} frames, round {round}"
                );
            }
        }
    }
}

#[test]
fn when_all_is_pinned_look_ups_say_so_and_go_on_afterwards() {
    for policy in CachePolicy::ALL {
        let pager = cache(4, policy);
        let file = pager.open_file(4096, 50).unwrap();
        let mut held: Vec<_> = (0..4).map(|page| point(&file, page).unwrap()).collect();

        assert!(point(&file, 9).is_none() && read(&file, 9, true).is_none());
        assert!(point(&file, 3).is_some(), "what is pinned can be read");
        held.pop();

        assert!(point(&file, 9).is_some());
        assert_eq!(pager.stats().refusals, 2);
    }
}

#[test]
fn a_guard_held_for_ever_costs_its_frame_and_no_more() {
    for policy in CachePolicy::ALL {
        let pager = cache(3, policy);
        let file = pager.open_file(4096, PAGES).unwrap();
        let (held, _) = point(&file, 7).unwrap();

        for round in 0..5 {
            (0..PAGES).for_each(|page| assert!(point(&file, page).is_some(), "round {round}"));
        }

        assert_eq!((held[0], held[4095]), (7, 7));
        assert_eq!(pager.stats().frames_pinned, 1);
    }
}

/// A cache that lets pages of up to `bypasses` frames be read past it at a time.
fn cache_with_bypass(frames: usize, bypasses: usize, policy: CachePolicy) -> Arc<Pager> {
    let (bytes, past) = (frames * 4096, bypasses * 4096);
    let config = PagerConfig::new(bytes).largest_page_bytes(4096).pin_limit_bytes(bytes);
    Pager::new(config.bypass_limit_bytes(past).policy(policy)).unwrap()
}

fn bypass(file: &Arc<CachedFile>, page: u32) -> Option<Bypass> {
    match file.get(page) {
        Lookup::Bypass(bypass) => Some(bypass),
        Lookup::Full(_) => None,
        Lookup::Hit(_) | Lookup::Load(_) | Lookup::Wait(_) => panic!("a frame for page {page}"),
    }
}

#[test]
fn with_reads_past_it_even_a_cache_of_no_frame_serves_every_page() {
    for (frames, policy) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)] {
        let pager = cache_with_bypass(frames, 1, CachePolicy::ALL[policy]);
        let file = pager.open_file(4096, PAGES).unwrap();
        let held: Vec<_> = (0..frames)
            .map(|page| point(&file, u32::try_from(page).unwrap()).expect("a frame is free").0)
            .collect();

        for page in 2..PAGES {
            assert!(bypass(&file, page).is_some(), "{frames} frames, page {page}");
            assert!(file.start_load(page).is_none() && file.start_load_for_scan(page).is_none());
        }
        assert!(held.iter().all(|guard| guard[9] < 2));
    }
}

#[test]
fn pages_larger_than_the_cache_are_read_past_it() {
    for policy in CachePolicy::ALL {
        let config = PagerConfig::new(8192).bypass_limit_bytes(1).policy(policy);
        let pager = Pager::new(config).unwrap();
        let (large, small) =
            (pager.open_file(65_536, 9).unwrap(), pager.open_file(4096, 9).unwrap());

        for page in 0..9 {
            assert!(bypass(&large, page).is_some());
            assert!(point(&small, page).is_some());
        }
    }
}

#[test]
fn only_so_much_is_read_past_the_cache_and_the_next_is_told() {
    let pager = cache_with_bypass(1, 2, CachePolicy::Clock);
    let file = pager.open_file(4096, 9).unwrap();
    let _held = point(&file, 0).unwrap();
    let (first, second) = (bypass(&file, 1).unwrap(), bypass(&file, 1).unwrap());
    let Lookup::Full(wait) = file.get(2) else { panic!("room for a third page") };

    first.count();
    drop(first);

    pollster::block_on(wait);
    assert!(bypass(&file, 2).is_some());
    drop(second);
    assert_eq!((pager.stats().bypasses, pager.stats().refusals), (1, 1));
}

#[test]
#[cfg_attr(miri, ignore = "too long, and one thread only")]
fn guards_in_every_part_of_the_cache_leave_reads_of_other_sizes_a_way() {
    let pager = Pager::new(PagerConfig::new(1 << 20).bypass_limit_bytes(1)).unwrap();
    let small = pager.open_file(4096, 256).unwrap();
    let parts = 1_048_576 / pager.stats().bytes_extent;
    (0..256).for_each(|page| drop(point(&small, page).unwrap()));
    let step = 256 / u32::try_from(parts).unwrap();

    let held: Vec<_> = (0..256).step_by(step as usize).map(|page| point(&small, page)).collect();

    let stats = pager.stats();
    assert_eq!(stats.frames_pinned, parts as u64, "one in each part");
    for units in 2..=16 {
        let other = pager.open_file(units * 4096, 3).unwrap();
        assert!(bypass(&other, 1).is_some(), "pages of {units} units");
    }
    drop(held);
}

#[test]
fn what_is_in_the_cache_can_be_looked_at_though_no_more_may_be_pinned() {
    let config = PagerConfig::new(4 * 4096).largest_page_bytes(4096).pin_limit_bytes(4096);
    let pager = Pager::new(config).unwrap();
    let file = pager.open_file(4096, 9).unwrap();
    (0..4).for_each(|page| drop(point(&file, page).unwrap()));
    let held = point(&file, 0).unwrap();

    assert!(point(&file, 1).is_none(), "pinning it is too much");
    assert_eq!(file.look(1, |bytes| (bytes.len(), bytes[7])), Some((4096, 1)));
    assert_eq!(file.look(8, |bytes| bytes.len()), None);

    drop(held);
    assert_eq!(pager.stats().pins, 0);
    assert!(point(&file, 8).is_some());
}

#[test]
#[cfg_attr(miri, ignore = "too long, and one thread only")]
fn a_scan_of_everything_keeps_what_points_use() {
    let (pages, frames) = (4000, 128);
    for policy in CachePolicy::ALL {
        let pager = cache(frames, policy);
        let file = pager.open_file(4096, pages).unwrap();
        let hot_pages = pages.min(u32::try_from(frames).unwrap() * 3 / 4);
        let hot = |round: u32| (round * 37) % hot_pages;
        (0..4 * hot_pages).for_each(|round| drop(point(&file, hot(round))));

        // A scan of everything, and a point read for every four pages of it.
        let mut hits = 0;
        for page in 0..pages {
            assert!(read(&file, page, true).is_some());
            if page % 4 == 0 {
                hits += u32::from(point(&file, hot(page)).unwrap().1);
            }
        }

        assert!(pages / 4 * 99 / 100 <= hits, "{policy}: {hits} of {} point reads", pages / 4);
    }
}
