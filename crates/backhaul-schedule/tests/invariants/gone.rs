//! Clients that are removed: a fleet does as if they had never been.

use backhaul_schedule::fleet::{Memory, NotNow, Nudge, OpenRun, Trigger, Via};
use backhaul_schedule::policy::Admission;
use backhaul_schedule::reach::DialResult;
use backhaul_schedule::{Action, Event, Fleet, Now};
use proptest::prelude::*;

use super::world::{DAY, START, Session, Shape, key, sighting};

const CLIENTS: u8 = 12;
/// The first of those that ask by themselves when they come back; the server dials the others.
const ASK: u8 = 4;

/// What a client has done before it is removed.
#[derive(Debug, Clone, Copy)]
enum Did {
    WasRecalled(OpenRun),
    WasKnown(u8),
    Linked,
    WasCut,
    Asked,
    WasWanted,
    WasNudged,
    WasDialled(DialResult),
    Refused,
}

impl Did {
    fn event(self, i: u8, session: Session, wall: i64) -> Event {
        let of = key(i);
        match self {
            Self::WasRecalled(run) => {
                let memory = Memory { failed_runs: 2, last_seen: Some(wall - 60), ..Memory::default() };
                Event::Recalled(of, Box::new(memory), run)
            }
            Self::WasKnown(mode) => known(i, mode),
            Self::Linked => Event::Contact(of, session, Via::Standing, sighting()),
            Self::WasCut => Event::LinkLost(of, session - 1),
            Self::Asked => Event::Request(of, session, Trigger::Timer, None),
            Self::WasWanted => Event::Manual(of),
            Self::WasNudged => Event::NudgeWanted(of),
            Self::WasDialled(result) => {
                Event::Dialled(of, result, (result == DialResult::Answered).then_some(session))
            }
            Self::Refused => {
                Event::Unwilling(of, NotNow { reason: "on battery".into(), until: wall + 3_600 })
            }
        }
    }
}

fn known(i: u8, mode: u8) -> Event {
    let shape = Shape { mode, address: true, group: 0, vault: 0, window: 0, period: 0, pause: None };
    Event::Known(key(i), Box::new(shape.plan(START - 9 * DAY)), Some(START - 3 * DAY))
}

fn did() -> impl Strategy<Value = Did> {
    let open = prop_oneof![Just(OpenRun::Yes), Just(OpenRun::No)];
    let result = prop_oneof![
        1 => Just(DialResult::Answered),
        3 => Just(DialResult::Silent),
        1 => Just(DialResult::Refused),
        1 => Just(DialResult::Stranger),
    ];
    prop_oneof![
        1 => open.prop_map(Did::WasRecalled),
        4 => (0..3u8).prop_map(Did::WasKnown),
        3 => Just(Did::Linked),
        1 => Just(Did::WasCut),
        2 => Just(Did::Asked),
        1 => Just(Did::WasWanted),
        1 => Just(Did::WasNudged),
        3 => result.prop_map(Did::WasDialled),
        1 => Just(Did::Refused),
    ]
}

fn admission() -> Admission {
    Admission { slots: 4, dials: 4, hold: 2, ..Admission::default() }
}

/// What a fleet does with clients of each kind: some do not answer, some are nudged, some ask. Nudges count on.
fn does(fleet: &mut Fleet, mut now: Now) -> Vec<Action> {
    let mut done = Vec::new();
    for i in 0..CLIENTS {
        done.extend(fleet.step(now, known(i, u8::from(i >= ASK))));
    }
    for i in ASK..CLIENTS {
        done.extend(fleet.step(now, Event::Contact(key(i), 10_000, Via::Standing, sighting())));
    }
    for i in 0..ASK {
        done.extend(fleet.step(now, Event::Dialled(key(i), DialResult::Silent, None)));
    }
    now = Now { boot: now.boot + 30, wall: now.wall + 30 };
    done.extend(fleet.step(now, Event::Tick));
    for i in ASK..CLIENTS {
        done.extend(fleet.step(now, Event::Request(key(i), 20_000, Trigger::Timer, None)));
    }
    for action in &mut done {
        if let Action::Nudge(_, _, Nudge { id, .. }) | Action::Knock(_, Nudge { id, .. }) = action {
            *id = 0;
        }
    }
    done
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
    /// 25.
    #[test]
    fn a_fleet_does_as_if_those_that_are_gone_had_never_been(
        past in prop::collection::vec((0..CLIENTS, did(), 0..40u64), 1..120),
    ) {
        let mut fleet = Fleet::new(admission());
        let mut now = Now { boot: 10, wall: START };
        for (session, (i, did, then)) in (1_000..).zip(past) {
            fleet.step(now, did.event(i, session, now.wall));
            now = Now { boot: now.boot + then, wall: now.wall + then as i64 };
            fleet.step(now, Event::Tick);
        }
        for i in 0..CLIENTS {
            fleet.step(now, Event::Removed(key(i)));
        }
        prop_assert_eq!((fleet.running(), fleet.waiting(), fleet.next_deadline()), (0, 0, None));
        prop_assert!(fleet.clients().next().is_none() && fleet.take_dirty().is_empty());
        // The minutes in which they were told to come back stay booked: for a day at most.
        now = Now { boot: now.boot + DAY as u64, wall: now.wall + DAY };
        let mut other = Fleet::new(admission());
        let (does, would) = (does(&mut fleet, now), does(&mut other, now));
        prop_assert!(would.iter().any(|action| matches!(action, Action::Alert(_))), "{would:?}");
        prop_assert!(would.iter().any(|action| matches!(action, Action::Nudge(..))), "{would:?}");
        prop_assert_eq!(does, would);
        for i in 0..CLIENTS {
            prop_assert_eq!(fleet.memory(&key(i)), other.memory(&key(i)));
        }
    }
}
