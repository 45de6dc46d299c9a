//! The file `revived`: places of what was lost and has come back, while they are being written into the index. Whoever
//! finds it writes them again: a row may be torn.

use std::fs;
use std::path::Path;

use backhaul_object::codec::{FormatError, Write};
use backhaul_object::small_file::{SmallFile, summed};

use crate::atomic::{AtomicFile, sync_parent};
use crate::error::{Doing, StoreError};
use crate::index::{Location, Ordinal};
use crate::vault::{State, Vault};

/// Its name in the vault.
pub const FILE: &str = "revived";
const KIND: SmallFile = SmallFile { what: "list of what comes back", magic: b"BHRV", version: 1 };
/// Most places in a file.
const PLACES_MAX: usize = 1 << 32;

/// Places, of the index of one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revived {
    /// Of the index whose numbers these are.
    pub generation: [u8; 16],
    /// By number.
    pub places: Vec<(Ordinal, Location)>,
}

impl Revived {
    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = KIND.begin();
        out.extend_from_slice(&self.generation);
        out.put_varint(self.places.len() as u64);
        for (ordinal, Location { pack, offset, len }) in &self.places {
            out.put_varint(ordinal.0);
            [*pack, *offset, *len].into_iter().for_each(|value| out.put_varint(u64::from(value)));
        }
        summed(out)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Truncated, changed, or of an unknown version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = KIND.open(bytes)?;
        let mut revived = Self { generation: r.array("generation")?, places: Vec::new() };
        for _ in 0..r.count("revived places", PLACES_MAX)? {
            let ordinal = Ordinal(r.varint("ordinal")?);
            let mut word = || {
                let value = r.varint("place")?;
                let limit = u64::from(u32::MAX);
                u32::try_from(value).map_err(|_| FormatError::TooLarge { what: "place", value, limit })
            };
            let at = Location { pack: word()?, offset: word()?, len: word()? };
            revived.places.push((ordinal, at));
        }
        r.finish()?;
        Ok(revived)
    }
}

fn remove(root: &Path) -> Result<(), StoreError> {
    let path = root.join(FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).doing("remove", &path),
        // It must not come back when these numbers are elsewhere.
        Ok(()) => sync_parent(&path).doing("sync the directory of", &path),
    }
}

impl Vault {
    /// Writes down what has come back. Its packs are durable, and the catalog knows them.
    pub(crate) fn keep_revived(&self, state: &mut State) -> Result<(), StoreError> {
        let places: Vec<(Ordinal, Location)> = state.index.revived().collect();
        if places.is_empty() {
            return Ok(());
        }
        let path = self.shared.root.join(FILE);
        let back: Vec<Ordinal> = places.iter().map(|(ordinal, _)| *ordinal).collect();
        let bytes = Revived { generation: self.generation(), places }.encode();
        AtomicFile::new(&path).and_then(|file| file.commit(&bytes)).doing("write", &path)?;
        state.index.keep_revived()?;
        // Lost once more, it is a new loss.
        state.catalog.drop_lost(&back)?;
        remove(&self.shared.root)
    }

    /// Writes again what was being written when the vault was last open. One of another generation is of an index that is
    /// no more.
    pub(crate) fn resume_revived(&self) -> Result<(), StoreError> {
        let path = self.shared.root.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).doing("read", &path),
        };
        if let Ok(Revived { generation, places }) = Revived::decode(&bytes)
            && generation == self.generation()
        {
            let mut state = self.state();
            for (ordinal, at) in places {
                let end = u64::from(at.offset) + u64::from(at.len);
                let is_there = state.packs.get(&at.pack).is_some_and(|pack| end <= pack.bytes);
                if is_there && ordinal.0 < state.index.objects() && !state.fence.gone().has(ordinal) {
                    state.index.relocate(ordinal, at)?;
                }
            }
            state.flush_index()?;
        }
        remove(&self.shared.root)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn places_come_back_as_they_went_and_nothing_else_is_one(
            places in proptest::collection::vec((any::<u64>(), any::<[u32; 3]>()), 0..20), at in any::<prop::sample::Index>(),
        ) {
            let one = |(number, [pack, offset, len]): (u64, [u32; 3])| (Ordinal(number), Location { pack, offset, len });
            let revived = Revived { generation: [3; 16], places: places.into_iter().map(one).collect() };
            let mut bytes = revived.encode();
            prop_assert_eq!(Revived::decode(&bytes).unwrap(), revived);
            let at = at.index(bytes.len());
            bytes[at] ^= 4;
            prop_assert!(Revived::decode(&bytes).is_err());
            prop_assert!(Revived::decode(&bytes[..at]).is_err());
        }
    }
}
