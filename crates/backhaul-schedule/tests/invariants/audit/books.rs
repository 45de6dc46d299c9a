//! What is true after every step: the server's books are these, what it says is so, and nobody is left over.

use backhaul_schedule::Event;
use backhaul_schedule::due::Standing;
use backhaul_schedule::fleet::{LEASE, RESUME_GRACE, Serving, Why};

use crate::world::{Key, Person, Slot, World};

impl World {
    /// The server's books against these.
    pub(super) fn check_books(&mut self, event: &Event) {
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
    fn check_why(&mut self, person: &Person) {
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
    pub(super) fn check_nobody_is_left(&mut self) {
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

    /// What is shown of a client's next run is not before what is said to keep it.
    pub(super) fn check_shown(&mut self) {
        let now = self.now;
        for key in self.people.iter().map(|person| person.key).collect::<Vec<_>>() {
            let (why, starts) = (self.fleet.explain(now, &key), self.fleet.starts_at(now, &key));
            let again_in = match &why {
                Why::Cut { again_in }
                | Why::FailedRun { again_in, .. }
                | Why::Unanswered { again_in, .. } => *again_in as i64,
                Why::NotNow { until, .. } => until - now.wall,
                _ => 0,
            };
            if starts.is_some_and(|starts| starts < now.wall + again_in) {
                self.fail(
                    26,
                    format!("{key:?} is shown to start at {starts:?}, and {why:?} at {}", now.wall),
                );
            }
        }
    }

    /// What is known of a client's past does not become less.
    pub(super) fn check_memory(&mut self, event: &Event, before: &[(Key, f64)], seen: &[(Key, Option<i64>)]) {
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
