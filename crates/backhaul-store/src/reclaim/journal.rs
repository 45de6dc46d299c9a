//! The redo journal: packs that take the place of others. Whoever finds it does all of it again.

use std::fs;
use std::path::Path;

use backhaul_object::codec::{FormatError, Reader, Write};
use backhaul_object::ids::{ClientId, PackId, SessionId};
use backhaul_object::small_file::{SmallFile, summed};

use crate::atomic::{AtomicFile, sync_parent};
use crate::catalog::PackRow;
use crate::error::{Doing, Of, StoreError};
use crate::pack::Class;

/// Its name in the vault.
pub const FILE: &str = "reclaim.journal";
const KIND: SmallFile = SmallFile { what: "journal of reclaim", magic: b"BHRJ", version: 1 };
/// Most packs in one journal.
const PACKS_MAX: usize = 1 << 20;

/// Packs that take the place of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    /// Of the index whose pack numbers these are.
    pub generation: [u8; 16],
    /// Whole and synced, under their names or still in `open/`.
    pub new: Vec<PackRow>,
    /// To be no more.
    pub old: Vec<(u32, PackId)>,
}

impl Journal {
    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = KIND.begin();
        out.extend_from_slice(&self.generation);
        out.put_varint(self.new.len() as u64);
        for row in &self.new {
            out.put_varint(u64::from(row.number));
            out.extend_from_slice(&row.name.map_or([0; 32], |name| name.0));
            out.push(row.class as u8);
            out.extend_from_slice(row.session.as_bytes());
            out.extend_from_slice(row.client.as_bytes());
            out.put_varint(row.bytes);
            out.put_varint(row.objects);
        }
        out.put_varint(self.old.len() as u64);
        for (number, name) in &self.old {
            out.put_varint(u64::from(*number));
            out.extend_from_slice(name.as_bytes());
        }
        summed(out)
    }

    /// Reads a journal.
    ///
    /// # Errors
    /// Truncated, changed, or of an unknown version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = KIND.open(bytes)?;
        let number = |r: &mut Reader<'_>| {
            let value = r.varint("pack number")?;
            let limit = u64::from(u32::MAX);
            u32::try_from(value).map_err(|_| FormatError::TooLarge { what: "pack number", value, limit })
        };
        let mut journal = Self { generation: r.array("generation")?, ..Self::default() };
        for _ in 0..r.count("new packs", PACKS_MAX)? {
            let (number, name) = (number(&mut r)?, Some(PackId(r.array("pack name")?)));
            let class = match r.u8("pack class")? {
                0 => Class::Data,
                1 => Class::Meta,
                other => return Err(FormatError::Unknown { what: "pack class", value: u64::from(other) }),
            };
            let (session, client) = (SessionId(r.array("session")?), ClientId(r.array("client")?));
            let (bytes, objects) = (r.varint("bytes")?, r.varint("objects")?);
            journal.new.push(PackRow { number, name, class, session, client, bytes, objects });
        }
        for _ in 0..r.count("old packs", PACKS_MAX)? {
            journal.old.push((number(&mut r)?, PackId(r.array("pack name")?)));
        }
        r.finish()?;
        Ok(journal)
    }
}

/// What was left to be done, if anything.
pub(crate) fn load(root: &Path) -> Result<Option<Journal>, StoreError> {
    let path = root.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => Journal::decode(&bytes).map(Some).of(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing("read", &path),
    }
}

/// Writes it down, durably: from here on it will be done.
pub(crate) fn store(root: &Path, journal: &Journal) -> Result<(), StoreError> {
    let path = root.join(FILE);
    AtomicFile::new(&path).and_then(|file| file.commit(&journal.encode())).doing("write", &path)
}

/// True when something is written down to be done.
pub(crate) fn is_there(root: &Path) -> bool {
    root.join(FILE).exists()
}

/// It is done.
pub(crate) fn remove(root: &Path) -> Result<(), StoreError> {
    let path = root.join(FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).doing("remove", &path),
        _ => sync_parent(&path).doing("sync the directory of", &path),
    }
}
