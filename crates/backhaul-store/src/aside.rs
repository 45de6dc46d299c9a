//! What was put aside: files that a repair has replaced, and sidecars whose packs are gone. They stay for a time, so that
//! somebody can look at them; never does the only copy of anything go.

use std::collections::HashSet;

use backhaul_object::ids::PackId;

use crate::error::StoreError;
use crate::repair::put_aside;
use crate::vault::{Vault, pack_blob};

/// How long what was put aside stays unless somebody says otherwise, in seconds.
pub const KEPT: u64 = 30 * 86_400;
const FOLDER: &str = "quarantine";

/// What is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aside {
    /// Files in `quarantine/`.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sidecars that belong to no pack.
    pub orphans: u64,
}

/// When a file was put aside, in seconds since 1970, by its name.
fn put_at(name: &str) -> Option<u64> {
    name.strip_prefix(FOLDER)?.strip_prefix('/')?.split('-').next()?.parse().ok()
}

/// True when a file has been there for as long as it is kept. One that nobody of us has named stays.
fn is_over(name: &str, now: u64, kept: u64) -> bool {
    put_at(name).is_some_and(|at| now.checked_sub(at).is_some_and(|age| age >= kept))
}

impl Vault {
    /// What was put aside, and what belongs there.
    ///
    /// # Errors
    /// The disk refused.
    pub fn aside(&self) -> Result<Aside, StoreError> {
        let mut found = Aside { orphans: self.orphans()?.len() as u64, ..Aside::default() };
        for name in self.shared.blobs.list(FOLDER)? {
            found.files += 1;
            found.bytes += self.shared.blobs.len(&name)?.unwrap_or(0);
        }
        Ok(found)
    }

    /// Puts a file aside that is not as it was written, and that something else will take the place of.
    ///
    /// # Errors
    /// The disk refused.
    pub fn put_away(&self, name: &str, now: u64) -> Result<(), StoreError> {
        put_aside(&*self.shared.blobs, name, now)?;
        self.shared.blobs.remove(name)
    }

    /// Sidecars of packs that neither the catalog knows nor the disk has.
    fn orphans(&self) -> Result<Vec<String>, StoreError> {
        let names = self.shared.blobs.list("parity")?;
        let mut known: HashSet<PackId> = self.in_journal()?;
        {
            let state = self.state();
            let rows = state.packs.values().chain(state.pending.values());
            known.extend(rows.filter_map(|row| row.name));
        }
        let mut orphans = Vec::new();
        for name in names {
            let Ok(id) = name.rsplit('/').next().unwrap_or_default().parse() else { continue };
            if !known.contains(&id) && self.shared.blobs.len(&pack_blob(&id))?.is_none() {
                orphans.push(name);
            }
        }
        Ok(orphans)
    }

    /// Puts orphans aside, and removes what was put aside `kept` seconds ago or earlier. While anything is lost or
    /// damaged nothing goes: it may be what somebody puts together again by hand. Returns how many files went.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn sweep_aside(&self, now: u64, kept: u64) -> Result<u64, StoreError> {
        let _upkeep = self.upkeep();
        for name in self.orphans()? {
            put_aside(&*self.shared.blobs, &name, now)?;
            self.shared.blobs.remove(&name)?;
        }
        let mut due = self.shared.blobs.list(FOLDER)?;
        due.retain(|name| is_over(name, now, kept));
        if due.is_empty() || self.damaged_packs()? > 0 || self.has_lost(now)? {
            return Ok(0);
        }
        due.iter().try_for_each(|name| self.shared.blobs.remove(name))?;
        Ok(due.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_since_when_and_one_that_does_not_stays() {
        let name = "quarantine/1000-packs-ab-abcd";
        assert!(is_over(name, 1_000 + KEPT, KEPT) && !is_over(name, 999 + KEPT, KEPT));
        assert!(!is_over(name, 5, 0), "the clock was set back");
        assert!(!is_over("quarantine/notes.txt", u64::MAX, 0) && !is_over("packs/1000-x", u64::MAX, 0));
    }
}
