//! What is forecast is what happens, when the world behaves as the forecast assumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use backhaul_schedule::due::{Record, Standing, standing};
use backhaul_schedule::fleet::{Class, LEASE, Memory, OpenRun, Outcome, Serving, Trigger, Via, offset};
use backhaul_schedule::forecast::{Planned, Start, forecast};
use backhaul_schedule::policy::{Admission, Policy};
use backhaul_schedule::reach::DialResult;
use backhaul_schedule::{Action, Event, Fleet, Now};
use proptest::prelude::*;

use super::world::{DAY, HOUR, Key, START, Session, Shape, key, sighting};

/// What the books say of one client.
struct Known {
    policy: Policy,
    last: i64,
    /// Seconds that its runs take; it has had none if that is not known.
    takes: Option<u64>,
}

impl Known {
    fn takes(&self) -> u64 {
        self.takes.unwrap_or(300)
    }

    fn class(&self, of: Key, at: i64) -> Class {
        let record = Record { offset: offset(&of), last_success: Some(self.last), added: START - DAY };
        match standing(&self.policy, &record, at) {
            Standing::Late { .. } => Class::Late,
            Standing::Due { .. } => Class::Due,
            _ => Class::Opportunistic,
        }
    }

    fn begins(&self, client: Key, at: i64, start: Start) -> Planned {
        Planned { client, at, until: at + self.takes() as i64, start, class: self.class(client, at) }
    }
}

/// A client's limit, the age of its newest snapshot, and how long its runs take.
type Told = (i64, i64, Option<u64>);

/// Adds a client to a fleet and to the books.
fn know(fleet: &mut Fleet, all: &mut BTreeMap<Key, Known>, i: u8, shape: Shape, (rpo, age, takes): Told) {
    let (mut plan, now) = (shape.plan(START - DAY), Now { boot: 10, wall: START });
    let policy = Policy { alert_after: 1_000 * DAY, rpo, ..(*plan.policy).clone() };
    plan.policy = Arc::new(policy.clone());
    let mut memory = Memory::default();
    takes.iter().for_each(|seconds| memory.reach.ran(*seconds));
    fleet.step(now, Event::Recalled(key(i), Box::new(memory), OpenRun::No));
    fleet.step(now, Event::Known(key(i), Box::new(plan), Some(START - age)));
    all.insert(key(i), Known { policy, last: START - age, takes });
}

/// A run: when it ends, in seconds since boot, whose it is, and on which connection.
type Run = (u64, Key, Session);

/// Takes the runs that are over out of the list; returns what is heard of all of them.
fn heard(runs: &mut Vec<Run>, all: &mut BTreeMap<Key, Known>, now: Now) -> Vec<Event> {
    runs.sort_unstable();
    let (over, on): (Vec<Run>, Vec<Run>) = runs.drain(..).partition(|(at, ..)| *at <= now.boot);
    let mut events = Vec::new();
    for (_, key, session) in over {
        let known = all.get_mut(&key).unwrap();
        known.last = now.wall;
        let outcome = Outcome::Succeeded { at: now.wall, took: known.takes() };
        events.push(Event::Ended(key, session, outcome));
    }
    events.extend(on.iter().map(|(_, key, session)| Event::Progress(*key, *session)));
    *runs = on;
    events
}

/// True for a linked client that is due and does not run or wait already.
fn comes(fleet: &Fleet, runs: &[Run], key: &Key, now: Now) -> bool {
    let waits = runs.iter().any(|(_, running, _)| running == key) || fleet.place(now, key).is_some();
    !waits && fleet.due_in(now, key) == 0
}

/// Runs the fleet itself: dials are answered, linked clients ask when they are due, runs take as long as they do.
fn happens(
    mut fleet: Fleet,
    mut now: Now,
    all: &mut BTreeMap<Key, Known>,
    linked: &[Key],
    until: i64,
) -> Vec<Planned> {
    let (mut began, mut runs, mut session) = (Vec::new(), Vec::<Run>::new(), 1_000);
    let mut first = true;
    loop {
        if !first {
            // A run that goes on is heard of every five minutes.
            let progress = (!runs.is_empty()).then_some(now.boot + 300);
            let next = runs.iter().map(|(at, ..)| *at).chain(fleet.next_deadline()).chain(progress).min();
            let Some(at) = next else { return began };
            let passed = at.saturating_sub(now.boot).max(1);
            now = Now { boot: now.boot + passed, wall: now.wall + passed as i64 };
            if now.wall > until {
                return began;
            }
        }
        let mut events = heard(&mut runs, all, now);
        if !first {
            events.push(Event::Tick);
        }
        first = false;
        let mut queue: std::collections::VecDeque<Event> = events.into();
        let mut asked = false;
        loop {
            let Some(event) = queue.pop_front() else {
                if asked {
                    break;
                }
                asked = true;
                for key in linked.iter().filter(|key| comes(&fleet, &runs, key, now)) {
                    session += 1;
                    queue.push_back(Event::Request(*key, session, Trigger::Timer, None));
                }
                continue;
            };
            for action in fleet.step(now, event) {
                match action {
                    Action::Dial(key) => {
                        session += 1;
                        began.push(all[&key].begins(key, now.wall, Start::Dial));
                        runs.push((now.boot + all[&key].takes(), key, session));
                        queue.push_front(Event::Dialled(key, DialResult::Answered, Some(session)));
                    }
                    Action::Grant(key, session) => {
                        began.push(all[&key].begins(key, now.wall, Start::Ask));
                        runs.push((now.boot + all[&key].takes(), key, session));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Some longer than a lease.
fn takes() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(60..5 * LEASE)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]
    #[test]
    fn planned_starts_are_the_starts(
        clients in prop::collection::vec((0..2u8, 0..3u8, 0..40i64, takes()), 1..8), slots in 1..3usize,
    ) {
        let mut fleet = Fleet::new(Admission { slots: 0, ..Admission::default() });
        let now = Now { boot: 10, wall: START };
        let (mut linked, mut all) = (Vec::new(), BTreeMap::new());
        for (i, (mode, window, age, takes)) in (0..).zip(clients) {
            let shape = Shape { mode, address: true, group: 0, vault: 0, window, period: 0, pause: None };
            know(&mut fleet, &mut all, i, shape, (36 * HOUR, age * HOUR, takes));
            if mode == 1 {
                fleet.step(now, Event::Contact(key(i), u64::from(i) + 1, Via::Standing, sighting()));
                linked.push(key(i));
            }
        }
        fleet.step(now, Event::Serving(Serving::Draining));
        fleet.step(now, Event::Admission(Box::new(Admission { slots, ..Admission::default() })));
        linked.sort_unstable();
        // The first who are dialled do not answer, so that the forecast begins with nothing under way.
        for action in fleet.step(now, Event::Serving(Serving::Open)) {
            if let Action::Dial(of) = action {
                fleet.step(now, Event::Dialled(of, DialResult::Silent, None));
            }
        }
        let until = now.wall + 3 * DAY;
        let planned = forecast(&fleet, now, until);
        let mut real = happens(fleet, now, &mut all, &linked, until);
        real.sort_by_key(|real| (real.at, real.client));
        prop_assert_eq!(planned, real);
    }

    /// Who is not here is let in from the moment on that is said, and is not due before.
    #[test]
    fn whoever_is_away_is_let_in_from_the_moment_that_is_said(
        clients in prop::collection::vec((0..3u8, any::<bool>(), any::<bool>(), 0..3u8, 0..41i64, prop::option::of(1..6 * DAY), takes()), 1..8),
        days in 0..3i64,
    ) {
        let mut fleet = Fleet::new(Admission { slots: 0, ..Admission::default() });
        let now = Now { boot: 10, wall: START };
        let (mut away, mut all, mut pauses) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for (i, (mode, address, linked, window, age, pause, takes)) in (0..).zip(clients) {
            let pause = pause.map(|pause| now.wall + pause);
            let shape = Shape { mode, address, group: 0, vault: 0, window, period: 0, pause };
            know(&mut fleet, &mut all, i, shape, (36 * HOUR, age * HOUR, takes));
            pauses.insert(key(i), pause.unwrap_or(0));
            match linked {
                true => drop(fleet.step(now, Event::Contact(key(i), 1, Via::Standing, sighting()))),
                false if mode == 0 && address => {}
                false => away.push(key(i)),
            }
        }
        let until = now.wall + days * DAY;
        let planned = forecast(&fleet, now, until);
        prop_assert!(planned.is_sorted_by_key(|planned| (planned.at, planned.client)), "{planned:?}");
        let planned: Vec<_> = planned.iter().filter(|planned| planned.start == Start::WhenHere).collect();
        let is_due = |client: &Key, at: i64| at >= pauses[client] && all[client].class(*client, at) != Class::Opportunistic;
        for client in &away {
            let said: Vec<_> = planned.iter().filter(|planned| planned.client == *client).collect();
            let Some(first) = said.first() else {
                prop_assert!(!is_due(client, until), "not foretold until {until}");
                continue;
            };
            prop_assert_eq!(said.len(), 1);
            prop_assert!((now.wall..=until).contains(&first.at), "{:?}", first);
            prop_assert_eq!(**first, &all[client].begins(*client, first.at, Start::WhenHere));
            prop_assert!(first.at == now.wall || !is_due(client, first.at - 1), "due before {first:?}");
            let mut then = fleet.clone();
            let at = Now { boot: now.boot + (first.at - now.wall) as u64, wall: first.at };
            then.step(at, Event::Admission(Box::new(Admission { slots: 100, ..Admission::default() })));
            let told = then.step(at, Event::Request(*client, 2, Trigger::Timer, None));
            prop_assert!(told.contains(&Action::Grant(*client, 2)), "{first:?}, but {told:?}");
        }
        prop_assert!(planned.iter().all(|planned| away.contains(&planned.client)), "not away: {planned:?}");
    }
}
