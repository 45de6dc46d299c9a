//! What a changed chunk has in common with what was in its place, found without having that: as a draft of a patch.
//!
//! For files of some size the agent keeps the signatures of chunks that the server has whole (*anchors*; [`file`] is how they are
//! kept). A new chunk is compared with those that were in its place. If it is little else than copies, it is drafted as a patch of them
//! and they stay; otherwise it is sent whole, and is an anchor from then on. It is so, too, when patches have cost as much as
//! the anchor: going on would cost more than beginning anew.
//!
//! Nothing here is relied on. The sink is asked whether it has the bases before a draft is used, and whoever stores a patch
//! makes the chunk of it first. What is lost or wrong costs chunks that are sent whole, or a run that is begun anew without it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use backhaul_object::keys::IdKey;
use backhaul_object::signature::SignatureKey;
use backhaul_object::source::Query;
use backhaul_object::{Kind, Object, patch};
use bytes::Bytes;

use super::{Patches, VaultParameters};

mod file;
mod reading;

pub(super) use reading::Reading;

/// Folder below that of the state.
const FOLDER: &str = "signatures";
/// Smallest file that is signed when it is new: what never changes is signed in vain.
const NEW_MIN: u64 = 8 << 20;
/// Smallest file that is signed when it has changed, where the sink does not say what smaller ones were like.
const CHANGED_MIN: u64 = 512 << 10;
/// Bytes that all signatures may take: those of about 40 GiB of files.
const ROOM: u64 = 512 << 20;
/// Bytes of a file for one of its signatures, about.
const PER_BYTE: u64 = 85;

/// Whether a file was known before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Past {
    /// It was not.
    New,
    /// It was, and has changed.
    Changed,
}

/// Who knows what a file that has changed was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownTo {
    /// The sink, which is asked if it says such things ([`super::former`]).
    Sink,
    /// Nobody but who keeps signatures of it.
    Signatures,
}

/// Which file signatures are of: a keyed hash of its path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name(String);

/// A chunk as a patch, if the sink has its bases.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// What it copies from, in order.
    pub(super) bases: Vec<Query>,
    /// Its program.
    pub(super) payload: Bytes,
    /// The file.
    pub(super) of: Name,
}

impl Draft {
    /// The object that is sent under the chunk's id.
    pub(super) fn into_patch(self) -> Object {
        let references = self.bases.iter().map(|base| patch::base(base.id)).collect();
        Object { kind: Kind::Patch, references, provides: vec![], payload: self.payload }
    }
}

/// The signatures of all files of one state.
pub(super) struct Drafts {
    dir: PathBuf,
    key: SignatureKey,
    id_key: IdKey,
    scope: file::Scope,
    /// The sink says what is there is like.
    is_helped: bool,
    room: u64,
    used: AtomicU64,
    /// Files whose anchors the sink does not have.
    forsaken: Mutex<HashSet<Name>>,
}

impl Drafts {
    /// Opens the folder; nothing where nobody takes patches, or where nothing can be kept.
    pub(super) fn open(state: &Path, parameters: &VaultParameters) -> Option<Self> {
        if parameters.patches == Patches::Refused {
            return None;
        }
        let dir = state.join(FOLDER);
        fs::create_dir_all(&dir).ok()?;
        let drafts = Self {
            dir,
            key: SignatureKey::new(&parameters.chunker_key),
            id_key: parameters.id_key.clone(),
            scope: file::Scope { vault: parameters.descriptor.vault, generation: parameters.generation },
            is_helped: parameters.patches == Patches::Helped,
            room: ROOM,
            used: AtomicU64::new(0),
            forsaken: Mutex::default(),
        };
        let used = drafts.kept().iter().map(|kept| kept.bytes).sum();
        drafts.used.store(used, Ordering::Relaxed);
        Some(drafts)
    }

    /// A file of that size is about to be read.
    pub(super) fn begin(&self, path: &[u8], size: u64, past: Past, known_to: KnownTo) -> Option<Reading<'_>> {
        let changed_min = if self.is_helped && known_to == KnownTo::Sink { NEW_MIN } else { CHANGED_MIN };
        let name = self.name(path);
        let known = file::Known::open(&self.path(&name), &self.scope);
        let free = self.room.saturating_sub(self.used.load(Ordering::Relaxed));
        let is_worth_it = match past {
            Past::New => size >= NEW_MIN && size / PER_BYTE <= free,
            Past::Changed => size >= changed_min && size / PER_BYTE <= self.room / 2,
        };
        (known.is_some() || is_worth_it).then(|| Reading::begin(self, name, known, past)).flatten()
    }

    fn name(&self, path: &[u8]) -> Name {
        let (id, _) = self.id_key.identify(&[b"signatures", path]);
        Name(id.to_string()[..32].to_owned())
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.dir.join(&name.0)
    }

    /// The sink lacks an anchor of a file: all its chunks become anchors when it is next read.
    pub(super) fn forsake(&self, name: &Name) {
        let mut forsaken = self.forsaken.lock().unwrap_or_else(PoisonError::into_inner);
        forsaken.insert(name.clone());
        // If it stays, the sink is asked again.
        let _ = fs::remove_file(self.path(name));
    }

    /// Puts what is known of a file now in the place of what was.
    fn replace(&self, name: &Name, new: &Path) -> std::io::Result<()> {
        let forsaken = self.forsaken.lock().unwrap_or_else(PoisonError::into_inner);
        if forsaken.contains(name) {
            return fs::remove_file(new);
        }
        self.used.fetch_add(fs::metadata(new)?.len(), Ordering::Relaxed);
        fs::rename(new, self.path(name))
    }

    /// When there is more than there is room for, files that never changed go first, then those whose change is longest ago.
    pub(super) fn make_room(&self) {
        let mut kept = self.kept();
        kept.sort_by_key(|kept| (kept.past, kept.since));
        let mut bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
        for kept in kept {
            if bytes <= self.room {
                break;
            }
            if fs::remove_file(&kept.path).is_ok() {
                bytes -= kept.bytes;
            }
        }
    }

    fn kept(&self) -> Vec<Kept> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| Kept::look(entry.path())).collect()
    }
}

/// Signatures of a file, looked at from outside.
struct Kept {
    path: PathBuf,
    past: Past,
    since: std::time::SystemTime,
    bytes: u64,
}

impl Kept {
    fn look(path: PathBuf) -> Option<Self> {
        let metadata = fs::metadata(&path).ok()?;
        // What was cut off while it was written is good for nothing.
        let past = file::past(&path).unwrap_or(Past::New);
        Some(Self { past, since: metadata.modified().ok()?, bytes: metadata.len(), path })
    }
}

#[cfg(test)]
mod tests;
