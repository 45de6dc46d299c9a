//! The project of an inode. Linux tells it and takes it by two calls of which no library has a safe form, so the only unsafe code
//! of the workspace is here.
#![expect(unsafe_code, reason = "each use has its proof beside it")]

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};

/// `struct fsxattr` of `linux/fs.h`: all are plain numbers, and there is nothing between them.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Extended {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    shared_extent_size: u32,
    unused: [u8; 8],
}

const _: () = assert!(size_of::<Extended>() == 28, "as long as the kernel's");

/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR` of `linux/fs.h`.
const GET: Opcode = opcode::read::<Extended>(b'X', 31);
const SET: Opcode = opcode::write::<Extended>(b'X', 32);

/// # Errors
/// The file system knows no projects.
pub(super) fn read(fd: &impl AsFd) -> Result<u32, Errno> {
    Ok(extended(fd)?.project)
}

/// # Errors
/// The file system has no projects, or this user may not.
pub(super) fn write(fd: &impl AsFd, project: u32) -> Result<(), Errno> {
    let wanted = Extended { project, ..extended(fd)? };
    // SAFETY: the kernel reads one `struct fsxattr` where the operation points to, which is what `Extended` is, and writes
    // nothing; the value lives until the call has returned.
    unsafe { ioctl(fd, Setter::<SET, Extended>::new(wanted)) }
}

fn extended(fd: &impl AsFd) -> Result<Extended, Errno> {
    let mut found = Extended::default();
    // SAFETY: the kernel, or a file system for it, writes at most one `struct fsxattr` where the operation points to, which is what
    // `Extended` is. Any bytes are a value of it, and it has one before; it lives until the call has returned.
    unsafe { ioctl(fd, Updater::<GET, Extended>::new(&mut found))? };
    Ok(found)
}
