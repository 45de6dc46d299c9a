//! What a disk holds, and what of it fails.

use std::collections::HashSet;
use std::path::Path;

use fuser::Errno;

use crate::disk::{Image, Op};

/// Ways to touch a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Bytes are written.
    Write,
    /// A file is opened or made.
    Open,
    /// A name is made, moved or removed.
    Name,
    /// A length, a mode or a time is set.
    Change,
    /// Bytes or names are read.
    Read,
    /// A name is looked up.
    Look,
}

/// What fails, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Of a write a part is done, and said to be.
    Short,
    /// A sync is refused. The kernel then drops what it could not write and believes it to be there: the next sync of the
    /// same file goes well and saves nothing of it.
    Sync,
    /// Nothing is done, and this error is given.
    Refused(Touch, i32),
}

/// The `nth` time of something from now fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// 0 is the next.
    pub nth: u64,
    /// How.
    pub failure: Failure,
}

/// A disk, and its fault.
#[derive(Default)]
pub(super) struct Inner {
    pub(super) image: Image,
    pub(super) ops: Vec<Op>,
    pub(super) fault: Option<Fault>,
    pub(super) failed: bool,
    pub(super) spared: HashSet<u64>,
}

impl Inner {
    pub(super) fn ask(&mut self, op: Op) {
        self.image.apply(&op);
        self.ops.push(op);
    }

    /// What is and comes below a directory does not fail, but for a part of it.
    pub(super) fn spare(&mut self, dir: &Path, but: &Path) {
        let (top, but) = (self.image.at(dir), self.image.at(but));
        let mut below: Vec<u64> = top.into_iter().collect();
        while let Some(ino) = below.pop() {
            self.spared.insert(ino);
            below.extend(self.image.list(ino).map(|(_, child)| child).filter(|child| Some(*child) != but));
        }
    }

    /// What is made in a directory is spared as that is.
    pub(super) fn inherit(&mut self, parent: u64, ino: u64) {
        if self.spared.contains(&parent) {
            self.spared.insert(ino);
        }
    }

    /// True if it is its turn to fail in this way.
    pub(super) fn fails(&mut self, how: Failure, ino: u64) -> bool {
        let is_meant = |fault: &&mut Fault| fault.failure == how && !self.spared.contains(&ino);
        let Some(fault) = self.fault.as_mut().filter(is_meant) else { return false };
        match fault.nth.checked_sub(1) {
            Some(left) => {
                fault.nth = left;
                false
            }
            None => {
                self.failed = true;
                self.fault = None;
                true
            }
        }
    }

    /// # Errors
    /// It is refused.
    pub(super) fn touch(&mut self, touch: Touch, ino: u64) -> Result<(), Errno> {
        match self.fault.map(|fault| fault.failure) {
            Some(how @ Failure::Refused(which, errno)) if which == touch && self.fails(how, ino) => {
                Err(Errno::from_i32(errno))
            }
            _ => Ok(()),
        }
    }
}
