//! A world with its own books about every client: what the server ought to know, kept apart from what it does.

use std::collections::BTreeMap;
use std::sync::Arc;

use backhaul_schedule::due::{self, Record, Standing};
use backhaul_schedule::fleet::{self, Memory, OpenRun, Outcome, Plan, Serving, Via};
use backhaul_schedule::policy::{Admission, Group, Initiator, Policies, Policy, Window};
use backhaul_schedule::reach::{DialResult, HasBattery, Mode, Nat, Sighting};
use backhaul_schedule::{Event, Fleet, Now};
use jiff::civil::time;
use jiff::tz::TimeZone;

pub type Key = fleet::ClientKey;
pub type Session = fleet::Session;

/// How many different clients there are.
pub const CLIENTS: u8 = 7;
pub const HOUR: i64 = 3_600;
pub const DAY: i64 = 24 * HOUR;
/// A Wednesday in May 2026.
pub const START: i64 = 1_780_000_000;

pub fn key(i: u8) -> Key {
    let mut key = [0; 16];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = i.wrapping_mul(151).wrapping_add((at as u8).wrapping_mul(29));
    }
    key[15] = i;
    key
}

pub fn sighting() -> Sighting {
    Sighting { network: 7, nat: Nat::No, power: HasBattery::No }
}

pub fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

/// What can differ from client to client.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub mode: u8,
    pub address: bool,
    pub group: u8,
    pub vault: u8,
    pub window: u8,
    pub period: u8,
    pub pause: Option<i64>,
}

impl Shape {
    pub fn plan(&self, added: i64) -> Plan {
        let mode = [Mode::Server, Mode::Client, Mode::Hybrid];
        let initiator =
            mode.get(usize::from(self.mode)).map_or(Initiator::Auto, |mode| Initiator::Fixed(*mode));
        Plan {
            policy: Arc::new(self.policy()),
            initiator,
            has_address: self.address,
            group: group(self.group),
            vault: ["first", "second"][usize::from(self.vault % 2)].into(),
            paused_until: self.pause,
            added,
        }
    }

    fn policy(&self) -> Policy {
        let window = |from, to| Window {
            from: time(from, 0, 0, 0),
            to: time(to, 0, 0, 0),
            zone: berlin(),
            of_client: false,
        };
        let window = [None, Some(window(22, 6)), Some(window(8, 20))][usize::from(self.window % 3)].clone();
        let period = [DAY, 4 * HOUR][usize::from(self.period % 2)];
        Policy { window, period, rpo: period * 3 / 2, spread: HOUR, ..Policy::default() }
    }
}

/// Two that have a name, two that are behind one public address each.
pub fn group(i: u8) -> Group {
    match i % 4 {
        0 => Group::named("lab"),
        1 => Group::named("office"),
        i => Policies::default().group(std::net::Ipv4Addr::new(8, 8, i, 1).into()),
    }
}

/// Whether a client has a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    None,
    Dialling,
    Running { session: Session, heard: u64 },
    Interrupted { since: u64 },
}

/// A nudge that may still bring a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nudged {
    pub id: u64,
    pub at: u64,
    pub asked_for: bool,
}

/// One client in the books.
#[derive(Debug, Clone)]
pub struct Person {
    pub key: Key,
    pub shape: Shape,
    pub plan: Plan,
    pub last_success: Option<i64>,
    pub link: Option<Session>,
    pub asking: Option<Session>,
    pub slot: Slot,
    /// Where its slot is counted: a client that moves takes it along only with its next run.
    pub counted: (Group, Arc<str>),
    /// It has come by itself, and takes over the slot of the dial that is given up for it.
    pub takes_over: bool,
    /// Its request goes on with a run that was cut.
    pub resumes: bool,
    /// Somebody wants a run, since the last success.
    pub manual: bool,
    pub nudge_wanted: bool,
    pub not_now: Option<i64>,
    pub failed_at: Option<u64>,
    pub knocked: bool,
    /// Dials in a row that it has not answered, and before when it is not dialled again, seconds since boot.
    pub vain: u32,
    pub spaced: u64,
    /// It has come by itself while it is being dialled.
    pub came: bool,
    pub nudge: Option<Nudged>,
    /// All of them, by seconds since boot.
    pub nudges: Vec<Nudged>,
    pub last_seen: Option<i64>,
    /// Connections it once had.
    pub ghosts: Vec<Session>,
    pub newest: Session,
    /// Alerts that are raised.
    pub alerts: Vec<fleet::AlertKind>,
    pub succeeded: bool,
}

impl Person {
    pub fn record(&self) -> Record {
        Record { offset: fleet::offset(&self.key), last_success: self.last_success, added: self.plan.added }
    }

    pub fn standing(&self, now: Now) -> Standing {
        due::standing(&self.plan.policy, &self.record(), now.wall)
    }

    pub fn holds(&self) -> bool {
        self.slot != Slot::None
    }
}

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
        let key = key(i);
        if self.person(&key).is_none() {
            let plan = shape.plan(self.now.wall - DAY);
            let counted = (plan.group.clone(), plan.vault.clone());
            self.people.push(Person {
                key,
                shape,
                plan,
                last_success: age.map(|age| self.now.wall - age),
                link: None,
                asking: None,
                slot: Slot::None,
                counted,
                takes_over: false,
                resumes: false,
                manual: false,
                nudge_wanted: false,
                not_now: None,
                failed_at: None,
                knocked: false,
                vain: 0,
                spaced: 0,
                came: false,
                nudge: None,
                nudges: Vec::new(),
                last_seen: None,
                ghosts: Vec::new(),
                newest: 0,
                alerts: Vec::new(),
                succeeded: false,
            });
        }
        let Some(person) = self.person(&key) else { return };
        (person.shape, person.plan) = (shape, shape.plan(person.plan.added));
        let (plan, last) = (person.plan.clone(), person.last_success);
        self.happen(Event::Known(key, Box::new(plan), last));
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
            (person.nudge, person.knocked, person.manual, person.nudge_wanted) = (None, false, false, false);
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

    /// What an event changes in the books before the server has answered.
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

impl Person {
    pub fn loses(&mut self, session: Session, boot: u64) {
        self.link = self.link.filter(|link| *link != session);
        self.asking = self.asking.filter(|asking| *asking != session);
        if matches!(self.slot, Slot::Running { session: running, .. } if running == session) {
            self.slot = Slot::Interrupted { since: boot };
        }
    }

    fn dialled(&mut self, result: DialResult, session: Option<Session>, boot: u64) {
        if self.knocked || self.slot == Slot::Dialling {
            self.spaces(result, boot);
        }
        if std::mem::take(&mut self.knocked) && result != DialResult::Answered {
            self.nudge = None;
        }
        if self.slot != Slot::Dialling {
            return;
        }
        self.slot = match (result, session) {
            (DialResult::Answered, Some(session)) => {
                self.newest = self.newest.max(session);
                Slot::Running { session, heard: boot }
            }
            (DialResult::Answered, None) => {
                self.failed_at = Some(boot);
                Slot::None
            }
            _ => Slot::None,
        };
    }

    /// A dial's result says when there may be another.
    fn spaces(&mut self, result: DialResult, boot: u64) {
        let pause = match result {
            DialResult::Answered => {
                (self.vain, self.spaced) = (0, 0);
                return;
            }
            DialResult::Stranger => DAY as u64,
            // It may have been starting.
            _ if self.came => {
                self.spaced = boot + 5;
                return;
            }
            DialResult::Refused | DialResult::Silent => (30 << self.vain.min(16)).min(7_200) / 2,
        };
        (self.vain, self.spaced) = (self.vain + 1, boot + pause);
    }

    fn progresses(&mut self, of: Session, boot: u64) {
        if let Slot::Running { session, heard } = &mut self.slot
            && *session == of
        {
            *heard = boot;
        }
    }

    fn ends(&mut self, of: Session, outcome: &Outcome, now: Now) {
        if !matches!(self.slot, Slot::Running { session, .. } if session == of) {
            return;
        }
        self.slot = Slot::None;
        (self.vain, self.spaced) = (0, 0);
        self.ghosts.push(of);
        match outcome {
            Outcome::Succeeded { at, .. } => {
                self.last_success = self.last_success.max(Some((*at).min(now.wall)));
                (self.manual, self.nudge_wanted, self.succeeded, self.failed_at) = (false, false, true, None);
            }
            Outcome::Failed { .. } => self.failed_at = Some(now.boot),
            Outcome::NotNow(no) => self.not_now = Some(no.until),
        }
    }
}
