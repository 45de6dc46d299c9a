//! What a repair leaves among the packs that is cut off.

use std::fs;
use std::path::{Path, PathBuf};

use backhaul_store::Vault;
use backhaul_store::check::{Damage, Mending, Part};
use backhaul_store::reclaim;

use crate::scene::*;

/// A vault in which a pack was given up, that pack as it was when it was whole and when it was given up, and where it was.
fn given_up() -> (tempfile::TempDir, Vault, [Vec<u8>; 2], PathBuf) {
    let dir = filled();
    let (pack, _) = packs(dir.path());
    let whole = fs::read(&pack).unwrap();
    let mut rotten = whole.clone();
    // A snapshot and its tree are elsewhere: what is lost is sent again.
    rotten[1_000..].fill(0);
    fs::write(&pack, &rotten).unwrap();
    files(dir.path(), "parity").into_iter().for_each(|sidecar| fs::remove_file(sidecar).unwrap());
    let vault = Vault::open(dir.path()).unwrap();
    check(&vault, Mending::Mend);
    assert!(!pack.exists());
    fs::create_dir_all(pack.parent().unwrap()).unwrap();
    (dir, vault, [whole, rotten], pack)
}

fn of_it(root: &Path, vault: &Vault, pack: &Path, mending: Mending) -> Vec<Damage> {
    let name = Part::File(pack.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
    check(vault, mending).damage.into_iter().filter(|damage| damage.what == name).collect()
}

fn night(vault: &Vault) {
    vault.reclaim(&reclaim::Request::default(), &mut ()).unwrap();
}

/// A pack that was given up is put aside, then forgotten by the catalog, then removed: here a kill was before that. By the next
/// repair it goes, and by the first night in which nothing is lost any more; what was put aside stays.
#[test]
fn a_pack_that_was_given_up_and_not_removed_is_removed_by_the_next_repair_or_by_night() {
    for is_by_night in [false, true] {
        let (dir, vault, [_, rotten], pack) = given_up();
        fs::write(&pack, &rotten).unwrap();
        let named = of_it(dir.path(), &vault, &pack, Mending::Look);
        assert!(named.len() == 1 && named[0].why.contains("given up"), "{named:?}");
        if is_by_night {
            night(&vault);
            assert!(pack.exists(), "something is lost");
            (1..=3).for_each(|seed| back_up(&vault, ANA, 2 + seed, seed));
            night(&vault);
        } else {
            assert!(of_it(dir.path(), &vault, &pack, Mending::Mend)[0].mended.is_some());
        }
        assert!(!pack.exists() && of_it(dir.path(), &vault, &pack, Mending::Look).is_empty());
        let kept = files(dir.path(), "quarantine");
        assert!(kept.iter().any(|kept| fs::read(kept).unwrap() == rotten), "{kept:?}");
    }
}

/// Be it that it was given up: what is in it now was not put aside, or is whole, or can be made so. Somebody may have put it
/// back, and nothing else may have what is in it.
#[test]
fn a_pack_that_may_have_what_nothing_else_has_stays_and_is_named() {
    for case in ["whole", "whole and aside", "otherwise damaged", "with parity"] {
        let (dir, vault, [whole, rotten], pack) = given_up();
        let bytes = match case {
            "whole" | "whole and aside" => whole,
            "with parity" => rotten,
            _ => [&rotten[..], b"more"].concat(),
        };
        fs::write(&pack, &bytes).unwrap();
        let below = pack.strip_prefix(dir.path().join("packs")).unwrap().to_str().unwrap();
        if case == "whole and aside" {
            let aside = format!("quarantine/77.0-packs-{}~9", below.replace('/', "-"));
            fs::write(dir.path().join(aside), &bytes).unwrap();
        }
        if case == "with parity" {
            let sidecar = dir.path().join("parity").join(below);
            fs::create_dir_all(sidecar.parent().unwrap()).unwrap();
            fs::write(sidecar, b"anything").unwrap();
        }
        (1..=3).for_each(|seed| back_up(&vault, ANA, 2 + seed, seed));
        let named = of_it(dir.path(), &vault, &pack, Mending::Mend);
        assert!(named.len() == 1 && named[0].mended.is_none(), "{case}: {named:?}");
        night(&vault);
        assert!(fs::read(&pack).unwrap() == bytes, "{case}");
    }
}
