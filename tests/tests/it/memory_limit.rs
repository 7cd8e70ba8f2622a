//! The memory limit: what the process holds while a store works on eight times as much data.
//!
//! Twenty databases of dimensions from 3 to 4096, with dense, sparse and string ids, are filled,
//! overwritten in part and read at random, in a process of its own for each limit. Promised:
//! the process never has more than the limit and [`SLACK_BYTES`] in memory, program and stacks
//! included; what the statistics name is at most the limit, but for one chunk of a memtable and a
//! compaction that begins while the memtables are full; and at the end, after a flush, nothing
//! beyond the slack is missing from the statistics. (A memtable leaves them when its segment is
//! published, moments before its last reader lets go of it.) The larger limit is for the full
//! scale; there the last is only printed, as the allocator keeps more of what flushes sorted.
#![cfg(target_os = "linux")]

use nephrite::{Config, DatabaseOptions, Durability, IdKind, Ids, StoreStats, blocking};
use nephrite_tests::{Scale, process};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Data as a multiple of the limit.
const DATA_FACTOR: u64 = 8;
const DIMENSIONS: [u32; 20] = [
    3, 8, 16, 31, 64, 100, 128, 200, 256, 384, 512, 700, 768, 1000, 1024, 1536, 2000, 2048, 3072,
    4096,
];
/// Bytes of vectors in one `put_many`.
const BATCH_BYTES: usize = 256 << 10;
/// The largest chunk of a memtable, with its index.
const CHUNK_BYTES: u64 = 2 << 20;
/// Flushes and compactions begin when the memtables are full, and take at most this share more.
const WORK_SHARE: u64 = 16;
/// What a process has beside the store: program, stacks, and what its allocator keeps.
const SLACK_BYTES: u64 = 32 << 20;
/// Reads after each batch.
const READS: usize = 10;

/// A database under test: rows `0..rows` were put, under ids that follow from the row.
struct Subject {
    database: blocking::Database,
    number: u64,
    rows: u64,
}

impl Subject {
    fn id(&self, row: u64) -> u64 {
        match self.number % 3 {
            0 => row,
            _ => row.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    fn text(&self, row: u64) -> String {
        format!("{:016x}", self.id(row))
    }

    fn put_from(&self, first: u64, vectors: &[f32]) {
        let rows = first..first + (vectors.len() / self.database.dimension() as usize) as u64;
        if self.database.id_kind() == IdKind::U64 {
            let ids: Vec<u64> = rows.map(|row| self.id(row)).collect();
            self.database.put_many(Ids::U64(&ids), vectors, Durability::Buffered).unwrap();
        } else {
            let texts: Vec<String> = rows.map(|row| self.text(row)).collect();
            let ids: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
            self.database.put_many(Ids::Bytes(&ids), vectors, Durability::Buffered).unwrap();
        }
    }

    fn read(&self, row: u64) {
        let found = match self.database.id_kind() {
            IdKind::U64 => self.database.get(self.id(row)),
            IdKind::Bytes => self.database.get(&self.text(row)),
        };
        let vector = found.unwrap().unwrap_or_else(|| panic!("row {row} of {}", self.number));
        assert_eq!(vector.len(), self.database.dimension() as usize);
    }
}

fn subjects(store: &blocking::Store) -> Vec<Subject> {
    let subject = |(number, dimension): (u64, u32)| {
        let kind = if number % 3 == 2 { IdKind::Bytes } else { IdKind::U64 };
        let options = DatabaseOptions::new(dimension).id_kind(kind);
        let database = store.create_database(&format!("d{dimension}"), options).unwrap();
        Subject { database, number, rows: 0 }
    };
    (0..).zip(DIMENSIONS).map(subject).collect()
}

fn accounted(stats: &StoreStats) -> u64 {
    stats.cache_bytes
        + stats.cache_metadata_bytes
        + stats.memtable_bytes
        + stats.fence_bytes
        + stats.filter_bytes
        + stats.work_bytes
        + stats.log_buffer_bytes
}

/// Gives what the statistics miss of the resident memory in the end.
fn work_within(limit: u64) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = blocking::Store::create(path, Config::new().memory_limit(limit)).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(limit);
    let mut subjects = subjects(&store);
    let values: Vec<f32> = (0..2 * BATCH_BYTES / 4).map(|_| random.random()).collect();
    let mut stored = 0;
    while stored < limit * DATA_FACTOR {
        let chosen = random.random_range(0..subjects.len());
        let subject = &mut subjects[chosen];
        let dimension = subject.database.dimension() as usize;
        // Rows take at least 64 bytes in their pages, whatever their dimension.
        let rows = BATCH_BYTES / (dimension * 4).next_multiple_of(64);
        let start = random.random_range(0..values.len() / 2);
        let vectors = &values[start..start + rows * dimension];
        let overwrites = random.random_ratio(1, 8) && rows as u64 <= subject.rows;
        let first = if overwrites {
            random.random_range(0..=subject.rows - rows as u64)
        } else {
            subject.rows
        };
        subject.put_from(first, vectors);
        subject.rows = subject.rows.max(first + rows as u64);
        stored += BATCH_BYTES as u64;
        let stats = store.stats();
        // A batch that finds the memtables just below their share starts one more chunk.
        let most = limit + limit / WORK_SHARE + CHUNK_BYTES;
        assert!(accounted(&stats) <= most, "{stats:#?}");
        for _ in 0..READS {
            let subject = &subjects[random.random_range(0..subjects.len())];
            if 0 < subject.rows {
                subject.read(random.random_range(0..subject.rows));
            }
        }
    }
    store.flush().unwrap();
    let (stats, now) = (store.stats(), process::resident_bytes());
    let highest = process::resident_bytes_max();
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "limit {} MiB: resident {} now, {} at most; cache {}, tables {}, memtables {}, fences {}, \
         filters {}, work {}",
        mib(limit),
        mib(now),
        mib(highest),
        mib(stats.cache_bytes),
        mib(stats.cache_metadata_bytes),
        mib(stats.memtable_bytes),
        mib(stats.fence_bytes),
        mib(stats.filter_bytes),
        mib(stats.work_bytes)
    );
    assert!(highest < limit + SLACK_BYTES, "{highest} bytes at a limit of {limit}");
    store.close().unwrap();
    now.saturating_sub(accounted(&stats))
}

#[test]
fn a_store_stays_within_64_mib() {
    process::alone("memory_limit::a_store_stays_within_64_mib", || {
        let missing = work_within(64 << 20);
        assert!(missing < SLACK_BYTES, "{missing} bytes are in no statistic");
    });
}

#[test]
fn a_store_stays_within_a_larger_limit() {
    if Scale::from_environment() == Scale::Small {
        return;
    }
    process::alone("memory_limit::a_store_stays_within_a_larger_limit", || {
        // Not at 1 GiB: there the process comes to 1059 to 1096 MiB (docs/testing.md, known gaps).
        let missing = work_within(256 << 20);
        println!("{missing} bytes are in no statistic");
    });
}
