//! The server: the real scheduler, its clocks, and what is kept when it crashes.

use std::sync::Arc;

use backhaul_agent::attend::{Age, LinkWish, Verdict};
use backhaul_schedule::fleet::{Action, Event, OpenRun, Plan, Serving};
use backhaul_schedule::policy::{Admission, Group, Policies, Policy};
use backhaul_schedule::{Fleet, Now};

use crate::arm::{Arm, Manner};
use crate::case::Case;
use crate::clock::Watch;
use crate::day::{Net, Place};
use crate::machine::{Class, Machine};

/// The server.
#[derive(Debug)]
pub struct Server {
    /// The real one.
    pub fleet: Fleet,
    arm: Arm,
    begin: i64,
    admission: Admission,
    policies: Policies,
    desktops: Vec<Arc<Policy>>,
    laptops: Vec<Arc<Policy>>,
    vault: Arc<str>,
    /// It runs.
    pub up: bool,
    /// Seconds by which its wall clock is wrong.
    pub skew: i64,
    /// When its next tick is planned, in ms.
    pub tick_at: Option<u64>,
    /// Clients judged by processes that have died.
    pub judged: u64,
    /// Events taken, and how long that took.
    pub watch: Watch,
}

impl Server {
    /// A server for a case and an arm.
    pub fn new(case: &Case, arm: Arm) -> Self {
        let hold = case.slots.max(256);
        let reserve = case.slots.div_ceil(3);
        let dials = case.slots.max(32);
        let admission = Admission {
            slots: case.slots,
            hold,
            dials,
            reserve_for_clients: reserve,
            ..Admission::default()
        };
        Self {
            fleet: Fleet::new(admission.clone()),
            arm,
            begin: case.begin(),
            admission,
            policies: Policies::default(),
            desktops: by_lot(arm, case.desktop_policy()),
            laptops: by_lot(arm, case.laptop_policy(arm)),
            vault: "main".into(),
            up: true,
            skew: 0,
            tick_at: None,
            judged: 0,
            watch: Watch::default(),
        }
    }

    /// Its clocks.
    pub fn now(&self, at: u64) -> Now {
        Now { boot: 1_000 + at / 1_000, wall: self.begin + (at / 1_000) as i64 + self.skew }
    }

    /// When its clock since boot shows so many seconds, in ms.
    pub fn at(boot: u64) -> u64 {
        boot.saturating_sub(1_000) * 1_000
    }

    /// One step of the scheduler.
    pub fn step(&mut self, at: u64, event: Event) -> Vec<Action> {
        let now = self.now(at);
        let fleet = &mut self.fleet;
        self.watch.time(|| fleet.step(now, event))
    }

    /// The policy of a machine.
    pub fn policy(&self, machine: &Machine) -> &Arc<Policy> {
        let all = if machine.class() == Class::Desktop { &self.desktops } else { &self.laptops };
        &all[machine.number as usize % all.len()]
    }

    /// What it knows of a machine that was last seen somewhere.
    pub fn plan(&self, machine: &Machine, place: Option<Place>) -> Plan {
        Plan {
            policy: Arc::clone(self.policy(machine)),
            initiator: self.arm.initiator(machine.class()),
            has_address: !matches!(self.arm.manner(), Manner::Polls(..)),
            group: place.map_or_else(Group::unknown, |place| self.group(machine, place)),
            vault: Arc::clone(&self.vault),
            paused_until: None,
            added: self.begin + (machine.added / 1_000) as i64,
        }
    }

    fn group(&self, machine: &Machine, place: Place) -> Group {
        match place.net {
            Net::Lan if place.id == 0 => Group::named("office"),
            Net::Lan => Group::named(&format!("floor-{}", place.id - 100)),
            Net::Vpn => Group::named("vpn"),
            // One public address for each.
            Net::Nat => {
                let number = if place.id < 1_000_000_000 {
                    machine.number as u32
                } else {
                    (place.id % 1_000_000) as u32
                };
                let [_, a, b, c] = number.to_be_bytes();
                let first = if place.id < 1_000_000_000 { 85 } else { 86 };
                self.policies.group(std::net::IpAddr::from([first, a, b, c]))
            }
        }
    }

    /// What it says to a machine about itself. In the arm that judges at connections only, nothing of the future.
    pub fn verdict(&self, at: u64, machine: &Machine) -> Verdict {
        let now = self.now(at);
        let late = self.fleet.lateness(now, &machine.key) >= 1.0;
        let link = if self.fleet.should_stay(&machine.key) { LinkWish::Stay } else { LinkWish::Visit };
        let due_in = self.due_in(at, machine);
        Verdict { due_in, link, age: if late { Age::Late } else { Age::InTime } }
    }

    /// In how many seconds a machine is to come by itself.
    pub fn due_in(&self, at: u64, machine: &Machine) -> u64 {
        match self.fleet.due_in(self.now(at), &machine.key) {
            later if later > 0 && self.is_edge(machine) => 365 * 86_400,
            due_in => due_in,
        }
    }

    /// True for who is judged at connections only.
    pub fn is_edge(&self, machine: &Machine) -> bool {
        self.arm == Arm::Edge && machine.class() == Class::Laptop
    }

    /// The process dies; another one knows what was written down. Time since boot goes on.
    pub fn restart(
        &mut self,
        at: u64,
        machines: &[Machine],
        open: impl Fn(&Machine) -> OpenRun,
    ) -> Vec<Action> {
        let old = std::mem::replace(&mut self.fleet, Fleet::new(self.admission.clone()));
        self.judged += old.judged();
        // Nobody is started before it is known who runs: else the slots of open runs would be given away.
        let mut actions = self.step(at, Event::Serving(Serving::Draining));
        for machine in machines {
            let Some(memory) = old.memory(&machine.key).cloned() else { continue };
            let plan = self.plan(machine, machine.known_place);
            actions.extend(self.step(at, Event::Recalled(machine.key, Box::new(memory), open(machine))));
            actions.extend(self.step(at, Event::Known(machine.key, Box::new(plan), machine.recorded)));
        }
        actions.extend(self.step(at, Event::Serving(Serving::Open)));
        actions
    }
}

/// The same policy for everybody; or nine that differ in priority, so that chance orders a class: the scheduler has
/// no switch for perishable first, and priority is the only thing before it.
fn by_lot(arm: Arm, policy: Policy) -> Vec<Arc<Policy>> {
    let priorities = if arm == Arm::ByLot { 1..=9 } else { 5..=5 };
    priorities.map(|priority| Arc::new(Policy { priority, ..policy.clone() })).collect()
}
