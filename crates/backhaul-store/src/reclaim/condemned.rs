//! The file `condemned`: what waits to be reclaimed, and what was (docs/format.md, "Reclaim").

use std::path::Path;

use backhaul_object::codec::{FormatError, Reader, Write};
use backhaul_object::small_file::{SmallFile, summed};

use super::fence::{Condemned, Fence};
use crate::around;
use crate::atomic::AtomicFile;
use crate::bits::Bits;
use crate::error::{Doing, StoreError};
use crate::vault::State;

/// Its name in the vault.
pub const FILE: &str = "condemned";
const KIND: SmallFile = SmallFile { what: "list of what is condemned", magic: b"BHCN", version: 1 };
/// Most sets of condemned objects in a file.
const SETS_MAX: u64 = 8;
/// Highest object number.
const NUMBER_MAX: u64 = 1 << 40;

/// Canonical bytes.
pub fn encode(fence: &Fence) -> Vec<u8> {
    let mut out = KIND.begin();
    out.put_varint(fence.epoch());
    put_set(&mut out, fence.gone());
    put_set(&mut out, fence.leaving());
    out.put_varint(fence.condemned().len() as u64);
    for set in fence.condemned() {
        out.put_varint(set.epoch);
        put_set(&mut out, &set.objects);
    }
    summed(out)
}

fn put_set(out: &mut Vec<u8>, set: &Bits) {
    out.put_varint(set.ranges().count() as u64);
    let mut at = 0;
    for range in set.ranges() {
        out.put_varint(range.start - at);
        out.put_varint(range.end - range.start);
        at = range.end;
    }
}

/// Reads the file's bytes.
///
/// # Errors
/// Truncated, changed, or of an unknown version.
pub fn decode(bytes: &[u8]) -> Result<Fence, FormatError> {
    let mut r = KIND.open(bytes)?;
    let epoch = r.varint("epoch")?;
    let gone = get_set(&mut r)?;
    let leaving = get_set(&mut r)?;
    let sets = r.varint("sets")?;
    if sets > SETS_MAX {
        return Err(FormatError::TooLarge { what: "sets", value: sets, limit: SETS_MAX });
    }
    let mut condemned = Vec::new();
    for _ in 0..sets {
        condemned.push(Condemned { epoch: r.varint("epoch of a set")?, objects: get_set(&mut r)? });
    }
    r.finish()?;
    Ok(Fence::restore(epoch, condemned, gone, leaving))
}

fn get_set(r: &mut Reader<'_>) -> Result<Bits, FormatError> {
    let mut set = Bits::default();
    let mut at = 0_u64;
    for i in 0..r.varint("ranges")? {
        let gap = r.varint("gap")?;
        let len = r.varint("length")?;
        let start = at.checked_add(gap).filter(|_| len > 0 && (gap > 0 || i == 0));
        let start = start.ok_or(FormatError::Invalid("a range that is not in order"))?;
        at = start.checked_add(len).filter(|end| *end <= NUMBER_MAX).ok_or(FormatError::TooLarge {
            what: "object number",
            value: start,
            limit: NUMBER_MAX,
        })?;
        set.add_range(start..at);
    }
    Ok(set)
}

/// What was written down; nothing when the file is missing or damaged. Then nothing is condemned, which costs another
/// epoch and never an object: what is gone is gone from the index as well.
///
/// # Errors
/// It cannot be read now.
pub(crate) fn load(root: &Path) -> Result<Fence, StoreError> {
    let path = root.join(FILE);
    // A disk that refuses may do so for the moment only.
    match std::fs::read(&path).or_else(|_| std::fs::read(&path)).doing("read", &path) {
        Ok(bytes) => Ok(decode(&bytes).unwrap_or_default()),
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Fence::default())
        }
        // A bad sector is damage like any other.
        Err(error) if around::is_medium(&error) => Ok(Fence::default()),
        Err(error) => Err(error),
    }
}

/// Writes it down, durably.
pub(crate) fn store(root: &Path, fence: &Fence) -> Result<(), StoreError> {
    let path = root.join(FILE);
    AtomicFile::new(&path).and_then(|file| file.commit(&encode(fence))).doing("write", &path)
}

impl State {
    /// Writes a fence down, which takes the place of the one in memory. If that fails and the file is there all the same,
    /// whoever opens the vault next will believe it: so must everybody until then.
    pub(crate) fn change_fence(&mut self, root: &Path, fence: Fence) -> Result<(), StoreError> {
        let done = store(root, &fence);
        if done.is_ok() || std::fs::read(root.join(FILE)).is_ok_and(|bytes| bytes == encode(&fence)) {
            self.index.let_go(fence.leaving().clone());
            self.fence = fence;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Nothing is condemned where nothing was written down, or what was is damaged; a disk that refuses says neither.
    #[test]
    fn what_cannot_be_read_now_is_not_taken_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).is_ok());
        std::fs::write(dir.path().join(FILE), b"damaged").unwrap();
        assert!(load(dir.path()).unwrap().condemned().is_empty());
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        std::fs::create_dir(dir.path().join(FILE)).unwrap();
        assert!(load(dir.path()).is_err());
    }
}
