//! What is there with the right content: what belongs to it besides is put right, if it is not.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use backhaul_object::entry::{Attribute, Body, Entry, InodeFlags, Metadata};
use rustix::fs::{self, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::fetch::join;
use super::folders::Folder;
use super::place;
use super::run::Run;
use crate::attributes::{self, Handle, Others};
use crate::inode_flags;

/// What the owner of a file needs to see to it.
const OWNERS: Mode = Mode::RUSR.union(Mode::WUSR);

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// All is right, or what could not be set is named.
    Now,
    /// It is wrong, and has further names: they may be outside of the target, so it is not touched.
    Elsewhere,
}

impl Run<'_, '_> {
    /// Sets mode, owner, attributes and flags of a file, link or special file that stays; what it has too much goes only if
    /// everything is to be as in the snapshot. `stat` is of what was judged: nothing else is touched.
    pub(super) fn put_right(&mut self, entry: &Entry, stat: &Stat) -> Result<Right, String> {
        let (engine, delete) = (self.engine, self.engine.request.delete);
        let others = if delete { Others::Go } else { Others::Stay };
        let of_folder = self.folders.last().map_or(InodeFlags::default(), Folder::inode_flags);
        let is_bare = entry.extensions.is_empty() && of_folder.is_none() && others == Others::Stay;
        if is_bare && is_right(stat, &right_of(entry)) {
            // One look has told all.
            return Ok(Right::Now);
        }
        let path = &join(&self.here_path(), &entry.name);
        let Some(dir) = self.here()? else { return Ok(Right::Now) };
        let failed = |error: Errno| format!("metadata not set: {error}");
        let (attributes, report) = (entry.attributes(), &engine.report);
        if matches!(entry.body, Body::File { .. }) {
            let file = match open(dir, &entry.name, stat) {
                Err(Errno::ACCESS) if stat.st_nlink != 1 && !is_right(stat, &entry.metadata) => {
                    return Ok(Right::Elsewhere);
                }
                opened => opened.map_err(failed)?,
            };
            let now = fs::fstat(&file).map_err(failed)?;
            check(&now, stat)?;
            let wrong_flags = !inode_flags::are_right(&file, entry.inode_flags(), of_folder);
            let right = is_right(&now, &entry.metadata) && has(&Handle::open(&file), &attributes, others);
            if right && !wrong_flags {
                return Ok(Right::Now);
            }
            if stat.st_nlink != 1 {
                return Ok(Right::Elsewhere);
            }
            inode_flags::release(&file);
            make_writable(&file, &now);
            report.unflagged(path, inode_flags::write(&file, entry.inode_flags(), of_folder));
            let applied = place::apply(&file, &entry.metadata, Some((&attributes, others)));
            let missed = applied.inspect_err(|_| put_back(&file, stat)).map_err(failed)?;
            report.missed(path, missed);
            report.flag_last(path, entry.inode_flags(), Some(*stat));
        } else {
            let named = named(dir, &entry.name).map_err(failed)?;
            check(&fs::fstat(&named).map_err(failed)?, stat)?;
            if is_right(stat, &right_of(entry)) && has(&Handle::named(&named), &attributes, others) {
                return Ok(Right::Now);
            }
            if stat.st_nlink != 1 {
                return Ok(Right::Elsewhere);
            }
            let missed = place::apply_to_plain(dir, &entry.name, entry).map_err(failed)?;
            report.missed(path, missed);
        }
        Ok(Right::Now)
    }
}

/// Opens a file to see to it. Its owner may have taken the right to read it from everybody, and gives it to himself again;
/// what it should be is set in any case then. Not to one that has further names: they may be outside of the target.
fn open(dir: &OwnedFd, name: &[u8], judged: &Stat) -> Result<File, Errno> {
    match place::open_file(dir, name) {
        Err(Errno::ACCESS) if judged.st_nlink == 1 => {
            let named = named(dir, name)?;
            if !place::same_inode(&fs::fstat(&named)?, judged) {
                return Err(Errno::STALE);
            }
            // By a handle that only names it: a handle of that kind takes no mode itself.
            let path = format!("/proc/self/fd/{}", named.as_raw_fd());
            fs::chmod(&path, Mode::from_raw_mode(judged.st_mode & 0o7777) | OWNERS)?;
            let opened = place::open_file(dir, name);
            if opened.is_err() {
                let _ = fs::chmod(path, Mode::from_raw_mode(judged.st_mode & 0o7777));
            }
            opened
        }
        opened => opened,
    }
}

/// Nothing more can be done for it: at least nobody may do more with it than before.
fn put_back(file: &File, judged: &Stat) {
    let _ = fs::fchmod(file, Mode::from_raw_mode(judged.st_mode & 0o7777));
}

/// Attributes are set by who may write to a file; its mode is put right after them.
fn make_writable(file: &File, stat: &Stat) {
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if !mode.contains(Mode::WUSR) {
        // Where that is refused, so are they, and that is named.
        let _ = fs::fchmod(file, mode | OWNERS);
    }
}

fn check(found: &Stat, judged: &Stat) -> Result<(), String> {
    match place::same_inode(found, judged) {
        true => Ok(()),
        false => Err("somebody has put something else in its place".to_owned()),
    }
}

fn named(dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// What the metadata should be: a symbolic link has no mode of its own.
fn right_of(entry: &Entry) -> Metadata {
    let is_link = matches!(entry.body, Body::Symlink(_));
    Metadata { mode: if is_link { 0o777 } else { entry.metadata.mode }, ..entry.metadata }
}

pub(super) fn is_right(stat: &Stat, metadata: &Metadata) -> bool {
    (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (metadata.mode.into(), metadata.uid, metadata.gid)
}

/// Whether it has all that is wanted, and no others if they are to go.
fn has(handle: &Handle<'_>, wanted: &[Attribute], others: Others) -> bool {
    let (found, _) = attributes::read(handle);
    let kept = found.iter().filter(|one| attributes::is_kept(&one.name));
    match others {
        Others::Go => kept.eq(wanted.iter().filter(|one| attributes::is_kept(&one.name))),
        Others::Stay => wanted.iter().all(|one| found.contains(one)),
    }
}
