//! The only place in this crate that reads the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Nanoseconds since 1970 by the clock that stamps files: it moves once a tick.
pub fn file_time() -> i64 {
    let time = clock_gettime(ClockId::RealtimeCoarse);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// Time that passed since a moment.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// One that was started some time ago.
    #[cfg(test)]
    pub fn started(ago: Duration) -> Option<Self> {
        Instant::now().checked_sub(ago).map(Self)
    }

    /// Since then.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Milliseconds since then.
    pub fn elapsed_ms(&self) -> u64 {
        self.elapsed().as_millis() as u64
    }
}

/// What the clocks of this machine say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clocks {
    /// Milliseconds since the machine started, those asleep among them.
    pub boot_ms: u64,
    /// Milliseconds that the machine was awake: what timers count.
    pub mono_ms: u64,
    /// Seconds since 1970.
    pub wall_s: i64,
}

/// Reads all clocks.
pub fn clocks() -> Clocks {
    let ms = |id| {
        let time = clock_gettime(id);
        (time.tv_sec as u64).saturating_mul(1_000).saturating_add(time.tv_nsec as u64 / 1_000_000)
    };
    Clocks {
        boot_ms: ms(ClockId::Boottime),
        mono_ms: ms(ClockId::Monotonic),
        wall_s: clock_gettime(ClockId::Realtime).tv_sec,
    }
}
