//! The new catalog, and the step by which both caches take the place of the old.

use std::fs;
use std::path::Path;

use backhaul_object::ids::VaultId;

use crate::acknowledged;
use crate::catalog::{Catalog, Claims, Counts, PackRow};
use crate::error::{Doing, StoreError};

/// Writes the new catalog and puts both caches in place of the old.
pub(super) fn write_catalog(
    root: &Path,
    (generation, vault): (&[u8; 16], &VaultId),
    counts: Counts,
    packs: &[PackRow],
) -> Result<(), StoreError> {
    let (fresh, path) = (root.join("catalog.new"), root.join("catalog.sqlite"));
    let remove = |path: &Path| match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).doing("remove", path),
        _ => Ok(()),
    };
    for suffix in ["", "-wal", "-shm"] {
        remove(&root.join(format!("catalog.new{suffix}")))?;
    }
    let mut catalog = Catalog::open(&fresh)?;
    catalog.initialise(generation, vault)?;
    catalog.flush(counts, packs, &Claims::default())?;
    catalog.close_whole()?;
    for suffix in ["", "-wal", "-shm"] {
        remove(&root.join(format!("catalog.sqlite{suffix}")))?;
    }
    // It counts what the old one had.
    remove(&root.join(acknowledged::FILE))?;
    let (index, new) = (root.join("index"), root.join("index.new"));
    if index.exists() {
        fs::remove_dir_all(&index).doing("remove", &index)?;
    }
    // The old of one beside the new of the other would be opened, and lead to other packs: names need not become durable in order.
    crate::atomic::sync_parent(&path).doing("sync", root)?;
    fs::rename(&new, &index).doing("move into place", &index)?;
    fs::rename(&fresh, &path).doing("move into place", &path)?;
    crate::atomic::sync_parent(&path).doing("sync", root)
}
