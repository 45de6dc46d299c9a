//! The second opinion: what an index that is wrong would let go stays, and what it has let go comes back.

use std::path::Path;

use backhaul_object::ObjectId;
use backhaul_store::check::{self, Depth, Go, Mending, Part};
use backhaul_store::reclaim::condemned;
use backhaul_store::reclaim::fence::Fence;
use backhaul_store::reclaim::{Step, Watch};
use backhaul_store::{Bits, Ordinal, StoreError, Vault, rebuild};

use crate::yard::*;

/// Changes bytes of a file of a vault that is closed.
fn patch(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn id(seed: u32) -> ObjectId {
    chunk(seed, 5_000).header.id
}

fn rebuild(yard: &mut Yard) -> rebuild::Report {
    yard.vault = None;
    let report = rebuild::rebuild(&yard.root(), [9; 16], Mending::Look, NOW).unwrap();
    yard.vault = Some(Vault::open(&yard.root()).unwrap());
    report
}

fn check(yard: &Yard, mending: Mending) -> check::Report {
    let request = check::Request { depth: Depth::Structure, mending, now: NOW };
    yard.vault().check(&request, None, &|_| Go::On).unwrap()
}

/// Nothing of its pack goes, and so nothing but the index would say that it is there.
#[test]
fn one_wrong_bit_of_a_reference_lets_nothing_go() {
    let mut yard = Yard::new();
    yard.snapshot(ANA, 0..40);
    yard.vault = None;
    // The node, number 40, refers to numbers 0 to 39: how far back, doubled.
    patch(&yard.root().join("index/references"), |bytes| {
        assert_eq!((bytes[0], bytes[5], bytes[39]), (80, 70, 2));
        bytes[5] ^= 2;
    });
    yard.reopen();
    assert_eq!(yard.reclaim().condemned, 1);
    for _ in 0..2 {
        let error = yard.reclaim_watched(&mut ()).unwrap_err();
        let StoreError::StillNeeded { object, snapshot } = &error else { panic!("{error}") };
        assert!(*object == id(5) && snapshot.ends_with("0000000001.snap"), "{error}");
    }
    assert!(yard.has(&id(5)));
    assert!(rebuild(&mut yard).damage.is_empty());
    assert!(yard.has(&id(5)));
    yard.assert_whole();
    yard.reclaim();
    assert_eq!(yard.reclaim().objects, 0);
}

/// The pack that the index has an object in: bits 50 to 79 of its place.
fn pack_of(bytes: &[u8], number: usize) -> u128 {
    let mut raw = [0; 16];
    raw[..10].copy_from_slice(&bytes[number * 10..][..10]);
    u128::from_le_bytes(raw) >> 50
}

/// The index has what is needed in a pack that there is not, and so nothing in the pack in which it is.
#[test]
fn one_wrong_bit_of_a_place_removes_no_pack() {
    let mut yard = Yard::new();
    yard.snapshot(ANA, 0..1);
    yard.vault = None;
    patch(&yard.root().join("index/places"), |bytes| {
        assert_eq!(pack_of(bytes, 0), 1);
        bytes[8] ^= 0x40;
    });
    yard.reopen();
    let error = yard.reclaim_watched(&mut ()).unwrap_err();
    assert!(matches!(&error, StoreError::StillNeeded { object, .. } if *object == id(0)), "{error}");
    assert!(rebuild(&mut yard).damage.is_empty());
    yard.assert_whole();
}

/// Or in a pack that is to be moved, at a place where there is something else.
#[test]
fn what_is_said_to_be_moved_and_is_not_there_removes_no_pack() {
    let mut yard = Yard::new();
    let old = yard.snapshot(ANA, 0..10);
    yard.snapshot(ANA, 8..10);
    yard.snapshot(BEA, 20..21);
    yard.forget(&old);
    yard.reclaim();
    let number = yard.vault().ordinal(&id(20)).unwrap().unwrap().0 as usize;
    yard.vault = None;
    patch(&yard.root().join("index/places"), |bytes| {
        let (this, other) = (pack_of(bytes, number), pack_of(bytes, 8));
        let moved = (this ^ other) << 50;
        assert_ne!(moved, 0);
        bytes[number * 10..][..10].iter_mut().zip(moved.to_le_bytes()).for_each(|(byte, bits)| *byte ^= bits);
    });
    yard.reopen();
    let error = yard.reclaim_watched(&mut ()).unwrap_err();
    assert!(matches!(&error, StoreError::StillNeeded { object, .. } if *object == id(20)), "{error}");
    assert!(rebuild(&mut yard).damage.is_empty());
    yard.assert_whole();
}

/// A vault from which an index that was wrong let these numbers go, though a snapshot needs them.
fn mutilated(gone: &[u64]) -> Yard {
    let mut yard = Yard::new();
    yard.snapshot(ANA, 0..40);
    yard.vault = None;
    let bits: Bits = gone.iter().map(|number| Ordinal(*number)).collect();
    let fence = Fence::restore(2, Vec::new(), bits, Bits::default());
    std::fs::write(yard.root().join(condemned::FILE), condemned::encode(&fence)).unwrap();
    for (name, len) in [("ids", 24), ("places", 10)] {
        patch(&yard.root().join("index").join(name), |bytes| {
            gone.iter().for_each(|number| bytes[*number as usize * len..][..len].fill(0));
        });
    }
    yard.vault = Some(Vault::open(&yard.root()).unwrap());
    yard
}

#[test]
fn what_was_let_go_and_is_needed_has_its_place_again_after_a_repair() {
    // A chunk; and the node above the chunks.
    for number in [5, 40] {
        let mut yard = mutilated(&[number]);
        let found = check(&yard, Mending::Look);
        let named = |report: &check::Report| {
            report.damage.iter().any(|damage| {
                matches!(damage.what, Part::Object(_)) && damage.why.contains("its record is in packs/")
            })
        };
        assert!(named(&found) && found.affected.len() == 1, "{:?}", found.damage);
        assert!(!found.is_sound());
        let mended = check(&yard, Mending::Mend);
        assert!(named(&mended) && mended.unreadable.is_empty(), "{:?}", mended.damage);
        yard.assert_whole();
        yard.crash();
        assert!(yard.has(&id(5)) && yard.vault().fence().gone().is_empty());
        yard.assert_whole();
        (0..3).for_each(|_| assert_eq!(yard.reclaim().objects, 0));
        yard.assert_whole();
    }
}

#[test]
fn what_was_let_go_and_is_needed_is_there_again_after_a_rebuild() {
    for gone in [&[5][..], &[40], &[3, 40, 41]] {
        let mut yard = mutilated(gone);
        let report = rebuild(&mut yard);
        assert!(report.damage.is_empty(), "{gone:?}: {:?}", report.damage);
        assert!(yard.has(&id(5)));
        yard.assert_whole();
        (0..3).for_each(|_| assert_eq!(yard.reclaim().objects, 0));
        yard.assert_whole();
    }
}

/// Its pack is gone as well: it alone is lost, and not what refers to it.
#[test]
fn what_was_let_go_for_good_is_lost_alone() {
    let mut yard = mutilated(&(0..40).collect::<Vec<u64>>());
    yard.vault = None;
    let data = yard.files("packs").into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    std::fs::remove_file(data).unwrap();
    let report = rebuild(&mut yard);
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    let found = check(&yard, Mending::Look);
    assert!(found.damage.iter().all(|damage| damage.why.starts_with("it is lost")), "{:?}", found.damage);
    assert_eq!((found.damage.len(), found.affected.len()), (40, 1));
    assert_eq!(yard.vault().fence().gone().count(), 0);
}

/// Makes a snapshot of what is about to go, while the second opinion is asked.
struct Late<'y> {
    yard: &'y mut Yard,
    is_asked: bool,
    made: u32,
}

impl Watch for Late<'_> {
    fn step(&mut self, step: Step) -> Result<(), StoreError> {
        self.is_asked |= step == Step::Condemned;
        Ok(())
    }

    fn bytes(&mut self, _: u64) -> Result<(), StoreError> {
        if self.is_asked && self.made == 0 {
            self.made += 1;
            self.yard.snapshot(BEA, 0..10);
        }
        Ok(())
    }
}

#[test]
fn a_snapshot_that_is_made_of_what_is_ripe_keeps_it_and_is_no_trouble() {
    let mut yard = Yard::new();
    let old = yard.snapshot(ANA, 0..10);
    yard.snapshot(ANA, 20..30);
    yard.forget(&old);
    assert_eq!(yard.reclaim().condemned, 12);
    let vault = yard.vault().clone();
    let now = yard.now.get() + backhaul_store::mark::NIGHT;
    let request = backhaul_store::reclaim::Request { now, ..Default::default() };
    let mut late = Late { yard: &mut yard, is_asked: false, made: 0 };
    let report = vault.reclaim(&request, &mut late).unwrap();
    assert_eq!((late.made, report.objects), (1, 1), "the old snapshot alone goes");
    assert!((0..10).all(|n| yard.has(&id(n))));
    yard.assert_whole();
}
