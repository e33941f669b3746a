//! Pauses between attempts that fail.

use std::time::Duration;

/// The shortest pause: a store that is back within a blink is found so.
const SHORTEST: Duration = Duration::from_millis(10);

/// The longest pause: how much later than the store's return what waits for it may go out.
const LONGEST: Duration = Duration::from_millis(500);

/// Growing pauses, from 10 to 500 ms.
#[derive(Debug)]
pub(crate) struct Backoff {
    longest_next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff { longest_next: 2 * SHORTEST }
    }

    /// Returns how long to pause after one more failure: between half and all of what doubles each time, so that processes
    /// which lost the store at once do not come back at once.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.longest_next.mul_f64(0.5 + 0.5 * fastrand::f64());
        self.longest_next = LONGEST.min(2 * self.longest_next);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..20).map(|_| backoff.pause()).collect();
        assert!(pauses.iter().all(|pause| (SHORTEST..=LONGEST).contains(pause)));
        assert!(pauses[0] <= 2 * SHORTEST && pauses[10..].iter().all(|&pause| pause >= LONGEST / 2));
    }
}
