//! Versions that go out, wait and are halted; random histories against a plain model.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::member::place;
use super::wilson::interval;
use super::*;

const NOW: i64 = 1_780_000_000;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

fn key(n: u8) -> ClientKey {
    let mut key = [0; 16];
    (key[3], key[9]) = (n, 1);
    key
}

fn rollout(clients: u8, rules: RolloutRules) -> Rollout {
    Rollout::begin(8, 7, rules, Baseline::default(), (0..clients).map(key), NOW)
}

fn offered(rollout: &Rollout, clients: u8) -> Vec<u8> {
    (0..clients).filter(|n| rollout.offer(key(*n)) == 8).collect()
}

fn finish(rollout: &mut Rollout, clients: &[u8], outcome: Outcome, now: i64) {
    for n in clients {
        rollout.applied(key(*n), 8, Ok(()));
        rollout.finished(key(*n), 8, outcome, now);
    }
}

#[test]
fn a_good_version_reaches_everybody_in_three_waves() {
    let mut rollout = rollout(100, RolloutRules::default());
    assert_eq!(offered(&rollout, 100), [] as [u8; 0]);
    assert_eq!(rollout.waiting(NOW), "waiting for its first wave to be opened");
    assert_eq!(rollout.step(NOW), [RolloutEvent::Opened { wave: 0 }]);
    let mut before = offered(&rollout, 100);
    assert_eq!(before.len(), 5);
    finish(&mut rollout, &before[..4], Outcome::Succeeded, NOW + HOUR);
    assert_eq!(
        rollout.waiting(NOW + 3 * HOUR),
        "wave 1 of 3 (5 %, 5 new clients): 4 of at least 5 finishers, the last was 2 h ago; 21 h of 24 h soak left"
    );
    assert_eq!(rollout.step(NOW + 2 * DAY), []);
    finish(&mut rollout, &before[4..], Outcome::Succeeded, NOW + 2 * DAY);
    let mut now = NOW + 2 * DAY;
    for (wave, size) in [(1, 25), (2, 100)] {
        assert_eq!(rollout.step(now), [RolloutEvent::Opened { wave }]);
        let after = offered(&rollout, 100);
        assert_eq!(after.len(), size);
        assert!(before.iter().all(|n| after.contains(n)));
        let new: Vec<u8> = after.iter().copied().filter(|n| !before.contains(n)).collect();
        finish(&mut rollout, &new[..5], Outcome::Succeeded, now);
        assert_eq!(rollout.step(now + DAY - 1), []);
        (now, before) = (now + DAY, after);
    }
    assert_eq!(rollout.step(now), [RolloutEvent::Completed]);
    assert_eq!((rollout.offer(key(200)), rollout.step(now)), (8, vec![]));
    assert_eq!(rollout.waiting(now), "completed: everybody has version 8");
}

#[test]
fn small_fleets_have_waves_of_one_and_empty_ones_are_done() {
    let mut three = rollout(3, RolloutRules::default());
    let mut now = NOW;
    for size in 1..=3 {
        assert_eq!(three.step(now).len(), 1);
        assert_eq!(offered(&three, 3).len(), size);
        let all = offered(&three, 3);
        finish(&mut three, &all, Outcome::Succeeded, now);
        now += DAY;
    }
    assert_eq!(three.step(now), [RolloutEvent::Completed]);
    let opened = |wave| RolloutEvent::Opened { wave };
    let events = rollout(0, RolloutRules::default()).step(NOW);
    assert_eq!(events, [opened(0), opened(1), opened(2), RolloutEvent::Completed]);
}

#[test]
fn who_is_not_there_has_not_failed_and_is_waited_for() {
    let mut rollout = rollout(40, RolloutRules::default());
    rollout.step(NOW);
    let canaries = offered(&rollout, 40);
    assert_eq!(canaries.len(), 2);
    finish(&mut rollout, &canaries[..1], Outcome::Succeeded, NOW);
    assert_eq!(rollout.step(NOW + 30 * DAY), []);
    assert_eq!(
        rollout.waiting(NOW + 30 * DAY),
        "wave 1 of 3 (5 %, 2 new clients): 1 of at least 2 finishers, the last was 720 h ago"
    );
    // Without it, the other one is the wave.
    rollout.removed(key(canaries[1]));
    assert_eq!(rollout.step(NOW + 30 * DAY), [RolloutEvent::Opened { wave: 1 }]);
}

#[test]
fn a_wave_that_was_removed_has_shown_nothing_and_is_filled_again() {
    let mut rollout = rollout(40, RolloutRules::default());
    rollout.step(NOW);
    for n in offered(&rollout, 40) {
        rollout.removed(key(n));
    }
    assert_eq!(rollout.step(NOW + DAY), []);
    assert_eq!(offered(&rollout, 40).len(), 2);
    assert!(rollout.waiting(NOW + DAY).contains("24 h of 24 h soak left"));
}

#[test]
fn a_failure_in_a_small_wave_halts_and_an_operator_resumes() {
    let mut rollout = rollout(100, RolloutRules::default());
    rollout.step(NOW);
    let canaries = offered(&rollout, 100);
    finish(&mut rollout, &canaries[..4], Outcome::Succeeded, NOW);
    rollout.applied(key(canaries[4]), 8, Err(5));
    let events = rollout.step(NOW);
    assert!(matches!(events[..], [RolloutEvent::Halted { why: Halt::Rate { failed: 1, finishers: 5, .. } }]));
    assert_eq!(offered(&rollout, 100), [] as [u8; 0]);
    assert_eq!(
        rollout.waiting(NOW),
        "halted: 1 of 5 failed, which is at least 3.6 % of all; 2.0 % are allowed; everybody has version 7 until it \
         is resumed"
    );
    // Nothing that comes late changes that.
    finish(&mut rollout, &canaries, Outcome::Succeeded, NOW);
    assert_eq!(rollout.step(NOW + 9 * DAY), []);
    rollout.resume(NOW + 9 * DAY);
    assert_eq!(offered(&rollout, 100), canaries);
    assert_eq!(rollout.step(NOW + 10 * DAY), []);
    // They have gone by the previous version meanwhile: a run counts once they have applied this one again.
    rollout.finished(key(canaries[0]), 8, Outcome::Succeeded, NOW + 10 * DAY);
    assert!(rollout.waiting(NOW + 10 * DAY).contains("0 of at least 5 finishers, none so far"));
    finish(&mut rollout, &canaries, Outcome::Succeeded, NOW + 10 * DAY);
    assert_eq!(rollout.step(NOW + 10 * DAY), [RolloutEvent::Opened { wave: 1 }]);
}

#[test]
fn three_failures_of_one_code_in_a_row_halt_whatever_the_rate() {
    let rules = RolloutRules { waves: vec![], max_failure: 0.9, ..RolloutRules::default() };
    let mut rollout = rollout(200, rules);
    assert_eq!(rollout.step(NOW), [RolloutEvent::Opened { wave: 0 }]);
    let all: Vec<u8> = (0..200).collect();
    finish(&mut rollout, &all[..100], Outcome::Succeeded, NOW);
    let failed = |code| Outcome::Failed { code };
    for (n, outcome) in
        [(100, failed(3)), (101, failed(3)), (102, failed(4)), (103, failed(3)), (103, failed(3))]
    {
        finish(&mut rollout, &[n], outcome, NOW);
        assert_eq!(rollout.step(NOW), []);
    }
    finish(&mut rollout, &[0], failed(3), NOW);
    let why = Halt::Same { code: 3, times: 3 };
    assert_eq!(rollout.step(NOW), [RolloutEvent::Halted { why }]);
    assert_eq!(why.to_string(), "the last 3 failures were all of code 3");
}

#[test]
fn a_doubtful_rate_neither_halts_nor_goes_on_and_an_operator_decides() {
    let mut rollout = rollout(200, RolloutRules::default());
    rollout.step(NOW);
    let canaries = offered(&rollout, 200);
    assert_eq!(canaries.len(), 10);
    finish(&mut rollout, &canaries[1..], Outcome::Succeeded, NOW);
    finish(&mut rollout, &canaries[..1], Outcome::Failed { code: 1 }, NOW);
    assert_eq!(rollout.step(NOW + 2 * DAY), []);
    let waiting = rollout.waiting(NOW + 2 * DAY);
    assert!(
        waiting.contains("1 of 10 failed, which may be up to 40.4 % of all; 2.0 % are allowed"),
        "{waiting}"
    );
    rollout.resume(NOW + 2 * DAY);
    // They still have it: their next runs count.
    for n in &canaries[..5] {
        rollout.finished(key(*n), 8, Outcome::Succeeded, NOW + 3 * DAY);
    }
    assert_eq!(rollout.step(NOW + 3 * DAY), [RolloutEvent::Opened { wave: 1 }]);
}

#[test]
fn with_everybody_in_and_done_nothing_is_left_to_wait_for() {
    let mut rollout = rollout(20, RolloutRules { waves: vec![], ..RolloutRules::default() });
    rollout.step(NOW);
    let all: Vec<u8> = (0..20).collect();
    finish(&mut rollout, &all[2..], Outcome::Succeeded, NOW);
    finish(&mut rollout, &all[..1], Outcome::Failed { code: 1 }, NOW);
    assert_eq!(rollout.step(NOW + DAY), []);
    finish(&mut rollout, &all[1..2], Outcome::Succeeded, NOW + DAY);
    assert_eq!(rollout.step(NOW + DAY), [RolloutEvent::Completed]);
}

#[test]
fn after_a_resume_failures_in_a_row_are_counted_anew() {
    let rules = RolloutRules { waves: vec![], max_failure: 1.0, ..RolloutRules::default() };
    let mut rollout = rollout(20, rules);
    rollout.step(NOW);
    let failed = Outcome::Failed { code: 3 };
    finish(&mut rollout, &[0, 1], failed, NOW);
    rollout.resume(NOW);
    finish(&mut rollout, &[0, 1], failed, NOW);
    assert_eq!(rollout.step(NOW), []);
    finish(&mut rollout, &[2], failed, NOW);
    let why = Halt::Same { code: 3, times: 3 };
    assert_eq!(rollout.step(NOW), [RolloutEvent::Halted { why }]);
}

#[test]
fn a_version_is_not_blamed_for_what_was_broken_before() {
    for (baseline, halted) in
        [(Baseline { failed: 0, total: 900 }, true), (Baseline { failed: 90, total: 900 }, false)]
    {
        let mut rollout = Rollout::begin(8, 7, RolloutRules::default(), baseline, (0..200).map(key), NOW);
        rollout.step(NOW);
        let canaries = offered(&rollout, 200);
        finish(&mut rollout, &canaries[..5], Outcome::Succeeded, NOW);
        finish(&mut rollout, &canaries[5..6], Outcome::Failed { code: 1 }, NOW);
        rollout.step(NOW);
        assert_eq!(matches!(rollout.state(), State::Halted(_)), halted);
    }
}

#[test]
fn named_clients_go_first_and_all_others_come_in_the_end() {
    let waves = vec![Wave::Named(vec![key(3), key(99)]), Wave::Percent(50)];
    let mut rollout = rollout(10, RolloutRules { waves, ..RolloutRules::default() });
    rollout.step(NOW);
    assert_eq!(offered(&rollout, 100), [3]);
    rollout.joined(key(99));
    assert_eq!(offered(&rollout, 100), [3, 99]);
    finish(&mut rollout, &[3, 99], Outcome::Succeeded, NOW);
    assert_eq!(rollout.step(NOW + DAY), [RolloutEvent::Opened { wave: 1 }]);
    assert_eq!(offered(&rollout, 100).len(), 6);
    let half = offered(&rollout, 100);
    finish(&mut rollout, &half, Outcome::Succeeded, NOW + DAY);
    assert_eq!(rollout.step(NOW + 2 * DAY), [RolloutEvent::Opened { wave: 2 }]);
    assert_eq!(offered(&rollout, 100).len(), 11);
}

#[test]
fn who_joins_takes_its_place_in_the_order() {
    let mut rollout = rollout(50, RolloutRules::default());
    rollout.step(NOW);
    let canaries = offered(&rollout, 50);
    finish(&mut rollout, &canaries, Outcome::Succeeded, NOW);
    rollout.step(NOW + DAY);
    let before = offered(&rollout, 50);
    assert_eq!(before.len(), 13);
    assert_eq!(rollout.offer(key(60)), 7);
    (50..250).for_each(|n| rollout.joined(key(n)));
    // A quarter of them, more or less, and always the same.
    let after = offered(&rollout, 250);
    assert!((30..100).contains(&after.len()), "{}", after.len());
    assert!(before.iter().all(|n| after.contains(n)));
    (50..250).for_each(|n| rollout.removed(key(n)));
    (50..250).rev().for_each(|n| rollout.joined(key(n)));
    assert_eq!(offered(&rollout, 250), after);
}

#[test]
fn the_order_is_another_for_each_version_and_spread_evenly() {
    let first = |version| {
        let clients = (0..200).map(key);
        let mut rollout =
            Rollout::begin(version, 1, RolloutRules::default(), Baseline::default(), clients, NOW);
        rollout.step(NOW);
        (0..200).filter(|n| rollout.offer(key(*n)) == version).collect::<BTreeSet<u8>>()
    };
    assert_ne!(first(8), first(9));
    assert_eq!(first(8), first(8));
    let below = (0..=255).filter(|n| place(&key(*n), 8) < u64::MAX / 4).count();
    assert!((40..90).contains(&below), "{below}");
}

#[test]
fn a_clock_that_is_set_back_begins_the_soak_again() {
    let mut rollout = rollout(10, RolloutRules::default());
    rollout.step(NOW);
    let canaries = offered(&rollout, 10);
    finish(&mut rollout, &canaries, Outcome::Succeeded, NOW);
    assert_eq!(rollout.step(NOW - 1_000 * DAY), []);
    assert_eq!(rollout.step(NOW - 999 * DAY), [RolloutEvent::Opened { wave: 1 }]);
}

#[derive(Debug, Clone)]
enum Happening {
    Step(i64),
    Applied(u8, bool),
    Finished(u8, u8),
    Old(u8, bool),
    Joined(u8),
    Removed(u8),
    Resume,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0i64..3 * DAY).prop_map(Happening::Step),
        1 => (-20 * DAY..20 * DAY).prop_map(Happening::Step),
        9 => (0u8..30, 0u8..40).prop_map(|(n, luck)| Happening::Applied(n, luck > 0)),
        12 => (0u8..30, 0u8..60).prop_map(|(n, luck)| Happening::Finished(n, luck)),
        2 => (0u8..30, any::<bool>()).prop_map(|(n, ok)| Happening::Old(n, ok)),
        1 => (0u8..30).prop_map(Happening::Joined),
        1 => (0u8..30).prop_map(Happening::Removed),
        1 => Just(Happening::Resume),
    ]
}

/// What must be true, kept beside the rollout in the plainest way.
struct Model {
    rollout: Rollout,
    now: i64,
    rules: RolloutRules,
    known: BTreeSet<u8>,
    /// Who has been offered the version, and in which wave for the first time.
    waves: BTreeMap<u8, usize>,
    applied: BTreeSet<u8>,
    /// First results.
    results: BTreeMap<u8, bool>,
    open: usize,
    opened: i64,
}

impl Model {
    fn happen(&mut self, what: &Happening) {
        let before = self.rollout.clone();
        let running = before.state == State::Running;
        match *what {
            Happening::Step(seconds) => self.step(seconds),
            Happening::Applied(n, ok) => {
                self.rollout.applied(key(n), 8, if ok { Ok(()) } else { Err(9) });
                if running && self.waves.contains_key(&n) {
                    if !ok {
                        self.results.entry(n).or_insert(false);
                    }
                    self.applied.insert(n);
                }
            }
            Happening::Finished(n, luck) => {
                let code = u32::from(luck % 3);
                let outcome = if luck < 3 { Outcome::Failed { code } } else { Outcome::Succeeded };
                self.rollout.finished(key(n), 8, outcome, self.now);
                if running && self.applied.contains(&n) {
                    self.results.entry(n).or_insert(luck >= 3);
                }
            }
            Happening::Old(n, ok) => {
                let outcome = if ok { Outcome::Succeeded } else { Outcome::Failed { code: 1 } };
                self.rollout.applied(key(n), 7, if ok { Ok(()) } else { Err(1) });
                self.rollout.finished(key(n), 7, outcome, self.now);
                assert_eq!(self.rollout, before, "a run by the old version counted");
            }
            Happening::Joined(n) => {
                self.rollout.joined(key(n));
                self.known.insert(n);
            }
            Happening::Removed(n) => {
                self.rollout.removed(key(n));
                self.known.remove(&n);
                self.waves.remove(&n);
                self.applied.remove(&n);
                self.results.remove(&n);
            }
            Happening::Resume => {
                self.rollout.resume(self.now);
                if !running {
                    self.applied.clear();
                }
                if before.state != State::Completed {
                    self.results.clear();
                    self.opened = self.now;
                }
            }
        }
        self.check(&before, what);
    }

    fn step(&mut self, seconds: i64) {
        self.now += seconds;
        self.opened = self.opened.min(self.now);
        let events = self.rollout.step(self.now);
        let opened = events.iter().filter(|event| matches!(event, RolloutEvent::Opened { .. })).count();
        if opened > 0 && self.open > 0 {
            self.assert_gate();
        }
        let everybody = self.known.iter().all(|n| self.rollout.offer(key(*n)) == 8);
        assert!(opened < 2 || everybody, "two waves at once");
        if opened > 0 {
            (self.open, self.opened) = (self.open + opened, self.now);
        }
    }

    /// What must have been so before the next wave was opened, by this model's own books.
    fn assert_gate(&self) {
        let own: Vec<u8> =
            self.waves.iter().filter(|(_, wave)| **wave == self.open).map(|(n, _)| *n).collect();
        let finishers = own.iter().filter(|n| self.results.contains_key(n)).count();
        let needed = own.len().min(self.rules.min_finishers as usize);
        assert!(finishers >= needed, "{finishers} of {needed}");
        assert!(own.is_empty() || self.now - self.opened >= self.rules.soak, "soak");
        let failed = self.results.values().filter(|ok| !**ok).count();
        let (_, upper) = interval(failed as u32, self.results.len() as u32);
        let all_in = self.known.len() == self.waves.len();
        assert!(
            own.is_empty() || failed == 0 || upper <= self.rules.max_failure || all_in,
            "{failed} failures"
        );
    }

    fn check(&mut self, before: &Rollout, what: &Happening) {
        let halted = matches!(self.rollout.state, State::Halted(_));
        for n in 0..30 {
            let has = self.rollout.offer(key(n)) == 8;
            let had = before.offer(key(n)) == 8;
            assert!(!halted || !has, "halted, and yet {n} is offered it");
            let may_lose = halted || matches!(what, Happening::Removed(m) if *m == n);
            assert!(!had || has || may_lose, "{n} has lost it");
            let may_gain = matches!(what, Happening::Step(_) | Happening::Joined(_) | Happening::Resume);
            assert!(had || !has || may_gain, "{n} has got it by {what:?}");
            if has && self.known.contains(&n) {
                self.waves.entry(n).or_insert(self.open);
            }
        }
        assert!(!self.rollout.waiting(self.now).is_empty());
        let text = serde_json::to_string(&self.rollout).unwrap();
        assert_eq!(serde_json::from_str::<Rollout>(&text).unwrap(), self.rollout);
    }
}

proptest! {
    #[test]
    fn no_wave_before_its_gate_and_nobody_after_a_halt(
        clients in 0u8..30,
        min_finishers in 1u32..6,
        max_failure in prop_oneof![Just(0.02), Just(0.3), Just(0.9)],
        history in prop::collection::vec(happening(), 1..400),
    ) {
        let rules = RolloutRules { min_finishers, max_failure, ..RolloutRules::default() };
        let mut model = Model {
            rollout: rollout(clients, rules.clone()),
            now: NOW,
            rules,
            known: (0..clients).collect(),
            waves: BTreeMap::new(),
            applied: BTreeSet::new(),
            results: BTreeMap::new(),
            open: 0,
            opened: NOW,
        };
        for what in &history {
            model.happen(what);
        }
    }
}
