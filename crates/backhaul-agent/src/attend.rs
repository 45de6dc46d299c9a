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
/// Unasked nudges that are heeded in an hour, and those that somebody asked for.
const NUDGES: usize = 6;
const NUDGES_BY_HAND: usize = 12;
const HOUR: u64 = 3_600_000;
/// Longest that a server's word keeps this machine away, in seconds.
const AWAY: u64 = 86_400;

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
    /// Why it is asked for then.
    trigger: Trigger,
    ticket: Vec<u8>,
    /// When the server is dialled next.
    dial_at: Option<u64>,
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
            trigger: Trigger::Join,
            ticket: Vec::new(),
            dial_at: None,
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
                (self.link, self.failures) = (Link::Up, 0);
                self.told_unwilling = false;
                self.on_verdict(now, verdict);
            }
            Happening::Told(verdict) => self.on_verdict(now, verdict),
            Happening::Unlinked => {
                if self.link == Link::Up && self.stays() {
                    self.retry(now);
                }
                self.link = Link::Down;
            }
            Happening::NotReached => {
                self.link = Link::Down;
                self.retry(now);
            }
            Happening::TurnedAway { after } => {
                self.link = Link::Down;
                self.retry(now);
                self.dial_at = self.dial_at.max(Some(now + after.min(AWAY) * 1_000));
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
        let dial = self.dial_at.filter(|_| self.link == Link::Down);
        let due = self.due().filter(|_| self.run == Run::Idle && self.gate == Gate::Open);
        [dial, due].into_iter().flatten().min()
    }

    /// True while a run, or the wait for one, is going on.
    pub fn is_running(&self) -> bool {
        self.run == Run::Going
    }

    /// The terms it keeps to.
    pub fn terms(&self) -> &AgentTerms {
        &self.terms
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
        if self.failed_runs > 0 && self.ticket.is_empty() {
            (self.failed_runs, self.held_until) = (0, now);
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
        self.ticket.clear();
        match end {
            End::Done { due_in } => {
                (self.failed_runs, self.held_until) = (0, 0);
                self.age = Age::InTime;
                self.due_at = Some(now + due_in.max(1) * 1_000);
                self.trigger = Trigger::Timer;
                if self.link == Link::Down {
                    self.plan_check_in(now);
                }
            }
            End::Needless => {}
            End::Deferred { after, ticket } => {
                self.ticket = ticket;
                self.held_until = now + after.max(1) * 1_000;
                self.due_at = Some(self.held_until);
            }
            End::Failed { ticket } => {
                self.ticket = ticket;
                let bound = (BACKOFF.start() << self.failed_runs.min(16)).min(*BACKOFF.end());
                self.failed_runs = self.failed_runs.saturating_add(1);
                self.held_until = now + AFTER_FAILURE + self.dice.below(bound);
                self.due_at = Some(self.held_until);
            }
        }
    }

    fn push(&mut self, trigger: Trigger, orders: &mut Vec<Order>) {
        self.run = Run::Going;
        (self.due_at, self.held_until) = (None, 0);
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
            self.link = Link::Down;
            orders.push(Order::Hang);
        }
        if self.link == Link::Down && self.dial_at.is_some_and(|at| at <= now) {
            self.link = Link::Dialling;
            self.dial_at = None;
            orders.push(Order::Dial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_turned_away_stays_away_for_as_long_as_it_was_told_and_at_most_a_day() {
        for (after, away) in [(4 * 3_600, 4 * 3_600), (u64::MAX, 86_400)] {
            let mut attendant = Attendant::new(AgentTerms::default(), 7);
            attendant.handle(0, Happening::Started);
            assert_eq!(attendant.handle(10_000, Happening::Tick), [Order::Dial]);
            assert_eq!(attendant.handle(11_000, Happening::TurnedAway { after }), []);
            assert_eq!(attendant.deadline(), Some(11_000 + away * 1_000));
            // Another network may be another matter.
            let elsewhere = Happening::Network(Some(Fingerprint([1; 8])));
            attendant.handle(12_000, elsewhere);
            assert!(attendant.deadline().is_some_and(|at| at < 20_000));
        }
    }
}
