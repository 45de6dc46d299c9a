//! Whoever asks is answered, once, and on the connection that it asks on.

use backhaul_schedule::Action;
use backhaul_schedule::fleet::{Deferral, Why};

use crate::world::{DAY, Key, Session, World};

impl World {
    pub(super) fn check_asks(&mut self, key: &Key, session: Session, what: &str) {
        let asking = self.person(key).and_then(|person| person.asking);
        if asking != Some(session) {
            self.fail(4, format!("{what} for {session}, but {asking:?} asks"));
        }
    }

    pub(super) fn check_defer(&mut self, key: &Key, session: Session, deferral: &Deferral) {
        self.check_asks(key, session, "Defer");
        if deferral.after == 0 || deferral.after > 8 * DAY as u64 {
            self.fail(18, format!("comes back in {} s", deferral.after));
        }
        if deferral.why == Why::Running {
            self.fail(26, "is sent away because it is running".into());
        }
        self.change(key, |person| person.ghosts.extend(person.asking.take()));
    }

    /// Whoever asks is answered, in the same step.
    pub(super) fn check_answer(&mut self, (key, session): (Key, Session), actions: &[Action]) {
        let answers = |action: &&Action| match action {
            Action::Grant(to, on) | Action::Wait(to, on, _) | Action::Defer(to, on, _) => {
                (*to, *on) == (key, session)
            }
            _ => false,
        };
        let answers = actions.iter().filter(answers).count();
        if answers != 1 {
            self.fail(26, format!("{answers} answers to a request: {actions:?}"));
        }
    }
}
