//! What was put aside: files that a repair has replaced, and sidecars whose packs are gone. They stay for a time, so that
//! somebody can look at them; never does the only copy of anything go. Time alone removes nothing: nights are counted, too.

use std::collections::HashSet;

use backhaul_object::ids::PackId;

use crate::around;
use crate::blobs::Blobs;
use crate::error::StoreError;
use crate::repair::put_aside;
use crate::vault::{Vault, pack_blob};

/// How long what was put aside stays unless somebody says otherwise, in seconds.
pub const KEPT: u64 = 30 * 86_400;
const FOLDER: &str = "quarantine";
/// Bytes compared at once.
const BLOCK: usize = 1 << 20;

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

/// What a file may be called when it is put aside: since when by the clock, and by the nights that were counted. Another of its
/// name may have been put aside in the same second: then it gets a number.
pub(crate) fn names(of: &str, now: u64, night: u64) -> impl Iterator<Item = String> {
    let first = format!("{FOLDER}/{now}.{night}-{}", of.replace('/', "-"));
    (1_u64..).map(move |nth| if nth == 1 { first.clone() } else { format!("{first}~{nth}") })
}

/// True if a file was put aside as it is now. What cannot be read is not known to be.
pub(crate) fn is_aside(blobs: &dyn Blobs, name: &str) -> bool {
    let ending = format!("-{}", name.replace('/', "-"));
    let is_of_it = |kept: &String| kept.split('~').next().is_some_and(|kept| kept.ends_with(&ending));
    let kept = blobs.list(FOLDER).unwrap_or_default();
    kept.iter().filter(|kept| is_of_it(kept)).any(|kept| is_same(blobs, name, kept).unwrap_or(false))
}

fn is_same(blobs: &dyn Blobs, one: &str, other: &str) -> Result<bool, StoreError> {
    let len = blobs.len(one)?;
    if blobs.len(other)? != len {
        return Ok(false);
    }
    for at in (0..len.unwrap_or(0)).step_by(BLOCK) {
        if around::read(blobs, one, at, BLOCK)? != around::read(blobs, other, at, BLOCK)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// When a file was put aside, by its name: seconds since 1970, and nights; of those named before nights were, none.
fn put_at(name: &str) -> Option<(u64, u64)> {
    let since = name.strip_prefix(FOLDER)?.strip_prefix('/')?.split('-').next()?;
    let (at, night) = since.split_once('.').unwrap_or((since, "0"));
    Some((at.parse().ok()?, night.parse().ok()?))
}

/// True when a file has been there for as long as it is kept, by the clock and by nights: a clock that jumps ends nothing.
/// One that nobody of us has named stays.
fn is_over(name: &str, (now, night): (u64, u64), kept: u64) -> bool {
    let has_passed =
        |since: u64, now: u64, least: u64| now.checked_sub(since).is_some_and(|age| age >= least);
    put_at(name)
        .is_some_and(|(at, since)| has_passed(at, now, kept) && has_passed(since, night, kept / 86_400))
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
        let night = self.nights()?.count;
        due.retain(|name| is_over(name, (now, night), kept));
        if due.is_empty() || self.damaged_packs()? > 0 || self.has_lost(now)? {
            return Ok(0);
        }
        due.iter().try_for_each(|name| self.shared.blobs.remove(name))?;
        Ok(due.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::blobs::LocalBlobs;
    use crate::repair::replace;

    /// As many as a repair replaces in one second, and whatever slashes became.
    #[test]
    fn everything_that_is_replaced_under_one_name_in_one_second_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = LocalBlobs::new(dir.path());
        blobs.put("snaps/a", b"first").unwrap();
        for bytes in [b"second", b"third-", b"fourth"] {
            replace(&blobs, "snaps/a", bytes, 77).unwrap();
        }
        blobs.put("snaps-a", b"another").unwrap();
        put_aside(&blobs, "snaps-a", 77).unwrap();
        let kept: Vec<Vec<u8>> =
            blobs.list(FOLDER).unwrap().iter().map(|name| blobs.read(name, 0, 100).unwrap()).collect();
        assert_eq!(kept, [&b"first"[..], b"second", b"third-", b"another"]);
    }

    #[test]
    fn a_name_says_since_when_and_one_that_does_not_stays() {
        let names: Vec<String> = names("packs/ab/abcd", 1_000, 7).take(3).collect();
        let named = "quarantine/1000.7-packs-ab-abcd".to_owned();
        assert_eq!(names, [named.clone(), format!("{named}~2"), format!("{named}~3")]);
        assert!(is_over(&names[2], (1_000 + KEPT, 37), KEPT));
        assert!(is_over(&named, (1_000 + KEPT, 37), KEPT) && !is_over(&named, (999 + KEPT, 37), KEPT));
        assert!(!is_over(&named, (1 << 40, 36), KEPT), "the clock has jumped");
        assert!(!is_over(&named, (5, 37), 0), "the clock was set back");
        assert!(
            is_over("quarantine/1000-packs-ab-abcd", (1_000 + KEPT, 30), KEPT),
            "named by an earlier Backhaul"
        );
        assert!(!is_over("quarantine/notes.txt", (u64::MAX, u64::MAX), 0));
        assert!(!is_over("packs/1000.7-x", (u64::MAX, u64::MAX), 0));
    }
}
