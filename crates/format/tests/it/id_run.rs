//! Id runs against a sorted list: every id is found where it is and none where it is not.

use nephrite_format::id_run::{FenceIndex, IdIndex, IdPage, IdRun, IdRunBuilder, U64_PAGE_ENTRIES};
use nephrite_format::{FormatError, Id, IdKind, IdRef, Row};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::support::{
    FILE, KINDS, ROUNDS, build_run, mutate, random_bytes, random_entries, random_id,
    refuses_every_truncation, with_seeds,
};

fn lookup(run: &IdRun, id: IdRef<'_>) -> Option<Row> {
    let page = run.fences.page_for(id)? as usize;
    let bytes = &run.pages[page * 4096..][..4096];
    let page = IdPage::parse(bytes, run.fences.kind(), FILE, 0).expect("a page of the run");
    page.find(id).expect("an undamaged page")
}

fn pages(run: &IdRun) -> impl Iterator<Item = IdPage<'_>> {
    let kind = run.fences.kind();
    let parse = move |bytes| IdPage::parse(bytes, kind, FILE, 0).expect("a page of the run");
    run.pages.chunks_exact(4096).map(parse)
}

fn random_run(rng: &mut ChaCha8Rng, kind: IdKind) -> (Vec<(Id, Row)>, IdRun) {
    let count = if cfg!(miri) { 30 } else { rng.random_range(1..3000) };
    let entries = random_entries(rng, kind, count);
    let run = build_run(kind, &entries);
    (entries, run)
}

#[test]
fn every_id_is_found_and_others_are_not() {
    with_seeds(ROUNDS / 4 + 1, |rng| {
        for kind in KINDS {
            let (entries, run) = random_run(rng, kind);
            for (id, row) in &entries {
                assert_eq!(lookup(&run, id.into()), Some(*row), "{id}");
            }
            for _ in 0..if cfg!(miri) { 5 } else { 200 } {
                let id = random_id(rng, kind);
                let expected = entries.binary_search_by(|(stored, _)| stored.cmp(&id));
                let expected = expected.ok().map(|index| entries[index].1);
                assert_eq!(lookup(&run, id.as_id_ref()), expected, "{id}");
            }
        }
    });
}

#[test]
fn pages_hold_the_entries_in_order_and_check_clean() {
    with_seeds(ROUNDS / 4 + 1, |rng| {
        for kind in KINDS {
            let (entries, run) = random_run(rng, kind);
            pages(&run).for_each(|page| page.check().unwrap());
            let all = pages(&run).flat_map(|page| page.iter().map(Result::unwrap));
            assert!(all.eq(entries.iter().map(|(id, row)| (id.into(), *row))));
            let tombstones = entries.iter().filter(|(_, row)| row.is_tombstone()).count();
            assert_eq!(run.entry_count as usize, entries.len());
            assert_eq!(run.tombstone_count as usize, tombstones);
            assert_eq!(run.fences.page_count() as usize * 4096, run.pages.len());
        }
    });
}

#[test]
fn lower_bound_equals_that_of_a_sorted_list() {
    with_seeds(ROUNDS / 4 + 1, |rng| {
        for kind in KINDS {
            let (_, run) = random_run(rng, kind);
            let page = pages(&run).next().unwrap();
            let ids: Vec<Id> = page.iter().map(|entry| entry.unwrap().0.to_id()).collect();
            for _ in 0..if cfg!(miri) { 5 } else { 50 } {
                let id = random_id(rng, kind);
                let expected = ids.partition_point(|stored| *stored < id);
                assert_eq!(page.lower_bound(id.as_id_ref()).unwrap(), expected, "{id}");
            }
        }
    });
}

#[test]
fn taking_pages_while_building_changes_nothing() {
    with_seeds(5, |rng| {
        for kind in KINDS {
            let (entries, whole) = random_run(rng, kind);
            let mut builder = IdRunBuilder::new(kind);
            let mut pages = Vec::new();
            for (index, (id, row)) in entries.iter().enumerate() {
                builder.push(id.into(), *row);
                if index % 7 == 0 {
                    assert_eq!(builder.finished_bytes() % 4096, 0);
                    pages.extend(builder.drain_pages());
                }
            }
            let rest = builder.finish();
            pages.extend(rest.pages);
            assert_eq!(pages, whole.pages);
            assert_eq!(rest.fences, whole.fences);
        }
    });
}

#[test]
fn number_pages_hold_340_entries() {
    let entry = |id: u64| (Id::from(id), Row::new(0));
    let full: Vec<_> = (0..U64_PAGE_ENTRIES as u64).map(entry).collect();
    assert_eq!(build_run(IdKind::U64, &full).fences.page_count(), 1);
    let one_more: Vec<_> = (0..=U64_PAGE_ENTRIES as u64).map(entry).collect();
    assert_eq!(build_run(IdKind::U64, &one_more).fences.page_count(), 2);
}

/// 511 entries of one byte would fill a page to the last byte; there are only 256 such ids.
#[test]
fn byte_pages_are_filled_to_the_last_byte() {
    let id = |number: u16| {
        let mut bytes = vec![b'x'; 24];
        bytes[..2].copy_from_slice(&[(number >> 8) as u8, (number & 0xff) as u8]);
        bytes
    };
    // 4088 bytes: 131 entries of 2 + 5 + 24 = 31 bytes take 4061, so that 27 are left: one more
    // of 20 bytes fits exactly, of 21 not.
    for (last, page_count) in [(20, 1), (21, 2)] {
        let mut builder = IdRunBuilder::new(IdKind::Bytes);
        (0..131).for_each(|number| builder.push(IdRef::from(&id(number)), Row::new(1)));
        builder.push(IdRef::from(&vec![0xff; last]), Row::new(2));
        let run = builder.finish();
        assert_eq!(run.fences.page_count(), page_count, "last id of {last} bytes");
        pages(&run).for_each(|page| page.check().unwrap());
    }
}

#[test]
fn the_longest_ids_fit() {
    let ids: Vec<(Id, Row)> =
        (0..40_u8).map(|number| (Id::from(vec![number; 255]), Row::new(number.into()))).collect();
    let run = build_run(IdKind::Bytes, &ids);
    assert_eq!(run.fences.page_count(), 3);
    ids.iter().for_each(|(id, row)| assert_eq!(lookup(&run, id.into()), Some(*row)));
}

#[test]
fn extreme_numbers_are_found() {
    let ids = [0, 1, u64::MAX - 1, u64::MAX].map(|id| (Id::from(id), Row::new(5)));
    let run = build_run(IdKind::U64, &ids);
    ids.iter().for_each(|(id, _)| assert_eq!(lookup(&run, id.into()), Some(Row::new(5))));
    assert_eq!(lookup(&run, IdRef::from(2)), None);
    assert_eq!(lookup(&run, IdRef::from("x")), None, "an id of the other kind");
}

#[test]
#[should_panic(expected = "id 5 after id 5")]
fn a_repeated_id_cannot_be_pushed() {
    build_run(IdKind::U64, &[(Id::from(5), Row::new(0)), (Id::from(5), Row::new(1))]);
}

#[test]
fn check_finds_ids_out_of_order_and_bytes_in_unused_places() {
    with_seeds(5, |rng| {
        for kind in KINDS {
            let run = build_run(kind, &random_entries(rng, kind, 40));
            let page =
                |bytes: &[u8]| IdPage::parse(bytes, kind, FILE, 0).and_then(|page| page.check());
            let bytes = &run.pages[..4096];
            page(bytes).unwrap();
            let mut unused = bytes.to_vec();
            unused[4095] = 1;
            assert!(page(&unused).is_err(), "{kind}: last byte");
            let mut swapped = bytes.to_vec();
            match kind {
                IdKind::U64 => swapped[8..24].rotate_left(8),
                IdKind::Bytes => swapped[8..12].rotate_left(2),
            }
            assert!(page(&swapped).is_err(), "{kind}: swapped entries");
        }
    });
}

#[test]
fn an_entry_outside_of_the_page_is_an_error_with_its_place() {
    let run = build_run(IdKind::Bytes, &[(Id::from("only"), Row::new(0))]);
    let mut bytes = run.pages.clone();
    bytes[8..10].copy_from_slice(&4090_u16.to_le_bytes());
    let page = IdPage::parse(&bytes, IdKind::Bytes, FILE, 40_960).unwrap();
    let error = page.find(IdRef::from("only")).unwrap_err();
    assert!(matches!(error, FormatError::Corrupt { offset: 40_960, .. }), "{error}");
    assert!(page.get(0).is_err());
}

#[test]
fn pages_of_other_kind_length_or_count_are_refused() {
    let run = build_run(IdKind::U64, &[(Id::from(5), Row::new(0))]);
    let parse = |bytes: &[u8], kind| IdPage::parse(bytes, kind, FILE, 0).is_ok();
    assert!(parse(&run.pages, IdKind::U64));
    assert!(!parse(&run.pages, IdKind::Bytes));
    assert!(!parse(&run.pages[..4095], IdKind::U64));
    for count in [0_u16, 341, u16::MAX] {
        let mut bytes = run.pages.clone();
        bytes[..2].copy_from_slice(&count.to_le_bytes());
        assert!(!parse(&bytes, IdKind::U64), "{count} entries");
    }
}

#[test]
fn fences_round_trip_and_answer_alike() {
    with_seeds(ROUNDS / 4 + 1, |rng| {
        for kind in KINDS {
            let (entries, run) = random_run(rng, kind);
            let blob = run.fences.encode();
            assert_eq!(blob.len() % 4096, 0);
            let fences = FenceIndex::decode(&blob, kind, FILE, 0).unwrap();
            assert_eq!(fences, run.fences);
            assert_eq!(fences.last(), entries.last().map(|(id, _)| id.into()));
            assert_eq!(fences.first_of(0), entries.first().map(|(id, _)| id.into()));
            assert_eq!(fences.first_of(fences.page_count()), None);
            assert!(fences.memory_bytes() < 200 + 2 * blob.len());
        }
    });
}

#[test]
fn fences_refuse_disorder_wrong_lengths_and_the_other_kind() {
    let entries: Vec<_> = (0..2000_u64).map(|id| (Id::from(id), Row::new(0))).collect();
    let blob = build_run(IdKind::U64, &entries).fences.encode();
    let decode = |blob: &[u8], kind| FenceIndex::decode(blob, kind, FILE, 0).is_ok();
    assert!(decode(&blob, IdKind::U64));
    assert!(!decode(&blob, IdKind::Bytes));
    // Kind, reserved, count, length, first id (0 becomes larger than the next), padding.
    for offset in [0, 2, 4, 8, 15, 17, 4095] {
        let mut damaged = blob.clone();
        damaged[offset] ^= 0x40;
        assert!(!decode(&damaged, IdKind::U64), "byte {offset}");
    }
    let mut longer = blob.clone();
    longer.resize(8192, 0);
    assert!(!decode(&longer, IdKind::U64), "a block too many");
    refuses_every_truncation(&blob, |blob| decode(blob, IdKind::U64));
}

#[test]
fn a_dense_index_answers_within_its_range_only() {
    let index = IdIndex::Dense { first: 100, count: 5, first_row: Row::new(7) };
    assert_eq!(index.find_dense(IdRef::from(99)), None);
    assert_eq!(index.find_dense(IdRef::from(100)), Some(Row::new(7)));
    assert_eq!(index.find_dense(IdRef::from(104)), Some(Row::new(11)));
    assert_eq!(index.find_dense(IdRef::from(105)), None);
    assert_eq!(index.find_dense(IdRef::from(100 + (1 << 32))), None);
    assert_eq!(index.find_dense(IdRef::from("x")), None);
    assert_eq!(IdIndex::Sorted.find_dense(IdRef::from(100)), None);
}

#[test]
fn arbitrary_bytes_never_panic() {
    with_seeds(ROUNDS, |rng| {
        for (code, kind) in KINDS.into_iter().enumerate() {
            let (_, run) = random_run(rng, kind);
            for base in [&run.pages[..4096], &run.fences.encode()] {
                let mut fuzzed = vec![u8::try_from(code).unwrap()];
                fuzzed.extend_from_slice(&mutate(rng, base));
                nephrite_format::fuzzing::decode_id_page(&fuzzed);
                nephrite_format::fuzzing::decode_fences(&fuzzed);
            }
            let noise = random_bytes(rng, 4097);
            nephrite_format::fuzzing::decode_id_page(&noise);
            nephrite_format::fuzzing::decode_fences(&noise);
        }
    });
}
