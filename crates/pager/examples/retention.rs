//! Hit shares of the policies, and of retention by record, on traces that are made here: the
//! figures of `docs/design.md`, "Records outlive their pages".
//!
//! ```text
//! cargo run --release -p nephrite-pager --example retention
//! ```
//!
//! Traces that begin with "choose" are there to choose policy, share and threshold by; the others,
//! of other sizes, skews and seeds, to judge the choice by. Memory is an eighth of the pages.
//! Records are scattered over pages of 4096 bytes by a multiplication. Deterministic.
#![expect(clippy::cast_possible_truncation, reason = "numbers of records are small")]
#![expect(clippy::cast_precision_loss, reason = "shares, for people")]

use nephrite_pager::replay::Replay;
use nephrite_pager::{CachePolicy, PageRead, PagerError};

/// A factor that no number of records here has in common with it.
const SCATTER: u64 = 1_000_003;
const PAGE_UNITS: u64 = 64;

/// Popularity after Zipf, scattered; what is popular moves on after so many reads (0: never).
struct Zipf {
    exponent: f64,
    records: u64,
    reads: usize,
    per_page: u64,
    seed: u64,
    moves_after: usize,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn record(number: u64, per_page: u64) -> PageRead {
    let length = PAGE_UNITS / per_page;
    let start = (number % per_page * length) as u16;
    let page = (number / per_page) as u32;
    PageRead { file: 1, page, start, length: length as u16, page_units: 1 }
}

/// Sums of the weights of the ranks.
fn sums(ranks: u64, exponent: f64) -> Vec<f64> {
    let add = |sum: &mut f64, rank: u64| {
        *sum += (rank as f64).powf(-exponent);
        Some(*sum)
    };
    (1..=ranks).scan(0.0, add).collect()
}

fn draw(sums: &[f64], random: &mut Random) -> u64 {
    let share = random.share() * sums.last().expect("there are ranks");
    sums.partition_point(|sum| *sum < share) as u64
}

impl Zipf {
    fn replay(&self) -> Replay {
        let sums = sums(self.records, self.exponent);
        let (mut random, mut shift) = (Random(self.seed), 0);
        let reads = (1..=self.reads).map(|at| {
            if self.moves_after != 0 && at % self.moves_after == 0 {
                shift = random.next() % self.records;
            }
            let number = (draw(&sums, &mut random) * SCATTER + shift) % self.records;
            record(number, self.per_page)
        });
        Replay::new(reads.collect())
    }
}

/// Pages popular after Zipf, the records of each alike: nothing to gain by record.
fn by_page(pages: u64, seed: u64) -> Replay {
    let (sums, mut random) = (sums(pages, 0.99), Random(seed));
    let mut read = || {
        let page = draw(&sums, &mut random) * SCATTER % pages;
        record(page * 8 + random.next() % 8, 8)
    };
    Replay::new((0..1_500_000).map(|_| read()).collect())
}

fn sequential(records: u64) -> Replay {
    Replay::new((0..3 * records).map(|at| record(at % records, 8)).collect())
}

fn traces() -> Vec<(&'static str, Replay)> {
    let zipf = |exponent, records, per_page, seed, moves_after| {
        let reads = 1_500_000;
        Zipf { exponent, records, reads, per_page, seed, moves_after }.replay()
    };
    vec![
        ("choose: Zipf 0.99, 512 B", zipf(0.99, 200_000, 8, 1, 0)),
        ("choose: Zipf 0.8, 512 B", zipf(0.8, 200_000, 8, 2, 0)),
        ("choose: Zipf 0.99, moves each 400K", zipf(0.99, 200_000, 8, 3, 400_000)),
        ("choose: uniform", zipf(0.0, 200_000, 8, 4, 0)),
        ("judge: Zipf 0.99, 512 B, larger", zipf(0.99, 300_007, 8, 77, 0)),
        ("judge: Zipf 0.9, 1 KiB", zipf(0.9, 150_001, 4, 78, 0)),
        ("judge: Zipf 1.1, 256 B", zipf(1.1, 300_007, 16, 79, 0)),
        ("judge: Zipf 0.7, moves each 300K", zipf(0.7, 200_003, 8, 80, 300_000)),
        ("judge: Zipf 0.99, moves each 80K", zipf(0.99, 200_003, 8, 81, 80_000)),
        ("judge: Zipf 0.99, moves each 15K", zipf(0.99, 200_003, 8, 82, 15_000)),
        ("judge: uniform", zipf(0.0, 300_007, 8, 83, 0)),
        ("judge: sequential, three times", sequential(300_000)),
        ("judge: Zipf 0.99 by whole page", by_page(25_000, 84)),
    ]
}

fn main() -> Result<(), PagerError> {
    print!("{:36} best: page record | by page: clock s3-fifo", "hits in percent");
    println!(" | retaining: clock slots s3-fifo slots");
    for (name, replay) in traces() {
        let footprint = replay.footprint();
        let memory = usize::try_from(footprint.page_bytes / 8).expect("it was made in memory");
        let share = |hits: u64| 100.0 * hits as f64 / footprint.reads as f64;
        print!("{name:36}");
        print!(" {:9.1}", share(replay.best_pages(memory)));
        print!(" {:6.1} |", share(replay.best_records(memory)));
        for policy in CachePolicy::ALL {
            print!(" {:10.2}", 100.0 * replay.by_page(memory, policy)?.hit_ratio());
        }
        print!(" |         ");
        for policy in CachePolicy::ALL {
            let outcome = replay.retaining(memory, policy)?;
            print!(" {:8.2} {:3}%", 100.0 * outcome.hit_ratio(), outcome.slot_percent);
        }
        println!();
    }
    Ok(())
}
