//! Files, caches, guards and waits that are dropped in any order: what is theirs is free again, and
//! what others hold stays.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pollster::block_on;

use super::{
    Alarm, PAGE, assert_empty, cache, complete, full_of, hit_of, holds, load_of, load_page, page,
    poll, wait_of,
};

#[test]
fn dropping_a_file_frees_its_frames_at_once() {
    let pager = cache(8);
    let file = pager.open_file(PAGE, 5000).unwrap();
    (0..8).for_each(|number| load_page(&file, number * 600));
    assert!(0 < pager.stats().bytes_tables);

    drop(file);

    assert_empty(&pager);
    assert_eq!((pager.stats().bytes_tables, pager.stats().files), (0, 0));
}

#[test]
fn a_new_file_never_sees_the_frames_of_an_old_one() {
    let pager = cache(4);
    let old = pager.open_file(PAGE, 4).unwrap();
    let kept = page(&old, 2);
    load_page(&old, 3);
    drop(old);

    let new = pager.open_file(PAGE, 4).unwrap();

    assert!(!new.contains(2) && !new.contains(3));
    let mut load = load_of(&new, 2);
    let mut buffer = load.take_buffer();
    buffer.fill(99);
    load.complete(buffer, Ok(()));
    assert_eq!(hit_of(&new, 2)[17], 99);
    assert!(holds(&kept, 2));
}

#[test]
fn a_pinned_frame_of_a_dropped_file_is_freed_with_its_last_guard() {
    let pager = cache(1);
    let file = pager.open_file(PAGE, 4).unwrap();
    let first = page(&file, 2);
    let second = first.clone();
    drop(file);
    let other = pager.open_file(PAGE, 4).unwrap();

    let wait = full_of(&other, 0);
    drop(first);
    assert!(holds(&second, 2));
    assert_eq!(pager.stats().frames_resident, 1);
    drop(second);
    block_on(wait);

    load_page(&other, 0);
}

#[test]
fn a_guard_outlives_file_and_cache() {
    let pager = cache(3);
    let file = pager.open_file(PAGE, 4).unwrap();
    let (first, second) = (page(&file, 1), page(&file, 2));
    load_page(&file, 3);
    let shared = crate::sync::Arc::downgrade(&pager.shared);
    drop(pager);
    drop(file);

    assert!(holds(&first, 1) && holds(&second, 2));
    drop(first.clone());
    drop(first);
    assert!(holds(&second, 2));
    assert!(shared.upgrade().is_some(), "the memory lives as long as a guard");
    std::thread::scope(|scope| scope.spawn(move || drop(second)).join().unwrap());

    assert!(shared.upgrade().is_none(), "and no longer");
}

#[test]
fn a_wait_for_a_load_outlives_file_and_cache() {
    let pager = cache(1);
    let file = pager.open_file(PAGE, 4).unwrap();
    let load = load_of(&file, 1);
    let (answered, dropped) = (load.wait(), load.wait());
    drop((file, pager));

    complete(load);
    drop(dropped);

    assert!(holds(&block_on(answered).unwrap(), 1));
}

#[test]
fn a_wait_for_a_frame_ends_with_the_cache() {
    let pager = cache(1);
    let file = pager.open_file(PAGE, 4).unwrap();
    let guard = page(&file, 0);
    let wait = full_of(&file, 1);

    drop((guard, file, pager));

    block_on(wait);
}

#[test]
fn dropped_waits_leave_no_pin() {
    let pager = cache(1);
    let file = pager.open_file(PAGE, 4).unwrap();
    let load = load_of(&file, 0);
    let (early, late) = (wait_of(&file, 0), wait_of(&file, 0));

    drop(early);
    complete(load);
    assert_eq!(pager.stats().pins, 1);
    drop(late);

    assert_eq!(pager.stats().pins, 0);
    load_page(&file, 1);
}

#[test]
fn a_dropped_wait_for_a_frame_leaves_no_waker() {
    let pager = cache(1);
    let file = pager.open_file(PAGE, 4).unwrap();
    let guard = page(&file, 0);
    let (alarm, mut wait) = (Arc::new(Alarm::default()), full_of(&file, 1));
    assert!(poll(&mut wait, &alarm).is_pending());

    drop(wait);
    drop(guard);

    assert_eq!((alarm.0.load(Ordering::SeqCst), Arc::strong_count(&alarm)), (0, 1));
}
