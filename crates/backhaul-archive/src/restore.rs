//! From a snapshot back to files.
//!
//! - [`place`] is the only code that touches the target: everything goes through directory descriptors
//!   opened beneath it without following symbolic links;
//! - [`fetch`] turns a batch of files into few large reads and writes them with several threads;
//! - [`run`] walks the tree, makes directories, and ends every batch with its hard links and the metadata of the
//!   directories that are complete; [`plain`] makes links, pipes, sockets and devices.
//!
//! Invariants:
//! - nothing outside the target is written;
//! - no file is left under its name with a part of its content: it is removed and named in the errors;
//! - nothing goes before what replaces it is whole, and folders that were there lose nothing that is not in the snapshot;
//! - memory is bounded by the batch limits, whatever the size of a file or directory; only hard links
//!   cost memory by their number (one record per group).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backhaul_object::ObjectId;
use backhaul_object::entry::Body;
use backhaul_object::source::{ObjectSource, TransferError};
use thiserror::Error;

use crate::attributes::Others;
use crate::browse::{BrowseError, Tree};

mod fetch;
mod out;
mod place;
mod plain;
mod report;
mod run;

use report::Report;

/// What happens to what is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// It is replaced.
    Always,
    /// It is replaced unless size and modification time are equal.
    #[default]
    IfChanged,
    /// It is replaced if the snapshot's is newer.
    IfNewer,
    /// It stays.
    Never,
}

/// What to restore, and how.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The folder to restore into; made if it is not there.
    pub target: PathBuf,
    /// Reads every file that was written again and compares it with the vault.
    pub verify: bool,
    /// Only counts.
    pub dry_run: bool,
    /// What happens to what is already there.
    pub overwrite: Overwrite,
    /// Counted up while the restore runs.
    pub progress: Arc<RestoreProgress>,
}

/// Counters to watch a restore by.
#[derive(Debug, Default)]
pub struct RestoreProgress {
    /// Files written.
    pub files: AtomicU64,
    /// Directories made or found.
    pub dirs: AtomicU64,
    /// Symbolic links made.
    pub symlinks: AtomicU64,
    /// Pipes, sockets and devices made.
    pub special: AtomicU64,
    /// Bytes of file content written.
    pub bytes: AtomicU64,
    /// Entries left as they were.
    pub skipped: AtomicU64,
    /// Files compared after writing.
    pub verified: AtomicU64,
    /// Errors so far.
    pub errors: AtomicU64,
}

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Files written (or compared, by [`verify_restored`]); each hard link counts.
    pub files: u64,
    /// Directories made or found.
    pub dirs: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Pipes, sockets and devices made.
    pub special: u64,
    /// Bytes of file content written; a hard link adds none.
    pub bytes: u64,
    /// Entries left as they were because of [`Overwrite`].
    pub skipped: u64,
    /// What could not be restored, by its place under the target.
    pub errors: Vec<(PathBuf, String)>,
}

/// Why a restore ended early.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The path is not in the snapshot, or its tree cannot be read at all.
    #[error(transparent)]
    Browse(BrowseError),
    /// The target cannot be used.
    #[error("{}: {source}", path.display())]
    Target {
        /// The target.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The session ended.
    #[error(transparent)]
    Transfer(#[from] TransferError),
}

impl From<BrowseError> for RestoreError {
    fn from(error: BrowseError) -> Self {
        match error {
            BrowseError::Transfer { source, .. } if crate::browse::is_fatal(&source) => {
                Self::Transfer(source)
            }
            other => Self::Browse(other),
        }
    }
}

/// Whether files are written or compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Write,
    Compare,
}

/// Restores a snapshot, or what is at `from` in it.
///
/// Without `from` the whole tree is laid under the target; a folder's contents land in the target; a file
/// or link lands there under its own name.
///
/// # Errors
/// [`RestoreError`] when nothing further can be done. Single files that fail are in [`Restored::errors`].
pub fn restore(
    source: &dyn ObjectSource,
    root: ObjectId,
    from: Option<&[u8]>,
    request: &RestoreRequest,
) -> Result<Restored, RestoreError> {
    start(source, root, from, request, Mode::Write)
}

/// Compares every file, link and folder below a target with the snapshot, byte by byte, changing nothing.
///
/// # Errors
/// As [`restore`]; differences are in [`Restored::errors`].
pub fn verify_restored(
    source: &dyn ObjectSource,
    root: ObjectId,
    from: Option<&[u8]>,
    request: &RestoreRequest,
) -> Result<Restored, RestoreError> {
    start(source, root, from, request, Mode::Compare)
}

fn start(
    source: &dyn ObjectSource,
    root: ObjectId,
    from: Option<&[u8]>,
    request: &RestoreRequest,
    mode: Mode,
) -> Result<Restored, RestoreError> {
    let tree = Tree::new(source, root);
    let located = tree.lookup(from.unwrap_or_default())?;
    let target = |source| RestoreError::Target { path: request.target.clone(), source };
    let changes = mode == Mode::Write && !request.dry_run;
    let (place, made) = place::Target::open(&request.target, changes).map_err(target)?;
    let report = Report::new(request.target.clone(), Arc::clone(&request.progress));
    let engine = fetch::Engine { source, place: place.as_ref(), overwrite: request.overwrite, report };
    run::run(&engine, request, mode, tree.start(&located))?;
    if let (Some(place), true, crate::browse::Located::Entry(entry)) = (&place, made && changes, &located)
        && matches!(entry.body, Body::Directory { .. } | Body::Folded(_))
        // One that only leads to what was saved says nothing of the target.
        && !entry.is_way()
    {
        engine.finish_dir(place, b"", &entry.metadata, Some((&entry.attributes(), Others::Go)));
    }
    Ok(engine.report.finish())
}

fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

#[cfg(test)]
pub(crate) mod tests;
