//! The mode of a client whose policy says `auto`: it follows the recommendation slowly, so that nobody sees it
//! change back and forth.
//!
//! A mode is changed after 7 days that all recommend the same other one; `server` is lost after 3 days that do not
//! recommend it (BackupPC: 7 good days to gain, 3 bad to lose). A provisional mode is replaced as soon as enough is
//! known. Between two changes are never less than 3 days.

use serde::{Deserialize, Serialize};

use super::days::day_of;
use super::{Mode, Recommendation};

/// Days in a row that recommend a mode before it is taken.
const TO_GAIN: u8 = 7;
/// Days in a row that do not recommend `server` before it is lost; also the least between two changes.
const TO_LOSE: u8 = 3;

/// What a mode rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Basis {
    Guess,
    Data,
}

/// A change of mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What it was.
    pub from: Mode,
    /// What it is.
    pub to: Mode,
}

/// A change that is being thought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// What it would be.
    pub to: Mode,
    /// Days in a row that speak for it.
    pub days: u8,
    /// Days that it takes.
    pub needed: u8,
}

/// The mode in force, and what speaks against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auto {
    mode: Mode,
    basis: Basis,
    /// What was recommended instead on the last days, and on how many.
    candidate: Option<Mode>,
    against: u8,
    /// The day of the last evaluation that counted, and of the last change; 0 for none.
    looked: u32,
    changed: u32,
}

impl Auto {
    /// Begins with what is recommended for a client that is new.
    pub fn begin(first: &Recommendation) -> Self {
        let basis = if first.provisional { Basis::Guess } else { Basis::Data };
        Self { mode: first.mode, basis, candidate: None, against: 0, looked: 0, changed: 0 }
    }

    /// The mode in force.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What it may become, if the days to come agree.
    pub fn pending(&self) -> Option<Pending> {
        self.candidate.map(|to| Pending { to, days: self.against, needed: self.needed() })
    }

    /// Takes note of a recommendation, as often as one likes: one a day counts. Returns the change if there is one.
    pub fn consider(&mut self, now: i64, says: &Recommendation) -> Option<Change> {
        let today = day_of(now);
        // A clock that was set back must not hold up everything until it has caught up.
        self.changed = self.changed.min(today);
        match self.basis {
            Basis::Guess => self.replace_guess(today, says),
            // Less is known than was: no reason to change anything.
            Basis::Data if says.provisional => None,
            Basis::Data => self.count(today, says.mode),
        }
    }

    fn replace_guess(&mut self, today: u32, says: &Recommendation) -> Option<Change> {
        let soon = self.changed > 0 && today - self.changed < u32::from(TO_LOSE);
        if says.mode != self.mode && soon {
            return None;
        }
        if !says.provisional {
            (self.basis, self.looked) = (Basis::Data, today);
        }
        (says.mode != self.mode).then(|| self.change(today, says.mode))
    }

    fn count(&mut self, today: u32, says: Mode) -> Option<Change> {
        let passed = today > self.looked;
        if !passed {
            self.looked = self.looked.min(today);
            return None;
        }
        self.looked = today;
        if says == self.mode {
            (self.candidate, self.against) = (None, 0);
            return None;
        }
        // Whatever is not `server` speaks against `server`; a gain must be the same on all days.
        let goes_on = self.candidate == Some(says) || self.mode == Mode::Server;
        self.against = if goes_on { self.against.saturating_add(1) } else { 1 };
        self.candidate = Some(says);
        (self.against >= self.needed()).then(|| self.change(today, says))
    }

    fn needed(&self) -> u8 {
        if self.mode == Mode::Server { TO_LOSE } else { TO_GAIN }
    }

    fn change(&mut self, today: u32, to: Mode) -> Change {
        let change = Change { from: self.mode, to };
        (self.mode, self.changed, self.candidate, self.against) = (to, today, None, 0);
        change
    }
}
