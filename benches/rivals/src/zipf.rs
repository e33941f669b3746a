//! Keys drawn from Zipf's law, ahead of time.

use crate::{
    contestants::Key,
    random::{Random, scatter},
};

/// Zipf's law over `n` ranks: rank `i` (from 1) is drawn with a probability proportional to `1 / i^exponent`.
///
/// Draws by searching the cumulative distribution: exact and rejection-free, and its cost does not matter because
/// sequences are drawn before any clock starts.
pub(crate) struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(ranks: usize, exponent: f64) -> Self {
        assert!(ranks > 0, "a distribution needs at least one rank");
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=ranks)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        for share in &mut cumulative {
            *share /= sum;
        }
        Self { cumulative }
    }

    /// Draws a rank, counted from 0.
    pub(crate) fn rank(&self, random: &mut Random) -> usize {
        let point = random.unit();
        self.cumulative.partition_point(|&share| share <= point)
    }

    pub(crate) fn keys(&self, count: usize, random: &mut Random) -> Vec<Key> {
        (0..count).map(|_| key_of_rank(self.rank(random))).collect()
    }
}

/// Scatters ranks, so that popular keys neither share cache lines nor flatter a weak hash.
pub(crate) fn key_of_rank(rank: usize) -> Key {
    scatter(rank as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 200_000;

    fn frequencies(ranks: usize, exponent: f64) -> Vec<f64> {
        let zipf = Zipf::new(ranks, exponent);
        let mut random = Random::new(7);
        let mut counts = vec![0_u32; ranks];
        for _ in 0..DRAWS {
            counts[zipf.rank(&mut random)] += 1;
        }
        counts.iter().map(|&count| f64::from(count) / DRAWS as f64).collect()
    }

    #[test]
    fn popularity_falls_by_the_exponent() {
        let harmonic: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-0.99)).sum();
        let seen = frequencies(1000, 0.99);
        for rank in [1, 2, 3, 10, 30] {
            let expected = f64::from(rank).powf(-0.99) / harmonic;
            let relative = seen[rank as usize - 1] / expected;
            assert!((0.93..1.07).contains(&relative), "rank {rank}: {relative} of what was expected");
        }
    }

    #[test]
    fn exponent_zero_is_uniform() {
        for share in frequencies(10, 0.0) {
            assert!((0.095..0.105).contains(&share), "{share}");
        }
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let zipf = Zipf::new(1000, 0.99);
        assert_eq!(zipf.keys(100, &mut Random::new(3)), zipf.keys(100, &mut Random::new(3)));
        assert_ne!(zipf.keys(100, &mut Random::new(3)), zipf.keys(100, &mut Random::new(4)));
    }
}
