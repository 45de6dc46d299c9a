//! Who has to be told of what: overdue and failing are not the same, and a holiday is neither.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::client::Client;
use super::{Action, ClientKey, Now};
use crate::due::{LOST_AFTER, Standing};
use crate::policy::{Group, units};

/// Runs that fail in a row before somebody is told.
const FAILURES: u32 = 3;
/// Contacts that are closer together than this are one stay, in seconds: a late client comes by every 20 minutes, give or
/// take a tenth.
const STAY: u64 = 30 * 60;
/// Days without success after which an open alert is repeated (some products stop at the first and are forgotten).
const REMINDERS: [i64; 3] = [14, 21, 28];
const DAY: i64 = 86_400;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AlertKind {
    /// Late, although it was awake and reachable for long enough.
    Overdue,
    /// Its runs fail.
    Failing,
    /// A whole network group does not answer.
    GroupSilent,
    /// Nothing was heard of it for 60 days.
    Lost,
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// It has begun.
    Raised,
    /// It goes on.
    Reminder,
    /// It is over.
    Cleared,
}

impl What {
    /// The word for it wherever it is written down.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Reminder => "reminder",
            Self::Cleared => "cleared",
        }
    }
}

impl FromStr for What {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known =
            [Self::Raised, Self::Reminder, Self::Cleared].into_iter().find(|what| what.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is nothing that is told of an alert"))
    }
}

/// Of whom it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One client.
    Client(ClientKey),
    /// A network.
    Group(Group),
}

/// Something people should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What is wrong.
    pub kind: AlertKind,
    /// Since now, still, or no longer.
    pub what: What,
    /// With whom.
    pub subject: Subject,
    /// The obstacle, in words.
    pub text: String,
}

/// Alerts of a client that are raised: since when, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Raised {
    pub(super) overdue: Option<i64>,
    pub(super) reminders: u8,
    pub(super) failing: Option<i64>,
    pub(super) lost: Option<i64>,
}

impl Client {
    /// Counts the time for which it was awake and reachable, of which only that counts while it is late.
    pub(super) fn count_awake(&mut self, now: Now, here: Here) {
        if let Some(counted) = self.counted {
            let passed = now.boot.saturating_sub(counted);
            let stayed = here == Here::Stays || passed <= STAY;
            self.memory.awake = self.memory.awake.saturating_add(if stayed { passed } else { 0 });
        }
        self.counted = Some(now.boot);
    }

    /// What has to be told now. `why` is the obstacle in words.
    pub(super) fn alerts(
        &self,
        key: &ClientKey,
        standing: Standing,
        now: Now,
        why: &dyn Fn() -> String,
    ) -> Vec<Alert> {
        let (memory, raised) = (&self.memory, &self.memory.raised);
        let alert = |kind, what, text| Alert { kind, what, subject: Subject::Client(*key), text };
        let mut alerts = Vec::new();
        let late = matches!(standing, Standing::Late { .. });
        let overdue = late && memory.awake >= self.plan.policy.alert_after.unsigned_abs();
        let reminder = REMINDERS.get(usize::from(raised.reminders)).copied().unwrap_or(i64::MAX / DAY);
        let without = now.wall - self.last_success.unwrap_or(self.plan.added);
        match raised.overdue {
            None if overdue => {
                alerts.push(alert(AlertKind::Overdue, What::Raised, self.overdue(now, &why())))
            }
            Some(_) if without >= reminder * DAY => {
                alerts.push(alert(AlertKind::Overdue, What::Reminder, self.overdue(now, &why())));
            }
            _ => {}
        }
        if raised.failing.is_none() && memory.failed_runs >= FAILURES {
            let last = memory.failure.as_ref().map_or("", |(_, why)| why.as_str());
            let text = format!("{} runs in a row failed, the last one: {last}", memory.failed_runs);
            alerts.push(alert(AlertKind::Failing, What::Raised, text));
        }
        let silent = now.wall - memory.last_seen.unwrap_or(self.plan.added);
        if late && raised.lost.is_none() && silent >= LOST_AFTER {
            let text = format!("nothing was heard of it for {}: it is dialled no more", units::about(silent));
            alerts.push(alert(AlertKind::Lost, What::Raised, text));
        }
        alerts
    }

    fn overdue(&self, now: Now, why: &str) -> String {
        let since = match self.last_success {
            Some(last) => format!("its newest snapshot is {} old", units::about(now.wall - last)),
            None => "it has no snapshot".to_owned(),
        };
        format!("{since}, although it was here for {}: {why}", units::about(self.memory.awake as i64))
    }

    /// Notes what was told.
    pub(super) fn told(&mut self, alerts: &[Alert], now: Now) {
        let raised = &mut self.memory.raised;
        for alert in alerts {
            match (alert.kind, alert.what) {
                (AlertKind::Overdue, What::Reminder) => raised.reminders += 1,
                (AlertKind::Overdue, _) => raised.overdue = Some(now.wall),
                (AlertKind::Failing, _) => raised.failing = Some(now.wall),
                (AlertKind::Lost, _) => raised.lost = Some(now.wall),
                (AlertKind::GroupSilent, _) => {}
            }
        }
    }

    /// A success clears what it answers; being heard clears being lost.
    pub(super) fn clear(&mut self, key: &ClientKey, by: ClearedBy, out: &mut Vec<Action>) {
        let raised = &mut self.memory.raised;
        let mut over = |was: &mut Option<i64>, kind, text: &str| {
            if was.take().is_some() {
                let subject = Subject::Client(*key);
                out.push(Action::Alert(Alert { kind, what: What::Cleared, subject, text: text.to_owned() }));
            }
        };
        over(&mut raised.lost, AlertKind::Lost, "it is back");
        if by == ClearedBy::Success {
            over(&mut raised.overdue, AlertKind::Overdue, "it has a new snapshot");
            over(&mut raised.failing, AlertKind::Failing, "it has a new snapshot");
            raised.reminders = 0;
        }
    }

    /// When [`Client::alerts`] may have something to say though nothing happens, in seconds since boot: it has stayed for
    /// long enough; an open alert is repeated; it is lost.
    pub(super) fn watch_at(&self, standing: Standing, now: Now) -> [Option<u64>; 3] {
        if !matches!(standing, Standing::Late { .. }) {
            return [None; 3];
        }
        let (memory, raised) = (&self.memory, &self.memory.raised);
        let wall = |at: i64| now.boot.saturating_add(u64::try_from(at - now.wall).unwrap_or(0));
        let left = self.plan.policy.alert_after.unsigned_abs().saturating_sub(memory.awake);
        let stays = (raised.overdue.is_none() && self.link.is_some()).then(|| now.boot + left.max(1));
        let reminder = REMINDERS.get(usize::from(raised.reminders)).filter(|_| raised.overdue.is_some());
        let reminder = reminder.map(|days| wall(self.last_success.unwrap_or(self.plan.added) + days * DAY));
        let seen = memory.last_seen.unwrap_or(self.plan.added);
        let lost = raised.lost.is_none().then(|| wall(seen.saturating_add(LOST_AFTER)));
        [stays, reminder, lost]
    }
}

/// How a client was here since it was last counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Here {
    /// On a standing link.
    Stays,
    /// It came by.
    Visits,
}

/// What clears alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClearedBy {
    /// A snapshot.
    Success,
    /// Any sign of life.
    Contact,
}

#[cfg(test)]
mod tests {
    use super::What;

    #[test]
    fn what_is_told_is_found_by_its_word() {
        for what in [What::Raised, What::Reminder, What::Cleared] {
            assert_eq!(what.as_str().parse(), Ok(what));
        }
        assert!("over".parse::<What>().is_err());
    }
}
