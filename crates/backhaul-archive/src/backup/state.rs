//! What the last run knew about each file: disposable, and never trusted further than its stamps.
//!
//! Per set of paths there are up to three files of the same form, all in walk order: `.state` (the last
//! committed run), `.resume` (what interrupted runs since have made durable) and `.new` (the running one).
//! A file is looked up in `.resume` first. Losing them costs a re-read, never an upload.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use backhaul_object::entry::{Content, InodeFlags};

use super::look::Look;
use super::{BackupError, Follows, VaultParameters};

mod codec;
mod file;
mod journal;

pub(crate) use file::Records;
pub(super) use journal::Journal;

/// What the file system says about a file; any difference means that it must be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint {
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Nanoseconds since 1970; the one stamp that programs cannot set back.
    pub ctime_ns: i64,
    /// Inode.
    pub inode: u64,
    /// Volume.
    pub volume: u64,
}

impl Fingerprint {
    pub(super) fn of(look: &Look) -> Self {
        let (mtime_ns, ctime_ns) = look.changed();
        Self { size: look.size(), mtime_ns, ctime_ns, inode: look.inode(), volume: look.volume() }
    }

    pub(super) fn newest(&self) -> i64 {
        self.mtime_ns.max(self.ctime_ns)
    }
}

/// One file of an earlier run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Absolute.
    pub path: Vec<u8>,
    /// As it was when it was read.
    pub fingerprint: Fingerprint,
    /// The stamps prove nothing: read it again.
    pub racy: bool,
    /// It has extended attributes: they are read again, for they are not here.
    pub attributes: bool,
    /// Flags and project; a change of them shows in the stamps.
    pub flags: InodeFlags,
    /// Where its content is in the vault.
    pub content: Content,
}

/// Which state belongs to a set of paths in a vault.
pub(super) struct StateName {
    stem: String,
    header: [u8; file::HEADER_LEN],
}

impl StateName {
    pub(super) fn new(paths: &[PathBuf], parameters: &VaultParameters) -> Self {
        let mut sorted: Vec<&PathBuf> = paths.iter().collect();
        sorted.sort();
        let parts: Vec<&[u8]> =
            sorted.iter().flat_map(|p| [p.as_os_str().as_encoded_bytes(), b"\0"]).collect();
        let (id, _) = parameters.id_key.identify(&parts);
        let header = file::header(&parameters.descriptor.vault, &parameters.generation);
        Self { stem: id.to_string()[..16].to_owned(), header }
    }

    fn path(&self, dir: &Path, extension: &str) -> PathBuf {
        dir.join(format!("{}.{extension}", self.stem))
    }
}

/// What earlier runs knew.
#[derive(Default)]
pub(super) struct Known {
    nodes: HashSet<u64>,
    records: Records,
    follows: Follows,
}

impl Known {
    /// Whether a run before is known.
    pub(super) fn follows(&self) -> Follows {
        self.follows
    }

    /// Nodes that the server holds, by the first 8 bytes of their ids, and the files.
    pub(super) fn split(self) -> (HashSet<u64>, Records) {
        (self.nodes, self.records)
    }
}

/// The state of a run that has ended but is not committed.
pub struct PendingState {
    pub(super) journal: Journal,
}

impl PendingState {
    /// The run failed after the walk: what is durable is kept for the next.
    pub(super) fn keep(mut self, durable: u64) -> Result<(), BackupError> {
        self.journal.advance(durable)
    }

    /// The snapshot is committed: this is now what the last run knew.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn accept(self) -> Result<(), BackupError> {
        self.journal.accept()
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.to_path_buf();
    move |source| BackupError::State { path, source }
}

/// Opens the state for a run.
pub(super) fn open(dir: &Path, name: &StateName) -> Result<(Known, Journal), BackupError> {
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let (new, resume, state) = (name.path(dir, "new"), name.path(dir, "resume"), name.path(dir, "state"));
    if new.exists() {
        let merged = name.path(dir, "tmp");
        file::merge(&[&new, &resume], &merged, &name.header).map_err(failed(&merged))?;
        fs::rename(&merged, &resume).map_err(failed(&resume))?;
        fs::remove_file(&new).map_err(failed(&new))?;
    }
    let mut known = load(&[&resume, &state], name);
    if file::has_any(&state, &name.header) {
        known.follows = Follows::Run;
    }
    let journal = Journal::create(new, resume, state, &name.header)?;
    Ok((known, journal))
}

/// Looks at the state and changes nothing.
pub(super) fn peek(dir: &Path, name: &StateName) -> Result<Known, BackupError> {
    let paths = ["new", "resume", "state"].map(|extension| name.path(dir, extension));
    Ok(load(&[&paths[0], &paths[1], &paths[2]], name))
}

fn load(paths: &[&Path], name: &StateName) -> Known {
    let nodes = paths.iter().flat_map(|path| file::nodes(path, &name.header)).collect();
    Known { nodes, records: Records::open(paths, &name.header), follows: Follows::default() }
}

/// Forgets everything: the server no longer holds what the state refers to.
///
/// # Errors
/// A file cannot be removed.
pub fn discard(dir: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
