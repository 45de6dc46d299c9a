//! What is kept of a client: its contacts, its failures, what it said; and how that grows.

use serde::{Deserialize, Serialize};

use super::client::{Client, Tries};
use super::watch::{ClearedBy, Here};
use super::{Action, ClientKey};
use crate::Now;
use crate::due::{LOST_AFTER, Standing, is_open};
use crate::policy::{Initiator, Policy};
use crate::reach::{Auto, InWindow, Reach};

/// What is kept of a client across restarts of the server. What an older server did not keep is as if nothing had
/// happened.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Its contacts.
    pub reach: Reach,
    /// The initiator that they have led to; none before the first.
    pub auto: Option<Auto>,
    /// When it was last heard of.
    pub last_seen: Option<i64>,
    /// What its agent said when it did not want to, and until when.
    pub not_now: Option<NotNow>,
    /// Somebody has asked for it to be nudged, and it was not here.
    pub nudge_wanted: bool,
    /// Runs that failed in a row, and the code of the last.
    pub failed_runs: u32,
    /// See [`super::Outcome::Failed`].
    pub failure: Option<(u32, String)>,
    /// Seconds awake and reachable since it became late.
    pub awake: u64,
    /// It has been late since its newest snapshot, and that was noted.
    pub was_late: bool,
    /// Alerts that are raised.
    pub raised: super::watch::Raised,
}

impl Memory {
    /// The initiator that a client's contacts recommend under a policy, with the reasons.
    pub fn recommend(&self, policy: &Policy, now: i64) -> crate::reach::Recommendation {
        let in_window = |at: i64| match &policy.window {
            Some(window) if !is_open(window, at) => InWindow::No,
            _ => InWindow::Yes,
        };
        self.reach.recommend(now, &in_window, policy.rpo)
    }
}

/// An agent's refusal for the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotNow {
    /// In its words.
    pub reason: String,
    /// Seconds since 1970.
    pub until: i64,
}

impl Client {
    /// True when it has been silent for so long that nobody expects it back.
    pub fn is_lost(&self, now: i64) -> bool {
        now - self.memory.last_seen.unwrap_or(self.plan.added) >= LOST_AFTER
    }

    /// It has shown that it is there.
    pub fn heard(&mut self, now: Now) {
        self.count_awake(now, if self.link.is_some() { Here::Stays } else { Here::Visits });
        self.memory.last_seen = self.memory.last_seen.max(Some(now.wall));
        self.tries = Tries::default();
        self.came_meanwhile = true;
    }

    /// Once for each time that it becomes late. True if that is now.
    pub fn note_late(&mut self, standing: Standing, now: Now) -> bool {
        let begins = matches!(standing, Standing::Late { .. }) && !self.memory.was_late;
        if begins {
            self.memory.was_late = true;
            self.memory.reach.was_late(now.wall);
            self.memory.awake = 0;
            self.counted = Some(now.boot);
        }
        begins
    }

    /// Once a day: is it still best started from that side?
    pub fn consider_mode(&mut self, now: i64) {
        let day = now.div_euclid(86_400);
        if self.plan.initiator != Initiator::Auto || self.considered == Some(day) {
            return;
        }
        self.considered = Some(day);
        let recommended = self.recommend(now);
        match &mut self.memory.auto {
            Some(auto) => drop(auto.consider(now, &recommended)),
            none => *none = Some(Auto::begin(&recommended)),
        }
    }

    /// The initiator that its contacts recommend.
    pub fn recommend(&self, now: i64) -> crate::reach::Recommendation {
        self.memory.recommend(&self.plan.policy, now)
    }

    /// It has a new snapshot.
    pub fn succeeded(&mut self, key: &ClientKey, at: i64, took: u64, out: &mut Vec<Action>) {
        self.last_success = self.last_success.max(Some(at));
        self.memory.reach.ran(took);
        if self.memory.was_late || self.memory.failed_runs > 0 {
            self.memory.reach.recovered(at, self.by);
        }
        self.memory.was_late = false;
        self.memory.awake = 0;
        self.memory.failed_runs = 0;
        self.memory.failure = None;
        (self.manual, self.memory.nudge_wanted, self.retry_at) = (None, false, 0);
        self.clear(key, ClearedBy::Success, out);
    }
}
