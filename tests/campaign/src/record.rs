//! A file system that writes down what is asked of it, and can be told to fail once.
//!
//! What lies on it is in memory ([`crate::disk`]); whoever uses it, SQLite included, sees an ordinary mount. It needs root
//! and /dev/fuse: [`available`] says whether they are there.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use crate::disk::{Image, Kind, Op};

mod fault;

use fault::Inner;
pub use fault::{Failure, Fault, Touch};

const TTL: Duration = Duration::from_secs(60);

/// True where a file system can be mounted.
pub fn available() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists()
}

/// A mounted disk; it goes when this is dropped.
pub struct Recorder {
    inner: Arc<Mutex<Inner>>,
    session: Option<BackgroundSession>,
}

impl Recorder {
    /// Mounts a disk with this on it.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn mount(image: Image, at: &Path, fault: Option<Fault>) -> std::io::Result<Self> {
        Self::with(Inner { image, fault, ..Inner::default() }, at)
    }

    /// Mounts a disk again of which this was asked before; all of it shows, durable or not.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn again(image: Image, ops: Vec<Op>, at: &Path) -> std::io::Result<Self> {
        Self::with(Inner { image, ops, ..Inner::default() }, at)
    }

    fn with(inner: Inner, at: &Path) -> std::io::Result<Self> {
        let inner = Arc::new(Mutex::new(inner));
        let mut config = Config::default();
        let name = MountOption::FSName("campaign".to_owned());
        config.mount_options = vec![name, MountOption::DefaultPermissions];
        let session = fuser::spawn_mount(Disk(Arc::clone(&inner)), at, &config)?;
        Ok(Self { inner, session: Some(session) })
    }

    /// What is below a directory of the disk does not fail from now on, but for a part of it.
    pub fn spare(&self, dir: &Path, but: &Path) {
        lock(&self.inner).spare(dir, but);
    }

    /// A fault comes from now on, or none.
    pub fn arm(&self, fault: Option<Fault>) {
        lock(&self.inner).fault = fault;
    }

    /// How many operations were asked for so far.
    pub fn asked(&self) -> usize {
        lock(&self.inner).ops.len()
    }

    /// True when the fault has struck.
    pub fn failed(&self) -> bool {
        lock(&self.inner).failed
    }

    /// What was asked for, in order, and what came of it.
    pub fn finish(self) -> (Vec<Op>, Image) {
        let mut inner = lock(&self.inner);
        (std::mem::take(&mut inner.ops), inner.image.clone())
    }
}

/// The thread that serves it is waited for: one that ends while it is let go takes the whole process with it, once in some
/// 100,000 times (glibc reads what the thread has just given back).
impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.session.take().map(BackgroundSession::umount_and_join);
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Disk(Arc<Mutex<Inner>>);

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }

    fn attr(inner: &Inner, ino: u64) -> Option<FileAttr> {
        let node = inner.image.nodes.get(&ino)?;
        let kind = match node.kind {
            Kind::Folder => FileType::Directory,
            Kind::File => FileType::RegularFile,
            Kind::Link => FileType::Symlink,
        };
        let size = node.bytes.len() as u64;
        Some(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: node.mtime,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: node.mode as u16,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4_096,
            flags: 0,
        })
    }

    fn make(
        &self,
        parent: INodeNo,
        name: &OsStr,
        (kind, mode): (Kind, u32),
        content: &[u8],
    ) -> Result<FileAttr, Errno> {
        let mut inner = self.lock();
        inner.touch(if kind == Kind::File { Touch::Open } else { Touch::Name }, parent.0)?;
        let ino = inner.image.next();
        inner.ask(Op::Born(ino, kind, mode));
        if !content.is_empty() {
            inner.ask(Op::Write(ino, 0, content.to_vec()));
        }
        inner.ask(Op::Name((parent.0, name.to_owned()), ino));
        inner.inherit(parent.0, ino);
        Self::attr(&inner, ino).ok_or(Errno::EIO)
    }

    fn unname(&self, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut inner = self.lock();
        if let Err(error) = inner.touch(Touch::Name, parent.0) {
            return reply.error(error);
        }
        match inner.image.find(parent.0, name) {
            Some(ino) if inner.image.list(ino).next().is_some() => reply.error(Errno::ENOTEMPTY),
            Some(_) => {
                inner.ask(Op::Unname((parent.0, name.to_owned())));
                reply.ok();
            }
            None => reply.error(Errno::ENOENT),
        }
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut inner = self.lock();
        if let Err(error) = inner.touch(Touch::Look, parent.0) {
            return reply.error(error);
        }
        match inner.image.find(parent.0, name).and_then(|ino| Self::attr(&inner, ino)) {
            Some(attr) => reply.entry(&TTL, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match Self::attr(&self.lock(), ino.0) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut inner = self.lock();
        if let Err(error) = inner.touch(Touch::Change, ino.0) {
            return reply.error(error);
        }
        if let Some(size) = size {
            inner.ask(Op::Cut(ino.0, size));
        }
        if let (Some(TimeOrNow::SpecificTime(mtime)), Some(node)) = (mtime, inner.image.nodes.get_mut(&ino.0))
        {
            node.mtime = mtime;
        }
        if let (Some(mode), Some(node)) = (mode, inner.image.nodes.get_mut(&ino.0)) {
            node.mode = mode & 0o7777;
        }
        match Self::attr(&inner, ino.0) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        match self.make(parent, name, (Kind::Folder, mode & !umask), b"") {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        match self.make(parent, name, (Kind::Link, 0o777), target.as_os_str().as_encoded_bytes()) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.lock().image.nodes.get(&ino.0) {
            Some(node) => reply.data(&node.bytes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.make(parent, name, (Kind::File, mode & !umask & 0o7777), b"") {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.unname(parent, name, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.unname(parent, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut inner = self.lock();
        if let Err(error) = inner.touch(Touch::Name, parent.0) {
            return reply.error(error);
        }
        let (from, to) = ((parent.0, name.to_owned()), (newparent.0, newname.to_owned()));
        let there = inner.image.find(to.0, newname);
        match inner.image.find(from.0, name) {
            None => reply.error(Errno::ENOENT),
            Some(_) if flags.contains(RenameFlags::RENAME_EXCHANGE) => reply.error(Errno::EINVAL),
            Some(_) if flags.contains(RenameFlags::RENAME_NOREPLACE) && there.is_some() => {
                reply.error(Errno::EEXIST);
            }
            Some(_) if there.is_some_and(|ino| inner.image.list(ino).next().is_some()) => {
                reply.error(Errno::ENOTEMPTY);
            }
            Some(ino) => {
                inner.ask(Op::Move(from, to, ino));
                reply.ok();
            }
        }
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let mut inner = self.lock();
        if let Err(error) = inner.touch(Touch::Name, newparent.0) {
            return reply.error(error);
        }
        if inner.image.find(newparent.0, newname).is_some() {
            return reply.error(Errno::EEXIST);
        }
        inner.ask(Op::Name((newparent.0, newname.to_owned()), ino.0));
        match Self::attr(&inner, ino.0) {
            Some(attr) => reply.entry(&TTL, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.lock().touch(Touch::Open, ino.0) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
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
        let mut inner = self.lock();
        if let Err(error) = inner.touch(Touch::Read, ino.0) {
            return reply.error(error);
        }
        let Some(node) = inner.image.nodes.get(&ino.0) else { return reply.error(Errno::ENOENT) };
        let from = (offset as usize).min(node.bytes.len());
        let to = (from + size as usize).min(node.bytes.len());
        reply.data(&node.bytes[from..to]);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut inner = self.lock();
        if let Err(error) = inner.touch(Touch::Write, ino.0) {
            return reply.error(error);
        }
        let taken = if inner.fails(Failure::Short, ino.0) { &data[..data.len().div_ceil(2)] } else { data };
        inner.ask(Op::Write(ino.0, offset, taken.to_vec()));
        reply.written(taken.len() as u32);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut inner = self.lock();
        if inner.fails(Failure::Sync, ino.0) {
            inner.ask(Op::Lost(ino.0));
            return reply.error(Errno::EIO);
        }
        inner.ask(Op::Sync(ino.0));
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut inner = self.lock();
        // Names are of the journal, and stay due.
        if inner.fails(Failure::Sync, ino.0) {
            return reply.error(Errno::EIO);
        }
        inner.ask(Op::Sync(ino.0));
        reply.ok();
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut inner = self.lock();
        if offset == 0
            && let Err(error) = inner.touch(Touch::Read, ino.0)
        {
            return reply.error(error);
        }
        for (at, (name, child)) in inner.image.list(ino.0).enumerate().skip(offset as usize) {
            let Some(attr) = Self::attr(&inner, child) else { continue };
            if reply.add(INodeNo(child), at as u64 + 1, attr.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 28, 1 << 27, 1 << 27, 1 << 20, 1 << 20, 4_096, 255, 4_096);
    }
}
