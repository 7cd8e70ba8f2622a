//! A cache with a loan: what is lent holds pages, and goes back whatever is in it.

use std::sync::Arc;

use super::{Lookup, Pager, PagerConfig, assert_empty, complete, holds, load_of, page};
use crate::CachePolicy;
use crate::CachedFile;

/// Large pages, so that few of them fill a cache.
const LARGE: u32 = 65_536;
const OWN_PAGES: u32 = 256;
const LOAN_PAGES: u32 = 64;
/// Of a step of 2 MiB.
const STEP_PAGES: u32 = 32;
const OWN_BYTES: usize = 16 << 20;
const LOAN_BYTES: usize = 4 << 20;

fn cache() -> (Arc<Pager>, Arc<CachedFile>) {
    let config = PagerConfig::new(OWN_BYTES + LOAN_BYTES).loan_bytes(LOAN_BYTES);
    let pager = Pager::new(config).unwrap();
    let file = pager.open_file(LARGE, 4 * OWN_PAGES).unwrap();
    (pager, file)
}

/// Reads so many pages, one after the other; returns how many are there in the end.
fn fill(file: &Arc<CachedFile>, pages: u32) -> usize {
    (0..pages).for_each(|number| assert!(holds(&page(file, number), number)));
    (0..pages).filter(|number| file.contains(*number)).count()
}

#[test]
fn a_loan_holds_pages_until_it_is_taken_back() {
    let (pager, file) = cache();
    let sizes = || (pager.stats().bytes_arena - OWN_BYTES, pager.loan_bytes());
    assert_eq!((fill(&file, OWN_PAGES + LOAN_PAGES), sizes()), (OWN_PAGES as usize, (0, 0)));

    pager.lend(LOAN_BYTES - 1);
    assert_eq!(sizes(), (0, 2 << 20));
    pager.lend(LOAN_BYTES);
    pager.lend(1);
    let all = OWN_PAGES + LOAN_PAGES;
    assert_eq!(fill(&file, all), all as usize);
    assert_eq!(sizes(), (LOAN_BYTES, LOAN_BYTES as u64));

    assert_eq!(pager.recall(1), 2 << 20);
    assert_eq!(sizes(), (2 << 20, 2 << 20));
    assert_eq!(pager.recall(usize::MAX), 2 << 20);
    assert_eq!((sizes(), pager.recall(1)), ((0, 0), 0));
    assert_eq!(pager.stats().frames_resident, u64::from(OWN_PAGES));
    fill(&file, all);
    assert_eq!(pager.stats().frames_resident, u64::from(OWN_PAGES));
    drop(file);
    assert_empty(&pager);
}

#[test]
fn what_is_pinned_or_loading_leaves_when_it_is_at_rest() {
    let (pager, file) = cache();
    pager.lend(LOAN_BYTES);
    let all = OWN_PAGES + LOAN_PAGES;
    fill(&file, all - 1);
    let guards: Vec<_> = (0..all - 1).step_by(4).map(|number| page(&file, number)).collect();
    let load = load_of(&file, all - 1);

    assert_eq!(pager.recall(usize::MAX), 0);
    let left = (0..all - 1).filter(|number| file.contains(*number)).count();
    assert!(left < OWN_PAGES as usize + LOAN_PAGES as usize / 2, "{left} pages");
    complete(load);
    let pinned = (0..all - 1).step_by(4);
    assert!(guards.iter().zip(pinned).all(|(guard, number)| holds(guard, number)));
    assert!(holds(&page(&file, all - 1), all - 1));
    drop(guards);

    assert_eq!(pager.recall(usize::MAX), LOAN_BYTES);
    fill(&file, all);
    assert_eq!(pager.stats().frames_resident, u64::from(OWN_PAGES));
}

#[test]
fn a_step_at_rest_goes_before_one_in_use() {
    let (pager, file) = cache();
    pager.lend(LOAN_BYTES);
    let all = OWN_PAGES + LOAN_PAGES;
    fill(&file, all);
    let in_last_step = page(&file, all - 1);

    assert_eq!(pager.recall(1), 2 << 20);

    let left = (0..all).filter(|number| file.contains(*number)).count();
    assert_eq!(left, (all - STEP_PAGES) as usize);
    drop(in_last_step);
}

#[test]
fn what_is_in_use_costs_no_more_than_was_asked_for_however_often() {
    let (pager, file) = cache();
    pager.lend(LOAN_BYTES);
    let all = OWN_PAGES + LOAN_PAGES;
    fill(&file, all);
    let in_each_step = [all - 1, all - 1 - STEP_PAGES].map(|number| page(&file, number));

    for _ in 0..3 {
        assert_eq!(pager.recall(2 << 20), 0);
        let left = (0..all).filter(|number| file.contains(*number)).count();
        assert_eq!(left, (all - STEP_PAGES + 1) as usize, "one step but for what is pinned");
        assert_eq!(pager.stats().bytes_arena, OWN_BYTES + LOAN_BYTES, "all of it is there");
    }

    drop(in_each_step);
    assert_eq!(pager.recall(1), 2 << 20, "what was leaving");
    let left = (0..all).filter(|number| file.contains(*number)).count();
    assert_eq!(left, (all - STEP_PAGES) as usize);
}

#[test]
#[cfg_attr(miri, ignore = "too many reads for it")]
fn what_leaves_and_stays_can_be_evicted_again() {
    let config = PagerConfig::new(OWN_BYTES + LOAN_BYTES).loan_bytes(LOAN_BYTES);
    let pager = Pager::new(config.policy(CachePolicy::S3Fifo)).unwrap();
    let file = pager.open_file(LARGE, 16 * OWN_PAGES).unwrap();
    pager.lend(LOAN_BYTES);
    let all = OWN_PAGES + LOAN_PAGES;
    fill(&file, all);
    let guards = [all - 1, all - 1 - STEP_PAGES].map(|number| page(&file, number));
    assert_eq!(pager.recall(usize::MAX), 0);
    (all..2 * all).for_each(|number| assert!(holds(&page(&file, number), number)));
    drop(guards);

    pager.lend(LOAN_BYTES);
    (2 * all..6 * all).for_each(|number| assert!(holds(&page(&file, number), number)));

    assert!(!file.contains(all - 1) && !file.contains(all - 1 - STEP_PAGES));
}

#[test]
fn what_was_leaving_stays_when_the_loan_is_given_again() {
    let (pager, file) = cache();
    pager.lend(LOAN_BYTES);
    let all = OWN_PAGES + LOAN_PAGES;
    fill(&file, all);
    let guards: Vec<_> = (0..all).step_by(4).map(|number| page(&file, number)).collect();
    assert_eq!(pager.recall(usize::MAX), 0);
    drop(guards);

    pager.lend(LOAN_BYTES);

    assert_eq!(fill(&file, all), all as usize);
    assert_eq!(pager.stats().bytes_arena, OWN_BYTES + LOAN_BYTES);
    assert_eq!(pager.recall(usize::MAX), LOAN_BYTES);
}

#[test]
fn a_loan_that_is_given_again_is_no_larger_than_that() {
    let (pager, file) = cache();
    pager.lend(LOAN_BYTES);
    let all = OWN_PAGES + LOAN_PAGES;
    fill(&file, all);
    let in_last_step = (0..all).rev().map(|number| page(&file, number));
    let guards: Vec<_> = in_last_step.take(LOAN_PAGES as usize / 2).collect();
    assert_eq!(pager.recall(usize::MAX), 2 << 20);

    pager.lend(0);
    assert_eq!(pager.loan_bytes(), 2 << 20);
    pager.lend(2 << 20);

    assert_eq!(pager.loan_bytes(), 2 << 20);
    drop(guards);
    fill(&file, all);
    assert_eq!(pager.stats().frames_resident, u64::from(OWN_PAGES + LOAN_PAGES / 2));
}

#[test]
fn a_file_that_is_dropped_while_its_pages_leave_leaves_nothing() {
    let (pager, file) = cache();
    pager.lend(LOAN_BYTES);
    fill(&file, OWN_PAGES + LOAN_PAGES);
    let guards: Vec<_> =
        (0..OWN_PAGES + LOAN_PAGES).step_by(8).map(|number| page(&file, number)).collect();
    pager.recall(usize::MAX);
    drop(file);
    drop(guards);

    assert_eq!(pager.recall(usize::MAX), LOAN_BYTES);
    assert_empty(&pager);
    let file = pager.open_file(4096, 8192).unwrap();
    for number in 0..if cfg!(miri) { 9 } else { 8192 } {
        assert!(holds(&page(&file, number), number));
    }
    assert!(pager.stats().frames_resident <= u64::from(OWN_PAGES) * 16);
}

#[test]
fn readers_meet_a_loan_that_comes_and_goes() {
    let (pager, file) = cache();
    let rounds = if cfg!(miri) { 2 } else { 200 };
    std::thread::scope(|scope| {
        for reader in 0..3_u32 {
            let file = &file;
            scope.spawn(move || {
                for turn in 0..rounds * 20 {
                    let number = (turn * 7919 + reader * 31) % (4 * OWN_PAGES);
                    match file.get(number) {
                        Lookup::Hit(guard) => assert!(holds(&guard, number)),
                        Lookup::Load(load) => complete(load),
                        Lookup::Wait(_) | Lookup::Full(_) | Lookup::Bypass(_) => {}
                    }
                }
            });
        }
        for _ in 0..rounds {
            pager.lend(LOAN_BYTES);
            pager.recall(1);
            pager.recall(usize::MAX);
        }
    });

    pager.recall(usize::MAX);
    assert_eq!(pager.stats().bytes_arena, OWN_BYTES);
    drop(file);
    assert_empty(&pager);
}
