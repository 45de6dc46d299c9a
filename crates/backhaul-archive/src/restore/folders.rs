//! The folders that the walk of a restore is in: made when the first of what is wanted in them comes, finished when they
//! are left.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use backhaul_object::entry::{Attribute, Body, Entry, Metadata};
use rustix::fs::Stat;

use super::batch::Leaf;
use super::place::{self, Verdict};
use super::run::{Run, look};
use super::select::Choice;
use super::{Act, Extent, Mode, Overwrite, RestoreError};
use crate::attributes::Others;
use crate::flags;
use crate::listing::names_in;

/// How far a folder has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing in it was wanted yet.
    Waiting,
    /// It was there before.
    Old,
    /// Made by this restore: nothing is in it that was there before.
    Fresh,
}

pub(super) struct Folder {
    pub(super) relative: Arc<[u8]>,
    pub(super) choice: Choice,
    /// What it is in the snapshot, without what is in it; the target itself is none.
    entry: Option<Entry>,
    stage: Stage,
    fd: Option<OwnedFd>,
    /// What the snapshot has in it, when all else is to go.
    names: HashSet<Vec<u8>>,
    /// The snapshot's names so far, as a file system sees them that does not tell letters by their case.
    folded: HashSet<u64>,
    /// A part of it could not be read: what else belongs there is not known.
    is_partial: bool,
}

impl Folder {
    /// The target; it is there.
    pub(super) fn target(extent: Extent, choice: Choice) -> Self {
        let entry = if let Extent::Folder(entry) = extent { Some(entry) } else { None };
        Self { stage: Stage::Old, ..Self::new(Arc::from(&b""[..]), entry, choice) }
    }

    fn new(relative: Arc<[u8]>, entry: Option<Entry>, choice: Choice) -> Self {
        let (stage, fd, names, is_partial) = (Stage::Waiting, None, HashSet::new(), false);
        Self { relative, choice, entry, stage, fd, names, folded: HashSet::new(), is_partial }
    }

    /// It only leads to what was saved: what else is in it is none of a snapshot's business.
    fn is_way(&self) -> bool {
        self.entry.as_ref().is_some_and(Entry::is_way)
    }

    /// Its inode flags in the snapshot.
    pub(super) fn flags(&self) -> u32 {
        self.entry.as_ref().filter(|entry| !entry.is_way()).map_or(0, Entry::flags)
    }

    pub(super) fn note_partial(&mut self) {
        self.is_partial = true;
    }

    pub(super) fn note_name(&mut self, name: &[u8]) {
        self.names.insert(name.to_vec());
    }

    /// The names that stay, if all others are to go: those in the snapshot, and those that it says were left out.
    pub(super) fn take_names(&mut self) -> Option<HashSet<Vec<u8>>> {
        let is_whole = self.stage != Stage::Waiting && self.choice == Choice::Wanted && !self.is_partial;
        let left_out = match &self.entry {
            _ if !is_whole || self.is_way() => return None,
            None => Vec::new(),
            Some(entry) => entry.left_out()?,
        };
        self.names.extend(left_out);
        Some(std::mem::take(&mut self.names))
    }
}

impl Run<'_, '_> {
    /// Whether folders that were there before get the snapshot's mode and time.
    fn changes_folders(&self) -> bool {
        matches!(self.engine.request.overwrite, Overwrite::Always | Overwrite::IfChanged)
    }

    /// Refuses a name that this file system takes for another of the snapshot: it would replace that.
    pub(super) fn refuse_alike(&mut self, name: &[u8]) -> Result<(), String> {
        let mut hash = DefaultHasher::new();
        String::from_utf8_lossy(name).to_lowercase().hash(&mut hash);
        let is_alone = self.folders.last_mut().is_none_or(|folder| folder.folded.insert(hash.finish()));
        if is_alone || !self.writes() {
            return Ok(());
        }
        match self.here()? {
            Some(dir) if look(dir, name)?.is_some() => {
                let listed = names_in(dir).map_err(|error| error.to_string())?;
                match listed.iter().any(|one| one.to_bytes() == name) {
                    true => Ok(()),
                    false => Err("this file system takes it for another name of the same folder".to_owned()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Comes into a folder; it is made now if it is wanted itself.
    pub(super) fn enter(&mut self, entry: &Entry, relative: &[u8], choice: Choice) -> Result<(), String> {
        let (name, extensions) = (entry.name.clone(), entry.extensions.clone());
        let entry = Entry { name, metadata: entry.metadata, body: Body::Folded(Vec::new()), extensions };
        // Descriptors are kept for the innermost folder only: depth is not limited by their number.
        if let Some(outer) = self.folders.last_mut() {
            outer.fd = None;
        }
        self.folders.push(Folder::new(Arc::from(relative), Some(entry), choice));
        let made = if choice == Choice::Wanted { self.settle() } else { Ok(()) };
        if made.is_err() {
            self.folders.pop();
        }
        made
    }

    /// Makes what is not yet made of the folders that the walk is in.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        let waiting = self.folders.iter().position(|folder| folder.stage == Stage::Waiting);
        for at in waiting.unwrap_or(self.folders.len())..self.folders.len() {
            self.make(at)?;
        }
        Ok(())
    }

    fn make(&mut self, at: usize) -> Result<(), String> {
        let Some(entry) = self.folders[at].entry.clone() else { return Ok(()) };
        let (writes, overwrite, metadata) = (self.writes(), self.engine.request.overwrite, entry.metadata);
        let compare = self.mode == Mode::Compare;
        let (mut fresh, dry) = (false, self.engine.request.dry_run && self.mode == Mode::Write);
        let replaces = |stat: &Stat| place::judge(stat, &metadata, overwrite, || false) == Verdict::Write;
        let there = match self.open(at - 1)? {
            Some(dir) if dry => match look(dir, &entry.name)? {
                Some(stat) if place::is_dir(&stat) => true,
                Some(stat) if !replaces(&stat) => return Err(place::IN_ITS_PLACE.to_owned()),
                _ => false,
            },
            Some(_) => true,
            None => false,
        };
        if let Some(dir) = self.open(at - 1)? {
            if writes {
                fresh = place::make_dir(dir, &entry.name, replaces)?;
            } else if compare && !look(dir, &entry.name)?.is_some_and(|stat| place::is_dir(&stat)) {
                return Err("differs from the snapshot: not a folder".to_owned());
            }
        }
        self.engine.report.dir();
        if self.mode == Mode::Write && (fresh || !there) {
            self.engine.report.act(Act::Create, &self.folders[at].relative);
        }
        self.folders[at - 1].fd = None;
        self.folders[at].stage = if fresh { Stage::Fresh } else { Stage::Old };
        let (flags, of_folder) = (self.folders[at].flags(), self.folders[at - 1].flags());
        if writes
            && (flags | of_folder != 0 || !fresh)
            && (fresh || self.changes_folders())
            && let Some(dir) = self.open(at)?
        {
            place::unlock(dir);
            let (set, path) = (flags::write(dir, flags, of_folder), Arc::clone(&self.folders[at].relative));
            self.engine.report.flagged(&path, flags, set);
        }
        Ok(())
    }

    /// The innermost folder, open; `None` when it is not there (in a dry run).
    pub(super) fn here(&mut self) -> Result<Option<&OwnedFd>, String> {
        self.settle()?;
        self.open(self.folders.len() - 1)
    }

    fn open(&mut self, at: usize) -> Result<Option<&OwnedFd>, String> {
        let dry = self.engine.request.dry_run && self.mode == Mode::Write;
        let (Some(place), Some(folder)) = (self.engine.place, self.folders.get_mut(at)) else {
            return if dry { Ok(None) } else { Err("the target folder is not there".to_owned()) };
        };
        if folder.fd.is_none() {
            match place.dir(&folder.relative) {
                Ok(fd) => folder.fd = Some(fd),
                Err(_) if dry => return Ok(None),
                Err(error) => return Err(format!("its folder cannot be opened: {error}")),
            }
        }
        Ok(folder.fd.as_ref())
    }

    /// Where the walk is, relative to the target.
    pub(super) fn here_path(&self) -> Arc<[u8]> {
        self.folders.last().map(|folder| Arc::clone(&folder.relative)).unwrap_or_default()
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.folders.last().is_some_and(|folder| folder.stage == Stage::Fresh)
    }

    /// Leaves a folder; what is to be done when its content is complete, if anything.
    pub(super) fn leave(&mut self) -> Result<Option<Leaf>, RestoreError> {
        self.tidy()?;
        Ok(self.left())
    }

    fn left(&mut self) -> Option<Leaf> {
        let folder = self.folders.pop()?;
        let is_made = folder.stage != Stage::Waiting;
        if !is_made || !self.writes() || !(folder.stage == Stage::Fresh || self.changes_folders()) {
            return None;
        }
        let entry = folder.entry.as_ref()?;
        // It was not saved itself: what it has stays.
        let attributes: Option<Vec<Attribute>> = (!entry.is_way()).then(|| entry.attributes());
        let flags = folder.flags();
        let metadata = match entry.is_way() {
            true => self.with_own_time(&folder, entry.metadata),
            false => entry.metadata,
        };
        let others = if folder.stage == Stage::Fresh { Others::Go } else { Others::Stay };
        Some(Leaf { relative: folder.relative, metadata, attributes, others, flags })
    }

    /// A folder on the way was not saved: it keeps the time it has, and its owner unless root restores.
    fn with_own_time(&self, folder: &Folder, metadata: Metadata) -> Metadata {
        let fd = self.engine.place.and_then(|place| place.dir(&folder.relative).ok());
        match fd.and_then(|fd| rustix::fs::fstat(fd).ok()) {
            Some(stat) => {
                let root = rustix::process::geteuid().is_root();
                let (uid, gid) = if root { (metadata.uid, metadata.gid) } else { (stat.st_uid, stat.st_gid) };
                let (mtime_s, mtime_ns) = (stat.st_mtime, stat.st_mtime_nsec as u32);
                Metadata { uid, gid, mtime_s, mtime_ns, ..metadata }
            }
            None => metadata,
        }
    }
}
