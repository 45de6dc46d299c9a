//! Versions that go out, wait and are halted.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use super::member::place;
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
fn who_left_unseen_is_not_waited_for() {
    let mut rollout = rollout(10, RolloutRules::default());
    rollout.step(NOW);
    let first = offered(&rollout, 10);
    rollout.keep_only(|known| !first.iter().any(|n| key(*n) == *known));
    assert!(offered(&rollout, 10).is_empty());
    rollout.step(NOW + 2 * DAY);
    assert!(!offered(&rollout, 10).is_empty(), "the wave is filled again: {rollout:?}");
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

mod model;
