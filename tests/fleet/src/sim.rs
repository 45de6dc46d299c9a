//! Events in virtual time, and machines that come and go.

use std::collections::VecDeque;

use backhaul_agent::attend::{Attendant, Fingerprint, Gate, Happening, Order};
use backhaul_schedule::fleet::{Action, ClientKey, Event, Nudge, offset};

use crate::agenda::Agenda;
use crate::arm::{Arm, Manner, OnJoin};
use crate::case::{Case, MINUTE};
use crate::day::{self, Then};
use crate::fault::{self, Fault, Outages};
use crate::lot::Lot;
use crate::machine::{self, Machine, Mind, Power};
use crate::server::Server;
use crate::tally::Tally;

/// A connection of which nothing is heard is gone after this, in ms.
const IDLE: u64 = 60_000;
/// A network is believed in after so many ms; longer after sleep.
const SETTLE: [u64; 2] = [5_000, 15_000];

/// A machine, by its number.
pub(crate) type Id = usize;

/// Something that will happen. Numbers after the machine tell whether it still matters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ev {
    NewDay(u32),
    Appears(Id),
    Up(Id),
    Down(Id),
    Settled(Id, u64),
    Gate(Id, u64),
    Ready(Id, u64),
    Poll(Id, u64),
    Tick(Id, u64),
    /// The way has been lost since then.
    Idle(Id, u64),
    /// The agent's own timer finds its link dead.
    Unlinked(Id, u64),
    /// The agent's dials: to attend, to ask for a run, to go on with one.
    Reach(Id, u64),
    NotReached(Id, u64),
    Call(Id, u64),
    CallFailed(Id, u64),
    Resume(Id, u64),
    GiveUp(Id, u64),
    /// The server's.
    Answer(Id, u64, Option<Nudge>),
    Silent(Id, u64),
    RunEnd(Id, u64),
    Progress(Id, u64),
    ServerTick(u64),
    Sample,
    Fault(Fault),
    Flap(Id, u64, u8),
}

/// Something that happens now.
#[derive(Debug)]
pub(crate) enum Todo {
    Server(Event),
    Act(Action),
    Agent(Id, Happening),
    Order(Id, Order),
    /// The server answers a hello.
    Welcome(Id),
    /// The server has taken a snapshot, and says when the next is due.
    Done(Id),
}

/// One run of one arm.
pub struct Sim<'c> {
    pub(crate) case: &'c Case,
    pub(crate) arm: Arm,
    pub(crate) now: u64,
    pub(crate) machines: Vec<Machine>,
    pub(crate) server: Server,
    pub(crate) tally: Tally,
    pub(crate) outages: Outages,
    pub(crate) todo: VecDeque<Todo>,
    pub(crate) sessions: u64,
    pub(crate) lot: Lot,
    agenda: Agenda,
}

/// Runs an arm of a case with a seed.
pub fn run(case: &Case, arm: Arm, seed: u64) -> Tally {
    let mut sim = Sim {
        case,
        arm,
        now: 0,
        machines: machine::all(case, seed),
        server: Server::new(case, arm),
        tally: Tally::new(case),
        outages: Outages::default(),
        todo: VecDeque::new(),
        sessions: 0,
        lot: Lot::new(seed, u64::MAX),
        agenda: Agenda::default(),
    };
    sim.begin();
    let end = case.local(case.days, 0.0);
    while let Some((at, ev)) = sim.agenda.next() {
        if at > end {
            break;
        }
        sim.now = at;
        sim.happen(ev);
        sim.drain();
    }
    sim.finish()
}

impl Sim<'_> {
    fn begin(&mut self) {
        for id in 0..self.machines.len() {
            self.plan(self.machines[id].added, Ev::Appears(id));
        }
        self.plan(0, Ev::NewDay(0));
        self.plan(0, Ev::Sample);
        fault::plan(self);
    }

    pub(crate) fn plan(&mut self, at: u64, ev: Ev) {
        self.agenda.put(at.max(self.now), ev);
    }

    pub(crate) fn plan_in(&mut self, ms: u64, ev: Ev) {
        self.plan(self.now + ms, ev);
    }

    fn happen(&mut self, ev: Ev) {
        match ev {
            Ev::NewDay(day) => self.new_day(day),
            Ev::Appears(id) => self.appears(id),
            Ev::Up(id) => self.up(id),
            Ev::Down(id) => self.down(id),
            Ev::Settled(id, turn) if self.machines[id].turn == turn => self.settled(id),
            Ev::Gate(id, turn) if self.machines[id].turn == turn => self.gates(id),
            Ev::Ready(id, turn) if self.machines[id].turn == turn => self.watch(id),
            Ev::Poll(id, turn) if self.machines[id].turn == turn => self.poll(id),
            Ev::Tick(id, boots) => self.tick(id, boots),
            Ev::Idle(id, since) if self.machines[id].lost == Some(since) => self.cut(id),
            Ev::Unlinked(id, turn) if self.machines[id].turn == turn => self.notice(id),
            Ev::Reach(id, dial) if self.machines[id].dial == dial => self.reach(id),
            Ev::NotReached(id, dial) if self.machines[id].dial == dial => {
                self.todo.push_back(Todo::Agent(id, Happening::NotReached));
            }
            Ev::Call(id, turn) if self.machines[id].doing_turn == turn => self.call(id),
            Ev::CallFailed(id, turn) if self.machines[id].doing_turn == turn => self.call_failed(id),
            Ev::Resume(id, turn) if self.machines[id].doing_turn == turn => self.resume(id),
            Ev::GiveUp(id, turn) if self.machines[id].doing_turn == turn => self.give_up(id),
            Ev::Answer(id, dialled, nudge) if self.machines[id].dialled == dialled => self.answer(id, nudge),
            Ev::Silent(id, dialled) if self.machines[id].dialled == dialled => self.silent(id),
            Ev::RunEnd(id, turn) if self.machines[id].doing_turn == turn => self.run_end(id),
            Ev::Progress(id, turn) if self.machines[id].doing_turn == turn => self.progress(id),
            Ev::ServerTick(at) => self.server_tick(at),
            Ev::Sample => self.sample(),
            Ev::Fault(fault) => self.fault(fault),
            Ev::Flap(id, turn, left) if self.machines[id].turn == turn => self.flap(id, left),
            _ => {}
        }
    }

    fn new_day(&mut self, day: u32) {
        let begin = self.case.local(day, 0.0);
        for id in 0..self.machines.len() {
            if day > 0 {
                let machine = &self.machines[id];
                let before = self.case.local(day - 1, 0.0);
                let counts = day > self.case.warm_up && (machine.added == 0 || machine.added < before);
                self.tally.close_day(id, machine.class(), counts);
            }
            if day == self.case.days {
                continue;
            }
            for stretch in day::day(self.case, &mut self.machines[id], day) {
                if stretch.from < self.machines[id].added {
                    continue;
                }
                self.plan(stretch.from, Ev::Up(id));
                self.plan(stretch.to, Ev::Down(id));
                self.machines[id].ahead.push_back(stretch);
            }
        }
        debug_assert!(begin <= self.now + MINUTE, "days follow each other");
        if day < self.case.days {
            self.plan(self.case.local(day + 1, 0.0), Ev::NewDay(day + 1));
        }
    }

    fn appears(&mut self, id: Id) {
        let begin = self.case.begin();
        let machine = &mut self.machines[id];
        machine.recorded = machine.success.map(|at| begin + at / 1_000);
        let (key, recorded) = (machine.key, machine.recorded);
        let plan = self.server.plan(&self.machines[id], None);
        self.todo.push_back(Todo::Server(Event::Known(key, Box::new(plan), recorded)));
    }

    fn up(&mut self, id: Id) {
        let machine = &mut self.machines[id];
        let Some(stretch) = machine.ahead.pop_front() else { return };
        let was = std::mem::replace(&mut machine.power, Power::Awake);
        machine.online = Some(stretch);
        machine.turn += 1;
        machine.counted = self.now;
        let turn = machine.turn;
        if was == Power::Off {
            self.boot(id);
        }
        let terms = self.server.policy(&self.machines[id]).agent.clone();
        for at in self.machines[id].gate_times(&terms) {
            self.plan(at, Ev::Gate(id, turn));
        }
        let supply = self.machines[id].supply();
        self.todo.push_back(Todo::Agent(id, Happening::Power(supply)));
        self.gates(id);
        if was == Power::Asleep {
            let unheard = std::mem::take(&mut self.machines[id].unheard);
            self.todo.extend(unheard.into_iter().map(|happening| Todo::Agent(id, happening)));
            self.todo.push_back(Todo::Agent(id, Happening::Woke));
            self.plan_in(IDLE, Ev::Unlinked(id, turn));
        }
        self.path_back(id);
        self.plan_in(SETTLE[usize::from(was == Power::Asleep)], Ev::Settled(id, turn));
        if let Manner::Polls(every, _) = self.arm.manner() {
            // At the same times every day, as cron does: each machine has its own.
            let phase = offset(&self.machines[id].key) % every;
            let next = (self.now + every - phase) / every * every + phase;
            self.plan(next, Ev::Poll(id, turn));
        }
        self.watch(id);
    }

    fn boot(&mut self, id: Id) {
        let terms = self.server.policy(&self.machines[id]).agent.clone();
        let machine = &mut self.machines[id];
        machine.boots += 1;
        machine.tick_at = None;
        machine.link_dead = false;
        machine.unheard.clear();
        let seed = offset(&machine.key) ^ machine.boots;
        machine.mind = match self.arm.manner() {
            Manner::Listens => Mind::Listens,
            Manner::Polls(..) => Mind::Polls,
            Manner::Attends => Mind::Attends(Box::new(Attendant::new(terms, seed))),
        };
        self.todo.push_back(Todo::Agent(id, Happening::Started));
    }

    /// The agent believes in the network.
    fn settled(&mut self, id: Id) {
        let Some(stretch) = self.machines[id].online else { return };
        let mut print = [0; 8];
        print.copy_from_slice(&stretch.place.id.to_le_bytes());
        self.todo.push_back(Todo::Agent(id, Happening::Network(Some(Fingerprint(print)))));
        if let Manner::Polls(_, OnJoin::Asks) = self.arm.manner() {
            self.ask_by_poll(id);
        }
    }

    pub(crate) fn gates(&mut self, id: Id) {
        self.count(id);
        let machine = &mut self.machines[id];
        let lateness = self.server.fleet.lateness(self.server.now(self.now), &machine.key);
        let gate = machine.gate(&self.server.policy(machine).agent, lateness, self.now);
        machine.willing = gate == Gate::Open;
        self.todo.push_back(Todo::Agent(id, Happening::Gates(gate, Gate::Open)));
        self.watch(id);
    }

    /// Counts the time online since it was last counted.
    fn count(&mut self, id: Id) {
        let machine = &mut self.machines[id];
        let passed = self.now - machine.counted;
        machine.counted = self.now;
        if let Some(stretch) = machine.online.filter(|_| machine.willing) {
            self.tally.today[id].usable += passed;
            self.tally.today[id].blocked += if stretch.place.blocked { passed } else { 0 };
        }
    }

    fn down(&mut self, id: Id) {
        self.count(id);
        let machine = &mut self.machines[id];
        let Some(stretch) = machine.online.take() else { return };
        machine.turn += 1;
        machine.flapped = false;
        let (class, stale) = (machine.class(), machine.staleness(self.now));
        if self.measures() {
            self.tally.kind(class).staleness.push(stale as f32);
        }
        match stretch.then {
            Then::Off => self.off(id),
            Then::Sleeps => {
                self.machines[id].power = Power::Asleep;
                self.path_lost(id);
            }
            Then::Lonely => {
                self.path_lost(id);
                self.todo.push_back(Todo::Agent(id, Happening::Network(None)));
            }
        }
    }

    fn off(&mut self, id: Id) {
        self.drop_link(id);
        self.drop_run(id);
        let machine = &mut self.machines[id];
        machine.power = Power::Off;
        machine.mind = Mind::Listens;
        machine.dial += 1;
    }

    /// True while what happens is counted.
    pub(crate) fn measures(&self) -> bool {
        self.case.day_of(self.now).0 >= self.case.warm_up
    }

    /// True while packets pass between a machine and the server.
    pub(crate) fn path(&self, id: Id) -> bool {
        let machine = &self.machines[id];
        let online = machine.online.filter(|_| machine.power == Power::Awake && !machine.flapped);
        online.is_some_and(|stretch| {
            self.server.up && !stretch.place.blocked && !self.outages.hit(&stretch.place)
        })
    }

    /// Packets do not pass any more.
    pub(crate) fn path_lost(&mut self, id: Id) {
        let machine = &mut self.machines[id];
        if machine.lost.is_none() {
            machine.lost = Some(self.now);
            self.plan_in(IDLE, Ev::Idle(id, self.now));
        }
    }

    /// Everything that follows at once.
    pub(crate) fn drain(&mut self) {
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Server(event) => self.step(event),
                Todo::Act(action) => self.act(action),
                Todo::Agent(id, happening) => self.tell(id, happening),
                Todo::Order(id, order) => self.order(id, order),
                Todo::Welcome(id) => self.welcome(id),
                Todo::Done(id) => self.done(id),
            }
        }
    }

    fn step(&mut self, event: Event) {
        if !self.server.up {
            return;
        }
        let actions = self.server.step(self.now, event);
        self.todo.extend(actions.into_iter().map(Todo::Act));
        let (running, waiting) = (self.server.fleet.running(), self.server.fleet.waiting());
        assert!(running <= self.case.slots, "{running} runs with {} slots", self.case.slots);
        self.tally.peak_running = self.tally.peak_running.max(running);
        self.tally.peak_queue = self.tally.peak_queue.max(waiting);
        self.plan_server_tick();
    }

    fn plan_server_tick(&mut self) {
        let Some(at) = self.server.fleet.next_deadline().map(Server::at) else { return };
        let at = at.max(self.now);
        if self.server.tick_at.is_none_or(|planned| at < planned) {
            self.server.tick_at = Some(at);
            self.plan(at, Ev::ServerTick(at));
        }
    }

    fn server_tick(&mut self, at: u64) {
        if self.server.tick_at != Some(at) {
            return;
        }
        self.server.tick_at = None;
        let due = self.server.fleet.next_deadline().map(Server::at).is_some_and(|due| due <= self.now);
        match due {
            // A server that is down ticks when it is back.
            _ if !self.server.up => {}
            true => self.todo.push_back(Todo::Server(Event::Tick)),
            false => self.plan_server_tick(),
        }
    }

    pub(crate) fn id(key: &ClientKey) -> Id {
        let mut tail = [0; 8];
        tail.copy_from_slice(&key[8..]);
        u64::from_le_bytes(tail) as usize
    }
}
