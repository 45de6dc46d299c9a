//! What an inode has beside its mode, read from and written to what is open: flags, as `chattr` sets them, and the
//! project by whose quota it is counted.

use std::os::fd::AsFd;

use backhaul_object::entry::InodeFlags;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

mod project;

/// `FS_NOCOMP_FL`, `FS_DAX_FL` and `FS_CASEFOLD_FL` of `linux/fs.h`, for which there are no other names.
const UNNAMED: IFlags = IFlags::from_bits_retain(0x0400 | 0x0200_0000 | 0x4000_0000);

/// What people set, and none of what a file system says of its own layout.
const KEPT: IFlags = IFlags::all().union(UNNAMED);

/// Nothing can be put into, under, or in place of what has these: they come last.
const LAST: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// Something of them that could not be set.
pub(crate) struct Unflagged {
    /// Which, in words.
    pub(crate) what: String,
    pub(crate) why: Errno,
}

impl Unflagged {
    pub(crate) fn flags(flags: u32, why: Errno) -> Self {
        Self { what: format!("inode flags {flags:#x}"), why }
    }
}

/// Those of a file or directory: none where its file system has none.
pub(crate) fn read(fd: &impl AsFd) -> InodeFlags {
    let bits = ioctl_getflags(fd).map_or(0, |flags| flags.intersection(KEPT).bits());
    InodeFlags { bits, project: project::read(fd).unwrap_or(0) }
}

/// The flags that are set when everything else is done.
pub(crate) fn last_of(flags: InodeFlags) -> u32 {
    flags.bits & LAST.bits()
}

/// Sets the project, and the flags but [`last_of`] them; returns what could not be. What a new file has by itself stays if neither
/// it nor the folder that it is in has any in the snapshot: then the place gave it that.
pub(crate) fn write(fd: &impl AsFd, flags: InodeFlags, of_folder: InodeFlags) -> Vec<Unflagged> {
    let project = write_project(fd, flags, of_folder);
    project.into_iter().chain(write_flags(fd, flags, of_folder)).collect()
}

/// The project alone: of a file when it has its name, for what is moved into a folder that gives its project to all that comes
/// into it (`chattr +P`) must have that until then.
pub(crate) fn write_project(fd: &impl AsFd, flags: InodeFlags, of_folder: InodeFlags) -> Option<Unflagged> {
    let wanted = flags.project;
    let is_right = wanted | of_folder.project == 0
        || match project::read(fd) {
            Ok(there) => there == wanted,
            // There are none here.
            Err(_) => wanted == 0,
        };
    let set = if is_right { Ok(()) } else { project::write(fd, wanted) };
    set.map_err(|why| Unflagged { what: format!("project {wanted}"), why }).err()
}

/// The flags alone.
pub(crate) fn write_flags(fd: &impl AsFd, flags: InodeFlags, of_folder: InodeFlags) -> Option<Unflagged> {
    let first = IFlags::from_bits_retain(flags.bits).intersection(KEPT).difference(LAST);
    if flags.bits | of_folder.bits == 0 {
        return None;
    }
    let set = || {
        let there = ioctl_getflags(fd)?;
        let wanted = there.difference(KEPT.difference(LAST)).union(first);
        if wanted == there { Ok(()) } else { ioctl_setflags(fd, wanted) }
    };
    set().map_err(|why| Unflagged::flags(flags.bits, why)).err()
}

/// Does something for which a file must have the project of a folder, as a link into one that gives its own to all that comes.
pub(crate) fn as_of_folder<T>(
    (file, folder): (&impl AsFd, &impl AsFd),
    act: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let own = project::read(file)?;
    project::write(file, project::read(folder)?)?;
    let done = act();
    project::write(file, own)?;
    done
}

/// True if [`write`] and [`write_last`] would change nothing.
pub(crate) fn are_right(fd: &impl AsFd, flags: InodeFlags, of_folder: InodeFlags) -> bool {
    if flags.is_none() && of_folder.is_none() {
        return true;
    }
    let there = read(fd);
    let is_same = |there: u32, wanted: u32, of_folder: u32| wanted | of_folder == 0 || there == wanted;
    is_same(there.bits, flags.bits, of_folder.bits)
        && is_same(there.project, flags.project, of_folder.project)
}

/// Sets those of [`last_of`].
pub(crate) fn write_last(fd: &impl AsFd, flags: u32) -> Result<(), Errno> {
    let last = IFlags::from_bits_retain(flags).intersection(LAST);
    ioctl_setflags(fd, ioctl_getflags(fd)?.difference(LAST).union(last))
}

/// Makes something changeable again that [`last_of`] its flags forbid to change; true when they did.
pub(crate) fn release(fd: &impl AsFd) -> bool {
    let Ok(there) = ioctl_getflags(fd) else { return false };
    there.intersects(LAST) && ioctl_setflags(fd, there.difference(LAST)).is_ok()
}
