//! What the file system says about one name or open file, without opening or disturbing it (`statx`).

use std::ffi::CStr;
use std::os::fd::AsFd;

use backhaul_object::entry::{Device, Metadata};
use rustix::fs::{AtFlags, FileType, Statx, StatxAttributes, StatxFlags, major, makedev, minor, statx};
use rustix::io::Errno;

/// The answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look(Statx);

impl Look {
    /// At a name in a directory, not following a link, and mounting nothing.
    pub(super) fn at(dir: &impl AsFd, name: &CStr) -> Result<Self, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        statx(dir, name, flags, StatxFlags::BASIC_STATS).map(Self)
    }

    /// At something that is open.
    pub(super) fn of(fd: &impl AsFd) -> Result<Self, Errno> {
        statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(Self)
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.0.stx_mode.into())
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.0.stx_size
    }

    /// Bytes on disk.
    pub(super) fn room(&self) -> u64 {
        self.0.stx_blocks.saturating_mul(512)
    }

    pub(super) fn names(&self) -> u32 {
        self.0.stx_nlink
    }

    pub(super) fn inode(&self) -> u64 {
        self.0.stx_ino
    }

    /// The file system that it is on.
    pub(super) fn volume(&self) -> u64 {
        makedev(self.0.stx_dev_major, self.0.stx_dev_minor)
    }

    /// The same on another volume.
    pub(super) fn on(mut self, volume: u64) -> Self {
        (self.0.stx_dev_major, self.0.stx_dev_minor) = (major(volume), minor(volume));
        self
    }

    /// Which device a device file stands for.
    pub(super) fn device(&self) -> Device {
        Device { major: self.0.stx_rdev_major, minor: self.0.stx_rdev_minor }
    }

    /// Its owner has said that it is not worth saving.
    pub(super) fn is_nodump(&self) -> bool {
        self.0.stx_attributes.contains(StatxAttributes::NODUMP)
    }

    /// Nanoseconds since 1970 of the last change of content, and of anything.
    pub(super) fn changed(&self) -> (i64, i64) {
        let ns = |s: i64, ns: u32| s.saturating_mul(1_000_000_000).saturating_add(ns.into());
        let (mtime, ctime) = (&self.0.stx_mtime, &self.0.stx_ctime);
        (ns(mtime.tv_sec, mtime.tv_nsec), ns(ctime.tv_sec, ctime.tv_nsec))
    }

    pub(super) fn metadata(&self) -> Metadata {
        Metadata {
            mode: self.0.stx_mode & 0o7777,
            uid: self.0.stx_uid,
            gid: self.0.stx_gid,
            mtime_s: self.0.stx_mtime.tv_sec,
            mtime_ns: self.0.stx_mtime.tv_nsec,
        }
    }
}
