//! When a client's next run may start under its policy, and how it stands.

use jiff::{Timestamp, ToSpan, Zoned};

use crate::policy::{Policy, Window};

const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
/// Silence after which a client is given up until somebody looks.
pub const LOST_AFTER: i64 = 60 * DAY;

/// How a client stands at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has its snapshot of this period.
    Protected {
        /// When it will be due, seconds since 1970.
        next: i64,
    },
    /// The window is open, but its own moment within the spread has not come: it may start if it asks, and there
    /// is nothing more urgent.
    Early {
        /// When its moment comes.
        next: i64,
    },
    /// The window is shut.
    Waiting {
        /// When its own moment comes after the next opening: who was told the opening would all come then.
        next: i64,
    },
    /// It is to be started.
    Due {
        /// Since when.
        since: i64,
    },
    /// Its newest snapshot is older than the policy's limit: it is to be started at any time.
    Late {
        /// Since when.
        since: i64,
    },
}

/// How well a client is protected, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It has its snapshot of this period, or its next one is not due.
    Protected,
    /// Its next one is due.
    Due,
    /// Its newest is older than the limit.
    Late,
    /// Older than twice the limit.
    Critical,
    /// Nothing was heard of it for 60 days.
    Lost,
}

impl Health {
    /// The word in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protected => "protected",
            Self::Due => "due",
            Self::Late => "late",
            Self::Critical => "critical",
            Self::Lost => "lost",
        }
    }
}

/// What a judgement needs to know of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Its own stable number, for its moment within the spread.
    pub offset: u64,
    /// When its newest snapshot was made.
    pub last_success: Option<i64>,
    /// When it was added: a client without a snapshot is late a limit after that.
    pub added: i64,
}

impl Record {
    /// The newest snapshot's time. One from the future says that a clock was set back: it counts as made now, not
    /// for years.
    fn last(&self, now: i64) -> Option<i64> {
        self.last_success.map(|last| last.min(now))
    }

    /// Age of what there is, in limits of the policy.
    pub fn lateness(&self, policy: &Policy, now: i64) -> f64 {
        let since = self.last(now).unwrap_or(self.added.min(now));
        (now - since) as f64 / policy.rpo.max(1) as f64
    }
}

/// Judges a client.
pub fn standing(policy: &Policy, record: &Record, now: i64) -> Standing {
    let last = record.last(now);
    let begin = period_begin(policy, now);
    let wait = moment(policy, record.offset);
    if last.is_some_and(|last| last >= begin) {
        return Standing::Protected { next: next_begin(policy, now).saturating_add(wait) };
    }
    let limit = last.unwrap_or(record.added.min(now)).saturating_add(policy.rpo);
    if now >= limit {
        return Standing::Late { since: limit };
    }
    match &policy.window {
        Some(window) if !is_open(window, now) => {
            // Periods of hours do not begin when the window opens.
            let open = next_open(window, now);
            Standing::Waiting { next: open.max(period_begin(policy, open) + wait) }
        }
        _ if now < begin + wait => Standing::Early { next: begin + wait },
        _ => Standing::Due { since: begin + wait },
    }
}

/// How well a client is protected; `seen` is when it was last heard of.
pub fn health(policy: &Policy, record: &Record, seen: Option<i64>, now: i64) -> Health {
    let silent = now - seen.unwrap_or(record.added).min(now);
    let lateness = record.lateness(policy, now);
    match standing(policy, record, now) {
        _ if silent >= LOST_AFTER && lateness >= 1.0 => Health::Lost,
        _ if lateness >= 2.0 => Health::Critical,
        Standing::Late { .. } => Health::Late,
        Standing::Due { .. } => Health::Due,
        _ => Health::Protected,
    }
}

/// A client's own moment, in seconds from the beginning of a period.
fn moment(policy: &Policy, offset: u64) -> i64 {
    (offset % policy.spread.max(1).unsigned_abs()) as i64
}

/// When the period of a moment began. Periods of whole days follow the window's local days, so that a change of
/// the clocks moves them along; others are counted from 1970.
pub fn period_begin(policy: &Policy, at: i64) -> i64 {
    match &policy.window {
        Some(window) if policy.period == DAY => last_open(window, at),
        _ => at.div_euclid(policy.period) * policy.period,
    }
}

/// When the period after that of a moment begins.
pub fn next_begin(policy: &Policy, at: i64) -> i64 {
    let begin = period_begin(policy, at);
    period_begin(policy, begin.saturating_add(policy.period + policy.period / 2)).max(at + 1)
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

/// When a window shuts that opened at a moment. One that the change of the clocks has swallowed, or joined to the next,
/// is open for as long as on other days, give or take the hour.
fn shuts(window: &Window, opened: i64) -> i64 {
    let shuts = next_open(&Window { from: window.to, ..window.clone() }, opened);
    shuts.min(opened.saturating_add(window.length() + HOUR))
}

/// When the window that is open, or was the last to be, shuts or has shut.
pub fn shuts_at(window: &Window, at: i64) -> i64 {
    shuts(window, last_open(window, at))
}

/// True while runs may start: from an opening to the next closing, though an hour in between may come twice. A window
/// that closes when it opens is always open.
pub fn is_open(window: &Window, at: i64) -> bool {
    window.from == window.to || at < shuts_at(window, at)
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
        let window =
            Window { from: time(22, 0, 0, 0), to: time(6, 0, 0, 0), zone: berlin(), of_client: false };
        Policy { window: Some(window), ..Policy::default() }
    }

    fn at(month: i8, day: i8, hour: i8, minute: i8) -> i64 {
        date(2026, month, day).at(hour, minute, 0, 0).to_zoned(berlin()).unwrap().timestamp().as_second()
    }

    fn judge(policy: &Policy, offset: u64, last_success: Option<i64>, now: i64) -> Standing {
        let record = Record { offset, last_success, added: now - 600 };
        standing(policy, &record, now)
    }

    #[test]
    fn a_night_over_midnight_is_one_period() {
        let (policy, done) = (nightly(), Some(at(5, 4, 23, 0)));
        assert_eq!(judge(&policy, 0, done, at(5, 5, 3, 0)), Standing::Protected { next: at(5, 5, 22, 0) });
        assert_eq!(judge(&policy, 0, done, at(5, 5, 12, 0)), Standing::Protected { next: at(5, 5, 22, 0) });
        assert_eq!(judge(&policy, 0, done, at(5, 5, 22, 0)), Standing::Due { since: at(5, 5, 22, 0) });
        assert_eq!(judge(&policy, 600, done, at(5, 5, 22, 5)), Standing::Early { next: at(5, 5, 22, 10) });
        let missed = judge(&policy, 600, done, at(5, 6, 7, 0));
        assert_eq!(missed, Standing::Waiting { next: at(5, 6, 22, 10) }, "its own moment, not everybody's");
    }

    #[test]
    fn a_missed_night_waits_for_the_window_until_it_is_late() {
        let (policy, done) = (nightly(), Some(at(5, 4, 23, 0)));
        // 36 hours after the last: late, window or not.
        assert_eq!(judge(&policy, 0, done, at(5, 6, 7, 0)), Standing::Waiting { next: at(5, 6, 22, 0) });
        assert_eq!(judge(&policy, 0, done, at(5, 6, 11, 0)), Standing::Late { since: at(5, 6, 11, 0) });
        assert_eq!(judge(&policy, 0, None, at(5, 6, 12, 0)), Standing::Waiting { next: at(5, 6, 22, 0) });
    }

    #[test]
    fn a_client_without_a_snapshot_is_late_a_limit_after_it_was_added() {
        let (policy, added) = (nightly(), at(5, 4, 12, 0));
        let record = Record { offset: 0, last_success: None, added };
        let late = added + policy.rpo;
        assert_eq!(standing(&policy, &record, late), Standing::Late { since: late });
        assert_eq!(health(&policy, &record, Some(late), late), Health::Late);
        assert_eq!(health(&policy, &record, Some(late), late + policy.rpo), Health::Critical);
        assert_eq!(health(&policy, &record, Some(added), added + LOST_AFTER), Health::Lost);
    }

    #[test]
    fn every_local_day_has_one_opening_when_clocks_change() {
        let window =
            Window { from: time(2, 30, 0, 0), to: time(5, 0, 0, 0), zone: berlin(), of_client: false };
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
        let next = |last| judge(&policy, 0, Some(last), 1_000_000);
        assert_eq!(next(1_000_000 + 10 * 365 * DAY), next(1_000_000));
    }
}
