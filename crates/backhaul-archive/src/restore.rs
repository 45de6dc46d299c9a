//! From a snapshot back to files.
//!
//! - [`place`] is the only code that touches the target: everything goes through directory descriptors
//!   opened beneath it without following symbolic links;
//! - [`part`] is how what is there is replaced in one step; [`base`] and, of small files, [`near`] are what of it need not be
//!   fetched;
//! - [`given`]: where blocks can be shared, or that is asked for, the file that is there is given what differs; [`out`] takes the
//!   bytes of a file for all three;
//! - [`plan`] turns a batch of files into few large reads, in the order in which a source says that they lie; [`fetch`] has them read and writes them with several threads;
//! - [`scan`] walks the tree and takes what the [`select`]ion wants; threads behind it [`look`] what is there; and behind them
//!   [`run`] makes [`folders`], keeps what is the [`same`], [`delete`]s what is too much; [`plain`] makes links, pipes, sockets and devices;
//! - [`batch`]: behind that, a batch of files is written, then its hard links and the metadata of the directories that are
//!   complete.
//!
//! Invariants:
//! - nothing outside the target is written;
//! - no file is left under its name with a part of its content: it is removed and named in the errors (a small new one
//!   may be cut short if the machine dies in that moment; its time then tells a later restore), unless it was asked for that a
//!   file be written in place;
//! - nothing goes before what replaces it is whole, and folders that were there lose nothing that is not in the snapshot;
//! - memory is bounded by the batch limits, whatever the size of a file or directory; only hard links
//!   cost memory by their number (one record per group), files that are to be immutable (a path each), and with `delete`
//!   the names of the folders that it is in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backhaul_object::ObjectId;
use backhaul_object::entry::{Entry, Totals};
use backhaul_object::keys::IdKey;
use backhaul_object::source::{ObjectSource, TransferError};
use thiserror::Error;

use crate::attributes::Others;
use crate::browse::{BrowseError, Located, Tree, absolute};

mod base;
mod batch;
mod compare;
mod delete;
mod fetch;
mod folders;
mod given;
mod links;
mod look;
mod near;
mod out;
mod part;
mod place;
mod plain;
mod plan;
mod report;
mod run;
mod same;
mod scan;
mod select;

use report::Report;
pub use select::Selection;

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

/// How a large file takes the place of one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replacing {
    /// It is put together beside it, and what is there stays until it is whole.
    #[default]
    InOneStep,
    /// What differs is written into it: no second copy is made, and an interruption leaves it half old and half new.
    InPlace,
}

/// Something that a restore does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing was there.
    Create,
    /// Something was, and is replaced.
    Replace,
    /// What is there stays.
    Keep,
    /// What is there goes, with all that is in it.
    Delete,
}

impl Act {
    /// What it is to make something where this is.
    fn upon(there: Option<&rustix::fs::Stat>) -> Self {
        if there.is_some() { Self::Replace } else { Self::Create }
    }
}

/// Hears of what is done.
pub type Tell = dyn Fn(Act, &Path) + Send + Sync;

/// What to restore, and how.
#[derive(Clone)]
pub struct RestoreRequest {
    /// The folder to restore into; made if it is not there.
    pub target: PathBuf,
    /// Reads every file that was written again and compares it with the vault.
    pub verify: bool,
    /// Only counts.
    pub dry_run: bool,
    /// What happens to what is already there.
    pub overwrite: Overwrite,
    /// How that is done with a large file.
    pub replacing: Replacing,
    /// Which part is wanted.
    pub select: Selection,
    /// Removes from the folders that are restored what the snapshot does not have, but for what the selection excludes.
    pub delete: bool,
    /// What the manifest says that there is: a tree that has more, or less, is refused.
    pub totals: Option<Totals>,
    /// Makes the vault's ids: with it, what the files in their places or an interrupted restore have is not fetched again.
    pub id_key: Option<IdKey>,
    /// Hears of each thing that is done, or in a dry run would be.
    pub tell: Option<Arc<Tell>>,
    /// Counted up while the restore runs.
    pub progress: Arc<RestoreProgress>,
}

impl RestoreRequest {
    /// Everything into a folder, as commands do it when nothing else is said.
    pub fn to(target: PathBuf) -> Self {
        Self {
            target,
            verify: false,
            dry_run: false,
            overwrite: Overwrite::default(),
            replacing: Replacing::default(),
            select: Selection::default(),
            delete: false,
            totals: None,
            id_key: None,
            tell: None,
            progress: Arc::default(),
        }
    }
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
    /// Names removed.
    pub deleted: AtomicU64,
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
    /// Names removed because the snapshot does not have them.
    pub deleted: u64,
    /// What could not be restored, by its place under the target.
    pub errors: Vec<(PathBuf, String)>,
    /// What is there, and which part of its metadata could not be set.
    pub unset: Vec<(PathBuf, String)>,
}

impl Restored {
    /// True when all is as it was.
    pub fn is_whole(&self) -> bool {
        self.errors.is_empty() && self.unset.is_empty()
    }
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
    let tree = Tree::new(source, root).with_totals(request.totals);
    let located = tree.lookup(from.unwrap_or_default())?;
    let target = |source| RestoreError::Target { path: request.target.clone(), source };
    let changes = mode == Mode::Write && !request.dry_run;
    let (place, made) = place::Target::open(&request.target, changes).map_err(target)?;
    let report = Report::new(request);
    let (prefix, extent) = match &located {
        Located::Root => (Vec::new(), Extent::Snapshot),
        Located::Entry(entry) if entry.is_folder() => {
            (absolute(from.unwrap_or_default()), Extent::Folder(entry.clone().bare()))
        }
        Located::Entry(_) => (parent(absolute(from.unwrap_or_default())), Extent::One),
    };
    let engine = fetch::Engine { source, place: place.as_ref(), request, prefix, report };
    // With `delete` a folder is exactly as it was, the target too.
    let exactly = request.delete && matches!(request.overwrite, Overwrite::Always | Overwrite::IfChanged);
    let top = match (&place, &located) {
        // One that only leads to what was saved says nothing of the target.
        (Some(place), Located::Entry(entry)) if entry.is_folder() && !entry.is_way() => Some((place, entry)),
        _ => None,
    };
    let top = top.filter(|_| (made || exactly) && changes);
    if let Some((place, entry)) = top {
        engine.begin_top(place, entry);
    }
    run::run(&engine, mode, tree.start(&located), extent)?;
    if let Some((place, entry)) = top {
        engine.finish_dir(place, b"", &entry.metadata, Some((&entry.attributes(), Others::Go)));
        engine.finish_top(place, entry);
    }
    Ok(engine.report.finish())
}

/// What a restore begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything, under its absolute paths.
    Snapshot,
    /// What is in one folder, which is this without what is in it.
    Folder(Entry),
    /// One file or link.
    One,
}

fn parent(mut path: Vec<u8>) -> Vec<u8> {
    path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
    path
}

fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

#[cfg(test)]
pub(crate) mod tests;
