//! What is done to the files of a vault that nobody has open, before a story or in the middle of it.

use std::fs;
use std::path::{Path, PathBuf};

use backhaul_store::blobs::{Blobs, LocalBlobs};
use backhaul_store::manifest::Manifest;
use backhaul_tests::trees;

use crate::local::{Failure, said};

fn files(dir: &Path, folder: &str) -> Vec<PathBuf> {
    trees::files(&dir.join(folder)).into_iter().filter(|path| path.is_file()).collect()
}

/// Flips a bit in the middle of each pack: its parity mends it.
///
/// # Errors
/// A file cannot be read or written.
pub fn flip_each_pack(dir: &Path) -> Result<(), Failure> {
    for pack in files(dir, "packs") {
        let mut bytes = fs::read(&pack).map_err(said)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(pack, bytes).map_err(said)?;
    }
    Ok(())
}

/// Zeroes half of the object of each snapshot in its pack, and takes the parity of that away: only manifests have them now.
///
/// # Errors
/// A file cannot be read or written, or no pack has what a manifest holds.
pub fn lose_snapshot_objects(dir: &Path) -> Result<(), Failure> {
    let manifests = files(dir, "snaps");
    if manifests.is_empty() {
        return Err("there are no manifests".to_owned());
    }
    for manifest in manifests {
        let record = Manifest::decode(&fs::read(&manifest).map_err(said)?).map_err(said)?.record;
        let mut is_lost = false;
        for pack in files(dir, "packs") {
            let mut bytes = fs::read(&pack).map_err(said)?;
            let Some(at) = bytes.windows(record.len()).position(|window| window == record) else { continue };
            bytes[at + record.len() / 2..at + record.len()].fill(0);
            fs::write(&pack, bytes).map_err(said)?;
            for sidecar in files(dir, "parity").iter().filter(|file| file.file_name() == pack.file_name()) {
                fs::remove_file(sidecar).map_err(said)?;
            }
            is_lost = true;
        }
        if !is_lost {
            return Err(format!("no pack has the object in {}", manifest.display()));
        }
    }
    Ok(())
}

/// The pack with the most bytes. Where a folder cannot be listed there is none: in another pack there may be what no client
/// sends again.
///
/// # Errors
/// The folder cannot be listed.
pub fn largest_pack(dir: &Path) -> Result<PathBuf, Failure> {
    let blobs = LocalBlobs::new(dir);
    let mut largest = (None, String::new());
    for name in blobs.list("packs").map_err(said)? {
        largest = largest.max((blobs.len(&name).map_err(said)?, name));
    }
    Ok(dir.join(largest.1))
}

/// Zeroes a pack from its first third on: some of it can be read, and is saved.
///
/// # Errors
/// It cannot be read or written.
pub fn rot(pack: &Path) -> Result<(), Failure> {
    let mut bytes = fs::read(pack).map_err(said)?;
    let third = bytes.len() / 3;
    bytes[third..].fill(0);
    fs::write(pack, bytes).map_err(said)
}
