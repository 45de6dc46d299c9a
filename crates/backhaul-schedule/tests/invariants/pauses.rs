//! A pause that begins while something is under way.

use backhaul_schedule::fleet::{CloseReason, Outcome, Trigger};
use backhaul_schedule::policy::Admission;
use backhaul_schedule::reach::DialResult;
use backhaul_schedule::{Action, Event, Fleet, Now};
use proptest::prelude::*;

use super::world::{DAY, HOUR, START, Session, Shape, key};

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Dialled,
    Pulled,
    Pushed,
    Cut,
}

/// Whether somebody has asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    ByHand,
    ByNobody,
}

/// The connection of the run, and that of the other client, which waits.
const RUN: Session = 5;
const OTHER: Session = 9;

fn known(stage: Stage, asked: Asked, pause: Option<i64>) -> Event {
    let mode = u8::from(stage == Stage::Pushed);
    let shape = Shape { mode, address: mode == 0, group: 0, vault: 0, window: 0, period: 0, pause };
    let age = if asked == Asked::ByHand { 0 } else { 3 * DAY };
    Event::Known(key(1), Box::new(shape.plan(START - 9 * DAY)), Some(START - age))
}

/// A fleet whose one slot is taken, and another client waits for it.
fn under_way(stage: Stage, asked: Asked, now: Now) -> Fleet {
    let mut fleet = Fleet::new(Admission { slots: 1, ..Admission::default() });
    fleet.step(now, known(stage, asked, None));
    match (stage, asked) {
        (Stage::Pushed, Asked::ByHand) => {
            drop(fleet.step(now, Event::Request(key(1), RUN, Trigger::Manual, None)))
        }
        (Stage::Pushed, Asked::ByNobody) => {
            drop(fleet.step(now, Event::Request(key(1), RUN, Trigger::Timer, None)));
        }
        (_, Asked::ByHand) => drop(fleet.step(now, Event::Manual(key(1)))),
        (_, Asked::ByNobody) => {}
    }
    if matches!(stage, Stage::Pulled | Stage::Cut) {
        fleet.step(now, Event::Dialled(key(1), DialResult::Answered, Some(RUN)));
    }
    if stage == Stage::Cut {
        fleet.step(now, Event::LinkLost(key(1), RUN));
    }
    assert_eq!(fleet.running(), 1);
    let shape = Shape { mode: 1, address: false, group: 0, vault: 0, window: 0, period: 0, pause: None };
    fleet.step(now, Event::Known(key(2), Box::new(shape.plan(START - 9 * DAY)), Some(START - 3 * DAY)));
    let told = fleet.step(now, Event::Request(key(2), OTHER, Trigger::Timer, None));
    assert!(matches!(told[..], [Action::Wait(..)]), "{told:?}");
    fleet
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
    /// 9. A dial that somebody has asked for is answered by a run: nothing is under way that could be carried on.
    #[test]
    fn what_is_under_way_ends_and_its_slot_is_the_next_ones(
        stage in prop_oneof![Just(Stage::Dialled), Just(Stage::Pulled), Just(Stage::Pushed), Just(Stage::Cut)],
        asked in prop_oneof![Just(Asked::ByHand), Just(Asked::ByNobody)],
        lasts in HOUR..2 * DAY,
    ) {
        let (mut now, until) = (Now { boot: 10, wall: START }, START + lasts);
        let mut fleet = under_way(stage, asked, now);
        let told = fleet.step(now, known(stage, asked, Some(until)));
        let ended = match stage {
            Stage::Dialled => Action::CancelDial(key(1)),
            Stage::Pulled | Stage::Pushed => Action::Close(key(1), RUN, CloseReason::Paused { until }),
            Stage::Cut => Action::Expire(key(1)),
        };
        if (stage, asked) == (Stage::Dialled, Asked::ByHand) {
            prop_assert_eq!(told, vec![]);
            return Ok(());
        }
        prop_assert_eq!(told, vec![ended, Action::Grant(key(2), OTHER)]);
        fleet.step(now, Event::Ended(key(2), OTHER, Outcome::Succeeded { at: now.wall, took: 60 }));
        // It stays where it is until the pause is over, and does what it did before then.
        now = Now { boot: now.boot + lasts as u64 - 1, wall: until - 1 };
        prop_assert_eq!(fleet.step(now, Event::Tick), vec![]);
        let told = fleet.step(now, Event::Request(key(1), 20, Trigger::Timer, None));
        prop_assert!(matches!(told[..], [Action::Defer(..)]), "{told:?}");
        // Whoever asks by hand in a pause means it, and is not ended because the pause is made longer.
        let told = fleet.step(now, Event::Request(key(1), 21, Trigger::Manual, None));
        prop_assert_eq!(told, vec![Action::Grant(key(1), 21)]);
        let told = fleet.step(now, known(stage, asked, Some(until + HOUR)));
        prop_assert_eq!((told, fleet.running()), (vec![], 1));
    }
}
