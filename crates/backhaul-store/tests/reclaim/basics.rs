//! What goes, what stays, and what comes back.

use backhaul_object::ids::ClientId;
use backhaul_object::{Kind, ObjectId};
use backhaul_store::mark::{NIGHT, State};
use backhaul_store::reclaim::{Report, Request, Step, Watch};
use backhaul_store::vault::Marking;
use backhaul_store::{StoreError, Vault, rebuild};

use backhaul_store::check::Mending;

use crate::yard::*;

#[test]
fn what_only_a_forgotten_snapshot_needs_goes_in_two_passes_and_its_room_is_free() {
    let mut yard = Yard::new();
    let old = yard.snapshot(ANA, 0..40);
    let new = yard.snapshot(ANA, 30..60);
    let before = yard.bytes();
    yard.forget(&old);
    let would = yard.rehearse();
    assert_eq!((would.snapshots, would.condemned, would.objects), (1, 32, 0));
    let first = yard.reclaim();
    assert_eq!((first.snapshots, first.condemned, first.objects, first.packs), (1, 32, 0, 0));
    assert_eq!(yard.bytes(), before, "nothing goes in the pass that condemns it");
    let would = yard.rehearse();
    let second = yard.reclaim();
    assert_eq!((second.snapshots, second.condemned, second.objects), (0, 0, 32));
    assert_eq!((would.objects, would.packs, would.compacted), (32, second.packs, second.compacted));
    assert!(second.compacted > 0, "{second:?}");
    assert_eq!(second.bytes_freed, before - yard.bytes());
    assert!(yard.bytes() < before * 6 / 10, "{} of {before}", yard.bytes());
    assert!(!yard.has(&old.id) && yard.has(&new.id) && !yard.has(&chunk(0, 5_000).header.id));
    yard.assert_whole();
    yard.reopen();
    yard.assert_whole();
    assert_eq!(yard.reclaim(), Report { epoch: 3, bytes_on_disk: yard.bytes(), ..Report::default() });
}

/// The second opinion reads metadata only, and sees what a patch needs, too.
#[test]
fn a_base_stays_as_long_as_a_snapshot_needs_a_patch_of_it() {
    let mut yard = Yard::new();
    let old = yard.snapshot(ANA, 0..10);
    let base = chunk(3, 5_000);
    let vault = yard.vault().clone();
    let mut session = yard.begin(ANA);
    let mut patch = chunk(100, 5_000);
    patch.header.kind = Kind::Patch;
    patch.header.references = vec![backhaul_object::patch::base(base.header.id)];
    append(&vault, &mut session, &patch);
    let root = append(&vault, &mut session, &node(&[patch.header.id], "root"));
    let new = commit(&vault, &mut session, ANA, root).unwrap();
    drop(session);
    drop(vault);
    yard.forget(&old);
    for _ in 0..3 {
        yard.reclaim();
    }
    assert!(yard.has(&base.header.id) && !yard.has(&chunk(4, 5_000).header.id));
    yard.assert_whole();
    yard.forget(&new);
    yard.snapshot(ANA, 20..30);
    for _ in 0..3 {
        yard.reclaim();
    }
    assert!(!yard.has(&base.header.id) && !yard.has(&patch.header.id));
    yard.assert_whole();
}

#[test]
fn packs_in_which_nothing_is_needed_go_without_being_read() {
    let mut yard = Yard::new();
    let old = yard.snapshot(ANA, 0..10);
    yard.snapshot(ANA, 20..30);
    yard.forget(&old);
    yard.reclaim();
    let second = yard.reclaim();
    assert_eq!((second.packs, second.compacted, second.bytes_moved), (2, 0, 0));
    yard.assert_whole();
}

#[test]
fn a_condemned_object_that_a_session_needs_again_is_resurrected_with_all_that_it_refers_to() {
    let mut yard = Yard::new();
    let old = yard.snapshot(ANA, 0..10);
    yard.snapshot(ANA, 20..30);
    let root =
        node(&(0..10).map(|n| chunk(n, 5_000).header.id).collect::<Vec<ObjectId>>(), "0..10").header.id;
    yard.forget(&old);
    assert_eq!(yard.reclaim().condemned, 12);
    let vault = yard.vault().clone();
    let mut session = yard.begin(BEA);
    let top = append(&vault, &mut session, &node(&[root], "top"));
    session.flush().unwrap();
    assert_eq!(yard.vault().fence().condemned()[0].objects.count(), 1, "the old snapshot alone");
    // The resurrection is as durable as what needed it.
    drop(session);
    drop(vault);
    yard.crash();
    assert_eq!(yard.vault().fence().condemned()[0].objects.count(), 1);
    yard.reclaim();
    let vault = yard.vault().clone();
    let mut session = yard.begin(BEA);
    commit(&vault, &mut session, BEA, top).unwrap();
    drop(session);
    yard.reclaim();
    assert!(yard.has(&chunk(3, 5_000).header.id));
    yard.assert_whole();
}

#[test]
fn what_is_gone_can_be_stored_again() {
    let mut yard = Yard::new();
    let old = yard.snapshot(ANA, 0..10);
    yard.snapshot(ANA, 20..30);
    yard.forget(&old);
    yard.reclaim();
    yard.reclaim();
    assert!(!yard.has(&chunk(3, 5_000).header.id));
    yard.snapshot(ANA, 0..10);
    yard.assert_whole();
    yard.reclaim();
    yard.reclaim();
    yard.assert_whole();
}

/// Prune lists snapshots, a new one reuses old chunks, the old one goes.
#[test]
fn prune_lists_snapshots_a_new_one_reuses_old_chunks_the_old_one_goes() {
    let mut yard = Yard::new();
    let old = yard.snapshot(ANA, 0..10);
    yard.snapshot(ANA, 20..30);
    let vault = yard.vault().clone();
    let mut session = yard.begin(BEA);
    // It is told that they are there, and nothing more happens for now.
    for n in 0..10 {
        let ordinal = vault.ordinal(&chunk(n, 5_000).header.id).unwrap().unwrap();
        assert!(vault.claim(ordinal).unwrap());
    }
    yard.forget(&old);
    let first = yard.reclaim();
    assert_eq!(first.snapshots, 1);
    let second = yard.reclaim();
    assert_eq!((second.objects, second.waits_for.len()), (0, 1), "it waits for the session");
    let ids: Vec<ObjectId> = (0..10).map(|n| chunk(n, 5_000).header.id).collect();
    let root = append(&vault, &mut session, &node(&ids, "again"));
    commit(&vault, &mut session, BEA, root).unwrap();
    drop(session);
    yard.reclaim();
    yard.reclaim();
    yard.assert_whole();
}

#[test]
fn a_session_that_began_before_holds_back_and_one_that_began_after_is_asked_again() {
    let mut yard = Yard::new();
    let old = yard.snapshot(ANA, 0..10);
    yard.snapshot(ANA, 20..30);
    let vault = yard.vault().clone();
    let reader = vault.enter("a restore");
    yard.forget(&old);
    assert_eq!(yard.reclaim().condemned, 12);
    let later = vault.enter("another");
    assert_eq!(yard.reclaim().waits_for, ["a restore"]);
    drop(reader);
    let third = yard.reclaim();
    assert_eq!((third.objects, third.waits_for.len()), (12, 0));
    drop(later);
}

/// Nothing is dead: many small packs become few, of each client its own, and everything is as it was.
#[test]
fn small_packs_of_many_nights_become_few() {
    let mut yard = Yard::new();
    for night in 0..9 {
        yard.snapshot(ANA, night * 10..night * 10 + 10);
    }
    yard.snapshot(BEA, 200..210);
    let count = |yard: &Yard| yard.vault().stats().unwrap().packs;
    assert_eq!(count(&yard), 20, "data and metadata of each");
    let report = yard.reclaim();
    assert_eq!((report.compacted, report.objects), (18, 0), "{report:?}");
    assert_eq!(count(&yard), 4);
    yard.assert_whole();
    assert_eq!(yard.reclaim().compacted, 0, "once");
    yard.vault = None;
    rebuild::rebuild(&yard.root(), [9; 16], Mending::Look, NOW).unwrap();
    yard.reopen();
    yard.assert_whole();
}

/// A mount may stay for weeks: it holds back only what it may be reading, and that only while it reads.
#[test]
fn a_reader_holds_back_nothing_while_no_snapshot_of_its_client_goes() {
    let mut yard = Yard::new();
    let old = yard.snapshot(ANA, 0..10);
    yard.snapshot(ANA, 20..30);
    yard.snapshot(BEA, 40..50);
    let vault = yard.vault().clone();
    let (of_ana, of_bea) =
        (vault.enter_reader("a mount of ana", ANA), vault.enter_reader("a mount of bea", BEA));
    yard.forget(&old);
    assert_eq!(yard.reclaim().condemned, 12);
    assert_eq!(yard.reclaim().waits_for, ["a mount of ana"], "only she may be reading it");
    assert!((0..10).all(|n| yard.has(&chunk(n, 5_000).header.id)));
    // A later mount of hers has never seen it.
    let later = vault.enter_reader("another of ana", ANA);
    of_ana.renew();
    let third = yard.reclaim();
    assert_eq!((third.objects, third.waits_for.len()), (12, 0));
    drop((of_ana, of_bea, later));
    yard.assert_whole();
}

#[test]
fn what_a_session_has_uploaded_stays_for_its_resumption_and_not_for_ever() {
    let mut yard = Yard::new();
    yard.snapshot(ANA, 20..30);
    let vault = yard.vault().clone();
    let mut session = yard.begin(ANA);
    append(&vault, &mut session, &chunk(1, 5_000));
    session.flush().unwrap();
    drop(session);
    drop(vault);
    yard.crash();
    for _ in 0..backhaul_store::reclaim::HOLD {
        assert_eq!(yard.reclaim().condemned, 0);
    }
    assert!(yard.has(&chunk(1, 5_000).header.id));
    (0..3).for_each(|_| drop(yard.reclaim()));
    assert!(!yard.has(&chunk(1, 5_000).header.id));
    yard.assert_whole();
}

#[test]
fn a_lost_catalog_in_the_middle_of_everything_loses_nothing() {
    for passes in 0..4 {
        let mut yard = Yard::new();
        let old = yard.snapshot(ANA, 0..40);
        yard.snapshot(ANA, 30..60);
        yard.forget(&old);
        (0..passes).for_each(|_| drop(yard.reclaim()));
        for keep_condemned in [true, false] {
            yard.vault = None;
            std::fs::remove_file(yard.root().join("catalog.sqlite")).unwrap();
            std::fs::remove_dir_all(yard.root().join("index")).unwrap();
            if !keep_condemned {
                let _ = std::fs::remove_file(yard.root().join("condemned"));
            }
            let report = rebuild::rebuild(&yard.root(), [passes as u8; 16], Mending::Look, NOW).unwrap();
            assert!(report.damage.is_empty(), "after {passes}: {:?}", report.damage);
            yard.vault = Some(Vault::open(&yard.root()).unwrap());
            yard.assert_whole();
            yard.reclaim();
            yard.assert_whole();
        }
        (0..3).for_each(|_| drop(yard.reclaim()));
        yard.assert_whole();
        assert!(!yard.has(&chunk(0, 5_000).header.id));
        assert_eq!(yard.vault().snapshots(None).unwrap().len(), 1);
    }
}

/// A pack with a dead node that is mostly needed stays, and the chunks that the node refers to are gone: after a
/// rebuild nobody may be told that the node is there.
#[test]
fn a_rebuild_brings_back_nothing_that_refers_to_what_is_gone() {
    for keep_condemned in [true, false] {
        let mut yard = Yard::new();
        let vault = yard.vault().clone();
        let mut session = yard.begin(ANA);
        let gone = append(&vault, &mut session, &chunk(1, 90_000));
        let dead = append(&vault, &mut session, &node(&[gone], "dead"));
        let old = commit(&vault, &mut session, ANA, dead).unwrap();
        // In the same pack of metadata: what is needed is far more.
        let mut all = Vec::new();
        for n in 0..200 {
            all.push(append(&vault, &mut session, &node(&[], &format!("{n}"))));
        }
        let dead = append(&vault, &mut session, &node(&[gone], "dead too"));
        let root = append(&vault, &mut session, &node(&all, "root"));
        commit(&vault, &mut session, ANA, root).unwrap();
        drop((session, vault));
        yard.forget(&old);
        yard.reclaim();
        yard.reclaim();
        assert!(!yard.has(&gone) && !yard.has(&dead));
        yard.vault = None;
        if !keep_condemned {
            std::fs::remove_file(yard.root().join("condemned")).unwrap();
        }
        let report = rebuild::rebuild(&yard.root(), [3; 16], Mending::Look, NOW).unwrap();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        yard.vault = Some(Vault::open(&yard.root()).unwrap());
        assert!(!yard.has(&gone) && !yard.has(&dead), "with its file: {keep_condemned}");
        yard.assert_whole();
    }
}

/// The highest numbers are gone with their packs: what comes after a rebuild gets others, for those are never read again.
#[test]
fn a_rebuild_gives_no_number_again_that_was_reclaimed() {
    let mut yard = Yard::new();
    yard.snapshot(ANA, 0..10);
    let last = yard.snapshot(BEA, 20..30);
    yard.forget(&last);
    (0..3).for_each(|_| drop(yard.reclaim()));
    assert!(!yard.has(&last.id));
    yard.vault = None;
    let report = rebuild::rebuild(&yard.root(), [3; 16], Mending::Look, NOW).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    yard.reopen();
    yard.snapshot(BEA, 40..50);
    yard.assert_whole();
    (0..3).for_each(|_| drop(yard.reclaim()));
    yard.assert_whole();
}

/// The second opinion does not read the index: one that is wrong is found out before anything is lost.
#[test]
fn a_wrong_index_deletes_nothing() {
    let mut yard = Yard::new();
    let old = yard.snapshot(ANA, 0..10);
    yard.snapshot(ANA, 20..30);
    yard.forget(&old);
    yard.vault = None;
    // References of the last objects are forgotten: a mark does not reach the chunks of the new snapshot.
    let parents = yard.root().join("index/parents");
    let mut bytes = std::fs::read(&parents).unwrap();
    let count = bytes.len() / 16;
    let before = bytes[(count - 3) * 16 + 8..(count - 2) * 16].to_vec();
    bytes[(count - 2) * 16 + 8..(count - 1) * 16].copy_from_slice(&before);
    bytes[(count - 1) * 16 + 8..].copy_from_slice(&before);
    std::fs::write(&parents, bytes).unwrap();
    yard.reopen();
    yard.reclaim();
    let error = yard.reclaim_watched(&mut ()).unwrap_err();
    let StoreError::StillNeeded { object, snapshot } = &error else { panic!("{error}") };
    assert!(yard.has(object) && snapshot.ends_with("0000000002.snap"), "{error}");
    assert!((20..30).all(|n| yard.has(&chunk(n, 5_000).header.id)));
}

#[test]
fn an_unreadable_manifest_stops_deletion() {
    let mut yard = Yard::new();
    let old = yard.snapshot(ANA, 0..10);
    let new = yard.snapshot(ANA, 20..30);
    yard.forget(&old);
    yard.reclaim();
    let path = yard.root().join(format!("snaps/{}/{:010}.snap", new.client, new.sequence));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[50] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = yard.reclaim_watched(&mut ()).unwrap_err();
    assert!(matches!(&error, StoreError::Unsure { what, .. } if what.ends_with(".snap")), "{error}");
    assert!(yard.has(&old.id));
}

#[test]
fn clients_under_a_brake_keep_what_is_forgotten() {
    let mut yard = Yard::new();
    let (ana, bea) = (yard.snapshot(ANA, 0..10), yard.snapshot(BEA, 20..30));
    yard.forget(&ana);
    yard.forget(&bea);
    yard.vault().count_night(NOW + 1_000_000).unwrap();
    let request = backhaul_store::reclaim::Request {
        now: NOW + 1_000_000,
        held: [BEA].into(),
        ..backhaul_store::reclaim::Request::default()
    };
    assert_eq!(yard.vault().reclaim(&request, &mut ()).unwrap().snapshots, 1);
    assert_eq!(yard.vault().snapshots(None).unwrap(), [bea]);
    // A sequence number is never given twice.
    assert_eq!(yard.vault().last_sequence(ANA).unwrap(), 1);
}

/// Trips bea's brake when the first forgotten snapshot has gone.
struct TrippedLate(bool);

impl Watch for TrippedLate {
    fn holds(&mut self, client: ClientId) -> Result<bool, StoreError> {
        Ok(self.0 && client == BEA)
    }

    fn step(&mut self, step: Step) -> Result<(), StoreError> {
        self.0 |= step == Step::Unmade;
        Ok(())
    }
}

#[test]
fn a_brake_that_is_tripped_while_snapshots_go_holds_those_that_are_left() {
    let mut yard = Yard::new();
    let (ana, bea) = (yard.snapshot(ANA, 0..10), yard.snapshot(BEA, 20..30));
    yard.forget(&ana);
    yard.forget(&bea);
    let report = yard.reclaim_watched(&mut TrippedLate(false)).unwrap();
    assert_eq!(report.snapshots, 1);
    assert_eq!(yard.vault().snapshots(None).unwrap(), [bea]);
}

/// A clock that is a year off lets one night pass, not 365, and a clock that goes back lets none.
#[test]
fn a_clock_that_jumps_a_year_either_way_reclaims_nothing_before_its_nights() {
    const YEAR: u64 = 365 * NIGHT;
    let mut yard = Yard::new();
    let old = yard.snapshot(ANA, 0..40);
    yard.snapshot(ANA, 30..60);
    let start = yard.now.get() + 2 * YEAR;
    let marking = Marking { state: State::Forgotten, now: start, grace: 7 * NIGHT, reason: "test" };
    yard.vault().mark(old.client, old.sequence, marking).unwrap();
    for now in [start + YEAR, start - YEAR, start + YEAR + NIGHT, start - YEAR - NIGHT] {
        yard.vault().count_night(now).unwrap();
        let report = yard.vault().reclaim(&Request { now, ..Request::default() }, &mut ()).unwrap();
        assert_eq!((report.snapshots, report.condemned, report.objects), (0, 0, 0), "at {now}");
    }
    assert!(yard.has(&old.id));
    yard.assert_whole();
}
