//! Runs: how they begin, are cut, go on and end.

use backhaul_agent::attend::{End, Happening};
use backhaul_schedule::fleet::{Event, OpenRun, Outcome, Trigger, Via};
use backhaul_schedule::reach::{HasBattery, Nat, Sighting};

use crate::arm::Manner;
use crate::case::{Faults, HOUR, MINUTE};
use crate::day::Net;
use crate::machine::{Class, Doing, Job, Machine, Power, Run};
use crate::sim::{Ev, Id, Sim, Todo};

/// How long an agent looks for its server when a run was cut, in ms.
const LOOKS: u64 = 180_000;
/// Between two signs that a run goes on, in ms.
const PROGRESS: u64 = 300_000;
/// What a run takes at least, in ms.
const LEAST: u64 = 10_000;
/// Median length of a run: on the office's network, and elsewhere, in minutes. Deviation of the logarithm.
const MEDIANS: (f64, f64) = (4.0, 12.0);
const SIGMA: f64 = 0.7;
/// A first backup is so many times larger.
const FIRST: f64 = 20.0;
/// Runs that fail and are tried again; runs that fail until somebody has put something right, a day later.
const FAILS: (f64, f64) = (0.02, 0.002);

impl Sim<'_> {
    /// The scheduler lets a machine begin, or go on.
    pub(crate) fn granted(&mut self, id: Id, session: u64) {
        match self.machines[id].doing {
            Doing::Asking { session: asking, .. } if asking == session => self.begin_run(id, session),
            Doing::Running(run) if run.session == session => {
                let run = Run { since: self.now, cut: None, ..run };
                self.runs(id, run);
            }
            _ => {}
        }
    }

    pub(crate) fn begin_run(&mut self, id: Id, session: u64) {
        let faults = self.case.faults == Faults::On;
        let full = self.full_length(id);
        let machine = &mut self.machines[id];
        let job = *machine.job.get_or_insert_with(|| {
            let first = if machine.success.is_none() { FIRST } else { 1.0 };
            Job { size: machine.runs.lognormal(1.0, SIGMA) * first, left: 1.0 }
        });
        let whole = ((full * job.size * job.left) as u64).max(LEAST);
        let mut run = Run { session, began: self.now, since: self.now, left: whole, fails: false, cut: None };
        let (retryable, permanent) = (machine.runs.chance(FAILS.0), machine.runs.chance(FAILS.1));
        let when = machine.runs.unit();
        if faults && permanent && machine.broken_until < self.now {
            machine.broken_until = self.now + 24 * HOUR;
        }
        if machine.broken_until > self.now {
            (run.left, run.fails) = (LEAST, true);
        } else if faults && retryable {
            (run.left, run.fails) = ((whole as f64 * when) as u64, true);
        }
        let waited = machine.unstarted.take().map(|since| ((self.now - since) as f64 / MINUTE as f64) as f32);
        let class = machine.class();
        if self.measures() {
            self.tally.kind(class).to_start.extend(waited);
            self.tally.started(self.now);
        }
        self.runs(id, run);
    }

    /// How long a run of the median size takes where a machine is, in ms.
    fn full_length(&self, id: Id) -> f64 {
        let lan = self.machines[id].online.is_some_and(|stretch| stretch.place.net == Net::Lan);
        let minutes = if lan { MEDIANS.0 } else { MEDIANS.1 };
        minutes * MINUTE as f64 * self.case.run_scale
    }

    fn runs(&mut self, id: Id, run: Run) {
        self.does(id, Doing::Running(run));
        let turn = self.machines[id].doing_turn;
        self.plan_in(run.left, Ev::RunEnd(id, turn));
        if run.left > PROGRESS {
            self.plan_in(PROGRESS, Ev::Progress(id, turn));
        }
    }

    pub(crate) fn progress(&mut self, id: Id) {
        let Doing::Running(run) = self.machines[id].doing else { return };
        let turn = self.machines[id].doing_turn;
        self.plan_in(PROGRESS, Ev::Progress(id, turn));
        self.say(id, |key| Event::Progress(key, run.session));
    }

    pub(crate) fn run_end(&mut self, id: Id) {
        let Doing::Running(run) = self.machines[id].doing else { return };
        if !self.path(id) {
            // Its last words do not get through: it is cut, or the way comes back.
            let turn = self.machines[id].doing_turn;
            return self.plan_in(5_000, Ev::RunEnd(id, turn));
        }
        self.does(id, Doing::Nothing);
        if run.fails {
            self.keep(id, run, self.now);
            self.tally.failures += 1;
            self.say(id, |key| {
                Event::Ended(key, run.session, Outcome::Failed { code: 900, why: "by lot".to_owned() })
            });
            let end = End::Failed { ticket: Vec::new() };
            return self.todo.push_back(Todo::Agent(id, Happening::Ended(end)));
        }
        let (at, took) = (self.wall(), (self.now - run.began) / 1_000);
        let machine = &mut self.machines[id];
        machine.job = None;
        machine.success = Some(self.now as i64);
        machine.recorded = machine.recorded.max(Some(at));
        let waited = machine.ready.take().map(|since| ((self.now - since) as f64 / MINUTE as f64) as f32);
        machine.unstarted = None;
        let class = machine.class();
        self.tally.today[id].protected = true;
        self.tally.successes += 1;
        if self.measures() {
            self.tally.kind(class).to_snapshot.extend(waited);
        }
        self.say(id, |key| Event::Ended(key, run.session, Outcome::Succeeded { at, took }));
        self.todo.push_back(Todo::Done(id));
    }

    pub(crate) fn done(&mut self, id: Id) {
        let due_in = self.server.due_in(self.now, &self.machines[id]);
        self.todo.push_back(Todo::Agent(id, Happening::Ended(End::Done { due_in })));
        self.watch(id);
    }

    /// What was sent until a moment is not sent again.
    fn keep(&mut self, id: Id, run: Run, until: u64) {
        let full = self.full_length(id);
        let machine = &mut self.machines[id];
        if let Some(job) = &mut machine.job {
            let sent = until.saturating_sub(run.since).min(run.left) as f64;
            job.left = (job.left - sent / (full * job.size)).clamp(0.01, 1.0);
        }
    }

    /// Connections die: the way has been lost for too long, or the server has forgotten them.
    pub(crate) fn cut(&mut self, id: Id) {
        let machine = &mut self.machines[id];
        let (key, class, awake) = (machine.key, machine.class(), machine.power == Power::Awake);
        let lost = machine.lost.unwrap_or(self.now);
        if let Some((session, since)) = machine.link.take() {
            machine.link_dead = !awake;
            self.tally.kind(class).linked += self.counted_link(since);
            self.todo.push_back(Todo::Server(Event::LinkLost(key, session)));
            if awake {
                self.todo.push_back(Todo::Agent(id, Happening::Unlinked));
            }
        }
        match self.machines[id].doing {
            Doing::Asking { session, since } => {
                self.todo.push_back(Todo::Server(Event::LinkLost(key, session)));
                self.does(id, Doing::Nothing);
                let ticket = since.to_le_bytes().to_vec();
                self.todo.push_back(Todo::Agent(id, Happening::Ended(End::Failed { ticket })));
            }
            Doing::Running(run) if run.cut.is_none() => {
                self.todo.push_back(Todo::Server(Event::LinkLost(key, run.session)));
                self.keep(id, run, lost);
                let left = run.left.saturating_sub(lost.saturating_sub(run.since)).max(LEAST);
                self.does(id, Doing::Running(Run { left, cut: Some(lost), ..run }));
                let turn = self.machines[id].doing_turn;
                self.plan(lost + LOOKS, Ev::GiveUp(id, turn));
            }
            _ => {}
        }
    }

    /// Packets pass again, if nothing else is in the way.
    pub(crate) fn path_back(&mut self, id: Id) {
        if !self.path(id) {
            return;
        }
        self.machines[id].lost = None;
        let cut = matches!(self.machines[id].doing, Doing::Running(Run { cut: Some(_), .. }));
        if cut && self.arm.manner() != Manner::Listens {
            let turn = self.machines[id].doing_turn;
            let pause = 500 + self.lot.roll() % 10_000;
            self.plan_in(pause, Ev::Resume(id, turn));
        }
    }

    /// A cut run looks for its server.
    pub(crate) fn resume(&mut self, id: Id) {
        let Doing::Running(run) = self.machines[id].doing else { return };
        if !self.path(id) || run.cut.is_none() {
            return;
        }
        self.sessions += 1;
        let session = self.sessions;
        self.machines[id].doing = Doing::Running(Run { session, ..run });
        let class = self.machines[id].class();
        self.tally.kind(class).contacts += u64::from(self.measures());
        let power = if class == Class::Laptop { HasBattery::Yes } else { HasBattery::No };
        let sighting = Sighting { network: 0, nat: Nat::Unknown, power };
        self.say(id, |key| Event::Contact(key, session, Via::Visit, sighting));
        self.say(id, |key| Event::Request(key, session, Trigger::Resume, None));
    }

    pub(crate) fn give_up(&mut self, id: Id) {
        if matches!(self.machines[id].doing, Doing::Running(Run { cut: Some(_), .. })) {
            self.run_lost(id);
        }
    }

    /// A run is over for the agent without a word from the server.
    pub(crate) fn run_lost(&mut self, id: Id) {
        self.tally.failures += 1;
        self.does(id, Doing::Nothing);
        self.todo.push_back(Todo::Agent(id, Happening::Ended(End::Failed { ticket: Vec::new() })));
    }

    /// The machine is shut down: connections end in good order.
    pub(crate) fn drop_run(&mut self, id: Id) {
        let (key, doing) = (self.machines[id].key, self.machines[id].doing);
        match doing {
            Doing::Asking { session, .. } => self.todo.push_back(Todo::Server(Event::LinkLost(key, session))),
            Doing::Running(run) => {
                if run.cut.is_none() {
                    self.keep(id, run, self.now);
                    self.todo.push_back(Todo::Server(Event::LinkLost(key, run.session)));
                }
                self.tally.failures += 1;
            }
            Doing::Nothing | Doing::Calling { .. } => {}
        }
        self.does(id, Doing::Nothing);
    }
}

/// What the server had written down of a machine's run.
pub(crate) fn open(machine: &Machine) -> OpenRun {
    match machine.doing {
        Doing::Running(_) => OpenRun::Yes,
        _ => OpenRun::No,
    }
}
