//! Extended attributes, of which ACLs and capabilities are some: read from and written to what is open, and what is only
//! named by a handle because it cannot be opened.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use backhaul_object::entry::Attribute;
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

    fn list(&self) -> Result<Vec<Vec<u8>>, Errno> {
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
        let mut names = vec![0u8; LARGEST];
        let len = match self {
            Self::Open(fd) => fs::flistxattr(fd, &mut names[..])?,
            Self::Named(path) => fs::listxattr(&path[..], &mut names[..])?,
        };
        Ok(names[..len]
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect())
    }

    fn get(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut value = vec![0u8; LARGEST];
        let len = match self {
            Self::Open(fd) => fs::fgetxattr(fd, name, &mut value[..])?,
            Self::Named(path) => fs::getxattr(&path[..], name, &mut value[..])?,
        };
        value.truncate(len);
        Ok(value)
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

/// All attributes in the order of their names, and those that could not be read, in words.
pub(crate) fn read(handle: &Handle<'_>) -> (Vec<Attribute>, Vec<String>) {
    let mut names = match handle.list() {
        Ok(names) => names,
        Err(error) => return (Vec::new(), vec![format!("its extended attributes: {error}")]),
    };
    names.sort_unstable();
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    for name in names {
        match handle.get(&name) {
            Ok(value) => found.push(Attribute { name, value }),
            // It vanished between the two looks.
            Err(Errno::NODATA) => {}
            Err(error) => unread.push(format!("its attribute {}: {error}", String::from_utf8_lossy(&name))),
        }
    }
    (found, unread)
}

/// What could not be set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unset {
    /// For root only, and this is not root.
    pub(crate) privileged: u64,
    /// The others, in words.
    pub(crate) failed: Vec<String>,
}

/// Sets attributes, and removes others that the place gave to what was made in it.
pub(crate) fn write(handle: &Handle<'_>, wanted: &[Attribute]) -> Unset {
    let mut unset = Unset::default();
    let there = handle.list().unwrap_or_default();
    for name in there.iter().filter(|name| is_kept(name) && !wanted.iter().any(|one| one.name == **name)) {
        // Whoever may not remove it may not see it, or is told at the next attribute.
        let _ = handle.remove(name);
    }
    for attribute in wanted {
        match handle.set(attribute) {
            Ok(()) => {}
            Err(Errno::PERM)
                if !attribute.name.starts_with(b"user.") && !rustix::process::geteuid().is_root() =>
            {
                unset.privileged += 1;
            }
            Err(error) => {
                let name = String::from_utf8_lossy(&attribute.name);
                unset.failed.push(format!("attribute {name} not set: {error}"));
            }
        }
    }
    unset
}

/// True for what belongs to a file and not to the system that it is on.
fn is_kept(name: &[u8]) -> bool {
    [&b"user."[..], b"trusted.", b"system.posix_acl_", b"security.capability"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}
