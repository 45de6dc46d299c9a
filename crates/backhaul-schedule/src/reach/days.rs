//! What is kept of each day: one slot for each of the last 22, overwritten in a circle, so that a client's memory
//! is bounded and a clock that jumps spoils no more than the slots it touches.

use serde::{Deserialize, Serialize};

pub(super) const DAY: i64 = 86_400;
pub(super) const HOUR: i64 = 3_600;
/// Days that figures are made of (BackupPC and the classification of clients use three weeks).
pub(super) const SPAN: u32 = 21;
/// One more, so that 21 whole days are there whatever the time of day.
const KEPT: usize = SPAN as usize + 1;
/// The last second that is kept as such: the end of the year 9999.
const FAR: i64 = 253_402_300_799;

/// A moment that can be reckoned with. Day 0 is left out: 0 says that there is none.
pub(super) fn sane(at: i64) -> i64 {
    at.clamp(DAY, FAR)
}

/// The day of a moment, counted from 1970 in UTC.
pub(super) fn day_of(at: i64) -> u32 {
    u32::try_from(sane(at) / DAY).unwrap_or(u32::MAX)
}

/// So many of so many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Those that are meant.
    pub part: u32,
    /// All.
    pub of: u32,
}

impl Share {
    /// In whole percent, rounded down; none if there is nothing to have a share in.
    pub fn percent(self) -> Option<u32> {
        let percent = u64::from(self.part) * 100 / u64::from((self.of > 0).then_some(self.of)?);
        u32::try_from(percent).ok()
    }

    /// True if it is known and at least so many percent.
    pub fn at_least(self, percent: u32) -> bool {
        self.of > 0 && u64::from(self.part) * 100 >= u64::from(self.of) * u64::from(percent)
    }

    /// True if it is known and more than so many percent.
    pub fn more_than(self, percent: u32) -> bool {
        u64::from(self.part) * 100 > u64::from(self.of) * u64::from(percent)
    }

    fn add(&mut self, part: u8, of: u8) {
        self.part += u32::from(part.min(of));
        self.of += u32::from(of);
    }
}

/// As it is written down: number, hours, dials, answered, sighted, behind NAT.
type Row = (u32, u32, u8, u8, u8, u8);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Row", into = "Row")]
struct Day {
    /// Counted from 1970; 0 for a slot that was never used.
    number: u32,
    /// A bit for each hour of the day (UTC) in which the client was there.
    hours: u32,
    dials: u8,
    answered: u8,
    /// Contacts of which it is known whether NAT was in between, and those where it was.
    sighted: u8,
    behind: u8,
}

impl From<Row> for Day {
    fn from((number, hours, dials, answered, sighted, behind): Row) -> Self {
        Self { number, hours, dials, answered, sighted, behind }
    }
}

impl From<Day> for Row {
    fn from(day: Day) -> Self {
        (day.number, day.hours, day.dials, day.answered, day.sighted, day.behind)
    }
}

/// Counts one more; at the end of the counter both are halved, which keeps their ratio.
fn count(of: &mut u8, part: &mut u8, hit: bool) {
    if *of == u8::MAX {
        (*of, *part) = (*of / 2, *part / 2);
    }
    *of += 1;
    *part = part.saturating_add(u8::from(hit));
}

/// The last days of a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Days([Day; KEPT]);

impl Days {
    fn slot(&mut self, at: i64) -> &mut Day {
        let number = day_of(at);
        let slot = &mut self.0[number as usize % KEPT];
        if slot.number != number {
            *slot = Day { number, ..Day::default() };
        }
        slot
    }

    /// The client was there from one moment to another (both sane).
    pub(super) fn mark(&mut self, from: i64, to: i64) {
        let mut hour = from.max(to - i64::from(SPAN) * DAY) / HOUR;
        while hour <= to / HOUR {
            self.slot(hour * HOUR).hours |= 1 << (hour % 24);
            hour += 1;
        }
    }

    pub(super) fn dialled(&mut self, at: i64, answered: bool) {
        let day = self.slot(at);
        count(&mut day.dials, &mut day.answered, answered);
    }

    pub(super) fn sighted(&mut self, at: i64, behind_nat: bool) {
        let day = self.slot(at);
        count(&mut day.sighted, &mut day.behind, behind_nat);
    }

    /// True if the client was there in the hour of a moment.
    pub(super) fn was_there(&self, at: i64) -> bool {
        let number = day_of(at);
        let day = &self.0[number as usize % KEPT];
        day.number == number && (day.hours >> (at.div_euclid(HOUR) % 24)) & 1 == 1
    }

    /// Since when something is known: the first hour of the earliest day. Days of twice the span are still
    /// evidence of having been away since; older ones are what a clock that was wrong has left.
    pub(super) fn known_since(&self, now: i64) -> Option<i64> {
        let today = day_of(now);
        let recent = |day: &&Day| {
            day.number > 0 && day.number <= today && today.saturating_sub(day.number) <= 2 * SPAN
        };
        let first = self.0.iter().filter(recent).min_by_key(|day| day.number)?;
        let hour = if first.hours == 0 { 0 } else { first.hours.trailing_zeros().min(23) };
        Some(i64::from(first.number) * DAY + i64::from(hour) * HOUR)
    }

    fn tally(&self, now: i64, counters: impl Fn(&Day) -> (u8, u8)) -> Share {
        let today = day_of(now);
        let mut share = Share::default();
        for day in &self.0 {
            if day.number <= today && today - day.number <= SPAN {
                let (part, of) = counters(day);
                share.add(part, of);
            }
        }
        share
    }

    /// Dials that were answered, of the last three weeks.
    pub(super) fn dials(&self, now: i64) -> Share {
        self.tally(now, |day| (day.answered, day.dials))
    }

    /// Contacts from behind NAT, of the last three weeks.
    pub(super) fn behind_nat(&self, now: i64) -> Share {
        self.tally(now, |day| (day.behind, day.sighted))
    }
}
