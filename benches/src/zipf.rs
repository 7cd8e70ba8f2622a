//! Which ids are read: uniform, or zipf with the popular ones scattered over all ids.

use crate::rows::Random;

/// Skew of the zipf distribution, as in YCSB.
const EXPONENT: f64 = 0.99;

/// Draws ranks with probability proportional to `1 / rank^0.99`, and scatters them.
#[derive(Debug)]
pub(crate) struct Zipf {
    /// Of the ranks up to each, as a share of all.
    shares: Vec<f64>,
    /// The id of each rank.
    ids: Vec<u64>,
}

impl Zipf {
    pub(crate) fn new(ids: u64) -> Self {
        let mut sum = 0.0;
        let mut shares: Vec<f64> = (1..=ids)
            .map(|rank| {
                sum += (rank as f64).powf(-EXPONENT);
                sum
            })
            .collect();
        shares.iter_mut().for_each(|share| *share /= sum);
        let mut of_ranks: Vec<u64> = (0..ids).collect();
        crate::rows::shuffle(&mut of_ranks, &mut Random::new(11));
        Self { shares, ids: of_ranks }
    }

    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        let share = random.next_share();
        let rank = self.shares.partition_point(|of_rank| *of_rank < share);
        self.ids[rank.min(self.ids.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_popular_id_has_its_share() {
        let zipf = Zipf::new(1000);
        let mut random = Random::new(1);
        let draws = 100_000;
        let popular = (0..draws).filter(|_| zipf.draw(&mut random) == zipf.ids[0]).count();
        let expected = zipf.shares[0] * f64::from(draws);
        assert!((popular as f64 - expected).abs() < expected / 10.0, "{popular} of {expected}");
    }
}
