//! A pack says in its head whose it is; what is in it does not depend on that.

use std::fs;

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::VaultId;
use backhaul_store::check::Mending;
use backhaul_store::index::Ordinal;
use backhaul_store::{Vault, rebuild};

use crate::scene::*;

/// Numbers and names of what can be read, wherever it is.
fn ids(vault: &Vault) -> Vec<String> {
    let dump = dump(vault);
    let objects = dump.lines().filter_map(|line| line.strip_prefix("object "));
    let named = objects.map(|object| object.split(' ').take(2).collect::<Vec<_>>().join(" "));
    let named: Vec<String> = named.collect();
    for object in &named {
        let ordinal = object.split(' ').next().unwrap().parse().unwrap();
        vault.get(Ordinal(ordinal)).unwrap();
    }
    named
}

#[test]
fn a_rebuild_loses_nothing_of_a_pack_whose_head_is_damaged_and_has_no_parity() {
    // Its magic number, its version, whose vault it is.
    for (is_data, at) in [true, false].into_iter().flat_map(|is_data| [0, 5, 9].map(|at| (is_data, at))) {
        let dir = filled();
        let vault = Vault::open(dir.path()).unwrap();
        let (before, ids_before) = (dump(&vault), ids(&vault));
        drop(vault);
        let (data, meta) = packs(dir.path());
        let bad = if is_data { data } else { meta };
        flip(&bad, at);
        let bytes = fs::read(&bad).unwrap();
        fs::remove_dir_all(dir.path().join("parity")).unwrap();
        fs::remove_file(dir.path().join("catalog.sqlite")).unwrap();
        let report = rebuild::rebuild(dir.path(), [2; 16], Mending::Mend, 78).unwrap();
        assert_eq!(report.snapshots, 3, "{:?}", report.damage);
        let vault = Vault::open(dir.path()).unwrap();
        assert!(dump(&vault) == before);
        // It is named, and put right when all is checked.
        let found = check(&vault, Mending::Mend);
        let name = bad.file_name().unwrap().to_str().unwrap();
        assert!(
            found.damage.iter().any(|damage| damage.what.to_string().ends_with(name)),
            "{:?}",
            found.damage
        );
        assert!(found.is_sound() && found.affected.is_empty(), "{:?}", found.damage);
        assert!(check(&vault, Mending::Look).damage.is_empty());
        assert_eq!(ids(&vault), ids_before);
        let kept = files(dir.path(), "quarantine");
        assert!(kept.iter().any(|path| fs::read(path).unwrap() == bytes), "{kept:?}");
    }
}

/// Whatever is wrong with it besides: of what is another's nothing gets in.
#[test]
fn a_damaged_pack_of_another_vault_stays_anothers() {
    let (dir, theirs) = (filled(), tempfile::tempdir().unwrap());
    let before = dump(&Vault::open(dir.path()).unwrap());
    let other = Vault::create(theirs.path(), &Descriptor::managed(VaultId([8; 16])), [1; 16]).unwrap();
    back_up(&other, ANA, 1, 9);
    drop(other);
    let pack = packs(theirs.path()).0;
    flip(&pack, 5_000);
    let place = dir.path().join("packs").join(pack.parent().unwrap().file_name().unwrap());
    fs::create_dir_all(&place).unwrap();
    fs::copy(&pack, place.join(pack.file_name().unwrap())).unwrap();
    fs::remove_file(dir.path().join("catalog.sqlite")).unwrap();
    let report = rebuild::rebuild(dir.path(), [2; 16], Mending::Mend, 78).unwrap();
    assert!(report.damage.iter().any(|damage| damage.why.contains("another vault")), "{:?}", report.damage);
    assert!(dump(&Vault::open(dir.path()).unwrap()) == before);
}
