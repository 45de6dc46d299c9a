//! One client in the books: what the server ought to know of it.

use std::sync::Arc;

use backhaul_schedule::Now;
use backhaul_schedule::due::{self, Record, Standing};
use backhaul_schedule::fleet::{self, Outcome, Plan};
use backhaul_schedule::policy::Group;
use backhaul_schedule::reach::DialResult;

use super::shape::{DAY, Key, Session, Shape};

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
    /// One that has just been added.
    pub fn new(key: Key, shape: Shape, (now, age): (Now, Option<i64>)) -> Self {
        let plan = shape.plan(now.wall - DAY);
        let counted = (plan.group.clone(), plan.vault.clone());
        Self {
            key,
            shape,
            plan,
            last_success: age.map(|age| now.wall - age),
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
        }
    }

    pub fn record(&self) -> Record {
        Record { offset: fleet::offset(&self.key), last_success: self.last_success, added: self.plan.added }
    }

    pub fn standing(&self, now: Now) -> Standing {
        due::standing(&self.plan.policy, &self.record(), now.wall)
    }

    pub fn holds(&self) -> bool {
        self.slot != Slot::None
    }

    pub fn is_paused(&self, now: Now) -> bool {
        self.plan.paused_until.is_some_and(|until| now.wall < until)
    }

    pub fn loses(&mut self, session: Session, boot: u64) {
        self.link = self.link.filter(|link| *link != session);
        self.asking = self.asking.filter(|asking| *asking != session);
        if matches!(self.slot, Slot::Running { session: running, .. } if running == session) {
            self.slot = Slot::Interrupted { since: boot };
        }
    }

    pub fn dialled(&mut self, result: DialResult, session: Option<Session>, boot: u64) {
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

    pub fn progresses(&mut self, of: Session, boot: u64) {
        if let Slot::Running { session, heard } = &mut self.slot
            && *session == of
        {
            *heard = boot;
        }
    }

    pub fn ends(&mut self, of: Session, outcome: &Outcome, now: Now) {
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
            Outcome::Failed { .. } | Outcome::CutShort => self.failed_at = Some(now.boot),
            Outcome::Aside => {}
            Outcome::NotNow(no) => self.not_now = Some(no.until),
        }
    }
}
