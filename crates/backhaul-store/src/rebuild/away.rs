//! Are the packs there at all? A folder that is not mounted looks like one in which nothing ever was. What is made from that
//! knows nothing, and gives numbers away that the packs have already.

use std::collections::HashSet;
use std::path::Path;

use backhaul_object::ids::{PackId, VaultId};

use crate::blobs::Blobs;
use crate::catalog::Catalog;
use crate::error::StoreError;
use crate::vault::open_name;

/// Refuses when most of what was there is not, and nothing that is there is new: a catalog of an earlier time does not know
/// what has come since.
pub(super) fn refuse(root: &Path, blobs: &dyn Blobs, vault: &VaultId) -> Result<(), StoreError> {
    let name = |blob: String| blob.rsplit('/').next().and_then(|name| name.parse().ok());
    let there: HashSet<PackId> = blobs.list("packs")?.into_iter().filter_map(name).collect();
    let away = |why: String| Err(StoreError::PacksAway { path: root.join("packs"), why });
    let known = known(root, blobs, vault);
    let found = known.intersection(&there).count();
    if found == there.len() && found * 2 < known.len() {
        return away(format!("has {found} of the {} packs that the catalog knows", known.len()));
    }
    if !there.is_empty() {
        return Ok(());
    }
    // Without a catalog: a snapshot is in a pack from the moment on in which it exists, and so is what has a sidecar.
    let copies = blobs.list("copies")?.into_iter().map(|name| name.replacen("copies/", "snaps/", 1));
    let snapshots: HashSet<String> =
        blobs.list("snaps")?.into_iter().chain(copies).filter(|name| name.ends_with(".snap")).collect();
    if !snapshots.is_empty() {
        return away(format!("has no pack, and {} snapshots need some", snapshots.len()));
    }
    let sidecars = blobs.list("parity")?.len();
    if sidecars > 0 && blobs.list("open")?.is_empty() {
        return away(format!("has no pack, and there is parity of {sidecars}"));
    }
    Ok(())
}

/// Packs that the catalog says are sealed, without those that a crash has kept from their place. None if it cannot be
/// used: it may be what is to be made anew.
fn known(root: &Path, blobs: &dyn Blobs, vault: &VaultId) -> HashSet<PackId> {
    let rows = Catalog::look(root).and_then(|catalog| match catalog.vault()? {
        Some(of) if of != *vault => Ok(Vec::new()),
        _ => catalog.packs(),
    });
    let is_on_its_way = |number| matches!(blobs.len(&open_name(number)), Ok(Some(_)));
    let rows = rows.unwrap_or_default().into_iter().filter(|row| !is_on_its_way(row.number));
    rows.filter_map(|row| row.name).collect()
}
