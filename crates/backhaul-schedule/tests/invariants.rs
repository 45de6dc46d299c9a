//! The scheduler's promises, held against random histories.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use backhaul_schedule::due::{Standing, is_open, standing};
use backhaul_schedule::fleet::{ClientKey, Outcome, Plan};
use backhaul_schedule::policy::Window;
use backhaul_schedule::{Action, Event, Fleet, Now, Policy};
use jiff::civil::time;
use jiff::tz::TimeZone;
use proptest::prelude::*;

const HOUR: i64 = 3_600;
const START: i64 = 1_780_000_000;

#[derive(Debug, Clone)]
enum Happening {
    Wait(u64),
    Jump(i64),
    Manual(u8),
    Asked(u8),
    End(u8, bool, bool),
    Remove(u8),
    Slots(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (1u64..20_000).prop_map(Happening::Wait),
        1 => (-400_000i64..400_000).prop_map(Happening::Jump),
        2 => (0u8..8).prop_map(Happening::Manual),
        3 => (0u8..8).prop_map(Happening::Asked),
        8 => (0u8..8, any::<bool>(), any::<bool>()).prop_map(|(c, ok, reached)| Happening::End(c, ok, reached)),
        1 => (0u8..8).prop_map(Happening::Remove),
        1 => (1usize..5).prop_map(Happening::Slots),
    ]
}

fn key(n: u8) -> ClientKey {
    let mut key = [0; 16];
    key[0] = n;
    key[1] = n.wrapping_mul(37);
    key
}

fn policy(n: u8) -> Policy {
    let night = Window { from: time(22, 0, 0, 0), to: time(6, 0, 0, 0), zone: TimeZone::UTC };
    match n % 3 {
        0 => Policy::default(),
        1 => Policy { window: Some(night), ..Policy::default() },
        _ => Policy { period: 4 * HOUR, rpo: 6 * HOUR, spread: HOUR, window: None },
    }
}

fn plan(n: u8) -> Plan {
    Plan { policy: policy(n), pulls: n % 4 != 3 }
}

/// What must be true, kept beside the fleet in the plainest way.
struct Model {
    fleet: Fleet,
    now: Now,
    slots: usize,
    running: BTreeSet<u8>,
    known: BTreeSet<u8>,
    last: BTreeMap<u8, i64>,
    manual: BTreeSet<u8>,
}

impl Model {
    fn new() -> Self {
        let (fleet, now) = (Fleet::new(2), Now { boot: 1_000, wall: START });
        let mut model = Self {
            fleet,
            now,
            slots: 2,
            running: BTreeSet::new(),
            known: BTreeSet::new(),
            last: BTreeMap::new(),
            manual: BTreeSet::new(),
        };
        (0..8).for_each(|n| model.add(n));
        model
    }

    fn add(&mut self, n: u8) {
        self.known.insert(n);
        self.event(Event::Known { client: key(n), plan: plan(n), last_success: self.last.get(&n).copied() });
    }

    fn event(&mut self, event: Event) {
        let asked = match &event {
            Event::Asked(client) => Some(client[0]),
            _ => None,
        };
        let before = self.running.len();
        for action in self.fleet.step(self.now, event) {
            match action {
                Action::Dial(client) => {
                    let n = client[0];
                    assert!(self.known.contains(&n) && self.running.insert(n), "one run a client");
                    self.check_dial(n);
                    self.manual.remove(&n);
                }
                Action::Grant(client) => {
                    assert_eq!(asked, Some(client[0]), "only who asked is granted");
                    self.running.insert(client[0]);
                }
                Action::Defer { client, after } => {
                    assert_eq!(asked, Some(client[0]));
                    assert!(
                        (1..=600).contains(&after) && before >= self.slots,
                        "deferred for a reason, and not for long"
                    );
                }
            }
        }
        let started = self.running.len() > before;
        assert!(!started || self.running.len() <= self.slots, "never more starts than slots");
    }

    /// An automatic start is for one who is due, in the window, or late.
    fn check_dial(&self, n: u8) {
        if self.manual.contains(&n) {
            return;
        }
        assert!(plan(n).pulls, "who pushes is not dialled");
        let (policy, last) = (policy(n), self.last.get(&n).copied());
        let late = last.is_some_and(|last| self.now.wall - last.min(self.now.wall) >= policy.rpo);
        let open = policy.window.as_ref().is_none_or(|window| is_open(window, self.now.wall));
        assert!(late || open, "{n} was started outside of its window");
        let begun = last.is_none_or(|last| self.now.wall - last.min(self.now.wall) > 0);
        assert!(begun, "a success in this second is enough");
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wait(seconds) => {
                self.now.boot += seconds;
                self.now.wall += seconds as i64;
                self.event(Event::Tick);
            }
            Happening::Jump(seconds) => {
                self.now.wall += seconds;
                self.event(Event::Tick);
            }
            Happening::Manual(n) => {
                if self.known.contains(&n) {
                    self.manual.insert(n);
                }
                self.event(Event::Manual(key(n)));
            }
            Happening::Asked(n) => self.event(Event::Asked(key(n))),
            Happening::End(n, ok, reached) => {
                if self.running.remove(&n) {
                    self.manual.remove(&n);
                    let outcome = match (ok, reached) {
                        (true, _) => {
                            let last = self.last.entry(n).or_insert(self.now.wall);
                            *last = self.now.wall.max(*last);
                            Outcome::Succeeded(self.now.wall)
                        }
                        (false, true) => Outcome::Failed,
                        (false, false) => Outcome::NotReached,
                    };
                    self.event(Event::Ended { client: key(n), outcome });
                }
            }
            Happening::Remove(n) => {
                self.known.remove(&n);
                self.running.remove(&n);
                self.manual.remove(&n);
                self.event(Event::Removed(key(n)));
                self.add(n);
            }
            Happening::Slots(slots) => {
                self.slots = slots;
                self.event(Event::Slots(slots));
            }
        }
    }

    /// After a step, a free slot means that nobody who may start is waiting, and everybody has a reason.
    fn check_conservation(&self) {
        let free = self.running.len() < self.slots;
        for n in &self.known {
            let why = self.fleet.explain(self.now, &key(*n));
            assert!(!why.is_empty());
            assert_eq!(why == "running", self.running.contains(n));
            assert!(!(free && why == "waiting for a slot"), "{n} waits although a slot is free");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_history_keeps_the_promises(history in proptest::collection::vec(happening(), 1..200)) {
        let mut model = Model::new();
        for happening in history {
            model.happen(happening);
            model.check_conservation();
        }
    }

    #[test]
    fn an_always_on_client_has_one_success_a_period(offset: u64, which in 0u8..3, minutes in 1i64..30) {
        let policy = policy(which);
        let (mut now, mut last, mut successes) = (START, None, 0);
        let days = 30;
        while now < START + days * 24 * HOUR {
            if matches!(standing(&policy, offset, last, now), Standing::Due | Standing::Late) {
                last = Some(now);
                successes += 1;
            }
            now += minutes * 60;
        }
        let periods = days * 24 * HOUR / policy.period;
        prop_assert!((periods - 1..=periods + 1).contains(&successes), "{successes} in {periods}");
    }

    #[test]
    fn after_an_absence_there_is_exactly_one_run(offset: u64, away in 1i64..4_000_000) {
        let policy = Policy::default();
        let back = START + away;
        let mut last = Some(START);
        let mut runs = 0;
        for second in (0..HOUR).step_by(60) {
            if matches!(standing(&policy, offset, last, back + second), Standing::Due | Standing::Late) {
                last = Some(back + second);
                runs += 1;
            }
        }
        // Two periods may touch in that hour.
        prop_assert!(runs <= 2, "{runs}");
        prop_assert!(away < policy.rpo || runs >= 1);
    }
}

#[test]
fn dials_of_an_absent_client_grow_rare() {
    let mut fleet = Fleet::new(1);
    let mut now = Now { boot: 0, wall: START };
    let mut dials = 0;
    let count = |actions: Vec<Action>| actions.iter().filter(|a| matches!(a, Action::Dial(_))).count();
    let mut open = count(
        fleet.step(now, Event::Known { client: key(0), plan: plan(0), last_success: Some(START - 900_000) }),
    );
    for _ in 0..86_400 {
        now = Now { boot: now.boot + 1, wall: now.wall + 1 };
        if open > 0 {
            dials += open;
            open = count(fleet.step(now, Event::Ended { client: key(0), outcome: Outcome::NotReached }));
        } else {
            open = count(fleet.step(now, Event::Tick));
        }
    }
    assert!((8..=24).contains(&dials), "{dials} dials in a day");
}
