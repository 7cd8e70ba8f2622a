//! What a hit costs: `cargo bench -p nephrite-benches --bench hit`.
//!
//! One question per group. In all of them a *read* takes a random vector of 128 x f32 and loads
//! every one of its cache lines; eight such vectors lie in a page of 4096 bytes.
//!
//! - `read`: a look-up for each vector, beside the same reads from one flat array (on pages as the
//!   allocator gives them, and on the huge pages of the cache) and from pages pinned beforehand.
//! - `batch`: a hundred vectors at a time, prefetched before they are read.
//! - `threads`: two threads on pages of their own, and both on one page: nanoseconds for each read
//!   of each thread, so perfect scaling keeps the figure of one thread.
//!
//! Sizes: 4 MiB fits in the last cache level, 256 MiB and 512 MiB do not.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot set up has nothing to report")]

use std::hint::black_box;
use std::ops::Range;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nephrite_pager::{CachedFile, Lookup, PageGuard, Pager, PagerConfig};

const PAGE: u32 = 4096;
const VECTOR: usize = 512;
const PER_PAGE: usize = PAGE as usize / VECTOR;
const LINE: usize = 64;
const MANY: usize = 100;
const SIZES: [(&str, u32); 3] = [("4MiB", 1024), ("256MiB", 65_536), ("512MiB", 131_072)];

/// The bytes of the vectors, in place, with what keeps them there.
struct Resident {
    file: Arc<CachedFile>,
    pages: u32,
    _pager: Arc<Pager>,
}

/// All pages in a cache with a third on top, so that all of them may be charged.
fn resident(pages: u32) -> Resident {
    let pager = Pager::new(PagerConfig::new(pages as usize * 4096 / 3 * 4 + 65_536)).unwrap();
    let file = pager.open_file(PAGE, pages).unwrap();
    for page in 0..pages {
        let Lookup::Load(mut load) = file.get(page) else { panic!("page {page} is new") };
        let mut buffer = load.take_buffer();
        buffer.fill(1);
        load.complete(buffer, Ok(()));
    }
    Resident { file, pages, _pager: pager }
}

impl Resident {
    fn vectors(&self) -> usize {
        self.pages as usize * PER_PAGE
    }

    fn page(&self, page: u32) -> PageGuard {
        match self.file.get(page) {
            Lookup::Hit(guard) => guard,
            other => panic!("page {page}: {other:?}"),
        }
    }

    /// As `read`, through `try_hit`.
    fn read_hit(&self, vector: usize) -> u64 {
        let guard = self.file.try_hit(page_of(vector), near(vector)).unwrap();
        touch(vector_in(&guard, vector))
    }

    fn read_batch(&self, batch: &[usize]) -> u64 {
        batch.iter().for_each(|&vector| self.file.prefetch_entry(page_of(vector)));
        for &vector in batch {
            self.file.prefetch_frame(page_of(vector), near(vector));
        }
        batch.iter().map(|&vector| self.read(vector)).sum()
    }

    fn read(&self, vector: usize) -> u64 {
        let guard = self.page(page_of(vector));
        touch(vector_in(&guard, vector))
    }
}

fn page_of(vector: usize) -> u32 {
    u32::try_from(vector / PER_PAGE).unwrap()
}

fn near(vector: usize) -> Range<u32> {
    let start = u32::try_from(vector % PER_PAGE * VECTOR).unwrap();
    start..start + u32::try_from(VECTOR).unwrap()
}

fn vector_in(page: &[u8], vector: usize) -> &[u8] {
    &page[vector % PER_PAGE * VECTOR..][..VECTOR]
}

/// Loads every cache line.
fn touch(vector: &[u8]) -> u64 {
    vector.iter().step_by(LINE).map(|&byte| u64::from(byte)).sum()
}

/// Numbers below a limit; the same sequence for everyone who starts with the same seed.
struct Random(u32);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from((u64::from(self.0) * limit as u64) >> 32).unwrap()
    }
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(1));
    for (name, pages) in SIZES {
        let resident = resident(pages);
        let count = resident.vectors();
        let mut each = |what: &str, read: &dyn Fn(usize) -> u64| {
            let mut random = Random(7);
            group.bench_function(BenchmarkId::new(what, name), |bencher| {
                bencher.iter(|| read(random.below(count)));
            });
        };
        each("get", &|vector| resident.read(vector));
        each("try_hit", &|vector| resident.read_hit(vector));
        let flat = vec![1_u8; count * VECTOR];
        each("flat array", &|vector| touch(&flat[vector * VECTOR..][..VECTOR]));
        drop(flat);
        let guards: Vec<PageGuard> = (0..pages).map(|page| resident.page(page)).collect();
        each("page pinned before", &|vector| touch(vector_in(&guards[vector / PER_PAGE], vector)));
    }
    group.finish();
}

fn batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    group.throughput(Throughput::Elements(MANY as u64));
    for (name, pages) in SIZES {
        let resident = resident(pages);
        let count = resident.vectors();
        let mut each = |what: &str, read: &dyn Fn(&[usize; MANY]) -> u64| {
            let mut random = Random(7);
            group.bench_function(BenchmarkId::new(what, name), |bencher| {
                bencher.iter(|| read(&std::array::from_fn(|_| random.below(count))));
            });
        };
        each("100 gets", &|batch| batch.iter().map(|&vector| resident.read(vector)).sum());
        each("100 gets, 10 prefetched at a time", &|batch| {
            batch.chunks(10).map(|part| resident.read_batch(part)).sum()
        });
        each("100 gets, all prefetched", &|batch| resident.read_batch(batch));
        let flat = vec![1_u8; count * VECTOR];
        each("100 of a flat array", &|batch| {
            batch.iter().map(|&vector| touch(&flat[vector * VECTOR..][..VECTOR])).sum()
        });
    }
    group.finish();
}

/// The time of `reads` reads by the slowest of `threads`; thread `n` reads what `read(n, _)` does.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time on real threads")]
fn timed(threads: u32, reads: u64, read: &(dyn Fn(u32, &mut Random) -> u64 + Sync)) -> Duration {
    let barrier = Barrier::new(threads as usize);
    let run = |thread: u32| {
        let mut random = Random(7 + thread * 77_777);
        barrier.wait();
        let start = Instant::now();
        for _ in 0..reads {
            black_box(read(thread, &mut random));
        }
        start.elapsed()
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    })
}

fn threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("threads");
    for (name, pages) in SIZES {
        let resident = resident(pages);
        let share = resident.vectors() / 2;
        for threads in [1, 2] {
            let mut each = |what: &str, read: &(dyn Fn(u32, &mut Random) -> u64 + Sync)| {
                group.bench_function(
                    BenchmarkId::new(format!("{what}, {threads}"), name),
                    |bench| {
                        bench.iter_custom(|reads| timed(threads, reads, read));
                    },
                );
            };
            each("own pages", &|thread, random| {
                resident.read(thread as usize * share + random.below(share))
            });
            each("one page", &|_, random| resident.read(random.below(PER_PAGE)));
        }
    }
    group.finish();
}

criterion_group! {
    name = hit;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = read, batch, threads
}
criterion_main!(hit);
