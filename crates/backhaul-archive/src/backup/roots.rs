//! The paths that a backup begins with.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Component;

use super::{BackupError, BackupRequest};

/// The paths to save as a tree of names; a leaf is saved with all below it.
#[derive(Default)]
pub(super) struct Roots {
    pub(super) children: BTreeMap<Vec<u8>, Roots>,
    pub(super) whole: bool,
}

/// Checks the paths and arranges them; a path inside another adds nothing. One of several may be missing.
pub(super) fn roots(request: &BackupRequest<'_>) -> Result<Roots, BackupError> {
    let mut roots = Roots::default();
    let (mut found, mut missing) = (false, None);
    for path in &request.paths {
        let bad = |why: &str| BackupError::Path { path: path.clone(), why: why.to_owned() };
        if request.skip.iter().any(|skip| path.starts_with(skip)) {
            return Err(bad("it is inside Backhaul's own home, which is never saved"));
        }
        match std::fs::symlink_metadata(path) {
            Ok(_) => found = true,
            // The walk names it; the others are saved.
            Err(error) => missing = Some(bad(&error.to_string())),
        }
        let mut at = &mut roots;
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => {
                    at = at.children.entry(name.as_bytes().to_vec()).or_default();
                }
                _ => return Err(bad("it must be an absolute path without . and ..")),
            }
        }
        at.whole = true;
    }
    match missing {
        Some(error) if !found => Err(error),
        _ => Ok(roots),
    }
}
