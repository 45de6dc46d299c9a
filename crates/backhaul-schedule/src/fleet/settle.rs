//! Judging one client anew: where it belongs now, and when to look again.

use super::client::{Client, Dark, NUDGES_BY_HAND, Phase, Wish};
use super::explain::{self, Around};
use super::queue::{Class, Side};
use super::refuse::refusal;
use super::watch::Here;
use super::{Action, Cause, ClientKey, CloseReason, Fleet, Timer};
use crate::Now;
use crate::due::{Standing, next_begin, shuts_at};

/// A client whose network group is silent is looked at again after so many seconds.
const DARK: u64 = 3_600;

impl Fleet {
    /// Puts a client where it belongs. Costs O(log clients).
    pub(super) fn settle(&mut self, now: Now, key: &ClientKey, out: &mut Vec<Action>) {
        self.judged += 1;
        self.unplace(key);
        self.expire(now, key, out);
        let Some(client) = self.clients.get_mut(key) else { return };
        let standing = client.standing(key, now.wall);
        if client.note_late(standing, now) {
            self.dirty.insert(*key);
        }
        if client.link.is_some() && matches!(standing, Standing::Late { .. }) {
            client.count_awake(now, Here::Stays);
            self.dirty.insert(*key);
        }
        if let Some(asking) = client.asking
            && client.phase == Phase::Idle
            && let Some(deferral) = refusal(client, &asking, standing, now)
        {
            client.asking = None;
            out.push(Action::Defer(*key, asking.session, deferral));
        }
        let dark = if self.groups.is_dark(&client.plan.group) { Dark::Yes } else { Dark::No };
        let wish = match client.wish(standing, now, dark) {
            // One dial at a time: its result is looked at first.
            Wish::Start(Side::Pull, _) | Wish::Knock(_) if self.dialling.contains(key) => Wish::Nothing,
            wish => wish,
        };
        match wish {
            Wish::Start(Side::Pull, _) => drop(client.queued.get_or_insert(now.wall)),
            _ => client.queued = None,
        }
        match wish {
            Wish::Nothing => {}
            Wish::Start(side, class) => {
                let (lane, rank) = (client.lane(side), client.rank(key, class, side, now));
                self.queue.insert(&lane, rank, *key);
                client.place = Some((lane, rank));
            }
            Wish::Nudge(cause) => {
                let rank = client.rank(key, cause.class(), Side::Push, now);
                client.asked_for = Some(rank);
                self.nudges.insert((rank, *key));
            }
            Wish::Knock(cause) => {
                let rank = client.rank(key, cause.class(), Side::Push, now);
                client.asked_for = Some(rank);
                self.knocks.insert((rank, *key));
            }
        }
        let around = Around { queue: &self.queue, groups: &self.groups, serving: self.serving };
        let why = || explain::why(client, standing, now, &around).to_string();
        let alerts = client.alerts(key, standing, now, &why);
        if !alerts.is_empty() {
            client.told(&alerts, now);
            self.dirty.insert(*key);
            out.extend(alerts.into_iter().map(Action::Alert));
        }
        let at = client.look_again(key, standing, dark, now);
        client.timer = at;
        if let Some(at) = at {
            self.timers.insert((at, Timer::Client(*key)));
        }
    }

    /// Takes a client out of everything that orders clients.
    pub(super) fn unplace(&mut self, key: &ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if let Some((lane, rank)) = client.place.take() {
            self.queue.remove(&lane, rank, *key);
        }
        if let Some(rank) = client.asked_for.take() {
            self.nudges.remove(&(rank, *key));
            self.knocks.remove(&(rank, *key));
        }
        if let Some(at) = client.timer.take() {
            self.timers.remove(&(at, Timer::Client(*key)));
        }
    }

    /// Ends what has lasted too long.
    fn expire(&mut self, now: Now, key: &ClientKey, out: &mut Vec<Action>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match client.phase {
            Phase::Interrupted { until } if until <= now.boot => {
                out.push(Action::Expire(*key));
                self.end_run(now, key);
            }
            Phase::Running { session, lease } if lease <= now.boot => {
                out.push(Action::Close(*key, session, CloseReason::Stalled));
                self.end_run(now, key);
            }
            _ => {}
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.nudged.open.is_some_and(|(_, expires)| expires <= now.boot) {
            client.nudged.open = None;
            self.open_nudges = self.open_nudges.saturating_sub(1);
        }
    }

    /// Gives a client's slot back, after a run that came to nothing: the next is not tried at once.
    pub(super) fn end_run(&mut self, now: Now, key: &ClientKey) {
        self.release(key);
        if let Some(client) = self.clients.get_mut(key) {
            client.manual = None;
            client.retry_at = now.boot + client.retry_pause(key);
        }
    }

    /// Gives a client's slot back.
    pub(super) fn release(&mut self, key: &ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.phase = Phase::Idle;
        if let Some(lane) = client.held.take() {
            self.queue.release(&lane);
        }
    }
}

impl Cause {
    fn class(self) -> Class {
        match self {
            Self::Manual => Class::Manual,
            Self::Overdue => Class::Late,
            Self::Due => Class::Due,
        }
    }
}

impl Client {
    /// When this client has to be judged again though nothing happens, in seconds since boot.
    fn look_again(&self, key: &ClientKey, standing: Standing, dark: Dark, now: Now) -> Option<u64> {
        let wall = |at: i64| now.boot.saturating_add(u64::try_from(at - now.wall).unwrap_or(0));
        let policy = &self.plan.policy;
        let shuts = || policy.window.as_ref().map(|window| wall(shuts_at(window, now.wall)));
        let mut times = [None; 13];
        times[0] = match standing {
            Standing::Protected { next } | Standing::Early { next } | Standing::Waiting { next } => {
                Some(wall(next))
            }
            Standing::Due { .. } => Some(wall(next_begin(policy, now.wall))),
            Standing::Late { .. } => None,
        };
        // Whoever has waited for too long is late, whether its window is open or shut.
        let basis = self.last_success.map_or(self.plan.added, |last| last.min(now.wall));
        times[9] = Some(wall(basis.saturating_add(policy.rpo)));
        times[1] = match self.phase {
            Phase::Interrupted { until } => Some(until),
            Phase::Running { lease, .. } => Some(lease),
            Phase::Idle | Phase::Dialling => None,
        };
        times[2] = Some(self.tries.not_before);
        times[3] = Some(self.retry_at);
        times[4] = self.memory.not_now.as_ref().map(|not_now| wall(not_now.until));
        times[5] = self.nudged.open.map(|(_, expires)| expires);
        let nudged = matches!(standing, Standing::Due { .. } | Standing::Late { .. })
            && (self.link.is_some() || self.plan.has_address);
        times[6] = nudged.then(|| self.nudge_after(standing, now));
        times[7] = self.promotion(now.wall).filter(|_| self.place.is_some()).map(wall);
        times[8] = self.plan.paused_until.map(wall);
        // Whoever may start now may not once the window shuts.
        times[10] = shuts().filter(|_| matches!(standing, Standing::Early { .. } | Standing::Due { .. }));
        // A new period gives new dials; whoever has spent them is looked at then.
        times[11] = (self.tries.dials > 0).then(|| wall(self.next_period(key, now)));
        times[12] = match dark {
            // Nobody says when a group answers again; pulls are held back in the queue, knocks are not in it.
            Dark::Yes if self.plan.has_address => Some(now.boot + DARK),
            _ => self.nudged.by_hand[2].map(|oldest| oldest + NUDGES_BY_HAND),
        };
        times.into_iter().chain(self.watch_at(standing, now)).flatten().filter(|at| *at > now.boot).min()
    }
}
