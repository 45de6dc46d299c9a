//! What is forecast is what happens, when the world behaves as the forecast assumes.

use std::sync::Arc;

use backhaul_schedule::fleet::{Outcome, Serving, Trigger, Via};
use backhaul_schedule::forecast::{Start, forecast};
use backhaul_schedule::policy::{Admission, Policy};
use backhaul_schedule::reach::DialResult;
use backhaul_schedule::{Action, Event, Fleet, Now};
use proptest::prelude::*;

use super::world::{DAY, HOUR, Key, START, Session, Shape, key, sighting};

/// Runs the fleet itself: dials are answered, linked clients ask when they are due, runs take 300 s.
fn happens(mut fleet: Fleet, mut now: Now, linked: &[Key], until: i64) -> Vec<(i64, Key)> {
    let (mut began, mut runs, mut session) = (Vec::new(), Vec::<(u64, Key, Session)>::new(), 1_000);
    let mut first = true;
    loop {
        if !first {
            let next = runs.iter().map(|(at, ..)| *at).chain(fleet.next_deadline()).min();
            let Some(at) = next else { return began };
            let passed = at.saturating_sub(now.boot).max(1);
            now = Now { boot: now.boot + passed, wall: now.wall + passed as i64 };
            if now.wall > until {
                return began;
            }
        }
        let mut events: Vec<Event> = Vec::new();
        runs.sort_unstable();
        runs.retain(|(at, key, session)| {
            if *at <= now.boot {
                events.push(Event::Ended(*key, *session, Outcome::Succeeded { at: now.wall, took: 300 }));
            }
            *at > now.boot
        });
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
                for key in linked {
                    let waits =
                        runs.iter().any(|(_, running, _)| running == key) || fleet.place(now, key).is_some();
                    if !waits && fleet.due_in(now, key) == 0 {
                        session += 1;
                        queue.push_back(Event::Request(*key, session, Trigger::Timer, None));
                    }
                }
                continue;
            };
            for action in fleet.step(now, event) {
                match action {
                    Action::Dial(key) => {
                        session += 1;
                        began.push((now.wall, key));
                        runs.push((now.boot + 300, key, session));
                        queue.push_front(Event::Dialled(key, DialResult::Answered, Some(session)));
                    }
                    Action::Grant(key, session) => {
                        began.push((now.wall, key));
                        runs.push((now.boot + 300, key, session));
                    }
                    _ => {}
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]
    #[test]
    fn planned_starts_are_the_starts(
        all in prop::collection::vec((0..2u8, 0..3u8, 0..40i64), 1..8), slots in 1..3usize,
    ) {
        let mut fleet = Fleet::new(Admission { slots: 0, ..Admission::default() });
        let now = Now { boot: 10, wall: START };
        let mut linked = Vec::new();
        for (i, (mode, window, age)) in (0..).zip(all) {
            let shape = Shape { mode, address: true, group: 0, vault: 0, window, period: 0, pause: None };
            let mut plan = shape.plan(START - DAY);
            plan.policy = Arc::new(Policy { alert_after: 1_000 * DAY, ..(*plan.policy).clone() });
            fleet.step(now, Event::Known(key(i), Box::new(plan), Some(START - age * HOUR)));
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
        let planned: Vec<(i64, Key)> =
            forecast(&fleet, now, until).iter().filter(|plan| plan.start != Start::WhenHere).map(|plan| (plan.at, plan.client)).collect();
        let mut real = happens(fleet, now, &linked, until);
        real.sort_unstable();
        prop_assert_eq!(planned, real);
    }
}
