//! The folders that the walk of a restore is in: made when the first of what is wanted in them comes, finished when they
//! are left.

use std::collections::HashSet;
use std::ffi::CString;
use std::hash::{DefaultHasher, Hasher};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use backhaul_object::entry::{Attribute, Entry, InodeFlags, Metadata, NAME_MAX};
use rustix::fs::{self, Mode as Bits, Stat};
use rustix::io::Errno;

use super::batch::Leaf;
use super::place::{self, Target, Verdict};
use super::run::{Run, look};
use super::same::is_right;
use super::scan::OPEN_MAX;
use super::select::Choice;
use super::{Act, Extent, Mode, Overwrite, RestoreError};
use crate::attributes::Others;
use crate::beneath::dir_flags;
use crate::inode_flags;
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
    fd: Option<Arc<OwnedFd>>,
    /// Something was put into it or taken out of it, or will be.
    is_changed: bool,
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
        Self { stage: Stage::Old, ..Self::new(Arc::from(&b""[..]), entry, choice, None) }
    }

    fn new(relative: Arc<[u8]>, entry: Option<Entry>, choice: Choice, fd: Option<Arc<OwnedFd>>) -> Self {
        let (names, folded) = (HashSet::new(), HashSet::new());
        let stage = Stage::Waiting;
        Self { relative, choice, entry, stage, fd, is_changed: false, names, folded, is_partial: false }
    }

    /// It only leads to what was saved: what else is in it is none of a snapshot's business.
    fn is_way(&self) -> bool {
        self.entry.as_ref().is_some_and(Entry::is_way)
    }

    /// Its inode flags in the snapshot.
    pub(super) fn inode_flags(&self) -> InodeFlags {
        self.entry.as_ref().filter(|entry| !entry.is_way()).map_or(InodeFlags::default(), Entry::inode_flags)
    }

    pub(super) fn note_change(&mut self) {
        self.is_changed = true;
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
        let hash = folded(name);
        let is_alone = self.folders.last_mut().is_none_or(|folder| folder.folded.insert(hash));
        if is_alone || !self.writes() {
            return Ok(());
        }
        if self.is_told_apart(name, hash)? {
            return Ok(());
        }
        // The other may not have been written yet.
        self.drain().map_err(|error| error.to_string())?;
        match self.is_told_apart(name, hash)? {
            true => Ok(()),
            false => Err("this file system takes it for another name of the same folder".to_owned()),
        }
    }

    /// Whether a name is not there, or is listed beside the one that is like it: how names are spelt in a list is not always
    /// how they were given.
    fn is_told_apart(&mut self, name: &[u8], hash: u64) -> Result<bool, String> {
        match self.here()? {
            Some(dir) if look(dir, name)?.is_some() => {
                let listed = names_in(dir).map_err(|error| error.to_string())?;
                let is_listed = listed.iter().any(|one| one.to_bytes() == name);
                let alike = listed.iter().filter(|one| folded(one.to_bytes()) == hash).count();
                Ok(is_listed && alike > 1)
            }
            _ => Ok(true),
        }
    }

    /// Comes into a folder, which is there if it is open; it is made now if it is wanted itself.
    pub(super) fn enter(
        &mut self,
        entry: Entry,
        relative: &[u8],
        choice: Choice,
        there: Option<Arc<OwnedFd>>,
    ) -> Result<(), String> {
        // Descriptors are kept for the innermost folders only: depth is not limited by their number.
        if let Some(outer) = self.folders.len().checked_sub(OPEN_MAX).and_then(|at| self.folders.get_mut(at))
        {
            outer.fd = None;
        }
        self.folders.push(Folder::new(Arc::from(relative), Some(entry), choice, there));
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
        let writes = self.writes();
        let (fresh, there) = match self.folders[at].fd {
            Some(_) => (false, true),
            None => self.make_unseen(at)?,
        };
        self.engine.report.dir();
        if self.mode == Mode::Write && (fresh || !there) {
            self.engine.report.act(Act::Create, &self.folders[at].relative);
        }
        self.folders[at].stage = if fresh { Stage::Fresh } else { Stage::Old };
        let (flags, of_folder) = (self.folders[at].inode_flags(), self.folders[at - 1].inode_flags());
        if writes
            && (!flags.is_none() || !of_folder.is_none() || !fresh)
            && (fresh || self.changes_folders())
            && let Some(dir) = self.open(at)?
        {
            place::unlock(dir);
            let (unset, path) =
                (inode_flags::write(dir, flags, of_folder), Arc::clone(&self.folders[at].relative));
            self.engine.report.unflagged(&path, unset);
        }
        Ok(())
    }

    /// Makes a folder that was not there, or could not be opened, when it was looked for; says whether it is new, and (also in a
    /// dry run) whether it was there.
    fn make_unseen(&mut self, at: usize) -> Result<(bool, bool), String> {
        let Some(Entry { name, metadata, .. }) = self.folders[at].entry.clone() else {
            return Ok((false, true));
        };
        let (writes, overwrite) = (self.writes(), self.engine.request.overwrite);
        let compare = self.mode == Mode::Compare;
        let dry = self.engine.request.dry_run && self.mode == Mode::Write;
        let replaces = |stat: &Stat| place::judge(stat, &metadata, overwrite, || false) == Verdict::Write;
        let mut fresh = false;
        let there = match self.open(at - 1)? {
            Some(dir) if dry => match look(dir, &name)? {
                Some(stat) if place::is_dir(&stat) => true,
                Some(stat) if !replaces(&stat) => return Err(place::IN_ITS_PLACE.to_owned()),
                _ => false,
            },
            Some(dir) => {
                if writes {
                    fresh = place::make_dir(dir, &name, replaces)?;
                } else if compare && !look(dir, &name)?.is_some_and(|stat| place::is_dir(&stat)) {
                    return Err("differs from the snapshot: not a folder".to_owned());
                }
                true
            }
            None => false,
        };
        self.folders[at - 1].is_changed |= fresh;
        Ok((fresh, there))
    }

    /// The innermost folder, open; `None` when it is not there (in a dry run).
    pub(super) fn here(&mut self) -> Result<Option<&OwnedFd>, String> {
        self.settle()?;
        self.open(self.folders.len() - 1)
    }

    fn open(&mut self, at: usize) -> Result<Option<&OwnedFd>, String> {
        let dry = self.engine.request.dry_run && self.mode == Mode::Write;
        let puts_right = self.writes() && self.changes_folders();
        let outer = at.checked_sub(1).and_then(|at| self.folders.get(at)?.fd.clone());
        let (Some(place), Some(folder)) = (self.engine.place, self.folders.get_mut(at)) else {
            return if dry { Ok(None) } else { Err("the target folder is not there".to_owned()) };
        };
        if folder.fd.is_none() {
            let name = folder.entry.as_ref().map(|entry| &entry.name[..]);
            let opened = match outer.as_ref().zip(name) {
                Some((outer, name)) => fs::openat(outer, name, dir_flags(), Bits::empty()),
                None => place.dir(&folder.relative),
            };
            let opened = match opened {
                Err(Errno::ACCESS) if puts_right => forced(place, outer.as_deref(), &folder.relative),
                opened => opened,
            };
            match opened {
                Ok(fd) => folder.fd = Some(Arc::new(fd)),
                Err(_) if dry => return Ok(None),
                Err(error) => return Err(format!("its folder cannot be opened: {error}")),
            }
        }
        Ok(folder.fd.as_deref())
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
        let there = self.stat_of(&folder);
        // It was not saved itself: what it has stays.
        let attributes: Option<Vec<Attribute>> = (!entry.is_way()).then(|| entry.attributes());
        let flags = folder.inode_flags();
        let metadata = match (entry.is_way(), &there) {
            (true, Some(stat)) => with_own_time(stat, entry.metadata),
            _ => entry.metadata,
        };
        let is_bare = flags.is_none() && attributes.as_ref().is_none_or(Vec::is_empty);
        let is_as_it_was = folder.stage == Stage::Old && !folder.is_changed && is_bare;
        if is_as_it_was
            && there.is_some_and(|stat| is_right(&stat, &metadata) && place::is_of(&stat, &metadata))
        {
            // Nothing will have to be set.
            return None;
        }
        let others = if folder.stage == Stage::Fresh { Others::Go } else { Others::Stay };
        Some(Leaf { relative: folder.relative, metadata, attributes, others, flags })
    }

    fn stat_of(&self, folder: &Folder) -> Option<Stat> {
        match &folder.fd {
            Some(fd) => fs::fstat(fd).ok(),
            None => fs::fstat(self.engine.place?.dir(&folder.relative).ok()?).ok(),
        }
    }
}

/// Opens a folder beneath the target whose mode keeps its own owner out, which is put right when it is left.
fn forced(place: &Target, outer: Option<&OwnedFd>, relative: &[u8]) -> Result<OwnedFd, Errno> {
    let (above, name) = match relative.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&relative[..at], &relative[at + 1..]),
        None => (&b""[..], relative),
    };
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    match outer {
        Some(outer) => place::force_dir(outer, &name),
        None => place::force_dir(&place.dir(above)?, &name),
    }
}

/// A folder on the way was not saved: it keeps the time it has, and its owner unless root restores.
fn with_own_time(stat: &Stat, metadata: Metadata) -> Metadata {
    let root = rustix::process::geteuid().is_root();
    let (uid, gid) = if root { (metadata.uid, metadata.gid) } else { (stat.st_uid, stat.st_gid) };
    let (mtime_s, mtime_ns) = (stat.st_mtime, stat.st_mtime_nsec as u32);
    Metadata { uid, gid, mtime_s, mtime_ns, ..metadata }
}

/// A name as a file system sees it that does not tell letters by their case.
fn folded(name: &[u8]) -> u64 {
    let (mut hash, mut room) = (DefaultHasher::new(), [0; NAME_MAX]);
    match room.get_mut(..name.len()) {
        Some(room) if name.is_ascii() => {
            room.copy_from_slice(name);
            room.make_ascii_lowercase();
            hash.write(room);
        }
        _ => hash.write(String::from_utf8_lossy(name).to_lowercase().as_bytes()),
    }
    hash.finish()
}
