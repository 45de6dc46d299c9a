//! What agents and server say to each other.

use backhaul_agent::attend::{self, End, Gate, Happening, NudgeReply, Order};
use backhaul_schedule::fleet::{
    Action, AlertKind, Event, NotNow, Nudge, NudgeAnswer, Outcome, Trigger, Via, What,
};
use backhaul_schedule::policy::OnBattery;
use backhaul_schedule::reach::{DialResult, HasBattery, Nat, Sighting};

use crate::arm::{Arm, Manner};
use crate::day::Net;
use crate::machine::{Class, Doing, Mind, Power, Run};
use crate::sim::{Ev, Id, Sim, Todo};

/// A handshake, in ms.
const HANDSHAKE: u64 = 300;
/// A dial that nobody answers, in ms.
const TIMEOUT: u64 = 5_000;
/// How long a refusal holds when the agent does not know, in seconds. Assumed.
const NOT_NOW: i64 = 3_600;
/// When who is turned away comes again, in seconds.
const TURNED_AWAY: u64 = 20 * 60;

impl Sim<'_> {
    /// Tells an agent; what it orders follows.
    pub(crate) fn tell(&mut self, id: Id, happening: Happening) {
        let joins = matches!(happening, Happening::Network(_) | Happening::Woke);
        let machine = &mut self.machines[id];
        let Mind::Attends(attendant) = &mut machine.mind else { return };
        if machine.power == Power::Asleep {
            // What its programs were waiting for reaches them when they run again.
            return machine.unheard.push(happening);
        }
        if joins && self.arm == Arm::NoJoin {
            return;
        }
        let orders = attendant.handle(self.now, happening);
        self.todo.extend(orders.into_iter().map(|order| Todo::Order(id, order)));
        self.plan_tick(id);
    }

    fn plan_tick(&mut self, id: Id) {
        let machine = &mut self.machines[id];
        let Mind::Attends(attendant) = &machine.mind else { return };
        let Some(at) = attendant.deadline().map(|at| at.max(self.now + 1)) else { return };
        if machine.tick_at.is_none_or(|planned| at < planned || planned <= self.now) {
            machine.tick_at = Some(at);
            let boots = machine.boots;
            self.plan(at, Ev::Tick(id, boots));
        }
    }

    pub(crate) fn tick(&mut self, id: Id, boots: u64) {
        let machine = &mut self.machines[id];
        if machine.boots != boots || machine.tick_at != Some(self.now) {
            return;
        }
        machine.tick_at = None;
        if machine.power == Power::Awake {
            self.tell(id, Happening::Tick);
        }
    }

    pub(crate) fn order(&mut self, id: Id, order: Order) {
        match order {
            Order::Dial => {
                self.machines[id].dial += 1;
                let dial = self.machines[id].dial;
                self.plan_in(HANDSHAKE, Ev::Reach(id, dial));
            }
            Order::Hang => self.drop_link(id),
            Order::Migrate => self.notice(id),
            Order::Push { trigger, ticket } => {
                let trigger = match trigger {
                    attend::Trigger::Join => Trigger::Join,
                    attend::Trigger::Timer => Trigger::Timer,
                    attend::Trigger::Nudge => Trigger::Nudge,
                };
                let since = ticket.as_slice().try_into().ok().map(i64::from_le_bytes);
                self.ask(id, trigger, since);
            }
            Order::Reply { id: nudge, reply } => self.reply(id, nudge, reply),
            Order::Unwilling { reason, until } => {
                let not_now = NotNow { reason, until: until.unwrap_or(self.wall() + NOT_NOW) };
                self.say(id, |key| Event::Unwilling(key, not_now));
            }
        }
    }

    /// The agent finds that its link is dead, if it is.
    pub(crate) fn notice(&mut self, id: Id) {
        if std::mem::take(&mut self.machines[id].link_dead) {
            self.todo.push_back(Todo::Agent(id, Happening::Unlinked));
        }
    }

    fn reply(&mut self, id: Id, nudge: u64, reply: NudgeReply) {
        let until = self.wall() + NOT_NOW;
        self.say(id, |key| match reply {
            NudgeReply::Accepted => Event::NudgeAnswered(key, nudge, NudgeAnswer::Accepted),
            NudgeReply::Running => Event::NudgeAnswered(key, nudge, NudgeAnswer::Needless),
            NudgeReply::NotNow { reason, until: known } => {
                Event::Unwilling(key, NotNow { reason, until: known.unwrap_or(until) })
            }
        });
    }

    /// A word to the server, if it gets there.
    pub(crate) fn say(&mut self, id: Id, event: impl FnOnce([u8; 16]) -> Event) {
        if self.path(id) {
            let key = self.machines[id].key;
            self.todo.push_back(Todo::Server(event(key)));
        }
    }

    pub(crate) fn wall(&self) -> i64 {
        self.server.now(self.now).wall
    }

    /// Begins to ask for a run.
    fn ask(&mut self, id: Id, trigger: Trigger, since: Option<i64>) {
        if self.machines[id].doing != Doing::Nothing {
            return;
        }
        self.does(id, Doing::Calling { trigger, since });
        let turn = self.machines[id].doing_turn;
        self.plan_in(HANDSHAKE, Ev::Call(id, turn));
    }

    pub(crate) fn does(&mut self, id: Id, doing: Doing) {
        self.machines[id].doing = doing;
        self.machines[id].doing_turn += 1;
    }

    pub(crate) fn poll(&mut self, id: Id) {
        let Manner::Polls(every, _) = self.arm.manner() else { return };
        let turn = self.machines[id].turn;
        self.plan_in(every, Ev::Poll(id, turn));
        self.ask_by_poll(id);
    }

    pub(crate) fn ask_by_poll(&mut self, id: Id) {
        if self.machines[id].willing && self.path(id) {
            self.ask(id, Trigger::Timer, None);
        }
    }

    /// The agent's dial gets through, or not.
    pub(crate) fn reach(&mut self, id: Id) {
        if !self.path(id) {
            let dial = self.machines[id].dial;
            return self.plan_in(TIMEOUT, Ev::NotReached(id, dial));
        }
        let machine = &self.machines[id];
        let (agent, key) = (&self.server.policy(machine).agent, machine.key);
        let late = self.server.fleet.lateness(self.server.now(self.now), &key) >= 1.0;
        // The agent reports its supply: the server knows who will hang up at once.
        let battery = machine.online.is_some_and(|stretch| stretch.battery.is_some());
        let spares = battery && agent.on_battery == OnBattery::OnlyWhenLate && !late;
        let stays = self.server.fleet.should_stay(&key) && !spares;
        let session = self.contact(id, if stays { Via::Standing } else { Via::Visit });
        if stays {
            self.drop_link(id);
            self.machines[id].link = Some((session, self.now));
            self.machines[id].link_dead = false;
        }
        self.todo.push_back(Todo::Welcome(id));
    }

    /// A machine has come to the server on a new connection.
    fn contact(&mut self, id: Id, via: Via) -> u64 {
        self.sessions += 1;
        let (session, machine) = (self.sessions, &mut self.machines[id]);
        let (class, key) = (machine.class(), machine.key);
        let Some(place) = machine.online.map(|stretch| stretch.place) else { return session };
        let moved = machine.known_place.is_none_or(|known| (known.net, known.id) != (place.net, place.id));
        machine.known_place = Some(place);
        let recorded = machine.recorded;
        if moved {
            let plan = self.server.plan(&self.machines[id], Some(place));
            self.todo.push_back(Todo::Server(Event::Known(key, Box::new(plan), recorded)));
        }
        let nat = if place.net == Net::Nat { Nat::Yes } else { Nat::No };
        let power = if class == Class::Desktop { HasBattery::No } else { HasBattery::Yes };
        let sighting = Sighting { network: place.id + 1, nat, power };
        self.todo.push_back(Todo::Server(Event::Contact(key, session, via, sighting)));
        if self.measures() {
            self.tally.kind(class).contacts += 1;
        }
        session
    }

    pub(crate) fn welcome(&mut self, id: Id) {
        let verdict = self.server.verdict(self.now, &self.machines[id]);
        self.tell(id, Happening::Linked(verdict));
    }

    /// The agent's request gets through, or not.
    pub(crate) fn call(&mut self, id: Id) {
        let Doing::Calling { trigger, since } = self.machines[id].doing else { return };
        if !self.path(id) {
            let turn = self.machines[id].doing_turn;
            return self.plan_in(TIMEOUT, Ev::CallFailed(id, turn));
        }
        let session = self.contact(id, Via::Visit);
        let first = since.unwrap_or_else(|| self.wall());
        self.does(id, Doing::Asking { session, since: first });
        self.say(id, |key| Event::Request(key, session, trigger, since));
    }

    pub(crate) fn call_failed(&mut self, id: Id) {
        let Doing::Calling { since, .. } = self.machines[id].doing else { return };
        self.does(id, Doing::Nothing);
        let ticket = since.map_or_else(Vec::new, |since| since.to_le_bytes().to_vec());
        self.todo.push_back(Todo::Agent(id, Happening::Ended(End::Failed { ticket })));
    }

    /// What the scheduler wants done.
    pub(crate) fn act(&mut self, action: Action) {
        match action {
            Action::Dial(key) => self.dial(Self::id(&key), None),
            Action::Knock(key, nudge) => self.dial(Self::id(&key), Some(nudge)),
            Action::CancelDial(key) => self.machines[Self::id(&key)].dialled += 1,
            Action::Grant(key, session) => self.granted(Self::id(&key), session),
            Action::Wait(key, session, place) => self.waits(Self::id(&key), session, place.since),
            Action::Defer(key, session, deferral) => {
                let ticket = deferral.since.map_or_else(Vec::new, |since| since.to_le_bytes().to_vec());
                self.sent_away(Self::id(&key), session, deferral.after, ticket);
            }
            Action::Nudge(key, _, nudge) => {
                let id = Self::id(&key);
                if !self.loses_nudges(id) && self.path(id) {
                    self.nudged(id, nudge);
                }
            }
            Action::Close(key, session, _) => self.closed(Self::id(&key), session),
            Action::Alert(alert) => {
                let told = alert.what == What::Raised && alert.kind != AlertKind::GroupSilent;
                self.tally.alerts += u64::from(told);
            }
            // The agent has given up before.
            Action::Expire(_) => {}
        }
    }

    fn nudged(&mut self, id: Id, nudge: Nudge) {
        let by_hand = nudge.cause == backhaul_schedule::fleet::Cause::Manual;
        self.todo.push_back(Todo::Agent(id, Happening::Nudged { id: nudge.id, by_hand }));
    }

    /// The server dials a machine, for a run or to nudge it.
    fn dial(&mut self, id: Id, nudge: Option<Nudge>) {
        let machine = &mut self.machines[id];
        machine.dialled += 1;
        let (dialled, class) = (machine.dialled, machine.class());
        if self.measures() {
            self.tally.kind(class).dials += 1;
        }
        let lost = nudge.is_some() && self.loses_nudges(id);
        match self.is_dialable(id) && !lost {
            true => self.plan_in(HANDSHAKE, Ev::Answer(id, dialled, nudge)),
            false => self.plan_in(TIMEOUT, Ev::Silent(id, dialled)),
        }
    }

    fn loses_nudges(&self, id: Id) -> bool {
        self.arm == Arm::NoNudge || self.server.is_edge(&self.machines[id])
    }

    fn is_dialable(&self, id: Id) -> bool {
        let net = self.machines[id].online.map(|stretch| stretch.place.net);
        self.path(id) && net != Some(Net::Nat)
    }

    pub(crate) fn silent(&mut self, id: Id) {
        let (key, class) = (self.machines[id].key, self.machines[id].class());
        if self.measures() {
            self.tally.kind(class).wasted += 1;
        }
        self.todo.push_back(Todo::Server(Event::Dialled(key, DialResult::Silent, None)));
    }

    pub(crate) fn answer(&mut self, id: Id, nudge: Option<Nudge>) {
        if !self.is_dialable(id) {
            let dialled = self.machines[id].dialled;
            return self.plan_in(TIMEOUT, Ev::Silent(id, dialled));
        }
        let (key, class) = (self.machines[id].key, self.machines[id].class());
        if self.measures() {
            self.tally.kind(class).contacts += 1;
        }
        if let Some(nudge) = nudge {
            self.todo.push_back(Todo::Server(Event::Dialled(key, DialResult::Answered, None)));
            return self.nudged(id, nudge);
        }
        self.sessions += 1;
        let session = self.sessions;
        self.todo.push_back(Todo::Server(Event::Dialled(key, DialResult::Answered, Some(session))));
        let lateness = self.server.fleet.lateness(self.server.now(self.now), &key);
        let machine = &self.machines[id];
        let gate = machine.gate(&self.server.policy(machine).agent, lateness, self.now);
        let refusal = match gate {
            Gate::Shut { reason, .. } => {
                Some(Outcome::NotNow(NotNow { reason, until: self.wall() + NOT_NOW }))
            }
            Gate::Open => matches!(machine.doing, Doing::Asking { .. } | Doing::Running(_))
                .then(|| Outcome::Failed { code: 500, why: "busy".to_owned() }),
        };
        match refusal {
            Some(outcome) => self.todo.push_back(Todo::Server(Event::Ended(key, session, outcome))),
            None => {
                self.todo.push_back(Todo::Agent(id, Happening::Pulled));
                self.begin_run(id, session);
            }
        }
    }

    fn waits(&mut self, id: Id, session: u64, first: i64) {
        if matches!(self.machines[id].doing, Doing::Running(Run { session: cut, .. }) if cut == session) {
            // The slot of a cut run is gone: what is left of it waits for another.
            self.does(id, Doing::Asking { session, since: first });
        }
        if !matches!(self.machines[id].doing, Doing::Asking { session: asking, .. } if asking == session) {
            return;
        }
        if self.arm != Arm::NoQueue && self.arm.manner() == Manner::Attends {
            self.machines[id].doing = Doing::Asking { session, since: first };
            return;
        }
        let key = self.machines[id].key;
        self.todo.push_back(Todo::Server(Event::LinkLost(key, session)));
        self.sent_away(id, session, TURNED_AWAY, Vec::new());
    }

    fn sent_away(&mut self, id: Id, session: u64, after: u64, ticket: Vec<u8>) {
        let asked = match self.machines[id].doing {
            Doing::Asking { session, .. } | Doing::Running(Run { session, .. }) => Some(session),
            Doing::Nothing | Doing::Calling { .. } => None,
        };
        if asked != Some(session) {
            return;
        }
        self.does(id, Doing::Nothing);
        // No queue: no tickets and no reservations either.
        let (after, ticket) =
            if self.arm == Arm::NoQueue { (after.max(TURNED_AWAY), Vec::new()) } else { (after, ticket) };
        self.todo.push_back(Todo::Agent(id, Happening::Ended(End::Deferred { after, ticket })));
    }

    /// The server ends a connection.
    fn closed(&mut self, id: Id, session: u64) {
        match self.machines[id].doing {
            Doing::Running(Run { session: running, .. }) if running == session => self.run_lost(id),
            Doing::Asking { session: asking, .. } if asking == session => {
                self.does(id, Doing::Nothing);
                let end = End::Failed { ticket: Vec::new() };
                self.todo.push_back(Todo::Agent(id, Happening::Ended(end)));
            }
            _ => {}
        }
    }

    /// The standing link ends in good order.
    pub(crate) fn drop_link(&mut self, id: Id) {
        let machine = &mut self.machines[id];
        let Some((session, since)) = machine.link.take() else { return };
        let (key, class) = (machine.key, machine.class());
        self.tally.kind(class).linked += self.counted_link(since);
        self.todo.push_back(Todo::Server(Event::LinkLost(key, session)));
    }

    /// ms of a link that count.
    pub(crate) fn counted_link(&self, since: u64) -> u64 {
        let from = self.case.local(self.case.warm_up, 0.0).max(since);
        self.now.saturating_sub(from)
    }
}
