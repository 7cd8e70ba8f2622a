//! Caches and pages of every size: the smallest that work, those that are refused, and pages of
//! many sizes in one cache.

use pollster::block_on;

use super::{
    PAGE, Pager, PagerConfig, assert_empty, cache, full_of, hit_of, holds, load_page, page,
};
use crate::Lookup;

#[test]
fn a_cache_of_one_frame_serves_one_page_at_a_time() {
    let pager = cache(1);
    let file = pager.open_file(PAGE, 50).unwrap();

    for number in (0..50).chain(0..50) {
        let guard = page(&file, number);
        assert!(holds(&guard, number));
        assert!(matches!(file.get((number + 1) % 50), Lookup::Full(_)));
    }

    assert_eq!(pager.stats().evictions, 99);
}

#[test]
fn a_cache_of_two_frames_holds_two_pages() {
    let pager = cache(2);
    let file = pager.open_file(PAGE, 3).unwrap();
    let (first, second) = (page(&file, 0), page(&file, 1));

    assert!(matches!(file.get(2), Lookup::Full(_)));

    assert!(holds(&first, 0) && holds(&second, 1));
}

#[test]
fn a_cache_below_one_page_is_refused() {
    let error = Pager::new(PagerConfig::new(0)).unwrap_err();

    assert!(error.to_string().contains("at least 65536 bytes"), "{error}");
}

#[test]
fn page_sizes_that_do_not_fit_are_refused() {
    let pager = cache(4);

    assert!(pager.open_file(8192, 1).is_err());
    assert!(pager.open_file(0, 1).is_err());
    assert!(pager.open_file(5000, 1).is_err());
}

#[test]
#[should_panic(expected = "page 5 of a file of 5 pages")]
fn a_page_past_the_end_is_a_broken_promise() {
    let file = cache(1).open_file(PAGE, 5).unwrap();

    let _ = file.get(5);
}

#[test]
fn pages_of_all_sizes_share_the_cache() {
    let pager = Pager::new(PagerConfig::new(1 << 20)).unwrap();
    let sizes: Vec<u32> = (1..=16).map(|units| units * 4096).collect();
    let files: Vec<_> = sizes.iter().map(|&size| pager.open_file(size, 40).unwrap()).collect();

    // Three pages of each size are 1.6 times the cache.
    for number in 0..if cfg!(miri) { 3 } else { 40 } {
        for (file, &size) in files.iter().zip(&sizes) {
            let guard = page(file, number);
            assert!(holds(&guard, number));
            assert_eq!(guard.len(), size as usize);
        }
    }

    let stats = pager.stats();
    let used: usize = stats.classes.iter().map(|c| c.frames * c.page_bytes as usize).sum();
    assert!(used <= stats.bytes_arena, "{stats:?}");
    drop(files);
    assert_empty(&pager);
}

#[test]
fn a_pinned_frame_keeps_its_extent_from_other_sizes() {
    let pager = Pager::new(PagerConfig::new(65_536)).unwrap();
    let (small, large) = (pager.open_file(4096, 9).unwrap(), pager.open_file(65_536, 9).unwrap());
    let kept = page(&small, 1);
    drop(page(&small, 2));

    let wait = full_of(&large, 0);
    assert!(holds(&kept, 1));
    drop(kept);
    block_on(wait);

    assert!(holds(&page(&large, 0), 0));
    assert!(!small.contains(1) && !small.contains(2));
}

#[test]
#[cfg_attr(miri, ignore = "too long, and one thread only")]
fn a_busy_size_takes_the_place_of_an_idle_one() {
    let pager = Pager::new(PagerConfig::new(1 << 20)).unwrap();
    let (idle, busy) = (pager.open_file(4096, 256).unwrap(), pager.open_file(8192, 200).unwrap());
    (0..256).for_each(|number| load_page(&idle, number));
    for _ in 0..3 {
        (0..256).for_each(|number| drop(hit_of(&idle, number)));
    }

    for _ in 0..10 {
        (0..120).for_each(|number| assert!(holds(&page(&busy, number), number)));
    }

    let misses = pager.stats().misses;
    (0..100).for_each(|number| drop(page(&busy, number)));
    let stats = pager.stats();
    let frames: Vec<_> = stats.classes.iter().map(|c| (c.page_bytes, c.frames)).collect();
    assert!(stats.misses < misses + 30, "still {} misses with {frames:?}", stats.misses - misses);
}
