//! Retention through the cache, with bytes: each record holds its number in three places.

use std::sync::Arc;

use crate::{CachedFile, Lookup, PageGuard, Pager, PagerConfig};

const RECORD: usize = 512;
const RECORD_BYTES: u32 = 512;
/// Where in a record its number is.
const MARKS: [usize; 3] = [0, 252, RECORD - 4];
const PER_PAGE: u32 = 8;
/// 4 MiB, the smallest cache that is shared with slots.
const FRAMES: u32 = 1024;
/// Eight times as many as there are frames.
const PAGES: u32 = 8 * FRAMES;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(((self.0 >> 32) * u64::from(bound)) >> 32).unwrap()
    }

    /// One of few popular records in three of four draws; those lie on pages of their own.
    fn skewed(&mut self) -> u32 {
        if self.below(4) == 0 {
            return self.below(PAGES * PER_PAGE);
        }
        let popular = self.below(2 * FRAMES);
        popular * 4 * PER_PAGE + popular % PER_PAGE
    }
}

fn cache() -> Arc<Pager> {
    let config = PagerConfig::new(FRAMES as usize * 4096).bypass_limit_bytes(1 << 16);
    Pager::new(config.retain_parts()).unwrap()
}

fn open(pager: &Arc<Pager>) -> Arc<CachedFile> {
    pager.open_file_of_records(4096, PAGES, (RECORD_BYTES, PER_PAGE)).unwrap()
}

fn fill(page: u32, salt: u32, bytes: &mut [u8]) {
    for (record, bytes) in (page * PER_PAGE..).zip(bytes.chunks_exact_mut(RECORD)) {
        let word = (record ^ salt).to_le_bytes();
        MARKS.iter().for_each(|at| bytes[*at..*at + 4].copy_from_slice(&word));
    }
}

/// What a reader got: the guard, and where in it the record begins.
type Got = (PageGuard, usize);

/// Reads as the engine does: page, slot, load. `salt` sets files apart.
fn read(file: &Arc<CachedFile>, record: u32, salt: u32) -> Got {
    let (page, start) = (record / PER_PAGE, record % PER_PAGE * RECORD_BYTES);
    let got = if let Some(guard) = file.try_hit(page, start..start + RECORD_BYTES) {
        (guard, start as usize)
    } else if let Some((guard, first)) = file.part(page, start) {
        (guard, (start - first) as usize)
    } else {
        let guard = loop {
            match file.get_record(page, start) {
                Lookup::Hit(guard) => break guard,
                Lookup::Wait(wait) => break pollster::block_on(wait).unwrap(),
                Lookup::Full(wait) => pollster::block_on(wait),
                Lookup::Bypass(_) => std::thread::yield_now(), // others collect charges
                Lookup::Load(mut load) => {
                    let wait = load.wait();
                    let mut buffer = load.take_buffer();
                    fill(page, salt, &mut buffer);
                    load.complete(buffer, Ok(()));
                    break pollster::block_on(wait).unwrap();
                }
            }
        };
        file.note_read(&guard, start);
        (guard, start as usize)
    };
    check(&got, record, salt);
    got
}

fn check((guard, start): &Got, record: u32, salt: u32) {
    let bytes = &guard[*start..*start + RECORD];
    let expected = (record ^ salt).to_le_bytes();
    assert!(MARKS.iter().all(|at| bytes[*at..*at + 4] == expected), "record {record}");
}

/// Reads until there are slots, and goes on a while; gives the share of hits of the last reads.
fn warm(file: &Arc<CachedFile>, pager: &Pager, salt: u32) -> u64 {
    let mut random = Random(u64::from(salt) + 7);
    (0..60_000).for_each(|_| drop(read(file, random.skewed(), salt)));
    let before = pager.stats();
    (0..10_000).for_each(|_| drop(read(file, random.skewed(), salt)));
    let after = pager.stats();
    (after.hits - before.hits) * 100 / 10_000
}

#[test]
#[cfg_attr(miri, ignore = "a matter of statistics: too many reads for it")]
fn scattered_popular_records_outlive_their_pages() {
    let pager = cache();
    let file = open(&pager);

    let hits = warm(&file, &pager, 0);

    let stats = pager.stats();
    assert!(0 < stats.slot_hits && FRAMES as usize * 4096 / 4 < stats.bytes_slots, "{stats:?}");
    let plain = Pager::new(PagerConfig::new(FRAMES as usize * 4096)).unwrap();
    let by_page = warm(&open(&plain), &plain, 0);
    assert!(by_page + 10 < hits, "{by_page} hits in a hundred by page, {hits} by record");
    assert_eq!(plain.stats().bytes_slots, 0);
}

#[test]
#[cfg(target_os = "linux")] // elsewhere memory does not go back
#[cfg_attr(miri, ignore = "a matter of statistics: too many reads for it")]
fn slots_in_a_loan_go_back_with_it() {
    let (own, loan) = (16 << 20, 6 << 20);
    let config = PagerConfig::new(own + loan).loan_bytes(loan).bypass_limit_bytes(1 << 16);
    let pager = Pager::new(config.retain_parts()).unwrap();
    let file = pager.open_file_of_records(4096, 4 * PAGES, (RECORD_BYTES, PER_PAGE)).unwrap();
    let mut random = Random(17);
    let mut read_many = |count: u32| {
        let mut held = None;
        for _ in 0..count {
            let popular = random.below(40_000) * PER_PAGE * 7 % (4 * PAGES * PER_PAGE);
            held = Some(read(&file, popular, 0));
        }
        held
    };
    for round in 0..2 {
        pager.lend(loan);
        drop(read_many(100_000));
        let full = pager.stats();
        assert!(own < full.bytes_slots && own + loan == full.bytes_arena, "{full:?}");

        let held = read_many(1);
        let gone = pager.recall(usize::MAX);
        assert!(loan - (2 << 20) <= gone, "{gone} bytes in round {round}");
        drop(held);
        pager.recall(usize::MAX);

        let rest = pager.stats();
        assert!(rest.bytes_slots <= own && rest.bytes_arena == own, "{rest:?}");
        drop(read_many(20_000));
        let most = rest.bytes_slots.max(own * 9 / 10);
        assert!(pager.stats().bytes_slots <= most, "{:?}", pager.stats());
    }
}

#[test]
#[cfg_attr(miri, ignore = "a matter of statistics: too many reads for it")]
fn what_is_read_once_takes_the_place_of_nothing_popular() {
    let pager = cache();
    let file = open(&pager);
    warm(&file, &pager, 0);
    let mut random = Random(13);
    let popular = |number: u32| number * 4 * PER_PAGE + number % PER_PAGE;
    let there = || {
        let kept = (0..2 * FRAMES).map(popular).filter(|record| {
            let (page, start) = (record / PER_PAGE, record % PER_PAGE * RECORD_BYTES);
            file.contains(page) || file.has_part(page, start)
        });
        kept.count()
    };
    let before = there();

    (0..30_000).for_each(|_| drop(read(&file, random.below(PAGES * PER_PAGE), 0)));

    let after = there();
    assert!(before * 3 / 4 < after, "{before} popular records, then {after}");
}

#[test]
#[cfg_attr(miri, ignore = "a matter of statistics: too many reads for it")]
fn uniform_reads_leave_the_cache_to_pages() {
    let pager = cache();
    let file = open(&pager);
    let mut random = Random(3);

    (0..60_000).for_each(|_| drop(read(&file, random.below(PAGES * PER_PAGE), 0)));

    let stats = pager.stats();
    assert!(stats.bytes_slots <= FRAMES as usize * 4096 / 16, "{stats:?}");
}

#[test]
#[cfg_attr(miri, ignore = "a matter of statistics: too many reads for it")]
fn slots_give_way_to_pages_that_they_cannot_help() {
    let pager = cache();
    let file = open(&pager);
    warm(&file, &pager, 0);
    let before = pager.stats().bytes_slots;
    let large = pager.open_file(65_536, 100).unwrap();
    let mut random = Random(5);

    for _ in 0..20_000 {
        let page = random.below(60);
        if let Lookup::Load(mut load) = large.get(page) {
            let buffer = load.take_buffer();
            load.complete(buffer, Ok(()));
        }
    }

    let after = pager.stats().bytes_slots;
    assert!(after < before / 2, "{before}, then {after}");
}

#[test]
#[cfg_attr(miri, ignore = "too many reads for it")]
fn what_is_held_stays_while_everything_else_goes() {
    let pager = cache();
    let file = open(&pager);
    warm(&file, &pager, 0);
    let mut random = Random(11);
    let mut held = Vec::new();
    while held.len() < 500 {
        let record = random.skewed();
        let slots_before = pager.slot_hits();
        let got = read(&file, record, 0);
        if slots_before < pager.slot_hits() {
            held.push((record, got));
        }
    }

    (0..20_000).for_each(|_| drop(read(&file, random.below(PAGES * PER_PAGE), 0)));
    held.iter().for_each(|(record, got)| check(got, *record, 0));
    drop((file, pager));

    held.iter().for_each(|(record, got)| check(got, *record, 0));
    let copies: Vec<_> = held.iter().map(|(record, got)| (*record, got.0.clone(), got.1)).collect();
    drop(held);
    copies.into_iter().for_each(|(record, guard, start)| check(&(guard, start), record, 0));
}

#[test]
#[cfg_attr(miri, ignore = "too many reads for it")]
fn a_file_that_takes_the_key_of_another_finds_none_of_its_records() {
    let pager = cache();
    let first = open(&pager);
    warm(&first, &pager, 0);
    assert_ne!(pager.stats().bytes_slots, 0);
    drop(first);

    let second = open(&pager); // same key, other bytes: `read` compares

    for record in 0..PAGES * PER_PAGE {
        let (page, start) = (record / PER_PAGE, record % PER_PAGE * RECORD_BYTES);
        assert!(!second.has_part(page, start) && second.part(page, start).is_none());
    }
    warm(&second, &pager, 0xffff);
}

#[test]
#[cfg_attr(miri, ignore = "too many reads for it")]
fn readers_of_all_kinds_see_what_was_stored() {
    let pager = cache();
    std::thread::scope(|scope| {
        let shared = open(&pager);
        for thread in 0..4_u32 {
            let (pager, shared) = (Arc::clone(&pager), Arc::clone(&shared));
            scope.spawn(move || {
                let mut random = Random(u64::from(thread) * 77 + 1);
                for round in 0..3 {
                    let own = open(&pager);
                    for _ in 0..6_000 {
                        drop(read(&shared, random.skewed(), 0));
                        drop(read(&own, random.skewed(), thread * 16 + round + 1));
                    }
                }
            });
        }
    });

    assert_ne!(pager.stats().slot_hits, 0);
    assert_eq!(pager.stats().pins, 0);
}

/// Few loads, so that Miri sees how bytes come to a slot: pages go with extents that slots take.
#[test]
fn a_part_is_copied_to_a_slot_and_found_there() {
    const PAGES: u32 = 64; // four extents
    const LAST: u32 = 7 * 2048; // of eight records of 2048 bytes
    let pager = cache();
    let file = pager.open_file_of_records(16_384, PAGES, (2048, 8)).unwrap();
    for page in 0..PAGES {
        let Lookup::Load(mut load) = file.get_record(page, LAST) else { panic!("page {page}") };
        let (wait, mut buffer) = (load.wait(), load.take_buffer());
        buffer[LAST as usize..].fill(u8::try_from(page).unwrap());
        load.complete(buffer, Ok(()));
        file.note_read(&pollster::block_on(wait).unwrap(), LAST);
    }
    pager.lend_slots(2048, 4); // an extent for slots and one for their entries
    let before: Vec<u32> = (0..PAGES).filter(|page| file.contains(*page)).collect();

    pager.lend_slots(2048, 4);

    let gone: Vec<u32> = before.into_iter().filter(|page| !file.contains(*page)).collect();
    assert_eq!(gone.len(), 16, "an extent of pages");
    let kept: Vec<u32> = gone.into_iter().filter(|page| file.has_part(*page, LAST)).collect();
    assert!(4 < kept.len(), "half of them: the others are sought in the new slots by now");
    for page in kept {
        let (guard, first) = file.part(page, LAST).expect("it was read");
        assert_eq!((guard.len(), first), (2048, LAST));
        assert!(guard.iter().all(|byte| u32::from(*byte) == page), "page {page}");
        assert!(file.part(page, 0).is_none(), "it was never read");
    }
}

#[test]
fn parts_cut_pages_into_eight_at_most() {
    use crate::config::FileParts;
    let parts = |bytes, records| FileParts::new(bytes, records, 1000);
    let cut = |bytes, records| {
        let parts = parts(bytes, records)?;
        let last = parts.count() - 1;
        Some((parts.count(), parts.length_of(0), parts.start_of(last) + parts.length_of(last)))
    };

    assert_eq!(cut(512, 8), Some((8, 512, 4096)));
    assert_eq!(cut(448, 9), Some((5, 896, 4032)));
    assert_eq!(cut(64, 64), Some((8, 512, 4096)));
    assert_eq!(cut(2048, 2), Some((2, 2048, 4096)));
    assert_eq!((cut(4096, 1), cut(3072, 4), cut(0, 0), cut(64, 0)), (None, None, None, None));
    assert_eq!(FileParts::new(512, 8, u32::MAX), None);
    let odd = parts(448, 9).unwrap();
    assert_eq!(
        (odd.part_of(0), odd.part_of(895), odd.part_of(896), odd.part_of(4095)),
        (0, 0, 1, 4)
    );
}
