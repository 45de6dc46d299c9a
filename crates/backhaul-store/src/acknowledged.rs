//! The file `acknowledged`: how many objects the catalog had when something was last acknowledged. What a kill leaves in `open/`
//! and what was acknowledged there look alike; only the catalog tells them apart, and this tells whether it is the newest.
//!
//! It is written in place and not synced: of so few bytes a disk has the old or the new ones, and one that is behind, or is not
//! there, only proves less.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use backhaul_object::codec::FormatError;
use backhaul_object::small_file::{SmallFile, summed};

use crate::atomic::AtomicFile;

/// Its name in the vault.
pub const FILE: &str = "acknowledged";
const KIND: SmallFile = SmallFile { what: "count of what was acknowledged", magic: b"BHAK", version: 1 };

/// A count, of the index of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Of the index whose objects were counted.
    pub generation: [u8; 16],
    /// How many the catalog had.
    pub objects: u64,
}

impl Acknowledged {
    /// Canonical bytes, always as many.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = KIND.begin();
        out.extend_from_slice(&self.generation);
        out.extend_from_slice(&self.objects.to_le_bytes());
        summed(out)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Truncated, changed, or of an unknown version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = KIND.open(bytes)?;
        let (generation, objects) = (r.array("generation")?, u64::from_le_bytes(r.array("objects")?));
        r.finish()?;
        Ok(Self { generation, objects })
    }

    /// What is noted for the index of a generation. None where nobody knows: the file is missing, cannot be read, or is of
    /// another index.
    pub(crate) fn load(root: &Path, generation: [u8; 16]) -> Option<Self> {
        let bytes = fs::read(root.join(FILE)).ok()?;
        Self::decode(&bytes).ok().filter(|noted| noted.generation == generation)
    }

    /// Notes it, after the catalog's transaction and before anybody is told. One that could not be noted proves less, and that
    /// is all: nobody is refused anything for it.
    pub(crate) fn note(&self, root: &Path) {
        let open = OpenOptions::new().write(true).open(root.join(FILE));
        let _ = open.and_then(|file| file.write_all_at(&self.encode(), 0));
    }

    /// Makes the file anew, durably, unless it is as it should be: it may never have been there, or be what a cut has left.
    pub(crate) fn renew(&self, root: &Path) {
        let (path, bytes) = (root.join(FILE), self.encode());
        if fs::read(&path).ok().as_ref() != Some(&bytes) {
            // As above.
            let _ = AtomicFile::new(&path).and_then(|file| file.commit(&bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_count_is_noted_in_place_and_counts_for_its_index_only() {
        let dir = tempfile::tempdir().unwrap();
        let load = |generation| Acknowledged::load(dir.path(), [generation; 16]).map(|noted| noted.objects);
        let counted = |objects| Acknowledged { generation: [3; 16], objects };
        counted(7).note(dir.path());
        assert_eq!(load(3), None, "only a vault that is opened makes it");
        counted(7).renew(dir.path());
        counted(1 << 40).note(dir.path());
        assert_eq!((load(3), load(4)), (Some(1 << 40), None));
        counted(8).renew(dir.path());
        assert_eq!(load(3), Some(8));
    }
}
