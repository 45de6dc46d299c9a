//! Any history, held against the plainest books.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::wilson::interval;
use super::*;

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
