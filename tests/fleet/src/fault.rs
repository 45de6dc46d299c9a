//! What breaks, and how; [`crate::mishap`] says on which days.

use backhaul_agent::attend::{Fingerprint, Happening};
use backhaul_schedule::fleet::Event;

use crate::case::MINUTE;
use crate::day::{Net, Place};
use crate::job;
use crate::machine::{Class, Doing};
use crate::mishap::Mishap;
use crate::sim::{Ev, Id, Sim, Todo};

/// The server is away for so long, in ms.
const RESTART: u64 = MINUTE;
/// One floor's switch.
const FLOOR: u64 = 100;
/// A link that flaps: times, and ms between two changes.
const FLAPS: (u8, u64) = (40, 15_000);
/// Of laptops, one in so many.
const FLAPPING: usize = 10;

/// Something that breaks, or is right again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Crash,
    Back,
    FloorDown,
    FloorUp,
    RemoteDown,
    RemoteUp,
    ClockWrong,
    ClockRight,
    Flapping,
}

/// Networks that are down.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    floor: bool,
    remote: bool,
}

impl Outages {
    pub(crate) fn hit(&self, place: &Place) -> bool {
        (self.floor && place.net == Net::Lan && place.id == FLOOR) || (self.remote && place.net != Net::Lan)
    }
}

/// Puts everything that breaks into the heap. The fire drill is in [`crate::day`], summer time in [`crate::case`].
pub(crate) fn plan(sim: &mut Sim<'_>) {
    let plan = [
        (Mishap::Clock, 14.0, Fault::ClockWrong),
        (Mishap::Clock, 16.0, Fault::ClockRight),
        (Mishap::Floor, 10.0, Fault::FloorDown),
        (Mishap::Floor, 12.0, Fault::FloorUp),
        (Mishap::Remote, 13.0, Fault::RemoteDown),
        (Mishap::Remote, 14.0, Fault::RemoteUp),
        (Mishap::Flapping, 10.0, Fault::Flapping),
    ];
    for (mishap, hour, fault) in plan {
        mishap.days(sim.case).for_each(|day| sim.plan(sim.case.local(day, hour), Ev::Fault(fault)));
    }
    for day in Mishap::Crash.days(sim.case) {
        let hour = 9.0 + sim.lot.unit() * 8.0;
        sim.plan(sim.case.local(day, hour), Ev::Fault(Fault::Crash));
    }
}

impl Sim<'_> {
    pub(crate) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Crash => {
                self.server.up = false;
                self.plan_in(RESTART, Ev::Fault(Fault::Back));
            }
            Fault::Back => self.restart(),
            Fault::FloorDown => self.outage(|outages| outages.floor = true),
            Fault::FloorUp => self.outage(|outages| outages.floor = false),
            Fault::RemoteDown => self.outage(|outages| outages.remote = true),
            Fault::RemoteUp => self.outage(|outages| outages.remote = false),
            Fault::ClockWrong => self.set_clock(3_600),
            Fault::ClockRight => self.set_clock(0),
            Fault::Flapping => {
                let laptops =
                    (0..self.machines.len()).filter(|id| self.machines[*id].class() == Class::Laptop);
                for id in laptops.step_by(FLAPPING).collect::<Vec<Id>>() {
                    let turn = self.machines[id].turn;
                    self.plan(self.now, Ev::Flap(id, turn, FLAPS.0));
                }
            }
        }
    }

    fn set_clock(&mut self, skew: i64) {
        self.server.skew = skew;
        self.todo.push_back(Todo::Server(Event::ClockJumped));
    }

    fn outage(&mut self, change: impl FnOnce(&mut Outages)) {
        let before: Vec<bool> = (0..self.machines.len()).map(|id| self.path(id)).collect();
        change(&mut self.outages);
        for (id, before) in before.into_iter().enumerate() {
            match (before, self.path(id)) {
                (true, false) => self.path_lost(id),
                (false, true) => self.path_back(id),
                _ => {}
            }
        }
    }

    /// A new process knows what the old one had written down, and none of its connections.
    fn restart(&mut self) {
        self.server.up = true;
        let actions = self.server.restart(self.now, &self.machines, job::open);
        self.todo.extend(actions.into_iter().map(Todo::Act));
        self.todo.push_back(Todo::Server(Event::Tick));
        for id in 0..self.machines.len() {
            // Dials of the old process.
            self.machines[id].dialled += 1;
            let machine = &self.machines[id];
            let connected =
                machine.link.is_some() || matches!(machine.doing, Doing::Asking { .. } | Doing::Running(_));
            if connected {
                let crashed = self.now - RESTART;
                let machine = &mut self.machines[id];
                let lost = machine.lost.map_or(crashed, |lost| lost.min(crashed));
                machine.lost = Some(lost);
                self.cut(id);
                self.path_back(id);
            }
        }
    }

    pub(crate) fn flap(&mut self, id: Id, left: u8) {
        let away = left.is_multiple_of(2) && left > 0;
        let machine = &mut self.machines[id];
        let Some(stretch) = machine.online else { return };
        machine.flapped = away;
        let turn = machine.turn;
        let print = stretch.place.id.to_le_bytes();
        self.todo.push_back(Todo::Agent(id, Happening::Network((!away).then_some(Fingerprint(print)))));
        match away {
            true => self.path_lost(id),
            false => self.path_back(id),
        }
        if left > 0 {
            self.plan_in(FLAPS.1, Ev::Flap(id, turn, left - 1));
        }
    }
}
