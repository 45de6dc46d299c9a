//! What was lost and comes back.

use std::fs;
use std::path::{Path, PathBuf};

use backhaul_object::ids::SessionId;
use backhaul_store::check::Mending;
use backhaul_store::pack::{Class, HEAD_LEN, Head};
use backhaul_store::revived::{FILE, Revived};
use backhaul_store::{Ordinal, Vault};
use backhaul_tests::trees;

use super::{ANA, copy, settle, tree};

/// Where the index says where objects are.
const PLACES: &str = "index/places";

/// A copy of a vault whose data was lost and is sent again, in the moment in which the new places are noted, and the rows of
/// the index are as they were.
pub(super) fn revived(dir: &Path, first: &Path) -> PathBuf {
    let (busy, home) = (dir.join("lost"), dir.join("fourth"));
    copy(first, &busy);
    lose_data(&busy);
    let vault = Vault::open(&busy).unwrap();
    let report = crate::mend::check(&vault, Mending::Mend).unwrap();
    assert!(!report.affected.is_empty(), "nothing was lost");
    let mut session = vault.begin(SessionId([7; 16]), ANA);
    let rows = fs::read(busy.join(PLACES)).unwrap();
    let ordinals: Vec<Ordinal> = [1, 3]
        .into_iter()
        .flat_map(tree)
        .filter(|sealed| vault.is_lost(&sealed.header.id).unwrap())
        .map(|sealed| session.append(&sealed, &vault.resolve(&sealed.header.references).unwrap()).unwrap())
        .collect();
    assert!(!ordinals.is_empty(), "nothing comes back");
    let places = vault.places(&ordinals.iter().copied().map(Some).collect::<Vec<_>>());
    let places = ordinals.into_iter().zip(places.into_iter().map(Option::unwrap)).collect();
    session.flush().unwrap();
    copy(&busy, &home);
    let mut now = fs::read(home.join(PLACES)).unwrap();
    assert_ne!(now[..rows.len()], rows, "no row was written over");
    now[..rows.len()].copy_from_slice(&rows);
    fs::write(home.join(PLACES), now).unwrap();
    fs::write(home.join(FILE), Revived { generation: vault.generation(), places }.encode()).unwrap();
    settle(&home);
    home
}

/// Damages all packs of data beyond their parity.
fn lose_data(root: &Path) {
    for pack in trees::files(&root.join("packs")) {
        let mut bytes = fs::read(&pack).unwrap();
        if Head::decode(&bytes[..HEAD_LEN]).unwrap().class != Class::Data {
            continue;
        }
        bytes[HEAD_LEN..].fill(0);
        fs::write(&pack, bytes).unwrap();
        fs::remove_file(root.join("parity").join(pack.strip_prefix(root.join("packs")).unwrap())).unwrap();
    }
}
