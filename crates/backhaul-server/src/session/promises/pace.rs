//! How fast a session delivers contents.

/// How much must have come, or how long it must have taken, for a pace to be known.
const KNOWN_BYTES: u64 = 1 << 20;
const KNOWN_MS: u64 = 1_000;
/// A longer pause is none of the line.
const PAUSE_MS: u64 = 2_000;
/// Whoever is slower than another by so much is not worth waiting for: until it is overtaken both send the same for a while, a few
/// tens of MiB.
const MUCH: u64 = 2;

/// Bytes, and the time between deliveries that took them. The first delivery after a time in which nothing was promised does not
/// count: it waits for much else besides the line.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    bytes: u64,
    ms: u64,
    /// When something came last, or was promised.
    last: u64,
    begins: bool,
}

impl Pace {
    /// It promises something, and owed nothing before.
    pub fn begin(&mut self, now: u64) {
        (self.begins, self.last) = (true, now);
    }

    /// Contents have come.
    pub fn delivered(&mut self, bytes: u64, now: u64) {
        if !std::mem::take(&mut self.begins) {
            self.bytes += bytes;
            self.ms += (now - self.last).min(PAUSE_MS);
        }
        self.last = now;
    }

    /// Something else has come, of which nobody knows how long it was not needed.
    pub fn skip(&mut self, now: u64) {
        self.last = now;
    }

    /// True while too little has come to tell.
    pub fn is_unknown(&self) -> bool {
        self.bytes < KNOWN_BYTES && self.ms < KNOWN_MS
    }

    /// Whether another is known to be much faster than this is known to be.
    pub fn is_much_slower_than(&self, other: &Self) -> bool {
        let (ours, theirs) = (u128::from(self.bytes), u128::from(other.bytes));
        let is_less =
            ours * u128::from(other.ms.max(1)) * u128::from(MUCH) < theirs * u128::from(self.ms.max(1));
        is_less && !self.is_unknown() && !other.is_unknown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(bytes: u64, ms: u64) -> Pace {
        Pace { bytes, ms, ..Pace::default() }
    }

    #[test]
    fn only_what_comes_after_something_else_tells_how_fast_it_comes() {
        let mut pace = Pace::default();
        pace.begin(1_000);
        pace.delivered(50 << 20, 6_000);
        assert!(pace.is_unknown());
        pace.delivered(1 << 20, 6_100);
        pace.delivered(1 << 20, 6_200);
        assert_eq!((pace.bytes, pace.ms, pace.is_unknown()), (2 << 20, 200, false));
        // Nothing was owed meanwhile.
        pace.begin(90_000);
        pace.delivered(1 << 20, 90_500);
        pace.delivered(1 << 20, 90_600);
        assert_eq!((pace.bytes, pace.ms), (3 << 20, 300));
    }

    #[test]
    fn half_as_fast_is_not_much_slower() {
        let mine = pace(10 << 20, 1_000);
        assert!(!pace(5 << 20, 1_000).is_much_slower_than(&mine) && !mine.is_much_slower_than(&mine));
        assert!(pace(5 << 20, 1_001).is_much_slower_than(&mine));
        // Who took long over next to nothing is slow; of whom nothing is known is not.
        assert!(pace(1_000, 1_000).is_much_slower_than(&mine) && !Pace::default().is_much_slower_than(&mine));
        // What took less than can be measured is fast.
        assert!(mine.is_much_slower_than(&pace(1 << 20, 0)));
    }
}
