//! How large a fleet, for how long, on which server, with which faults; and the parameters that were assumed.

use backhaul_schedule::policy::{AgentTerms, Policy, Window};
use jiff::civil::time;
use jiff::tz::TimeZone;

use crate::arm::Arm;

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

    /// The zone that everybody lives in.
    pub fn zone(&self) -> TimeZone {
        let text = match self.faults {
            Faults::On => "CET-1CEST,M3.5.0,M10.5.0/3",
            Faults::Off => "UTC0",
        };
        TimeZone::posix(text).unwrap_or(TimeZone::UTC)
    }

    /// When it begins: Monday 9 March 2026, local midnight; seconds since 1970.
    pub fn begin(&self) -> i64 {
        match self.faults {
            Faults::On => 1_773_010_800,
            Faults::Off => 1_773_014_400,
        }
    }

    /// A local time of a day, in ms from the beginning. Sunday 29 March, the 21st day, has no time from two to three.
    pub fn local(&self, day: u32, hour: f64) -> u64 {
        let summer = self.faults == Faults::On && (day > DST_DAY || (day == DST_DAY && hour >= 2.0));
        let at = u64::from(day) * DAY + (hour * HOUR as f64) as u64;
        if summer { at - HOUR } else { at }
    }

    /// The local day of a moment, and its hour.
    pub fn day_of(&self, at: u64) -> (u32, f64) {
        let summer = self.faults == Faults::On && at >= u64::from(DST_DAY) * DAY + 2 * HOUR;
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

/// The day on which summer time begins.
pub const DST_DAY: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_and_back() {
        let case = Case::seed();
        for (day, hour) in [(0, 0.0), (19, 8.0), (20, 8.0), (21, 23.5)] {
            assert_eq!(case.day_of(case.local(day, hour)), (day, hour));
        }
        assert_eq!(case.local(20, 8.0) - case.local(19, 8.0), 23 * HOUR);
        let begin = jiff::Timestamp::from_second(case.begin()).map(|at| at.to_zoned(case.zone()));
        assert_eq!(begin.map(|at| at.datetime().to_string()).unwrap_or_default(), "2026-03-09T00:00:00");
    }
}
