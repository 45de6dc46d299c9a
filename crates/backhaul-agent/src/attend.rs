//! When this machine dials its server, stays linked, asks for a run, or says that it does not want to.
//!
//! A pure machine: happenings in, orders out, `now` in milliseconds since boot, sleep included. It loses nothing by a
//! happening that never comes: a check-in is always planned, and on it the server says everything again. The daemon
//! carries the orders out; the simulator of the fleet runs the same machine.

use std::collections::VecDeque;

use backhaul_schedule::policy::{AgentTerms, OnBattery};

use dice::Dice;
pub use words::*;

pub mod dice;
mod words;

/// Pauses between tries to reach the server, in ms: full jitter below a bound that doubles.
const BACKOFF: std::ops::RangeInclusive<u64> = 2_000..=15 * 60_000;
/// Between a run that failed and the next, at least.
const AFTER_FAILURE: u64 = 60_000;
/// A network that comes and goes costs one dial in this time.
const FLAP: u64 = 30_000;
/// A link that stood for so long counts as a success: one that is accepted and dropped at once is not.
const STOOD: u64 = 60_000;
/// Longest time for which the server can send a machine away, in seconds.
const AWAY_MAX: u64 = 86_400;
/// Unasked nudges that are heeded in an hour, and those that somebody asked for.
const NUDGES: usize = 6;
const NUDGES_BY_HAND: usize = 12;
const HOUR: u64 = 3_600_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Down,
    Dialling,
    Up,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Idle,
    Going,
}

/// Why a run is not asked for before `held_until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Free,
    /// The last one failed: another network may help.
    Failed,
    /// The server's word.
    Deferred,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Attendant {
    terms: AgentTerms,
    dice: Dice,
    link: Link,
    run: Run,
    gate: Gate,
    gate_by_hand: Gate,
    supply: Supply,
    age: Age,
    wish: LinkWish,
    network: Option<Fingerprint>,
    /// When the next run is due, and before when it is not asked for whatever is said: after a deferral or a failure.
    due_at: Option<u64>,
    held_until: u64,
    hold: Hold,
    /// Why it is asked for then.
    trigger: Trigger,
    ticket: Vec<u8>,
    /// When the server is dialled next.
    dial_at: Option<u64>,
    /// Before that the server does not want to see it.
    away_until: u64,
    linked_at: u64,
    /// The last dial that a change of network caused.
    dialled_for: Option<(Fingerprint, u64)>,
    failures: u32,
    failed_runs: u32,
    /// The server knows that this machine is not willing.
    told_unwilling: bool,
    last_nudge: Option<(u64, NudgeReply)>,
    nudges: VecDeque<u64>,
}

impl Attendant {
    /// A machine that has just been started. `seed` makes its jitter its own.
    pub fn new(terms: AgentTerms, seed: u64) -> Self {
        Self {
            terms,
            dice: Dice::new(seed),
            link: Link::Down,
            run: Run::Idle,
            gate: Gate::Open,
            gate_by_hand: Gate::Open,
            supply: Supply::Mains,
            age: Age::InTime,
            wish: LinkWish::Visit,
            network: None,
            due_at: None,
            held_until: 0,
            hold: Hold::Free,
            trigger: Trigger::Join,
            ticket: Vec::new(),
            dial_at: None,
            away_until: 0,
            linked_at: 0,
            dialled_for: None,
            failures: 0,
            failed_runs: 0,
            told_unwilling: false,
            last_nudge: None,
            nudges: VecDeque::new(),
        }
    }

    /// Takes a happening; returns what is to be done now.
    pub fn handle(&mut self, now: u64, happening: Happening) -> Vec<Order> {
        let mut orders = Vec::new();
        match happening {
            Happening::Started => self.come_soon(now),
            Happening::Network(network) => self.on_network(now, network, &mut orders),
            Happening::Woke => self.on_woke(now, &mut orders),
            Happening::Gates(gate, by_hand) => {
                self.told_unwilling &= gate == self.gate;
                (self.gate, self.gate_by_hand) = (gate, by_hand);
            }
            Happening::Power(supply) => self.supply = supply,
            Happening::Terms(terms) => self.terms = *terms,
            Happening::Linked(verdict) => {
                (self.link, self.linked_at) = (Link::Up, now);
                self.told_unwilling = false;
                self.on_verdict(now, verdict);
            }
            Happening::Told(verdict) => self.on_verdict(now, verdict),
            Happening::Unlinked => self.on_unlinked(now),
            Happening::NotReached => {
                self.link = Link::Down;
                self.retry(now);
            }
            Happening::SentAway { after } => {
                self.link = Link::Down;
                self.away_until = now + after.min(AWAY_MAX) * 1_000;
                // Those that are sent away together do not come back together.
                self.retry(self.away_until);
            }
            Happening::Nudged { id, by_hand } => self.on_nudge(now, id, by_hand, &mut orders),
            Happening::Pulled => self.run = Run::Going,
            Happening::Ended(end) => self.on_end(now, end),
            Happening::Tick => {}
        }
        self.act(now, &mut orders);
        orders
    }

    /// When [`Happening::Tick`] is needed at the latest.
    pub fn deadline(&self) -> Option<u64> {
        let dial = self.next_dial().filter(|_| self.link == Link::Down);
        let due = self.due().filter(|_| self.run == Run::Idle && self.gate == Gate::Open);
        [dial, due].into_iter().flatten().min()
    }

    /// The terms it keeps to.
    pub fn terms(&self) -> &AgentTerms {
        &self.terms
    }

    /// True while it has a link and keeps it.
    pub fn is_linked(&self) -> bool {
        self.link == Link::Up
    }

    fn next_dial(&self) -> Option<u64> {
        self.dial_at.map(|dial_at| dial_at.max(self.away_until))
    }

    fn due(&self) -> Option<u64> {
        self.due_at.map(|due_at| due_at.max(self.held_until))
    }

    /// A link is kept if the server wants it and the battery does not mind.
    fn stays(&self) -> bool {
        let spares = self.supply == Supply::Battery && self.terms.on_battery == OnBattery::OnlyWhenLate;
        self.wish == LinkWish::Stay && (!spares || self.age == Age::Late)
    }

    fn come_soon(&mut self, now: u64) {
        let jitter = self.terms.join_jitter.max(0) as u64 * 1_000;
        self.failures = 0;
        self.trigger = Trigger::Join;
        // What failed before may succeed here; a deferral is the server's word and stays.
        if self.hold == Hold::Failed {
            (self.failed_runs, self.held_until, self.hold) = (0, now, Hold::Free);
        }
        self.dial_at = Some(now + self.dice.below(jitter));
    }

    fn on_network(&mut self, now: u64, network: Option<Fingerprint>, orders: &mut Vec<Order>) {
        self.network = network;
        let Some(fingerprint) = network else { return };
        if self.link == Link::Up {
            orders.push(Order::Migrate);
        }
        match self.dialled_for {
            // It flaps: the next try is due anyway, and not before this.
            Some((known, at)) if known == fingerprint && now < at + FLAP => {
                self.failures = 0;
                self.dial_at = Some(self.dial_at.map_or(at + FLAP, |dial_at| dial_at.min(at + FLAP)));
            }
            _ if self.link == Link::Down => {
                self.dialled_for = Some((fingerprint, now));
                self.come_soon(now);
            }
            // The dial under way may fail because it began in another network.
            _ => self.failures = 0,
        }
    }

    fn on_woke(&mut self, now: u64, orders: &mut Vec<Order>) {
        match self.link {
            Link::Up => orders.push(Order::Migrate),
            Link::Down => self.come_soon(now),
            Link::Dialling => self.failures = 0,
        }
    }

    fn on_unlinked(&mut self, now: u64) {
        if self.link == Link::Up && self.stays() {
            if now >= self.linked_at + STOOD {
                self.failures = 0;
            }
            self.retry(now);
        }
        self.link = Link::Down;
    }

    fn on_verdict(&mut self, now: u64, verdict: Verdict) {
        (self.age, self.wish) = (verdict.age, verdict.link);
        self.due_at = Some(now + verdict.due_in * 1_000);
        self.plan_check_in(now);
    }

    /// The safety net: whatever else is lost, the server is asked again then.
    fn plan_check_in(&mut self, now: u64) {
        let seconds = match self.age {
            Age::InTime => self.terms.safety_net,
            Age::Late => self.terms.when_late.min(self.terms.safety_net),
        };
        let whole = seconds.max(60) as u64 * 1_000;
        self.dial_at = Some(now + whole - whole / 10 + self.dice.below(whole / 5));
    }

    fn retry(&mut self, now: u64) {
        let bound = (BACKOFF.start() << self.failures.min(16)).min(*BACKOFF.end());
        self.failures = self.failures.saturating_add(1);
        self.dial_at = Some(now + 500 + self.dice.below(bound));
    }

    fn on_nudge(&mut self, now: u64, id: u64, by_hand: bool, orders: &mut Vec<Order>) {
        if let Some((known, reply)) = &self.last_nudge
            && *known == id
        {
            return orders.push(Order::Reply { id, reply: reply.clone() });
        }
        while self.nudges.front().is_some_and(|at| at + HOUR < now) {
            self.nudges.pop_front();
        }
        if self.nudges.len() >= if by_hand { NUDGES_BY_HAND } else { NUDGES } {
            // A server that nudges without end is not answered: it shall not cost a thing.
            return;
        }
        self.nudges.push_back(now);
        let gate = if by_hand { &self.gate_by_hand } else { &self.gate };
        let reply = match gate {
            _ if self.run == Run::Going => NudgeReply::Running,
            Gate::Shut { reason, until } => NudgeReply::NotNow { reason: reason.clone(), until: *until },
            Gate::Open => NudgeReply::Accepted,
        };
        self.last_nudge = Some((id, reply.clone()));
        let accepted = reply == NudgeReply::Accepted;
        orders.push(Order::Reply { id, reply });
        if accepted {
            self.push(Trigger::Nudge, orders);
        }
    }

    fn on_end(&mut self, now: u64, end: End) {
        self.run = Run::Idle;
        match end {
            End::Done { due_in } => {
                self.ticket.clear();
                (self.failed_runs, self.held_until, self.hold) = (0, 0, Hold::Free);
                self.age = Age::InTime;
                self.due_at = Some(now + due_in.max(1) * 1_000);
                self.trigger = Trigger::Timer;
                if self.link == Link::Down {
                    self.plan_check_in(now);
                }
            }
            End::Needless => {}
            End::Deferred { after, ticket } => {
                (self.ticket, self.hold) = (ticket, Hold::Deferred);
                self.held_until = now + after.max(1) * 1_000;
                self.due_at = Some(self.held_until);
            }
            End::Failed { ticket } => {
                (self.ticket, self.hold) = (ticket, Hold::Failed);
                let bound = (BACKOFF.start() << self.failed_runs.min(16)).min(*BACKOFF.end());
                self.failed_runs = self.failed_runs.saturating_add(1);
                self.held_until = now + AFTER_FAILURE + self.dice.below(bound);
                self.due_at = Some(self.held_until);
            }
        }
    }

    fn push(&mut self, trigger: Trigger, orders: &mut Vec<Order>) {
        self.run = Run::Going;
        (self.due_at, self.held_until, self.hold) = (None, 0, Hold::Free);
        let ticket = std::mem::take(&mut self.ticket);
        orders.push(Order::Push { trigger, ticket });
    }

    /// What the state asks for, whatever led to it.
    fn act(&mut self, now: u64, orders: &mut Vec<Order>) {
        if self.run == Run::Idle && self.due().is_some_and(|at| at <= now) {
            match self.gate.clone() {
                Gate::Open => {
                    let trigger = std::mem::replace(&mut self.trigger, Trigger::Timer);
                    self.push(trigger, orders);
                }
                Gate::Shut { reason, until } if self.link == Link::Up && !self.told_unwilling => {
                    self.told_unwilling = true;
                    orders.push(Order::Unwilling { reason, until });
                }
                Gate::Shut { .. } => {}
            }
        }
        if self.link == Link::Up && !self.stays() {
            (self.link, self.failures) = (Link::Down, 0);
            orders.push(Order::Hang);
        }
        if self.link == Link::Down && self.next_dial().is_some_and(|at| at <= now) {
            self.link = Link::Dialling;
            self.dial_at = None;
            orders.push(Order::Dial);
        }
    }
}

#[cfg(test)]
mod tests;
