//! How long to wait before the next restart, and how many there were in a run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::random::Random;
use crate::unit::Restart;

/// Two of the three counts of DESIGN ("Restarting"); the third, `restarts`, only grows and is for show.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Backoff {
    /// How often the delay has grown since it last started afresh.
    step: u32,
    /// Restarts in this run: what `limit` bounds.
    run: u32,
}

impl Backoff {
    /// Both start afresh: it was up for `reset_after`, or an operator stepped in.
    pub(super) fn reset(&mut self) {
        *self = Backoff::default();
    }

    /// `limit` restarts have been made.
    pub(super) fn spent(&self, restart: &Restart) -> bool {
        restart.limit > 0 && self.run >= restart.limit
    }

    /// One more restart is made.
    pub(super) fn count(&mut self) {
        self.run = self.run.saturating_add(1);
    }

    /// The delay before the next restart; the one after it will be longer.
    pub(super) fn next(&mut self, restart: &Restart, random: &mut Random) -> Duration {
        let max = restart.max_delay.as_secs_f64();
        let power = i32::try_from(self.step).unwrap_or(i32::MAX);
        // Not above max, and not NaN: 0 × ∞ is one, and `min` then takes the other.
        let plain = match restart.delay.as_secs_f64() {
            0.0 => 0.0,
            first => (first * restart.factor.powi(power)).min(max),
        };
        self.step = self.step.saturating_add(1);
        let delay = plain * (1.0 + restart.jitter * random.spread());
        Duration::try_from_secs_f64(delay).unwrap_or(restart.max_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(restart: &Restart, n: usize) -> Vec<f64> {
        let (mut backoff, mut random) = (Backoff::default(), Random::new(1));
        (0..n).map(|_| backoff.next(restart, &mut random).as_secs_f64()).collect()
    }

    #[test]
    fn each_delay_is_longer_up_to_the_longest() {
        let restart = Restart { jitter: 0.0, ..Restart::default() };
        assert_eq!(delays(&restart, 11)[..4], [0.1, 0.2, 0.4, 0.8]);
        assert_eq!(delays(&restart, 2000)[1999], 30.0);
    }

    #[test]
    fn jitter_spreads_a_delay_by_its_share_and_no_more() {
        let restart = Restart { factor: 1.0, jitter: 0.5, ..Restart::default() };
        let delays = delays(&restart, 1000);
        assert!(delays.iter().all(|d| (0.05..=0.15).contains(d)));
        assert!(delays.iter().any(|d| *d < 0.06) && delays.iter().any(|d| *d > 0.14));
    }

    #[test]
    fn no_delay_stays_none_however_often() {
        let restart = Restart { delay: Duration::ZERO, ..Restart::default() };
        assert!(delays(&restart, 5000).iter().all(|d| *d == 0.0));
    }

    #[test]
    fn a_limit_counts_restarts_and_not_delays() {
        let restart = Restart { limit: 2, ..Restart::default() };
        let mut backoff = Backoff::default();
        backoff.next(&restart, &mut Random::new(1));
        backoff.count();
        assert!(!backoff.spent(&restart));
        backoff.count();
        assert!(backoff.spent(&restart));
        backoff.reset();
        assert!(!backoff.spent(&restart));
    }

    proptest::proptest! {
        #[test]
        fn no_delay_is_above_the_longest_and_its_jitter(
            delay in 0_u64..10_000_000,
            max in 0_u64..10_000_000,
            factor in 1.0_f64..1e9,
            jitter in 0.0_f64..=1.0,
            seed in 0_u64..100,
        ) {
            let (delay, max_delay) = (Duration::from_millis(delay), Duration::from_millis(max));
            let restart = Restart { delay, max_delay, factor, jitter, ..Restart::default() };
            let (mut backoff, mut random) = (Backoff::default(), Random::new(seed));
            for _ in 0..200 {
                let most = max_delay.mul_f64(1.0 + jitter) + Duration::from_micros(1);
                assert!(backoff.next(&restart, &mut random) <= most);
            }
        }
    }
}
