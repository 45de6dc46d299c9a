//! Marks: they hide, they survive, and what is wrong with them hides nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::Packer;
use backhaul_object::{Kind, Object, Reference, Sealed};
use backhaul_store::check::{Depth, Go, Mending, Request};
use backhaul_store::mark::State;
use backhaul_store::session::Commit;
use backhaul_store::vault::Marking;
use backhaul_store::{Vault, rebuild};
use bytes::Bytes;

const ANA: ClientId = ClientId([1; 16]);

fn seal(kind: Kind, references: Vec<Reference>, content: &[u8]) -> Sealed {
    let key = VaultKey::new([7; 32]);
    let object = Object { kind, references, provides: vec![], payload: Bytes::copy_from_slice(content) };
    let compressed = object.compress(&key.id_key(), &mut Packer::new(3).unwrap()).unwrap();
    compressed.seal(&key.data_key(), [3; 24]).unwrap()
}

/// Three snapshots.
fn filled(root: &Path) -> Vault {
    let vault = Vault::create(root, &Descriptor::managed(VaultId([9; 16])), [1; 16]).unwrap();
    let mut session = vault.begin(SessionId([4; 16]), ANA);
    for sequence in 1..=3 {
        let node = seal(Kind::Node, vec![], format!("node {sequence}").as_bytes());
        session.append(&node, &[]).unwrap();
        let snap = seal(Kind::Snap, vec![Reference::whole(node.header.id)], b"snap");
        let edges = vault.resolve(&snap.header.references).unwrap();
        let commit =
            Commit { client_name: "ana", sequence, server_time: 1_000 + sequence, signature: vec![5; 70] };
        session.commit(&snap, &edges, commit).unwrap();
    }
    drop(session);
    vault
}

fn say(state: State) -> Marking<'static> {
    Marking { state, now: 2_000, grace: 60, reason: "because" }
}

fn visible(vault: &Vault) -> Vec<u64> {
    vault.visible(None).unwrap().iter().map(|row| row.sequence).collect()
}

fn damage(vault: &Vault) -> Vec<String> {
    let request = Request { depth: Depth::Structure, mending: Mending::Look, now: 5 };
    let report = vault.check(&request, None, &|_| Go::On).unwrap();
    report.damage.into_iter().map(|damage| damage.what.to_string()).collect()
}

#[test]
fn forgotten_is_hidden_and_had_back_and_a_rebuild_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let vault = filled(dir.path());
    vault.mark(ANA, 2, say(State::Forgotten)).unwrap();
    vault.mark(ANA, 3, say(State::Pinned)).unwrap();
    assert_eq!((visible(&vault), vault.snapshots(None).unwrap().len()), (vec![1, 3], 3));
    let before = vault.marks().unwrap();
    drop(vault);
    rebuild::rebuild(dir.path(), [2; 16], Mending::Look, 0).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    assert_eq!((vault.marks().unwrap(), visible(&vault)), (before, vec![1, 3]));
    assert!(damage(&vault).is_empty());
    vault.mark(ANA, 2, say(State::Kept)).unwrap();
    assert_eq!(visible(&vault), vec![1, 2, 3]);
    drop(vault);
    assert_eq!(visible(&Vault::open(dir.path()).unwrap()), vec![1, 2, 3]);
    let vault = Vault::open(dir.path()).unwrap();
    assert!(vault.mark(ANA, 4, say(State::Forgotten)).is_err(), "there is no such snapshot");
}

#[test]
fn damaged_foreign_and_stray_marks_hide_nothing_and_are_named() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let catalog = dir.path().join("catalog.sqlite");
    let before = fs::read(&catalog).unwrap();
    Vault::open(dir.path()).unwrap().mark(ANA, 2, say(State::Forgotten)).unwrap();
    let place = |sequence: u64| dir.path().join(format!("snaps/{ANA}/{sequence:010}.mark"));
    // A crash between file and row: the row is made up for.
    fs::write(&catalog, before).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    assert_eq!(visible(&vault), vec![1, 3]);
    drop(vault);
    // One that lies beside another manifest.
    fs::copy(place(2), place(1)).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    assert_eq!(visible(&vault), vec![1, 3]);
    assert_eq!(damage(&vault), vec![format!("snaps/{ANA}/0000000001.mark")]);
    drop(vault);
    fs::remove_file(place(1)).unwrap();
    // One that is lost is as its copy says, and comes back.
    let copy = dir.path().join(format!("copies/{ANA}/{:010}.mark", 2));
    let whole = fs::read(place(2)).unwrap();
    fs::remove_file(place(2)).unwrap();
    rebuild::rebuild(dir.path(), [2; 16], Mending::Look, 0).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    assert_eq!(visible(&vault), vec![1, 3]);
    assert_eq!(damage(&vault), vec![format!("snaps/{ANA}/0000000002.mark")]);
    let mend = Request { depth: Depth::Structure, mending: Mending::Mend, now: 5 };
    assert!(vault.check(&mend, None, &|_| Go::On).unwrap().is_sound());
    assert_eq!(fs::read(place(2)).unwrap(), whole);
    // So does a copy.
    fs::write(&copy, b"BHMK").unwrap();
    assert_eq!(damage(&vault), vec![format!("copies/{ANA}/0000000002.mark")]);
    assert!(vault.check(&mend, None, &|_| Go::On).unwrap().is_sound());
    assert_eq!(fs::read(&copy).unwrap(), whole);
    drop(vault);
    // Both are lost.
    fs::remove_file(&copy).unwrap();
    let mut bytes = fs::read(place(2)).unwrap();
    bytes[60] ^= 1;
    fs::write(place(2), bytes).unwrap();
    rebuild::rebuild(dir.path(), [2; 16], Mending::Look, 0).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    assert_eq!(visible(&vault), vec![1, 2, 3], "in doubt a snapshot is kept");
    assert_eq!(damage(&vault), vec![format!("snaps/{ANA}/0000000002.mark")]);
    drop(vault);
    fs::remove_file(place(2)).unwrap();
    assert_eq!(visible(&Vault::open(dir.path()).unwrap()), vec![1, 2, 3]);
}

#[test]
fn nights_are_counted_and_a_lost_count_releases_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let vault = filled(dir.path());
    assert_eq!(vault.nights().unwrap().count, 0);
    for day in 1..=9 {
        vault.count_night(day * 86_400).unwrap();
        vault.count_night(day * 86_400 + 60).unwrap();
    }
    assert_eq!(vault.nights().unwrap().count, 9);
    vault.mark(ANA, 1, say(State::Forgotten)).unwrap();
    drop(vault);
    let vault = Vault::open(dir.path()).unwrap();
    assert_eq!((vault.nights().unwrap().count, vault.marks().unwrap()[0].night), (9, 9));
    fs::write(dir.path().join("nights"), b"nonsense").unwrap();
    assert_eq!(Vault::nights(&vault).unwrap().count, 9);
}

#[test]
fn what_is_forgotten_while_the_clock_is_ahead_does_not_make_a_night_of_that() {
    let dir = tempfile::tempdir().unwrap();
    let vault = filled(dir.path());
    let start = 100 * 86_400;
    vault.count_night(start).unwrap();
    for swing in 1..=5 {
        let ahead = vault.count_night(start + swing * 120 + 86_400).unwrap();
        assert_eq!(ahead.count, 2);
        vault.mark(ANA, swing % 3 + 1, say(State::Forgotten)).unwrap();
        vault.count_night(start + swing * 120 + 60).unwrap();
        assert_eq!(vault.nights().unwrap().count, 1);
    }
}
