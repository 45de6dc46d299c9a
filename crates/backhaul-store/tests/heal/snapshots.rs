//! A snapshot object that is lost comes back from its manifest: no client sends one again.

use std::fs;
use std::path::Path;

use backhaul_object::keys::VaultKey;
use backhaul_object::seal::Unpacker;
use backhaul_object::{Kind, Sealed};
use backhaul_store::catalog::Catalog;
use backhaul_store::check::{Damage, Go, Mending, Part, Report, Round};
use backhaul_store::manifest::Manifest;
use backhaul_store::pack::{decode_record, encode_record};
use backhaul_store::revived::FILE;
use backhaul_store::{Vault, rebuild};

use crate::scene::*;

const MENDED: Option<&str> = Some("written anew from its manifest");

/// Opens a vault as who has the key does.
fn opened(root: &Path) -> Vault {
    let vault = Vault::open(root).unwrap();
    vault.verify_with(Box::new(|sealed: &Sealed| {
        let key = VaultKey::new([7; 32]);
        let object = sealed.unseal(&key.data_key()).map_err(|why| why.to_string())?;
        let opened = object.open(&key.id_key(), &mut Unpacker::new().unwrap());
        opened.map(drop).map_err(|why| why.to_string())
    }));
    vault
}

/// What is said of an object.
fn said<'r>(report: &'r Report, manifest: &Manifest) -> Vec<&'r Damage> {
    report.damage.iter().filter(|damage| damage.what == Part::Object(manifest.id.short())).collect()
}

/// The vault is whole, and so it stays when the caches are made anew.
fn assert_whole(root: &Path, dumped: &str) {
    let listed = |dump: &str| -> Vec<String> {
        let line = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            // Not in which pack, and where there.
            if words[0] == "object" { [&words[..3], &words[5..]].concat().join(" ") } else { line.to_owned() }
        };
        dump.lines().map(line).collect()
    };
    for is_fresh in [false, true] {
        if is_fresh {
            rebuild::rebuild(root, [3; 16], Mending::Look, 79).unwrap();
        }
        let vault = Vault::open(root).unwrap();
        let report = check(&vault, Mending::Look);
        assert!(report.damage.is_empty() && report.affected.is_empty(), "{is_fresh}: {:?}", report.damage);
        assert_eq!(listed(&dump(&vault)), listed(dumped), "everything has its number, {is_fresh}");
        let second = manifest(root, ANA, 2);
        let ordinal = vault.ordinal(&second.id).unwrap().unwrap();
        assert_eq!(vault.get(ordinal).unwrap(), decode_record(&second.record).unwrap().1);
    }
}

/// At once, or found lost before by who had not the key; by a check or by the scrub.
#[test]
fn a_snapshot_object_that_is_lost_is_written_anew_from_its_manifest() {
    for (was_lost, is_scrub) in [(false, false), (true, false), (true, true), (false, true)] {
        let case = format!("{was_lost} {is_scrub}");
        let dir = filled();
        let root = dir.path();
        let second = manifest(root, ANA, 2);
        let dumped = dump(&Vault::open(root).unwrap());
        damage_snapshot_object(root, &second);
        let keyless = Vault::open(root).unwrap();
        if was_lost {
            let report = check(&keyless, Mending::Mend);
            assert!(!report.is_sound() && report.affected.len() == 1, "{:?}", report.damage);
            let named = check(&keyless, Mending::Look);
            assert!(said(&named, &second)[0].why.contains("who has the key"), "{:?}", named.damage);
        }
        drop(keyless);
        let vault = opened(root);
        let before = vault.generation_for(ANA).unwrap();
        let named = check(&vault, Mending::Look);
        assert!(!named.is_sound() && named.affected.len() == 1, "{case}: {:?}", named.damage);
        let why = &said(&named, &second)[0].why;
        assert!(!was_lost || why.contains("`backhaul check --repair` writes it anew"), "{why}");
        let reports = match is_scrub {
            false => vec![check(&vault, Mending::Mend)],
            true => files(root, "packs")
                .iter()
                .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
                .map(|pack| vault.scrub(&pack, Round::PackAndPapers, 77, &|_| Go::On).unwrap())
                .collect(),
        };
        let healed: Vec<_> = reports.iter().flat_map(|report| said(report, &second)).collect();
        assert!(healed.len() == 1 && healed[0].mended.as_deref() == MENDED, "{case}: {healed:?}");
        for report in &reports {
            assert!(report.is_sound() && report.affected.is_empty(), "{case}: {:?}", report.damage);
        }
        assert_eq!(vault.generation_for(ANA).unwrap(), before, "no client has to read everything anew");
        assert!(Catalog::look(root).unwrap().lost().unwrap().is_empty());
        // As a kill at this moment would leave it: it is durable.
        assert!(!root.join(FILE).exists());
        let (copy, killed) = killed(root);
        drop(killed);
        assert_whole(copy.path(), &dumped);
        drop(vault);
        assert_whole(root, &dumped);
    }
}

/// An edited record has a right checksum, and only who has the key sees that it is another. That of a copy counts, if it is right.
#[test]
fn what_is_not_the_object_is_not_written_and_what_is_said_of_it_is_true() {
    let dir = filled();
    let root = dir.path();
    let second = manifest(root, ANA, 2);
    let dumped = dump(&Vault::open(root).unwrap());
    let (ordinal, mut sealed) = decode_record(&second.record).unwrap();
    let mut body = sealed.body.to_vec();
    body[40] ^= 1;
    sealed.body = body.into();
    let forged =
        Manifest { record: encode_record(ordinal, &sealed.header.encode(), &sealed.body), ..second.clone() };
    let (path, copy) = (root.join(name("snaps", ANA, 2)), root.join(name("copies", ANA, 2)));
    damage_snapshot_object(root, &second);
    fs::write(&path, forged.encode()).unwrap();
    fs::write(&copy, forged.encode()).unwrap();
    let vault = opened(root);
    check(&vault, Mending::Mend);
    for (expected, are_there) in [("is not what it was", true), ("can be believed", false)] {
        if !are_there {
            [&path, &copy].into_iter().for_each(|file| fs::remove_file(file).unwrap());
        }
        let report = check(&vault, Mending::Mend);
        let said = said(&report, &second);
        assert!(said.len() == 1 && said[0].mended.is_none(), "{:?}", report.damage);
        assert!(said[0].why.contains(expected) && said[0].why.contains("no backup brings"), "{said:?}");
        assert!(vault.ordinal(&second.id).unwrap().is_none() && report.affected.len() == 1);
    }
    fs::write(&path, forged.encode()).unwrap();
    fs::write(&copy, second.encode()).unwrap();
    drop(vault);
    let vault = opened(root);
    let report = check(&vault, Mending::Mend);
    assert_eq!(said(&report, &second)[0].mended.as_deref(), MENDED, "{:?}", report.damage);
    fs::write(&path, second.encode()).unwrap();
    drop(vault);
    assert_whole(root, &dumped);
}

/// The index was made anew without it, and so the catalog does not have the snapshot either.
#[test]
fn a_snapshot_that_a_rebuild_did_not_find_comes_back_with_its_object() {
    for is_damaged in [false, true] {
        let dir = filled();
        let root = dir.path();
        let second = manifest(root, ANA, 2);
        damage_snapshot_object(root, &second);
        check(&Vault::open(root).unwrap(), Mending::Mend);
        rebuild::rebuild(root, [2; 16], Mending::Look, 78).unwrap();
        if is_damaged {
            flip(&root.join(name("snaps", ANA, 2)), 50);
        }
        let vault = opened(root);
        let count = || vault.snapshots(Some(ANA)).unwrap().len();
        assert_eq!(count(), 1);
        assert!(!check(&vault, Mending::Look).is_sound());
        let report = check(&vault, Mending::Mend);
        assert!(report.is_sound() && count() == 2, "{:?}", report.damage);
        assert!(report.damage.iter().any(|damage| damage.mended.as_deref() == MENDED), "{:?}", report.damage);
        let dumped = dump(&vault);
        drop(vault);
        assert_whole(root, &dumped);
    }
}

/// What it refers to is lost as well, and comes back with a client.
#[test]
fn a_snapshot_object_comes_back_though_what_it_refers_to_is_lost() {
    let dir = filled();
    let root = dir.path();
    let second = manifest(root, ANA, 2);
    let dumped = dump(&Vault::open(root).unwrap());
    let of_metadata = |path: &std::path::PathBuf| {
        let bytes = fs::read(path).unwrap();
        bytes.windows(second.record.len()).any(|window| window == second.record)
    };
    let pack = files(root, "packs").into_iter().find(of_metadata).unwrap();
    fs::remove_file(pack).unwrap();
    files(root, "parity").into_iter().for_each(|sidecar| fs::remove_file(sidecar).unwrap());
    let vault = opened(root);
    let report = check(&vault, Mending::Mend);
    assert_eq!(said(&report, &second)[0].mended.as_deref(), MENDED);
    assert!(!report.is_sound() && report.affected.len() == 1, "{:?}", report.damage);
    let mut session = vault.begin(backhaul_object::ids::SessionId([70; 16]), ANA);
    tree(2)
        .iter()
        .filter(|sealed| sealed.header.kind == Kind::Node)
        .for_each(|sealed| append(&vault, &mut session, sealed));
    session.finish().unwrap();
    drop(vault);
    assert_whole(root, &dumped);
}
