//! A circuit breaker: a server that keeps failing is left alone for a while, then tried with one command at a time.
//!
//! A pure state machine: time and randomness are arguments, and it never waits. Its owner asks [`Breaker::admit`] before
//! it talks to the server, and hands the [`Permit`] back with the outcome.

use std::time::{Duration, Instant};

use super::tier::BreakerState;

/// Failures in a row that open the breaker: one is a lost connection, two a server that restarts, three an outage.
const FAILURES_TO_OPEN: u32 = 3;

/// The first pause: about what a restart on the same host takes.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause, unless the owner sets another. A server that is back is noticed within it, and one caller in this time
/// waits for a dead one.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a probe may stay without an outcome before another one goes: longer than any sensible time limit of a batch.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// Decides whether a command may go to one server.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Counts changes of state. An outcome from an earlier round says nothing about this one.
    round: u64,
    longest_pause: Duration,
}

/// ```text
///              failures in a row                 the pause is over
///   ┌────────┐ ────────────────▶ ┌──────┐ ─────────────────────────▶ ┌───────────┐
///   │ Closed │                   │ Open │                            │ Half-open │
///   └────────┘                   └──────┘ ◀───────────────────────── └───────────┘
///        ▲                                 the probe failed, or ended        │
///        └───────────────────────────────  without an outcome    ────────────┘
///                    the probe succeeded
/// ```
#[derive(Debug, PartialEq)]
enum State {
    /// Every command goes.
    Closed {
        /// Failures since the last success.
        failures: u32,
    },
    /// No command goes before `until`; the first one after it is the probe.
    Open {
        until: Instant,
        /// How often it opened since it was closed: each time, the pause doubles.
        openings: u32,
    },
    /// The probe is under way, and no other command goes.
    HalfOpen {
        /// When the probe is given up for lost, and the next command becomes one.
        lost_at: Instant,
        openings: u32,
    },
}

/// The leave to send one batch.
#[derive(Debug)]
#[must_use = "the breaker learns from the outcome"]
pub(super) struct Permit {
    round: u64,
}

impl Breaker {
    pub(super) fn new(longest_pause: Duration) -> Self {
        Self { state: State::Closed { failures: 0 }, round: 0, longest_pause }
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Admits a command, or says how long to leave the server alone.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Permit, Duration> {
        match self.state {
            State::Closed { .. } => {}
            State::Open { until: wake, openings } | State::HalfOpen { lost_at: wake, openings } => {
                if now < wake {
                    return Err(wake - now);
                }
                self.enter(State::HalfOpen { lost_at: now + PROBE_PATIENCE, openings });
            }
        }
        Ok(Permit { round: self.round })
    }

    /// Records that the server answered, whatever it said.
    pub(super) fn succeed(&mut self, permit: Permit) {
        if !self.is_current(permit) {
            return;
        }
        match &mut self.state {
            State::Closed { failures } => *failures = 0,
            State::Open { .. } | State::HalfOpen { .. } => self.enter(State::Closed { failures: 0 }),
        }
    }

    /// Records that the server could not be reached or broke off. `entropy` spreads the pauses of many processes.
    pub(super) fn fail(&mut self, permit: Permit, now: Instant, entropy: u64) {
        if !self.is_current(permit) {
            return;
        }
        let openings = match &mut self.state {
            State::Closed { failures } if *failures + 1 < FAILURES_TO_OPEN => {
                *failures += 1;
                return;
            }
            State::Closed { .. } => 1,
            State::Open { openings, .. } | State::HalfOpen { openings, .. } => openings.saturating_add(1),
        };
        let pause = pause(openings, self.longest_pause, entropy);
        self.enter(State::Open { until: now + pause, openings });
    }

    /// Records that the command was given up before the server had a say.
    pub(super) fn abandon(&mut self, permit: Permit, now: Instant) {
        if !self.is_current(permit) {
            return;
        }
        if let State::HalfOpen { openings, .. } = self.state {
            self.enter(State::Open { until: now, openings });
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "a permit is good for one outcome")]
    fn is_current(&self, permit: Permit) -> bool {
        permit.round == self.round
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.round += 1;
    }
}

/// Returns the pause of the `openings`-th opening: doubling up to the cap, then shortened by up to a half.
fn pause(openings: u32, longest: Duration, entropy: u64) -> Duration {
    let doublings = openings.saturating_sub(1).min(16);
    let full = FIRST_PAUSE.saturating_mul(1 << doublings).min(longest);
    let fraction = entropy as f64 / u64::MAX as f64;
    full - (full / 2).mul_f64(fraction.clamp(0.0, 1.0))
}

#[cfg(all(test, larder_loom))]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    /// No jitter: the longest pause.
    const FULL: u64 = 0;

    fn open_at(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(LONGEST_PAUSE);
        for _ in 0..FAILURES_TO_OPEN {
            let permit = breaker.admit(now).unwrap();
            breaker.fail(permit, now, FULL);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new(LONGEST_PAUSE);
        for _ in 0..10 * FAILURES_TO_OPEN {
            let permit = breaker.admit(now).unwrap();
            breaker.fail(permit, now, FULL);
            let permit = breaker.admit(now).unwrap();
            breaker.succeed(permit);
        }
        assert_eq!(breaker.state, State::Closed { failures: 0 });
        assert_eq!(open_at(now).admit(now).unwrap_err(), FIRST_PAUSE);
    }

    #[test]
    fn exactly_one_probe_goes_after_the_pause() {
        let start = Instant::now();
        let mut breaker = open_at(start);
        let later = start + FIRST_PAUSE;
        assert!(breaker.admit(later - Duration::from_nanos(1)).is_err());
        let probe = breaker.admit(later).unwrap();
        assert!(breaker.admit(later).is_err());
        breaker.succeed(probe);
        assert!(breaker.admit(later).is_ok());
        assert!(breaker.admit(later).is_ok());
    }

    #[test]
    fn each_failed_probe_doubles_the_pause_up_to_the_cap() {
        let mut now = Instant::now();
        let mut breaker = open_at(now);
        let mut expected = FIRST_PAUSE;
        for _ in 0..100 {
            let left = breaker.admit(now).unwrap_err();
            assert_eq!(left, expected);
            now += left;
            let probe = breaker.admit(now).unwrap();
            breaker.fail(probe, now, FULL);
            expected = (expected * 2).min(LONGEST_PAUSE);
        }
        assert_eq!(expected, LONGEST_PAUSE);
    }

    #[test]
    fn an_owner_in_a_hurry_sets_a_shorter_cap() {
        let longest = FIRST_PAUSE * 5 / 2;
        let mut now = Instant::now();
        let mut breaker = Breaker::new(longest);
        let mut pauses = Vec::new();
        while pauses.len() < 4 {
            match breaker.admit(now) {
                Ok(permit) => breaker.fail(permit, now, FULL),
                Err(left) => {
                    assert_eq!(breaker.state(), BreakerState::Open);
                    pauses.push(left);
                    now += left;
                    let probe = breaker.admit(now).unwrap();
                    assert_eq!(breaker.state(), BreakerState::HalfOpen);
                    breaker.fail(probe, now, FULL);
                }
            }
        }
        assert_eq!(pauses, [FIRST_PAUSE, FIRST_PAUSE * 2, longest, longest]);
    }

    #[test]
    fn a_success_forgets_earlier_openings() {
        let mut now = Instant::now();
        let mut breaker = open_at(now);
        for _ in 0..5 {
            now += LONGEST_PAUSE;
            let probe = breaker.admit(now).unwrap();
            breaker.fail(probe, now, FULL);
        }
        now += LONGEST_PAUSE;
        let probe = breaker.admit(now).unwrap();
        breaker.succeed(probe);
        for _ in 0..FAILURES_TO_OPEN {
            let permit = breaker.admit(now).unwrap();
            breaker.fail(permit, now, FULL);
        }
        assert_eq!(breaker.admit(now).unwrap_err(), FIRST_PAUSE);
    }

    /// A batch that was sent while the breaker was closed ends after it opened: neither outcome says that the server is
    /// worse or better than the state already assumes.
    #[test]
    fn an_outcome_of_an_earlier_round_is_ignored() {
        let now = Instant::now();
        let mut breaker = Breaker::new(LONGEST_PAUSE);
        let late_failure = breaker.admit(now).unwrap();
        let late_success = breaker.admit(now).unwrap();
        for _ in 0..FAILURES_TO_OPEN {
            let permit = breaker.admit(now).unwrap();
            breaker.fail(permit, now, FULL);
        }
        breaker.succeed(late_success);
        breaker.fail(late_failure, now, FULL);
        assert_eq!(breaker.state, State::Open { until: now + FIRST_PAUSE, openings: 1 });
    }

    #[test]
    fn an_abandoned_or_lost_probe_lets_the_next_one_go() {
        let start = Instant::now();
        let mut breaker = open_at(start);
        let now = start + FIRST_PAUSE;
        let probe = breaker.admit(now).unwrap();
        breaker.abandon(probe, now);
        let lost = breaker.admit(now).unwrap();
        assert_eq!(breaker.admit(now).unwrap_err(), PROBE_PATIENCE);
        let second = breaker.admit(now + PROBE_PATIENCE).unwrap();
        breaker.succeed(lost);
        assert!(breaker.admit(now + PROBE_PATIENCE).is_err());
        breaker.succeed(second);
        assert!(breaker.admit(now + PROBE_PATIENCE).is_ok());
    }

    #[test]
    fn jitter_takes_up_to_half_of_the_pause() {
        for openings in [0, 1, 5, u32::MAX] {
            let full = pause(openings, LONGEST_PAUSE, 0);
            assert!(full <= LONGEST_PAUSE);
            assert!(pause(openings, LONGEST_PAUSE, u64::MAX) >= full / 2 - Duration::from_nanos(1));
            assert!(pause(openings, LONGEST_PAUSE, u64::MAX / 2) < full);
        }
    }
}
