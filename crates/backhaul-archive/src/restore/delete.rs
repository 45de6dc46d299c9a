//! Removes what a snapshot does not have. Nothing here follows a link, or goes over to another mount.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags};
use rustix::io::Errno;

use super::fetch::{Engine, join};
use super::folders::Folder;
use super::place::{self, insist};
use super::run::Run;
use super::{Mode, RestoreError};
use crate::listing::{Names, names_in};
use crate::patterns::Kind;

/// Deepest folder that is removed: each level holds a descriptor.
const DEPTH_MAX: usize = 4_000;

/// What became of something that was to go.
#[derive(Default)]
struct Removed {
    /// Names that went.
    names: u64,
    /// Something in it stays, so it does.
    stays: bool,
}

impl Run<'_, '_> {
    /// Removes from the innermost folder what the snapshot does not have, if that is asked for.
    pub(super) fn tidy(&mut self) -> Result<(), RestoreError> {
        if !self.engine.request.delete || self.mode != Mode::Write {
            return Ok(());
        }
        let relative = self.here_path();
        let Some(names) = self.folders.last_mut().and_then(|folder| folder.take_names()) else {
            return Ok(());
        };
        let (engine, Some(place)) = (self.engine, self.engine.place) else { return Ok(()) };
        let Ok(dir) = place.dir(&relative) else { return Ok(()) };
        let Some(mut listed) = engine.list(&dir, &relative) else { return Ok(()) };
        if listed.iter().all(|name| names.contains(name.to_bytes())) {
            return Ok(());
        }
        self.folders.last_mut().into_iter().for_each(Folder::note_change);
        // What was interrupted in this folder is made whole first: what it has left is no litter.
        self.drain()?;
        match engine.list(&dir, &relative) {
            Some(again) => listed = again,
            None => return Ok(()),
        }
        let respelt = respelt(&dir, &names, &listed);
        let mut extra = listed.iter().filter(|name| !names.contains(name.to_bytes())).peekable();
        if extra.peek().is_some() && place::mount_of(&dir) != place.mount() {
            let why = "another file system is mounted there: nothing in it is deleted";
            engine.report.error(&relative, why.to_owned());
            return Ok(());
        }
        for name in extra {
            if inode(&dir, name.to_bytes()).is_some_and(|inode| respelt.contains(&inode)) {
                continue;
            }
            let path = join(&relative, name.to_bytes());
            match engine.remove(&dir, name, &path, 0) {
                Ok(Removed { names: 0, .. }) => {}
                Ok(removed) => engine.report.deleted(&path, removed.names),
                Err(why) => engine.report.error(&path, format!("not deleted: {why}")),
            }
        }
        Ok(())
    }
}

/// What the snapshot has under names that the folder does not list, and that are there all the same: on a file system that
/// does not tell letter case, or forms of Unicode, apart, it is listed as it was spelt before, and is not too much.
fn respelt(dir: &OwnedFd, names: &HashSet<Vec<u8>>, listed: &Names) -> HashSet<(u64, u64)> {
    let listed: HashSet<&[u8]> = listed.iter().map(|name| name.to_bytes()).collect();
    names.iter().filter(|name| !listed.contains(&name[..])).filter_map(|name| inode(dir, name)).collect()
}

fn inode(dir: &OwnedFd, name: &[u8]) -> Option<(u64, u64)> {
    place::look(dir, name).ok().flatten().map(|stat| (stat.st_dev, stat.st_ino))
}

impl Engine<'_> {
    fn list(&self, dir: &OwnedFd, relative: &[u8]) -> Option<Names> {
        let listed = names_in(dir);
        listed
            .map_err(|error| {
                self.report.error(relative, format!("what is too much in it is not known: {error}"))
            })
            .ok()
    }

    /// Removes a folder where something else is to be, if everything is to be as in the snapshot.
    pub(super) fn make_way(&self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), String> {
        let Ok(name) = CString::new(name) else { return Err("its name cannot be".to_owned()) };
        if !self.request.delete {
            return Err("a directory is in its place".to_owned());
        }
        let removed = self.remove(dir, &name, path, 0)?;
        self.report.deleted(path, removed.names);
        match removed.stays {
            true => Err("a directory is in its place, and something in it is to stay".to_owned()),
            false => Ok(()),
        }
    }

    /// Removes something with all that is in it but for what is protected, or in a dry run only counts.
    fn remove(&self, dir: &OwnedFd, name: &CStr, path: &[u8], depth: usize) -> Result<Removed, String> {
        let text = |error: Errno| error.to_string();
        let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(text)?;
        let is_dir = place::is_dir(&stat);
        let kind = if is_dir { Kind::Directory } else { Kind::Other };
        if self.request.select.protects(&[&self.prefix[..], path].join(&b'/'), kind) {
            return Ok(Removed { names: 0, stays: true });
        }
        let mut removed = Removed::default();
        if is_dir {
            removed = self.empty(dir, name, path, depth)?;
        }
        if removed.stays {
            return Ok(removed);
        }
        if !self.request.dry_run {
            let how = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            insist(dir, name.to_bytes(), || fs::unlinkat(dir, name, how)).map_err(text)?;
        }
        removed.names += 1;
        Ok(removed)
    }

    fn empty(&self, dir: &OwnedFd, name: &CStr, path: &[u8], depth: usize) -> Result<Removed, String> {
        let text = |error: Errno| error.to_string();
        if depth >= DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} folders within each other"));
        }
        let inner =
            if self.request.dry_run { place::open_dir(dir, name) } else { place::force_dir(dir, name) };
        let inner = inner.map_err(text)?;
        if self.place.is_none_or(|place| place.mount() != place::mount_of(&inner)) {
            return Err("another file system is mounted there".to_owned());
        }
        if !self.request.dry_run {
            place::unlock(&inner);
        }
        let mut removed = Removed::default();
        for below in names_in(&inner).map_err(text)?.iter() {
            let why = |why| format!("{}: {why}", below.to_string_lossy());
            let one = self.remove(&inner, below, &join(path, below.to_bytes()), depth + 1).map_err(why)?;
            removed.names += one.names;
            removed.stays |= one.stays;
        }
        Ok(removed)
    }
}
