//! Notices that this machine, or this process, did not run for a while, and that its wall clock was set.
//!
//! All timers stand still while a machine sleeps: only a comparison of clocks tells.

use crate::clock::Clocks;

/// A machine that slept less has kept its connections.
const ASLEEP_MS: u64 = 2_000;
/// Less is a correction of the wall clock, not a jump.
const JUMP_S: i64 = 300;

/// What a comparison of clocks tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// The machine was asleep, or this process was stopped, for so long.
    Woke {
        /// Milliseconds.
        asleep_ms: u64,
    },
    /// The wall clock was set forward, or back when negative.
    WallJumped {
        /// Seconds.
        by_s: i64,
    },
}

/// Compares readings of the clocks.
#[derive(Debug)]
pub struct SleepWatch {
    /// A reading that comes later than this after the one before, in ms: the process was stopped.
    patience_ms: u64,
    last: Clocks,
    /// Time asleep since the start that has been told.
    asleep_ms: u64,
    /// Wall clock minus the time since the start, as told.
    wall_offset_s: i64,
}

impl SleepWatch {
    /// Begins with a reading. Readings follow at least every `tick_ms`; one that is later by more than `late_ms`
    /// was made by a process that had been stopped.
    pub fn new(first: Clocks, tick_ms: u64, late_ms: u64) -> Self {
        Self {
            patience_ms: tick_ms.saturating_add(late_ms),
            last: first,
            asleep_ms: asleep(&first),
            wall_offset_s: wall_offset(&first),
        }
    }

    /// Takes the next reading.
    pub fn read(&mut self, now: Clocks) -> Vec<Lapse> {
        let mut lapses = Vec::new();
        let slept = asleep(&now).saturating_sub(self.asleep_ms);
        let since = now.boot_ms.saturating_sub(self.last.boot_ms);
        if slept > ASLEEP_MS {
            lapses.push(Lapse::Woke { asleep_ms: slept });
            self.asleep_ms = asleep(&now);
        } else if since > self.patience_ms {
            lapses.push(Lapse::Woke { asleep_ms: since });
        }
        let by_s = wall_offset(&now).saturating_sub(self.wall_offset_s);
        if by_s.abs() > JUMP_S {
            lapses.push(Lapse::WallJumped { by_s });
            self.wall_offset_s = wall_offset(&now);
        }
        self.last = now;
        lapses
    }
}

fn asleep(clocks: &Clocks) -> u64 {
    clocks.boot_ms.saturating_sub(clocks.mono_ms)
}

fn wall_offset(clocks: &Clocks) -> i64 {
    clocks.wall_s.saturating_sub_unsigned(clocks.boot_ms / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Clocks = Clocks { boot_ms: 50_000, mono_ms: 40_000, wall_s: 1_700_000_000 };

    /// Clocks after the machine ran and slept for so long.
    fn later(from: Clocks, awake_ms: u64, asleep_ms: u64) -> Clocks {
        let boot_ms = from.boot_ms + awake_ms + asleep_ms;
        let wall_s = from.wall_s + (boot_ms / 1_000 - from.boot_ms / 1_000) as i64;
        Clocks { boot_ms, mono_ms: from.mono_ms + awake_ms, wall_s }
    }

    #[test]
    fn a_night_in_the_bag_is_told_once() {
        let mut watch = SleepWatch::new(START, 5_000, 30_000);
        assert_eq!(watch.read(later(START, 5_000, 0)), []);
        let morning = later(START, 8_000, 8 * 3_600_000);
        assert_eq!(watch.read(morning), [Lapse::Woke { asleep_ms: 8 * 3_600_000 }]);
        assert_eq!(watch.read(later(morning, 5_000, 0)), []);
    }

    #[test]
    fn a_stopped_process_has_slept_too() {
        let mut watch = SleepWatch::new(START, 5_000, 30_000);
        let busy = later(START, 35_000, 0);
        assert_eq!(watch.read(busy), []);
        let resumed = later(busy, 35_001, 0);
        assert_eq!(watch.read(resumed), [Lapse::Woke { asleep_ms: 35_001 }]);
        assert_eq!(watch.read(later(resumed, 5_000, 0)), []);
    }

    #[test]
    fn a_clock_that_is_set_jumps_and_one_that_is_corrected_does_not() {
        let mut watch = SleepWatch::new(START, 5_000, 30_000);
        let mut clocks = later(START, 5_000, 0);
        clocks.wall_s += 300;
        assert_eq!(watch.read(clocks), []);
        clocks.wall_s -= 3_900;
        assert_eq!(watch.read(clocks), [Lapse::WallJumped { by_s: -3_600 }]);
        assert_eq!(watch.read(clocks), []);
        // Asleep, and set on top of it.
        let mut clocks = later(clocks, 1_000, 60_000);
        clocks.wall_s += 86_400;
        let both = [Lapse::Woke { asleep_ms: 60_000 }, Lapse::WallJumped { by_s: 86_400 }];
        assert_eq!(watch.read(clocks), both);
    }

    proptest! {
        #[test]
        fn all_sleep_is_told_but_for_two_seconds(naps in prop::collection::vec((0u64..5_000, 0u64..10_000), 1..50)) {
            let mut watch = SleepWatch::new(START, 5_000, 30_000);
            let (mut clocks, mut told, mut all) = (START, 0, 0);
            for (awake, asleep) in naps {
                clocks = later(clocks, awake, asleep);
                all += asleep;
                for lapse in watch.read(clocks) {
                    match lapse {
                        Lapse::Woke { asleep_ms } => told += asleep_ms,
                        Lapse::WallJumped { by_s } => prop_assert!(false, "jumped by {by_s}"),
                    }
                }
            }
            prop_assert!(told <= all && all - told <= ASLEEP_MS, "{told} of {all}");
        }
    }
}
