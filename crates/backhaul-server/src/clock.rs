//! The only place in this crate that reads the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Milliseconds since the machine started, sleep included.
pub fn boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.unsigned_abs() * 1_000 + time.tv_nsec.unsigned_abs() / 1_000_000
}

/// Time that passed since a moment.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long ago that was.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Time for who bounds a rate: how much has passed since it began, and sleep.
pub trait Time {
    /// Since it began.
    fn passed(&self) -> Duration;
    /// Sleeps.
    fn nap(&mut self, time: Duration);
}

impl Time for Stopwatch {
    fn passed(&self) -> Duration {
        self.elapsed()
    }

    fn nap(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}
