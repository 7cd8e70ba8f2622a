//! The vectors that a benchmark stores, and the check of what it reads.
//!
//! A vector follows from its id and the version of the write: its first three values name both, the
//! others are a stretch of a pool of random numbers. So nothing is kept, and a read is checked
//! without a copy to compare with: always by the marks and a load of every cache line; bit for bit
//! with `--verify`.
//!
//! Checked by: the tests below.

use std::hint::black_box;

use crate::embeddings::{mix, same_bits};
use crate::failure::Failure;

use super::keys::Random;

/// Values that name id and version; a vector has at least these.
pub(super) const DIMENSION_MIN: u32 = 4;
/// Places in the pool where a vector may begin: they stay in the processor's cache.
const POOL_PLACES: u64 = 4096;
/// Marks are whole numbers that an `f32` holds exactly.
const MARK_BITS: u32 = 24;
/// Versions repeat after so many.
pub(super) const VERSIONS: u64 = 1 << MARK_BITS;
/// Ids that two marks can name.
pub(super) const IDS_MAX: u64 = 1 << (2 * MARK_BITS);
/// Values in a cache line.
const LINE_VALUES: usize = 16;

/// How thoroughly reads are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// The marks, and a load of every cache line.
    Marks,
    /// Every bit.
    Bits,
}

/// Makes and checks vectors of one dimension.
#[derive(Debug)]
pub(super) struct Vectors {
    dimension: usize,
    pool: Vec<f32>,
    check: Check,
}

impl Vectors {
    pub(super) fn new(dimension: u32, check: Check) -> Self {
        let dimension = dimension as usize;
        let mut random = Random::new(0x706f_6f6c, 0);
        let values = usize::try_from(POOL_PLACES).expect("a small constant") + dimension;
        let pool = (0..values).map(|_| value(random.next())).collect();
        Self { dimension, pool, check }
    }

    /// Bytes of one vector.
    pub(super) fn bytes(&self) -> u64 {
        (self.dimension * size_of::<f32>()) as u64
    }

    /// Appends the vector of an id and version.
    pub(super) fn append(&self, id: u64, version: u64, into: &mut Vec<f32>) {
        into.extend(marks(id, version));
        into.extend_from_slice(self.body(id, version));
    }

    /// What follows the marks.
    fn body(&self, id: u64, version: u64) -> &[f32] {
        let place = mix(id ^ mix(version % VERSIONS)) % POOL_PLACES;
        let place = usize::try_from(place).expect("a place in the pool");
        &self.pool[place..][..self.dimension - 3]
    }

    /// The version of a vector that was read under an id; an error if it is not one of this id.
    pub(super) fn version(&self, id: u64, vector: &[f32]) -> Result<u64, Failure> {
        let wrong = |what: &str| {
            Failure::Damage(format!("vector {id} of the benchmark is {what}: run verify"))
        };
        if vector.len() != self.dimension {
            return Err(wrong("of another dimension"));
        }
        let [low, high, version] = [vector[0], vector[1], vector[2]].map(mark);
        if low != id % VERSIONS || high != id / VERSIONS {
            return Err(wrong("the vector of another id"));
        }
        let lines: f32 = vector.iter().step_by(LINE_VALUES).sum();
        black_box(lines);
        if self.check == Check::Bits && !same_bits(&vector[3..], self.body(id, version)) {
            return Err(wrong("not what was stored"));
        }
        Ok(version)
    }
}

/// A value in [-1, 1) with all 24 bits of the fraction.
fn value(bits: u64) -> f32 {
    let bits = u32::try_from(bits >> (u64::BITS - MARK_BITS)).expect("24 bits are left");
    bits as f32 / (1 << (MARK_BITS - 1)) as f32 - 1.0
}

fn marks(id: u64, version: u64) -> [f32; 3] {
    [id % VERSIONS, id / VERSIONS, version % VERSIONS].map(|part| {
        let part = u32::try_from(part).expect("a mark has 24 bits: ids are below 2^48");
        part as f32
    })
}

/// The number of a mark. A value that is no mark gives a number that is none either.
#[expect(clippy::cast_possible_truncation, reason = "saturates: no mark is as large")]
#[expect(clippy::cast_sign_loss, reason = "negative values are no marks and become 0 or differ")]
fn mark(value: f32) -> u64 {
    if value.fract() == 0.0 && !value.is_sign_negative() { value as u64 } else { u64::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(vectors: &Vectors, id: u64, version: u64) -> Vec<f32> {
        let mut vector = Vec::new();
        vectors.append(id, version, &mut vector);
        vector
    }

    #[test]
    fn a_vector_names_its_id_and_version() {
        for dimension in [DIMENSION_MIN, 5, 128, 1000] {
            let vectors = Vectors::new(dimension, Check::Bits);
            for (id, version) in [(0, 0), (7, 1), (IDS_MAX - 1, VERSIONS - 1), (1 << 30, 12_345)] {
                let vector = stored(&vectors, id, version);
                assert_eq!(vector.len() as u64 * 4, vectors.bytes());
                assert_eq!(vectors.version(id, &vector).ok(), Some(version));
                assert!(vectors.version(id ^ 1, &vector).is_err());
            }
        }
    }

    #[test]
    fn one_wrong_bit_is_found_where_every_bit_is_checked() {
        let (marks, bits) = (Vectors::new(32, Check::Marks), Vectors::new(32, Check::Bits));
        let mut vector = stored(&bits, 9, 2);
        vector[31] = f32::from_bits(vector[31].to_bits() ^ 1);
        assert!(marks.version(9, &vector).is_ok());
        assert!(bits.version(9, &vector).is_err());
        vector[0] = f32::NAN;
        assert!(marks.version(9, &vector).is_err());
        assert!(marks.version(9, &[]).is_err());
    }
}
