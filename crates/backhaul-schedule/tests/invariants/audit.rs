//! What the books make of the server's actions: each promise that an action or its absence breaks is written down.

use backhaul_schedule::fleet::Why;
use backhaul_schedule::{Action, Event};

use super::world::{Key, Person, World};

mod alerts;
mod answers;
mod books;
mod ends;
mod nudges;
mod starts;

impl World {
    /// One step: the event is entered into the books, then what the server does is held against them.
    pub fn happen(&mut self, event: Event) {
        let before = self.lateness();
        let seen: Vec<_> = self.people.iter().map(|person| (person.key, person.last_seen)).collect();
        let superseded = self.superseded(&event);
        let dialled = self.is_dialled(&event);
        self.enter(&event);
        let asks = match &event {
            Event::Request(key, session, ..) if self.person(key).is_some() => Some((*key, *session)),
            _ => None,
        };
        let actions = self.fleet.step(self.now, event.clone());
        self.note(&event, &actions);
        for action in &actions {
            self.check(action, &event);
        }
        self.people.iter_mut().for_each(|person| person.takes_over = false);
        if let Some(asks) = asks {
            self.check_answer(asks, &actions);
        }
        self.check_superseded(&superseded, &actions);
        if let Event::Removed(key) = &event {
            self.check_removed(key, &actions);
            if dialled && !actions.contains(&Action::CancelDial(*key)) {
                self.fail(25, "goes on dialling a client that is gone".into());
            }
        }
        self.check_books(&event);
        self.check_shown();
        self.check_memory(&event, &before, &seen);
        self.keep();
        if self.now.boot > self.jumped {
            self.check_nobody_is_left();
        }
    }

    /// A step of a server that does not know all of its clients yet.
    pub fn quietly(&mut self, event: Event) {
        self.enter(&event);
        let actions = self.fleet.step(self.now, event.clone());
        self.note(&event, &actions);
        actions.iter().for_each(|action| self.check(action, &event));
    }

    fn note(&mut self, event: &Event, actions: &[Action]) {
        let event = match event {
            Event::Known(key, plan, last) => {
                format!(
                    "Known({key:?}, {:?}, {}, {:?}, {last:?})",
                    plan.initiator, plan.group, plan.policy.window
                )
            }
            Event::Recalled(key, _, run) => format!("Recalled({key:?}, {run:?})"),
            event => format!("{event:?}"),
        };
        self.log.push(format!("{} {} {event} -> {actions:?}", self.now.boot, self.now.wall));
    }

    fn lateness(&self) -> Vec<(Key, f64)> {
        self.people.iter().map(|person| (person.key, self.fleet.lateness(self.now, &person.key))).collect()
    }

    fn check(&mut self, action: &Action, event: &Event) {
        match action {
            Action::Dial(key) => self.check_dial(key, event),
            Action::Knock(key, nudge) => {
                self.check_nudge(key, *nudge, None);
                self.check_reaching(key);
                self.change(key, |person| person.knocked = true);
                self.check_in_flight();
            }
            Action::CancelDial(key) => self.cancelled(key),
            Action::Grant(key, session) => self.check_grant(key, *session, event),
            Action::Wait(key, session, place) => {
                self.check_asks(key, *session, "Wait");
                if place.why == Why::Running {
                    self.fail(26, "waits because it is running".into());
                }
            }
            Action::Defer(key, session, deferral) => self.check_defer(key, *session, deferral),
            Action::Nudge(key, session, nudge) => self.check_nudge(key, *nudge, Some(*session)),
            Action::Expire(key) => self.check_expire(key),
            Action::Close(key, session, reason) => self.check_close(key, *session, *reason),
            Action::Alert(alert) => self.check_alert(alert),
        }
    }

    fn change(&mut self, key: &Key, change: impl FnOnce(&mut Person)) {
        if let Some(person) = self.person(key) {
            change(person);
        }
    }
}
