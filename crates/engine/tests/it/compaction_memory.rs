//! Compaction: what it gathers, in pieces, and what is kept in memory behind it.

use nephrite::{
    Batch, Config, DatabaseOptions, Durability, Ids,
    blocking::{Database, Store},
};

use crate::{
    fault_disk::faulty,
    support::{ends, new_store, small, vector},
};

/// What a compaction gathers before it writes is beside the memory limit.
#[test]
fn tombstones_only_are_written_in_pieces() {
    ends(|| {
        let (directory, disk, config) = faulty();
        let config = config.memory_limit(32 << 20).memtable_bytes(4 << 20);
        let config = config.wal_segment_bytes(16 << 20).garbage_percent(90);
        let store = Store::create(directory.path().join("store"), config).unwrap();
        let database = store.create_database("a", DatabaseOptions::new(1)).unwrap();
        let ids: Vec<u64> = (0..100_000).map(|row| row * 2).collect();
        for ids in ids.chunks(1_000) {
            database.put_many(Ids::U64(ids), &[0.5; 1_000], Durability::Buffered).unwrap();
        }
        database.flush().unwrap();
        store.compact().unwrap();
        let before = store.stats().compactions;
        disk.take_largest_write();

        // Four segments of tombstones, which those of the background merge.
        for ids in ids[..60_000].chunks(15_000) {
            for ids in ids.chunks(1_000) {
                let mut batch = Batch::new();
                ids.iter().for_each(|id| batch.delete(*id));
                database.batch(batch).unwrap();
            }
            database.flush().unwrap();
        }
        while store.stats().compactions == before {
            std::thread::yield_now();
        }

        let stats = database.stats().unwrap();
        assert_eq!((stats.segments, stats.tombstones), (2, 60_000));
        let largest = disk.take_largest_write();
        assert!(largest < 512 << 10, "{largest} bytes were written at once");
    });
}

#[test]
fn an_old_snapshot_does_not_keep_what_was_known_of_later_segments() {
    let (_directory, store) = new_store(small().memtable_bytes(1 << 20));
    let database = store.create_database("a", DatabaseOptions::new(16)).unwrap();
    let rows: Vec<f32> = (0..8_000).flat_map(|id| vector(id, 16)).collect();
    database.put_many(Ids::Consecutive(0), &rows, Durability::Buffered).unwrap();
    store.compact().unwrap();
    let snapshot = database.snapshot().unwrap();
    let mut filter_bytes = Vec::new();
    for round in 0..30 {
        database.put(round, &vector(9_000 + round, 16)).unwrap();
        store.compact().unwrap();
        filter_bytes.push(store.stats().filter_bytes);
    }
    assert_eq!(filter_bytes[2], filter_bytes[29], "{filter_bytes:?}");
    assert_eq!(&snapshot.get(3).unwrap().unwrap()[..], &vector(3, 16)[..]);
}

/// Id pages are written in pieces while they are made: here some pieces, and a part of one.
#[test]
fn the_ids_of_large_segments_are_all_found() {
    const EACH: u64 = 40_000; // 480 KiB of id pages: pieces have 256 KiB
    let config = Config::new().memory_limit(64 << 20).memtable_bytes(8 << 20);
    let (directory, store) = new_store(config.clone());
    let database = store.create_database("a", DatabaseOptions::new(3)).unwrap();
    let id = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let value = |number: u64| f32::from(u16::try_from(number % 60_013).unwrap());
    for run in 0..2 {
        let numbers = run * EACH..(run + 1) * EACH;
        let ids: Vec<u64> = numbers.clone().map(id).collect();
        let rows: Vec<f32> = numbers.flat_map(|number| [value(number); 3]).collect();
        database.put_many(Ids::U64(&ids), &rows, Durability::Buffered).unwrap();
        database.flush().unwrap();
    }
    let finds_all = |database: &Database| {
        (0..2 * EACH).for_each(|number| {
            let found = database.get(id(number)).unwrap().unwrap();
            assert_eq!(found[..], [value(number); 3], "{number}");
        });
    };
    finds_all(&database);
    database.compact().unwrap();
    assert_eq!(database.stats().unwrap().segments, 1);
    finds_all(&database);
    drop(database);
    store.close().unwrap();
    let store = Store::open(directory.path().join("store"), config).unwrap();
    finds_all(&store.database("a").unwrap());
}

#[test]
fn memory_that_is_used_again_leaves_nothing_between_the_rows() {
    const GAPPED: usize = 100;
    const ROWS: usize = 12_000; // the last page has room for six more
    const PAGE: usize = 4096;
    const STRIDE: usize = 448;
    // From 64 MiB on compactions share huge pages, whose windows are used again and again.
    let (directory, store) = new_store(small().memory_limit(64 << 20));
    let database = store.create_database("a", DatabaseOptions::new(100)).unwrap();
    for round in 0..2 {
        for id in (0..ROWS as u64).filter(|id| round == 0 || id % 3 == 0) {
            database.put(id, &vector(id + round, GAPPED)).unwrap();
        }
    }

    database.compact().unwrap();

    store.close().unwrap();
    let listed = std::fs::read_dir(directory.path().join("store/segments")).unwrap();
    let files: Vec<_> = listed.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    let [bytes] = files.as_slice() else { panic!("{} segments", files.len()) };
    let per_page = PAGE / STRIDE;
    for (number, page) in bytes[PAGE..].chunks_exact(PAGE).enumerate() {
        let rows = ROWS.saturating_sub(number * per_page).min(per_page);
        if rows == 0 {
            break; // behind the vectors
        }
        let (filled, rest) = page.split_at(rows * STRIDE);
        assert!(rest.iter().all(|byte| *byte == 0), "page {number} behind {rows} rows");
        for row in filled.chunks_exact(STRIDE) {
            let (values, gap) = row.split_at(GAPPED * 4);
            assert!(values.iter().any(|byte| *byte != 0) && gap.iter().all(|byte| *byte == 0));
        }
    }
}

/// At its end an input counts as if its next id were the largest number, which is an id as well.
#[test]
fn the_largest_number_is_merged_like_any_other() {
    const LARGEST: u64 = u64::MAX;
    const OTHERS: u64 = 400;
    for newest in [0, 1, 2] {
        let (directory, store) = new_store(small());
        let database = store.create_database("a", DatabaseOptions::new(4)).unwrap();
        // Of three segments that overlap the one before the newest that has it is out of date.
        for segment in 0..3 {
            for id in (0..OTHERS).map(|number| number * 3 + segment) {
                database.put(id, &vector(id, 4)).unwrap();
            }
            if segment == newest || segment + 1 == newest {
                database.put(LARGEST, &vector(segment, 4)).unwrap();
            }
            database.flush().unwrap();
        }

        database.compact().unwrap();

        assert_eq!(database.stats().unwrap().segments, 1);
        drop(database);
        store.close().unwrap();
        let store = Store::open(directory.path().join("store"), small()).unwrap();
        let database = store.database("a").unwrap();
        let ids: Vec<_> = database.scan().unwrap().map(|entry| entry.unwrap().0).collect();
        assert_eq!((ids.len() as u64, ids.last()), (3 * OTHERS + 1, Some(&LARGEST.into())));
        assert_eq!(**database.get(LARGEST).unwrap().as_ref().unwrap(), vector(newest, 4));
    }
}
