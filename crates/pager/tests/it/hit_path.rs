//! A hit allocates nothing: counted, not timed.
//!
//! The allocator of this test binary counts the allocations of each thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use nephrite_pager::{CachedFile, Lookup, Pager, PagerConfig};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // An ending thread has no counter any more, and no test looks at it.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn resident(pages: u32, cache_pages: usize) -> Arc<CachedFile> {
    let config = PagerConfig::new(cache_pages * 4096).largest_page_bytes(4096);
    let file = Pager::new(config).unwrap().open_file(4096, pages).unwrap();
    for page in 0..pages {
        let Lookup::Load(mut load) = file.get(page) else { panic!("page {page} is new") };
        let buffer = load.take_buffer();
        load.complete(buffer, Ok(()));
    }
    file
}

fn allocations_of(look_ups: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    look_ups();
    ALLOCATIONS.with(Cell::get) - before
}

fn hit_all(file: &Arc<CachedFile>) {
    for page in 0..file.page_count() {
        assert!(matches!(file.get(page), Lookup::Hit(guard) if guard.clone().len() == 4096));
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations_of(|| drop(Box::new(7))), 2);
}

#[test]
fn hits_and_clones_allocate_nothing() {
    let file = resident(100, 200);
    hit_all(&file);

    assert_eq!(allocations_of(|| hit_all(&file)), 0);
}

#[test]
fn hits_that_collect_charges_allocate_nothing() {
    // All frames are in use, of which three quarters may be charged: charges move all the time.
    let file = resident(100, 100);
    hit_all(&file);

    assert_eq!(allocations_of(|| (0..10).for_each(|_| hit_all(&file))), 0);
}
