//! From files to a snapshot's root: `walk → read → ask → bundle → compress → send`.
//!
//! - [`joints`] says what is read elsewhere than under its own name;
//! - [`walk`] lists everything below the [`roots`] in path order, [`look`]s at it, drops what the [`excludes`] say, looks
//!   each file up in the [`state`] of the last run, and tells [`step`] by step what there is;
//! - [`read`] reads what changed, in several threads, and cuts big files into chunks;
//! - [`drafts`] finds what of a changed chunk was in the file's chunks before, by the signatures that it keeps of these;
//! - [`assemble`] takes the results in path order and bundles small files; [`questions`] asks the sink what it lacks, and what was
//!   in the place of that before: what is little else goes as a patch ([`former`]);
//! - [`patience`] is what it does meanwhile, for those who wait for what it was asked for;
//! - [`tree`] draws the directories;
//! - [`outbound`] compresses in parallel and hands objects to the sink, children before parents.
//!
//! Invariants:
//! - every queue is bounded: memory does not grow with the size of a file, a directory tree or the vault
//!   (names of one directory, and one record per hard-linked inode, are the exceptions);
//! - a file that cannot be read is named in the result and never ends the run; a failing sink always does;
//! - a file's record reaches the state only when everything it refers to is durable;
//! - the same tree gives the same root, whatever was known before.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backhaul_object::descriptor::Descriptor;
use backhaul_object::entry::Totals;
use backhaul_object::keys::{ChunkerKey, IdKey};
use backhaul_object::source::{ObjectSink, TransferError};
use backhaul_object::{FormatError, ObjectId};
use thiserror::Error;

mod assemble;
mod drafts;
mod events;
pub mod excludes;
mod former;
pub mod joints;
mod look;
mod outbound;
mod patience;
mod questions;
mod read;
mod recent;
mod roots;
pub mod state;
mod step;
pub mod stream;
mod tree;
mod walk;

use drafts::Drafts;
use state::{PendingState, StateName};

/// Batches of files that wait for a reader; each file holds its directory open.
const JOBS_MAX: usize = 8;

/// What to back up, and how.
pub struct BackupRequest<'a> {
    /// Absolute paths; each is saved with everything below it.
    pub paths: Vec<PathBuf>,
    /// What to leave out below them.
    pub exclude: excludes::Excludes,
    /// Directories that are never saved: the home of the program itself.
    pub skip: Vec<PathBuf>,
    /// Stay on the file systems of `paths`.
    pub one_file_system: bool,
    /// Folders that are read elsewhere than under their own names.
    pub joints: joints::Joints,
    /// Where the state of earlier runs is kept; without it everything is read.
    pub state: Option<&'a Path>,
    /// Nanoseconds since 1970 as files are stamped on this machine; while [`joints`](Self::joints) lead to snapshots, not
    /// later than those were made: what happened since bears the same stamps as what they hold, or later ones.
    pub now: &'a (dyn Fn() -> i64 + Sync),
    /// Counted up while the backup runs.
    pub progress: Arc<BackupProgress>,
}

/// What all clients of the vault share, as the server told it.
#[derive(Clone)]
pub struct VaultParameters {
    /// Sizes.
    pub descriptor: Descriptor,
    /// Makes ids.
    pub id_key: IdKey,
    /// Makes cut points.
    pub chunker_key: ChunkerKey,
    /// State of another generation is void.
    pub generation: [u8; 16],
    /// Whether chunks may be sent as differences.
    pub patches: Patches,
}

/// Whether chunks may be sent as differences to others that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patches {
    /// Every chunk goes as it is.
    Refused,
    /// Where that is much shorter.
    Taken,
    /// The same, and the sink says what is there is like ([`ObjectSink::sign`]).
    Helped,
}

/// Counters to watch a backup by.
#[derive(Debug, Default)]
pub struct BackupProgress {
    /// Files and links seen.
    pub files: AtomicU64,
    /// Directories seen.
    pub dirs: AtomicU64,
    /// Bytes of the files seen.
    pub bytes_scanned: AtomicU64,
    /// Bytes read.
    pub bytes_read: AtomicU64,
    /// Bytes given to the sink.
    pub bytes_sent: AtomicU64,
    /// Errors so far.
    pub errors: AtomicU64,
}

/// What a backup saw and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Files not known from the last run.
    pub files_new: u64,
    /// Files that differ from the last run.
    pub files_changed: u64,
    /// Files as they were.
    pub files_unmodified: u64,
    /// Bytes of the files seen.
    pub bytes_scanned: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes given to the sink.
    pub bytes_sent: u64,
    /// Objects given to the sink.
    pub objects_sent: u64,
    /// Contents that the sink already had.
    pub objects_known: u64,
    /// What could not be read, or changed while it was.
    pub errors: Vec<(PathBuf, String)>,
    /// What is there but not kept, by kind, with counts.
    pub not_kept: Vec<(String, u64)>,
    /// What is not wanted, by reason, with counts; a folder counts once, whatever is in it.
    pub left_out: Vec<(String, u64)>,
}

impl Figures {
    /// A file that seemed to be as it was is not.
    fn has_changed(&mut self) {
        self.files_unmodified -= 1;
        self.files_changed += 1;
    }
}

/// What a run could be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Follows {
    /// With nothing: it is the first, or what was known of the one before is lost. All files are new to it.
    #[default]
    Nothing,
    /// With the last one of the same paths that was committed.
    Run,
}

/// A tree that is in the vault and waits for its snapshot.
pub struct Saved {
    /// The root directory.
    pub root: ObjectId,
    /// Sums over the tree.
    pub totals: Totals,
    /// What happened.
    pub figures: Figures,
    /// With what it was compared.
    pub follows: Follows,
    /// To be accepted once the snapshot is committed.
    pub state: Option<PendingState>,
}

/// Why a backup ended without a tree.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A path to save is not absolute, not there, or inside what is skipped.
    #[error("{}: {why}", path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// What was to be saved from a stream is not whole.
    #[error("what was to be saved is not whole, so there is no snapshot: {why}")]
    Stream {
        /// Why.
        why: String,
    },
    /// The session ended.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The state file cannot be written.
    #[error("local state {}: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something that this program made does not fit the format.
    #[error("cannot encode: {0}")]
    Format(#[from] FormatError),
}

pub(crate) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

pub(crate) fn to_path(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

/// Saves the paths into the sink.
///
/// # Errors
/// [`BackupError`] when there is no tree. Files that could not be read are in [`Figures::errors`].
pub fn backup(
    request: &BackupRequest<'_>,
    parameters: &VaultParameters,
    sink: &dyn ObjectSink,
) -> Result<Saved, BackupError> {
    let roots = &roots::roots(request)?;
    let name = StateName::new(&request.paths, parameters);
    let opened = request.state.map(|dir| state::open(dir, &name)).transpose()?;
    let (known, journal) = opened.map_or((None, None), |(known, journal)| (Some(known), Some(journal)));
    let follows = known.as_ref().map_or_else(Follows::default, state::Known::follows);
    let (old_nodes, records) = known.map_or_else(Default::default, state::Known::split);
    let drafts = request.state.and_then(|dir| Drafts::open(dir, parameters));
    let drafts = drafts.as_ref();
    let readers = &read::Readers::new(parameters, request, drafts);
    std::thread::scope(|scope| {
        let (jobs_in, jobs) = crossbeam_channel::bounded(JOBS_MAX);
        let (steps_in, batches) = step::Steps::channel(jobs_in);
        for _ in 0..read::THREADS {
            let jobs = jobs.clone();
            scope.spawn(move || readers.run(&jobs));
        }
        drop(jobs);
        let walk = walk::Walk::new(request, parameters, records, steps_in);
        spawn_walk(scope, walk, roots)?;
        let (put, saved) = outbound::with(scope, sink, &request.progress, |outbound| {
            assemble::Assembler::new(parameters, sink, outbound, journal, old_nodes, drafts).run(&batches)
        });
        // The walk and the readers stop when nobody takes their results.
        drop(batches);
        match (put, saved) {
            (Ok(()), saved) => saved.map(|mut saved| {
                if let Some(drafts) = drafts {
                    drafts.make_room();
                }
                saved.follows = follows;
                saved.figures.bytes_sent = request.progress.bytes_sent.load(Ordering::Relaxed);
                saved
            }),
            (Err(error), saved) => {
                let state = saved.ok().and_then(|saved| saved.state);
                state.map_or(Ok(()), |state| state.keep(sink.durable()))?;
                // The sink's own reason is the true one.
                Err(sink.failure().map_or(error, BackupError::Transfer))
            }
        }
    })
}

/// Starts the walk in a thread whose stack holds the deepest tree.
fn spawn_walk<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    walk: walk::Walk<'scope>,
    roots: &'scope roots::Roots,
) -> Result<(), BackupError> {
    let thread = std::thread::Builder::new().stack_size(walk::STACK);
    let spawned = thread.spawn_scoped(scope, move || walk.run(roots));
    let failed = |error| TransferError::Lost(format!("no thread for the walk: {error}"));
    spawned.map(drop).map_err(|error| failed(error).into())
}

/// Walks as [`backup`] would, reads nothing, and counts.
///
/// # Errors
/// As [`backup`].
pub fn dry_run(request: &BackupRequest<'_>, parameters: &VaultParameters) -> Result<Figures, BackupError> {
    let roots = &roots::roots(request)?;
    let name = StateName::new(&request.paths, parameters);
    let known = request.state.map(|dir| state::peek(dir, &name)).transpose()?;
    let (_, records) = known.map_or_else(Default::default, state::Known::split);
    std::thread::scope(|scope| {
        // Jobs go nowhere.
        let (jobs_in, _) = crossbeam_channel::bounded(JOBS_MAX);
        let (steps_in, batches) = step::Steps::channel(jobs_in);
        let walk = walk::Walk::new(request, parameters, records, steps_in);
        spawn_walk(scope, walk, roots)?;
        let mut figures = Figures::default();
        for step in batches.into_iter().flat_map(|batch| batch.steps) {
            step.count(&mut figures);
        }
        Ok(figures)
    })
}

#[cfg(test)]
mod tests;
