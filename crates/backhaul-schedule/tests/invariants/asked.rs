//! What somebody has asked for by hand of a client that is away.

use backhaul_schedule::fleet::{Cause, Class, OpenRun, Outcome, Trigger, Via};
use backhaul_schedule::forecast::{Start, forecast};
use backhaul_schedule::policy::Admission;
use backhaul_schedule::{Action, Event, Fleet, Now};

use super::world::{DAY, HOUR, START, Shape, key, sighting};

const NOW: Now = Now { boot: 1_000, wall: START };

/// A client that is nudged, has its snapshot and is not there.
fn away() -> (Fleet, Event) {
    let mut fleet = Fleet::new(Admission::default());
    let shape = Shape { mode: 2, address: false, group: 0, vault: 0, window: 0, period: 0, pause: None };
    let known = Event::Known(key(1), Box::new(shape.plan(START - 9 * DAY)), Some(START));
    fleet.step(NOW, known.clone());
    (fleet, known)
}

fn planned(fleet: &Fleet) -> Vec<(i64, Start, Class)> {
    forecast(fleet, NOW, NOW.wall + HOUR).iter().map(|run| (run.at, run.start, run.class)).collect()
}

#[test]
fn a_nudge_by_hand_waits_for_a_client_that_is_away_is_planned_and_outlives_the_server() {
    let (mut fleet, known) = away();
    assert_eq!(planned(&fleet), []);
    assert_eq!(fleet.step(NOW, Event::NudgeWanted(key(1))), []);
    assert!(fleet.take_dirty().contains(&key(1)), "it is to be written down");
    let waits = vec![(NOW.wall, Start::WhenHere, Class::Manual)];
    assert_eq!(planned(&fleet), waits);
    // Another server, with what was written down.
    let memory = fleet.memory(&key(1)).unwrap().clone();
    let mut fleet = Fleet::new(Admission::default());
    fleet.step(NOW, Event::Recalled(key(1), Box::new(memory), OpenRun::No));
    fleet.step(NOW, known);
    assert_eq!(planned(&fleet), waits);
    let told = fleet.step(NOW, Event::Contact(key(1), 7, Via::Standing, sighting()));
    let nudged =
        |action: &Action| matches!(action, Action::Nudge(_, 7, nudge) if nudge.cause == Cause::Manual);
    assert!(told.iter().any(nudged), "{told:?}");
    assert!(!fleet.memory(&key(1)).unwrap().nudge_wanted, "one nudge for one wish");
    fleet.step(NOW, Event::Request(key(1), 8, Trigger::Nudge, None));
    fleet.step(NOW, Event::Ended(key(1), 8, Outcome::Succeeded { at: NOW.wall, took: 60 }));
    assert_eq!(planned(&fleet), []);
}

#[test]
fn what_runs_already_is_not_planned_again_before_its_next_period() {
    let (mut fleet, _) = away();
    fleet.step(NOW, Event::Request(key(1), 8, Trigger::Manual, None));
    assert_eq!(fleet.running(), 1);
    assert_eq!(planned(&fleet), []);
    let tomorrow = forecast(&fleet, NOW, NOW.wall + 2 * DAY);
    assert_eq!(tomorrow.len(), 1, "{tomorrow:?}");
    assert!(tomorrow[0].at > NOW.wall + HOUR && tomorrow[0].start == Start::WhenHere, "{tomorrow:?}");
}

/// A server that is looked at from outside has started nothing yet.
#[test]
fn who_is_due_now_is_planned_though_the_fleet_at_hand_starts_nothing() {
    let mut fleet = Fleet::new(Admission::default());
    fleet.step(NOW, Event::Serving(backhaul_schedule::fleet::Serving::Draining));
    let shape = Shape { mode: 0, address: true, group: 0, vault: 0, window: 0, period: 0, pause: None };
    fleet.step(NOW, Event::Known(key(1), Box::new(shape.plan(START - 9 * DAY)), Some(START - 3 * DAY)));
    assert_eq!(planned(&fleet), [(NOW.wall, Start::Dial, Class::Late)]);
}
