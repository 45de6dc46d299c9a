//! Counts and errors of one restore, from several threads.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use backhaul_object::source::TransferError;

use super::place::Missed;
use super::{RestoreProgress, Restored, count};

/// Errors kept by name; further ones are counted.
const ERRORS_MAX: usize = 100_000;

/// What is collected.
pub(crate) struct Report {
    target: PathBuf,
    progress: Arc<RestoreProgress>,
    files: AtomicU64,
    dirs: AtomicU64,
    symlinks: AtomicU64,
    special: AtomicU64,
    bytes: AtomicU64,
    skipped: AtomicU64,
    unowned: AtomicU64,
    unprivileged: AtomicU64,
    unnamed: AtomicU64,
    errors: Mutex<Vec<(PathBuf, String)>>,
    fatal: Mutex<Option<TransferError>>,
}

impl Report {
    pub(crate) fn new(target: PathBuf, progress: Arc<RestoreProgress>) -> Self {
        Self {
            target,
            progress,
            files: AtomicU64::new(0),
            dirs: AtomicU64::new(0),
            symlinks: AtomicU64::new(0),
            special: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            unowned: AtomicU64::new(0),
            unprivileged: AtomicU64::new(0),
            unnamed: AtomicU64::new(0),
            errors: Mutex::new(Vec::new()),
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

    pub(crate) fn skipped(&self) {
        count(&self.skipped, 1);
        count(&self.progress.skipped, 1);
    }

    pub(crate) fn verified(&self) {
        count(&self.progress.verified, 1);
    }

    /// Something of an entry's metadata could not be set.
    pub(crate) fn missed(&self, relative: &[u8], missed: Missed) {
        count(&self.unowned, u64::from(missed.owner));
        count(&self.unprivileged, missed.attributes.privileged);
        missed.attributes.failed.into_iter().for_each(|why| self.error(relative, why));
    }

    pub(crate) fn error(&self, relative: &[u8], why: String) {
        count(&self.progress.errors, 1);
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < ERRORS_MAX {
            errors.push((self.target.join(OsStr::from_bytes(relative)), why));
        } else {
            count(&self.unnamed, 1);
        }
    }

    /// The session is over; the first reason is kept.
    pub(crate) fn fatal(&self, why: TransferError) {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    pub(crate) fn is_over(&self) -> Option<TransferError> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn finish(self) -> Restored {
        let mut errors = self.errors.into_inner().unwrap_or_else(PoisonError::into_inner);
        errors.sort();
        let unowned = self.unowned.load(Ordering::Relaxed);
        if unowned > 0 {
            let why = format!("owner not set: not root ({unowned} entries)");
            errors.push((self.target.clone(), why));
        }
        let unprivileged = self.unprivileged.load(Ordering::Relaxed);
        if unprivileged > 0 {
            let why = format!("{unprivileged} attributes of the system not set: not root");
            errors.push((self.target.clone(), why));
        }
        let unnamed = self.unnamed.load(Ordering::Relaxed);
        if unnamed > 0 {
            errors.push((self.target.clone(), format!("{unnamed} further errors are not listed")));
        }
        Restored {
            files: self.files.load(Ordering::Relaxed),
            dirs: self.dirs.load(Ordering::Relaxed),
            symlinks: self.symlinks.load(Ordering::Relaxed),
            special: self.special.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            errors,
        }
    }
}
