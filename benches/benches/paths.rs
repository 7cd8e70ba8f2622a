//! The CPU paths of the engine, without a device: `cargo bench -p nephrite-benches --bench paths`.
//!
//! | group | question |
//! |---|---|
//! | `hit` | what does a read of a vector in memory cost, one and a hundred at a time? |
//! | `miss` | what does the cache's bookkeeping of a miss cost: look-up, victim, buffer, publish? |
//! | `probe` | what does it take to learn that an id is not stored, and a filter's answer? |
//! | `publish` | what does a buffered write cost, one and a thousand at a time? |
//! | `encode` | what does a log record cost, of one vector and of ten? |
//! | `checksum` | what does the checksum of a page cost? |
//!
//! What a read must not do (allocate, lock, call the system) is a test of the engine, not here.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot set up has nothing to report")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nephrite::blocking::{Database, Store};
use nephrite::{Config, DatabaseOptions, Durability, IdRef, Ids};
use nephrite_format::filter::{IdFilter, IdHash};
use nephrite_format::{
    DatabaseId, ElementType, FileId, Generation, IdKind, PageIdentity, StoreId, VectorLayout,
    page_checksum, wal,
};
use nephrite_pager::{CachedFile, Lookup, Pager, PagerConfig};

const DIMENSION: u32 = 128;
const VECTORS: u64 = 50_000;
const MANY: usize = 100;
const BATCH: u64 = 1000;

/// Numbers below a limit; the same sequence every time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A store whose even ids are in segments and in memory.
fn stored() -> (tempfile::TempDir, Store, Database) {
    let directory = tempfile::tempdir().unwrap();
    let config = Config::new().flush_interval(Duration::ZERO);
    let store = Store::create(directory.path(), config).unwrap();
    let database = store.create_database("vectors", DatabaseOptions::new(DIMENSION)).unwrap();
    let vectors = vec![1.5; (BATCH * u64::from(DIMENSION)).try_into().unwrap()];
    for first in (0..VECTORS).step_by(usize::try_from(BATCH).unwrap()) {
        let ids: Vec<u64> = (first..first + BATCH).map(|number| number * 2).collect();
        database.put_many(Ids::U64(&ids), &vectors, Durability::Buffered).unwrap();
    }
    store.flush().unwrap();
    for id in 0..VECTORS {
        assert!(database.get(id * 2).unwrap().is_some());
    }
    (directory, store, database)
}

fn hit(criterion: &mut Criterion) {
    let (_directory, _store, database) = stored();
    let mut group = criterion.benchmark_group("hit");
    let mut random = Random(1);
    group.throughput(Throughput::Elements(1));
    group.bench_function("get", |bencher| {
        bencher.iter(|| black_box(database.get(random.below(VECTORS) * 2).unwrap().unwrap()[0]));
    });
    group.bench_function("try_get", |bencher| {
        let database = database.as_async();
        bencher.iter(|| {
            let found = database.try_get(random.below(VECTORS) * 2).unwrap().unwrap();
            black_box(found.unwrap()[0])
        });
    });
    group.throughput(Throughput::Elements(MANY as u64));
    group.bench_function("get_many of 100", |bencher| {
        bencher.iter(|| {
            let ids: [IdRef<'_>; MANY] =
                std::array::from_fn(|_| IdRef::U64(random.below(VECTORS) * 2));
            black_box(database.get_many(&ids).unwrap().len())
        });
    });
    group.finish();
}

/// One page of a file with far more pages than frames: every second visit finds it gone.
fn miss_once(file: &Arc<CachedFile>, page: u32) {
    if let Lookup::Load(mut load) = file.get(page) {
        let buffer = load.take_buffer();
        load.complete(buffer, Ok(()));
    }
}

fn miss(criterion: &mut Criterion) {
    const FRAMES: usize = 1024;
    const PAGES: u32 = 65_536;
    let pager = Pager::new(PagerConfig::new(FRAMES * 4096)).unwrap();
    let file = pager.open_file(4096, PAGES).unwrap();
    let mut group = criterion.benchmark_group("miss");
    group.throughput(Throughput::Elements(1));
    let mut page = 0;
    group.bench_function("bookkeeping", |bencher| {
        bencher.iter(|| {
            page = (page + 1) % PAGES;
            miss_once(&file, page);
        });
    });
    let stats = pager.stats();
    assert!(stats.hits <= stats.misses / 100, "these were misses: {stats:?}");
    group.finish();
}

fn probe(criterion: &mut Criterion) {
    let (_directory, _store, database) = stored();
    let mut group = criterion.benchmark_group("probe");
    let mut random = Random(2);
    group.throughput(Throughput::Elements(1));
    group.bench_function("absent id", |bencher| {
        bencher.iter(|| black_box(database.contains(random.below(VECTORS) * 2 + 1).unwrap()));
    });
    let mut filter = IdFilter::for_ids(VECTORS.try_into().unwrap());
    (0..VECTORS).for_each(|id| filter.insert(IdRef::U64(id * 2)));
    group.bench_function("filter", |bencher| {
        bencher.iter(|| {
            black_box(filter.may_contain(IdHash::of(IdRef::U64(random.below(VECTORS) * 2 + 1))))
        });
    });
    group.finish();
}

fn publish(criterion: &mut Criterion) {
    let (_directory, _store, database) = stored();
    let mut group = criterion.benchmark_group("publish");
    let mut random = Random(3);
    let vectors = vec![2.5; (BATCH * u64::from(DIMENSION)).try_into().unwrap()];
    let one = &vectors[..DIMENSION as usize];
    group.throughput(Throughput::Elements(1));
    group.bench_function("put", |bencher| {
        bencher.iter(|| {
            database.put_with(random.below(VECTORS) * 2, one, Durability::Buffered).unwrap();
        });
    });
    let mut first = 0;
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("put_many of 1000", |bencher| {
        bencher.iter(|| {
            first = (first + BATCH) % VECTORS;
            let ids: Vec<u64> = (first..first + BATCH).map(|number| number * 2).collect();
            database.put_many(Ids::U64(&ids), &vectors, Durability::Buffered).unwrap();
        });
    });
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let layout = VectorLayout::for_dimension(DIMENSION, ElementType::F32).unwrap();
    let vector = [0.25; DIMENSION as usize];
    let mut group = criterion.benchmark_group("encode");
    for count in [1_u32, 10] {
        let body = wal::put_len(IdRef::U64(0), &layout) * count as usize;
        let mut record = vec![0; wal::operations_len(body)];
        group.throughput(Throughput::Bytes(record.len() as u64));
        group.bench_function(BenchmarkId::new("record", count), |bencher| {
            bencher.iter(|| {
                let database = DatabaseId::new(1);
                let mut encoder =
                    wal::OperationsEncoder::new(&mut record, database, IdKind::U64, &layout, count);
                (0..count).for_each(|id| encoder.put(IdRef::U64(id.into()), &vector));
                black_box(encoder.finish())
            });
        });
    }
    group.finish();
}

fn checksum(criterion: &mut Criterion) {
    let identity =
        PageIdentity::new(StoreId::new([7; 16]), FileId::new(3), Generation::new(1), 4096);
    let mut group = criterion.benchmark_group("checksum");
    for bytes in [4096_usize, 12_288, 65_536] {
        let page = vec![0x5a; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("page", bytes), |bencher| {
            bencher.iter(|| black_box(page_checksum(identity, black_box(&page))));
        });
    }
    group.finish();
}

criterion_group! {
    name = paths;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = hit, miss, probe, publish, encode, checksum
}
criterion_main!(paths);
