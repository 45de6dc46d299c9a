//! How fast a session delivers while it has something to deliver.

/// How much must have come for a pace to be known.
const KNOWN_BYTES: u64 = 1 << 20;
/// A longer pause is none of the line.
const PAUSE_MS: u64 = 2_000;
/// Whoever is slower than another by so much is not worth waiting for: until it is overtaken both send the same for a while, a few
/// tens of MiB.
const MUCH: u64 = 2;

/// Bytes, and the time between deliveries that took them. The first delivery after something was asked for does not count: it waits
/// for much else besides the line.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    bytes: u64,
    ms: u64,
    begins: bool,
}

impl Pace {
    /// Something is asked for.
    pub fn begin(&mut self) {
        self.begins = true;
    }

    /// Something has come, so long after the last.
    pub fn delivered(&mut self, bytes: u64, after: u64) {
        if !std::mem::take(&mut self.begins) {
            self.bytes += bytes;
            self.ms += after.min(PAUSE_MS);
        }
    }

    /// True while too little has come.
    pub fn is_unknown(&self) -> bool {
        self.bytes < KNOWN_BYTES
    }

    /// Whether another is much faster. Who has hardly delivered anything is slow.
    pub fn is_much_slower_than(&self, other: &Self) -> bool {
        let (ours, theirs) = (u128::from(self.bytes), u128::from(other.bytes));
        ours * u128::from(other.ms.max(1)) * u128::from(MUCH) < theirs * u128::from(self.ms.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(bytes: u64, ms: u64) -> Pace {
        Pace { bytes, ms, begins: false }
    }

    #[test]
    fn only_what_comes_after_something_else_tells_how_fast_it_comes() {
        let mut pace = Pace::default();
        pace.begin();
        pace.delivered(50 << 20, 5_000);
        assert!(pace.is_unknown());
        pace.delivered(1 << 20, 100);
        pace.delivered(1 << 20, 100);
        assert_eq!((pace.bytes, pace.ms, pace.is_unknown()), (2 << 20, 200, false));
    }

    #[test]
    fn half_as_fast_is_not_much_slower() {
        let mine = pace(10 << 20, 1_000);
        assert!(!pace(5 << 20, 1_000).is_much_slower_than(&mine) && !mine.is_much_slower_than(&mine));
        assert!(pace(5 << 20, 1_001).is_much_slower_than(&mine));
        assert!(Pace::default().is_much_slower_than(&mine));
        // What took less than can be measured is fast.
        assert!(mine.is_much_slower_than(&pace(1 << 20, 0)));
    }
}
