//! A world with its own books about every client: what the server ought to know, kept apart from what it does.

use std::collections::BTreeMap;

use backhaul_schedule::fleet::{Memory, OpenRun, Plan, Serving};
use backhaul_schedule::policy::{Admission, Group};
use backhaul_schedule::{Event, Fleet, Now};

pub use super::person::{Nudged, Person, Slot};
pub use super::shape::{CLIENTS, DAY, HOUR, Key, START, Session, Shape, group, key, sighting};

/// All of it.
#[derive(Debug, Clone)]
pub struct World {
    pub fleet: Fleet,
    pub now: Now,
    pub admission: Admission,
    pub serving: Serving,
    pub people: Vec<Person>,
    pub session: Session,
    /// When the clock last jumped.
    pub jumped: u64,
    /// Group alerts that are raised.
    pub dark: Vec<Group>,
    /// Promises that were broken: their numbers, and how.
    pub broken: Vec<(u8, String, usize)>,
    pub log: Vec<String>,
    /// What is written down of the clients.
    pub kept: BTreeMap<Key, Memory>,
}

impl World {
    pub fn new(admission: Admission) -> Self {
        Self {
            fleet: Fleet::new(admission.clone()),
            now: Now { boot: 1_000, wall: START },
            admission,
            serving: Serving::Open,
            people: Vec::new(),
            session: 0,
            jumped: 0,
            dark: Vec::new(),
            broken: Vec::new(),
            log: Vec::new(),
            kept: BTreeMap::new(),
        }
    }

    pub fn next_session(&mut self) -> Session {
        self.session += 1;
        self.session
    }

    pub fn person(&mut self, key: &Key) -> Option<&mut Person> {
        self.people.iter_mut().find(|person| person.key == *key)
    }

    /// Those that hold a slot, of whom something is true.
    pub fn held(&self, of: impl Fn(&Person) -> bool) -> usize {
        self.people.iter().filter(|person| person.holds() && of(person)).count()
    }

    pub fn in_flight(&self) -> usize {
        self.people.iter().filter(|person| person.knocked || person.slot == Slot::Dialling).count()
    }

    pub fn group_cap(&self, group: &Group) -> usize {
        let named = self.admission.per_group.get(group.name()).copied();
        named.unwrap_or(if group.is_remote() { self.admission.default_remote } else { usize::MAX })
    }

    pub fn vault_cap(&self, vault: &str) -> usize {
        self.admission.per_vault.get(vault).copied().unwrap_or(usize::MAX)
    }

    pub fn fail(&mut self, promise: u8, how: String) {
        let at = self.log.len();
        self.broken.push((promise, format!("step {at} at {:?}: {how}", self.now), at));
    }

    /// Adds a client, or edits it.
    pub fn know(&mut self, i: u8, shape: Shape, age: Option<i64>) {
        let (key, now) = (key(i), self.now);
        if self.person(&key).is_none() {
            let person = Person::new(key, shape, (self.now, age));
            self.people.push(person);
        }
        let Some(person) = self.person(&key) else { return };
        let was_paused = person.is_paused(now);
        (person.shape, person.plan) = (shape, shape.plan(person.plan.added));
        let (plan, last) = (person.plan.clone(), person.last_success);
        let pause_begins = person.is_paused(now) && !was_paused;
        self.happen(Event::Known(key, Box::new(plan), last));
        let goes_on = |slot| matches!(slot, Slot::Running { .. } | Slot::Interrupted { .. });
        if pause_begins && self.person(&key).is_some_and(|person| goes_on(person.slot)) {
            self.fail(9, "a run goes on in a pause that has just begun".into());
        }
    }

    /// The server is killed and starts again: all that it has is what it kept, and which runs were open.
    pub fn crash(&mut self) {
        let kept: Vec<(Key, Memory)> =
            self.people.iter().map(|person| (person.key, self.kept(&person.key))).collect();
        self.fleet = Fleet::new(self.admission.clone());
        self.now.boot += 1;
        self.dark.clear();
        let mut open = Vec::new();
        for (person, (key, memory)) in self.people.iter_mut().zip(&kept) {
            let json = serde_json::to_string(memory).unwrap();
            let memory: Memory = serde_json::from_str(&json).unwrap();
            person.not_now = memory.not_now.as_ref().map(|no| no.until);
            person.ghosts.extend(person.link.take());
            person.ghosts.extend(person.asking.take());
            person.nudges.clear();
            (person.vain, person.spaced) = (0, 0);
            // That somebody wants it nudged is kept; what was begun because of it is not.
            (person.nudge, person.knocked, person.manual) = (None, false, false);
            let plan = person.plan.clone();
            let run = match person.slot {
                Slot::Running { .. } | Slot::Interrupted { .. } => OpenRun::Yes,
                Slot::None | Slot::Dialling => OpenRun::No,
            };
            if let Slot::Running { session, .. } = person.slot {
                person.ghosts.push(session);
            }
            person.slot = Slot::None;
            open.push((*key, plan, memory, run, person.last_success));
        }
        // What was open is told before anything may start.
        let serving = self.serving;
        self.quietly(Event::Serving(Serving::Draining));
        for (key, plan, memory, run, last) in open {
            self.recall(key, plan, memory, run, last);
        }
        self.happen(Event::Serving(serving));
    }

    fn recall(&mut self, key: Key, plan: Plan, memory: Memory, run: OpenRun, last: Option<i64>) {
        let since = self.now.boot;
        self.quietly(Event::Recalled(key, Box::new(memory), run));
        if let Some(person) = self.person(&key)
            && run == OpenRun::Yes
        {
            person.slot = Slot::Interrupted { since };
            person.counted = (person.plan.group.clone(), person.plan.vault.clone());
        }
        self.quietly(Event::Known(key, Box::new(plan), last));
    }

    /// Lets time pass, and the server be woken whenever it wants.
    pub fn pass(&mut self, seconds: u64) {
        let until = self.now.boot + seconds;
        for _ in 0..200 {
            let Some(at) = self.fleet.next_deadline().filter(|at| *at <= until) else { break };
            if at <= self.now.boot {
                self.happen(Event::Tick);
                if self.fleet.next_deadline().is_some_and(|next| next <= self.now.boot) {
                    self.fail(28, format!("a timer at {at} stays when its time has come"));
                    break;
                }
                continue;
            }
            self.advance(at - self.now.boot);
            self.happen(Event::Tick);
        }
        self.advance(until.saturating_sub(self.now.boot));
        self.happen(Event::Tick);
    }

    pub fn advance(&mut self, seconds: u64) {
        self.now = Now { boot: self.now.boot + seconds, wall: self.now.wall + seconds as i64 };
    }
}
