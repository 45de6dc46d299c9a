//! The target folder. Nothing here follows a symbolic link below the target, or writes outside it.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use backhaul_object::entry::{Attribute, Body, Device, Entry, Metadata, Special};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RawMode, Stat, StatxFlags, Timespec, Uid};
use rustix::io::Errno;

use super::Overwrite;
use crate::attributes::{self, Handle, Others};
use crate::beneath::{self, dir_flags};
use crate::inode_flags;

/// Why a folder is not made.
pub(super) const IN_ITS_PLACE: &str = "something else is in the folder's place";

/// The folder that everything is beneath.
pub(crate) struct Target {
    fd: OwnedFd,
    mount: Option<u64>,
}

/// Which mount something is on, by the kernel's number for it: a bind mount of the same file system is another. (Before Linux
/// 5.8, the file system.)
pub(crate) fn mount_of(fd: &OwnedFd) -> Option<u64> {
    let stat = fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    let is_known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID);
    Some(if is_known { stat.stx_mnt_id } else { fs::makedev(stat.stx_dev_major, stat.stx_dev_minor) })
}

/// What an existing entry means for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing there, or to be replaced.
    Write,
    /// To be left.
    Skip,
    /// Left because it is as in the snapshot already.
    Same,
}

impl Target {
    fn of(fd: OwnedFd) -> Self {
        let mount = mount_of(&fd);
        Self { fd, mount }
    }

    /// The mount that it is on.
    pub(crate) fn mount(&self) -> Option<u64> {
        self.mount
    }

    /// Opens the folder, making it first if `make`; also says whether it was made.
    /// Without `make`, a folder that is not there is `None`.
    pub(crate) fn open(path: &Path, make: bool) -> io::Result<(Option<Self>, bool)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok((Some(Self::of(fd)), false)),
            Err(Errno::NOENT) if make => {
                std::fs::create_dir_all(path)?;
                Ok((Some(Self::of(fs::open(path, flags, Mode::empty())?)), true))
            }
            Err(Errno::NOENT) => Ok((None, false)),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a file or folder beneath the target.
    pub(crate) fn open_file(&self, relative: &[u8]) -> Result<OwnedFd, Errno> {
        match relative.iter().rposition(|byte| *byte == b'/') {
            Some(at) => open_plainly(&self.dir(&relative[..at])?, &relative[at + 1..]),
            None if relative.is_empty() => self.dir(relative),
            None => open_plainly(&self.dir(b"")?, relative),
        }
    }

    /// Opens a folder beneath the target.
    pub(crate) fn dir(&self, relative: &[u8]) -> Result<OwnedFd, Errno> {
        beneath::open_dir(&self.fd, relative)
    }
}

/// Opens what a name is, to see to it and not to read it: a file or folder, and nothing else.
fn open_plainly(dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let kind = look(dir, name)?.map(|stat| FileType::from_raw_mode(stat.st_mode));
    if !matches!(kind, Some(FileType::RegularFile | FileType::Directory)) {
        return Err(Errno::STALE);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

/// What is at a name, not following a link.
pub(crate) fn look(dir: &OwnedFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(crate) fn same_inode(a: &Stat, b: &Stat) -> bool {
    a.st_dev == b.st_dev && a.st_ino == b.st_ino
}

fn mtime(stat: &Stat) -> (i64, i64) {
    (stat.st_mtime, stat.st_mtime_nsec as i64)
}

/// True for what was changed at that time.
pub(crate) fn is_of(stat: &Stat, metadata: &Metadata) -> bool {
    mtime(stat) == (metadata.mtime_s, i64::from(metadata.mtime_ns))
}

/// Decides about an existing entry; `same` is asked whether type and size (or link target) are equal.
pub(crate) fn judge(
    stat: &Stat,
    metadata: &Metadata,
    overwrite: Overwrite,
    same: impl FnOnce() -> bool,
) -> Verdict {
    let wanted = (metadata.mtime_s, i64::from(metadata.mtime_ns));
    match overwrite {
        Overwrite::Always => Verdict::Write,
        Overwrite::Never => Verdict::Skip,
        Overwrite::IfNewer if wanted > mtime(stat) => Verdict::Write,
        Overwrite::IfNewer => Verdict::Skip,
        Overwrite::IfChanged if wanted == mtime(stat) && same() => Verdict::Same,
        Overwrite::IfChanged => Verdict::Write,
    }
}

/// True for a regular file.
pub(crate) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// True for a regular file of that size.
pub(crate) fn is_file_of(stat: &Stat, size: u64) -> bool {
    is_file(stat) && stat.st_size as u64 == size
}

/// A file with further names is not only the restore's.
fn is_only_here(fd: &OwnedFd) -> bool {
    fs::fstat(fd).is_ok_and(|stat| is_dir(&stat) || stat.st_nlink == 1)
}

/// Does something to a name; once more when what is there only forbade it by its flags.
pub(crate) fn insist<T>(dir: &OwnedFd, name: &[u8], act: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    match act() {
        Err(Errno::PERM)
            if open_plainly(dir, name).is_ok_and(|fd| is_only_here(&fd) && inode_flags::release(&fd)) =>
        {
            act()
        }
        other => other,
    }
}

/// Removes what is at a name, except a directory.
pub(crate) fn clear(dir: &OwnedFd, name: &[u8]) -> Result<(), String> {
    match insist(dir, name, || fs::unlinkat(dir, name, AtFlags::empty())) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) if look(dir, name).ok().flatten().is_some_and(|s| is_dir(&s)) => {
            Err("a directory is in its place".to_owned())
        }
        Err(error) => Err(format!("what is in its place cannot be removed: {error}")),
    }
}

/// Makes a new file; `None` when something is there.
pub(crate) fn create(dir: &OwnedFd, name: &[u8]) -> Result<Option<File>, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(Errno::EXIST) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a regular file to be read.
pub(crate) fn open_file(dir: &OwnedFd, name: &[u8]) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = fs::openat(dir, name, flags, Mode::empty())?;
    if is_file(&fs::fstat(&fd)?) { Ok(File::from(fd)) } else { Err(Errno::STALE) }
}

/// Makes what an entry without content is.
pub(crate) fn make(dir: &OwnedFd, name: &[u8], body: &Body) -> Result<(), Errno> {
    match body {
        Body::Symlink(to) => fs::symlinkat(&to[..], dir, name),
        Body::Special(special) => {
            let (kind, device) = node(*special).ok_or(Errno::OVERFLOW)?;
            fs::mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, device)
        }
        _ => Err(Errno::INVAL),
    }
}

/// Largest numbers of a device that Linux has (`MINORBITS` in `kdev_t.h`): larger ones would be those of another.
const MAJOR_MAX: u32 = (1 << 12) - 1;
const MINOR_MAX: u32 = (1 << 20) - 1;

/// The type and, for a device, the number of a special file; none for numbers that there are not.
fn node(special: Special) -> Option<(FileType, u64)> {
    let number = |Device { major, minor }: Device| {
        (major <= MAJOR_MAX && minor <= MINOR_MAX).then(|| fs::makedev(major, minor))
    };
    Some(match special {
        Special::Fifo => (FileType::Fifo, 0),
        Special::Socket => (FileType::Socket, 0),
        Special::Character(device) => (FileType::CharacterDevice, number(device)?),
        Special::Block(device) => (FileType::BlockDevice, number(device)?),
    })
}

/// True when a symbolic link or special file is there, and the same.
pub(crate) fn is_as(dir: &OwnedFd, name: &[u8], body: &Body) -> bool {
    match body {
        Body::Symlink(to) => {
            fs::readlinkat(dir, name, Vec::new()).is_ok_and(|found| found.as_bytes() == &to[..])
        }
        Body::Special(_) => look(dir, name).ok().flatten().is_some_and(|stat| is_of_kind(&stat, body)),
        _ => false,
    }
}

/// True for a symbolic link where that is wanted, or a special file of the same kind and number.
fn is_of_kind(stat: &Stat, body: &Body) -> bool {
    let found = FileType::from_raw_mode(stat.st_mode);
    match body {
        Body::Symlink(_) => found == FileType::Symlink,
        Body::Special(special) => node(*special).is_some_and(|(kind, device)| {
            let is_device = matches!(special, Special::Character(_) | Special::Block(_));
            found == kind && (!is_device || stat.st_rdev == device)
        }),
        _ => false,
    }
}

fn times(metadata: &Metadata) -> fs::Timestamps {
    fs::Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: metadata.mtime_s, tv_nsec: i64::from(metadata.mtime_ns) },
    }
}

/// What of the metadata could not be set.
pub(crate) struct Missed {
    /// The owner: then set-user-id and set-group-id are left out.
    pub(crate) owner: bool,
    /// The mode, or a part of it.
    pub(crate) mode: bool,
    /// The time, or it was rounded.
    pub(crate) time: bool,
    /// Attributes, each with what was in the way.
    pub(crate) attributes: Vec<String>,
}

impl Missed {
    /// By what is there in the end: there are file systems that take what they do not keep.
    fn of(stat: &Stat, metadata: &Metadata) -> Self {
        let (owner, time) = (!is_owned(stat, metadata), !is_of(stat, metadata));
        Self { owner, mode: false, time, attributes: Vec::new() }
    }
}

/// The kernel takes this number for "as it is".
const NOBODY_AT_ALL: u32 = u32::MAX;

/// Whether an owner can be asked for.
fn can_own(metadata: &Metadata) -> bool {
    metadata.uid != NOBODY_AT_ALL && metadata.gid != NOBODY_AT_ALL
}

fn is_owned(stat: &Stat, metadata: &Metadata) -> bool {
    (stat.st_uid, stat.st_gid) == (metadata.uid, metadata.gid)
}

/// Whether a file system takes what is to be set, in its own words.
fn takes(set: Result<(), Errno>) -> Result<bool, Errno> {
    match set {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::OVERFLOW) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Owner, then attributes (a change of owner drops some, and a mode may forbid to set them), then times and mode, on an
/// open file or directory. What is so already is not set again: that would be a write of its inode.
pub(crate) fn apply(
    fd: &impl AsFd,
    metadata: &Metadata,
    attributes: Option<(&[Attribute], Others)>,
) -> Result<Missed, Errno> {
    let stat = fs::fstat(fd)?;
    let own = || fs::fchown(fd, Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)));
    let owned = is_owned(&stat, metadata) || can_own(metadata) && takes(own())?;
    let unset = attributes.map(|(wanted, others)| attributes::write(&Handle::open(fd), wanted, others));
    if !is_of(&stat, metadata) {
        takes(fs::futimens(fd, &times(metadata)))?;
    }
    let mode = RawMode::from(if owned { metadata.mode } else { metadata.mode & !0o6000 });
    // A new owner and an access list change the mode.
    let mut stat = fs::fstat(fd)?;
    if stat.st_mode & 0o7777 != mode {
        takes(fs::fchmod(fd, Mode::from_raw_mode(mode)))?;
        stat = fs::fstat(fd)?;
    }
    let attributes = unset.unwrap_or_default();
    Ok(Missed { mode: stat.st_mode & 0o7777 != mode, attributes, ..Missed::of(&stat, metadata) })
}

/// As [`apply`], for a symbolic link itself (which has no mode) or a special file, neither of which can be opened: by a
/// handle that only names it, so that nothing that takes its place is touched.
pub(crate) fn apply_to_plain(dir: &OwnedFd, name: &[u8], entry: &Entry) -> Result<Missed, Errno> {
    let metadata = &entry.metadata;
    let fd = fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fs::fstat(&fd)?;
    if !is_of_kind(&stat, &entry.body) || stat.st_nlink != 1 {
        // Somebody has put something else there.
        return Err(Errno::STALE);
    }
    let handle = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
    let own = || fs::chownat(&fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH);
    let owned = is_owned(&stat, metadata) || can_own(metadata) && takes(own())?;
    let unset = attributes::write(&Handle::named(&fd), &entry.attributes(), Others::Go);
    let mode = RawMode::from(if owned { metadata.mode } else { metadata.mode & !0o6000 });
    let has_mode = !matches!(entry.body, Body::Symlink(_));
    if has_mode {
        takes(fs::chmod(&handle[..], Mode::from_raw_mode(mode)))?;
    }
    // The path leads to the handle and not beyond it, to a link itself, too.
    takes(fs::utimensat(fs::CWD, &handle[..], &times(metadata), AtFlags::empty()))?;
    let stat = fs::fstat(&fd)?;
    let is_wrong = has_mode && stat.st_mode & 0o7777 != mode;
    Ok(Missed { mode: is_wrong, attributes: unset, ..Missed::of(&stat, metadata) })
}

/// Opens a folder in another.
pub(crate) fn open_dir(dir: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    fs::openat(dir, name, dir_flags(), Mode::empty())
}

/// The same; a mode that keeps its own owner out is changed.
pub(crate) fn force_dir(dir: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    match open_dir(dir, name) {
        Err(Errno::ACCESS) => {}
        other => return other,
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let named = fs::openat(dir, name, flags, Mode::empty())?;
    // By the handle: a link that has come into its place meanwhile is not followed.
    fs::chmod(format!("/proc/self/fd/{}", named.as_raw_fd()), Mode::RWXU)?;
    open_dir(dir, name)
}

/// Lets the owner write into a directory until its own mode and flags are set.
pub(crate) fn unlock(dir: &OwnedFd) {
    inode_flags::release(dir);
    if let Ok(stat) = fs::fstat(dir)
        && stat.st_mode & 0o700 != 0o700
    {
        // Whether this worked shows at the first file.
        let _ = fs::fchmod(dir, Mode::from_raw_mode((stat.st_mode & 0o7777) | 0o700));
    }
}

/// Makes a directory; true when it is new. What is there and no directory is replaced if `replace` says so.
pub(crate) fn make_dir(
    dir: &OwnedFd,
    name: &[u8],
    replace: impl FnOnce(&Stat) -> bool,
) -> Result<bool, String> {
    let make = || fs::mkdirat(dir, name, Mode::RWXU);
    match make() {
        Ok(()) => return Ok(true),
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error.to_string()),
    }
    match look(dir, name).map_err(|error| error.to_string())? {
        Some(stat) if is_dir(&stat) => return Ok(false),
        Some(stat) if !replace(&stat) => return Err(IN_ITS_PLACE.to_owned()),
        _ => clear(dir, name)?,
    }
    make().map(|()| true).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// What the kernel takes for "as it is" is not the owner that was asked for, and others get no set-user-id file.
    #[test]
    fn an_owner_that_nobody_can_be_is_counted_and_has_no_set_user_id() {
        let file = tempfile::tempfile().unwrap();
        let stat = fs::fstat(&file).unwrap();
        for (uid, gid) in [(u32::MAX, stat.st_gid), (stat.st_uid, u32::MAX), (u32::MAX, u32::MAX)] {
            let metadata = Metadata { mode: 0o6755, uid, gid, mtime_s: 1, mtime_ns: 0 };
            let missed = apply(&file, &metadata, None).unwrap();
            assert!(missed.owner && !missed.time);
            assert_eq!(fs::fstat(&file).unwrap().st_mode & 0o7777, 0o755);
        }
    }
}
