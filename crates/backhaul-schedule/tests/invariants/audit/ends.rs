//! What the server ends or lets go of: runs that were cut or have stalled, connections, clients that are gone.

use backhaul_schedule::Action;
use backhaul_schedule::fleet::{CloseReason, LEASE, RESUME_GRACE, Why};

use crate::world::{Key, Session, Slot, World};

impl World {
    pub(super) fn check_expire(&mut self, key: &Key) {
        let boot = self.now.boot;
        let now = self.now;
        let slot = self.person(key).map(|person| person.slot);
        match slot {
            // A pause waits for nobody.
            Some(Slot::Interrupted { .. })
                if self.person(key).is_some_and(|person| person.is_paused(now)) => {}
            Some(Slot::Interrupted { since }) if boot >= since + RESUME_GRACE => {}
            slot => self.fail(19, format!("expires a run that is {slot:?}")),
        }
        self.change(key, |person| (person.slot, person.failed_at) = (Slot::None, Some(boot)));
    }

    pub(super) fn check_close(&mut self, key: &Key, session: Session, reason: CloseReason) {
        let (boot, now) = (self.now.boot, self.now);
        let Some(person) = self.person(key) else { return };
        let runs = matches!(person.slot, Slot::Running { session: running, .. } if running == session);
        match (reason, person.slot) {
            (CloseReason::Stalled, Slot::Running { heard, .. }) if runs => {
                (person.slot, person.failed_at) = (Slot::None, Some(boot));
                person.ghosts.push(session);
                if boot < heard + LEASE {
                    self.fail(19, format!("a lease ends {} s after its run was heard", boot - heard));
                }
            }
            (CloseReason::Stalled, slot) => self.fail(3, format!("{session} has stalled, but is {slot:?}")),
            (CloseReason::Paused { until }, Slot::Running { .. }) if runs => {
                let paused = person.is_paused(now) && person.plan.paused_until == Some(until);
                (person.slot, person.failed_at) = (Slot::None, Some(boot));
                person.ghosts.push(session);
                if !paused {
                    self.fail(9, format!("ends a run for a pause until {until} that there is not"));
                }
            }
            (CloseReason::Paused { .. }, slot) => {
                self.fail(3, format!("{session} is ended for a pause, but is {slot:?}"));
            }
            (CloseReason::Superseded, _) => {
                if session >= person.newest {
                    self.fail(5, format!("closes {session}, the newest"));
                }
                self.change(key, |person| person.loses(session, boot));
            }
        }
    }

    pub(super) fn check_removed(&mut self, key: &Key, actions: &[Action]) {
        let calm = self.now.boot > self.jumped;
        if self.people.is_empty() && calm && self.fleet.next_deadline().is_some() {
            self.fail(25, "a timer is left of clients that are gone".into());
        }
        if self.fleet.explain(self.now, key) != Why::Unknown || self.fleet.memory(key).is_some() {
            self.fail(25, "something is left of a client that is gone".into());
        }
        if actions.iter().any(|action| matches!(action, Action::Grant(of, _) | Action::Dial(of) if of == key))
        {
            self.fail(25, "starts a client that is gone".into());
        }
    }
}
