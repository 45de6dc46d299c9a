//! A check of every byte takes hours: reclaim does not wait for its end, and it does not mistake for damage what is moved.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backhaul_object::Sealed;
use backhaul_store::StoreError;
use backhaul_store::check::{Depth, Go, Mending, Request, Selection};
use backhaul_store::reclaim::{Step, Watch};

use crate::yard::*;

/// What of a pass was done before a check had read all packs.
struct Within<'a> {
    read: &'a AtomicU64,
    packs: u64,
    steps: Vec<Step>,
}

impl Watch for Within<'_> {
    fn step(&mut self, step: Step) -> Result<(), StoreError> {
        if self.read.load(Ordering::Relaxed) < self.packs {
            self.steps.push(step);
        }
        Ok(())
    }
}

/// Ends a pass after a step.
struct UpTo(Step);

impl Watch for UpTo {
    fn step(&mut self, step: Step) -> Result<(), StoreError> {
        if step == self.0 { Err(StoreError::Interrupted) } else { Ok(()) }
    }
}

/// Checks a vault while a pass of reclaim goes on: what of that was done within the check.
fn check_beside_a_pass(mending: Mending) -> Vec<Step> {
    let mut yard = Yard::new();
    let rows: Vec<_> = (0..48).map(|n| yard.snapshot(ANA, n * 20..n * 20 + 30)).collect();
    rows.iter().step_by(2).skip(1).for_each(|row| yard.forget(row));
    // What goes is condemned, and the packs are as many as they were.
    assert!(yard.reclaim_watched(&mut UpTo(Step::Condemned)).is_err());
    yard.forget(&rows[0]);
    // Each pack is read at once.
    let (waits, calls, packs) = (AtomicBool::new(false), AtomicU64::new(0), yard.files("packs").len() as u64);
    let progress = |_: u64| {
        // It begins, and goes on when somebody waits for it.
        let is_first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        while is_first && !waits.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(if is_first { 100 } else { 3 }));
        Go::On
    };
    let vault = yard.vault().clone();
    let mut within = Within { read: &calls, packs, steps: Vec::new() };
    let request = Request { depth: Depth::ReadData(Selection::All), mending, now: NOW };
    let report = std::thread::scope(|scope| {
        let checking = scope.spawn(|| vault.check(&request, None, &progress).unwrap());
        while calls.load(Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        waits.store(true, Ordering::Relaxed);
        let pruned = yard.reclaim_watched(&mut within).unwrap();
        assert!(pruned.compacted > 0 && pruned.objects > 0 && pruned.snapshots == 1, "{pruned:?}");
        checking.join().unwrap()
    });
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    // Also what was moved before the check came to it.
    let request = Request { depth: Depth::Structure, mending: Mending::Look, now: NOW };
    let there = vault.check(&request, None, &|_| Go::On).unwrap().objects;
    assert!(report.objects >= there, "{} of {there} objects", report.objects);
    yard.assert_whole();
    within.steps
}

#[test]
fn a_pass_of_reclaim_gets_its_turn_within_a_check_which_misses_nothing_that_it_moves() {
    for mending in [Mending::Look, Mending::Mend] {
        let is_moved = (0..10).any(|_| {
            let steps = check_beside_a_pass(mending);
            assert!(steps.contains(&Step::Unmade), "it waits for the end of the check: {steps:?}");
            steps.contains(&Step::Switched)
        });
        assert!(is_moved);
    }
}

/// Whoever stops a server does not wait until every object was opened.
#[test]
fn a_check_that_opens_objects_ends_when_it_is_told_to() {
    let mut yard = Yard::new();
    yard.snapshot(ANA, 0..30);
    let seen = AtomicU64::new(0);
    let progress = |_: u64| if seen.load(Ordering::Relaxed) < 3 { Go::On } else { Go::Stop };
    let mut inspect = |_: &Sealed| {
        seen.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let request = Request { depth: Depth::Structure, mending: Mending::Look, now: NOW };
    let ended = yard.vault().check(&request, Some(&mut inspect), &progress);
    assert!(matches!(ended, Err(StoreError::Interrupted)), "{ended:?}");
    assert_eq!(seen.load(Ordering::Relaxed), 3);
}
