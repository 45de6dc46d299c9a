//! One machine: who uses it, its agent, and what it is doing.

use std::collections::VecDeque;

use backhaul_agent::attend::{Attendant, Gate, Happening, Supply};
use backhaul_schedule::fleet::{ClientKey, Trigger};
use backhaul_schedule::policy::{AgentTerms, Metered};

use crate::case::{Case, HOUR};
use crate::day::{Place, Stretch};
use crate::lot::Lot;

/// Charge that a laptop loses in an hour. Assumed.
const DRAIN: f64 = 0.2;

/// What is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// On from 8 to 20 h.
    Desktop,
    /// Comes and goes.
    Laptop,
}

/// How a machine is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// A desktop.
    Desk,
    /// Three days of five in the office.
    Office,
    /// At home.
    Home,
    /// On the way.
    Road,
    /// Mostly in its bag.
    Bag,
}

/// A backup that is to be made, in parts if need be: what was sent is not sent again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Job {
    /// Its size, as a multiple of the median.
    pub size: f64,
    /// What is left of it, from 1 to 0.
    pub left: f64,
}

/// A run that is going on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// Its connection.
    pub session: u64,
    /// When it began, in ms.
    pub began: u64,
    /// When it last began or went on.
    pub since: u64,
    /// ms that it would still take from then.
    pub left: u64,
    /// It ends before that, by a failure.
    pub fails: bool,
    /// Its connection was lost then.
    pub cut: Option<u64>,
}

/// What the agent is doing about backups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Doing {
    /// Nothing.
    Nothing,
    /// Dialling to ask for a run.
    Calling {
        /// Why.
        trigger: Trigger,
        /// From its ticket.
        since: Option<i64>,
    },
    /// Waiting for a slot, on a connection.
    Asking {
        /// The connection.
        session: u64,
        /// For its ticket: seconds since 1970.
        since: i64,
    },
    /// A run.
    Running(Run),
}

/// The agent.
#[derive(Debug, Clone)]
pub enum Mind {
    /// Answers dials.
    Listens,
    /// Asks at fixed times.
    Polls,
    /// The real one.
    Attends(Box<Attendant>),
}

/// Whether a machine is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Power {
    /// It is off.
    Off,
    /// It sleeps.
    Asleep,
    /// It is awake; online if it is in a stretch.
    Awake,
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    /// Which.
    pub number: u64,
    /// For the scheduler.
    pub key: ClientKey,
    /// How it is used.
    pub habit: Habit,
    /// The network of its desk.
    pub floor: u64,
    /// No UDP passes its home's router.
    pub home_blocked: bool,
    /// Its own randomness: the same days in every arm.
    pub lot: Lot,
    /// The randomness of its runs.
    pub runs: Lot,
    /// What is left of the day.
    pub ahead: VecDeque<Stretch>,
    /// Is it on?
    pub power: Power,
    /// Where it is online.
    pub online: Option<Stretch>,
    /// Counts comings and goings, so that what was planned for another stretch is known.
    pub turn: u64,
    /// Its agent.
    pub mind: Mind,
    /// Which agent process it is: the number of boots.
    pub boots: u64,
    /// When its agent wants to be woken.
    pub tick_at: Option<u64>,
    /// Its dial that is under way, and the server's to it: only the newest counts.
    pub dial: u64,
    /// See [`Machine::dial`].
    pub dialled: u64,
    /// The way to the server was lost then.
    pub lost: Option<u64>,
    /// Its network flaps, and is away just now.
    pub flapped: bool,
    /// Until when its time online was counted, and whether it has been willing since.
    pub counted: u64,
    /// See [`Machine::counted`].
    pub willing: bool,
    /// A standing link, and since when.
    pub link: Option<(u64, u64)>,
    /// The agent has not noticed yet that its link is gone.
    pub link_dead: bool,
    /// What it is doing.
    pub doing: Doing,
    /// Changes with it.
    pub doing_turn: u64,
    /// What its agent hears when it wakes.
    pub unheard: Vec<Happening>,
    /// The backup that is to be made.
    pub job: Option<Job>,
    /// Runs fail until then: something has to be put right by hand.
    pub broken_until: u64,
    /// When it appears at all, in ms.
    pub added: u64,
    /// True time of its newest snapshot in ms; before the beginning is negative.
    pub success: Option<i64>,
    /// The same as the scheduler knows it, seconds since 1970 by the server's clock.
    pub recorded: Option<i64>,
    /// Since when it is due and has been online: the start, and the snapshot, that are waited for.
    pub ready: Option<u64>,
    /// The same, until the run begins.
    pub unstarted: Option<u64>,
    /// The group that the server knows.
    pub known_place: Option<Place>,
}

impl Machine {
    /// What is counted together with it.
    pub fn class(&self) -> Class {
        if self.habit == Habit::Desk { Class::Desktop } else { Class::Laptop }
    }

    /// Charge now; none on mains.
    pub fn charge(&self, now: u64) -> Option<f64> {
        let stretch = self.online?;
        let hours = now.saturating_sub(stretch.from) as f64 / HOUR as f64;
        stretch.battery.map(|at_begin| (at_begin - DRAIN * hours).max(0.0))
    }

    /// Moments of this stretch at which a gate may shut.
    pub fn gate_times(&self, terms: &AgentTerms) -> Vec<u64> {
        let Some((stretch, charge)) = self.online.and_then(|stretch| Some((stretch, stretch.battery?)))
        else {
            return Vec::new();
        };
        let bounds = [terms.battery_min, terms.battery_min_late].map(|percent| f64::from(percent) / 100.0);
        let times = bounds.into_iter().filter(|bound| charge > *bound).map(|bound| {
            let hours = (charge - bound) / DRAIN;
            stretch.from + (hours * HOUR as f64) as u64 + 1_000
        });
        times.filter(|at| *at < stretch.to).collect()
    }

    /// Whether it is willing: the agent's terms applied to what is modelled of it.
    pub fn gate(&self, terms: &AgentTerms, lateness: f64, now: u64) -> Gate {
        let shut = |reason: &str| Gate::Shut { reason: reason.to_owned(), until: None };
        let least = if lateness >= 2.0 { terms.battery_min_late } else { terms.battery_min };
        let pays = match terms.metered {
            Metered::Never => false,
            Metered::WhenLate => lateness >= 2.0,
            Metered::Always => true,
        };
        match self.online {
            Some(stretch) if stretch.place.metered && !pays => shut("metered network"),
            Some(_) if self.charge(now).is_some_and(|charge| charge < f64::from(least) / 100.0) => {
                shut("battery")
            }
            _ => Gate::Open,
        }
    }

    /// Where its power comes from.
    pub fn supply(&self) -> Supply {
        match self.online {
            Some(Stretch { battery: Some(_), .. }) => Supply::Battery,
            _ => Supply::Mains,
        }
    }

    /// Hours since its newest snapshot, or since it was added.
    pub fn staleness(&self, now: u64) -> f64 {
        (now as i64 - self.success.unwrap_or(self.added as i64)) as f64 / HOUR as f64
    }
}

/// All machines of a case. Their number decides their habit; the seed everything else.
pub fn all(case: &Case, seed: u64) -> Vec<Machine> {
    (0..case.machines() as u64).map(|number| one(case, seed, number)).collect()
}

fn one(case: &Case, seed: u64, number: u64) -> Machine {
    let mut lot = Lot::new(seed, 2 * number);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&lot.roll().to_le_bytes());
    key[8..].copy_from_slice(&number.to_le_bytes());
    let desktops = case.desktops as u64;
    let share = number.saturating_sub(desktops) as f64 / case.laptops.max(1) as f64;
    let habit = match share {
        _ if number < desktops => Habit::Desk,
        share if share < 0.45 => Habit::Office,
        share if share < 0.75 => Habit::Home,
        share if share < 0.90 => Habit::Road,
        _ => Habit::Bag,
    };
    // One in twenty is new, and appears in the first half; the others were backed up within the day before.
    let new = lot.chance(0.05);
    let added = if new { (lot.unit() * f64::from(case.days) * 0.5) as u64 * 24 * HOUR } else { 0 };
    let success = (!new).then(|| -(lot.between(3.0, 24.0) * HOUR as f64) as i64);
    Machine {
        number,
        key,
        habit,
        floor: 100 + number / 50,
        home_blocked: lot.chance(case.blocked),
        lot,
        runs: Lot::new(seed, 2 * number + 1),
        ahead: VecDeque::new(),
        power: Power::Off,
        online: None,
        turn: 0,
        mind: Mind::Listens,
        boots: 0,
        tick_at: None,
        dial: 0,
        dialled: 0,
        lost: None,
        flapped: false,
        counted: 0,
        willing: false,
        link: None,
        link_dead: false,
        doing: Doing::Nothing,
        doing_turn: 0,
        unheard: Vec::new(),
        job: None,
        broken_until: 0,
        added,
        success,
        recorded: None,
        ready: None,
        unstarted: None,
        known_place: None,
    }
}
