//! Alerts: raised once, ended once, and only for a reason.

use backhaul_schedule::fleet::{Alert, AlertKind, Subject, What};

use crate::world::World;

impl World {
    pub(super) fn check_alert(&mut self, alert: &Alert) {
        match &alert.subject {
            Subject::Client(key) => {
                let Some(person) = self.person(key) else {
                    return self.fail(25, "an alert of nobody".into());
                };
                let raised = person.alerts.contains(&alert.kind);
                let succeeded = person.succeeded;
                match alert.what {
                    What::Raised => person.alerts.push(alert.kind),
                    What::Cleared => person.alerts.retain(|kind| *kind != alert.kind),
                    What::Reminder => {}
                }
                person.succeeded &= alert.what != What::Raised;
                if raised == (alert.what == What::Raised) {
                    self.fail(22, format!("{alert:?}, raised: {raised}"));
                }
                if alert.what == What::Cleared && alert.kind == AlertKind::Overdue && !succeeded {
                    self.fail(22, "an alert ends without a success".into());
                }
            }
            Subject::Group(group) => {
                let raised = self.dark.contains(group);
                match alert.what {
                    What::Raised => self.dark.push(group.clone()),
                    What::Cleared => self.dark.retain(|dark| dark != group),
                    What::Reminder => {}
                }
                if raised == (alert.what == What::Raised) {
                    self.fail(22, format!("{alert:?}, raised: {raised}"));
                }
            }
        }
    }
}
