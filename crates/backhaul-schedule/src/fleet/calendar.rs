//! Reservations: how many clients were told to come back in which minute.

use std::collections::BTreeMap;

/// Nobody is told to come back later than this, in minutes.
const FARTHEST: u64 = 24 * 60;

#[derive(Debug, Clone, Default)]
pub(super) struct Calendar {
    minutes: BTreeMap<u64, u64>,
}

impl Calendar {
    /// Books a minute that is not before `at` and has fewer than `rate` bookings; returns the seconds since boot at which
    /// it begins. When a whole day is booked, its last minute takes what is left.
    pub fn book(&mut self, now: u64, at: u64, rate: u64) -> u64 {
        self.minutes = self.minutes.split_off(&(now / 60));
        let (first, last) = (at / 60 + 1, now / 60 + FARTHEST);
        let first = first.min(last);
        let free = (first..last).find(|minute| self.minutes.get(minute).copied().unwrap_or(0) < rate.max(1));
        let minute = free.unwrap_or(last);
        *self.minutes.entry(minute).or_default() += 1;
        minute * 60
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_takes_so_many_and_no_more() {
        let mut calendar = Calendar::default();
        let booked: Vec<u64> = (0..7).map(|_| calendar.book(1_000, 1_000, 3)).collect();
        assert_eq!(booked, [1_020, 1_020, 1_020, 1_080, 1_080, 1_080, 1_140]);
        assert_eq!(calendar.book(1_000, 1_100_000, 3), (1_000 / 60 + FARTHEST) * 60);
        assert_eq!(calendar.book(1_080, 1_081, 3), 1_140, "what is over is forgotten, what is booked is not");
    }
}
