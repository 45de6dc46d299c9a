//! Manifests that somebody has edited, or that are of another time, under a checksum that is right.

use std::fs;
use std::path::Path;

use backhaul_object::Kind;
use backhaul_object::ids::SessionId;
use backhaul_store::check::{Mending, Part};
use backhaul_store::manifest::Manifest;
use backhaul_store::mark::State;
use backhaul_store::reclaim;
use backhaul_store::session::Commit;
use backhaul_store::vault::Marking;
use backhaul_store::{StoreError, Vault, rebuild};

use crate::scene::*;

/// Writes a manifest, under whatever name, with a checksum that is right.
fn write(root: &Path, name: &str, manifest: &Manifest) {
    fs::write(root.join(name), manifest.encode()).unwrap();
}

/// Makes the caches anew and opens the vault with them.
fn rebuilt(root: &Path, mending: Mending) -> (rebuild::Report, Vault) {
    let report = rebuild::rebuild(root, [1; 16], mending, 78).unwrap();
    (report, Vault::open(root).unwrap())
}

/// What an editor does to the manifest of ana's second snapshot that tells against itself: its name, the object in it, the pack
/// that this lies in, or another snapshot that has it.
fn edits(root: &Path) -> Vec<(&'static str, Manifest)> {
    let (first, second, bea) = (manifest(root, ANA, 1), manifest(root, ANA, 2), manifest(root, BEA, 1));
    let other = object(backhaul_object::Kind::Snap, &[], b"of a vault of before");
    let record = |sealed: &backhaul_object::Sealed| {
        backhaul_store::pack::encode_record(backhaul_store::Ordinal(1), &sealed.header.encode(), &sealed.body)
    };
    let mut refers = object(backhaul_object::Kind::Snap, &[first.id], b"as if it were the second");
    refers.header.id = second.id;
    let root_of_second =
        backhaul_store::pack::decode_record(&second.record).unwrap().1.header.references[0].id;
    let again = object(backhaul_object::Kind::Snap, &[root_of_second], b"another run over the same");
    vec![
        ("another run's object", Manifest { record: record(&again), ..second.clone() }),
        ("what it refers to", Manifest { record: record(&refers), ..second.clone() }),
        ("its number", Manifest { sequence: 7, ..second.clone() }),
        ("whose it is", Manifest { client: BEA, ..second.clone() }),
        ("its id", Manifest { id: first.id, ..second.clone() }),
        ("its object", Manifest { record: first.record.clone(), ..second.clone() }),
        ("no object", Manifest { record: vec![1, 2, 3], ..second.clone() }),
        ("no snapshot", {
            let chunk = object(backhaul_object::Kind::Chunk, &[], &noise(100, 20_000));
            Manifest { id: chunk.header.id, record: record(&chunk), ..second.clone() }
        }),
        (
            "another time of this vault",
            Manifest { id: other.header.id, record: record(&other), ..second.clone() },
        ),
        ("another's snapshot", Manifest { id: bea.id, record: bea.record, ..second.clone() }),
        ("a snapshot twice", Manifest { id: first.id, record: first.record, ..second }),
    ]
}

/// What tells against itself is not believed: the copy counts, stays what it is, and takes the place of what was edited.
#[test]
fn an_edited_manifest_that_tells_against_itself_gives_way_to_its_copy() {
    let dir = filled();
    let root = dir.path();
    let (path, copy) = (root.join(name("snaps", ANA, 2)), root.join(name("copies", ANA, 2)));
    let (whole, before) = (fs::read(&path).unwrap(), dump(&Vault::open(root).unwrap()));
    for (what, edited) in edits(root) {
        for mending in [Mending::Look, Mending::Mend] {
            write(root, &name("snaps", ANA, 2), &edited);
            let (_, vault) = rebuilt(root, mending);
            assert_eq!(dump(&vault), before, "{what}, {mending:?}");
            assert_eq!(fs::read(&copy).unwrap(), whole, "{what}, {mending:?}");
            let report = check(&vault, Mending::Mend);
            assert!(report.is_sound(), "{what}: {:?}", report.damage);
            assert_eq!(fs::read(&path).unwrap(), whole, "{what}");
            assert_eq!(fs::read(&copy).unwrap(), whole, "{what}");
            assert!(check(&vault, Mending::Look).damage.is_empty(), "{what}");
        }
        // What was edited is kept; what is put aside is called by the second.
        let kept = files(root, "quarantine").iter().any(|file| fs::read(file).unwrap() == edited.encode());
        assert!(kept, "{what}");
        fs::remove_dir_all(root.join("quarantine")).unwrap();
    }
}

/// The same done to the copy.
#[test]
fn an_edited_copy_that_tells_against_itself_is_made_anew() {
    let dir = filled();
    let root = dir.path();
    let (path, copy) = (root.join(name("snaps", ANA, 2)), root.join(name("copies", ANA, 2)));
    let (whole, before) = (fs::read(&path).unwrap(), dump(&Vault::open(root).unwrap()));
    for (what, edited) in edits(root).into_iter().filter(|(what, _)| *what != "a snapshot twice") {
        write(root, &name("copies", ANA, 2), &edited);
        let (_, vault) = rebuilt(root, Mending::Mend);
        assert!(check(&vault, Mending::Mend).is_sound(), "{what}");
        assert_eq!(dump(&vault), before, "{what}");
        assert!(fs::read(&path).unwrap() == whole && fs::read(&copy).unwrap() == whole, "{what}");
    }
}

/// What no object vouches for: only the copy says something else, and nobody knows which is right.
fn doubtful(root: &Path) -> Vec<(&'static str, Manifest)> {
    let second = manifest(root, ANA, 2);
    vec![
        ("time", Manifest { server_time: 5, ..second.clone() }),
        ("client's name", Manifest { client_name: "eve".to_owned(), ..second.clone() }),
        ("bytes stored", Manifest { bytes_stored: 1 << 40, ..second.clone() }),
        ("objects new", Manifest { objects_new: 0, ..second.clone() }),
        ("signature", Manifest { signature: vec![6; 70], ..second }),
    ]
}

/// Neither is written over, both are named, nothing is reclaimed; who has moved the wrong one away goes on.
#[test]
fn a_manifest_and_a_copy_that_differ_stay_both_until_somebody_has_chosen() {
    let dir = filled();
    let root = dir.path();
    let (path, copy) = (root.join(name("snaps", ANA, 2)), root.join(name("copies", ANA, 2)));
    let (whole, before) = (fs::read(&path).unwrap(), dump(&Vault::open(root).unwrap()));
    for (what, edited) in doubtful(root) {
        for is_copy in [false, true] {
            let wrong = if is_copy { &copy } else { &path };
            fs::write(wrong, edited.encode()).unwrap();
            let (report, vault) = rebuilt(root, Mending::Mend);
            let is_named = |damage: &backhaul_store::check::Damage| {
                damage.mended.is_none()
                    && damage.what.to_string() == name("snaps", ANA, 2)
                    && damage.why.contains(&name("copies", ANA, 2))
                    && damage.why.contains(what)
                    && damage.why.contains("`backhaul check --rebuild-index --repair`")
            };
            assert!(report.damage.iter().any(is_named), "{what}: {:?}", report.damage);
            for mending in [Mending::Look, Mending::Mend] {
                let report = check(&vault, mending);
                assert!(
                    report.damage.len() == 1 && is_named(&report.damage[0]),
                    "{what}: {:?}",
                    report.damage
                );
            }
            assert_eq!(vault.snapshots(None).unwrap().len(), 3, "{what}");
            let forgotten = Marking { state: State::Forgotten, now: 78, grace: 0, reason: "test" };
            vault.mark(ANA, 1, forgotten).unwrap();
            vault.mark(ANA, 2, forgotten).unwrap();
            vault.count_night(1 << 40).unwrap();
            let request = reclaim::Request { now: 1 << 41, ..reclaim::Request::default() };
            let error = vault.reclaim(&request, &mut ()).unwrap_err();
            assert!(
                matches!(&error, StoreError::Unsure { what, .. } if *what == name("snaps", ANA, 2)),
                "{error}"
            );
            for sequence in [1, 2] {
                vault.mark(ANA, sequence, Marking { state: State::Kept, ..forgotten }).unwrap();
            }
            drop(vault);
            assert_eq!(fs::read(wrong).unwrap(), edited.encode(), "{what}");
            fs::remove_file(wrong).unwrap();
            let (_, vault) = rebuilt(root, Mending::Mend);
            assert!(check(&vault, Mending::Mend).is_sound());
            assert_eq!(dump(&vault), before, "{what}");
            assert!(fs::read(&path).unwrap() == whole && fs::read(&copy).unwrap() == whole, "{what}");
        }
    }
}

/// A catalog that is not made anew is one more that says what a snapshot was.
#[test]
fn the_catalog_tells_against_an_edited_manifest() {
    let dir = filled();
    let root = dir.path();
    let path = root.join(name("snaps", ANA, 2));
    let whole = fs::read(&path).unwrap();
    for (what, edited) in doubtful(root).into_iter().filter(|(what, _)| *what != "signature") {
        write(root, &name("snaps", ANA, 2), &edited);
        let report = check(&Vault::open(root).unwrap(), Mending::Mend);
        assert!(report.is_sound() && report.damage.len() == 1, "{what}: {:?}", report.damage);
        assert_eq!(fs::read(&path).unwrap(), whole, "{what}");
    }
}

/// A manifest under a number that was never given out opens nothing and breaks nothing.
#[test]
fn a_manifest_in_a_place_that_is_not_its_own_is_named_and_the_vault_opens() {
    let dir = filled();
    let root = dir.path();
    let before = dump(&Vault::open(root).unwrap());
    let (stray, second) = (name("snaps", ANA, 9), manifest(root, ANA, 2));
    for (edited, why) in
        [(second.clone(), "0000000002.snap"), (Manifest { sequence: 9, ..second }, "0000000002.snap")]
    {
        write(root, &stray, &edited);
        let vault = Vault::open(root).unwrap();
        assert_eq!(dump(&vault), before);
        let report = check(&vault, Mending::Look);
        let found = report.damage.iter().find(|damage| damage.what.to_string() == stray).unwrap();
        assert!(found.why.contains(why), "{}", found.why);
        // What it says is said where it belongs.
        assert!(check(&vault, Mending::Mend).is_sound());
        assert!(!root.join(&stray).exists() && check(&vault, Mending::Look).damage.is_empty());
        assert_eq!(files(root, "quarantine").len(), 1);
        fs::remove_dir_all(root.join("quarantine")).unwrap();
    }
}

/// A copy alone says that its manifest was lost: nothing goes before that is back, whatever the catalog has forgotten.
#[test]
fn a_copy_without_a_manifest_and_a_row_is_named_holds_everything_and_brings_the_snapshot_back() {
    let dir = filled();
    let root = dir.path();
    let (path, before) = (root.join(name("snaps", ANA, 2)), dump(&Vault::open(root).unwrap()));
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let (_, vault) = rebuilt(root, Mending::Look);
    let report = check(&vault, Mending::Look);
    assert!(
        report.damage.iter().any(|damage| damage.what.to_string() == name("snaps", ANA, 2)),
        "{:?}",
        report.damage
    );
    for night in 1..4 {
        let now = night << 30;
        vault.count_night(now).unwrap();
        let error =
            vault.reclaim(&reclaim::Request { now, ..reclaim::Request::default() }, &mut ()).unwrap_err();
        assert!(
            matches!(&error, StoreError::Unsure { what, .. } if *what == name("snaps", ANA, 2)),
            "{error}"
        );
    }
    assert!(check(&vault, Mending::Mend).is_sound());
    assert_eq!((fs::read(&path).unwrap(), dump(&vault)), (whole, before));
    assert!(check(&vault, Mending::Look).damage.is_empty());
}

/// What is left of a lost manifest is not written over by the next backup, which may come before anybody has looked.
#[test]
fn the_number_of_a_lost_manifest_is_not_given_to_the_next_snapshot() {
    let dir = filled();
    let root = dir.path();
    let (path, copy) = (root.join(name("snaps", ANA, 2)), root.join(name("copies", ANA, 2)));
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let (_, vault) = rebuilt(root, Mending::Look);
    let next = vault.last_sequence(ANA).unwrap() + 1;
    assert_eq!(next, 3);
    // Whoever asks for it all the same is refused.
    let mut session = vault.begin(SessionId([8; 16]), ANA);
    let snap = object(Kind::Snap, &[], b"another second");
    let commit = Commit { client_name: "ana", sequence: 2, server_time: 5, signature: vec![5; 70] };
    let error = session.commit(&snap, &[], commit).unwrap_err().to_string();
    assert!(error.contains("another snapshot has this place"), "{error}");
    drop(session);
    back_up(&vault, ANA, next, 7);
    assert!(!path.exists() && fs::read(&copy).unwrap() == whole);
    assert!(check(&vault, Mending::Mend).is_sound());
    assert!(fs::read(&path).unwrap() == whole && fs::read(&copy).unwrap() == whole);
    let rows = vault.snapshots(Some(ANA)).unwrap();
    assert_eq!(rows.iter().map(|row| row.sequence).collect::<Vec<_>>(), [1, 2, 3]);
}

/// Nor does anything go for a copy that cannot be read: there was a snapshot.
#[test]
fn a_damaged_copy_without_a_manifest_and_a_row_holds_everything() {
    let dir = filled();
    let root = dir.path();
    fs::remove_file(root.join(name("snaps", ANA, 2))).unwrap();
    flip(&root.join(name("copies", ANA, 2)), 50);
    let (_, vault) = rebuilt(root, Mending::Mend);
    assert_eq!(vault.snapshots(None).unwrap().len(), 2);
    for night in 1..4 {
        let now = night << 30;
        vault.count_night(now).unwrap();
        let request = reclaim::Request { now, ..reclaim::Request::default() };
        let error = vault.reclaim(&request, &mut ()).unwrap_err();
        assert!(
            matches!(&error, StoreError::Unsure { what, .. } if *what == name("snaps", ANA, 2)),
            "{error}"
        );
    }
    assert!(
        check(&vault, Mending::Look)
            .damage
            .iter()
            .any(|found| found.what.to_string() == name("snaps", ANA, 2))
    );
}

/// A pack says whose it is: nobody gets a client's snapshot by a manifest of his own.
#[test]
fn a_snapshot_is_not_entered_for_another_client_than_that_of_its_pack() {
    let dir = filled();
    let root = dir.path();
    let stolen = Manifest { client: ANA, sequence: 9, ..manifest(root, BEA, 1) };
    for folder in ["snaps", "copies"] {
        fs::remove_file(root.join(name(folder, BEA, 1))).unwrap();
    }
    write(root, &name("snaps", ANA, 9), &stolen);
    let (_, vault) = rebuilt(root, Mending::Mend);
    assert_eq!(vault.snapshots(None).unwrap().len(), 2);
    let report = check(&vault, Mending::Mend);
    let found = report.damage.iter().find(|damage| damage.what.to_string() == name("snaps", ANA, 9)).unwrap();
    assert!(found.why.contains(&format!("of client {BEA}")) && found.mended.is_none(), "{found:?}");
}

/// Ana's second snapshot loses its object, beyond parity; what else was in the pack is in another one.
fn lose_snapshot_object(root: &Path) {
    damage_snapshot_object(root, &manifest(root, ANA, 2));
    let vault = Vault::open(root).unwrap();
    assert!(!check(&vault, Mending::Mend).is_sound());
    assert!(vault.ordinal(&manifest(root, ANA, 2).id).unwrap().is_none());
}

/// That the object is lost tells neither against the manifest nor against its copy.
#[test]
fn a_manifest_comes_back_from_its_copy_though_its_snapshot_object_is_lost() {
    let dir = filled();
    let root = dir.path();
    let (path, copy) = (root.join(name("snaps", ANA, 2)), root.join(name("copies", ANA, 2)));
    let (whole, second) = (fs::read(&path).unwrap(), manifest(root, ANA, 2));
    lose_snapshot_object(root);
    // With its row in the catalog, and then without.
    for is_listed in [true, false] {
        if !is_listed {
            drop(rebuilt(root, Mending::Look));
        }
        let vault = Vault::open(root).unwrap();
        assert_eq!(vault.snapshots(Some(ANA)).unwrap().len(), 1 + usize::from(is_listed));
        let lost = |report: &backhaul_store::check::Report| {
            let named = |damage: &&backhaul_store::check::Damage| match is_listed {
                true => damage.what == Part::Object(second.id.short()),
                false => {
                    damage.what.to_string() == name("snaps", ANA, 2)
                        && damage.why.contains("is not in the vault")
                }
            };
            report.damage.iter().filter(|damage| damage.mended.is_none()).filter(named).count()
        };
        let intact = check(&vault, Mending::Look);
        assert_eq!((intact.damage.len(), lost(&intact)), (1, 1), "{is_listed}: {:?}", intact.damage);
        let cases = [(false, Some(50)), (false, None), (true, Some(50))];
        // Without a row it is the manifest that says what there was.
        for (is_copy, damage) in cases.into_iter().filter(|(is_copy, _)| is_listed || !is_copy) {
            let case = format!("{is_listed}, {is_copy}, {damage:?}");
            let hit = if is_copy { &copy } else { &path };
            match damage {
                Some(at) => flip(hit, at),
                None => fs::remove_file(hit).unwrap(),
            }
            let report = check(&vault, Mending::Mend);
            assert_eq!((report.damage.len(), lost(&report)), (2, 1), "{case}: {:?}", report.damage);
            assert!(fs::read(&path).unwrap() == whole && fs::read(&copy).unwrap() == whole, "{case}");
            let again = check(&vault, Mending::Look);
            assert_eq!((again.damage.len(), lost(&again)), (1, 1), "{case}: {:?}", again.damage);
        }
        // A copy that belongs elsewhere takes nobody's place.
        for edited in [Manifest { sequence: 7, ..second.clone() }, Manifest { client: BEA, ..second.clone() }]
        {
            fs::remove_file(&path).unwrap();
            write(root, &name("copies", ANA, 2), &edited);
            assert!(lost(&check(&vault, Mending::Mend)) <= 1 && !path.exists(), "{is_listed}");
            [&path, &copy].iter().for_each(|file| fs::write(file, &whole).unwrap());
        }
    }
}
