//! Who there is: clients of every kind, and what their policies say.

use std::sync::Arc;

use backhaul_schedule::fleet::{self, Plan};
use backhaul_schedule::policy::{Group, Initiator, Policies, Policy, Window};
use backhaul_schedule::reach::{HasBattery, Mode, Nat, Sighting};
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
