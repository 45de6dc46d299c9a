//! Counts and errors of one restore, from several threads.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use backhaul_object::source::TransferError;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::place::Missed;
use super::{Act, RestoreProgress, RestoreRequest, Restored, Tell, count};
use crate::flags;

/// Errors kept by name; further ones are counted.
const ERRORS_MAX: usize = 100_000;

/// Something whose last flags are still to be set.
pub(crate) struct Flagged {
    pub(crate) path: Vec<u8>,
    pub(crate) flags: u32,
    /// What was there when it was restored.
    pub(crate) of: Option<Stat>,
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
    unowned: AtomicU64,
    mode_missed: AtomicU64,
    time_missed: AtomicU64,
    unprivileged: AtomicU64,
    unnamed: AtomicU64,
    errors: Mutex<Vec<(PathBuf, String)>>,
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
            unowned: AtomicU64::new(0),
            mode_missed: AtomicU64::new(0),
            time_missed: AtomicU64::new(0),
            unprivileged: AtomicU64::new(0),
            unnamed: AtomicU64::new(0),
            errors: Mutex::new(Vec::new()),
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
            tell(act, &self.target.join(OsStr::from_bytes(relative)));
        }
    }

    pub(crate) fn verified(&self) {
        count(&self.progress.verified, 1);
    }

    /// Something of an entry's metadata could not be set.
    pub(crate) fn missed(&self, relative: &[u8], missed: Missed) {
        count(&self.unowned, u64::from(missed.owner));
        count(&self.mode_missed, u64::from(missed.mode));
        count(&self.time_missed, u64::from(missed.time));
        count(&self.unprivileged, missed.attributes.privileged);
        missed.attributes.failed.into_iter().for_each(|why| self.error(relative, why));
    }

    /// What was one thing with another name is one of its own.
    pub(crate) fn unlinked(&self, relative: &[u8], why: &str) {
        self.error(relative, format!("made anew, not as a further name of what it was one with: {why}"));
    }

    /// Some of an entry's inode flags were set, or could not be.
    pub(crate) fn flagged(&self, relative: &[u8], flags: u32, set: Result<(), Errno>) {
        match set {
            Ok(()) => {}
            Err(Errno::PERM) if !rustix::process::geteuid().is_root() => count(&self.unprivileged, 1),
            Err(error) => self.error(relative, format!("inode flags {flags:#x} not set: {error}")),
        }
    }

    /// Notes flags that are set when all else is done.
    pub(crate) fn flag_last(&self, relative: &[u8], flags: u32, of: Option<Stat>) {
        let flags = flags::last_of(flags);
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
            let why = match rustix::process::geteuid().is_root() {
                true => format!("owner not set: this file system does not take it ({unowned} entries)"),
                false => format!("owner not set: not root ({unowned} entries)"),
            };
            errors.push((self.target.clone(), why));
        }
        for (what, missed) in [("mode", &self.mode_missed), ("time", &self.time_missed)] {
            let n = missed.load(Ordering::Relaxed);
            if n > 0 {
                let why =
                    format!("{what} not set as it was: this file system does not take it ({n} entries)");
                errors.push((self.target.clone(), why));
            }
        }
        let unprivileged = self.unprivileged.load(Ordering::Relaxed);
        if unprivileged > 0 {
            let why = format!("{unprivileged} attributes and flags of the system not set: not root");
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
            deleted: self.deleted.load(Ordering::Relaxed),
            errors,
        }
    }
}
