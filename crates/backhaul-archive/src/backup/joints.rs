//! Folders that are read elsewhere than under their own names: in a snapshot of their file system that lies at another place,
//! so that all of it is of one moment. Nothing else of a backup knows of it: paths, volumes and inodes are those of the
//! file system that the snapshot is of, so that what has not changed costs nothing, with and without it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;

use super::look::Look;
use crate::beneath;

/// One folder that is read elsewhere. In a snapshot of a file system, those that are mounted in it are not: each needs a
/// joint, too, to another snapshot or to where it is mounted.
#[derive(Clone)]
pub struct Joint {
    /// As the paths to save name it.
    pub path: PathBuf,
    /// It is read beneath this folder,
    pub root: Arc<OwnedFd>,
    /// at this path, no part of which is a symbolic link.
    pub below: PathBuf,
    /// The device number of the file system that it stands for, when it is read on another.
    pub volume: Option<u64>,
}

/// Those of a backup; none is the rule.
#[derive(Clone, Default)]
pub struct Joints {
    by_path: HashMap<Vec<u8>, Joint>,
    /// From the volumes that are read to those that they stand for.
    volumes: HashMap<u64, u64>,
}

impl Joints {
    /// Those that stand for a volume are opened once, to learn on which they are read.
    pub fn new(joints: Vec<Joint>) -> Self {
        let mut all = Self::default();
        for joint in joints {
            // What cannot be opened is named by the walk.
            if let Some(volume) = joint.volume
                && let Ok(look) = open(&joint).and_then(|fd| Look::of(&fd))
            {
                all.volumes.insert(look.volume(), volume);
            }
            let path = joint.path.as_os_str().as_bytes();
            // The walk's own paths have no `/` at their end, that of the root included.
            all.by_path.insert(path.strip_suffix(b"/").unwrap_or(path).to_vec(), joint);
        }
        all
    }

    /// True when everything is read where it is.
    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// Opens what is read in a folder's place, if it is read elsewhere.
    pub(super) fn open(&self, path: &[u8]) -> Option<Result<OwnedFd, Errno>> {
        self.by_path.get(path).map(open)
    }

    /// What is looked at, as it looks where it belongs.
    pub(super) fn as_of(&self, look: Look) -> Look {
        self.volumes.get(&look.volume()).map_or(look, |volume| look.on(*volume))
    }
}

fn open(joint: &Joint) -> Result<OwnedFd, Errno> {
    beneath::open_dir(&joint.root, joint.below.as_os_str().as_bytes())
}
