//! Starting whoever may start: slots, dials and nudges given out.

use super::client::{Manual, Phase};
use super::queue::{Side, Takes};
use super::{Action, Cause, ClientKey, Deferral, Fleet, LEASE, NUDGE_TTL, Nudge, Place, Serving, Timer};
use crate::Now;
use crate::due::period_begin;
use crate::fleet::explain::Why;

/// Retries of dials that may be made at once, in tenths. Each first dial earns one tenth (SRE book, chapter 21: retries
/// are bounded to 10 % of requests), and so does every six seconds, so that small fleets are not held up.
pub(super) const RETRIES_MAX: u64 = 320;
const RETRY: u64 = 10;
/// A retry that is not affordable is put off by so many seconds, and up to as many more, each client by its own number:
/// hundreds that are away must not be judged again every minute.
const UNAFFORDABLE: u64 = 600;
/// Nudges bring runs within this, in seconds: no more of them than can be let in by then.
const HORIZON: u64 = 120;

impl Fleet {
    pub(super) fn fill(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.serving != Serving::Open || self.calm_at.is_some_and(|at| now.boot < at) {
            return;
        }
        self.calm_at = None;
        loop {
            let room = self.dialling.len() < self.admission.dials;
            let takes = if room { Takes::Both } else { Takes::PushOnly };
            let Some(key) = self.queue.next(takes) else { break };
            self.start(now, &key, out);
        }
        self.send_nudges(now, out);
    }

    /// Gives a waiting client its slot.
    pub(super) fn start(&mut self, now: Now, key: &ClientKey, out: &mut Vec<Action>) {
        let Some((lane, _)) = self.clients.get(key).and_then(|client| client.place.clone()) else { return };
        if lane.side == Side::Pull && !self.affords(now, key) {
            return self.settle(now, key, out);
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        client.held = Some(lane.clone());
        match (lane.side, client.asking.take()) {
            (Side::Push, Some(asking)) => {
                client.by = asking.trigger.remedy();
                client.phase = Phase::Running { session: asking.session, lease: now.boot + LEASE };
                out.push(Action::Grant(*key, asking.session));
            }
            _ => {
                client.phase = Phase::Dialling;
                self.count_dial(now, key);
                out.push(Action::Dial(*key));
            }
        }
        self.queue.hold(&lane);
        self.settle(now, key, out);
    }

    /// Whether a client may be dialled now. One that did not answer the last time is put off when no retry is left, unless
    /// somebody asks for it.
    fn affords(&mut self, now: Now, key: &ClientKey) -> bool {
        let earned = now.boot.saturating_sub(self.budget_at) / 6;
        self.budget_at += earned * 6;
        self.retry_budget = (self.retry_budget + earned).min(RETRIES_MAX);
        let Some(client) = self.clients.get_mut(key) else { return false };
        let by_hand = client.is_asked_for();
        if by_hand || client.tries.failures == 0 || self.retry_budget >= RETRY {
            return true;
        }
        client.tries.not_before = now.boot + UNAFFORDABLE + super::offset(key) % UNAFFORDABLE;
        false
    }

    /// Notes that a client is dialled.
    fn count_dial(&mut self, now: Now, key: &ClientKey) {
        self.dialling.insert(*key);
        let Some(client) = self.clients.get_mut(key) else { return };
        let period = period_begin(&client.plan.policy, now.wall);
        if client.tries.period != period {
            (client.tries.period, client.tries.dials) = (period, 0);
        }
        client.tries.dials += 1;
        client.came_meanwhile = false;
        self.retry_budget = match client.tries.failures {
            0 => (self.retry_budget + 1).min(RETRIES_MAX),
            _ => self.retry_budget.saturating_sub(RETRY),
        };
    }

    /// Runs that are likely to end within some seconds, at least one.
    fn expected_ends(&self, within: u64) -> u64 {
        (self.admission.slots as u64 * within / self.run_length.max(1)).max(1)
    }

    /// Nudges no more clients than can be let in soon.
    fn send_nudges(&mut self, now: Now, out: &mut Vec<Action>) {
        let room = self.queue.free() as u64 + self.expected_ends(HORIZON);
        let waiting = self.queue.asking() as u64;
        while (self.open_nudges as u64) + waiting < room {
            let Some((_, key)) = self.nudges.first().copied() else { break };
            self.nudge(now, &key, out);
        }
        while (self.open_nudges as u64) + waiting < room && self.dialling.len() < self.admission.dials {
            let Some((_, key)) = self.knocks.first().copied() else { break };
            let dark = self.clients.get(&key).is_some_and(|client| self.groups.is_dark(&client.plan.group));
            match !dark && self.affords(now, &key) {
                true => self.nudge(now, &key, out),
                false => self.settle(now, &key, out),
            }
        }
    }

    fn nudge(&mut self, now: Now, key: &ClientKey, out: &mut Vec<Action>) {
        let id = self.next_nudge;
        let Some(client) = self.clients.get_mut(key) else { return };
        let by_hand = client.is_asked_for();
        let late = client.record(key).lateness(&client.plan.policy, now.wall) >= 1.0;
        let cause = match (by_hand, late) {
            (true, _) => Cause::Manual,
            (false, true) => Cause::Overdue,
            (false, false) => Cause::Due,
        };
        let nudge = Nudge { id, cause, ttl: NUDGE_TTL };
        self.next_nudge += 1;
        self.open_nudges += 1;
        client.nudged.open = Some((id, now.boot + NUDGE_TTL));
        if std::mem::take(&mut client.memory.nudge_wanted) {
            self.dirty.insert(*key);
        }
        client.nudged.last = Some(now.boot);
        if by_hand {
            // What it asks for then is wanted, whether it is due or not.
            client.manual.get_or_insert(Manual { since: now.wall });
            client.nudged.by_hand.rotate_right(1);
            client.nudged.by_hand[0] = Some(now.boot);
        }
        match client.link {
            Some(link) => out.push(Action::Nudge(*key, link.session, nudge)),
            None => {
                self.count_dial(now, key);
                out.push(Action::Knock(*key, nudge));
            }
        }
        self.settle(now, key, out);
    }

    /// Tells a client that has asked and was not let in where it stands.
    pub(super) fn answer(&mut self, now: Now, key: ClientKey, out: &mut Vec<Action>) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let (Some(asking), Some((_, rank))) = (client.asking, client.place.clone()) else { return };
        let why = self.explain(now, &key);
        let position = self.queue.position(rank, key, self.admission.hold);
        if self.queue.asking() <= self.admission.hold {
            let eta = self.wait_for(position);
            let place = Place { position, eta, since: asking.since, why };
            return out.push(Action::Wait(key, asking.session, place));
        }
        let rate = (self.admission.slots as u64 * 60).div_ceil(self.run_length.max(1));
        let at = self.calendar.book(now.boot, now.boot + self.wait_for(self.queue.asking()), rate);
        if let Some(client) = self.clients.get_mut(&key) {
            client.asking = None;
        }
        let deferral = Deferral { after: at - now.boot, since: Some(asking.since), why };
        out.push(Action::Defer(key, asking.session, deferral));
        self.settle(now, &key, out);
    }

    /// Seconds until so many others have been let in.
    fn wait_for(&self, position: usize) -> u64 {
        (position as u64 + 1) * self.run_length / self.admission.slots.max(1) as u64
    }

    /// Where a waiting client stands now; none once it waits no more.
    pub fn place(&self, now: Now, key: &ClientKey) -> Option<Place> {
        let client = self.clients.get(key)?;
        let (asking, (_, rank)) = (client.asking?, client.place.as_ref()?);
        let position = self.queue.position(*rank, *key, self.admission.hold);
        let why: Why = self.explain(now, key);
        Some(Place { position, eta: self.wait_for(position), since: asking.since, why })
    }

    /// Dials one of a group that has fallen silent, to see whether it is back.
    pub(super) fn probe(&mut self, now: Now, group: &crate::policy::Group, out: &mut Vec<Action>) {
        let Some(next) = self.groups.probe(group, now.boot) else { return };
        self.timers.insert((next, Timer::Group(group.clone())));
        let room = self.serving == Serving::Open
            && self.queue.free() > 0
            && self.dialling.len() < self.admission.dials;
        if let Some(key) = self.queue.first(group).filter(|_| room) {
            self.start(now, &key, out);
        }
    }
}
