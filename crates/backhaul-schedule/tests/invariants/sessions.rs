//! Connections that a newer one of the same client has taken the place of.

use backhaul_schedule::fleet::{CloseReason, LEASE, Outcome, Trigger, Via};
use backhaul_schedule::policy::Admission;
use backhaul_schedule::{Action, Event, Fleet, Now};
use proptest::prelude::*;

use super::world::{DAY, START, Session, Shape, key, sighting};

/// What may still be heard of an older connection.
#[derive(Debug, Clone, Copy)]
enum Word {
    Progress,
    Succeeded,
    Failed,
    Lost,
}

impl Word {
    fn on(self, session: Session, at: i64) -> Event {
        let failed = || Outcome::Failed { code: 500, why: "it broke".into() };
        match self {
            Self::Progress => Event::Progress(key(1), session),
            Self::Succeeded => Event::Ended(key(1), session, Outcome::Succeeded { at, took: 1 }),
            Self::Failed => Event::Ended(key(1), session, failed()),
            Self::Lost => Event::LinkLost(key(1), session),
        }
    }
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![Just(Word::Progress), Just(Word::Succeeded), Just(Word::Failed), Just(Word::Lost)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
    /// 5: nothing that is heard of an older connection ends, prolongs or cuts the run on the newest.
    #[test]
    fn what_is_heard_of_an_older_connection_is_nothing(
        moves in 1..6u64, words in prop::collection::vec((0..6u64, word(), 0..LEASE / 8), 1..8),
    ) {
        let mut fleet = Fleet::new(Admission::default());
        let mut now = Now { boot: 10, wall: START };
        let shape = Shape { mode: 1, address: false, group: 0, vault: 0, window: 0, period: 0, pause: None };
        fleet.step(now, Event::Known(key(1), Box::new(shape.plan(START - DAY)), Some(START - 2 * DAY)));
        for session in 1..=moves + 1 {
            let trigger = if session == 1 { Trigger::Timer } else { Trigger::Resume };
            fleet.step(now, Event::Contact(key(1), session, Via::Standing, sighting()));
            let told = fleet.step(now, Event::Request(key(1), session, trigger, None));
            prop_assert!(told.contains(&Action::Grant(key(1), session)), "{:?}", told);
        }
        let (newest, heard) = (moves + 1, now.boot);
        for (older, word, then) in words {
            now = Now { boot: now.boot + then, wall: now.wall + then as i64 };
            fleet.step(now, Event::Tick);
            let told = fleet.step(now, word.on(1 + older % moves, now.wall));
            prop_assert_eq!(told, []);
            prop_assert!(fleet.runs_on(&key(1), newest) && fleet.linked_on(&key(1)) == Some(newest));
        }
        let passed = heard + LEASE - now.boot;
        now = Now { boot: now.boot + passed, wall: now.wall + passed as i64 };
        let told = fleet.step(now, Event::Tick);
        let ends = Action::Close(key(1), newest, CloseReason::Stalled);
        prop_assert!(told.contains(&ends), "{:?}", told);
    }

    /// 5: connections may be heard of in another order than they were made in; the newest stays.
    #[test]
    fn the_newest_connection_stays_in_whatever_order_they_are_heard(
        order in Just((1..6u64).collect::<Vec<_>>()).prop_shuffle(), slots in 0..2usize,
    ) {
        let mut fleet = Fleet::new(Admission { slots, ..Admission::default() });
        let now = Now { boot: 10, wall: START };
        let shape = Shape { mode: 1, address: false, group: 0, vault: 0, window: 0, period: 0, pause: None };
        fleet.step(now, Event::Known(key(1), Box::new(shape.plan(START - DAY)), Some(START - 2 * DAY)));
        let mut newest = 0;
        for session in order {
            for event in [
                Event::Contact(key(1), session, Via::Standing, sighting()),
                Event::Request(key(1), session, Trigger::Timer, None),
            ] {
                let told = fleet.step(now, event);
                let older = newest.min(session);
                let closes = |session| told.contains(&Action::Close(key(1), session, CloseReason::Superseded));
                prop_assert!(older == 0 || closes(older), "{told:?}");
                prop_assert!(!closes(newest.max(session)), "{told:?}");
            }
            newest = newest.max(session);
            prop_assert_eq!(fleet.linked_on(&key(1)), Some(newest));
            prop_assert_eq!(fleet.runs_on(&key(1), newest), slots > 0);
        }
        fleet.step(now, Event::Admission(Box::default()));
        prop_assert!(fleet.runs_on(&key(1), newest));
    }
}
