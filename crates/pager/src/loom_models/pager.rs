//! The cache as a whole: look-ups, loads, waits and drops of two threads on one or two frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use loom::future::block_on;
use loom::thread;

use super::check;
use crate::{CachedFile, Load, Lookup, PageGuard, Pager, PagerConfig};

/// A cache of so many frames, all of which may be pinned, and a file of four pages.
fn cache(frames: usize) -> (Arc<Pager>, Arc<CachedFile>) {
    let bytes = frames * 4096;
    let config = PagerConfig::new(bytes).largest_page_bytes(4096).pin_limit_bytes(bytes);
    let pager = Pager::new(config).unwrap();
    let file = pager.open_file(4096, 4).unwrap();
    (pager, file)
}

/// The witness cell of the frame gets the page number (`Load::complete` writes it).
fn complete(mut load: Load) {
    let buffer = load.take_buffer();
    load.complete(buffer, Ok(()));
}

/// Gets a page as the engine does. `loads` counts the loads of this model run.
fn read(file: &Arc<CachedFile>, page: u32, loads: &AtomicU32) -> PageGuard {
    loop {
        let wait = match file.get(page) {
            Lookup::Hit(guard) => return guard,
            Lookup::Full(wait) => {
                block_on(wait);
                continue;
            }
            Lookup::Bypass(_) => panic!("this cache has no room for reads past it"),
            Lookup::Wait(wait) => wait,
            Lookup::Load(load) => {
                loads.fetch_add(1, Ordering::Relaxed);
                let wait = load.wait();
                complete(load);
                wait
            }
        };
        return block_on(wait).unwrap();
    }
}

fn check_page(file: &Arc<CachedFile>, page: u32, loads: &AtomicU32) {
    let guard = read(file, page, loads);
    assert_eq!(guard.stamp(), u64::from(page), "stale or foreign page");
}

#[test]
fn single_flight() {
    check(|| {
        let (_pager, file) = cache(2);
        let loads = Arc::new(AtomicU32::new(0));

        let other = {
            let (file, loads) = (Arc::clone(&file), Arc::clone(&loads));
            thread::spawn(move || check_page(&file, 1, &loads))
        };
        check_page(&file, 1, &loads);
        other.join().unwrap();

        assert_eq!(loads.load(Ordering::Relaxed), 1, "one load for two readers");
    });
}

#[test]
fn an_abandoned_load_tells_its_waiters() {
    check(|| {
        let (_pager, file) = cache(1);
        let Lookup::Load(load) = file.get(1) else { panic!("nothing is resident") };
        let wait = load.wait();

        let loader = thread::spawn(move || drop(load));
        let error = block_on(wait).unwrap_err();
        loader.join().unwrap();

        assert!(error.is_abandoned());
        assert!(matches!(file.get(1), Lookup::Load(_)));
    });
}

#[test]
fn a_dropped_wait_leaves_no_pin() {
    check(|| {
        let (_pager, file) = cache(1);
        let Lookup::Load(load) = file.get(1) else { panic!("nothing is resident") };
        let wait = load.wait();

        let loader = thread::spawn(move || complete(load));
        drop(wait);
        loader.join().unwrap();

        assert!(matches!(file.get(2), Lookup::Load(_)), "the frame can be evicted");
    });
}

#[test]
fn whole_path() {
    check(|| {
        let (_pager, file) = cache(1);
        let loads = Arc::new(AtomicU32::new(0));
        check_page(&file, 1, &loads);

        let other = {
            let (file, loads) = (Arc::clone(&file), Arc::clone(&loads));
            thread::spawn(move || check_page(&file, 2, &loads))
        };
        check_page(&file, 1, &loads);
        other.join().unwrap();

        assert!(2 <= loads.load(Ordering::Relaxed));
    });
}

#[test]
fn frame_wait() {
    check(|| {
        let (_pager, file) = cache(1);
        let loads = Arc::new(AtomicU32::new(0));
        let guard = read(&file, 1, &loads);

        let holder = thread::spawn(move || drop(guard));
        check_page(&file, 2, &loads);
        holder.join().unwrap();
    });
}

#[test]
fn a_resident_page_waits_for_room_in_the_budget() {
    check(|| {
        let config = PagerConfig::new(8192).largest_page_bytes(4096).pin_limit_bytes(4096);
        let pager = Pager::new(config).unwrap();
        let file = pager.open_file(4096, 4).unwrap();
        let loads = Arc::new(AtomicU32::new(0));
        drop(read(&file, 1, &loads));
        let guard = read(&file, 2, &loads);

        let holder = thread::spawn(move || drop(guard));
        check_page(&file, 1, &loads);
        holder.join().unwrap();

        assert_eq!(loads.load(Ordering::Relaxed), 2);
    });
}

/// Frames that nobody uses are charged to the budget, and charges on their way to it are nobody's.
#[test]
fn while_frames_are_free_nobody_is_refused() {
    check(|| {
        let (_pager, file) = cache(2);
        let loads = AtomicU32::new(0);
        drop(read(&file, 0, &loads));
        drop(read(&file, 1, &loads));
        let take = |file: &Arc<CachedFile>| {
            assert!(file.shared().take_credit(1).is_some(), "refused, with room for both");
        };

        let other = {
            let file = Arc::clone(&file);
            thread::spawn(move || take(&file))
        };
        take(&file);
        other.join().unwrap();
    });
}

#[test]
fn bypass() {
    check(|| {
        let config = PagerConfig::new(4096).largest_page_bytes(4096).bypass_limit_bytes(4096);
        let pager = Pager::new(config).unwrap();
        let file = pager.open_file(4096, 4).unwrap();
        let _held_for_ever = read(&file, 1, &AtomicU32::new(0));
        let Lookup::Bypass(first) = file.get(2) else { panic!("nobody reads past the cache") };

        let reader = thread::spawn(move || drop(first));
        loop {
            match file.get(3) {
                Lookup::Bypass(_) => break,
                Lookup::Full(wait) => block_on(wait),
                other => panic!("{other:?}, though the only frame is pinned"),
            }
        }
        reader.join().unwrap();
    });
}

#[test]
fn look() {
    check(|| {
        let (_pager, file) = cache(1);
        let loads = Arc::new(AtomicU32::new(0));
        check_page(&file, 1, &loads);

        let other = {
            let (file, loads) = (Arc::clone(&file), Arc::clone(&loads));
            thread::spawn(move || check_page(&file, 2, &loads))
        };
        file.look_at_stamp(1, |stamp| assert_eq!(stamp, 1, "stale or foreign page"));
        other.join().unwrap();

        check_page(&file, 3, &loads);
    });
}

#[test]
fn orphan() {
    check(|| {
        let (pager, file) = cache(1);
        let guard = read(&file, 1, &AtomicU32::new(0));
        drop(pager);

        let holder = thread::spawn(move || {
            assert_eq!(guard.stamp(), 1);
            drop(guard);
        });
        drop(file);
        holder.join().unwrap();
        // loom itself fails the model when the shared part is leaked or counted down too far.
    });
}

#[test]
fn a_frame_of_a_dropped_file_goes_to_the_next() {
    check(|| {
        let (pager, old) = cache(1);
        let new = pager.open_file(4096, 4).unwrap();
        let loads = AtomicU32::new(0);
        let guard = read(&old, 1, &loads);

        let holder = thread::spawn(move || drop((old, guard)));
        check_page(&new, 3, &loads);
        holder.join().unwrap();
    });
}
