//! A seeded generator of vectors that look like embeddings.
//!
//! Row `i` is a function of seed, dimension and `i` alone: it can be made again to check what a
//! store gives back, in any order and in another process, without keeping a copy.
//!
//! A row is one of [`CLUSTERS`] cluster centres plus noise, scaled to unit length. The variance of
//! centres and noise falls with the dimension index as `1 / (1 + 16 i / dimension)`, so that a few
//! directions carry most of it, as in embeddings of text. Noise is the sum of the four 16-bit
//! lanes of one SplitMix64 output (an Irwin-Hall sum: close to a normal distribution up to about
//! 3 sigma, and far cheaper). Only integer arithmetic and correctly rounded float operations are
//! used, in a fixed order, so the bits are the same on every machine.
//!
//! Not for cryptography, and not a model of any one data set.
//!
//! Checked by: the tests below (same row twice, unit length, decay, clusters).

/// How many cluster centres there are.
const CLUSTERS: u64 = 64;
/// The increment of SplitMix64: the odd number nearest to 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Noise relative to the spread of the centres.
const NOISE: f32 = 0.8;
/// Partial sums of the norm: a fixed order that still lets the compiler use vector registers.
const LANES: usize = 8;

/// Rows of one dimension from one seed.
#[derive(Debug)]
pub(crate) struct Embeddings {
    seed: u64,
    dimension: usize,
    /// `CLUSTERS` rows of `dimension`.
    centres: Vec<f32>,
    /// Standard deviation of the noise by dimension index.
    spread: Vec<f32>,
}

impl Embeddings {
    /// A generator of rows of `dimension` values, at least one.
    pub(crate) fn new(seed: u64, dimension: usize) -> Self {
        assert!(0 < dimension, "an embedding has at least one value");
        let decay: Vec<f32> = (0..dimension)
            .map(|index| (1.0 / (1.0 + 16.0 * index as f32 / dimension as f32)).sqrt())
            .collect();
        let mut centres = Vec::new();
        for cluster in 0..CLUSTERS {
            let key = mix(seed ^ mix(cluster.wrapping_add(1)));
            centres.extend(decay.iter().zip(counters(key)).map(|(scale, at)| scale * noise(at)));
        }
        let spread = decay.iter().map(|scale| scale * NOISE).collect();
        Self { seed, dimension, centres, spread }
    }

    /// Writes row `index` into `row`, which is `dimension` long.
    pub(crate) fn fill(&self, index: u64, row: &mut [f32]) {
        assert_eq!(row.len(), self.dimension, "a row is as long as the dimension");
        let key = mix(self.seed.wrapping_add(mix(index)));
        let cluster = usize::try_from(mix(key) % CLUSTERS).expect("fewer than 64");
        let centre = &self.centres[cluster * self.dimension..][..self.dimension];
        for (((value, centre), spread), at) in
            row.iter_mut().zip(centre).zip(&self.spread).zip(counters(key))
        {
            *value = centre + spread * noise(at);
        }
        scale_to_unit(row);
    }

    /// Row `index` as a vector of its own.
    pub(crate) fn row(&self, index: u64) -> Vec<f32> {
        let mut row = vec![0.0; self.dimension];
        self.fill(index, &mut row);
        row
    }

    /// Whether `vector` is row `index`, bit for bit. `scratch` is reused from call to call.
    pub(crate) fn is_row(&self, index: u64, vector: &[f32], scratch: &mut Vec<f32>) -> bool {
        scratch.resize(self.dimension, 0.0);
        self.fill(index, scratch);
        same_bits(scratch, vector)
    }
}

/// Whether two vectors are equal bit for bit: `==` would hold for 0.0 and -0.0, and never for NaN.
pub(crate) fn same_bits(left: &[f32], right: &[f32]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(left, right)| left.to_bits() == right.to_bits())
}

/// The output function of SplitMix64: a bijection whose outputs look independent.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(GOLDEN);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The counters of one row: `key`, `key + GOLDEN`, ...
fn counters(key: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(key), |at| Some(at.wrapping_add(GOLDEN)))
}

/// One nearly normal value of mean 0 and variance 1 from one counter.
fn noise(counter: u64) -> f32 {
    /// Mean of the sum of four uniform 16-bit values.
    const MEAN: i32 = 4 * 65_535 / 2;
    /// One over its standard deviation, sqrt(4 * (2^32 - 1) / 12).
    const SCALE: f32 = 1.0 / 37_837.227;
    let bits = mix(counter);
    let sum = (bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48);
    let sum = i32::try_from(sum).expect("four 16-bit values sum to less than 2^18");
    (sum - MEAN) as f32 * SCALE
}

fn scale_to_unit(row: &mut [f32]) {
    let mut sums = [0.0_f32; LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for chunk in whole {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value * value;
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += value * value;
    }
    let norm = sums.iter().sum::<f32>().sqrt();
    // A row of one value whose noise is exactly zero has no direction; it stays zero.
    if 0.0 < norm {
        row.iter_mut().for_each(|value| *value /= norm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_same_in_any_order_and_any_instance() {
        let first = Embeddings::new(7, 100);
        let second = Embeddings::new(7, 100);
        let late = first.row(1_000_000);
        assert!(same_bits(&first.row(3), &second.row(3)));
        assert!(second.is_row(1_000_000, &late, &mut Vec::new()));
        assert!(!second.is_row(1_000_001, &late, &mut Vec::new()));
        assert!(!Embeddings::new(8, 100).is_row(1_000_000, &late, &mut Vec::new()));
    }

    #[test]
    fn the_bits_are_fixed_across_releases() {
        let row = Embeddings::new(42, 3).row(5);
        let bits: Vec<u32> = row.iter().map(|value| value.to_bits()).collect();
        assert_eq!(bits, EXPECTED_BITS);
    }

    const EXPECTED_BITS: [u32; 3] = [0x3f52_c4ae, 0x3eb9_3633, 0x3edf_efbd];

    #[test]
    fn rows_have_unit_length_in_every_dimension() {
        for dimension in [1, 3, 7, 8, 9, 768, 4096] {
            let generator = Embeddings::new(1, dimension);
            for index in 0..20 {
                let norm: f64 =
                    generator.row(index).iter().map(|value| f64::from(*value).powi(2)).sum();
                assert!((norm - 1.0).abs() < 1e-4, "dimension {dimension}, row {index}: {norm}");
            }
        }
    }

    #[test]
    fn variance_falls_with_the_dimension_index() {
        let generator = Embeddings::new(2, 768);
        let mut first = 0.0;
        let mut last = 0.0;
        for index in 0..500 {
            let row = generator.row(index);
            first += row[..96].iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
            last += row[672..].iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        }
        assert!(4.0 * last < first, "first {first}, last {last}");
    }

    #[test]
    fn rows_of_one_cluster_are_nearer_than_others() {
        let generator = Embeddings::new(3, 256);
        let rows: Vec<Vec<f32>> = (0..200).map(|index| generator.row(index)).collect();
        let dot = |other: &Vec<f32>| -> f32 {
            rows[0].iter().zip(other).map(|(left, right)| left * right).sum()
        };
        let near = rows[1..].iter().filter(|other| 0.4 < dot(other)).count();
        assert!(0 < near && near < 40, "{near} of 199 rows are near row 0");
    }
}
