//! What an inode is marked with beside its mode, read from and written to what is open: flags, as `chattr` sets them, and the
//! project by whose quota it is counted.

use std::os::fd::AsFd;

use backhaul_object::entry::Marks;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

mod project;

/// `FS_NOCOMP_FL`, `FS_DAX_FL` and `FS_CASEFOLD_FL` of `linux/fs.h`, for which there are no other names.
const UNNAMED: IFlags = IFlags::from_bits_retain(0x0400 | 0x0200_0000 | 0x4000_0000);

/// What people set, and none of what a file system says of its own layout.
const KEPT: IFlags = IFlags::all().union(UNNAMED);

/// Nothing can be put into, under, or in place of what has these: they come last.
const LAST: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// A mark that could not be set.
pub(crate) struct Unmarked {
    /// Which, in words.
    pub(crate) what: String,
    pub(crate) why: Errno,
}

impl Unmarked {
    pub(crate) fn flags(flags: u32, why: Errno) -> Self {
        Self { what: format!("inode flags {flags:#x}"), why }
    }

    fn project(project: u32, why: Errno) -> Self {
        Self { what: format!("project {project}"), why }
    }
}

/// The marks of a file or directory: none where its file system has none.
pub(crate) fn read(fd: &impl AsFd) -> Marks {
    let flags = ioctl_getflags(fd).map_or(0, |flags| flags.intersection(KEPT).bits());
    Marks { flags, project: project::read(fd).unwrap_or(0) }
}

/// The flags that are set when everything else is done.
pub(crate) fn last_of(marks: Marks) -> u32 {
    marks.flags & LAST.bits()
}

/// Sets all marks but [`last_of`] them; returns those that could not be. What a new file has by itself stays if neither it nor
/// the folder that it is in has any in the snapshot: then the place gave it that.
pub(crate) fn write(fd: &impl AsFd, marks: Marks, of_folder: Marks) -> Vec<Unmarked> {
    // A project is first: a flag says that what comes into a folder gets that of the folder.
    let project = write_project(fd, marks, of_folder).map_err(|why| Unmarked::project(marks.project, why));
    let flags = write_flags(fd, marks.flags, of_folder.flags);
    let flags = flags.map_err(|why| Unmarked::flags(marks.flags, why));
    project.err().into_iter().chain(flags.err()).collect()
}

fn write_project(fd: &impl AsFd, marks: Marks, of_folder: Marks) -> Result<(), Errno> {
    if marks.project | of_folder.project == 0 || project::read(fd) == Ok(marks.project) {
        return Ok(());
    }
    project::write(fd, marks.project)
}

fn write_flags(fd: &impl AsFd, flags: u32, of_folder: u32) -> Result<(), Errno> {
    let first = IFlags::from_bits_retain(flags).intersection(KEPT).difference(LAST);
    if flags | of_folder == 0 {
        return Ok(());
    }
    let there = ioctl_getflags(fd)?;
    let wanted = there.difference(KEPT.difference(LAST)).union(first);
    if wanted == there { Ok(()) } else { ioctl_setflags(fd, wanted) }
}

/// True if [`write`] and [`write_last`] would change nothing.
pub(crate) fn are_right(fd: &impl AsFd, marks: Marks, of_folder: Marks) -> bool {
    if marks.is_none() && of_folder.is_none() {
        return true;
    }
    let there = read(fd);
    let is_same = |there: u32, wanted: u32, of_folder: u32| wanted | of_folder == 0 || there == wanted;
    is_same(there.flags, marks.flags, of_folder.flags)
        && is_same(there.project, marks.project, of_folder.project)
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
