//! Dials that nobody answers: each client's come ever more seldom, and all together no more than was earned.

use std::collections::BTreeMap;

use backhaul_schedule::fleet::Outcome;
use backhaul_schedule::policy::{Admission, Group};
use backhaul_schedule::reach::DialResult;
use backhaul_schedule::{Action, Event, Fleet, Now, Policy};
use proptest::prelude::*;

use super::world::{DAY, HOUR, Key, START, Shape, key};

/// A day's beginning.
const MORNING: i64 = START - START % DAY;
/// Retries that may be made at once, and seconds in which one more is earned.
const BUDGET: (f64, f64) = (32.0, 60.0);
/// Of a retry, what a first dial earns.
const EARNED: f64 = 0.1;

/// Machines that answer one dial of so many.
struct Offices {
    fleet: Fleet,
    now: Now,
    session: u64,
    answers: u64,
    /// Dials in a row that were not answered, by client, and when the last was.
    vain: BTreeMap<Key, (u32, u64)>,
    dials: u64,
    /// Retries; what the books have left for more.
    retries: u64,
    left: f64,
    earned_at: u64,
    /// Seconds from each dial in vain to the next of the same client, and which in a row that was.
    gaps: Vec<(u32, u64)>,
}

impl Offices {
    fn new(answers: u64) -> Self {
        let admission = Admission { slots: 300, dials: 300, ..Admission::default() };
        Self {
            fleet: Fleet::new(admission),
            now: Now { boot: 10, wall: MORNING },
            session: 0,
            answers,
            vain: BTreeMap::new(),
            dials: 0,
            retries: 0,
            left: BUDGET.0,
            earned_at: 10,
            gaps: Vec::new(),
        }
    }

    /// Each in a network of its own: what is silent as a whole is not dialled at all.
    fn know(&mut self, of: Key, mode: u8, rpo: i64, age: i64) -> Result<(), TestCaseError> {
        let shape = Shape { mode, address: true, group: 0, vault: 0, window: 0, period: 0, pause: None };
        let mut plan = shape.plan(MORNING - 20 * DAY);
        plan.policy = Policy { rpo, ..(*plan.policy).clone() }.into();
        plan.group = Group::named(&format!("room {of:?}"));
        self.step(Event::Known(of, Box::new(plan), Some(MORNING - age)))
    }

    fn step(&mut self, event: Event) -> Result<(), TestCaseError> {
        for action in self.fleet.step(self.now, event) {
            if let Action::Dial(of) | Action::Knock(of, _) = action {
                self.enter(of)?;
                self.dials += 1;
                let wakes = matches!(action, Action::Dial(_));
                if self.answers > 0 && self.dials.is_multiple_of(self.answers) {
                    self.answer(of, wakes)?;
                } else {
                    let (failures, at) = self.vain.entry(of).or_default();
                    (*failures, *at) = (*failures + 1, self.now.boot);
                    self.step(Event::Dialled(of, DialResult::Silent, None))?;
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, of: Key, runs: bool) -> Result<(), TestCaseError> {
        self.vain.remove(&of);
        self.session += 1;
        let session = self.session;
        self.step(Event::Dialled(of, DialResult::Answered, runs.then_some(session)))?;
        let failed = Outcome::Failed { code: 500, why: "it broke".into() };
        if runs { self.step(Event::Ended(of, session, failed)) } else { Ok(()) }
    }

    /// A dial is entered into the books.
    fn enter(&mut self, of: Key) -> Result<(), TestCaseError> {
        let passed = (self.now.boot - self.earned_at) as f64;
        (self.left, self.earned_at) = ((self.left + passed / BUDGET.1).min(BUDGET.0), self.now.boot);
        let Some((failures, at)) = self.vain.get(&of).copied() else {
            self.left = (self.left + EARNED).min(BUDGET.0);
            return Ok(());
        };
        self.gaps.push((failures, self.now.boot - at));
        self.retries += 1;
        self.left -= 1.0;
        // What is earned in six seconds may have been earned a moment before.
        prop_assert!(self.left > -EARNED - 1e-6, "{} retries, and {} too many", self.retries, -self.left);
        Ok(())
    }

    /// Seconds in which the fleet is woken when it wants to be.
    fn pass(&mut self, seconds: u64) -> Result<(), TestCaseError> {
        let until = self.now.boot + seconds;
        while let Some(at) = self.fleet.next_deadline().filter(|at| *at < until) {
            let passed = at.saturating_sub(self.now.boot).max(1);
            self.now = Now { boot: self.now.boot + passed, wall: self.now.wall + passed as i64 };
            self.step(Event::Tick)?;
        }
        Ok(())
    }
}

/// The pause after so many dials in vain: between half of this and all of it.
fn pause(failures: u32) -> u64 {
    (30 << (failures - 1)).min(7_200)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]
    /// 15: pauses double from half a minute to two hours; after twelve dials a client is waited for until the next day.
    #[test]
    fn each_dial_in_vain_is_followed_by_a_longer_pause(of: Key) {
        let mut offices = Offices::new(0);
        offices.know(of, 0, 90 * DAY, 2 * DAY)?;
        offices.pass(DAY as u64)?;
        prop_assert_eq!(offices.gaps.len(), 11, "{:?}", offices.gaps);
        for (failures, gap) in offices.gaps {
            let pause = pause(failures);
            prop_assert!((pause / 2..=pause).contains(&gap), "{gap} s after {failures}");
        }
    }

    /// 15: the same for laptops that are late: they are knocked at four times a day.
    #[test]
    fn each_knock_in_vain_is_followed_by_a_longer_pause(of: Key) {
        let mut offices = Offices::new(0);
        offices.know(of, 2, DAY, 9 * DAY)?;
        offices.pass(DAY as u64 - 60)?;
        prop_assert_eq!(offices.gaps.len(), 3, "{:?}", offices.gaps);
        for (failures, gap) in offices.gaps {
            // Unasked nudges are ten minutes apart.
            let pause = pause(failures).max(600);
            prop_assert!((pause / 2..=pause).contains(&gap), "{gap} s after {failures}");
        }
    }

    /// 15: those that failed together do not come back together.
    #[test]
    fn pauses_are_each_clients_own(salt: u64) {
        let mut offices = Offices::new(0);
        let own = |i: u64| {
            let mut of = [0; 16];
            of[..8].copy_from_slice(&(salt ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            of
        };
        for i in 0..30 {
            offices.know(own(i), 0, DAY, 9 * DAY)?;
        }
        offices.pass(4 * 60)?;
        let mut seconds: BTreeMap<u64, u32> = BTreeMap::new();
        offices.gaps.iter().filter(|(failures, _)| *failures == 1).for_each(|(_, gap)| *seconds.entry(*gap).or_default() += 1);
        prop_assert!(seconds.len() >= 6, "30 clients in {seconds:?}");
    }

    /// 16: retries of all clients together, dials or knocks, are no more than was earned: 32 at once, one a minute, and one for
    /// ten first dials.
    #[test]
    fn retries_are_no_more_than_was_earned(
        clients in prop::collection::vec((0..3u8, 0..6 * HOUR, prop_oneof![Just(0), 0..9 * DAY]), 1..160),
        answers in prop_oneof![2 => Just(0), 1 => 2..40u64], hours in 1..30u64,
    ) {
        let mut offices = Offices::new(answers);
        for (i, (mode, rpo, age)) in (0u8..).zip(&clients) {
            offices.know(key(i), if *mode == 1 { 0 } else { *mode }, DAY + rpo, DAY + age)?;
        }
        offices.pass(hours * 3_600)?;
    }

    /// 16: what is earned is also spent: that many are away does not keep anybody from being tried.
    #[test]
    fn what_was_earned_is_spent(clients in 100..160u8, hours in 3..8u64) {
        let mut offices = Offices::new(0);
        for i in 0..clients {
            offices.know(key(i), 0, DAY, 3 * DAY)?;
        }
        offices.pass(hours * 3_600)?;
        let earned = BUDGET.0 as u64 + hours * 60;
        prop_assert!(offices.retries * 10 >= earned * 8, "{} of {earned}", offices.retries);
        prop_assert!(offices.vain.len() == usize::from(clients), "not everybody was dialled");
    }

    /// 16: a client that is away costs twelve dials a day at most, and none once it is given up.
    #[test]
    fn a_client_that_is_away_costs_few_dials(of: Key, mode in prop::sample::select(vec![0u8, 2]), rpo in 1..20i64, days in 1..90u64) {
        let mut offices = Offices::new(0);
        offices.know(of, mode, rpo * DAY, HOUR)?;
        offices.pass(days * DAY as u64)?;
        let most = if mode == 0 { 12 } else { 4 };
        prop_assert!(offices.dials <= most * days, "{} dials in {days} days", offices.dials);
        let spent = offices.dials;
        offices.pass((90 - days) * DAY as u64)?;
        let before = offices.dials;
        offices.pass(60 * DAY as u64)?;
        prop_assert!(spent > 0 || days <= rpo as u64 + 1, "never dialled in {days} days");
        prop_assert_eq!(offices.dials, before, "dialled though it was given up");
    }
}
