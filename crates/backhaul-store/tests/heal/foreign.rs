//! Files that were changed, exchanged or brought in from elsewhere are refused or named.

use std::fs;
use std::path::Path;

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::VaultId;
use backhaul_store::check::{Depth, Go, Mending, Part, Request};
use backhaul_store::{StoreError, Vault, rebuild};

use crate::scene::*;

/// Every byte of the index files is either noticed or of no consequence; whatever was noticed is gone after a rebuild.
#[test]
fn a_changed_index_is_noticed_and_made_anew() {
    let dir = filled();
    let before = dump(&Vault::open(dir.path()).unwrap());
    for path in files(dir.path(), "index") {
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 40 + 1) {
            flip(&path, at);
            match Vault::open(dir.path()) {
                Err(StoreError::Damaged { .. }) => {}
                Err(error) => panic!("byte {at} of {}: {error}", path.display()),
                Ok(vault) => {
                    let report = check(&vault, Mending::Look);
                    assert!(!report.is_sound(), "byte {at} of {}", path.display());
                }
            }
            fs::write(&path, &whole).unwrap();
        }
    }
    let path = dir.path().join("index/places");
    flip(&path, 5);
    rebuild::rebuild(dir.path(), [1; 16], Mending::Mend, 78).unwrap();
    assert_eq!(dump(&Vault::open(dir.path()).unwrap()), before);
}

#[test]
fn a_catalog_or_index_of_another_vault_or_time_is_refused() {
    let (dir, other, later) = (filled(), tempfile::tempdir().unwrap(), filled());
    let vault = Vault::create(other.path(), &Descriptor::managed(VaultId([8; 16])), [1; 16]).unwrap();
    back_up(&vault, ANA, 1, 1);
    drop(vault);
    let catalog = dir.path().join("catalog.sqlite");
    let mine = fs::read(&catalog).unwrap();
    fs::copy(other.path().join("catalog.sqlite"), &catalog).unwrap();
    let error = Vault::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("another vault") && error.contains("--rebuild-index"), "{error}");
    fs::write(&catalog, mine).unwrap();
    Vault::open(dir.path()).unwrap();
    let vault = Vault::open(later.path()).unwrap();
    back_up(&vault, BEA, 2, 9);
    back_up(&vault, BEA, 3, 10);
    drop(vault);
    // An index that is shorter than the catalog says.
    let borrow = |from: &Path| {
        for name in ["ids", "places", "parents", "references", "contents"] {
            fs::copy(from.join("index").join(name), later.path().join("index").join(name)).unwrap();
        }
        Vault::open(later.path()).err().unwrap().to_string()
    };
    let error = borrow(dir.path());
    assert!(error.contains("--rebuild-index"), "{error}");
    // Nor does one that is long enough pass, if it is not this vault's.
    let vault = Vault::open(other.path()).unwrap();
    (2..9).for_each(|sequence| back_up(&vault, ANA, sequence, 20 + sequence));
    drop(vault);
    let error = borrow(other.path());
    assert!(error.contains("not the index of this catalog"), "{error}");
}

/// Something that SQLite itself does not look at: the name of a client in a row.
#[test]
fn a_changed_row_of_the_catalog_is_noticed_when_the_vault_is_opened() {
    let dir = filled();
    let path = dir.path().join("catalog.sqlite");
    let mut bytes = fs::read(&path).unwrap();
    let place = bytes.windows(3).rposition(|bytes| bytes == b"ana").unwrap();
    bytes[place] = b'A';
    fs::write(&path, bytes).unwrap();
    let error = Vault::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("snapshots") && error.contains("--rebuild-index"), "{error}");
}

#[test]
fn packs_that_do_not_belong_are_named() {
    let (dir, other) = (filled(), tempfile::tempdir().unwrap());
    let vault = Vault::create(other.path(), &Descriptor::managed(VaultId([8; 16])), [1; 16]).unwrap();
    back_up(&vault, ANA, 1, 5);
    drop(vault);
    let foreign = packs(other.path()).0;
    let place = dir.path().join("packs/zz").join(foreign.file_name().unwrap());
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::copy(&foreign, &place).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    let report = check(&vault, Mending::Look);
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    assert!(report.damage[0].what.to_string().contains("packs/zz/"), "{:?}", report.damage);
    drop(vault);
    let report = rebuild::rebuild(dir.path(), [2; 16], Mending::Mend, 78).unwrap();
    assert!(report.damage[0].why.contains("another vault"), "{:?}", report.damage);
    fs::remove_file(place).unwrap();
    // Two packs that have changed places: neither is what its name says.
    let all = files(dir.path(), "packs");
    let (one, two) = (fs::read(&all[0]).unwrap(), fs::read(&all[1]).unwrap());
    fs::write(&all[0], &two).unwrap();
    fs::write(&all[1], &one).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    let request = Request { depth: Depth::Structure, mending: Mending::Look, now: 77 };
    let report = vault.check(&request, None, &|_| Go::On).unwrap();
    assert!(
        report.damage.iter().filter(|damage| matches!(damage.what, Part::Pack(_))).count() == 2,
        "{report:?}"
    );
}
