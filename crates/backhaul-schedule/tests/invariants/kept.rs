//! What is written down after each step, and what a server that starts again has of it.

use backhaul_schedule::fleet::{Memory, Via};
use backhaul_schedule::{Action, Event};

use super::world::{Key, Session, Slot, World};

impl World {
    /// Writes down what the server says has changed: that must be all that has.
    pub fn keep(&mut self) {
        for key in self.fleet.take_dirty() {
            match self.fleet.memory(&key).cloned() {
                Some(memory) => drop(self.kept.insert(key, memory)),
                None => self.fail(25, format!("{key:?} is gone, and is to be written down")),
            }
        }
        let keys: Vec<Key> = self.people.iter().map(|person| person.key).collect();
        self.kept.retain(|key, _| keys.contains(key));
        for key in keys {
            let (kept, memory) = (self.kept(&key), self.fleet.memory(&key).cloned());
            if Some(&kept) != memory.as_ref() {
                self.fail(24, format!("a crash would forget that {memory:?}, it would be {kept:?}"));
            }
        }
    }

    pub fn kept(&self, key: &Key) -> Memory {
        self.kept.get(key).cloned().unwrap_or_default()
    }

    /// Whoever waits on a connection that a newer one takes the place of is told so.
    pub fn check_superseded(&mut self, superseded: &[(Key, Session)], actions: &[Action]) {
        for (key, session) in superseded {
            let told = |action: &Action| match action {
                Action::Close(of, on, _) | Action::Defer(of, on, _) => (of, on) == (key, session),
                _ => false,
            };
            if !actions.iter().any(told) {
                self.fail(5, format!("{session} is left open: {actions:?}"));
            }
        }
    }

    /// True while the client that an event removes is being dialled.
    pub fn is_dialled(&self, event: &Event) -> bool {
        let Event::Removed(key) = event else { return false };
        let person = self.people.iter().find(|person| person.key == *key);
        person.is_some_and(|person| person.knocked || person.slot == Slot::Dialling)
    }

    /// The connections that a newer one takes the place of.
    pub fn superseded(&self, event: &Event) -> Vec<(Key, Session)> {
        let person = |key: &Key| self.people.iter().find(|person| person.key == *key);
        let (key, newest, older) = match event {
            Event::Request(key, session, ..) => {
                let Some(person) = person(key) else { return Vec::new() };
                let runs = match person.slot {
                    Slot::Running { session, .. } => Some(session),
                    _ => None,
                };
                (key, session, [person.asking, runs])
            }
            Event::Contact(key, session, Via::Standing, _) => {
                (key, session, [person(key).and_then(|person| person.link), None])
            }
            _ => return Vec::new(),
        };
        older.into_iter().flatten().filter(|older| older != newest).map(|older| (*key, older)).collect()
    }
}
