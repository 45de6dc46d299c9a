//! When the night's chores are due: once a day at a time of day, also after it was slept through; once, however far the
//! clock jumps.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::Now;

/// So much time has to pass between two nights, by the clock that never jumps, in seconds.
const APART: u64 = 12 * 3_600;

/// Remembers the last night.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Night {
    /// The last one, or when it was first looked, in seconds since 1970.
    base: i64,
    /// The last one of this process, in seconds since the machine started.
    ran: Option<u64>,
}

impl Night {
    /// After a start: the last night is remembered, or the first is still to come.
    pub fn new(last: Option<i64>, now: Now) -> Self {
        Self { base: last.unwrap_or(now.wall), ran: None }
    }

    /// True when the chores of a night are to begin now; they are then taken as begun.
    pub fn look(&mut self, at: Time, zone: &TimeZone, now: Now) -> bool {
        // The clock was set back: the next night is the next by the clock as it is.
        self.base = self.base.min(now.wall);
        let due = latest(at, zone, now.wall).is_some_and(|latest| latest > self.base);
        if !due || self.ran.is_some_and(|ran| now.boot < ran.saturating_add(APART)) {
            return false;
        }
        *self = Self { base: now.wall, ran: Some(now.boot) };
        true
    }
}

/// The last time that it was this time of day, in seconds since 1970.
fn latest(at: Time, zone: &TimeZone, wall: i64) -> Option<i64> {
    let now = Timestamp::from_second(wall).ok()?.to_zoned(zone.clone());
    let on = |date: jiff::civil::Date| {
        let moment = date.to_datetime(at).to_zoned(zone.clone()).ok()?;
        Some(moment.timestamp().as_second())
    };
    let today = on(now.date())?;
    if today <= wall { Some(today) } else { on(now.date().checked_sub(1.day()).ok()?) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const HOUR: i64 = 3_600;
    const DAY: i64 = 24 * HOUR;
    /// 2023-11-20 00:00 UTC.
    const MIDNIGHT: i64 = 1_700_438_400;

    fn now(wall: i64) -> Now {
        Now { boot: (wall - MIDNIGHT + 100 * DAY) as u64, wall }
    }

    fn two() -> Time {
        Time::constant(2, 0, 0, 0)
    }

    /// Looks every ten minutes, and says in which hours since midnight something was due.
    fn hours(night: &mut Night, from: i64, to: i64) -> Vec<i64> {
        let due = |step: &i64| night.look(two(), &TimeZone::UTC, now(MIDNIGHT + step * 600));
        (from * 6..to * 6).filter(due).map(|step| step / 6).collect()
    }

    #[test]
    fn once_a_night_and_after_a_night_that_was_slept_through() {
        let mut night = Night::new(None, now(MIDNIGHT + 12 * HOUR));
        assert_eq!(hours(&mut night, 12, 96), [26, 50, 74]);
        assert_eq!(hours(&mut night, 5 * 24 + 9, 6 * 24), [129], "it was off at two");
        let mut again = Night::new(Some(MIDNIGHT + 2 * HOUR), now(MIDNIGHT + 3 * HOUR));
        assert_eq!(hours(&mut again, 3, 30), [26], "a restart repeats nothing");
    }

    #[test]
    fn a_jump_of_a_year_is_one_night_at_most() {
        let year = 365 * DAY;
        let start = now(MIDNIGHT + 3 * HOUR);
        for jump in [year, -year] {
            let mut night = Night::new(Some(MIDNIGHT + 2 * HOUR), start);
            let at = |step: i64| Now {
                boot: start.boot + 600 * step as u64,
                wall: start.wall + jump + 600 * step,
            };
            let due = (0..6 * 48).filter(|step| night.look(two(), &TimeZone::UTC, at(*step))).count();
            assert!((1..=3).contains(&due), "{due} in two days");
            // And back again.
            let back = |step: i64| Now {
                boot: at(6 * 48).boot + 600 * step as u64,
                ..now(MIDNIGHT + 3 * DAY + 600 * step)
            };
            let due = (0..6 * 48).filter(|step| night.look(two(), &TimeZone::UTC, back(*step))).count();
            assert!((1..=3).contains(&due), "{due} in two days after");
        }
        let mut night = Night::new(None, start);
        let flapping = (0..1_000).filter(|i| {
            let wall = start.wall + if i % 2 == 0 { year } else { 0 };
            night.look(two(), &TimeZone::UTC, Now { boot: start.boot + *i as u64, wall })
        });
        assert!(flapping.count() <= 1, "a clock that jumps to and fro");
    }
}
