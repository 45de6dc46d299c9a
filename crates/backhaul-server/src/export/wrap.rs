//! The recovery key's wrap that an export carries: as it was made, or there is no export.
//!
//! Nobody here can open it, and nobody misses it before the day on which the server is lost. So the fleet database has
//! its digest, and where the keyring's wrap is another, an export's takes its place: exports with a wrap that nothing
//! opens would push out those that can be opened.

use std::fs;
use std::path::PathBuf;

use backhaul_store::Vault;

use super::{Export, shelf};
use crate::chores::Tools;
use crate::error::ServerError;
use crate::keyring;

/// The keyring, put right if its recovery wrap is damaged.
pub(super) fn whole_keyring(tools: &Tools<'_>) -> Result<Vec<u8>, ServerError> {
    let (dir, vault) = (tools.home.dir(), &tools.vault.vault);
    let found = keyring::read(dir)?;
    let there = keyring::recovery_wrap(&found);
    let noted = tools.fleet.recovery_wrap()?;
    let made = match noted {
        Some(digest) => Some(digest),
        // A version before has made this server. No wrap is ever made anew: of several the first one is right.
        None => exported(vault)?.last().map(|(_, wrap)| wrap).as_deref().or(there).map(keyring::digest),
    };
    let is_made = |wrap: &[u8]| made == Some(keyring::digest(wrap));
    let whole = if there.is_some_and(is_made) {
        found
    } else {
        let Some((path, wrap)) = exported(vault)?.find(|(_, wrap)| is_made(wrap)) else {
            return Err(ServerError::File { path: keyring::file(dir), why: nowhere(vault) });
        };
        let (keyring, export) = (keyring::file(dir), path.display());
        tracing::warn!(
            "{}: what the recovery key opens was damaged; it is put right from {export}, and what it was is kept in {}",
            keyring.display(),
            keyring::REPLACED
        );
        keyring::restore(dir, &wrap)?
    };
    if let (None, Some(digest)) = (noted, made) {
        tools.fleet.note_recovery_wrap(&digest)?;
    }
    Ok(whole)
}

fn nowhere(vault: &Vault) -> String {
    format!(
        "what the recovery key opens in it is damaged, and no export has it whole, so that none is made: put an older copy \
         of this file back, or one of an export (`server export --copy-to`) into {}",
        vault.dir().join("exports").display()
    )
}

/// The wraps in the exports of this vault that are whole, newest first.
fn exported(vault: &Vault) -> Result<impl Iterator<Item = (PathBuf, Vec<u8>)>, ServerError> {
    let id = vault.descriptor().vault;
    let wrap = move |(_, path): (u64, PathBuf)| {
        let export = Export::decode(&fs::read(&path).ok()?).ok().filter(|export| export.vault == id)?;
        let wrap = keyring::recovery_wrap(&export.keyring)?.to_vec();
        Some((path, wrap))
    };
    Ok(shelf::list(vault.dir())?.into_iter().filter_map(wrap))
}
