//! What is known of a client: that it is there, what was kept of it, that it is gone.

use super::client::{Client, NOT_NOW_MAX, Phase};
use super::queue::Side;
use super::{Action, ClientKey, CloseReason, Fleet, Memory, OpenRun, Plan, RESUME_GRACE, Timer};
use crate::Now;
use crate::policy::{Group, Initiator};
use crate::reach::Mode;

/// True for a client that counts as a member of its network group: one that is always dialled.
pub(super) fn is_dialled(plan: &Plan) -> bool {
    plan.has_address && plan.initiator == Initiator::Fixed(Mode::Server)
}

impl Fleet {
    pub(super) fn on_known(
        &mut self,
        now: Now,
        key: &ClientKey,
        plan: Plan,
        last: Option<i64>,
        out: &mut Vec<Action>,
    ) {
        // Out of the queue while the lane it is in is still known.
        self.unplace(key);
        // A snapshot from the future says that a clock was set back: it counts as made now, once.
        let after = is_dialled(&plan).then(|| plan.group.clone());
        let mut pause = None;
        let before = match self.clients.get_mut(key) {
            Some(client) => {
                pause = plan.paused_until.filter(|until| now.wall < *until && !client.is_paused(now.wall));
                let before = is_dialled(&client.plan).then(|| client.plan.group.clone());
                client.plan = plan;
                // What is known is never forgotten because of an older reading.
                client.last_success = client.last_success.max(last.filter(|last| *last <= now.wall));
                before
            }
            None => {
                self.clients.insert(*key, Client::new(plan, last.map(|last| last.min(now.wall))));
                None
            }
        };
        if before != after {
            after.iter().for_each(|group| self.groups.join(group));
            before.iter().for_each(|group| self.leave(group, out));
        }
        if let Some(until) = pause {
            self.interrupt(now, key, until, out);
        }
        match self.recalled.remove(key) {
            Some(kept) => self.on_recalled(now, key, kept, out),
            None => self.settle(now, key, out),
        }
    }

    /// A pause has begun: what is under way is no exception. What is asked for by hand later is.
    fn interrupt(&mut self, now: Now, key: &ClientKey, until: i64, out: &mut Vec<Action>) {
        let Some(client) = self.clients.get(key) else { return };
        match client.phase {
            Phase::Running { session, .. } => {
                out.push(Action::Close(*key, session, CloseReason::Paused { until }));
            }
            Phase::Interrupted { .. } => out.push(Action::Expire(*key)),
            Phase::Dialling if client.manual.is_none() && self.dialling.remove(key) => {
                out.push(Action::CancelDial(*key));
                return self.release(key);
            }
            Phase::Idle | Phase::Dialling => return,
        }
        self.end_run(now, key);
    }

    pub(super) fn on_recalled(
        &mut self,
        now: Now,
        key: &ClientKey,
        (memory, run): (Box<Memory>, OpenRun),
        out: &mut Vec<Action>,
    ) {
        let Some(client) = self.clients.get_mut(key) else {
            self.recalled.insert(*key, (memory, run));
            return;
        };
        if client.phase == Phase::Idle {
            client.memory = *memory;
            if run == OpenRun::Yes {
                let lane = client.lane(Side::Push);
                client.phase = Phase::Interrupted { until: now.boot + RESUME_GRACE };
                client.held = Some(lane.clone());
                self.queue.hold(&lane);
            }
        }
        self.settle(now, key, out);
    }

    /// All that was planned by the wall clock is planned anew, and nothing starts because of the jump itself.
    pub(super) fn on_jump(&mut self, now: Now, out: &mut Vec<Action>) {
        let all: Vec<ClientKey> = self.clients.keys().copied().collect();
        for key in &all {
            if let Some(client) = self.clients.get_mut(key) {
                client.last_success = client.last_success.map(|last| last.min(now.wall));
                // No refusal is for longer: this one was said before the clock was set back.
                if client.memory.not_now.take_if(|not_now| not_now.until > now.wall + NOT_NOW_MAX).is_some() {
                    self.dirty.insert(*key);
                }
            }
            self.settle(now, key, out);
        }
        self.timers.insert((now.boot + 1, Timer::Calm));
        self.calm_at = Some(now.boot + 1);
    }

    pub(super) fn on_removed(&mut self, key: &ClientKey, out: &mut Vec<Action>) {
        self.unplace(key);
        self.close_nudge(key, None);
        self.release(key);
        if self.dialling.remove(key) {
            out.push(Action::CancelDial(*key));
        }
        if let Some(client) = self.clients.remove(key).filter(|client| is_dialled(&client.plan)) {
            self.leave(&client.plan.group, out);
        }
        self.recalled.remove(key);
        self.dirty.remove(key);
    }

    /// A member leaves its group; a group without members is not silent.
    fn leave(&mut self, group: &Group, out: &mut Vec<Action>) {
        self.groups.leave(group);
        if self.groups.members(group) == 0 {
            self.light(group, out);
            self.groups.forget(group);
        }
    }
}
