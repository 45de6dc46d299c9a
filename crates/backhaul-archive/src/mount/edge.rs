//! What the kernel asks of a mount, by FUSE.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use backhaul_object::ObjectId;
use backhaul_object::entry::{Attribute, Entry, Special};
use fuser::{Errno, FileAttr, FileHandle, FileType, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::cache::{Cache, Store};
use super::content::File;
use super::folder::{Folder, Names};
use super::view::{self, Attributes, Ino, Kind, Node, View};
use super::{Complain, Library};

mod calls;

/// For so long the kernel need not ask again: what is in a snapshot never changes, and what snapshots there are does.
const FIXED: Duration = Duration::from_secs(24 * 3_600);
const FRESH: Duration = Duration::from_secs(1);
/// Reads ahead that wait for their turn, and threads that carry them out.
const AHEAD_QUEUE: usize = 16;
const AHEAD_THREADS: usize = 2;
/// Offsets in a listing: after `.`, after `..`, and from there on its own.
const AFTER_DOTS: u64 = 2;
const GENERATION: Generation = Generation(0);

/// Something that is open.
enum Open {
    File(Arc<File>),
    Folder(Folder, Place),
    /// Clients, or the snapshots of one.
    Names(Vec<(Vec<u8>, Node)>),
}

/// Of which snapshot something is.
#[derive(Clone)]
struct Place {
    client: Arc<str>,
    snapshot: ObjectId,
}

impl Place {
    fn node(&self, entry: Entry) -> Node {
        Node::Entry { client: Arc::clone(&self.client), snapshot: self.snapshot, entry }
    }
}

type Ahead = (Arc<File>, std::ops::Range<u64>);

/// The file system.
pub(super) struct Edge {
    library: Arc<dyn Library>,
    complain: Arc<Complain>,
    view: Mutex<View>,
    cache: Arc<Cache>,
    stores: Mutex<HashMap<Arc<str>, Store>>,
    open: Mutex<(u64, HashMap<u64, Arc<Open>>)>,
    ahead: SyncSender<Ahead>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A listing under way: the kernel's buffer, in either form.
trait Listing {
    /// True when it is full, and did not take this.
    fn add(&mut self, edge: &Edge, offset: u64, name: &[u8], node: Node) -> bool;

    /// The same, of the folder itself or the one that it is in.
    fn dot(&mut self, edge: &Edge, offset: u64, ino: Ino, name: &str) -> bool;
}

struct Plain<'r>(Ino, &'r mut ReplyDirectory);

impl Listing for Plain<'_> {
    fn add(&mut self, edge: &Edge, offset: u64, name: &[u8], node: Node) -> bool {
        let view = lock(&edge.view);
        let ino = view.number(self.0, name, &node);
        let kind = file_type(view.attributes(ino, &node).kind);
        self.1.add(INodeNo(ino), offset, kind, OsStr::from_bytes(name))
    }

    fn dot(&mut self, _: &Edge, offset: u64, ino: Ino, name: &str) -> bool {
        self.1.add(INodeNo(ino), offset, FileType::Directory, name)
    }
}

struct Plus<'r>(Ino, &'r mut ReplyDirectoryPlus);

impl Listing for Plus<'_> {
    fn add(&mut self, edge: &Edge, offset: u64, name: &[u8], node: Node) -> bool {
        let (ttl, mut view) = (lasts(&node), lock(&edge.view));
        let ino = view.admit(self.0, name, node.clone());
        let attributes = attributes(&view.attributes(ino, &node));
        let full = self.1.add(INodeNo(ino), offset, OsStr::from_bytes(name), &ttl, &attributes, GENERATION);
        if full {
            view.forget(ino, 1);
        }
        full
    }

    /// The kernel counts no lookup for these.
    fn dot(&mut self, edge: &Edge, offset: u64, ino: Ino, name: &str) -> bool {
        let view = lock(&edge.view);
        let node = view.node(ino).unwrap_or_else(|| Arc::new(Node::Top));
        let attributes = attributes(&view.attributes(ino, &node));
        self.1.add(INodeNo(ino), offset, name, &FRESH, &attributes, GENERATION)
    }
}

impl Edge {
    pub(super) fn new(library: Arc<dyn Library>, complain: Arc<Complain>) -> Self {
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (ahead, wanted) = sync_channel::<Ahead>(AHEAD_QUEUE);
        let wanted = Arc::new(Mutex::new(wanted));
        for _ in 0..AHEAD_THREADS {
            let wanted = Arc::clone(&wanted);
            std::thread::spawn(move || read_ahead(&wanted));
        }
        Self {
            library,
            complain,
            view: Mutex::new(View::new(owner)),
            cache: Arc::default(),
            stores: Mutex::default(),
            open: Mutex::default(),
            ahead,
        }
    }

    fn store(&self, client: &Arc<str>) -> Store {
        let mut stores = lock(&self.stores);
        let number = stores.len() as u32;
        let make = || Store { source: self.library.source(client), number, cache: Arc::clone(&self.cache) };
        stores.entry(Arc::clone(client)).or_insert_with(make).clone()
    }

    /// An error for the kernel, and words for whoever mounted this.
    fn failed(&self, ino: Ino, name: &[u8], why: &dyn std::fmt::Display) -> Errno {
        let path = lock(&self.view).path(ino);
        let slash = if path.is_empty() || name.is_empty() { "" } else { "/" };
        (self.complain)(&format!("{path}{slash}{}: {why}", String::from_utf8_lossy(name)));
        Errno::EIO
    }

    fn node(&self, ino: INodeNo) -> Result<Arc<Node>, Errno> {
        lock(&self.view).node(ino.0).ok_or(Errno::ESTALE)
    }

    /// What is in the top, or in a client.
    fn names(&self, ino: Ino, node: &Node) -> Result<Vec<(Vec<u8>, Node)>, Errno> {
        let known = match node {
            Node::Top => self.library.clients().map(|clients| {
                let named = |name: String| (name.clone().into_bytes(), Node::Client(name.into()));
                clients.into_iter().map(named).collect()
            }),
            Node::Client(client) => {
                self.library.snapshots(client).map(|shots| view::snapshots(client, &shots))
            }
            Node::Latest(_) | Node::Snapshot { .. } | Node::Entry { .. } => Ok(Vec::new()),
        };
        known.map_err(|why| self.failed(ino, b"", &why))
    }

    /// The folder that a node of a snapshot is.
    fn folder(node: &Node) -> Option<(Names, Place)> {
        match node {
            Node::Snapshot { client, id, root, .. } => {
                Some((Names::Node(*root), Place { client: Arc::clone(client), snapshot: *id }))
            }
            Node::Entry { client, snapshot, entry } => {
                let place = Place { client: Arc::clone(client), snapshot: *snapshot };
                Names::of(entry).map(|names| (names, place))
            }
            Node::Top | Node::Client(_) | Node::Latest(_) => None,
        }
    }

    fn find(&self, parent: INodeNo, name: &[u8]) -> Result<Node, Errno> {
        let node = self.node(parent)?;
        if let Some((names, place)) = Self::folder(&node) {
            let found = names.find(&self.store(&place.client), name);
            let found = found.map_err(|why| self.failed(parent.0, name, &why))?;
            return found.map(|entry| place.node(entry)).ok_or(Errno::ENOENT);
        }
        let names = self.names(parent.0, &node)?;
        names.into_iter().find(|(other, _)| other == name).map(|(_, node)| node).ok_or(Errno::ENOENT)
    }

    fn keep(&self, open: Open) -> FileHandle {
        let mut all = lock(&self.open);
        all.0 += 1;
        let number = all.0;
        all.1.insert(number, Arc::new(open));
        FileHandle(number)
    }

    fn opened(&self, handle: FileHandle) -> Result<Arc<Open>, Errno> {
        lock(&self.open).1.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn list(
        &self,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        listing: &mut dyn Listing,
    ) -> Result<(), Errno> {
        let open = self.opened(handle)?;
        let parent = lock(&self.view).parent(ino.0);
        for (at, number, name) in [(0, ino.0, "."), (1, parent, "..")] {
            if offset <= at && listing.dot(self, at + 1, number, name) {
                return Ok(());
            }
        }
        let from = offset.saturating_sub(AFTER_DOTS);
        match &*open {
            Open::File(_) => Err(Errno::ENOTDIR),
            Open::Names(names) => {
                for (number, (name, node)) in names.iter().enumerate().skip(from as usize) {
                    if listing.add(self, AFTER_DOTS + number as u64 + 1, name, node.clone()) {
                        break;
                    }
                }
                Ok(())
            }
            Open::Folder(folder, place) => {
                let listed = folder.list(from, &mut |next, entry| {
                    listing.add(self, AFTER_DOTS + next, &entry.name, place.node(entry.clone()))
                });
                listed.map_err(|why| self.failed(ino.0, b"", &why))
            }
        }
    }

    fn read_file(&self, ino: INodeNo, handle: FileHandle, at: u64, len: u32) -> Result<Vec<u8>, Errno> {
        let open = self.opened(handle)?;
        let Open::File(file) = &*open else { return Err(Errno::EISDIR) };
        let bytes = file.read(at, len.into()).map_err(|why| self.failed(ino.0, b"", &why))?;
        if let Some(range) = file.ahead(at..at + bytes.len() as u64) {
            // When there is more of it than can be done, the reader waits for its own reads.
            let _ = self.ahead.try_send((Arc::clone(file), range));
        }
        Ok(bytes)
    }

    fn attributes_of(&self, ino: INodeNo) -> Result<Vec<Attribute>, Errno> {
        match &*self.node(ino)? {
            Node::Entry { entry, .. } => Ok(entry.attributes()),
            _ => Ok(Vec::new()),
        }
    }
}

/// What is read ahead in vain is read again, and its failure told, when it is wanted.
fn read_ahead(wanted: &Mutex<Receiver<Ahead>>) {
    loop {
        let next = lock(wanted).recv();
        let Ok((file, range)) = next else { return };
        let _ = file.fetch(range);
    }
}

fn lasts(node: &Node) -> Duration {
    match node {
        Node::Top | Node::Client(_) | Node::Latest(_) | Node::Snapshot { .. } => FRESH,
        Node::Entry { .. } => FIXED,
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Folder => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Special(Special::Fifo) => FileType::NamedPipe,
        Kind::Special(Special::Socket) => FileType::Socket,
        Kind::Special(Special::Character(_)) => FileType::CharDevice,
        Kind::Special(Special::Block(_)) => FileType::BlockDevice,
    }
}

fn attributes(of: &Attributes) -> FileAttr {
    let since = Duration::from_secs(of.mtime_s.unsigned_abs());
    let second = if of.mtime_s < 0 { UNIX_EPOCH.checked_sub(since) } else { UNIX_EPOCH.checked_add(since) };
    let time = second.and_then(|second| second.checked_add(Duration::from_nanos(of.mtime_ns.into())));
    let time = time.unwrap_or(UNIX_EPOCH);
    FileAttr {
        ino: INodeNo(of.ino),
        size: of.size,
        blocks: of.blocks,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: file_type(of.kind),
        perm: of.mode,
        nlink: of.links,
        uid: of.uid,
        gid: of.gid,
        rdev: view::device(of.kind),
        blksize: 128 << 10,
        flags: 0,
    }
}
