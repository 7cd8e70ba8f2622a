//! The memory limit: what the process holds while a store works on eight times as much data.
//!
//! Twenty databases of dimensions from 3 to 4096, with dense, sparse and string ids, are filled,
//! overwritten in part and read at random, in a process of its own for each limit. Promised:
//! the process never has more than the limit and [`SLACK_BYTES`] in memory, program and stacks
//! included; what the statistics name is at most the limit, but for one chunk of a memtable and a
//! compaction that begins while the memtables are full; and at the end, after a flush, they say
//! what the process has beside the pages of its program, to within [`UNNAMED_BYTES`] and a part of
//! the limit. (A memtable leaves them when its segment is published, moments before its last reader
//! lets go of it.) The larger limits are for the full scale. Each run prints where the bytes are.
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
const CHUNK_BYTES: u64 = 3 << 20;
/// Flushes and compactions begin when the memtables are full, and take at most this share more.
const WORK_SHARE: u64 = 16;
/// What a process has beside the store: program, stacks, and what its allocator keeps.
const SLACK_BYTES: u64 = 32 << 20;
/// What the process may have more or less than the statistics name: stacks, and what its allocator
/// keeps of small blocks.
const UNNAMED_BYTES: u64 = 8 << 20;
const UNNAMED_SHARE: u64 = 64;
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

/// The parts that the statistics name, in bytes.
fn parts(stats: &StoreStats) -> [(&'static str, u64); 9] {
    [
        ("cache", stats.cache_bytes),
        ("page tables", stats.cache_metadata_bytes),
        ("memtables", stats.memtable_bytes),
        ("fences", stats.fence_bytes),
        ("filters", stats.filter_bytes),
        ("rows found lately", stats.row_table_bytes),
        ("flushes and compactions", stats.work_bytes),
        ("databases", stats.database_bytes),
        ("log", stats.log_buffer_bytes),
    ]
}

/// What the process had and what the statistics named at one moment.
struct Sample {
    resident: u64,
    anonymous: u64,
    allocator: Option<process::Allocator>,
    stats: StoreStats,
}

impl Sample {
    fn now(store: &blocking::Store) -> Self {
        let (resident, anonymous) = (process::resident_bytes(), process::anonymous_bytes());
        Self { resident, anonymous, allocator: process::allocator(), stats: store.stats() }
    }

    fn print(&self, what: &str) {
        let kib = |bytes: u64| bytes >> 10;
        let named = kib(self.stats.memory_bytes());
        let (resident, anonymous) = (kib(self.resident), kib(self.anonymous));
        println!("{what}: {resident} KiB resident, {anonymous} of them no file's, {named} named:");
        for (part, bytes) in parts(&self.stats) {
            println!("{:>12} KiB {part}", kib(bytes));
        }
        if let Some(allocator) = &self.allocator {
            let (fetched, in_use) = (kib(allocator.fetched), kib(allocator.in_use));
            println!("{fetched:>12} KiB fetched by the allocator, {in_use} in use");
        }
    }
}

/// Writes [`DATA_FACTOR`] times the limit and reads; gives the moment with the most memory and the
/// most that the statistics named.
fn work(store: &blocking::Store, limit: u64) -> (Sample, u64) {
    let mut random = ChaCha8Rng::seed_from_u64(limit);
    let mut subjects = subjects(store);
    let values: Vec<f32> = (0..2 * BATCH_BYTES / 4).map(|_| random.random()).collect();
    let (mut stored, mut named_max) = (0, 0);
    let mut highest = Sample::now(store);
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
        let sample = Sample::now(store);
        named_max = named_max.max(sample.stats.memory_bytes());
        // A batch that finds the memtables just below their share starts one more chunk.
        let most = limit + limit / WORK_SHARE + CHUNK_BYTES;
        assert!(sample.stats.memory_bytes() <= most, "{:#?}", sample.stats);
        if highest.resident < sample.resident {
            highest = sample;
        }
        for _ in 0..READS {
            let subject = &subjects[random.random_range(0..subjects.len())];
            if 0 < subject.rows {
                subject.read(random.random_range(0..subject.rows));
            }
        }
    }
    (highest, named_max)
}

fn stays_within(limit: u64) {
    let program = process::anonymous_bytes();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = blocking::Store::create(path, Config::new().memory_limit(limit)).unwrap();
    let (highest, named_max) = work(&store, limit);
    store.flush().unwrap();
    let end = Sample::now(&store);
    let resident_max = process::resident_bytes_max();
    highest.print(&format!("limit {} KiB, most", limit >> 10));
    end.print("at the end");
    let unnamed = (end.anonymous - program).abs_diff(end.stats.memory_bytes());
    let kib = |bytes: u64| bytes >> 10;
    println!(
        "named at most: {} KiB; at any moment {} KiB resident; at the end {} not named",
        kib(named_max),
        kib(resident_max),
        kib(unnamed)
    );
    assert!(resident_max < limit + SLACK_BYTES, "{resident_max} bytes at a limit of {limit}");
    assert!(
        unnamed < UNNAMED_BYTES + limit / UNNAMED_SHARE,
        "the statistics are wrong by {unnamed} bytes"
    );
    store.close().unwrap();
}

#[test]
fn a_store_stays_within_64_mib() {
    process::alone("memory_limit::a_store_stays_within_64_mib", || stays_within(64 << 20));
}

#[test]
fn a_store_stays_within_256_mib() {
    if Scale::from_environment() == Scale::Full {
        process::alone("memory_limit::a_store_stays_within_256_mib", || stays_within(256 << 20));
    }
}

#[test]
fn a_store_stays_within_1_gib() {
    if Scale::from_environment() == Scale::Full {
        process::alone("memory_limit::a_store_stays_within_1_gib", || stays_within(1 << 30));
    }
}
