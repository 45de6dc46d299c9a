//! The calls of the kernel, one by one.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use backhaul_object::entry::Body;
use fuser::{
    AccessFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyXattr, Request,
};

use super::{Edge, GENERATION, Open, Plain, Plus, attributes, lasts, lock};
use crate::mount::content::{File, Seek};
use crate::mount::folder::Folder;
use crate::mount::view::Node;

/// Answers with a value as the kernel wants it: its size first, then itself.
fn give(value: &[u8], size: u32, reply: ReplyXattr) {
    match size as usize {
        0 => reply.size(value.len() as u32),
        room if room < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

impl Filesystem for Edge {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wishes = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ];
        for wish in wishes {
            // An older kernel does without.
            let _ = config.add_capabilities(wish);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent, name.as_bytes()) {
            Err(error) => reply.error(error),
            Ok(node) => {
                let (ttl, mut view) = (lasts(&node), lock(&self.view));
                let ino = view.admit(parent.0, name.as_bytes(), node.clone());
                let attributes = attributes(&view.attributes(ino, &node));
                drop(view);
                reply.entry(&ttl, &attributes, GENERATION);
            }
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        lock(&self.view).forget(ino.0, lookups);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.node(ino) {
            Err(error) => reply.error(error),
            Ok(node) => {
                let found = lock(&self.view).attributes(ino.0, &node);
                reply.attr(&lasts(&node), &attributes(&found));
            }
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.node(ino).as_deref() {
            Ok(Node::Latest(to)) => reply.data(to),
            Ok(Node::Entry { entry, .. }) => match &entry.body {
                Body::Symlink(to) => reply.data(to),
                _ => reply.error(Errno::EINVAL),
            },
            Ok(_) => reply.error(Errno::EINVAL),
            Err(error) => reply.error(*error),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self.node(ino).and_then(|node| match &*node {
            Node::Entry { client, entry, .. } => File::open(self.store(client), entry).ok_or(Errno::EISDIR),
            _ => Err(Errno::EISDIR),
        });
        match opened {
            Ok(file) => {
                let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
                reply.opened(self.keep(Open::File(Arc::new(file))), flags);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_file(ino, handle, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        // As in lseek(2).
        let what = match whence {
            3 => Seek::Data,
            4 => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let found = u64::try_from(offset).map_err(|_| Errno::ENXIO).and_then(|at| {
            let open = self.opened(handle)?;
            let Open::File(file) = &*open else { return Err(Errno::EINVAL) };
            let found = file.seek(at, what).map_err(|why| self.failed(ino.0, b"", &why))?;
            found.and_then(|at| i64::try_from(at).ok()).ok_or(Errno::ENXIO)
        });
        match found {
            Ok(at) => reply.offset(at),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.open).1.remove(&handle.0);
        reply.ok();
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self.node(ino).and_then(|node| match Self::folder(&node) {
            Some((names, place)) => Ok(Open::Folder(Folder::open(self.store(&place.client), names), place)),
            None if matches!(*node, Node::Top | Node::Client(_)) => self.names(ino.0, &node).map(Open::Names),
            None => Err(Errno::ENOTDIR),
        });
        match opened {
            Ok(open) => {
                let is_fixed = matches!(open, Open::Folder(..));
                let flags = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
                reply.opened(self.keep(open), if is_fixed { flags } else { FopenFlags::empty() });
            }
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.list(ino, handle, offset, &mut Plain(ino.0, &mut reply)) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        match self.list(ino, handle, offset, &mut Plus(ino.0, &mut reply)) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        lock(&self.open).1.remove(&handle.0);
        reply.ok();
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.attributes_of(ino) {
            Ok(all) => match all.iter().find(|one| one.name == name.as_bytes()) {
                Some(one) => give(&one.value, size, reply),
                None => reply.error(Errno::NO_XATTR),
            },
            Err(error) => reply.error(error),
        }
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.attributes_of(ino) {
            Ok(all) => {
                let names = all.iter().flat_map(|one| [&one.name[..], b"\0"].concat());
                give(&names.collect::<Vec<u8>>(), size, reply);
            }
            Err(error) => reply.error(error),
        }
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }
}
