//! A place in the queue is kept, whatever comes between asking and starting.

use std::collections::BTreeMap;

use backhaul_schedule::fleet::{Outcome, Serving, Trigger};
use backhaul_schedule::policy::Admission;
use backhaul_schedule::{Action, Event, Fleet, Now};
use proptest::prelude::*;

use super::world::{DAY, HOUR, Key, START, Session, Shape, key};

/// What comes between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Asks,
    /// On a second connection, and not showing its ticket.
    AsksAnew,
    IsCut,
    /// It is told anew where it stands.
    IsTold,
    Server(Serving),
}

/// What one agent knows of its place.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    first: i64,
    ticket: Option<i64>,
    waits: Option<Session>,
}

/// Agents that are due, and keep the newest ticket that they were given.
struct Desk {
    fleet: Fleet,
    now: Now,
    session: Session,
    places: BTreeMap<Key, Place>,
    began: Vec<(Key, Session)>,
}

impl Desk {
    fn new(ages: &[i64], hold: usize) -> Self {
        let mut fleet = Fleet::new(Admission { slots: 0, hold, ..Admission::default() });
        let now = Now { boot: 10, wall: START };
        let shape = Shape { mode: 1, address: false, group: 0, vault: 0, window: 0, period: 0, pause: None };
        for (i, age) in (0..).zip(ages) {
            let plan = Box::new(shape.plan(START - DAY));
            fleet.step(now, Event::Known(key(i), plan, Some(START - 22 * HOUR - age)));
        }
        Self { fleet, now, session: 0, places: BTreeMap::new(), began: Vec::new() }
    }

    fn step(&mut self, event: Event) {
        for action in self.fleet.step(self.now, event) {
            match action {
                Action::Grant(key, session) => self.began.push((key, session)),
                Action::Wait(key, session, place) => self.told(key, Some(session), Some(place.since)),
                Action::Defer(key, _, deferral) => self.told(key, None, deferral.since),
                _ => {}
            }
        }
    }

    fn told(&mut self, key: Key, waits: Option<Session>, ticket: Option<i64>) {
        let place = self.places.entry(key).or_default();
        (place.waits, place.ticket) = (waits, ticket);
    }

    fn ask(&mut self, of: Key, anew: bool) {
        let wall = self.now.wall;
        let place = *self.places.entry(of).or_insert(Place { first: wall, ..Place::default() });
        let ticket = place.ticket.filter(|_| !anew || place.waits.is_none());
        self.session += 1;
        self.step(Event::Request(of, self.session, Trigger::Timer, ticket));
    }

    fn apply(&mut self, of: Key, what: What) {
        match what {
            What::Asks => self.ask(of, false),
            What::AsksAnew => self.ask(of, true),
            What::IsCut => {
                let waits = self.places.get_mut(&of).and_then(|place| place.waits.take());
                waits.into_iter().for_each(|session| self.step(Event::LinkLost(of, session)));
            }
            What::IsTold => {
                let stands = self.fleet.place(self.now, &of);
                let place = self.places.get_mut(&of);
                place.zip(stands).into_iter().for_each(|(place, stands)| place.ticket = Some(stands.since));
            }
            What::Server(serving) => self.step(Event::Serving(serving)),
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now = Now { boot: self.now.boot + seconds, wall: self.now.wall + seconds as i64 };
        self.step(Event::Tick);
    }
}

fn what() -> impl Strategy<Value = What> {
    let serving =
        prop_oneof![2 => Just(Serving::Open), 1 => Just(Serving::Full), 1 => Just(Serving::Draining)];
    prop_oneof![
        6 => Just(What::Asks),
        2 => Just(What::AsksAnew),
        2 => Just(What::IsCut),
        4 => Just(What::IsTold),
        2 => serving.prop_map(What::Server),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]
    /// 17: however often somebody was sent away, cut off or asked again, nobody who asked later starts earlier.
    #[test]
    fn who_asked_first_starts_first(
        ages in prop::collection::vec(0..6 * HOUR, 8), hold in 0..6usize,
        between in prop::collection::vec((0..8u8, what(), prop_oneof![3 => 1..30u64, 1 => 30..600u64]), 1..40),
    ) {
        let mut desk = Desk::new(&ages, hold);
        for (i, what, then) in between {
            // By then they are late, or another day begins.
            if desk.now.wall > START + 2 * HOUR {
                break;
            }
            desk.apply(key(i), what);
            desk.pass(then);
        }
        desk.step(Event::Serving(Serving::Open));
        desk.step(Event::Admission(Box::new(Admission { slots: 0, hold: 100, ..Admission::default() })));
        let all: Vec<Key> = desk.places.keys().copied().collect();
        all.iter().for_each(|key| desk.ask(*key, false));
        desk.step(Event::Admission(Box::new(Admission { slots: 1, hold: 100, ..Admission::default() })));
        for runs in 1..=all.len() {
            prop_assert_eq!(desk.began.len(), runs);
            desk.pass(60);
            let (of, session) = desk.began[runs - 1];
            desk.step(Event::Ended(of, session, Outcome::Succeeded { at: desk.now.wall, took: 60 }));
        }
        let order: Vec<i64> = desk.began.iter().map(|(key, _)| desk.places[key].first).collect();
        prop_assert!(order.is_sorted(), "{order:?}");
    }
}
