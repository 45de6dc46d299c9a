//! What the file system says about one name or open file, without opening or disturbing it (`statx`).

use std::ffi::CStr;
use std::os::fd::AsFd;

use backhaul_object::entry::{Device, Metadata};
use rustix::fs::{AtFlags, FileType, Statx, StatxAttributes, StatxFlags, makedev, statx};
use rustix::io::Errno;

/// What a backup needs of the answer, which is more than twice as long and would go from hand to hand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    size: u64,
    blocks: u64,
    inode: u64,
    volume: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
    names: u32,
    uid: u32,
    gid: u32,
    device: Device,
    mode: u16,
    is_nodump: bool,
}

impl From<Statx> for Look {
    fn from(stat: Statx) -> Self {
        Self {
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            inode: stat.stx_ino,
            volume: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            ctime: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
            names: stat.stx_nlink,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            device: Device { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor },
            mode: stat.stx_mode,
            is_nodump: stat.stx_attributes.contains(StatxAttributes::NODUMP),
        }
    }
}

impl Look {
    /// At a name in a directory, not following a link, and mounting nothing.
    pub(super) fn at(dir: &impl AsFd, name: &CStr) -> Result<Self, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        statx(dir, name, flags, StatxFlags::BASIC_STATS).map(Self::from)
    }

    /// At something that is open.
    pub(super) fn of(fd: &impl AsFd) -> Result<Self, Errno> {
        statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(Self::from)
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode.into())
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes on disk.
    pub(super) fn room(&self) -> u64 {
        self.blocks.saturating_mul(512)
    }

    pub(super) fn names(&self) -> u32 {
        self.names
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    /// The file system that it is on.
    pub(super) fn volume(&self) -> u64 {
        self.volume
    }

    /// The same on another volume.
    pub(super) fn on(self, volume: u64) -> Self {
        Self { volume, ..self }
    }

    /// Which device a device file stands for.
    pub(super) fn device(&self) -> Device {
        self.device
    }

    /// Its owner has said that it is not worth saving.
    pub(super) fn is_nodump(&self) -> bool {
        self.is_nodump
    }

    /// Nanoseconds since 1970 of the last change of content, and of anything.
    pub(super) fn changed(&self) -> (i64, i64) {
        let ns = |s: i64, ns: u32| s.saturating_mul(1_000_000_000).saturating_add(ns.into());
        (ns(self.mtime.0, self.mtime.1), ns(self.ctime.0, self.ctime.1))
    }

    pub(super) fn metadata(&self) -> Metadata {
        Metadata {
            mode: self.mode & 0o7777,
            uid: self.uid,
            gid: self.gid,
            mtime_s: self.mtime.0,
            mtime_ns: self.mtime.1,
        }
    }
}
