//! Many clients and few slots: waiting is bounded, a ticket keeps its place, an event touches few.

use std::collections::{BTreeMap, BTreeSet};

use backhaul_schedule::fleet::{Outcome, Trigger, Via};
use backhaul_schedule::policy::Admission;
use backhaul_schedule::reach::DialResult;
use backhaul_schedule::{Action, Event, Fleet, Now};
use proptest::prelude::*;

use super::world::{DAY, Key, START, Session, Shape, sighting};

const AGEING: u64 = 30 * 60;

fn number(i: u32) -> Key {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&i.wrapping_mul(2_654_435_761).to_le_bytes());
    key[12..].copy_from_slice(&i.to_be_bytes());
    key
}

/// A fleet whose clients are always there and answer, and whose runs take as long as they are told.
struct Crowd {
    fleet: Fleet,
    now: Now,
    session: Session,
    runs: BTreeMap<(u64, Key), Session>,
    length: u64,
    began: Vec<(u64, Key)>,
    deferred: Vec<(u64, Key, u64, Option<i64>)>,
    asked: BTreeMap<Key, u64>,
    longest: u64,
}

impl Crowd {
    fn new(admission: Admission, length: u64) -> Self {
        Self {
            fleet: Fleet::new(admission),
            now: Now { boot: 10, wall: START },
            session: 0,
            runs: BTreeMap::new(),
            length,
            began: Vec::new(),
            deferred: Vec::new(),
            asked: BTreeMap::new(),
            longest: 0,
        }
    }

    fn know(&mut self, i: u32, mode: u8, last: Option<i64>) {
        let shape = Shape { mode, address: true, group: 0, vault: 0, window: 0, period: 0, pause: None };
        self.step(Event::Known(number(i), Box::new(shape.plan(START - DAY)), last));
    }

    fn ask(&mut self, i: u32, trigger: Trigger, since: Option<i64>) {
        let key = number(i);
        if self.runs.keys().any(|(_, running)| *running == key) {
            return;
        }
        self.session += 1;
        self.asked.entry(key).or_insert(self.now.boot);
        self.step(Event::Request(key, self.session, trigger, since));
    }

    fn begin(&mut self, key: Key, session: Session) {
        let asked = self.asked.remove(&key).unwrap_or(self.now.boot);
        self.longest = self.longest.max(self.now.boot - asked);
        self.began.push((self.now.boot, key));
        self.runs.insert((self.now.boot + self.length, key), session);
    }

    fn step(&mut self, event: Event) {
        for action in self.fleet.step(self.now, event) {
            match action {
                Action::Grant(key, session) => self.begin(key, session),
                Action::Dial(key) => {
                    self.session += 1;
                    let session = self.session;
                    self.begin(key, session);
                    self.step(Event::Dialled(key, DialResult::Answered, Some(session)));
                }
                Action::Defer(key, _, deferral) => {
                    self.deferred.push((self.now.boot, key, deferral.after, deferral.since));
                    if deferral.since.is_none() {
                        self.asked.remove(&key);
                    }
                }
                _ => {}
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        let until = self.now.boot + seconds;
        loop {
            let end = self.runs.keys().next().map(|(at, _)| *at);
            let next =
                [end, self.fleet.next_deadline()].into_iter().flatten().min().filter(|at| *at <= until);
            let passed = next.unwrap_or(until).saturating_sub(self.now.boot);
            self.now = Now { boot: self.now.boot + passed, wall: self.now.wall + passed as i64 };
            while let Some(((_, key), session)) = self
                .runs
                .first_key_value()
                .map(|(at, run)| (*at, *run))
                .filter(|((at, _), _)| *at <= self.now.boot)
            {
                self.runs.pop_first();
                self.step(Event::Ended(
                    key,
                    session,
                    Outcome::Succeeded { at: self.now.wall, took: self.length },
                ));
            }
            self.step(Event::Tick);
            if next.is_none() {
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    /// 6: nobody waits for longer than three promotions and everybody else's run, whoever else comes, and however urgent.
    #[test]
    fn waiting_is_bounded(slots in 1..4usize, length in 60..1_200u64, late in 0..20u32, asks in prop::collection::vec((0..40u32, 0..4u8, 1..400u64), 20..200)) {
        let clients = 40u32;
        let mut crowd = Crowd::new(Admission { slots, hold: 1_000, ..Admission::default() }, length);
        for i in 0..clients {
            let age = if i < late { 5 * DAY } else { 30 * 3_600 };
            crowd.know(i, if i % 4 == 0 { 0 } else { 1 }, Some(START - age));
        }
        for (i, how, then) in asks {
            let trigger = if how == 0 { Trigger::Manual } else { Trigger::Timer };
            crowd.ask(i, trigger, None);
            crowd.pass(then);
        }
        crowd.pass(200_000);
        let bound = 3 * AGEING + u64::from(clients).div_ceil(slots as u64) * length + length;
        prop_assert!(crowd.longest <= bound, "{} s waited, bound {bound}", crowd.longest);
        prop_assert!(crowd.asked.is_empty(), "never started: {:?}", crowd.asked);
    }

    /// 7: everybody who can be reached has a run in the end, in whatever order things happen.
    #[test]
    fn whoever_is_due_and_reachable_is_started(
        modes in prop::collection::vec((0..3u8, 0..3u8, 0..4_000u64), 1..20), slots in 1..4usize, dials in 1..4usize,
    ) {
        let mut crowd = Crowd::new(Admission { slots, dials, ..Admission::default() }, 300);
        for (i, (mode, first, then)) in (0u32..).zip(&modes) {
            match first {
                // Pushers come by themselves, before or after they are known to be due.
                0 => crowd.know(i, *mode, None),
                1 => crowd.know(i, *mode, Some(START - 3 * DAY)),
                _ => crowd.know(i, *mode, Some(START)),
            }
            if *mode != 0 {
                crowd.session += 1;
                crowd.step(Event::Contact(number(i), crowd.session, Via::Standing, sighting()));
            }
            crowd.pass(*then);
        }
        // Agents keep to what they are told.
        for _ in 0..2 * 24 * 12 {
            for i in 0..modes.len() as u32 {
                if modes[i as usize].0 != 0 && crowd.fleet.due_in(crowd.now, &number(i)) == 0 {
                    crowd.ask(i, Trigger::Timer, None);
                }
            }
            crowd.pass(300);
        }
        let began: BTreeSet<Key> = crowd.began.iter().map(|(_, key)| *key).collect();
        prop_assert_eq!(began.len(), modes.len());
    }

    /// 17: whoever was sent away and comes back, early or late, starts before those that asked later.
    #[test]
    fn a_ticket_keeps_its_place(back in 1..2_000u64, others in 1..12u32, hold in 1..3usize) {
        let mut crowd = Crowd::new(Admission { slots: 1, hold, ..Admission::default() }, 200);
        for i in 0..60 {
            crowd.know(i, 1, Some(START - 30 * 3_600));
        }
        for i in 0..40 {
            crowd.ask(i, Trigger::Timer, None);
        }
        let (_, first, _, since) = crowd.deferred[0];
        prop_assert!(since.is_some());
        crowd.pass(back);
        crowd.step(Event::Admission(Box::new(Admission { slots: 0, hold: 100, ..Admission::default() })));
        for i in 40..40 + others {
            crowd.ask(i, Trigger::Timer, None);
        }
        let i = u32::from_be_bytes(first[12..].try_into().unwrap());
        crowd.ask(i, Trigger::Timer, since);
        let began = crowd.began.len();
        crowd.step(Event::Admission(Box::new(Admission { slots: 1, hold: 100, ..Admission::default() })));
        crowd.pass(200 * 60);
        let order: Vec<Key> = crowd.began[began..].iter().map(|(_, key)| *key).collect();
        let at = |key: &Key| order.iter().position(|other| other == key).unwrap();
        for other in 40..40 + others {
            prop_assert!(at(&first) < at(&number(other)), "{order:?}");
        }
    }

    /// 18: those that are sent away come back no more in a minute than can be let in, and within a day.
    #[test]
    fn no_minute_has_more_reservations_than_starts(
        slots in 1..8usize, hold in 0..20usize, length in 60..1_200u64, asks in prop::collection::vec(0..40u64, 30..300),
    ) {
        let mut crowd = Crowd::new(Admission { slots, hold, ..Admission::default() }, length);
        for i in 0..asks.len() as u32 {
            crowd.know(i, 1, Some(START - 30 * 3_600));
        }
        for (i, then) in (0..).zip(&asks) {
            crowd.ask(i, Trigger::Join, None);
            crowd.pass(*then);
        }
        let mut minutes: BTreeMap<u64, u64> = BTreeMap::new();
        for (at, _, after, since) in &crowd.deferred {
            prop_assert!((1..=DAY as u64).contains(after) && since.is_some(), "{after} s, {since:?}");
            *minutes.entry((at + after) / 60).or_default() += 1;
        }
        // Before a run was measured, five minutes are expected of one.
        let most = (slots as u64 * 60).div_ceil(length.min(300));
        prop_assert!(minutes.values().all(|count| *count <= most), "{most}: {minutes:?}");
        prop_assert!(crowd.fleet.waiting() <= hold, "{} wait", crowd.fleet.waiting());
        prop_assert_eq!(crowd.deferred.len(), asks.len() - crowd.began.len() - crowd.fleet.waiting());
    }

    /// 28: whatever happens to one of many touches a few of them, however many they are.
    #[test]
    fn an_event_touches_few(
        clients in 100..2_000u32, slots in 0..6usize, events in prop::collection::vec((any::<u32>(), 0..9u8), 1..200),
    ) {
        let mut fleet = Fleet::new(Admission { slots, dials: 4, ..Admission::default() });
        let now = Now { boot: 10, wall: START };
        for i in 0..clients {
            let shape = Shape { mode: (i % 3) as u8, address: true, group: 0, vault: 0, window: 0, period: 0, pause: None };
            fleet.step(now, Event::Known(number(i), Box::new(shape.plan(START - DAY)), Some(START - 3 * DAY)));
        }
        let before = fleet.judged();
        for (session, (i, what)) in (1..).zip(&events) {
            let key = number(i % clients);
            let event = match what {
                0 | 1 => Event::Contact(key, session, Via::Standing, sighting()),
                2 | 3 => Event::Request(key, session, Trigger::Timer, None),
                4 => Event::LinkLost(key, session - 1),
                5 => Event::Manual(key),
                6 => Event::NudgeWanted(key),
                7 => Event::Dialled(key, DialResult::Silent, None),
                _ => Event::Removed(key),
            };
            let judged = fleet.judged();
            fleet.step(now, event.clone());
            prop_assert!(fleet.judged() - judged <= 16, "{event:?} judged {} clients", fleet.judged() - judged);
        }
        let judged = fleet.judged() - before;
        prop_assert!(judged <= 4 * events.len() as u64 + 32, "{} events judged {judged} clients", events.len());
    }
}

/// 28: what one event costs does not grow with the fleet, and a client's memory does not grow with its life.
#[test]
fn an_event_touches_few_of_a_hundred_thousand() {
    let mut fleet = Fleet::new(Admission::default());
    let mut now = Now { boot: 10, wall: START };
    let shape = Shape { mode: 1, address: true, group: 0, vault: 0, window: 0, period: 0, pause: None };
    let plan = shape.plan(START - DAY);
    for i in 0..100_000 {
        fleet.step(now, Event::Known(number(i), Box::new(plan.clone()), Some(START)));
    }
    let mut judged = fleet.judged();
    let (mut most, before, mut events_in_all) = (0, judged, 0);
    for round in 0..2_000u32 {
        let key = number(round % 50 * 1_999);
        let session = u64::from(round) + 1;
        let events = [
            Event::Contact(key, session, Via::Standing, sighting()),
            Event::Request(key, session, Trigger::Manual, None),
            Event::Progress(key, session),
            Event::Ended(key, session, Outcome::Succeeded { at: now.wall, took: 60 }),
            Event::LinkLost(key, session),
            Event::Manual(key),
            Event::Dialled(key, DialResult::Silent, None),
        ];
        for event in events {
            fleet.step(now, event);
            events_in_all += 1;
            most = most.max(fleet.judged() - judged);
            judged = fleet.judged();
        }
        now = Now { boot: now.boot + 1, wall: now.wall + 1 };
    }
    // Some events find several timers whose time has come; each was paid for by an event before.
    assert!(most <= 32, "one event judged {most} clients");
    let all = fleet.judged() - before;
    assert!(all <= 3 * events_in_all, "{events_in_all} events judged {all} clients");
    let kept = serde_json::to_string(fleet.memory(&number(1_999)).unwrap()).unwrap().len();
    assert!(kept < 8_192, "{kept} bytes are kept of one client");
    assert!(fleet.take_dirty().len() <= 50);
}
