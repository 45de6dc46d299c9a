//! What parity and copies cover comes back as it was.

use std::fs;
use std::path::PathBuf;

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{PackId, VaultId};
use backhaul_store::catalog::{Catalog, Verdict};
use backhaul_store::check::{Go, Mending, Round};
use backhaul_store::{StoreError, Vault, rebuild, repair};

use crate::scene::*;

#[test]
fn a_healthy_vault_has_parity_and_copies_of_everything_and_a_repair_changes_nothing() {
    let dir = filled();
    let names = |below: &str| {
        let name = |path: &PathBuf| path.file_name().unwrap().to_owned();
        files(dir.path(), below).iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names("packs"), names("parity"));
    assert_eq!((names("packs").len(), names("snaps").len(), names("copies").len()), (6, 3, 4));
    let before: Vec<_> = ["packs", "parity", "snaps", "copies"]
        .iter()
        .flat_map(|below| files(dir.path(), below))
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    let vault = Vault::open(dir.path()).unwrap();
    let report = check(&vault, Mending::Mend);
    assert!(report.damage.is_empty() && report.unprotected == 0, "{:?}", report.damage);
    assert_eq!((report.packs, report.packs_read, report.objects), (6, 6, 20 * 3 + 1 + 2 * 3 + 3));
    for (bytes, path) in before {
        assert!(fs::read(&path).unwrap() == bytes, "{}", path.display());
    }
    assert!(!dir.path().join("quarantine").exists());
}

#[test]
fn what_parity_covers_comes_back_byte_for_byte_and_the_damaged_file_is_kept() {
    let dir = filled();
    for pack in files(dir.path(), "packs") {
        let whole = fs::read(&pack).unwrap();
        // Head, a record, footer; and all at once.
        for places in [vec![3], vec![whole.len() / 2], vec![whole.len() - 30], vec![0, whole.len() - 1]] {
            places.iter().for_each(|at| flip(&pack, *at));
            let vault = Vault::open(dir.path()).unwrap();
            let found = check(&vault, Mending::Look);
            assert!(!found.is_sound(), "{places:?} of {}", pack.display());
            let report = check(&vault, Mending::Mend);
            assert!(report.is_sound() && !report.damage.is_empty(), "{:?}", report.damage);
            assert!(fs::read(&pack).unwrap() == whole);
            assert!(check(&vault, Mending::Look).damage.is_empty());
        }
    }
    assert!(!files(dir.path(), "quarantine").is_empty());
}

#[test]
fn sidecars_and_copies_are_made_anew() {
    let dir = filled();
    let (parity, copies) = (files(dir.path(), "parity"), files(dir.path(), "copies"));
    let before: Vec<Vec<u8>> = parity.iter().chain(&copies).map(|path| fs::read(path).unwrap()).collect();
    flip(&parity[0], 3_000);
    fs::remove_file(&parity[1]).unwrap();
    flip(&copies[0], 30);
    fs::remove_file(&copies[1]).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    let found = check(&vault, Mending::Look);
    assert_eq!((found.damage.len(), found.unprotected), (2, 2), "{:?}", found.damage);
    assert!(check(&vault, Mending::Mend).is_sound());
    let after: Vec<Vec<u8>> = parity.iter().chain(&copies).map(|path| fs::read(path).unwrap()).collect();
    assert!(before == after);
}

#[test]
fn a_manifest_comes_back_from_its_copy_also_when_the_catalog_is_gone() {
    let dir = filled();
    let manifests = files(dir.path(), "snaps");
    let whole = fs::read(&manifests[0]).unwrap();
    let before = dump(&Vault::open(dir.path()).unwrap());
    for is_rebuilt in [false, true] {
        for is_missing in [false, true] {
            match is_missing {
                false => flip(&manifests[0], 40),
                true => fs::remove_file(&manifests[0]).unwrap(),
            }
            if is_rebuilt {
                let report = rebuild::rebuild(dir.path(), [1; 16], Mending::Mend, 78).unwrap();
                assert!(report.damage.len() == 1 && report.damage[0].mended.is_some(), "{:?}", report.damage);
            }
            let vault = Vault::open(dir.path()).unwrap();
            let report = check(&vault, Mending::Mend);
            assert_eq!((report.is_sound(), report.damage.len()), (true, usize::from(!is_rebuilt)));
            assert!(fs::read(&manifests[0]).unwrap() == whole);
            assert_eq!(dump(&vault), before);
        }
    }
}

#[test]
fn a_damaged_descriptor_is_named_and_comes_back() {
    let dir = filled();
    let path = dir.path().join("vault.desc");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        flip(&path, at);
        assert!(matches!(Vault::open(dir.path()), Err(StoreError::Damaged { .. })), "byte {at}");
        let damage = repair::restore_descriptor(dir.path(), at as u64).unwrap().unwrap();
        assert!(damage.mended.is_some());
        assert!(fs::read(&path).unwrap() == whole);
    }
    let other = tempfile::tempdir().unwrap();
    drop(Vault::create(other.path(), &Descriptor::managed(VaultId([8; 16])), [1; 16]).unwrap());
    fs::copy(other.path().join("vault.desc"), &path).unwrap();
    let error = Vault::open(dir.path()).err().unwrap().to_string();
    assert!(
        error.contains("vault.desc") && error.contains("another vault") && error.contains("--repair"),
        "{error}"
    );
    assert!(repair::restore_descriptor(dir.path(), 1).unwrap().is_some());
    assert!(fs::read(&path).unwrap() == whole);
    fs::remove_file(&path).unwrap();
    let error = Vault::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("it is missing") && error.contains("--repair"), "{error}");
    assert!(repair::restore_descriptor(dir.path(), 2).unwrap().is_some());
    Vault::open(dir.path()).unwrap();
}

/// What a scrub or a check has found of a pack is written down as what it was: and of a pack that was given up, nothing.
#[test]
fn the_result_of_each_pack_is_kept() {
    let dir = filled();
    let (data, _) = packs(dir.path());
    let name: PackId = data.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    let stored = || {
        let checks = Catalog::look(dir.path()).unwrap().checks().unwrap();
        checks.iter().find(|check| check.pack == name).map(|check| (check.verdict, check.checked_at))
    };
    let scrub = |now| vault.scrub(&name, Round::Pack, now, &|_| Go::On).unwrap();
    assert_eq!(stored(), None, "nobody has read it");
    scrub(5);
    assert_eq!(stored(), Some((Verdict::Whole, 5)));
    flip(&data, 9_000);
    assert!(scrub(6).is_sound());
    assert_eq!(stored(), Some((Verdict::Mended, 6)));
    scrub(7);
    assert_eq!(stored(), Some((Verdict::Whole, 7)), "it is what it was when it was read last");
    // Beyond parity.
    let mut bytes = fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0);
    fs::write(&data, &bytes).unwrap();
    assert!(!check(&vault, Mending::Look).is_sound());
    assert_eq!(stored(), Some((Verdict::Damaged, 77)));
    assert_eq!(vault.damaged_packs().unwrap(), 1);
    assert!(!scrub(8).is_sound());
    assert_eq!(
        (stored(), vault.damaged_packs().unwrap(), data.exists()),
        (None, 0, false),
        "it was given up"
    );
    assert!(!Catalog::look(dir.path()).unwrap().lost().unwrap().is_empty());
}
