//! When a client's next run may start under its policy.

use jiff::{Timestamp, ToSpan, Zoned};

use crate::policy::{Policy, Window};

const DAY: i64 = 86_400;

/// How a client stands at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has its snapshot of this period.
    Protected {
        /// When it will be due, seconds since 1970.
        next: i64,
    },
    /// Its moment in this period has not come, or the window is shut.
    Waiting {
        /// When it may start.
        next: i64,
    },
    /// It is to be started.
    Due,
    /// Its newest snapshot is older than the policy's limit: it is to be started at any time.
    Late,
}

/// Judges a client. `offset` is its own stable number; `last_success` is when its newest snapshot was made.
pub fn standing(policy: &Policy, offset: u64, last_success: Option<i64>, now: i64) -> Standing {
    // A snapshot from the future says that a clock was set back: it counts as made now, not for years.
    let last = last_success.map(|last| last.min(now));
    let begin = period_begin(policy, now);
    let wait = (offset % policy.spread.max(1).unsigned_abs()) as i64;
    if last.is_some_and(|last| last >= begin) {
        return Standing::Protected {
            next: period_begin(policy, begin + policy.period + policy.period / 2) + wait,
        };
    }
    if last.is_some_and(|last| now - last >= policy.rpo) {
        return Standing::Late;
    }
    let moment = begin + wait;
    match &policy.window {
        _ if now < moment => Standing::Waiting { next: moment },
        None => Standing::Due,
        Some(window) if is_open(window, now) => Standing::Due,
        Some(window) => Standing::Waiting { next: next_open(window, now) },
    }
}

/// When the period of a moment began. Periods of whole days follow the window's local days, so that a change of
/// the clocks moves them along; others are counted from 1970.
fn period_begin(policy: &Policy, at: i64) -> i64 {
    match &policy.window {
        Some(window) if policy.period == DAY => last_open(window, at),
        _ => at.div_euclid(policy.period) * policy.period,
    }
}

fn zoned(window: &Window, at: i64) -> Option<Zoned> {
    Timestamp::from_second(at).ok().map(|at| at.to_zoned(window.zone.clone()))
}

/// The opening on a local day; a time that does not exist becomes the first that does, one that exists twice is
/// the earlier.
fn opening(window: &Window, day: &Zoned) -> Option<i64> {
    let opening = day.date().to_datetime(window.from).to_zoned(window.zone.clone()).ok()?;
    Some(opening.timestamp().as_second())
}

/// The last opening that is not after a moment. Outside of what calendars know, the moment itself.
fn last_open(window: &Window, at: i64) -> i64 {
    let today = zoned(window, at);
    let of = |day: Option<Zoned>| day.as_ref().and_then(|day| opening(window, day));
    match of(today.clone()) {
        Some(opening) if opening <= at => opening,
        _ => of(today.and_then(|day| day.checked_sub(1.day()).ok())).unwrap_or(at),
    }
}

/// The first opening after a moment.
fn next_open(window: &Window, at: i64) -> i64 {
    let today = zoned(window, at);
    let of = |day: Option<Zoned>| day.as_ref().and_then(|day| opening(window, day));
    match of(today.clone()) {
        Some(opening) if opening > at => opening,
        _ => of(today.and_then(|day| day.checked_add(1.day()).ok())).unwrap_or(at),
    }
}

/// True while runs may start. A window that closes when it opens is always open.
pub fn is_open(window: &Window, at: i64) -> bool {
    let Some(now) = zoned(window, at) else { return true };
    let (from, to, time) = (window.from, window.to, now.time());
    match from.cmp(&to) {
        std::cmp::Ordering::Less => from <= time && time < to,
        std::cmp::Ordering::Equal => true,
        std::cmp::Ordering::Greater => time >= from || time < to,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use jiff::civil::{date, time};
    use jiff::tz::TimeZone;

    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn nightly() -> Policy {
        let window = Window { from: time(22, 0, 0, 0), to: time(6, 0, 0, 0), zone: berlin() };
        Policy { window: Some(window), ..Policy::default() }
    }

    fn at(month: i8, day: i8, hour: i8, minute: i8) -> i64 {
        date(2026, month, day).at(hour, minute, 0, 0).to_zoned(berlin()).unwrap().timestamp().as_second()
    }

    #[test]
    fn a_night_over_midnight_is_one_period() {
        let (policy, done) = (nightly(), Some(at(5, 4, 23, 0)));
        assert_eq!(standing(&policy, 0, done, at(5, 5, 3, 0)), Standing::Protected { next: at(5, 5, 22, 0) });
        assert_eq!(
            standing(&policy, 0, done, at(5, 5, 12, 0)),
            Standing::Protected { next: at(5, 5, 22, 0) }
        );
        assert_eq!(standing(&policy, 0, done, at(5, 5, 22, 0)), Standing::Due);
        assert_eq!(
            standing(&policy, 600, done, at(5, 5, 22, 5)),
            Standing::Waiting { next: at(5, 5, 22, 10) }
        );
    }

    #[test]
    fn a_missed_night_waits_for_the_window_until_it_is_late() {
        let (policy, done) = (nightly(), Some(at(5, 4, 23, 0)));
        // 36 hours after the last: late, window or not.
        assert_eq!(standing(&policy, 0, done, at(5, 6, 7, 0)), Standing::Waiting { next: at(5, 6, 22, 0) });
        assert_eq!(standing(&policy, 0, done, at(5, 6, 11, 0)), Standing::Late);
        assert_eq!(standing(&policy, 0, None, at(5, 6, 12, 0)), Standing::Waiting { next: at(5, 6, 22, 0) });
    }

    #[test]
    fn every_local_day_has_one_opening_when_clocks_change() {
        let window = Window { from: time(2, 30, 0, 0), to: time(5, 0, 0, 0), zone: berlin() };
        for (month, first) in [(3, 27), (10, 23)] {
            let mut openings = Vec::new();
            let mut now = at(month, first, 0, 0);
            for _ in 0..4 {
                now = next_open(&window, now);
                openings.push(zoned(&window, now).unwrap().date());
            }
            let days: Vec<_> = (0..4).map(|i| date(2026, month, first + i)).collect();
            assert_eq!(openings, days);
        }
    }

    #[test]
    fn a_snapshot_from_the_future_counts_as_made_now() {
        let policy = Policy::default();
        let next = |last| standing(&policy, 0, Some(last), 1_000_000);
        assert_eq!(next(1_000_000 + 10 * 365 * DAY), next(1_000_000));
    }
}
