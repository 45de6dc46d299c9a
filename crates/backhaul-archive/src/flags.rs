//! Inode flags, as `chattr` sets them: read from and written to what is open.

use std::os::fd::AsFd;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

/// `FS_NOCOMP_FL`, `FS_DAX_FL` and `FS_CASEFOLD_FL` of `linux/fs.h`, for which there are no other names.
const UNNAMED: IFlags = IFlags::from_bits_retain(0x0400 | 0x0200_0000 | 0x4000_0000);

/// What people set, and none of what a file system says of its own layout.
const KEPT: IFlags = IFlags::all().union(UNNAMED);

/// Nothing can be put into, under, or in place of what has these: they come last.
const LAST: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// The flags of a file or directory; 0 where its file system has none.
pub(crate) fn read(fd: &impl AsFd) -> u32 {
    ioctl_getflags(fd).map_or(0, |flags| flags.intersection(KEPT).bits())
}

/// The part of `flags` that is set when everything else is done.
pub(crate) fn last_of(flags: u32) -> u32 {
    flags & LAST.bits()
}

/// Sets all of `flags` but [`last_of`] them. What a new file has by itself stays if neither it nor the folder that it
/// is in has any in the snapshot: then the place gave it that.
pub(crate) fn write(fd: &impl AsFd, flags: u32, of_folder: u32) -> Result<(), Errno> {
    let first = IFlags::from_bits_retain(flags).intersection(KEPT).difference(LAST);
    if flags | of_folder == 0 {
        return Ok(());
    }
    let there = ioctl_getflags(fd)?;
    let wanted = there.difference(KEPT.difference(LAST)).union(first);
    if wanted == there { Ok(()) } else { ioctl_setflags(fd, wanted) }
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
