//! How large a fleet, for how long, on which server, with which faults; and the parameters that were assumed.

use backhaul_schedule::policy::{AgentTerms, Policy, Window};
use jiff::civil::time;
use jiff::tz::TimeZone;

use crate::arm::Arm;
use crate::mishap::Mishap;

/// An hour in ms.
pub const HOUR: u64 = 3_600_000;
/// A day in ms.
pub const DAY: u64 = 24 * HOUR;
/// A minute in ms.
pub const MINUTE: u64 = 60_000;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name in tables.
    pub name: String,
    /// Desktops: on from 8 to 20 h.
    pub desktops: usize,
    /// Laptops, of all four kinds.
    pub laptops: usize,
    /// Backups at once.
    pub slots: usize,
    /// Local days.
    pub days: u32,
    /// Days at the beginning that are not counted.
    pub warm_up: u32,
    /// What breaks.
    pub faults: Faults,
    /// Times the length of every run.
    pub run_scale: f64,
    /// Median length of an online stretch, in minutes.
    pub stretch: f64,
    /// Share of homes and places on the way that let no UDP pass.
    pub blocked: f64,
}

/// Whether things break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faults {
    /// All of them, on their days.
    On,
    /// None: no run fails, the server stays up, clocks are right, summer time never begins.
    Off,
}

impl Case {
    /// The seed case: 200 desktops, 150 laptops, 12 slots, four weeks with a change of the clocks.
    pub fn seed() -> Self {
        Self {
            name: "350 machines".to_owned(),
            desktops: 200,
            laptops: 150,
            slots: 12,
            days: 28,
            warm_up: 2,
            faults: Faults::On,
            run_scale: 1.0,
            stretch: 90.0,
            blocked: 0.04,
        }
    }

    /// 10,000 machines in the same proportion, 14 days.
    pub fn ten_thousand() -> Self {
        let name = "10,000 machines".to_owned();
        Self { name, desktops: 5_714, laptops: 4_286, slots: 64, days: 14, ..Self::seed() }
    }

    /// 100,000 machines in the same proportion, 5 days.
    pub fn hundred_thousand() -> Self {
        let name = "100,000 machines".to_owned();
        Self { name, desktops: 57_143, laptops: 42_857, slots: 930, days: 5, warm_up: 1, ..Self::seed() }
    }

    /// All machines.
    pub fn machines(&self) -> usize {
        self.desktops + self.laptops
    }

    /// The zone that everybody lives in: Central Europe, but that summer time begins when the case says so.
    pub fn zone(&self) -> TimeZone {
        let text = match self.summer_from() {
            Some(day) => format!("CET-1CEST,J{}/2,J300/3", FIRST_DAY_OF_YEAR + day),
            None if self.faults == Faults::On => "CET-1".to_owned(),
            None => "UTC0".to_owned(),
        };
        TimeZone::posix(&text).unwrap_or(TimeZone::UTC)
    }

    /// The day in whose night summer time begins: 2 o'clock is 3 o'clock.
    pub fn summer_from(&self) -> Option<u32> {
        Mishap::Summer.days(self).next()
    }

    /// When it begins: Monday 9 March 2026, local midnight; seconds since 1970.
    pub fn begin(&self) -> i64 {
        match self.faults {
            Faults::On => 1_773_010_800,
            Faults::Off => 1_773_014_400,
        }
    }

    /// A local time of a day, in ms from the beginning. The day on which summer time begins has no time from two to three.
    pub fn local(&self, day: u32, hour: f64) -> u64 {
        let summer = self.summer_from().is_some_and(|from| day > from || (day == from && hour >= 2.0));
        let at = u64::from(day) * DAY + (hour * HOUR as f64) as u64;
        if summer { at - HOUR } else { at }
    }

    /// The local day of a moment, and its hour.
    pub fn day_of(&self, at: u64) -> (u32, f64) {
        let summer = self.summer_from().is_some_and(|from| at >= u64::from(from) * DAY + 2 * HOUR);
        let local = if summer { at + HOUR } else { at };
        ((local / DAY) as u32, (local % DAY) as f64 / HOUR as f64)
    }

    /// Desktops: once a local day between 8:10 and 19:30, each at its own moment within three hours.
    pub fn desktop_policy(&self) -> Policy {
        let window =
            Window { from: time(8, 10, 0, 0), to: time(19, 30, 0, 0), zone: self.zone(), of_client: false };
        Policy { window: Some(window), spread: 3 * 3_600, ..Policy::default() }
    }

    /// Laptops: once a local day, at any time. Where the server dials them, from 8 to 20 h: the dials of a period are
    /// bounded, and would be spent before anybody is up.
    pub fn laptop_policy(&self, arm: Arm) -> Policy {
        let (from, to) = if arm == Arm::ServerDial { (8, 20) } else { (0, 0) };
        let (from, to) = (time(from, 0, 0, 0), time(to, 0, 0, 0));
        let window = Window { from, to, zone: self.zone(), of_client: false };
        let agent = AgentTerms { join_jitter: self.join_jitter(), ..AgentTerms::default() };
        Policy { window: Some(window), agent, ..Policy::default() }
    }

    /// Seconds over which joiners spread: 2 for hundreds of machines, 60 for 100,000.
    fn join_jitter(&self) -> i64 {
        if self.machines() > 50_000 { 60 } else { 2 }
    }
}

/// The first day of a case in its year, from 1: 9 March.
const FIRST_DAY_OF_YEAR: u32 = 68;

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use jiff::civil::date;

    use super::*;

    #[test]
    fn local_time_and_back() {
        for case in [Case::seed(), Case { days: 3, ..Case::hundred_thousand() }] {
            let night = case.summer_from().unwrap_or(0);
            for (day, hour) in [(0, 0.0), (night - 1, 8.0), (night, 1.5), (night, 8.0), (night + 1, 23.5)] {
                assert_eq!(case.day_of(case.local(day, hour)), (day, hour));
                let at = case.begin() + (case.local(day, hour) / 1_000) as i64;
                let local = jiff::Timestamp::from_second(at).map(|at| at.to_zoned(case.zone()).datetime());
                let begin = date(2026, 3, 9).at(0, 0, 0, 0);
                let told = begin.saturating_add((i64::from(day) * 24 * 60 + (hour * 60.0) as i64).minutes());
                assert_eq!(local.ok(), Some(told), "day {day}, {hour} h");
            }
            assert_eq!(case.local(night, 8.0) - case.local(night - 1, 8.0), 23 * HOUR);
        }
    }
}
