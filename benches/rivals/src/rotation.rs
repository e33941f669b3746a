//! Interleaving: in every round every contestant runs once.
//!
//! A machine that is slow for a while is slow for all contestants, and a ratio taken within a round is hardly moved by
//! it. The order is drawn anew each round, so that none always inherits the processor's caches of the same predecessor.

use crate::random::Random;

/// One contestant's place in a rotation: calling `round` runs it once.
pub(crate) struct Lane<T> {
    pub(crate) name: &'static str,
    pub(crate) round: Box<dyn FnMut() -> T>,
}

/// One contestant's results, round by round.
pub(crate) struct Series<T> {
    pub(crate) name: &'static str,
    pub(crate) rounds: Vec<T>,
}

/// Runs every lane `warm_ups + rounds` times and returns the results of the latter, in the order of `lanes`.
pub(crate) fn rotate<T>(lanes: Vec<Lane<T>>, warm_ups: usize, rounds: usize, seed: u64) -> Vec<Series<T>> {
    let mut random = Random::new(seed);
    let mut order: Vec<usize> = (0..lanes.len()).collect();
    let (names, mut runs): (Vec<_>, Vec<_>) = lanes.into_iter().map(|lane| (lane.name, lane.round)).unzip();
    let mut series: Vec<_> =
        names.into_iter().map(|name| Series { name, rounds: Vec::with_capacity(rounds) }).collect();
    for round in 0..warm_ups + rounds {
        random.shuffle(&mut order);
        for &lane in &order {
            let result = runs[lane]();
            if round >= warm_ups {
                series[lane].rounds.push(result);
            }
        }
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stay_with_their_lane() {
        let lane = |name, first: u32| {
            let mut next = first;
            let round = Box::new(move || {
                next += 1;
                next
            });
            Lane { name, round }
        };
        let series = rotate(vec![lane("a", 0), lane("b", 100)], 2, 3, 1);
        assert_eq!((series[0].name, &series[0].rounds), ("a", &vec![3, 4, 5]));
        assert_eq!((series[1].name, &series[1].rounds), ("b", &vec![103, 104, 105]));
    }
}
