//! The only place that reads the time: how long the scheduler's steps keep a processor busy.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Runs something and adds to a sum how long this thread was computing: what else the machine does is not counted.
pub fn timed<T>(sum: &mut Duration, of: impl FnOnce() -> T) -> T {
    let began = now();
    let result = of();
    *sum += now().saturating_sub(began);
    result
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
