//! What the books make of the server's actions: each promise that an action or its absence breaks is written down.

use backhaul_schedule::due::Standing;
use backhaul_schedule::fleet::{
    Alert, AlertKind, Cause, CloseReason, Deferral, LEASE, NUDGE_TTL, Nudge, RESUME_GRACE, Serving, Subject,
    What, Why,
};
use backhaul_schedule::{Action, Event, Now};

use super::world::{DAY, Key, Nudged, Session, Slot, World};

/// Which side a run begins on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Dial,
    Grant(Session),
}

impl World {
    /// One step: the event is entered into the books, then what the server does is held against them.
    pub fn happen(&mut self, event: Event) {
        let before = self.lateness();
        let seen: Vec<_> = self.people.iter().map(|person| (person.key, person.last_seen)).collect();
        self.enter(&event);
        let asks = match &event {
            Event::Request(key, session, ..) if self.person(key).is_some() => Some((*key, *session)),
            _ => None,
        };
        let actions = self.fleet.step(self.now, event.clone());
        self.note(&event, &actions);
        for action in &actions {
            self.check(action, &event);
        }
        self.people.iter_mut().for_each(|person| person.takes_over = false);
        if let Some(asks) = asks {
            self.check_answer(asks, &actions);
        }
        if let Event::Removed(key) = &event {
            self.check_removed(key, &actions);
        }
        self.check_books(&event);
        self.check_memory(&event, &before, &seen);
        if self.now.boot > self.jumped {
            self.check_nobody_is_left();
        }
    }

    /// A step of a server that does not know all of its clients yet.
    pub fn quietly(&mut self, event: Event) {
        self.enter(&event);
        let actions = self.fleet.step(self.now, event.clone());
        self.note(&event, &actions);
        actions.iter().for_each(|action| self.check(action, &event));
    }

    fn note(&mut self, event: &Event, actions: &[Action]) {
        let event = match event {
            Event::Known(key, plan, last) => {
                format!(
                    "Known({key:?}, {:?}, {}, {:?}, {last:?})",
                    plan.initiator, plan.group, plan.policy.window
                )
            }
            Event::Recalled(key, _, run) => format!("Recalled({key:?}, {run:?})"),
            event => format!("{event:?}"),
        };
        self.log.push(format!("{} {} {event} -> {actions:?}", self.now.boot, self.now.wall));
    }

    fn lateness(&self) -> Vec<(Key, f64)> {
        self.people.iter().map(|person| (person.key, self.fleet.lateness(self.now, &person.key))).collect()
    }

    fn check(&mut self, action: &Action, event: &Event) {
        match action {
            Action::Dial(key) => self.check_dial(key, event),
            Action::Knock(key, nudge) => {
                self.check_nudge(key, *nudge, None);
                self.check_reaching(key);
                self.change(key, |person| person.knocked = true);
                self.check_in_flight();
            }
            Action::CancelDial(key) => self.cancelled(key),
            Action::Grant(key, session) => self.check_grant(key, *session, event),
            Action::Wait(key, session, place) => {
                self.check_asks(key, *session, "Wait");
                if place.why == Why::Running {
                    self.fail(26, "waits because it is running".into());
                }
            }
            Action::Defer(key, session, deferral) => self.check_defer(key, *session, deferral),
            Action::Nudge(key, session, nudge) => self.check_nudge(key, *nudge, Some(*session)),
            Action::Expire(key) => self.check_expire(key),
            Action::Close(key, session, reason) => self.check_close(key, *session, *reason),
            Action::Alert(alert) => self.check_alert(alert),
        }
    }

    fn change(&mut self, key: &Key, change: impl FnOnce(&mut super::world::Person)) {
        if let Some(person) = self.person(key) {
            change(person);
        }
    }

    fn check_dial(&mut self, key: &Key, event: &Event) {
        let Some(person) = self.person(key) else {
            return self.fail(25, "dials a client that is gone".into());
        };
        let (holds, asks) = (person.holds(), person.asking);
        if holds {
            self.fail(1, format!("dials {key:?}, which has a slot"));
        }
        if asks.is_some() {
            self.fail(10, "dials a client that asks".into());
        }
        self.check_reaching(key);
        self.change(key, |person| {
            (person.slot, person.counted) =
                (Slot::Dialling, (person.plan.group.clone(), person.plan.vault.clone()))
        });
        self.check_start(key, By::Dial, event);
        self.check_in_flight();
    }

    /// A client that is there is not dialled.
    fn check_reaching(&mut self, key: &Key) {
        let Some(person) = self.person(key) else {
            return self.fail(25, "knocks at a client that is gone".into());
        };
        let (linked, address, knocked) = (person.link.is_some(), person.plan.has_address, person.knocked);
        if linked {
            self.fail(15, "dials a client that is linked".into());
        }
        if !address {
            self.fail(15, "dials a client without an address".into());
        }
        if knocked {
            self.fail(15, "dials a client twice at once".into());
        }
    }

    fn check_in_flight(&mut self) {
        let (flying, most) = (self.in_flight(), self.admission.dials);
        if flying > most {
            self.fail(15, format!("{flying} dials at once of {most}"));
        }
    }

    fn cancelled(&mut self, key: &Key) {
        let Some(person) = self.person(key) else { return };
        if person.slot != Slot::Dialling && !person.knocked {
            self.fail(15, "cancels a dial that there is not".into());
        } else if person.slot == Slot::Dialling {
            (person.slot, person.takes_over) = (Slot::None, true);
        } else {
            person.knocked = false;
        }
    }

    fn check_grant(&mut self, key: &Key, session: Session, event: &Event) {
        let Some(person) = self.person(key) else {
            return self.fail(25, "lets a client in that is gone".into());
        };
        let (asking, newest, slot) = (person.asking, person.newest, person.slot);
        if asking != Some(session) {
            self.fail(4, format!("grants on {session}, but {asking:?} asks"));
        }
        if session < newest && asking != Some(session) {
            self.fail(5, format!("grants on {session}, the newest is {newest}"));
        }
        let heard = self.now.boot;
        let resumes = match slot {
            Slot::None => self.person(key).is_some_and(|person| person.takes_over),
            Slot::Dialling => {
                self.fail(1, "lets a client in that is being dialled".into());
                false
            }
            Slot::Running { .. } | Slot::Interrupted { .. } => true,
        };
        self.change(key, |person| {
            if let Slot::Running { session: old, .. } = person.slot {
                person.ghosts.push(old);
            }
            (person.asking, person.slot) = (None, Slot::Running { session, heard });
        });
        if !resumes {
            self.change(key, |person| {
                person.counted = (person.plan.group.clone(), person.plan.vault.clone())
            });
            self.check_start(key, By::Grant(session), event);
        }
    }

    /// A new run begins: its slot has just been entered into the books.
    fn check_start(&mut self, key: &Key, by: By, event: &Event) {
        let now = self.now;
        let Some(person) = self.person(key).map(|person| person.clone()) else { return };
        let (group, vault) = (&person.counted.0, &person.counted.1);
        let all = self.held(|_| true);
        let of_group = self.held(|other| other.counted.0 == *group);
        let of_vault = self.held(|other| other.counted.1 == *vault);
        let caps = [self.admission.slots, self.group_cap(group), self.vault_cap(vault)];
        for ((held, cap), of) in
            [all, of_group, of_vault].into_iter().zip(caps).zip(["all", "group", "vault"])
        {
            if held > cap {
                self.fail(2, format!("{held} slots held of {cap} ({of}) after {by:?}"));
            }
        }
        if self.serving != Serving::Open {
            self.fail(2, format!("starts while {:?}", self.serving));
        }
        if person.manual || (person.resumes && by != By::Dial) {
            return;
        }
        if *event == Event::ClockJumped {
            self.fail(19, "starts because the clock jumped".into());
        }
        if person.plan.paused_until.is_some_and(|until| until > now.wall) {
            self.fail(9, "starts while it is paused".into());
        }
        match (person.standing(now), by) {
            (Standing::Waiting { .. }, _) => self.fail(9, "starts outside of its window".into()),
            (Standing::Protected { .. }, _) => self.fail(10, "starts a second run in a period".into()),
            (Standing::Early { .. }, By::Dial) => self.fail(10, "is dialled before its moment".into()),
            _ => {}
        }
    }

    fn check_asks(&mut self, key: &Key, session: Session, what: &str) {
        let asking = self.person(key).and_then(|person| person.asking);
        if asking != Some(session) {
            self.fail(4, format!("{what} for {session}, but {asking:?} asks"));
        }
    }

    fn check_defer(&mut self, key: &Key, session: Session, deferral: &Deferral) {
        self.check_asks(key, session, "Defer");
        if deferral.after == 0 || deferral.after > 8 * DAY as u64 {
            self.fail(18, format!("comes back in {} s", deferral.after));
        }
        if deferral.why == Why::Running {
            self.fail(26, "is sent away because it is running".into());
        }
        self.change(key, |person| person.ghosts.extend(person.asking.take()));
    }

    fn check_nudge(&mut self, key: &Key, nudge: Nudge, link: Option<Session>) {
        let now = self.now;
        let Some(person) = self.person(key).map(|person| person.clone()) else {
            return self.fail(25, "nudges a client that is gone".into());
        };
        if link.is_some() && person.link != link {
            self.fail(4, format!("nudges on {link:?}, the link is {:?}", person.link));
        }
        if person.nudge.is_some_and(|old| now.boot < old.at + NUDGE_TTL) {
            self.fail(12, format!("nudges twice: {:?}", person.nudge));
        }
        if person.holds() || person.asking.is_some() {
            self.fail(13, "nudges a client that runs or asks".into());
        }
        let asked_for = nudge.cause == Cause::Manual;
        if asked_for {
            let hour = person.nudges.iter().filter(|old| old.asked_for && old.at + 3_600 > now.boot).count();
            if !person.nudge_wanted && !person.manual {
                self.fail(12, "nudges for somebody who has not asked".into());
            }
            if hour >= 3 {
                self.fail(12, format!("nudges for the {}. time in an hour", hour + 1));
            }
        } else {
            self.check_unasked(&person, now);
        }
        let nudged = Nudged { id: nudge.id, at: now.boot, asked_for };
        self.change(key, |person| {
            person.nudge = Some(nudged);
            person.nudges.push(nudged);
        });
        let open =
            |person: &&super::world::Person| person.nudge.is_some_and(|open| now.boot < open.at + NUDGE_TTL);
        let open = self.people.iter().filter(open).count();
        // What can be let in within two minutes, when runs take five.
        let free = self.admission.slots.saturating_sub(self.held(|_| true));
        let most = free + (self.admission.slots * 2 / 5).max(1);
        if open > most {
            self.fail(12, format!("{open} nudges, {most} can be let in soon"));
        }
    }

    fn check_unasked(&mut self, person: &super::world::Person, now: Now) {
        if let Some(old) = person.nudges.iter().rev().find(|old| !old.asked_for)
            && now.boot < old.at + 600
        {
            self.fail(12, format!("nudges {} s after the last", now.boot - old.at));
        }
        if person.not_now.is_some_and(|until| until > now.wall) {
            self.fail(13, "nudges a client that does not want to".into());
        }
        if !matches!(person.standing(now), Standing::Due { .. } | Standing::Late { .. }) {
            self.fail(13, format!("nudges a client that is not due: {:?}", person.standing(now)));
        }
    }

    fn check_expire(&mut self, key: &Key) {
        let boot = self.now.boot;
        let slot = self.person(key).map(|person| person.slot);
        match slot {
            Some(Slot::Interrupted { since }) if boot >= since + RESUME_GRACE => {}
            slot => self.fail(19, format!("expires a run that is {slot:?}")),
        }
        self.change(key, |person| (person.slot, person.failed_at) = (Slot::None, Some(boot)));
    }

    fn check_close(&mut self, key: &Key, session: Session, reason: CloseReason) {
        let boot = self.now.boot;
        let Some(person) = self.person(key) else { return };
        let runs = matches!(person.slot, Slot::Running { session: running, .. } if running == session);
        match (reason, person.slot) {
            (CloseReason::Stalled, Slot::Running { heard, .. }) if runs => {
                (person.slot, person.failed_at) = (Slot::None, Some(boot));
                person.ghosts.push(session);
                if boot < heard + LEASE {
                    self.fail(19, format!("a lease ends {} s after its run was heard", boot - heard));
                }
            }
            (CloseReason::Stalled, slot) => self.fail(3, format!("{session} has stalled, but is {slot:?}")),
            (CloseReason::Superseded, _) => {
                if session >= person.newest {
                    self.fail(5, format!("closes {session}, the newest"));
                }
                self.change(key, |person| person.loses(session, boot));
            }
        }
    }

    fn check_alert(&mut self, alert: &Alert) {
        match &alert.subject {
            Subject::Client(key) => {
                let Some(person) = self.person(key) else {
                    return self.fail(25, "an alert of nobody".into());
                };
                let raised = person.alerts.contains(&alert.kind);
                let succeeded = person.succeeded;
                match alert.what {
                    What::Raised => person.alerts.push(alert.kind),
                    What::Cleared => person.alerts.retain(|kind| *kind != alert.kind),
                    What::Reminder => {}
                }
                person.succeeded &= alert.what != What::Raised;
                if raised == (alert.what == What::Raised) {
                    self.fail(22, format!("{alert:?}, raised: {raised}"));
                }
                if alert.what == What::Cleared && alert.kind == AlertKind::Overdue && !succeeded {
                    self.fail(22, "an alert ends without a success".into());
                }
            }
            Subject::Group(group) => {
                let raised = self.dark.contains(group);
                match alert.what {
                    What::Raised => self.dark.push(group.clone()),
                    What::Cleared => self.dark.retain(|dark| dark != group),
                    What::Reminder => {}
                }
                if raised == (alert.what == What::Raised) {
                    self.fail(22, format!("{alert:?}, raised: {raised}"));
                }
            }
        }
    }

    /// Whoever asks is answered, in the same step.
    fn check_answer(&mut self, (key, session): (Key, Session), actions: &[Action]) {
        let answers = |action: &&Action| match action {
            Action::Grant(to, on) | Action::Wait(to, on, _) | Action::Defer(to, on, _) => {
                (*to, *on) == (key, session)
            }
            _ => false,
        };
        let answers = actions.iter().filter(answers).count();
        if answers != 1 {
            self.fail(26, format!("{answers} answers to a request: {actions:?}"));
        }
    }

    fn check_removed(&mut self, key: &Key, actions: &[Action]) {
        let calm = self.now.boot > self.jumped;
        if self.people.is_empty() && calm && self.fleet.next_deadline().is_some() {
            self.fail(25, "a timer is left of clients that are gone".into());
        }
        if self.fleet.explain(self.now, key) != Why::Unknown || self.fleet.memory(key).is_some() {
            self.fail(25, "something is left of a client that is gone".into());
        }
        if actions.iter().any(|action| matches!(action, Action::Grant(of, _) | Action::Dial(of) if of == key))
        {
            self.fail(25, "starts a client that is gone".into());
        }
    }

    /// The server's books against these.
    fn check_books(&mut self, event: &Event) {
        let (held, running) = (self.held(|_| true), self.fleet.running());
        if held != running {
            self.fail(3, format!("{running} slots held, by the books {held}"));
        }
        let asking = self.people.iter().filter(|person| person.asking.is_some()).count();
        if asking != self.fleet.waiting() {
            self.fail(3, format!("{} wait, by the books {asking}", self.fleet.waiting()));
        }
        if let Event::Request(key, ..) = event
            && asking > self.admission.hold
            && self.person(key).is_some_and(|person| person.asking.is_some())
        {
            self.fail(18, format!("{asking} wait on open connections"));
        }
        let boot = self.now.boot;
        for person in self.people.clone() {
            let over = match person.slot {
                Slot::Running { heard, .. } => boot >= heard + LEASE,
                Slot::Interrupted { since } => boot >= since + RESUME_GRACE,
                Slot::None | Slot::Dialling => false,
            };
            if over {
                self.fail(3, format!("a slot is kept for ever: {:?}", person.slot));
            }
            self.check_why(&person);
        }
    }

    /// What is said of a client is true.
    fn check_why(&mut self, person: &super::world::Person) {
        let now = self.now;
        let why = self.fleet.explain(now, &person.key);
        let held = self.held(|_| true);
        let standing = person.standing(now);
        let is_true = match &why {
            Why::Unknown => false,
            Why::Running => matches!(person.slot, Slot::Running { .. }),
            Why::Dialling => person.slot == Slot::Dialling,
            Why::Interrupted { .. } => matches!(person.slot, Slot::Interrupted { .. }),
            Why::Protected { .. } => matches!(standing, Standing::Protected { .. }),
            Why::Early { .. } => matches!(standing, Standing::Early { .. }),
            Why::Shut { .. } => matches!(standing, Standing::Waiting { .. }),
            Why::Paused { until } => person.plan.paused_until == Some(*until) && *until > now.wall,
            Why::NotNow { until, .. } => person.not_now == Some(*until) && *until > now.wall,
            Why::Slots { .. } if now.boot <= self.jumped => true,
            Why::Slots { .. } if person.link.is_some() && person.asking.is_none() => {
                let others = self
                    .people
                    .iter()
                    .filter(|other| other.nudge.is_some() || other.asking.is_some())
                    .count();
                held + others >= self.admission.slots
            }
            Why::Slots { .. } => {
                held + self.admission.reserve_for_clients >= self.admission.slots
                    || self.in_flight() >= self.admission.dials
            }
            Why::GroupFull { cap, .. } => {
                *cap == self.group_cap(&person.plan.group)
                    && self.held(|other| other.counted.0 == person.plan.group) >= *cap
            }
            Why::VaultFull { cap, .. } => {
                *cap == self.vault_cap(&person.plan.vault)
                    && self.held(|other| other.counted.1 == person.plan.vault) >= *cap
            }
            Why::GroupSilent { .. } => self.dark.contains(&person.plan.group),
            Why::FailedRun { .. } | Why::Cut { .. } => person.failed_at.is_some(),
            Why::Nudged => person.nudge.is_some() || person.knocked,
            Why::Linked => person.link.is_some(),
            Why::StorageFull => self.serving == Serving::Full,
            Why::Draining => self.serving == Serving::Draining,
            Why::Unanswered { .. } | Why::DialsSpent { .. } => person.plan.has_address,
            Why::ComesItself => {
                self.fleet.memory(&person.key).is_some_and(|memory| memory.reach.falls_back())
            }
            Why::Absent { .. } => person.link.is_none() && person.asking.is_none(),
        };
        if !is_true
            || (person.holds() != matches!(why, Why::Running | Why::Dialling | Why::Interrupted { .. }))
        {
            self.fail(
                26,
                format!(
                    "{why:?} is not so of {:?} {:?}, {standing:?}, next {:?}, asking {:?}, link {:?}",
                    person.shape,
                    person.slot,
                    self.fleet.next_deadline(),
                    person.asking,
                    person.link
                ),
            );
        }
    }

    /// A free slot and somebody who could have it are not both left.
    fn check_nobody_is_left(&mut self) {
        let now = self.now;
        let free = self.admission.slots.saturating_sub(self.held(|_| true));
        let reserve = self.admission.reserve_for_clients;
        for person in self.people.clone() {
            let cap = |held: usize, cap: usize| cap > held;
            let room = free > 0
                && self.serving == Serving::Open
                && cap(
                    self.held(|other| other.counted.0 == person.plan.group),
                    self.group_cap(&person.plan.group),
                )
                && cap(
                    self.held(|other| other.counted.1 == person.plan.vault),
                    self.vault_cap(&person.plan.vault),
                );
            let why = self.fleet.explain(now, &person.key);
            let of_slots = matches!(why, Why::Slots { .. } | Why::GroupFull { .. } | Why::VaultFull { .. });
            if person.asking.is_some() && room && of_slots {
                self.fail(27, format!("{free} slots are free, and {:?} waits: {why:?}", person.key));
            }
            let dials = self.in_flight() < self.admission.dials;
            let dialled = person.asking.is_none() && person.link.is_none();
            if dialled && room && of_slots && dials && free > reserve {
                self.fail(27, format!("{free} slots are free, and {:?} is not dialled: {why:?}", person.key));
            }
            if person.asking.is_some() && room && person.manual {
                self.fail(
                    27,
                    format!("{free} slots are free, and {:?} waits, for whom somebody asked", person.key),
                );
            }
        }
    }

    /// What is known of a client's past does not become less.
    fn check_memory(&mut self, event: &Event, before: &[(Key, f64)], seen: &[(Key, Option<i64>)]) {
        let changed = |key: &Key| matches!(event, Event::Known(of, ..) | Event::Recalled(of, ..) | Event::Removed(of) if of == key);
        for (key, before) in before {
            let after = self.fleet.lateness(self.now, key);
            // One that is older than the client itself is older than what its lateness was counted from.
            let sound = self
                .person(key)
                .is_some_and(|person| person.last_success.is_none_or(|last| last >= person.plan.added));
            if !changed(key) && sound && after > *before {
                self.fail(21, format!("{key:?} was {before} late, and is {after}"));
            }
        }
        for (key, before) in seen {
            let after = self.fleet.memory(key).and_then(|memory| memory.last_seen);
            if self.person(key).is_some() && after < *before && !changed(key) {
                self.fail(21, format!("{key:?} was seen at {before:?}, then at {after:?}"));
            }
            self.change(key, |person| person.last_seen = after);
        }
    }
}
