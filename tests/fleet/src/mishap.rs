//! On which days what breaks: every kind at least once in a run of any length, on days that are counted and worked.

use crate::case::{Case, Faults};

/// A kind of thing that goes wrong, or is unusual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// Everybody in the office leaves it, and comes back in the same minute.
    Drill,
    /// The server's clock is an hour fast for two.
    Clock,
    /// Summer time begins in the night to this day.
    Summer,
    /// One floor has no network for two hours.
    Floor,
    /// Nobody outside of the office reaches the server for an hour.
    Remote,
    /// A tenth of laptops have a network that comes and goes.
    Flapping,
    /// The server dies, and is back after a minute.
    Crash,
}

/// Days in which each of these comes once.
const MONTH: u32 = 28;
const MONTHLY: [Mishap; 6] =
    [Mishap::Drill, Mishap::Clock, Mishap::Summer, Mishap::Floor, Mishap::Remote, Mishap::Flapping];
/// Days in which the server crashes once.
const WEEK: u32 = 7;

impl Mishap {
    /// Its days: spread evenly over four weeks (a crash: in the middle of one), or over what there is of them.
    pub fn days(self, case: &Case) -> impl Iterator<Item = u32> + use<> {
        let place = MONTHLY.iter().position(|other| *other == self).map(|place| place as u32);
        let (every, part, of) = match place {
            Some(place) => (MONTH, place, MONTHLY.len() as u32),
            None => (WEEK, 1, 2),
        };
        let (first, end) = (case.warm_up, if case.faults == Faults::On { case.days } else { 0 });
        (first..end).step_by(every as usize).map(move |from| {
            let length = every.min(end - from);
            working(from + part * length / of, first, end)
        })
    }
}

/// A day, or the next working day, or the last one.
fn working(day: u32, first: u32, end: u32) -> u32 {
    let monday = if day % 7 < 5 { day } else { day.next_multiple_of(7) };
    let friday = day - (day % 7).saturating_sub(4);
    if monday < end { monday } else { friday.max(first) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Mishap> {
        MONTHLY.into_iter().chain([Mishap::Crash])
    }

    #[test]
    fn a_run_of_any_length_meets_everything_on_a_counted_working_day() {
        for (warm_up, days) in [(1, 3), (1, 5), (2, 7), (2, 14), (2, 28), (2, 90)] {
            let case = Case { warm_up, days, ..Case::seed() };
            for mishap in all() {
                let met: Vec<u32> = mishap.days(&case).collect();
                let period = if mishap == Mishap::Crash { WEEK } else { MONTH };
                assert_eq!(met.len() as u32, (days - warm_up).div_ceil(period), "{mishap:?} in {days} days");
                let counts = |day: &u32| (warm_up..days).contains(day) && day % 7 < 5;
                assert!(met.iter().all(counts), "{mishap:?} in {days} days: {met:?}");
            }
        }
    }

    #[test]
    fn nothing_breaks_where_nothing_shall() {
        let case = Case { faults: Faults::Off, ..Case::seed() };
        assert!(all().all(|mishap| mishap.days(&case).next().is_none()));
    }
}
