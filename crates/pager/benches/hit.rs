//! What a hit costs: `cargo bench -p nephrite-pager --bench hit`.
//!
//! Random resident pages, one byte of each is read. Prints the median of several rounds, in
//! nanoseconds for each look-up and thread, for one and two threads on distinct and on one page.
//! Baselines in the same run: a table of guards at hand (no pin for each look-up), and a hit that
//! clones an `Arc` of its file for each guard (the design that `guard.rs` avoids). `cache full` has
//! no room beyond the pin limit of three quarters, so that charges move from frame to frame.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot set up has nothing to report")]

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use nephrite_pager::{CachedFile, Lookup, PageGuard, Pager, PagerConfig};

const ROUNDS: usize = 7;
const LOOKUPS: u32 = 2_000_000;
const PAGE: u32 = 4096;

/// All pages in a cache with a third on top, so that all of them may be charged.
fn resident(pages: u32) -> (Arc<Pager>, Arc<CachedFile>) {
    resident_in(pages, pages as usize * 4096 / 3 * 4 + 65_536)
}

fn resident_in(pages: u32, cache_bytes: usize) -> (Arc<Pager>, Arc<CachedFile>) {
    let pager = Pager::new(PagerConfig::new(cache_bytes)).unwrap();
    let file = pager.open_file(PAGE, pages).unwrap();
    for page in 0..pages {
        let Lookup::Load(mut load) = file.get(page) else { panic!("page {page} is new") };
        let mut buffer = load.take_buffer();
        buffer.fill(1);
        load.complete(buffer, Ok(()));
    }
    (pager, file)
}

fn hit(file: &Arc<CachedFile>, page: u32) -> PageGuard {
    match file.get(page) {
        Lookup::Hit(guard) => guard,
        other => panic!("page {page}: {other:?}"),
    }
}

/// Nanoseconds for each call of `look_up` with a random page, by the slowest of `threads`, each of
/// which has a share of the pages to itself.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time on real threads")]
fn measure(threads: u32, pages: u32, look_up: impl Fn(u32) -> u64 + Sync) -> f64 {
    let barrier = Barrier::new(threads as usize);
    let round = |thread: u32| {
        let mut random = 0x9e37_79b9_u32.wrapping_add(thread.wrapping_mul(77_777));
        let mut sum = 0_u64;
        barrier.wait();
        let start = Instant::now();
        for _ in 0..LOOKUPS {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let share = u64::from((pages / threads).max(1));
            let page = (u64::from(random) * share) >> 32;
            let page = u32::try_from(page + share * u64::from(thread)).unwrap() % pages;
            sum = sum.wrapping_add(look_up(page));
        }
        black_box(sum);
        start.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKUPS)
    };
    let mut figures: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            std::thread::scope(|scope| {
                let running: Vec<_> =
                    (0..threads).map(|thread| scope.spawn(move || round(thread))).collect();
                running.into_iter().map(|thread| thread.join().unwrap()).fold(0.0, f64::max)
            })
        })
        .collect();
    figures.sort_by(f64::total_cmp);
    figures[ROUNDS / 2]
}

fn main() {
    println!("{:44} {:>9} {:>9}", "ns per look-up and thread", "1 thread", "2 threads");
    for (name, pages) in [("4 MiB", 1024), ("256 MiB", 65_536)] {
        let (_pager, file) = resident(pages);
        let report = |what: &str, pages: u32, look_up: &(dyn Fn(u32) -> u64 + Sync)| {
            let (one, two) = (measure(1, pages, look_up), measure(2, pages, look_up));
            println!("{:44} {one:9.1} {two:9.1}", format!("{name}: {what}"));
        };
        report("hit, random page", pages, &|page| u64::from(hit(&file, page)[64]));
        report("hit, random page, with an Arc clone", pages, &|page| {
            let guard = (Arc::clone(&file), hit(&file, page));
            u64::from(guard.1[64])
        });
        let (_full, tight) = resident_in(pages, pages as usize * 4096);
        report("hit, random page, cache full", pages, &|page| u64::from(hit(&tight, page)[64]));
        report("hit, one page", 1, &|page| u64::from(hit(&file, page)[64]));
        let lookups: Vec<PageGuard> = (0..pages / 2).map(|page| hit(&file, page)).collect();
        report("guard at hand, random page", pages / 2, &|page| {
            u64::from(lookups[page as usize][64])
        });
    }
}
