//! What each event changes.

use super::client::{Asking, Client, Link, Manual, NOT_NOW_MAX, Phase, Tries};
use super::known;
use super::refuse::closed;
use super::watch::{ClearedBy, Here};
use super::{
    Action, Alert, AlertKind, ClientKey, CloseReason, Event, Fleet, LEASE, NotNow, NudgeAnswer, Outcome,
    Serving, Session, Subject, Timer, Trigger, Via, What,
};
use crate::Now;
use crate::policy::Group;
use crate::reach::{DialResult, Remedy, Sighting};

/// A ticket is good for so long, in seconds.
const TICKET: i64 = 7 * 86_400;

impl Fleet {
    /// Changes the state; returns who is to be answered once it is known who starts.
    pub(super) fn take(&mut self, now: Now, event: Event, out: &mut Vec<Action>) -> Option<ClientKey> {
        match event {
            Event::Known(key, plan, last) => self.on_known(now, &key, *plan, last, out),
            Event::Recalled(key, memory, run) => self.on_recalled(now, &key, (memory, run), out),
            Event::Removed(key) => self.on_removed(&key, out),
            Event::Admission(admission) => {
                self.queue.set_admission((*admission).clone());
                self.admission = *admission;
            }
            Event::Manual(key) => {
                if let Some(client) = self.clients.get_mut(&key) {
                    client.manual = Some(Manual { since: now.wall });
                    client.tries = Tries::default();
                }
                self.settle(now, &key, out);
            }
            Event::NudgeWanted(key) => {
                if let Some(client) = self.clients.get_mut(&key) {
                    client.memory.nudge_wanted = true;
                    self.dirty.insert(key);
                }
                self.settle(now, &key, out);
            }
            Event::Contact(key, session, via, sighting) => {
                self.on_contact(now, &key, (session, via), &sighting, out)
            }
            Event::LinkLost(key, session) => self.on_lost(now, &key, session, out),
            Event::Request(key, session, trigger, since) => {
                self.on_request(now, &key, (session, trigger, since), out);
                return Some(key);
            }
            Event::NudgeAnswered(key, id, answer) => {
                if answer == NudgeAnswer::Needless {
                    self.close_nudge(&key, Some(id));
                    self.settle(now, &key, out);
                }
            }
            Event::Unwilling(key, not_now) => self.on_unwilling(now, &key, not_now, out),
            Event::Dialled(key, result, session) => self.on_dialled(now, &key, result, session, out),
            Event::Progress(key, session) => {
                if let Some(Phase::Running { session: running, lease }) =
                    self.clients.get_mut(&key).map(|client| &mut client.phase)
                    && *running == session
                {
                    *lease = now.boot + LEASE;
                }
            }
            Event::Ended(key, session, outcome) => self.on_ended(now, &key, session, outcome, out),
            Event::Serving(serving) => self.on_serving(now, serving, out),
            Event::ClockJumped => self.on_jump(now, out),
            Event::Tick => {}
        }
        None
    }

    pub(super) fn run_timers(&mut self, now: Now, out: &mut Vec<Action>) {
        while let Some((at, timer)) = self.timers.first().cloned().filter(|(at, _)| *at <= now.boot) {
            self.timers.remove(&(at, timer.clone()));
            match timer {
                Timer::Client(key) => {
                    if let Some(client) = self.clients.get_mut(&key) {
                        client.timer = None;
                    }
                    self.settle(now, &key, out);
                }
                Timer::Group(group) => self.probe(now, &group, out),
                Timer::Calm => {}
            }
        }
    }

    fn on_contact(
        &mut self,
        now: Now,
        key: &ClientKey,
        (session, via): (Session, Via),
        sighting: &Sighting,
        out: &mut Vec<Action>,
    ) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let in_vain = client.tries.failures.min(1);
        client.heard(now);
        // Its coming says nothing about its listener. Would a dial in vain be forgotten, it would be told to wait for
        // the next one instead of being told that it is due.
        client.tries.failures = in_vain;
        client.memory.reach.contact(now.wall, sighting);
        client.consider_mode(now.wall);
        client.clear(key, ClearedBy::Contact, out);
        let goes_on = client.link.filter(|link| link.session == session);
        match (via, goes_on) {
            // A word on a link that stands already: what was said before still holds.
            (Via::Standing, Some(link)) => client.memory.reach.linked(link.since.wall, now.wall),
            // Who comes anew says anew what it does not want.
            _ => client.memory.not_now = None,
        }
        let newer = client.link.is_some_and(|link| link.session > session);
        if via == Via::Standing && newer {
            // What was said first may be heard last.
            out.push(Action::Close(*key, session, CloseReason::Superseded));
        } else if via == Via::Standing && goes_on.is_none() {
            let older = client.link.replace(Link { session, since: now });
            if let Some(older) = older {
                client.memory.reach.online(older.since.wall, now.wall);
                out.push(Action::Close(*key, older.session, CloseReason::Superseded));
            }
        }
        self.dirty.insert(*key);
        let group = client.plan.group.clone();
        self.light(&group, out);
        self.settle(now, key, out);
    }

    /// A group that was silent has been heard.
    pub(super) fn light(&mut self, group: &Group, out: &mut Vec<Action>) {
        if !self.groups.heard(group) {
            return;
        }
        self.queue.set_dark(group, false);
        self.timers.retain(|(_, timer)| *timer != Timer::Group(group.clone()));
        let text = format!("network group {group} answers again");
        let subject = Subject::Group(group.clone());
        out.push(Action::Alert(Alert { kind: AlertKind::GroupSilent, what: What::Cleared, subject, text }));
    }

    fn on_lost(&mut self, now: Now, key: &ClientKey, session: Session, out: &mut Vec<Action>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if let Some(link) = client.link.filter(|link| link.session == session) {
            client.count_awake(now, Here::Stays);
            client.memory.reach.online(link.since.wall, now.wall);
            client.memory.last_seen = client.memory.last_seen.max(Some(now.wall));
            client.link = None;
            self.dirty.insert(*key);
        }
        if client.asking.is_some_and(|asking| asking.session == session) {
            client.asking = None;
        }
        if matches!(client.phase, Phase::Running { session: running, .. } if running == session) {
            client.phase = Phase::Interrupted { until: now.boot + super::RESUME_GRACE };
        }
        self.settle(now, key, out);
    }

    fn on_request(
        &mut self,
        now: Now,
        key: &ClientKey,
        (session, trigger, since): (Session, Trigger, Option<i64>),
        out: &mut Vec<Action>,
    ) {
        // Whoever was nudged by hand comes because somebody asked for it, whenever the next run is due.
        let by_hand = self.clients.get(key).is_some_and(Client::is_nudged_by_hand);
        let trigger = if by_hand { Trigger::Manual } else { trigger };
        self.close_nudge(key, None);
        if self.dialling.remove(key) {
            out.push(Action::CancelDial(*key));
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        let phase = client.phase;
        if client.newest().is_some_and(|newest| newest > session) {
            // What was asked first may be heard last.
            return out.push(Action::Close(*key, session, CloseReason::Superseded));
        }
        if phase != Phase::Idle {
            client.phase = Phase::Running { session, lease: now.boot + LEASE };
            client.asking = None;
            match phase {
                Phase::Running { session: older, .. } if older != session => {
                    out.push(Action::Close(*key, older, CloseReason::Superseded));
                }
                _ => {}
            }
            out.push(Action::Grant(*key, session));
            return self.settle(now, key, out);
        }
        let older = client.asking.take();
        if let Some(older) = older.filter(|older| older.session != session) {
            out.push(Action::Close(*key, older.session, CloseReason::Superseded));
        }
        let oldest = now.wall.saturating_sub(TICKET);
        let since = since
            .into_iter()
            .chain(older.map(|older| older.since))
            .min()
            .unwrap_or(now.wall)
            .clamp(oldest, now.wall);
        let asking = Asking { session, trigger, since };
        match closed(key, self.serving, since) {
            Some(deferral) => out.push(Action::Defer(*key, session, deferral)),
            // Whether it may wait is judged like everything else about it.
            None => client.asking = Some(asking),
        }
        self.settle(now, key, out);
    }

    /// Counts a nudge as done with.
    pub(super) fn close_nudge(&mut self, key: &ClientKey, only: Option<u64>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.nudged.open.is_some_and(|(id, _)| only.is_none_or(|only| only == id)) {
            client.nudged.open = None;
            self.open_nudges = self.open_nudges.saturating_sub(1);
        }
    }

    /// Who waits on a connection of a server that stops is told when to come back, and keeps its place.
    fn on_serving(&mut self, now: Now, serving: Serving, out: &mut Vec<Action>) {
        self.serving = serving;
        if serving != Serving::Draining {
            return;
        }
        for key in self.queue.who_asks() {
            let Some(client) = self.clients.get_mut(&key) else { continue };
            let Some(asking) = client.asking.take() else { continue };
            if let Some(deferral) = closed(&key, serving, asking.since) {
                out.push(Action::Defer(key, asking.session, deferral));
            }
            self.settle(now, &key, out);
        }
    }

    fn on_unwilling(&mut self, now: Now, key: &ClientKey, not_now: NotNow, out: &mut Vec<Action>) {
        let answers = self.clients.get(key).is_some_and(|client| client.nudged.open.is_some());
        self.close_nudge(key, None);
        let Some(client) = self.clients.get_mut(key) else { return };
        let until = not_now.until.clamp(now.wall + 1, now.wall + NOT_NOW_MAX);
        client.memory.not_now = Some(NotNow { until, ..not_now });
        client.asking = None;
        if answers {
            // Somebody asked, and was told no.
            client.manual = None;
        }
        self.dirty.insert(*key);
        self.settle(now, key, out);
    }

    fn on_dialled(
        &mut self,
        now: Now,
        key: &ClientKey,
        result: DialResult,
        session: Option<Session>,
        out: &mut Vec<Action>,
    ) {
        if !self.dialling.remove(key) {
            // It was given up: the client has come by itself, or is gone.
            return;
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        client.memory.reach.dialled(now.wall, result);
        self.dirty.insert(*key);
        let for_a_run = client.phase == Phase::Dialling;
        let (group, is_member) = (client.plan.group.clone(), known::is_dialled(&client.plan));
        if result == DialResult::Answered {
            client.heard(now);
            match session {
                Some(session) if for_a_run => {
                    client.by = Remedy::Dial;
                    client.phase = Phase::Running { session, lease: now.boot + LEASE }
                }
                // It was there, and is gone before anything could begin.
                None if for_a_run => {
                    self.end_run(now, key);
                    return self.settle(now, key, out);
                }
                _ => {}
            }
            client.consider_mode(now.wall);
            client.clear(key, ClearedBy::Contact, out);
            self.light(&group, out);
            return self.settle(now, key, out);
        }
        let silent = result == DialResult::Silent && is_member && !client.came_meanwhile;
        client.missed(key, result, now);
        match for_a_run {
            true => self.release(key),
            false => self.close_nudge(key, None),
        }
        if silent {
            self.darken(now, &group, *key, out);
        }
        self.settle(now, key, out);
    }

    fn darken(&mut self, now: Now, group: &Group, key: ClientKey, out: &mut Vec<Action>) {
        let Some(probe_at) = self.groups.silent(group, key, now.boot) else { return };
        self.queue.set_dark(group, true);
        self.timers.insert((probe_at, Timer::Group(group.clone())));
        let text = format!(
            "network group {group}: most of its {} machines fell silent within minutes; one is tried now and then",
            self.groups.members(group)
        );
        let subject = Subject::Group(group.clone());
        out.push(Action::Alert(Alert { kind: AlertKind::GroupSilent, what: What::Raised, subject, text }));
    }

    fn on_ended(
        &mut self,
        now: Now,
        key: &ClientKey,
        session: Session,
        outcome: Outcome,
        out: &mut Vec<Action>,
    ) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if !matches!(client.phase, Phase::Running { session: running, .. } if running == session) {
            return;
        }
        self.dirty.insert(*key);
        client.heard(now);
        match outcome {
            Outcome::Succeeded { at, took } => {
                self.run_length = (self.run_length * 7 + took.clamp(1, 86_400)).div_ceil(8);
                client.succeeded(key, at.min(now.wall), took, out);
                self.release(key);
            }
            Outcome::Aside => self.release(key),
            Outcome::Failed { code, why } => {
                client.memory.failed_runs = client.memory.failed_runs.saturating_add(1);
                client.memory.failure = Some((code, why));
                self.end_run(now, key);
            }
            Outcome::CutShort => self.end_run(now, key),
            Outcome::NotNow(not_now) => {
                client.manual = None;
                self.release(key);
                return self.on_unwilling(now, key, not_now, out);
            }
        }
        self.settle(now, key, out);
    }
}
