//! The order of events does not matter: what is decided follows from the state.

use backhaul_schedule::fleet::{NotNow, Trigger, Via, Why};
use backhaul_schedule::policy::Admission;
use backhaul_schedule::reach::DialResult;
use backhaul_schedule::{Action, Event, Fleet, Now};
use jiff::civil::date;
use jiff::tz::TimeZone;

use super::world::{DAY, Shape, key, sighting};

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
