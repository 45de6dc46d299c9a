//! Snapshots as a read-only file system: `CLIENT/TIME/…`, and `CLIENT/latest`.
//!
//! - `view`: inodes, their numbers and attributes: pure;
//! - `cache`: objects that were read, as many as fit; `content`, `folder`: the bytes of a file and the names of a folder,
//!   read when they are wanted, and a little before;
//! - `edge`: what the kernel asks, by FUSE.
//!
//! Invariants:
//! - nothing is shown that was not checked against its id;
//! - what cannot be read is an error of that one call, with a word to who mounted it, and may be tried again;
//! - memory is bounded but for the inodes that the kernel holds.
//!
//! Where the objects come from, and what is new, a [`Library`] knows.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backhaul_object::ObjectId;
use backhaul_object::snapshot::Origin;
use backhaul_object::source::{ObjectSource, TransferError};
use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use thiserror::Error;

mod cache;
mod content;
mod edge;
mod folder;
mod view;

/// A snapshot that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shot {
    /// Which.
    pub id: ObjectId,
    /// Its root node.
    pub root: ObjectId,
    /// The name of its folder: when it was made.
    pub label: String,
    /// When it was made, in seconds since 1970.
    pub time: u64,
    /// What it is of: the latest is the newest of files.
    pub origin: Origin,
}

/// Knows what there is to mount. Called from several threads, each time that somebody looks: it may answer from memory.
pub trait Library: Send + Sync {
    /// The clients.
    ///
    /// # Errors
    /// They are not known now.
    fn clients(&self) -> Result<Vec<String>, TransferError>;

    /// A client's snapshots, oldest first.
    ///
    /// # Errors
    /// They are not known now.
    fn snapshots(&self, client: &str) -> Result<Vec<Shot>, TransferError>;

    /// Where a client's objects are read; asked for once.
    fn source(&self, client: &str) -> Arc<dyn ObjectSource>;
}

/// Who may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Who mounts it, everything.
    Own,
    /// All users of the machine, what modes and owners in the snapshot let them.
    All,
}

/// Hears of what could not be read.
pub type Complain = dyn Fn(&str) + Send + Sync;

/// Why there is no mount.
#[derive(Debug, Error)]
pub enum MountError {
    /// The kernel offers no FUSE here.
    #[error("this machine offers no FUSE: {path} cannot be opened ({why})")]
    NoFuse {
        /// The device.
        path: &'static str,
        /// Why.
        why: io::Error,
    },
    /// The mount point cannot be looked at.
    #[error("{}: {why}", path.display())]
    Point {
        /// Where.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// Something is in the mount point, and would be hidden.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// Where.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{} cannot be mounted: {why}", path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
}

const DEVICE: &str = "/dev/fuse";
/// Threads that answer the kernel: a slow read holds up only what waits for it.
const THREADS: usize = 8;

/// A file system that is mounted; whoever has this serves it.
pub struct Mounted {
    session: Session<edge::Edge>,
    dir: PathBuf,
}

/// Ends a mount from elsewhere.
pub struct Unmounter {
    session: SessionUnmounter,
    dir: PathBuf,
}

/// Looks whether a folder can be mounted on; its whole path.
///
/// # Errors
/// [`MountError`].
pub fn examine(dir: &Path) -> Result<PathBuf, MountError> {
    let point = |why| MountError::Point { path: dir.to_path_buf(), why };
    if std::fs::read_dir(dir).map_err(point)?.next().is_some() {
        return Err(MountError::NotEmpty { path: dir.to_path_buf() });
    }
    let device = std::fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    drop(device.map_err(|why| MountError::NoFuse { path: DEVICE, why })?);
    std::fs::canonicalize(dir).map_err(point)
}

/// Mounts; from then on it is there, and answers when it is [served](Mounted::serve).
///
/// # Errors
/// [`MountError`]: nothing is mounted.
pub fn mount(
    library: Arc<dyn Library>,
    dir: &Path,
    audience: Audience,
    complain: Arc<Complain>,
) -> Result<Mounted, MountError> {
    let dir = examine(dir)?;
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("backhaul".to_owned()),
        MountOption::RO,
        MountOption::NoAtime,
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if audience == Audience::All {
        config.acl = SessionACL::All;
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    (config.n_threads, config.clone_fd) = (Some(THREADS), true);
    let session = Session::new(edge::Edge::new(library, complain), &dir, &config);
    let session = session.map_err(|why| MountError::Refused { path: dir.clone(), why })?;
    Ok(Mounted { session, dir })
}

impl Mounted {
    /// What ends it from elsewhere.
    pub fn unmounter(&mut self) -> Unmounter {
        Unmounter { session: self.session.unmount_callable(), dir: self.dir.clone() }
    }

    /// Answers the kernel until it is unmounted.
    ///
    /// # Errors
    /// The kernel is not heard any more.
    pub fn serve(self) -> io::Result<()> {
        self.session.run()
    }
}

impl Unmounter {
    /// Takes it away; from whoever still uses it, too.
    ///
    /// # Errors
    /// It stays.
    pub fn unmount(mut self) -> io::Result<()> {
        match self.session.unmount() {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                Ok(rustix::mount::unmount(&self.dir, rustix::mount::UnmountFlags::DETACH)?)
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests;
