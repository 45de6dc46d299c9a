//! A machine's day: when it is awake and where. Shares and shapes are docs/scheduling-simulation.md's table.

use crate::case::{Case, HOUR, MINUTE};
use crate::machine::{Habit, Machine};
use crate::mishap::Mishap;

/// Laptops are shut by then, so that no stretch is of two days.
const BED: f64 = 23.4;

/// How a machine reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// The office's own network.
    Lan,
    /// From home by VPN: it can be dialled.
    Vpn,
    /// From behind a router.
    Nat,
}

/// Where a machine is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// How it reaches the server.
    pub net: Net,
    /// No UDP passes.
    pub blocked: bool,
    /// It costs money.
    pub metered: bool,
    /// Which network; for fingerprints.
    pub id: u64,
}

/// A stretch of being online.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretch {
    /// From, in ms.
    pub from: u64,
    /// To, in ms.
    pub to: u64,
    /// Where.
    pub place: Place,
    /// Charge at the beginning, from 0 to 1; none on mains.
    pub battery: Option<f64>,
    /// What comes after it.
    pub then: Then,
}

/// What a machine does when it goes offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is shut down.
    Off,
    /// It sleeps.
    Sleeps,
    /// It stays awake and has no network.
    Lonely,
}

/// The stretches of one machine on one local day.
pub fn day(case: &Case, machine: &mut Machine, day: u32) -> Vec<Stretch> {
    match machine.habit {
        Habit::Desk => desktop(case, machine, day),
        _ => laptop(case, machine, day),
    }
}

fn desktop(case: &Case, machine: &mut Machine, day: u32) -> Vec<Stretch> {
    let lot = &mut machine.lot;
    let (from, to) = (lot.between(-5.0, 5.0), lot.between(-5.0, 5.0));
    if !lot.chance(0.98) {
        return Vec::new();
    }
    let place = Place { net: Net::Lan, blocked: false, metered: false, id: machine.floor };
    let (from, to) = (case.local(day, 8.0 + from / 60.0), case.local(day, 20.0 + to / 60.0));
    vec![Stretch { from, to, place, battery: None, then: Then::Off }]
}

/// When and where somebody is at work, and in the evening.
fn laptop(case: &Case, machine: &mut Machine, day: u32) -> Vec<Stretch> {
    let mut all = Vec::new();
    let (habit, weekend) = (machine.habit, day % 7 >= 5);
    let lot = &mut machine.lot;
    if habit == Habit::Bag {
        if lot.chance(0.3) {
            let from = lot.between(8.0, 20.0);
            let place = home(machine);
            presence(case, machine, day, (from, (from + 2.0).min(BED)), place, &mut all);
        }
        return all;
    }
    let works = lot.chance(0.92);
    if works && !weekend {
        let (from, to) = (9.0 + lot.normal() * 0.4, 17.5 + lot.normal() * 0.75);
        let at_office = habit == Habit::Office && lot.chance(0.6);
        // Who is in the office is outside at nine, and all of them are back at 9:20.
        let drilled = at_office && Mishap::Drill.days(case).any(|drill| drill == day);
        let from = if drilled { 9.0 + lot.between(20.0, 21.0) / 60.0 } else { from.clamp(7.0, 11.0) };
        let place = match habit {
            _ if at_office => Place { net: Net::Lan, blocked: false, metered: false, id: 0 },
            Habit::Road => road(case, machine),
            _ => home(machine),
        };
        presence(case, machine, day, (from, to.clamp(13.0, 20.0)), place, &mut all);
    }
    let lot = &mut machine.lot;
    let (leisure, earliest) = if weekend { (0.35, 10.0) } else { (0.4, 20.2) };
    if lot.chance(leisure) {
        let from = lot.between(earliest, 21.5);
        let place = home(machine);
        presence(case, machine, day, (from, (from + 2.0).min(BED)), place, &mut all);
    }
    all
}

fn home(machine: &mut Machine) -> Place {
    let vpn = machine.lot.chance(0.3);
    let net = if vpn { Net::Vpn } else { Net::Nat };
    Place { net, blocked: machine.home_blocked, metered: false, id: 1_000 + machine.number }
}

fn road(case: &Case, machine: &mut Machine) -> Place {
    let lot = &mut machine.lot;
    let (blocked, metered) = (lot.chance(case.blocked), lot.chance(0.5));
    Place { net: Net::Nat, blocked, metered, id: 1_000_000_000 + lot.roll() % 1_000_000 }
}

/// Stretches and gaps from one hour to another.
fn presence(
    case: &Case,
    machine: &mut Machine,
    day: u32,
    (from, to): (f64, f64),
    place: Place,
    all: &mut Vec<Stretch>,
) {
    let on_mains = match (place.net, machine.habit) {
        (Net::Lan, _) => 0.8,
        (_, Habit::Road) => 0.4,
        (_, Habit::Bag) => 0.3,
        _ => 0.7,
    };
    let lot = &mut machine.lot;
    let (mut at, end) = (case.local(day, from), case.local(day, to));
    while at + MINUTE < end {
        let length = lot.lognormal(case.stretch, 0.8) * MINUTE as f64;
        let until = end.min(at + (length as u64).max(MINUTE));
        let battery = (!lot.chance(on_mains)).then(|| lot.between(0.25, 1.0));
        let then = if lot.chance(0.5) { Then::Sleeps } else { Then::Lonely };
        all.push(Stretch { from: at, to: until, place, battery, then });
        let gap = lot.exponential(20.0) * MINUTE as f64;
        at = until + (gap as u64).clamp(5_000, 4 * HOUR);
    }
    if let Some(last) = all.last_mut() {
        last.then = Then::Sleeps;
    }
}
