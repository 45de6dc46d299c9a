//! When the next wave may be opened, and when none ever: the reasons are in the module above.

use super::member::{Member, Progress};
use super::wilson::interval;
use super::{Halt, Rollout};

/// What the new version may be worse by.
const WORSE: f64 = 0.02;
/// Failures of one code in a row that halt.
const SAME: u32 = 3;

/// How the open wave stands.
pub(super) struct Gate {
    pub(super) members: u32,
    pub(super) finishers: u32,
    pub(super) needed: u32,
    /// Seconds of soak that are left.
    pub(super) soak: i64,
    /// Of all waves.
    pub(super) all_finishers: u32,
    pub(super) failed: u32,
    pub(super) lower: f64,
    pub(super) upper: f64,
    pub(super) allowed: f64,
    /// Clients that have the previous version.
    pub(super) outside: u32,
    /// Clients that have the version, and have not finished.
    pub(super) pending: u32,
}

/// A rate as it is kept: a whole number is the same after it was written down and read.
fn thousandths(rate: f64) -> u32 {
    (rate.clamp(0.0, 1.0) * 1_000.0).round() as u32
}

impl Rollout {
    /// Counts. Goes through all clients.
    pub(super) fn gate(&self, now: i64) -> Gate {
        let count = |which: &dyn Fn(&Member) -> bool| {
            let number = self.members.values().filter(|member| which(member)).count();
            u32::try_from(number).unwrap_or(u32::MAX)
        };
        let own = |member: &Member| member.wave.is_some_and(|wave| wave + 1 == self.open);
        let members = count(&own);
        let all_finishers = count(&|member| member.has_finished());
        let failed = count(&|member| member.progress == Progress::Failed);
        let (lower, upper) = interval(failed, all_finishers);
        let (before, _) = interval(self.baseline.failed, self.baseline.total);
        Gate {
            members,
            finishers: count(&|member| own(member) && member.has_finished()),
            needed: self.rules.min_finishers.max(1).min(members),
            soak: self.rules.soak.saturating_sub(now.saturating_sub(self.opened)),
            all_finishers,
            failed,
            lower,
            upper,
            allowed: self.rules.max_failure.max(before + WORSE),
            outside: count(&|member| member.wave.is_none()),
            pending: count(&|member| member.wave.is_some() && !member.has_finished()),
        }
    }

    pub(super) fn harm(&self, gate: &Gate) -> Option<Halt> {
        let Gate { failed, all_finishers: finishers, lower, allowed, .. } = *gate;
        if failed > 0 && lower > allowed {
            let (at_least, allowed) = (thousandths(lower), thousandths(allowed));
            return Some(Halt::Rate { failed, finishers, at_least, allowed });
        }
        self.same.filter(|(_, times)| *times >= SAME).map(|(code, times)| Halt::Same { code, times })
    }

    /// True if the next wave may be opened. One that took nobody in has nothing to wait for; when everybody has
    /// finished there is nobody left to protect, and nothing more to learn.
    pub(super) fn is_passed(&self, gate: &Gate) -> bool {
        let enough = gate.finishers >= gate.needed && gate.soak <= 0;
        let good = gate.failed == 0 || gate.upper <= gate.allowed;
        gate.members == 0 || (enough && (good || (gate.outside == 0 && gate.pending == 0)))
    }
}
