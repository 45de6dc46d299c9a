//! What there is to see: inodes, their numbers and attributes. Pure.
//!
//! A number follows from where something is, so that it is the same whenever it is looked up; names of one file of a
//! snapshot share one. Only what the kernel knows is held.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use backhaul_object::ObjectId;
use backhaul_object::entry::{Body, Content, Device, Entry, Special};
use backhaul_object::piece::Piece;
use backhaul_object::snapshot::Origin;

/// Number of an inode.
pub(crate) type Ino = u64;
/// The mount point.
pub(crate) const TOP: Ino = 1;
/// The name of the link to a client's newest snapshot.
pub(crate) const LATEST: &[u8] = b"latest";
/// Sizes on disk are counted in these.
const BLOCK: u64 = 512;

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// The mount point, with the clients.
    Top,
    /// A client, with its snapshots.
    Client(Arc<str>),
    /// The link to a client's newest snapshot.
    Latest(Vec<u8>),
    /// The top of a snapshot.
    Snapshot {
        client: Arc<str>,
        id: ObjectId,
        root: ObjectId,
        /// Seconds since 1970.
        time: u64,
    },
    /// Something in one.
    Entry { client: Arc<str>, snapshot: ObjectId, entry: Entry },
}

/// What makes an inode that one and no other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Snapshot([u8; 32]),
    /// Names of one inode of a snapshot.
    Link([u8; 32], u64),
    Name(Ino, Vec<u8>),
}

struct Record {
    key: Key,
    node: Arc<Node>,
    parent: Ino,
    name: Vec<u8>,
    /// How often the kernel has been told of it, and not said that it forgets.
    lookups: u64,
    /// Records whose parent it is.
    children: u64,
}

/// The kinds of inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Symlink,
    Special(Special),
}

/// What `stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) ino: Ino,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) mode: u16,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime_s: i64,
    pub(crate) mtime_ns: u32,
}

/// The inodes that the kernel knows.
pub(crate) struct View {
    table: HashMap<Ino, Record>,
    /// Who owns what is in no snapshot.
    owner: (u32, u32),
}

impl View {
    pub(crate) fn new(owner: (u32, u32)) -> Self {
        let (key, node) = (Key::Name(0, Vec::new()), Arc::new(Node::Top));
        let top = Record { key, node, parent: TOP, name: Vec::new(), lookups: 1, children: 0 };
        Self { table: HashMap::from([(TOP, top)]), owner }
    }

    /// The number that something has, whether or not it is held.
    pub(crate) fn number(&self, parent: Ino, name: &[u8], node: &Node) -> Ino {
        self.seat(&key(parent, name, node))
    }

    /// Two keys may hash alike: the later one takes the next number that is free.
    fn seat(&self, key: &Key) -> Ino {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        // Positive as a signed number, and neither none nor the top.
        let mut ino = (hasher.finish() >> 1).max(TOP + 1);
        while self.table.get(&ino).is_some_and(|record| record.key != *key) {
            ino = (ino + 1).max(TOP + 1);
        }
        ino
    }

    /// The kernel is told of something in `parent`.
    pub(crate) fn admit(&mut self, parent: Ino, name: &[u8], node: Node) -> Ino {
        let key = key(parent, name, &node);
        let (ino, node) = (self.seat(&key), Arc::new(node));
        if let Some(record) = self.table.get_mut(&ino) {
            record.node = node;
            record.lookups += 1;
            return ino;
        }
        if let Some(above) = self.table.get_mut(&parent) {
            above.children += 1;
        }
        let record = Record { key, node, parent, name: name.to_vec(), lookups: 1, children: 0 };
        self.table.insert(ino, record);
        ino
    }

    /// The kernel forgets that it was told of something `lookups` times.
    pub(crate) fn forget(&mut self, mut ino: Ino, lookups: u64) {
        if let Some(record) = self.table.get_mut(&ino) {
            record.lookups = record.lookups.saturating_sub(lookups);
        }
        // What nobody refers to goes, and with the last that is in it what it is in.
        while ino != TOP && self.table.get(&ino).is_some_and(|record| record.lookups + record.children == 0) {
            let Some(record) = self.table.remove(&ino) else { return };
            ino = record.parent;
            if let Some(above) = self.table.get_mut(&ino) {
                above.children = above.children.saturating_sub(1);
            }
        }
    }

    pub(crate) fn node(&self, ino: Ino) -> Option<Arc<Node>> {
        self.table.get(&ino).map(|record| Arc::clone(&record.node))
    }

    pub(crate) fn parent(&self, ino: Ino) -> Ino {
        self.table.get(&ino).map_or(TOP, |record| record.parent)
    }

    /// Where something is below the mount point, for people.
    pub(crate) fn path(&self, mut ino: Ino) -> String {
        let mut names = Vec::new();
        while let Some(record) = self.table.get(&ino).filter(|_| ino != TOP) {
            names.push(String::from_utf8_lossy(&record.name).into_owned());
            ino = record.parent;
        }
        names.reverse();
        names.join("/")
    }

    /// What `stat` says of something that has a number.
    pub(crate) fn attributes(&self, ino: Ino, node: &Node) -> Attributes {
        let (uid, gid) = self.owner;
        let own = |kind, size, mode, mtime_s| Attributes {
            ino,
            kind,
            size,
            blocks: 0,
            mode,
            links: 1,
            uid,
            gid,
            mtime_s,
            mtime_ns: 0,
        };
        match node {
            Node::Top | Node::Client(_) => own(Kind::Folder, 0, 0o555, 0),
            Node::Latest(to) => own(Kind::Symlink, to.len() as u64, 0o777, 0),
            Node::Snapshot { time, .. } => own(Kind::Folder, 0, 0o555, (*time).try_into().unwrap_or(0)),
            Node::Entry { entry, .. } => of_entry(ino, entry),
        }
    }
}

fn key(parent: Ino, name: &[u8], node: &Node) -> Key {
    match node {
        Node::Snapshot { id, .. } => Key::Snapshot(*id.as_bytes()),
        Node::Entry { snapshot, entry, .. } => match entry.link() {
            Some(group) => Key::Link(*snapshot.as_bytes(), group),
            None => Key::Name(parent, name.to_vec()),
        },
        Node::Top | Node::Client(_) | Node::Latest(_) => Key::Name(parent, name.to_vec()),
    }
}

fn of_entry(ino: Ino, entry: &Entry) -> Attributes {
    let (kind, size, blocks) = match &entry.body {
        Body::File { size, content, .. } => (Kind::File, *size, room(content, *size).div_ceil(BLOCK)),
        Body::Directory { .. } | Body::Folded(_) => (Kind::Folder, 0, 0),
        Body::Symlink(to) => (Kind::Symlink, to.len() as u64, 0),
        Body::Special(special) => (Kind::Special(*special), 0, 0),
    };
    let metadata = &entry.metadata;
    Attributes {
        ino,
        kind,
        size,
        blocks,
        mode: if kind == Kind::Symlink { 0o777 } else { metadata.mode },
        // A snapshot does not say how many names there are, only that there are others.
        links: if entry.link().is_some() { 2 } else { 1 },
        uid: metadata.uid,
        gid: metadata.gid,
        mtime_s: metadata.mtime_s,
        mtime_ns: metadata.mtime_ns,
    }
}

/// Bytes that are no hole, as far as the entry says.
fn room(content: &Content, size: u64) -> u64 {
    match content {
        Content::Chunks(pieces) => {
            pieces.iter().filter(|piece| piece.id().is_some()).map(Piece::len).fold(0, u64::saturating_add)
        }
        Content::Empty => 0,
        Content::Inline(_) | Content::Member { .. } | Content::Flist(_) => size,
    }
}

/// The number of a device as `stat` has it, in 32 bits.
pub(crate) fn device(kind: Kind) -> u32 {
    match kind {
        Kind::Special(Special::Character(device) | Special::Block(device)) => {
            let Device { major, minor } = device;
            (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
        }
        _ => 0,
    }
}

/// The clients of a mount, or the snapshots of a client with their names: two of one second differ by their ids.
pub(crate) fn snapshots(client: &Arc<str>, shots: &[super::Shot]) -> Vec<(Vec<u8>, Node)> {
    let mut names: Vec<(Vec<u8>, Node)> = Vec::with_capacity(shots.len() + 1);
    for shot in shots {
        let mut name = shot.label.clone().into_bytes();
        if names
            .iter()
            .rev()
            .take_while(|(other, _)| other.starts_with(&name))
            .any(|(other, _)| *other == name)
        {
            name.extend_from_slice(format!("-{}", &shot.id.to_string()[..12]).as_bytes());
        }
        let (client, id, root, time) = (Arc::clone(client), shot.id, shot.root, shot.time);
        names.push((name, Node::Snapshot { client, id, root, time }));
    }
    let of_files = shots.iter().rposition(|shot| shot.origin == Origin::Files);
    if let Some((newest, _)) = of_files.map_or(names.last(), |at| names.get(at)).cloned() {
        names.push((LATEST.to_vec(), Node::Latest(newest)));
    }
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use backhaul_object::entry::{EXTENSION_LINK, Metadata};

    use super::*;
    use crate::mount::Shot;

    fn entry(name: &[u8], link: Option<u64>) -> Node {
        let extensions =
            link.map(|group| (EXTENSION_LINK, group.to_le_bytes().to_vec())).into_iter().collect();
        let (name, metadata, body) = (name.to_vec(), Metadata::default(), Body::Symlink(b"x".to_vec()));
        let entry = Entry { name, metadata, body, extensions };
        Node::Entry { client: "a".into(), snapshot: ObjectId([1; 32]), entry }
    }

    #[test]
    fn a_number_is_the_same_each_time_and_names_of_one_file_share_it() {
        let mut view = View::new((0, 0));
        let a = view.admit(TOP, b"a", entry(b"a", None));
        assert_eq!(view.number(TOP, b"a", &entry(b"a", None)), a);
        let b = view.admit(TOP, b"b", entry(b"b", Some(7)));
        let c = view.admit(a, b"c", entry(b"c", Some(7)));
        assert_eq!(b, c);
        assert_eq!(view.attributes(b, &view.node(b).unwrap()).links, 2);
        view.forget(a, 1);
        view.forget(b, 2);
        assert_eq!(view.table.len(), 1, "only the top is left");
        assert_eq!(view.admit(TOP, b"a", entry(b"a", None)), a);
    }

    #[test]
    fn what_has_something_in_it_is_held_until_that_is_forgotten() {
        let mut view = View::new((0, 0));
        let a = view.admit(TOP, b"a", entry(b"a", None));
        let b = view.admit(a, b"b", entry(b"b", None));
        view.forget(a, 1);
        assert_eq!(view.path(b), "a/b");
        view.forget(b, 1);
        assert!(view.node(a).is_none() && view.node(b).is_none());
    }

    #[test]
    fn keys_that_hash_alike_have_numbers_of_their_own() {
        let mut view = View::new((0, 0));
        let right = view.number(TOP, b"a", &entry(b"a", None));
        let other = Key::Name(TOP, b"z".to_vec());
        let node = Arc::new(entry(b"z", None));
        let squatter = Record { key: other, node, parent: TOP, name: b"z".to_vec(), lookups: 1, children: 0 };
        view.table.insert(right, squatter);
        let a = view.admit(TOP, b"a", entry(b"a", None));
        assert_eq!(a, right + 1);
        assert_eq!(view.node(a).unwrap(), Arc::new(entry(b"a", None)));
    }

    #[test]
    fn snapshots_of_one_second_are_told_apart_and_latest_leads_to_the_newest() {
        let shot = |id, label: &str| Shot {
            id: ObjectId([id; 32]),
            root: ObjectId([9; 32]),
            label: label.to_owned(),
            time: 1,
            origin: if label == "stream" { Origin::Stream } else { Origin::Files },
        };
        let names = snapshots(&"a".into(), &[shot(1, "t"), shot(2, "t"), shot(3, "t"), shot(4, "u")]);
        let of: Vec<&[u8]> = names.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(of, [&b"t"[..], b"t-020202020202", b"t-030303030303", b"u", b"latest"]);
        assert_eq!(names[4].1, Node::Latest(b"u".to_vec()));
        assert!(snapshots(&"a".into(), &[]).is_empty());
        let latest = |shots: &[Shot]| snapshots(&"a".into(), shots).pop().unwrap().1;
        assert_eq!(latest(&[shot(1, "t"), shot(2, "stream")]), Node::Latest(b"t".to_vec()));
        assert_eq!(latest(&[shot(2, "stream")]), Node::Latest(b"stream".to_vec()));
    }

    #[test]
    fn devices_are_numbered_as_the_system_does() {
        for (major, minor) in [(8, 1), (259, 300_000), (4_095, 1_048_575)] {
            let kind = Kind::Special(Special::Block(Device { major, minor }));
            assert_eq!(u64::from(device(kind)), rustix::fs::makedev(major, minor));
        }
    }
}
