//! What an event changes in the books before the server has answered.

use backhaul_schedule::Event;
use backhaul_schedule::fleet::{self, Via};

use super::person::Person;
use super::shape::{DAY, Key};
use super::world::World;

impl World {
    /// Enters an event into the books.
    pub fn enter(&mut self, event: &Event) {
        let now = self.now;
        match event {
            Event::Admission(admission) => self.admission = (**admission).clone(),
            Event::Serving(serving) => self.serving = *serving,
            Event::Removed(key) => self.people.retain(|person| person.key != *key),
            Event::Manual(key) => {
                self.with(key, |person| (person.manual, person.vain, person.spaced) = (true, 0, 0))
            }
            Event::NudgeWanted(key) => {
                self.with(key, |person| (person.nudge_wanted, person.manual) = (true, true))
            }
            Event::Contact(key, session, via, _) => self.with(key, |person| {
                person.newest = person.newest.max(*session);
                (person.not_now, person.spaced, person.came) = (None, 0, true);
                person.vain = person.vain.min(1);
                if *via == Via::Standing {
                    person.ghosts.extend(person.link.replace(*session));
                }
            }),
            Event::LinkLost(key, session) => self.with(key, |person| person.loses(*session, now.boot)),
            Event::Request(key, session, trigger, _) => self.with(key, |person| {
                person.newest = person.newest.max(*session);
                person.ghosts.extend(person.asking.replace(*session));
                person.manual |= *trigger == fleet::Trigger::Manual;
                person.resumes = *trigger == fleet::Trigger::Resume;
                person.nudge = None;
            }),
            Event::NudgeAnswered(key, id, fleet::NudgeAnswer::Needless) => self.with(key, |person| {
                person.nudge = person.nudge.filter(|nudge| nudge.id != *id);
            }),
            Event::Unwilling(key, no) => self.with(key, |person| {
                (person.not_now, person.nudge) = (Some(no.until), None);
                person.ghosts.extend(person.asking.take());
            }),
            Event::Dialled(key, result, session) => {
                self.with(key, |person| person.dialled(*result, *session, now.boot))
            }
            Event::Progress(key, session) => self.with(key, |person| person.progresses(*session, now.boot)),
            Event::Ended(key, session, outcome) => {
                self.with(key, |person| person.ends(*session, outcome, now))
            }
            Event::ClockJumped => {
                self.jumped = now.boot;
                // No refusal is for longer than a day.
                let sound = |until: &i64| *until <= now.wall + DAY;
                self.people.iter_mut().for_each(|person| person.not_now = person.not_now.filter(sound));
                // A snapshot from the future counts as made now.
                self.people.iter_mut().for_each(|person| {
                    person.last_success = person.last_success.map(|last| last.min(now.wall))
                });
            }
            Event::NudgeAnswered(..) | Event::Known(..) | Event::Recalled(..) | Event::Tick => {}
        }
    }

    fn with(&mut self, key: &Key, change: impl FnOnce(&mut Person)) {
        if let Some(person) = self.person(key) {
            change(person);
        }
    }
}
