//! Counts and errors of one restore, from several threads.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use backhaul_object::entry::InodeFlags;
use backhaul_object::source::TransferError;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::place::Missed;
use super::{Act, RestoreProgress, RestoreRequest, Restored, Tell, count};
use crate::inode_flags::{self, Unflagged};

/// Errors kept by name; further ones are counted.
const ERRORS_MAX: usize = 100_000;

/// Something whose last flags are still to be set.
pub(crate) struct Flagged {
    pub(crate) path: Vec<u8>,
    pub(crate) flags: u32,
    /// What was there when it was restored.
    pub(crate) of: Option<Stat>,
}

/// The reason why not, where this is root.
fn or_not_root(why: &str) -> String {
    if rustix::process::geteuid().is_root() { why.to_owned() } else { "not root".to_owned() }
}

/// What is wrong, and with what; of very many only how many.
#[derive(Default)]
struct Named {
    list: Vec<(PathBuf, String)>,
    further: u64,
}

impl Named {
    fn add(&mut self, path: PathBuf, why: String) {
        if self.list.len() < ERRORS_MAX {
            self.list.push((path, why));
        } else {
            self.further += 1;
        }
    }

    /// In the order of paths.
    fn sorted(mut self, target: &Path, what: &str) -> Vec<(PathBuf, String)> {
        self.list.sort();
        if self.further > 0 {
            self.list.push((target.to_owned(), format!("{} further {what} are not listed", self.further)));
        }
        self.list
    }
}

/// What is collected.
pub(crate) struct Report {
    target: PathBuf,
    tell: Option<Arc<Tell>>,
    progress: Arc<RestoreProgress>,
    files: AtomicU64,
    dirs: AtomicU64,
    symlinks: AtomicU64,
    special: AtomicU64,
    bytes: AtomicU64,
    skipped: AtomicU64,
    deleted: AtomicU64,
    errors: Mutex<Named>,
    /// What is there, but not all of its metadata: nothing of it takes the place of an error.
    unset: Mutex<Named>,
    flagged: Mutex<Vec<Flagged>>,
    fatal: Mutex<Option<TransferError>>,
}

impl Report {
    pub(crate) fn new(request: &RestoreRequest) -> Self {
        let (target, progress) = (request.target.clone(), Arc::clone(&request.progress));
        Self {
            target,
            tell: request.tell.clone(),
            progress,
            files: AtomicU64::new(0),
            dirs: AtomicU64::new(0),
            symlinks: AtomicU64::new(0),
            special: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
            errors: Mutex::default(),
            unset: Mutex::default(),
            flagged: Mutex::new(Vec::new()),
            fatal: Mutex::new(None),
        }
    }

    pub(crate) fn file(&self, bytes: u64) {
        count(&self.files, 1);
        count(&self.bytes, bytes);
        count(&self.progress.files, 1);
        count(&self.progress.bytes, bytes);
    }

    pub(crate) fn dir(&self) {
        count(&self.dirs, 1);
        count(&self.progress.dirs, 1);
    }

    pub(crate) fn symlink(&self) {
        count(&self.symlinks, 1);
        count(&self.progress.symlinks, 1);
    }

    pub(crate) fn special(&self) {
        count(&self.special, 1);
        count(&self.progress.special, 1);
    }

    /// What is at a path stays; most of the time nobody wants to know at which.
    pub(crate) fn skipped(&self, relative: impl FnOnce() -> Vec<u8>) {
        count(&self.skipped, 1);
        count(&self.progress.skipped, 1);
        if self.tell.is_some() {
            self.act(Act::Keep, &relative());
        }
    }

    /// Names that the snapshot does not have are gone.
    pub(crate) fn deleted(&self, relative: &[u8], n: u64) {
        count(&self.deleted, n);
        count(&self.progress.deleted, n);
        self.act(Act::Delete, relative);
    }

    /// Tells whoever wants to hear.
    pub(crate) fn act(&self, act: Act, relative: &[u8]) {
        if let Some(tell) = &self.tell {
            tell(act, &self.at(relative));
        }
    }

    pub(crate) fn verified(&self) {
        count(&self.progress.verified, 1);
    }

    /// The target itself has an empty path.
    fn at(&self, relative: &[u8]) -> PathBuf {
        match relative {
            [] => self.target.clone(),
            _ => self.target.join(OsStr::from_bytes(relative)),
        }
    }

    /// Something of an entry's metadata could not be set.
    pub(crate) fn missed(&self, relative: &[u8], missed: Missed) {
        let Missed { owner, mode, time, attributes } = missed;
        if owner {
            self.unset(
                relative,
                format!("owner not set: {}", or_not_root("this file system does not take it")),
            );
        }
        for what in [mode.then_some("mode"), time.then_some("time")].into_iter().flatten() {
            self.unset(relative, format!("{what} not set as it was: this file system does not take it"));
        }
        attributes.into_iter().for_each(|why| self.unset(relative, why));
    }

    fn unset(&self, relative: &[u8], why: String) {
        count(&self.progress.errors, 1);
        let path = self.at(relative);
        self.unset.lock().unwrap_or_else(PoisonError::into_inner).add(path, why);
    }

    /// What was one thing with another name is one of its own.
    pub(crate) fn unlinked(&self, relative: &[u8], why: &str) {
        self.error(relative, format!("made anew, not as a further name of what it was one with: {why}"));
    }

    /// Some of an entry's inode flags could not be set.
    pub(crate) fn unflagged(&self, relative: &[u8], unset: impl IntoIterator<Item = Unflagged>) {
        for Unflagged { what, why } in unset {
            let why = match why {
                Errno::PERM => or_not_root(&Errno::PERM.to_string()),
                error => error.to_string(),
            };
            self.unset(relative, format!("{what} not set: {why}"));
        }
    }

    /// Notes flags that are set when all else is done.
    pub(crate) fn flag_last(&self, relative: &[u8], flags: InodeFlags, of: Option<Stat>) {
        let flags = inode_flags::last_of(flags);
        if flags != 0 {
            let mut flagged = self.flagged.lock().unwrap_or_else(PoisonError::into_inner);
            flagged.push(Flagged { path: relative.to_vec(), flags, of });
        }
    }

    /// What was noted.
    pub(crate) fn take_flagged(&self) -> Vec<Flagged> {
        std::mem::take(&mut *self.flagged.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn error(&self, relative: &[u8], why: String) {
        count(&self.progress.errors, 1);
        let path = self.at(relative);
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).add(path, why);
    }

    /// The session is over; the first reason is kept.
    pub(crate) fn fatal(&self, why: TransferError) {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    pub(crate) fn is_over(&self) -> Option<TransferError> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn finish(self) -> Restored {
        let taken = |named: Mutex<Named>| named.into_inner().unwrap_or_else(PoisonError::into_inner);
        let errors = taken(self.errors).sorted(&self.target, "errors");
        let unset = taken(self.unset).sorted(&self.target, "parts of metadata");
        Restored {
            files: self.files.load(Ordering::Relaxed),
            dirs: self.dirs.load(Ordering::Relaxed),
            symlinks: self.symlinks.load(Ordering::Relaxed),
            special: self.special.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            deleted: self.deleted.load(Ordering::Relaxed),
            errors,
            unset,
        }
    }
}
