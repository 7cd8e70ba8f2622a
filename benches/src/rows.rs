//! Rows to store: generated, or from a file.

use nephrite::{Durability, IdKind, IdRef, Ids, blocking};

use crate::Outcome;

/// Vectors one after the other, and their ids.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) dimension: u32,
    pub(crate) vectors: Vec<f32>,
    pub(crate) ids: RowIds,
}

/// The ids of [`Rows`].
#[derive(Debug)]
pub(crate) enum RowIds {
    U64(Vec<u64>),
    Bytes(Vec<Box<[u8]>>),
}

/// Which ids generated rows get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum IdForm {
    /// 0, 1, 2, ... in order
    Dense,
    /// The same numbers in random order
    Shuffled,
    /// Strings such as `document-00c0ffee00c0ffee`, in random order
    Strings,
}

impl IdForm {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dense => "u64 dense",
            Self::Shuffled => "u64 shuffled",
            Self::Strings => "strings",
        }
    }

    pub(crate) fn kind(self) -> IdKind {
        match self {
            Self::Dense | Self::Shuffled => IdKind::U64,
            Self::Strings => IdKind::Bytes,
        }
    }
}

impl Rows {
    /// `count` rows from a seed of their own.
    pub(crate) fn generate(count: usize, dimension: u32, form: IdForm) -> Self {
        let mut random = Random::new(1);
        let values = count * dimension as usize;
        let vectors = (0..values).map(|_| random.next_f32()).collect();
        Self { dimension, vectors, ids: RowIds::generate(count, form) }
    }

    pub(crate) fn len(&self) -> usize {
        self.vectors.len() / self.dimension as usize
    }

    /// Bytes of all vectors.
    pub(crate) fn bytes(&self) -> u64 {
        (self.vectors.len() * size_of::<f32>()) as u64
    }

    /// The vector of a row.
    pub(crate) fn vector(&self, row: usize) -> &[f32] {
        let dimension = self.dimension as usize;
        &self.vectors[row * dimension..][..dimension]
    }

    /// Stores all rows, `Buffered`, this many per call.
    pub(crate) fn put_into(&self, database: &blocking::Database, batch: usize) -> Outcome<()> {
        self.put_into_with(database, batch, Durability::Buffered)
    }

    /// Stores all rows, this many per call.
    pub(crate) fn put_into_with(
        &self,
        database: &blocking::Database,
        batch: usize,
        durability: Durability,
    ) -> Outcome<()> {
        let dimension = self.dimension as usize;
        for start in (0..self.len()).step_by(batch.max(1)) {
            let end = self.len().min(start + batch.max(1));
            let vectors = &self.vectors[start * dimension..end * dimension];
            match &self.ids {
                RowIds::U64(ids) => {
                    database.put_many(Ids::U64(&ids[start..end]), vectors, durability)?;
                }
                RowIds::Bytes(ids) => {
                    let ids: Vec<&[u8]> = ids[start..end].iter().map(|id| &**id).collect();
                    database.put_many(Ids::Bytes(&ids), vectors, durability)?;
                }
            }
        }
        Ok(())
    }
}

impl RowIds {
    fn generate(count: usize, form: IdForm) -> Self {
        let mut numbers: Vec<u64> = (0..count as u64).collect();
        if form != IdForm::Dense {
            shuffle(&mut numbers, &mut Random::new(2));
        }
        match form {
            IdForm::Dense | IdForm::Shuffled => Self::U64(numbers),
            IdForm::Strings => Self::Bytes(numbers.into_iter().map(string_id).collect()),
        }
    }

    pub(crate) fn kind(&self) -> IdKind {
        match self {
            Self::U64(_) => IdKind::U64,
            Self::Bytes(_) => IdKind::Bytes,
        }
    }

    pub(crate) fn get(&self, row: usize) -> IdRef<'_> {
        match self {
            Self::U64(ids) => IdRef::U64(ids[row]),
            Self::Bytes(ids) => IdRef::Bytes(&ids[row]),
        }
    }
}

/// A byte-string id as a user might have it.
fn string_id(number: u64) -> Box<[u8]> {
    format!("document-{:016x}", mix(number)).into_bytes().into()
}

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let scaled = (u128::from(self.next()) * bound as u128) >> 64;
        usize::try_from(scaled).expect("below a usize")
    }

    /// In [0, 1).
    pub(crate) fn next_share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// In [-1, 1), with all 24 bits of the fraction.
    pub(crate) fn next_f32(&mut self) -> f32 {
        let bits = u32::try_from(self.next() >> 40).expect("24 bits are left");
        bits as f32 / (1 << 23) as f32 - 1.0
    }
}

/// The output function of SplitMix64: a bijection.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

pub(crate) fn shuffle(numbers: &mut [u64], random: &mut Random) {
    for end in (1..numbers.len()).rev() {
        numbers.swap(end, random.below(end + 1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_form_gives_each_row_an_id_of_its_own() {
        for form in [IdForm::Dense, IdForm::Shuffled, IdForm::Strings] {
            let rows = Rows::generate(1000, 3, form);
            let ids: BTreeSet<_> = (0..1000).map(|row| rows.ids.get(row).to_id()).collect();
            assert_eq!((rows.len(), ids.len()), (1000, 1000), "{form:?}");
        }
    }

    #[test]
    fn values_are_in_range_and_differ() {
        let rows = Rows::generate(100, 8, IdForm::Dense);
        assert!(rows.vectors.iter().all(|value| (-1.0..1.0).contains(value)));
        let distinct: BTreeSet<u32> = rows.vectors.iter().map(|value| value.to_bits()).collect();
        assert!(790 < distinct.len(), "{} of 800 values are distinct", distinct.len());
    }
}
