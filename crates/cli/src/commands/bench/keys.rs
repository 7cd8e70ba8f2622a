//! Which ids a workload takes: a seeded generator, a permutation, and a skewed distribution.
//!
//! The popular ids of a skewed distribution are scattered over all ids, so that no page holds more
//! than its share of them. Nothing here needs memory that grows with the number of ids.
//!
//! Checked by: the tests below (the permutation is one; the share of the most popular id).

use std::fmt;
use std::str::FromStr;

use crate::embeddings::mix;

/// Rounds of the permutation: four look random.
const ROUNDS: u64 = 4;
/// The largest skew that is taken: beyond it one id is nearly everything.
const EXPONENT_MAX: f64 = 10.0;

/// SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The generator of one worker of one workload.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream)))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    /// Below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let scaled = (u128::from(self.next()) * u128::from(bound)) >> 64;
        u64::try_from(scaled).expect("a product of two 64-bit numbers has 128 bits")
    }

    /// In [0, 1).
    pub(super) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A permutation of `0..count`: a Feistel network over the next even power of two, walked until it
/// is back in range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shuffle {
    count: u64,
    half_bits: u32,
    seed: u64,
}

impl Shuffle {
    pub(super) fn new(count: u64, seed: u64) -> Self {
        let half_bits = (u64::BITS - count.leading_zeros()).div_ceil(2).min(31);
        Self { count, half_bits, seed }
    }

    /// Where a number below the count goes.
    pub(super) fn place(&self, number: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let mut place = number;
        loop {
            let (mut left, mut right) = (place >> self.half_bits, place & mask);
            for round in 0..ROUNDS {
                let key = mix(self.seed ^ round);
                (left, right) = (right, left ^ (mix(key ^ right) & mask));
            }
            place = left << self.half_bits | right;
            if place < self.count {
                return place;
            }
        }
    }
}

/// How often which id is taken, as typed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Distribution {
    Uniform,
    /// The id of rank `r` has a share proportional to `1 / r^exponent`.
    Zipf(f64),
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "uniform" {
            return Ok(Self::Uniform);
        }
        let exponent = text.strip_prefix("zipf:").and_then(|number| number.parse::<f64>().ok());
        match exponent {
            Some(exponent) if 0.0 < exponent && exponent <= EXPONENT_MAX => {
                Ok(Self::Zipf(exponent))
            }
            _ => Err(format!("uniform, or zipf: and a skew up to {EXPONENT_MAX}, as zipf:0.99")),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => formatter.write_str("uniform"),
            Self::Zipf(exponent) => write!(formatter, "zipf:{exponent}"),
        }
    }
}

/// Draws ids below a count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    count: u64,
    skew: Option<(Zipf, Shuffle)>,
}

impl Keys {
    pub(super) fn new(count: u64, distribution: Distribution, seed: u64) -> Self {
        let skew = match distribution {
            Distribution::Uniform => None,
            Distribution::Zipf(exponent) => {
                Some((Zipf::new(count, exponent), Shuffle::new(count, !seed)))
            }
        };
        Self { count, skew }
    }

    pub(super) fn draw(&self, random: &mut Random) -> u64 {
        match &self.skew {
            None => random.below(self.count),
            Some((zipf, shuffle)) => shuffle.place(zipf.rank(random) - 1),
        }
    }
}

/// Ranks from 1 on by rejection-inversion (Hoermann and Derflinger, 1996): no table, and about one
/// try for each rank.
#[derive(Clone, Copy, Debug)]
struct Zipf {
    count: f64,
    exponent: f64,
    /// The integral up to the middle of the first rank, less its share.
    low: f64,
    /// The integral up to the end of the last rank.
    high: f64,
    /// Below this distance from its rank a draw needs no further look.
    sure: f64,
}

impl Zipf {
    fn new(count: u64, exponent: f64) -> Self {
        let mut zipf = Self { count: count as f64, exponent, low: 0.0, high: 0.0, sure: 0.0 };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(zipf.count + 0.5);
        zipf.sure = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    /// From 1 to the count.
    fn rank(&self, random: &mut Random) -> u64 {
        loop {
            let drawn = self.high + random.share() * (self.low - self.high);
            let exact = self.inverse(drawn);
            let rank = exact.round().clamp(1.0, self.count);
            let accepted = rank - exact <= self.sure
                || self.integral(rank + 0.5) - self.density(rank) <= drawn;
            if accepted {
                return whole(rank);
            }
        }
    }

    fn density(&self, rank: f64) -> f64 {
        (-self.exponent * rank.ln()).exp()
    }

    /// The integral of the density, in a form that also holds for an exponent of 1.
    fn integral(&self, rank: f64) -> f64 {
        let log = rank.ln();
        let scaled = (1.0 - self.exponent) * log;
        let slope = if scaled.abs() < 1e-8 { 1.0 + scaled / 2.0 } else { scaled.exp_m1() / scaled };
        slope * log
    }

    fn inverse(&self, integral: f64) -> f64 {
        let scaled = (integral * (1.0 - self.exponent)).max(-1.0);
        let slope = if scaled.abs() < 1e-8 { 1.0 - scaled / 2.0 } else { scaled.ln_1p() / scaled };
        (slope * integral).exp()
    }
}

/// A rank as a number; ranks are whole and below 2^53.
#[expect(clippy::cast_possible_truncation, reason = "whole, positive and below 2^53")]
#[expect(clippy::cast_sign_loss, reason = "whole, positive and below 2^53")]
fn whole(rank: f64) -> u64 {
    rank as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_shuffle_is_a_permutation() {
        for count in [1, 2, 7, 64, 1000, 4097] {
            let shuffle = Shuffle::new(count, 5);
            let places: BTreeSet<u64> = (0..count).map(|number| shuffle.place(number)).collect();
            assert_eq!(places.len() as u64, count);
            assert!(places.iter().all(|place| *place < count));
        }
        let moved = (0..1000).filter(|number| Shuffle::new(1000, 5).place(*number) != *number);
        assert!(900 < moved.count());
    }

    #[test]
    fn every_rank_has_its_share() {
        for exponent in [0.5, 0.99, 1.0, 1.5] {
            let (zipf, count, draws) = (Zipf::new(1000, exponent), 1000_u32, 200_000_u32);
            let mut random = Random::new(1, 2);
            let mut found = vec![0_u32; 1000];
            for _ in 0..draws {
                found[usize::try_from(zipf.rank(&mut random) - 1).unwrap()] += 1;
            }
            let all: f64 = (1..=count).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for rank in [1_u32, 2, 10] {
                let expected = f64::from(rank).powf(-exponent) / all * f64::from(draws);
                let counted = f64::from(found[rank as usize - 1]);
                let spread = 6.0 * expected.sqrt();
                assert!((counted - expected).abs() < spread, "{exponent}: {counted}, {expected}");
            }
            assert_eq!(found.iter().sum::<u32>(), draws);
        }
    }

    #[test]
    fn keys_stay_below_the_count_and_follow_the_seed() {
        for distribution in [Distribution::Uniform, Distribution::Zipf(0.99)] {
            let keys = Keys::new(10, distribution, 3);
            let draw = || {
                let mut random = Random::new(7, 1);
                (0..100).map(|_| keys.draw(&mut random)).collect::<Vec<_>>()
            };
            assert!(draw().iter().all(|id| *id < 10));
            assert_eq!(draw(), draw());
        }
    }

    #[test]
    fn distributions_are_read_as_they_are_shown() {
        for text in ["uniform", "zipf:0.99", "zipf:1.2"] {
            assert_eq!(text.parse::<Distribution>().unwrap().to_string(), text);
        }
        for text in ["zipf", "zipf:", "zipf:0", "zipf:-1", "zipf:nan", "zipf:11", "normal", ""] {
            assert!(text.parse::<Distribution>().is_err(), "{text}");
        }
    }
}
