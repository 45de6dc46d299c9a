//! Limits how fast bytes leave: a bucket that fills with permission.

use std::num::NonZeroU64;
use std::time::Duration;

/// Permission that gathers while nothing is sent: a quarter of a second's, and at least this many bytes.
const BURST_MIN: u64 = 64 * 1024;
const SECOND: u64 = 1_000_000_000;

/// A token bucket. Over any second or longer no more passes than its rate allows, and one burst.
#[derive(Debug, Clone)]
pub struct Bucket {
    rate: NonZeroU64,
    /// How long it takes to fill, in ns.
    depth: u64,
    /// When it will be full again, in ns.
    full_at: u64,
}

impl Bucket {
    /// A full bucket of so many bytes a second.
    pub fn new(bytes_per_s: NonZeroU64) -> Self {
        let mut bucket = Self { rate: bytes_per_s, depth: 0, full_at: 0 };
        bucket.depth = bucket.cost(bucket.burst());
        bucket
    }

    /// Bytes that pass at once at most. What is taken should be in pieces no larger: a larger one passes whole,
    /// after its time.
    pub fn burst(&self) -> u64 {
        BURST_MIN.max(self.rate.get() / 4)
    }

    /// Takes permission for `bytes` at `now` (ns of any clock that does not run backwards), and returns how many
    /// ns to wait before they are sent. Who asks first is served first.
    #[must_use]
    pub fn take(&mut self, now: u64, bytes: u64) -> u64 {
        self.full_at = self.full_at.max(now).saturating_add(self.cost(bytes));
        self.full_at.saturating_sub(self.depth).saturating_sub(now)
    }

    /// How long the rate takes for so many bytes: rounded up, never too fast.
    fn cost(&self, bytes: u64) -> u64 {
        let ns = (u128::from(bytes) * u128::from(SECOND)).div_ceil(u128::from(self.rate.get()));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// Waits for permission: not at all when none is needed, for a sleep of no time ends with the next tick of the timer, and at one
/// millisecond each a thousand objects would take a second.
pub async fn pause(wait: Duration) {
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use proptest::prelude::*;

    fn bucket(rate: u64) -> Bucket {
        Bucket::new(NonZeroU64::new(rate).unwrap())
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_by_the_rate() {
        let mut bucket = bucket(1_000_000);
        assert_eq!(bucket.burst(), 250_000);
        assert_eq!(bucket.take(5 * SECOND, 250_000), 0);
        assert_eq!(bucket.take(5 * SECOND, 100_000), SECOND / 10);
        // A long pause gathers one burst, not more.
        assert_eq!(bucket.take(90 * SECOND, 250_000), 0);
        assert_eq!(bucket.take(90 * SECOND, 1), 1_000);
        assert_eq!(bucket.take(90 * SECOND, u64::MAX), u64::MAX - bucket.depth - 90 * SECOND);
    }

    #[tokio::test]
    async fn who_needs_no_permission_goes_on_at_once() {
        let is_there = |wait| pin!(pause(wait)).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!((0..20).all(|_| is_there(Duration::ZERO)));
        assert!(!is_there(Duration::from_secs(60)));
    }

    proptest! {
        #[test]
        fn no_window_passes_more_than_the_rate_and_a_burst(
            rate in 1u64..200_000_000,
            asks in prop::collection::vec((0u64..2 * SECOND, 0.0f64..=1.0), 1..60),
        ) {
            let mut bucket = bucket(rate);
            let burst = bucket.burst();
            let mut now = 0;
            let mut passed = Vec::new();
            for (pause, share) in asks {
                now += pause;
                let bytes = ((burst as f64 * share) as u64).min(burst);
                passed.push((now + bucket.take(now, bytes), bytes));
            }
            for (first, &(from, _)) in passed.iter().enumerate() {
                let mut sum = 0u128;
                for &(to, bytes) in &passed[first..] {
                    prop_assert!(to >= from, "overtaken");
                    sum += u128::from(bytes);
                    let window = u128::from((to - from).max(SECOND));
                    let may = (u128::from(rate) * window).div_ceil(u128::from(SECOND)) + u128::from(burst);
                    prop_assert!(sum <= may, "{sum} in {window} ns of {may}");
                }
            }
        }

        #[test]
        fn nobody_waits_longer_than_all_that_was_asked_for_takes(
            rate in 1u64..200_000_000,
            asks in prop::collection::vec((0u64..SECOND, 0u64..1_000_000), 1..60),
        ) {
            let mut bucket = bucket(rate);
            let (mut now, mut all) = (0, 0);
            for (pause, bytes) in asks {
                now += pause;
                all += bucket.cost(bytes);
                prop_assert!(bucket.take(now, bytes) <= all);
            }
            // And the whole rate is used by who always asks.
            let start = now + bucket.take(now, 0);
            let mut at = start;
            for _ in 0..100 {
                at += bucket.take(at, bucket.burst());
            }
            prop_assert!(u128::from(at - start) <= u128::from(bucket.depth) * 101);
        }
    }
}
