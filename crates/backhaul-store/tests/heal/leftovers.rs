//! What a repair leaves among the packs that is cut off.

use std::fs;

use backhaul_store::Vault;
use backhaul_store::aside::KEPT;
use backhaul_store::check::{Mending, Part};
use backhaul_store::reclaim::{self, Watch};

use crate::scene::*;

struct Unwatched;

impl Watch for Unwatched {}

fn night(vault: &Vault) {
    let request = reclaim::Request { aside_kept: Some(KEPT), ..reclaim::Request::default() };
    vault.reclaim(&request, &mut Unwatched).unwrap();
}

/// A pack that was given up is put aside, then forgotten by the catalog, then removed: here a kill was before that. By the next
/// repair or the next night it goes, and with it nothing that is not in quarantine.
#[test]
fn a_pack_that_was_given_up_and_not_removed_is_removed_by_the_next_repair_or_by_night() {
    for is_by_night in [false, true] {
        let dir = filled();
        let (pack, _) = packs(dir.path());
        let mut rotten = fs::read(&pack).unwrap();
        rotten[1_000..].fill(0);
        fs::write(&pack, &rotten).unwrap();
        files(dir.path(), "parity").into_iter().for_each(|sidecar| fs::remove_file(sidecar).unwrap());
        let vault = Vault::open(dir.path()).unwrap();
        check(&vault, Mending::Mend);
        assert!(!pack.exists());
        fs::create_dir_all(pack.parent().unwrap()).unwrap();
        fs::write(&pack, &rotten).unwrap();
        let name = pack.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned();
        let of_it = |mending| {
            let found = check(&vault, mending).damage.into_iter();
            found.filter(|damage| damage.what == Part::File(name.clone())).collect::<Vec<_>>()
        };
        let named = of_it(Mending::Look);
        assert!(named.len() == 1 && named[0].why.contains("given up"), "{named:?}");
        if is_by_night {
            night(&vault);
        } else {
            assert!(of_it(Mending::Mend)[0].mended.is_some());
        }
        assert!(!pack.exists() && of_it(Mending::Look).is_empty());
        let kept = files(dir.path(), "quarantine");
        assert!(kept.iter().any(|kept| fs::read(kept).unwrap() == rotten), "{kept:?}");
    }
}

/// Be it that it was given up: what is in it now was not put aside, and may be what nothing else has.
#[test]
fn a_pack_that_is_not_as_it_was_put_aside_stays_and_is_named() {
    let dir = filled();
    let (pack, _) = packs(dir.path());
    let whole = fs::read(&pack).unwrap();
    let mut rotten = whole.clone();
    rotten[1_000..].fill(0);
    fs::write(&pack, &rotten).unwrap();
    files(dir.path(), "parity").into_iter().for_each(|sidecar| fs::remove_file(sidecar).unwrap());
    let vault = Vault::open(dir.path()).unwrap();
    check(&vault, Mending::Mend);
    fs::create_dir_all(pack.parent().unwrap()).unwrap();
    fs::write(&pack, &whole).unwrap();
    let report = check(&vault, Mending::Mend);
    night(&vault);
    let name = pack.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned();
    assert!(
        report.damage.iter().any(|found| found.what == Part::File(name.clone()) && found.mended.is_none())
    );
    assert!(fs::read(&pack).unwrap() == whole);
}
