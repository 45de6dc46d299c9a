//! What can happen in a world: made up at random, and made fit for the state that the world is in.

use std::collections::BTreeMap;

use backhaul_schedule::Event;
use backhaul_schedule::fleet::{NotNow, NudgeAnswer, Outcome, Serving, Trigger, Via};
use backhaul_schedule::policy::Admission;
use backhaul_schedule::reach::DialResult;
use proptest::prelude::*;

use super::world::{CLIENTS, DAY, HOUR, Shape, Slot, World, group, key, sighting};

/// One thing that happens. The first number says to whom.
#[derive(Debug, Clone)]
pub enum Op {
    Pass(u64),
    /// The server is not woken for so long.
    Sleep(u64),
    Jump(i64),
    Know(u8, Shape, Option<i64>),
    Pause(u8, Option<i64>),
    Remove(u8),
    Admit(Admission),
    Manual(u8),
    NudgeWanted(u8),
    Contact(u8, Via),
    LinkLost(u8, u8),
    Request(u8, Trigger, Ticket),
    Dialled(u8, DialResult),
    Progress(u8),
    Ended(u8, Ending),
    Stale(u8, Ending),
    Unwilling(u8, i64),
    NudgeAnswered(u8, NudgeAnswer),
    Serving(Serving),
    Crash,
}

#[derive(Debug, Clone, Copy)]
pub enum Ticket {
    None,
    Since(i64),
}

#[derive(Debug, Clone, Copy)]
pub enum Ending {
    Succeeded(i64),
    Aside,
    Failed(u32),
    CutShort,
    NotNow(i64),
}

impl Ending {
    fn outcome(self, wall: i64) -> Outcome {
        match self {
            Self::Succeeded(ago) => Outcome::Succeeded { at: wall.saturating_sub(ago), took: 300 },
            Self::Aside => Outcome::Aside,
            Self::Failed(code) => Outcome::Failed { code, why: "it broke".into() },
            Self::CutShort => Outcome::CutShort,
            Self::NotNow(seconds) => Outcome::NotNow(no(wall + seconds)),
        }
    }
}

fn no(until: i64) -> NotNow {
    NotNow { reason: "battery 12 %".into(), until }
}

impl World {
    pub fn apply(&mut self, op: &Op) {
        let now = self.now;
        match op {
            Op::Pass(seconds) => self.pass(*seconds),
            Op::Sleep(seconds) => {
                self.advance(*seconds);
                self.happen(Event::Tick);
            }
            Op::Jump(by) => {
                self.now.wall = self.now.wall.saturating_add(*by).clamp(0, 200_000_000_000);
                self.happen(Event::ClockJumped);
            }
            Op::Know(i, shape, age) => self.know(*i, *shape, *age),
            Op::Pause(i, pause) => {
                let shape = self.person(&key(*i)).map(|person| person.shape);
                if let Some(shape) = shape {
                    self.know(*i, Shape { pause: pause.map(|pause| now.wall + pause), ..shape }, None);
                }
            }
            Op::Remove(i) => self.happen(Event::Removed(key(*i))),
            Op::Admit(admission) => self.happen(Event::Admission(Box::new(admission.clone()))),
            Op::Manual(i) => self.happen(Event::Manual(key(*i))),
            Op::NudgeWanted(i) => self.happen(Event::NudgeWanted(key(*i))),
            Op::Contact(i, via) => {
                let session = self.next_session();
                self.happen(Event::Contact(key(*i), session, *via, sighting()));
            }
            Op::LinkLost(i, which) => self.lose(*i, *which),
            Op::Request(i, trigger, ticket) => {
                let session = self.next_session();
                let since = match ticket {
                    Ticket::None => None,
                    Ticket::Since(ago) => Some(now.wall - ago),
                };
                self.happen(Event::Request(key(*i), session, *trigger, since));
            }
            Op::Dialled(i, result) => self.answer_dial(*i, *result),
            Op::Progress(i) => {
                if let Some(session) = self.running(*i) {
                    self.happen(Event::Progress(key(*i), session));
                }
            }
            Op::Ended(i, ending) => {
                if let Some(session) = self.running(*i) {
                    self.happen(Event::Ended(key(*i), session, ending.outcome(now.wall)));
                }
            }
            Op::Stale(i, ending) => {
                let ghost = self.person(&key(*i)).and_then(|person| person.ghosts.last().copied());
                if let Some(session) = ghost {
                    self.happen(Event::Progress(key(*i), session));
                    self.happen(Event::Ended(key(*i), session, ending.outcome(now.wall)));
                }
            }
            Op::Unwilling(i, seconds) => self.happen(Event::Unwilling(key(*i), no(now.wall + seconds))),
            Op::NudgeAnswered(i, answer) => {
                let nudge = self.person(&key(*i)).and_then(|person| person.nudge);
                if let Some(nudge) = nudge {
                    self.happen(Event::NudgeAnswered(key(*i), nudge.id, *answer));
                }
            }
            Op::Serving(serving) => self.happen(Event::Serving(*serving)),
            Op::Crash => self.crash(),
        }
    }

    fn running(&mut self, i: u8) -> Option<u64> {
        match self.person(&key(i))?.slot {
            Slot::Running { session, .. } => Some(session),
            _ => None,
        }
    }

    /// One of the connections it has, or had.
    fn lose(&mut self, i: u8, which: u8) {
        let Some(person) = self.person(&key(i)) else { return };
        let running = match person.slot {
            Slot::Running { session, .. } => Some(session),
            _ => None,
        };
        let all = [running, person.link, person.asking, person.ghosts.last().copied()];
        if let Some(session) = all[usize::from(which % 4)] {
            self.happen(Event::LinkLost(key(i), session));
        }
    }

    fn answer_dial(&mut self, i: u8, result: DialResult) {
        let Some(person) = self.person(&key(i)) else { return };
        let (dialled, knocked) = (person.slot == Slot::Dialling, person.knocked);
        if dialled || knocked {
            let session =
                (dialled && result == DialResult::Answered && i % 7 != 6).then(|| self.next_session());
            self.happen(Event::Dialled(key(i), result, session));
        }
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    (0..4u8, any::<bool>(), 0..4u8, 0..2u8, 0..3u8, 0..2u8).prop_map(
        |(mode, address, group, vault, window, period)| Shape {
            mode,
            address,
            group,
            vault,
            window,
            period,
            pause: None,
        },
    )
}

pub fn admission() -> impl Strategy<Value = Admission> {
    let cap = || prop_oneof![3 => Just(None), 1 => (0..3usize).prop_map(Some)];
    (0..5usize, cap(), cap(), 1..3usize, 0..2usize, 0..4usize, 1..4usize).prop_map(
        |(slots, lab, vault, default_remote, reserve_for_clients, hold, dials)| {
            let named = |name: &str, cap: Option<usize>| cap.map(|cap| (name.to_owned(), cap));
            Admission {
                slots,
                per_group: named(group(0).name(), lab).into_iter().collect::<BTreeMap<_, _>>(),
                per_vault: named("first", vault).into_iter().collect(),
                default_remote,
                reserve_for_clients,
                hold,
                dials,
                ..Admission::default()
            }
        },
    )
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        3 => prop_oneof![4 => Just(0), 1 => -10 * DAY..DAY / 2].prop_map(Ending::Succeeded),
        1 => Just(Ending::Aside),
        1 => (500..503u32).prop_map(Ending::Failed),
        1 => Just(Ending::CutShort),
        1 => (1..6 * HOUR).prop_map(Ending::NotNow),
    ]
}

fn seconds() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1..30u64, 4 => 30..1_000u64, 3 => 1_000..20_000u64, 1 => 20_000..200_000u64]
}

fn jump() -> impl Strategy<Value = i64> {
    prop_oneof![-400..400i64, -2 * DAY..2 * DAY, -4_000 * DAY..4_000 * DAY]
}

fn trigger() -> impl Strategy<Value = Trigger> {
    prop_oneof![
        3 => Just(Trigger::Timer),
        2 => Just(Trigger::Join),
        1 => Just(Trigger::Manual),
        1 => Just(Trigger::Nudge),
        2 => Just(Trigger::Resume),
    ]
}

fn ticket() -> impl Strategy<Value = Ticket> {
    prop_oneof![2 => Just(Ticket::None), 1 => (-100..10_000i64).prop_map(Ticket::Since)]
}

fn via() -> impl Strategy<Value = Via> {
    prop_oneof![2 => Just(Via::Standing), 1 => Just(Via::Visit)]
}

fn result() -> impl Strategy<Value = DialResult> {
    prop_oneof![
        3 => Just(DialResult::Answered),
        1 => Just(DialResult::Refused),
        2 => Just(DialResult::Silent),
        1 => Just(DialResult::Stranger),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let i = || 0..CLIENTS;
    let age = prop::option::of(0..4 * DAY);
    let answer = prop_oneof![Just(NudgeAnswer::Accepted), Just(NudgeAnswer::Needless)];
    let serving =
        prop_oneof![3 => Just(Serving::Open), 1 => Just(Serving::Full), 1 => Just(Serving::Draining)];
    prop_oneof![
        16 => seconds().prop_map(Op::Pass),
        3 => seconds().prop_map(Op::Sleep),
        1 => jump().prop_map(Op::Jump),
        6 => (i(), shape(), age).prop_map(|(i, shape, age)| Op::Know(i, shape, age)),
        2 => (i(), prop::option::of(1..DAY)).prop_map(|(i, pause)| Op::Pause(i, pause)),
        1 => i().prop_map(Op::Remove),
        2 => admission().prop_map(Op::Admit),
        2 => i().prop_map(Op::Manual),
        2 => i().prop_map(Op::NudgeWanted),
        6 => (i(), via()).prop_map(|(i, via)| Op::Contact(i, via)),
        5 => (i(), any::<u8>()).prop_map(|(i, which)| Op::LinkLost(i, which)),
        14 => (i(), trigger(), ticket()).prop_map(|(i, trigger, ticket)| Op::Request(i, trigger, ticket)),
        12 => (i(), result()).prop_map(|(i, result)| Op::Dialled(i, result)),
        4 => i().prop_map(Op::Progress),
        12 => (i(), ending()).prop_map(|(i, ending)| Op::Ended(i, ending)),
        1 => (i(), ending()).prop_map(|(i, ending)| Op::Stale(i, ending)),
        2 => (i(), 1..6 * HOUR).prop_map(|(i, seconds)| Op::Unwilling(i, seconds)),
        3 => (i(), answer).prop_map(|(i, answer)| Op::NudgeAnswered(i, answer)),
        1 => serving.prop_map(Op::Serving),
        1 => Just(Op::Crash),
    ]
}

/// A history: bounds, some clients, and what happens.
pub fn history() -> impl Strategy<Value = (Admission, Vec<Op>)> {
    let first = (shape(), prop::option::of(0..4 * DAY));
    let clients = prop::collection::vec(first, 1..usize::from(CLIENTS));
    let clients =
        clients.prop_map(|all| all.into_iter().zip(0..).map(|((shape, age), i)| Op::Know(i, shape, age)));
    (admission(), clients, prop::collection::vec(op(), 1..200)).prop_map(|(admission, clients, ops)| {
        let ops = clients.chain(ops).collect();
        (admission, ops)
    })
}
