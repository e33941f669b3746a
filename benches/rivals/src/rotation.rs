//! Interleaving: in every round every contestant runs once.
//!
//! A machine that is slow for a while is slow for all contestants, and a ratio taken within a round is hardly moved by
//! it. The order is drawn anew each round, so that none always inherits the processor's caches of the same predecessor.
//!
//! After some rounds every contestant is built anew. Where its memory lies and how its hashes are seeded is luck that lasts
//! as long as an instance does: one cache entered twice under two names has been seen a third faster than itself in most
//! rounds of a run. No number of rounds evens that out, only several instances do.

use crate::{effort::Effort, random::Random};

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

/// Runs the lanes of `effort.instances` calls of `build`, each of them `effort.warm_ups + effort.rounds` times, and returns
/// the results of all but the warm-ups, in the order of the lanes.
pub(crate) fn rotate<T>(effort: &Effort, build: impl Fn() -> Vec<Lane<T>>) -> Vec<Series<T>> {
    let mut random = Random::new(effort.seed);
    let mut series: Vec<Series<T>> = Vec::new();
    for _ in 0..effort.instances {
        let mut lanes = build();
        if series.is_empty() {
            series.extend(lanes.iter().map(|lane| Series { name: lane.name, rounds: Vec::new() }));
        }
        let mut order: Vec<usize> = (0..lanes.len()).collect();
        for round in 0..effort.warm_ups + effort.rounds {
            random.shuffle(&mut order);
            for &lane in &order {
                let result = (lanes[lane].round)();
                if round >= effort.warm_ups {
                    series[lane].rounds.push(result);
                }
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
        let effort = Effort { instances: 2, warm_ups: 2, rounds: 3, ..Effort::brief(1) };
        let series = rotate(&effort, || vec![lane("a", 0), lane("b", 100)]);
        assert_eq!((series[0].name, &series[0].rounds), ("a", &vec![3, 4, 5, 3, 4, 5]));
        assert_eq!((series[1].name, &series[1].rounds), ("b", &vec![103, 104, 105, 103, 104, 105]));
    }
}
