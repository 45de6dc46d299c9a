//! Room that is set aside, so that deleting works on a full disk: it takes a little before it gives back much.

use std::fs::{self, OpenOptions};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::error::{Doing, StoreError};

/// Its name in the vault.
const FILE: &str = "reserve";
/// Its bytes.
pub const SIZE: u64 = 32 << 20;
/// Less than this is as good as nothing.
const LITTLE: u64 = 4 << 20;
/// It is made only where so many times as much is free.
const PLENTY: u64 = 8;

/// Sets the room aside, unless there is little; true when it is there afterwards.
///
/// # Errors
/// The disk refused to look, or to remove what was made in part.
pub(crate) fn keep(root: &Path) -> Result<bool, StoreError> {
    let path = root.join(FILE);
    if fs::metadata(&path).is_ok_and(|meta| meta.len() == SIZE) {
        return Ok(true);
    }
    if free(root)? < PLENTY * SIZE {
        return Ok(false);
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).open(&path).doing("create", &path)?;
    if fallocate(&file, FallocateFlags::empty(), 0, SIZE).is_err() {
        // Some file systems cannot; others are full after all.
        release(root)?;
        return Ok(false);
    }
    Ok(true)
}

/// Before reclaim is asked for, which takes writing as well: gives the room of the vault at `root` back if there is next
/// to none left; true when it did. It may be called beside the process that has the vault.
///
/// # Errors
/// The disk refused to look, or to remove.
pub fn make_room(root: &Path) -> Result<bool, StoreError> {
    if free(root)? < LITTLE { release(root) } else { Ok(false) }
}

/// True when there is next to no room left on the disk of the vault at `root`: whoever would write must expect to fail.
pub fn is_spent(root: &Path) -> bool {
    free(root).is_ok_and(|free| free < LITTLE)
}

fn free(root: &Path) -> Result<u64, StoreError> {
    let room = statvfs(root).map_err(std::io::Error::from).doing("examine the file system of", root)?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}

/// Gives the room back; true when there was some.
///
/// # Errors
/// The disk refused.
pub(crate) fn release(root: &Path) -> Result<bool, StoreError> {
    let path = root.join(FILE);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).doing("remove", &path),
    }
}
