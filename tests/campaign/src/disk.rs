//! A disk in memory: inodes, names, and the operations that change them.
//!
//! The same operations serve the file system that records a story ([`crate::record`]) and the states in which a power
//! cut can leave the disk ([`crate::states`]).

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};
use std::time::{SystemTime, UNIX_EPOCH};

/// The inode of the root directory.
pub const ROOT: u64 = 1;

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Folder,
    /// A regular file.
    File,
    /// A symbolic link; its content is where it leads.
    Link,
}

/// An inode.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permissions.
    pub mode: u32,
    /// When its content was changed, if somebody has said so.
    pub mtime: SystemTime,
    /// Content of a file.
    pub bytes: Vec<u8>,
}

/// A place in a directory.
pub type Place = (u64, OsString);

/// Something that was asked of the disk.
#[derive(Debug, Clone)]
pub enum Op {
    /// A new inode, without a name.
    Born(u64, Kind, u32),
    /// An inode gets a name.
    Name(Place, u64),
    /// A name goes.
    Unname(Place),
    /// An inode gets another name, in one step; what had it loses it.
    Move(Place, Place, u64),
    /// Bytes at a place in a file.
    Write(u64, u64, Vec<u8>),
    /// A file gets a length.
    Cut(u64, u64),
    /// All that was done to an inode is to be durable.
    Sync(u64),
    /// It was to be, and the disk refused: what was written since the last time never will be, whatever is said later.
    Lost(u64),
}

/// All inodes and names.
#[derive(Debug, Clone)]
pub struct Image {
    /// By number.
    pub nodes: HashMap<u64, Node>,
    /// By directory and name.
    pub names: BTreeMap<Place, u64>,
}

impl Default for Image {
    fn default() -> Self {
        let root = Node { kind: Kind::Folder, mode: 0o755, mtime: UNIX_EPOCH, bytes: Vec::new() };
        Self { nodes: HashMap::from([(ROOT, root)]), names: BTreeMap::new() }
    }
}

impl Image {
    /// A copy of a directory.
    pub fn load(dir: &Path) -> Self {
        let mut image = Self::default();
        image.load_into(dir, ROOT);
        image
    }

    fn load_into(&mut self, dir: &Path, ino: u64) {
        let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(Result::unwrap).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let meta = entry.metadata().unwrap();
            let (kind, bytes) = match meta.file_type() {
                kind if kind.is_dir() => (Kind::Folder, Vec::new()),
                kind if kind.is_symlink() => {
                    (Kind::Link, fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes())
                }
                _ => (Kind::File, fs::read(entry.path()).unwrap()),
            };
            let (child, mode) = (self.next(), meta.permissions().mode() & 0o7777);
            self.nodes.insert(child, Node { kind, mode, mtime: meta.modified().unwrap(), bytes });
            self.names.insert((ino, entry.file_name()), child);
            if meta.is_dir() {
                self.load_into(&entry.path(), child);
            }
        }
    }

    /// The next free inode: none is ever given out twice.
    pub fn next(&self) -> u64 {
        self.nodes.len() as u64 + ROOT
    }

    /// The inode of a name.
    pub fn find(&self, dir: u64, name: &OsStr) -> Option<u64> {
        self.names.get(&(dir, name.to_owned())).copied()
    }

    /// The inode at a path below the root.
    pub fn at(&self, path: &Path) -> Option<u64> {
        path.components().try_fold(ROOT, |dir, part| match part {
            Component::Normal(name) => self.find(dir, name),
            _ => Some(dir),
        })
    }

    /// Names in a directory.
    pub fn list(&self, dir: u64) -> impl Iterator<Item = (&OsString, u64)> {
        let from = (dir, OsString::new())..(dir + 1, OsString::new());
        self.names.range(from).map(|((_, name), ino)| (name, *ino))
    }

    /// Does what is asked. An inode keeps its content though it has no name.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Born(ino, kind, mode) => {
                let node = Node { kind: *kind, mode: *mode, mtime: UNIX_EPOCH, bytes: Vec::new() };
                self.nodes.insert(*ino, node);
            }
            Op::Name(place, ino) => drop(self.names.insert(place.clone(), *ino)),
            Op::Unname(place) => drop(self.names.remove(place)),
            Op::Move(from, to, ino) => {
                self.names.remove(from);
                self.names.insert(to.clone(), *ino);
            }
            Op::Write(ino, at, bytes) => self.write(*ino, *at, bytes),
            Op::Cut(ino, len) => {
                if let Some(node) = self.nodes.get_mut(ino) {
                    node.bytes.resize(*len as usize, 0);
                }
            }
            Op::Sync(_) | Op::Lost(_) => {}
        }
    }

    /// Puts bytes at a place of a file; what is between its end and there becomes zeros.
    pub fn write(&mut self, ino: u64, at: u64, bytes: &[u8]) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        let (at, end) = (at as usize, at as usize + bytes.len());
        if node.bytes.len() < end {
            node.bytes.resize(end, 0);
        }
        node.bytes[at..end].copy_from_slice(bytes);
    }

    /// Writes everything below a directory.
    pub fn store(&self, dir: &Path) {
        self.store_below(dir, ROOT, 0);
    }

    fn store_below(&self, dir: &Path, ino: u64, depth: usize) {
        fs::create_dir_all(dir).unwrap();
        for (name, child) in self.list(ino) {
            let (Some(node), path) = (self.nodes.get(&child), dir.join(name)) else { continue };
            match node.kind {
                // Names that came back after a rename was lost could make a folder its own child.
                Kind::Folder if depth < 16 => self.store_below(&path, child, depth + 1),
                Kind::Folder => {}
                Kind::Link => symlink(OsStr::from_bytes(&node.bytes), &path).unwrap(),
                Kind::File => {
                    fs::write(&path, &node.bytes).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(node.mode)).unwrap();
                }
            }
        }
    }

    /// The same for disks with the same content under the same names.
    pub fn sum(&self) -> [u8; 32] {
        let mut sum = blake3::Hasher::new();
        for ((dir, name), ino) in &self.names {
            sum.update(&dir.to_le_bytes());
            sum.update(name.as_encoded_bytes());
            sum.update(&ino.to_le_bytes());
            if let Some(node) = self.nodes.get(ino) {
                sum.update(&(node.bytes.len() as u64).to_le_bytes());
                sum.update(&node.bytes);
            }
        }
        *sum.finalize().as_bytes()
    }
}
