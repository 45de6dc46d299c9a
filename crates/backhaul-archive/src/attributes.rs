//! Extended attributes, of which ACLs and capabilities are some: read from and written to what is open, and what is only
//! named by a handle because it cannot be opened.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use backhaul_object::entry::{ATTRIBUTES_BYTES, ATTRIBUTES_MAX, Attribute};
use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;

/// Largest list of names, and largest value, that Linux has.
const LARGEST: usize = 64 << 10;

/// Something that has attributes.
pub(crate) enum Handle<'f> {
    /// Open for reading or writing.
    Open(BorrowedFd<'f>),
    /// Only named, by `O_PATH`: reached through the process's own table of handles, so that nothing that takes its place
    /// is touched. The path is followed to the handle and not beyond it.
    Named(String),
}

impl<'f> Handle<'f> {
    /// Of something that is open.
    pub(crate) fn open(fd: &'f impl AsFd) -> Self {
        Self::Open(fd.as_fd())
    }

    /// Of something that is only named.
    pub(crate) fn named(fd: &impl AsRawFd) -> Self {
        Self::Named(format!("/proc/self/fd/{}", fd.as_raw_fd()))
    }

    fn list(&self, room: &mut Vec<u8>) -> Result<Vec<Vec<u8>>, Errno> {
        let query = match self {
            Self::Open(fd) => fs::flistxattr_query(fd),
            Self::Named(path) => fs::listxattr_query(&path[..]),
        };
        match query {
            // Most have none, or are where none are kept.
            Ok(0) | Err(Errno::NOTSUP | Errno::NODATA) => return Ok(Vec::new()),
            Ok(_) | Err(Errno::TOOBIG) => {}
            Err(error) => return Err(error),
        }
        room.resize(LARGEST, 0);
        let len = match self {
            Self::Open(fd) => fs::flistxattr(fd, &mut room[..])?,
            Self::Named(path) => fs::listxattr(&path[..], &mut room[..])?,
        };
        Ok(room[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }

    /// Read where there is room for the largest, and kept in no more than it takes.
    fn get(&self, name: &[u8], room: &mut Vec<u8>) -> Result<Vec<u8>, Errno> {
        room.resize(LARGEST, 0);
        let len = match self {
            Self::Open(fd) => fs::fgetxattr(fd, name, &mut room[..])?,
            Self::Named(path) => fs::getxattr(&path[..], name, &mut room[..])?,
        };
        Ok(room[..len].to_vec())
    }

    fn set(&self, attribute: &Attribute) -> Result<(), Errno> {
        let (name, value) = (&attribute.name[..], &attribute.value[..]);
        match self {
            Self::Open(fd) => fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Named(path) => fs::setxattr(&path[..], name, value, XattrFlags::empty()),
        }
    }

    fn remove(&self, name: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => fs::fremovexattr(fd, name),
            Self::Named(path) => fs::removexattr(&path[..], name),
        }
    }
}

/// All attributes in the order of their names, and in words those that could not be read or that an entry has no room
/// for.
pub(crate) fn read(handle: &Handle<'_>) -> (Vec<Attribute>, Vec<String>) {
    let mut room = Vec::new();
    let mut names = match handle.list(&mut room) {
        Ok(names) => names,
        Err(error) => return (Vec::new(), vec![format!("its extended attributes: {error}")]),
    };
    names.sort_unstable();
    let (mut found, mut unread, mut left) = (Vec::new(), Vec::new(), ATTRIBUTES_BYTES);
    for name in names {
        match handle.get(&name, &mut room) {
            Ok(value) if found.len() < ATTRIBUTES_MAX && name.len() + value.len() <= left => {
                left -= name.len() + value.len();
                found.push(Attribute { name, value });
            }
            Ok(value) => unread.push(format!(
                "its attribute {} of {} bytes is not saved: more than {ATTRIBUTES_MAX}, or than {} KiB together",
                String::from_utf8_lossy(&name),
                value.len(),
                ATTRIBUTES_BYTES >> 10
            )),
            // It vanished between the two looks.
            Err(Errno::NODATA) => {}
            Err(error) => unread.push(format!("its attribute {}: {error}", String::from_utf8_lossy(&name))),
        }
    }
    (found, unread)
}

/// What happens to attributes that are not wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// They stay: what they are on was there before, and the snapshot may not know all of it.
    Stay,
    /// They go: the place gave them to what was made in it just now.
    Go,
}

/// Sets attributes. Returns what could not be set, and why.
pub(crate) fn write(handle: &Handle<'_>, wanted: &[Attribute], others: Others) -> Vec<String> {
    let mut unset = Vec::new();
    let there = match others {
        Others::Stay => Vec::new(),
        Others::Go => handle.list(&mut Vec::new()).unwrap_or_default(),
    };
    for name in there.iter().filter(|name| is_kept(name) && !wanted.iter().any(|one| one.name == **name)) {
        // Whoever may not remove it may not see it, or is told at the next attribute.
        let _ = handle.remove(name);
    }
    // Access lists last: they may forbid the others.
    let is_list = |attribute: &&Attribute| attribute.name.starts_with(b"system.posix_acl_");
    let lists = wanted.iter().filter(is_list);
    for attribute in wanted.iter().filter(|attribute| !is_list(attribute)).chain(lists) {
        let why = match handle.set(attribute) {
            Ok(()) => continue,
            Err(Errno::PERM)
                if !attribute.name.starts_with(b"user.") && !rustix::process::geteuid().is_root() =>
            {
                "not root".to_owned()
            }
            Err(error) => error.to_string(),
        };
        let name = String::from_utf8_lossy(&attribute.name);
        unset.push(format!("attribute {name} not set: {why}"));
    }
    unset
}

/// True for what belongs to a file and not to the system that it is on.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    [&b"user."[..], b"trusted.", b"system.posix_acl_", b"security.capability"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}
