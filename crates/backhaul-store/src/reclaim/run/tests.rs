//! A pass beside a repair that gives objects places in packs which the pass is about to remove; and what it tells to who bounds
//! its rate.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock, TryLockError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use backhaul_object::{Kind, Sealed};

use super::{Agreed, Report, plan};
use crate::bits::Bits;
use crate::check::{Depth, Go, Mending, Request, Round, Selection};
use crate::error::StoreError;
use crate::index::Ordinal;
use crate::mark::{NIGHT, State};
use crate::pack::{ID_END, encode_record};
use crate::reclaim::{self, Step, Watch};
use crate::tests::{ANA, Tampered, create, filled, sealed, snapshot};
use crate::vault::{DESCRIPTOR_FILE, Marking, Shared};

/// Waits until somebody is next in the line for the upkeep: who holds it is asked to end.
fn until_somebody_waits(vault: &Shared) {
    let begun = Instant::now();
    while !matches!(vault.upkeep_next.try_lock(), Err(TryLockError::WouldBlock)) {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody waits for the repair");
        thread::sleep(Duration::from_millis(1));
    }
}

/// When the repair begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    /// Before the pass plans.
    First,
    /// When the pass has removed what is dead, and is about to compact.
    Between,
}

/// Does something when packs are about to go, or nothing was to.
struct AtJournal<F>(Option<F>);

impl<F: FnOnce()> Watch for AtJournal<F> {
    fn step(&mut self, step: Step) -> Result<(), StoreError> {
        if let (Step::Journalled, Some(act)) = (step, self.0.take()) {
            act();
        }
        Ok(())
    }
}

/// A pass plans, and waits for its turn while a repair goes on, which finds what is lost in the pack that the plan has go.
/// Returns what the pass has done.
fn pass_that_was_planned_within_a_repair(lost: usize, begins: Begins) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("v");
    let chunks: Vec<Sealed> = (0..10).map(|n| sealed(Kind::Chunk, &[], n)).collect();
    let pack = filled(&root, &chunks);
    let opened = Arc::new(OnceLock::<Weak<Shared>>::new());
    let (holds, held) = channel();
    let holds = Mutex::new(Some(holds));
    let shared = Arc::clone(&opened);
    let before_read = move |name: &str, _, _| {
        // Looked at before anything gets a place.
        let holds = holds.lock().unwrap().take_if(|_| name == DESCRIPTOR_FILE);
        if let Some(holds) = holds {
            holds.send(()).unwrap();
            until_somebody_waits(&shared.get().and_then(Weak::upgrade).unwrap());
        }
        Ok(())
    };
    let vault = Tampered::open(&root, Box::new(before_read), Box::new(|_| {}));
    assert!(opened.set(Arc::downgrade(&vault.shared)).is_ok());
    let number = |chunk: &Sealed| vault.ordinal(&chunk.header.id).unwrap().unwrap();
    let numbers: Vec<_> = chunks.iter().map(number).collect();
    for number in &numbers[..lost] {
        vault.state().index.mark_lost(*number).unwrap();
    }
    let plan = plan(&vault.usage(&Bits::default()).unwrap());
    assert_eq!(plan.packs().count(), 1, "the pack goes if nothing comes between");
    let agreed = Agreed::with(&plan);
    let id = pack.rsplit('/').next().unwrap().parse().unwrap();
    let repair = || {
        let repaired = vault.scrub(&id, Round::PackAndPapers, 77, &|_| Go::On).unwrap();
        assert!(repaired.is_sound() && repaired.damage.len() == lost, "{:?}", repaired.damage);
    };
    let mut report = Report::default();
    thread::scope(|scope| match begins {
        Begins::First => {
            scope.spawn(repair);
            held.recv_timeout(Duration::from_secs(20)).unwrap();
            vault.free(&mut (), &mut report, &agreed).unwrap();
        }
        Begins::Between => {
            let begin = || {
                scope.spawn(repair);
                until_somebody_waits(&vault.shared);
            };
            vault.free(&mut AtJournal(Some(begin)), &mut report, &agreed).unwrap();
        }
    });
    assert!(root.join(&pack).exists());
    for (number, chunk) in numbers.iter().zip(&chunks) {
        assert_eq!(vault.get(*number).unwrap().header.id, chunk.header.id, "it was taken away again");
    }
    let request = Request { depth: Depth::ReadData(Selection::All), mending: Mending::Look, now: 77 };
    let found = vault.check(&request, None, &|_| Go::On).unwrap();
    assert!(found.damage.is_empty(), "{:?}", found.damage);
    // A pass that plans now has nothing to do.
    vault.free(&mut (), &mut report, &Agreed::default()).unwrap();
    report
}

#[test]
fn a_pack_that_was_dead_when_it_was_planned_stays_when_a_repair_has_given_objects_places_in_it() {
    assert_eq!(pass_that_was_planned_within_a_repair(10, Begins::First), Report::default());
}

#[test]
fn a_pack_that_was_to_be_compacted_stays_when_a_repair_has_given_objects_places_in_it() {
    assert_eq!(pass_that_was_planned_within_a_repair(8, Begins::First), Report::default());
    assert_eq!(pass_that_was_planned_within_a_repair(8, Begins::Between), Report::default());
}

/// Sums what it hears of, from each step to the next.
#[derive(Default)]
struct Heard {
    bytes: Vec<(Option<Step>, u64)>,
    after: Option<Step>,
}

impl Heard {
    fn since(&self, step: Option<Step>) -> u64 {
        self.bytes.iter().filter(|(after, _)| *after == step).map(|(_, bytes)| bytes).sum()
    }
}

impl Watch for Heard {
    fn bytes(&mut self, count: u64) -> Result<(), StoreError> {
        self.bytes.push((self.after, count));
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), StoreError> {
        self.after = Some(step);
        Ok(())
    }
}

/// A limit of the rate bounds only what is told: manifests and references for the mark; and for the second opinion the ids of
/// metadata, those of packs that go, and the headers that it follows.
#[test]
fn everything_that_a_pass_reads_is_told_to_who_bounds_its_rate() {
    const NOW: u64 = 1_700_000_000;
    let dir = tempfile::tempdir().unwrap();
    let vault = create(&dir.path().join("v"));
    let chunks: Vec<Sealed> = (0..20).map(|n| sealed(Kind::Chunk, &[], n)).collect();
    for (sequence, chunks) in (1..).zip(chunks.chunks(10)) {
        snapshot(&vault, sequence, chunks);
    }
    vault.mark(ANA, 1, Marking { state: State::Forgotten, now: NOW, grace: 0, reason: "test" }).unwrap();
    let night = |now, watch: &mut dyn Watch| {
        vault.count_night(now).unwrap();
        vault.reclaim(&reclaim::Request { now, ..reclaim::Request::default() }, watch).unwrap()
    };
    assert_eq!(night(NOW + NIGHT, &mut ()).snapshots, 1);
    let file = |name: &str| dir.path().join("v/index").join(name).metadata().unwrap().len();
    let (rows, references) = (file("parents"), file("references"));
    let mut heard = Heard::default();
    assert_eq!(night(NOW + 2 * NIGHT, &mut heard).packs, 2);
    let node = sealed(Kind::Node, &chunks[10..].iter().collect::<Vec<_>>(), 2_000);
    let snap = sealed(Kind::Snap, &[&node], 2_001);
    let len = |sealed: &Sealed| sealed.header.encode().len() as u64;
    // The manifest and its copy, and the references of all that refers to something.
    let manifest = encode_record(Ordinal(0), &snap.header.encode(), &snap.body).len() as u64;
    assert!(rows > 0 && references > 0);
    assert_eq!(heard.since(None), 2 * manifest + rows + references, "{:?}", heard.bytes);
    // Four records of metadata; ten and two in packs that go; snapshot and node of what stays.
    let told = (4 + 12) * ID_END as u64 + len(&snap) + len(&node);
    assert_eq!(heard.since(Some(Step::Condemned)), told, "{:?}", heard.bytes);
}
