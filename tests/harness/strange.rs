//! A file system of a test's own making, with what no local disk has: a handle that a server has forgotten, attributes of
//! another system's access rights, one that cannot be read.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, ReplyXattr,
    Request,
};

const TTL: Duration = Duration::ZERO;

/// What every file holds that can be read.
pub const LETTER: &[u8] = b"a letter";

/// The names in it, their inode numbers and kinds.
const NAMES: [(&str, u64, FileType); 6] = [
    ("letter", 2, FileType::RegularFile),
    ("forgotten", 3, FileType::RegularFile),
    ("lost-half-way", 4, FileType::RegularFile),
    ("forgotten-folder", 5, FileType::Directory),
    ("listed", 6, FileType::RegularFile),
    ("half-listed", 7, FileType::RegularFile),
];

/// Of access rights as NFSv4 has them, which no other file system takes.
pub const RIGHTS: (&str, &[u8]) =
    ("system.nfs4_acl", &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16, 1, 0xbf]);

struct Strange;

impl Strange {
    fn attr(ino: u64) -> Option<FileAttr> {
        let kind = match ino {
            1 => FileType::Directory,
            _ => NAMES.iter().find(|(_, own, _)| *own == ino)?.2,
        };
        let (size, perm) = match kind {
            FileType::Directory => (0, 0o755),
            // Of two requests the second fails.
            _ if ino == 4 => (4 << 20, 0o644),
            _ => (LETTER.len() as u64, 0o644),
        };
        let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        Some(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4_096,
            flags: 0,
        })
    }
}

impl Filesystem for Strange {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = NAMES.iter().find(|(own, ..)| parent.0 == 1 && *own == name);
        match found.and_then(|(_, ino, _)| Self::attr(*ino)) {
            Some(attr) => reply.entry(&TTL, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match Self::attr(ino.0) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match ino.0 {
            3 => reply.error(Errno::ESTALE),
            _ => reply.opened(FileHandle(0), FopenFlags::empty()),
        }
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match ino.0 {
            5 => reply.error(Errno::ESTALE),
            _ => reply.opened(FileHandle(0), FopenFlags::empty()),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match ino.0 {
            4 if offset >= 1 << 20 => reply.error(Errno::ESTALE),
            4 => reply.data(&vec![7; size as usize]),
            _ => reply.data(&LETTER[LETTER.len().min(offset as usize)..]),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let here = [(".", 1, FileType::Directory), ("..", 1, FileType::Directory)];
        let names = if ino.0 == 1 { &NAMES[..] } else { &[] };
        for (at, (name, ino, kind)) in here.iter().chain(names).enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*ino), at as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names: &[u8] = match ino.0 {
            6 => b"system.nfs4_acl\0user.plain\0",
            7 => b"user.broken\0user.plain\0",
            _ => b"",
        };
        answer(names, size, reply);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match (ino.0, name.to_str()) {
            (6, Some("system.nfs4_acl")) => answer(RIGHTS.1, size, reply),
            (7, Some("user.broken")) => reply.error(Errno::EIO),
            (6 | 7, Some("user.plain")) => answer(b"plain", size, reply),
            _ => reply.error(Errno::ENODATA),
        }
    }
}

/// As the kernel asks: first how much, then for all.
fn answer(bytes: &[u8], size: u32, reply: ReplyXattr) {
    match size {
        0 => reply.size(bytes.len() as u32),
        _ => reply.data(bytes),
    }
}

/// Mounts one; it goes with what is returned.
pub fn mount(at: &Path) -> BackgroundSession {
    fuser::spawn_mount(Strange, at, &Config::default()).unwrap()
}
