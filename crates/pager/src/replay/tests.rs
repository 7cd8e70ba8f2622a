//! Replay of popularity after Zipf, scattered over the pages, and of small cases by hand.

use super::*;

const RECORDS: u32 = if cfg!(miri) { 400 } else { 80_000 };
const READS: u32 = if cfg!(miri) { 1000 } else { 400_000 };
const PER_PAGE: u32 = 8;

/// A record of 512 bytes, eight to a page.
fn record(number: u32) -> PageRead {
    let start = u16::try_from(number % PER_PAGE * 8).unwrap();
    PageRead { file: 1, page: number / PER_PAGE, start, length: 8, page_units: 1 }
}

/// Reads by Zipf with exponent 0.99: the inverse of its distribution, looked up by bisection.
fn zipf() -> Replay {
    let mut sums = Vec::new();
    let mut sum = 0.0;
    for rank in 1..=RECORDS {
        sum += f64::from(rank).powf(-0.99);
        sums.push(sum);
    }
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let share = f64::from(u32::try_from(random >> 32).unwrap()) / f64::from(u32::MAX);
        let rank = sums.partition_point(|sum_so_far| *sum_so_far < share * sum);
        // Ranks are scattered over the records: the multiplier has no factor in common with them.
        let number = u64::try_from(rank).unwrap() * 7919 % u64::from(RECORDS);
        record(u32::try_from(number).unwrap())
    };
    Replay::new((0..READS).map(|_| draw()).collect())
}

fn eighth() -> usize {
    RECORDS as usize * 512 / 8
}

#[test]
fn no_policy_beats_the_bounds_and_memory_for_all_misses_once() {
    let replay = zipf();
    let footprint = replay.footprint();
    let reads = footprint.reads;
    for policy in CachePolicy::ALL {
        let part = replay.by_page(eighth(), policy).unwrap();
        assert_eq!(part.page_hits + part.misses, reads);
        // The bound counts first reads as hits and so lies above what can be reached.
        assert!(part.page_hits <= replay.best_pages(eighth()), "{policy}: {part:?}");

        let all = replay.by_page(RECORDS as usize * 1024, policy).unwrap();
        assert_eq!(all.misses, footprint.pages, "{policy}");
    }
    assert!(replay.best_pages(eighth()) <= replay.best_records(eighth()));
    assert_eq!(replay.best_pages(usize::MAX), reads);
}

#[test]
#[cfg_attr(miri, ignore = "a matter of statistics, and the interpreter counts to a thousand only")]
fn scattered_popularity_is_held_better_by_record() {
    let replay = zipf();
    let page = replay.by_page(eighth(), CachePolicy::S3Fifo).unwrap();

    let retained = replay.retaining(eighth(), CachePolicy::S3Fifo).unwrap();

    assert!(page.hit_ratio() + 0.03 < retained.hit_ratio(), "{page:?} {retained:?}");
    assert!(0 < retained.record_hits);
}

#[test]
fn a_trace_by_hand() {
    let reads = [0, 1, 8, 0, 16, 0].map(record);
    let replay = Replay::new(reads.to_vec());

    let outcome = replay.by_page(2 * 4200, CachePolicy::Clock).unwrap();

    let expected = Replayed { page_hits: 3, misses: 3, ..Replayed::default() };
    assert_eq!(outcome, expected, "pages 0, 0, 1, 0, 2 (over 1), 0");
    assert_eq!((replay.best_pages(4096), replay.best_records(512)), (4, 3));
    let Footprint { reads, pages, page_bytes, records, record_bytes } = replay.footprint();
    assert_eq!((reads, pages, page_bytes, records, record_bytes), (6, 3, 12_288, 4, 2048));
}

#[test]
fn memory_for_no_page_is_an_error() {
    let error = zipf().by_page(4096, CachePolicy::Clock).unwrap_err();

    assert!(matches!(error, PagerError::TooSmall { .. }), "{error}");
}

#[test]
fn an_empty_trace_has_no_hits_and_no_misses() {
    let replay = Replay::new(Vec::new());

    let outcome = replay.by_page(1 << 20, CachePolicy::Clock).unwrap();

    assert_eq!((outcome, outcome.hit_ratio()), (Replayed::default(), 0.0));
    assert_eq!((replay.best_pages(1 << 20), replay.footprint()), (0, Footprint::default()));
}
