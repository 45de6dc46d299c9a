//! The order of events does not matter: what is decided follows from the state.

use backhaul_schedule::fleet::{NotNow, Trigger, Via, Why};
use backhaul_schedule::policy::Admission;
use backhaul_schedule::reach::DialResult;
use backhaul_schedule::{Action, Event, Fleet, Now};
use jiff::civil::date;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::world::{DAY, HOUR, START, Shape, key, sighting};

/// What may happen to one client, in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Links,
    SlotFrees,
    Unpaused,
    WindowOpens,
    Willing,
}

fn permutations(of: &[Thing]) -> Vec<Vec<Thing>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (i, first) in of.iter().enumerate() {
        let rest: Vec<Thing> =
            of.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, thing)| *thing).collect();
        all.extend(permutations(&rest).into_iter().map(|mut rest| {
            rest.insert(0, *first);
            rest
        }));
    }
    all
}

/// An agent that keeps a link, asks when it is nudged or due, and waits.
struct Stage {
    fleet: Fleet,
    now: Now,
    mode: u8,
    asks: bool,
    runs: bool,
    linked: bool,
}

const TARGET: u8 = 1;
const OTHER: u8 = 2;

impl Stage {
    fn shape(&self, pause: Option<i64>) -> Shape {
        Shape { mode: self.mode, address: true, group: 0, vault: 0, window: 2, period: 0, pause }
    }

    fn step(&mut self, event: Event) {
        let actions = self.fleet.step(self.now, event);
        for action in actions {
            match action {
                Action::Grant(of, _) if of == key(TARGET) => self.runs = true,
                Action::Defer(of, ..) if of == key(TARGET) => self.asks = false,
                Action::Dial(of) if of == key(TARGET) => {
                    self.runs = true;
                    self.step(Event::Dialled(of, DialResult::Answered, Some(99)));
                }
                _ => {}
            }
        }
    }

    fn pass(&mut self, until: i64) {
        while self.now.wall < until {
            self.now = Now { boot: self.now.boot + 1, wall: self.now.wall + 1 };
            if self.fleet.next_deadline().is_some_and(|at| at <= self.now.boot) {
                self.step(Event::Tick);
            }
            self.step(Event::Progress(key(OTHER), 1));
            if self.linked && !self.asks && !self.runs && self.fleet.due_in(self.now, &key(TARGET)) == 0 {
                self.asks = true;
                self.step(Event::Request(key(TARGET), self.now.boot, Trigger::Timer, None));
            }
        }
    }
}

/// Returns whether it runs in the end.
fn play(mode: u8, things: &[Thing]) -> (bool, Why) {
    let opens = date(2026, 6, 3)
        .at(8, 0, 0, 0)
        .to_zoned(TimeZone::posix("CET-2").unwrap())
        .unwrap()
        .timestamp()
        .as_second();
    // The window opens when its turn in the order has come; all other things are ten seconds apart.
    let before = things.iter().position(|thing| *thing == Thing::WindowOpens).unwrap_or(0) as i64;
    let wall = opens - 10 * (before + 1);
    let admission = Admission { slots: 1, ..Admission::default() };
    let mut stage = Stage {
        fleet: Fleet::new(admission),
        now: Now { boot: 5_000, wall },
        mode,
        asks: false,
        runs: false,
        linked: false,
    };
    let other = Shape { mode: 1, window: 0, ..stage.shape(None) };
    stage.step(Event::Known(key(OTHER), Box::new(other.plan(wall - DAY)), None));
    stage.step(Event::Request(key(OTHER), 1, Trigger::Manual, None));
    let paused = stage.shape(Some(wall + 100 * DAY));
    // Its moment is that of its period, so that it is due as soon as the window opens.
    let plan = |shape: Shape| {
        let mut plan = shape.plan(wall - DAY);
        plan.policy = backhaul_schedule::Policy { spread: 1, ..(*plan.policy).clone() }.into();
        plan
    };
    stage.step(Event::Known(key(TARGET), Box::new(plan(paused)), Some(wall - 23 * 3_600)));
    let until = wall + DAY - 1;
    stage.step(Event::Unwilling(key(TARGET), NotNow { reason: "on battery".into(), until }));
    for thing in things {
        let next = stage.now.wall + 10;
        match thing {
            Thing::Links => {
                stage.linked = mode != 0;
                if stage.linked {
                    stage.step(Event::Contact(key(TARGET), 50, Via::Standing, sighting()));
                }
            }
            Thing::SlotFrees => stage.step(Event::LinkLost(key(OTHER), 1)),
            Thing::Unpaused => {
                let shape = stage.shape(None);
                stage.step(Event::Known(key(TARGET), Box::new(plan(shape)), None));
            }
            Thing::WindowOpens => {}
            Thing::Willing => stage.step(Event::Contact(key(TARGET), 40, Via::Visit, sighting())),
        }
        stage.pass(next);
    }
    stage.pass(opens + 1_000);
    let why = stage.fleet.explain(stage.now, &key(TARGET));
    (stage.runs, why)
}

/// 7, 8.
#[test]
fn a_client_starts_whatever_comes_first() {
    let things = [Thing::Links, Thing::SlotFrees, Thing::Unpaused, Thing::WindowOpens, Thing::Willing];
    for mode in [0, 1, 2] {
        for order in permutations(&things) {
            let (runs, why) = play(mode, &order);
            assert!(runs, "mode {mode}, {order:?}: {why:?}");
        }
    }
}

/// A client links some seconds after it has become due, or before; its agent does nothing by itself. Returns how long after
/// the later of both it is nudged.
fn nudged_after(mode: u8, links: i64) -> Option<i64> {
    let due = START - START % DAY + DAY;
    let shape = Shape { mode, address: false, group: 0, vault: 0, window: 0, period: 0, pause: None };
    let mut plan = shape.plan(due - DAY);
    plan.policy = backhaul_schedule::Policy { spread: 1, ..(*plan.policy).clone() }.into();
    let (from, mut fleet) = (due - 2 * HOUR, Fleet::new(Admission::default()));
    let at = |wall: i64| Now { boot: 5_000 + (wall - from) as u64, wall };
    let mut actions = fleet.step(at(from), Event::Known(key(TARGET), Box::new(plan), Some(due - 20 * HOUR)));
    for wall in from + 1..due + 2 * HOUR {
        if actions.iter().any(|action| matches!(action, Action::Nudge(..))) {
            return Some(wall - 1 - due.max(due + links));
        }
        actions.clear();
        if fleet.next_deadline().is_some_and(|next| next <= at(wall).boot) {
            actions.extend(fleet.step(at(wall), Event::Tick));
        }
        if wall == due + links {
            actions.extend(fleet.step(at(wall), Event::Contact(key(TARGET), 1, Via::Standing, sighting())));
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) })]
    /// 8: whether it links or becomes due first, it is nudged as soon after the second.
    #[test]
    fn who_links_is_nudged_whatever_comes_first(mode in 1..3u8, apart in 0..HOUR) {
        let nudged = nudged_after(mode, apart);
        prop_assert!(nudged.is_some_and(|after| (0..60).contains(&after)), "{nudged:?}");
        prop_assert_eq!(nudged, nudged_after(mode, -apart));
    }

    /// 7: whoever waits for nothing but the end of a pause, or of a refusal, is dialled or nudged when that has come.
    #[test]
    fn what_ends_by_itself_wakes(mode in 0..3u8, refuses in any::<bool>(), ends in 60..3 * HOUR) {
        let shape = Shape { mode, address: mode == 0, group: 0, vault: 0, window: 0, period: 0, pause: None };
        let plan = shape.plan(START - DAY);
        let plan = backhaul_schedule::fleet::Plan { paused_until: (!refuses).then_some(START + ends), ..plan };
        let (mut fleet, mut now) = (Fleet::new(Admission { slots: 0, ..Admission::default() }), Now { boot: 5_000, wall: START });
        fleet.step(now, Event::Known(key(TARGET), Box::new(plan), Some(START - 22 * HOUR)));
        if mode != 0 {
            fleet.step(now, Event::Contact(key(TARGET), 1, Via::Standing, sighting()));
        }
        if refuses {
            fleet.step(now, Event::Unwilling(key(TARGET), NotNow { reason: "on battery".into(), until: START + ends }));
        }
        let slots = Event::Admission(Box::new(Admission { slots: 1, ..Admission::default() }));
        prop_assert_eq!(fleet.step(now, slots), []);
        let mut woken = Vec::new();
        while woken.is_empty() {
            let passed = fleet.next_deadline().map_or(DAY as u64, |at| at.saturating_sub(now.boot).max(1));
            now = Now { boot: now.boot + passed, wall: now.wall + passed as i64 };
            prop_assert!(now.wall <= START + ends, "not woken until {now:?}");
            woken = fleet.step(now, Event::Tick);
        }
        prop_assert_eq!(now.wall, START + ends);
        prop_assert!(matches!(woken[..], [Action::Dial(_) | Action::Nudge(..)]), "{woken:?}");
    }
}
