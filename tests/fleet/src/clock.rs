//! The only place that reads the time: how long the scheduler's steps keep a processor busy.
//!
//! Asking for a thread's time takes the kernel longer than most steps take: one step in [`EVERY`] stands for the others.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A prime, so that no rhythm of the events is in step with it.
const EVERY: u64 = 61;

/// How long steps took.
#[derive(Debug, Default)]
pub struct Watch {
    steps: u64,
    spent: Duration,
}

impl Watch {
    /// Runs a step. What else the machine does meanwhile is not counted.
    pub fn time<T>(&mut self, step: impl FnOnce() -> T) -> T {
        self.steps += 1;
        if !self.steps.is_multiple_of(EVERY) {
            return step();
        }
        let began = now();
        let result = step();
        self.spent += now().saturating_sub(began) * EVERY as u32;
        result
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How long all of them took, as far as those that were looked at can tell.
    pub fn spent(&self) -> Duration {
        self.spent
    }
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
