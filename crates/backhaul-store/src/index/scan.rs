//! Reading references in large blocks, beside whoever adds to them.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::rows::{self, PARENT_LEN, Parent};
use super::{Index, Ordinal};
use crate::error::{Doing, StoreError};

/// The references of all numbers that were given out when it was made. It needs no lock: these rows never change, but that
/// those of a lost number can all be dropped.
pub struct Scan {
    objects: u64,
    count: u64,
    parents: Part,
    references: Part,
}

/// One file of the index.
struct Part {
    file: File,
    path: PathBuf,
}

impl Part {
    fn open(path: PathBuf) -> Result<Self, StoreError> {
        Ok(Self { file: File::open(&path).doing("open", &path)?, path })
    }

    fn read(&self, at: u64, len: u64, into: &mut Vec<u8>) -> Result<(), StoreError> {
        into.resize(len as usize, 0);
        self.file.read_exact_at(into, at).doing("read", &self.path)
    }
}

impl Scan {
    /// The first `objects` numbers of the index in a directory, `parents` of which refer to something.
    ///
    /// # Errors
    /// There is none.
    pub fn open(dir: &Path, objects: u64, parents: u64) -> Result<Self, StoreError> {
        Ok(Self {
            objects,
            count: parents,
            parents: Part::open(dir.join("parents"))?,
            references: Part::open(dir.join("references"))?,
        })
    }

    /// How many numbers it covers.
    pub fn objects(&self) -> u64 {
        self.objects
    }

    /// How many of them refer to something.
    pub fn parents(&self) -> u64 {
        self.count
    }

    /// The `from`th to `to`th of those that refer to something.
    ///
    /// # Errors
    /// The index cannot be read, or is not in order.
    pub(crate) fn rows(&self, from: u64, to: u64, raw: &mut Vec<u8>) -> Result<Vec<Parent>, StoreError> {
        // One row before the first says where its references begin; those of the very first begin at 0.
        let before = from.min(1);
        self.parents.read((from - before) * PARENT_LEN, (to - from + before) * PARENT_LEN, raw)?;
        let (start, raw) = match raw.split_first_chunk() {
            Some((row, rest)) if before == 1 => (rows::parent_of(row).1, rest),
            _ => (0, &raw[..]),
        };
        rows::parents(raw, start, self.objects)
    }

    /// Encoded references.
    ///
    /// # Errors
    /// The index cannot be read.
    pub(crate) fn references(&self, range: Range<u64>, into: &mut Vec<u8>) -> Result<(), StoreError> {
        self.references.read(range.start, range.end - range.start, into)
    }

    /// Calls `each` with what encoded references of a number lead to.
    ///
    /// # Errors
    /// They are not what was written, or lead to no smaller number.
    pub(crate) fn targets(
        parent: Ordinal,
        raw: &[u8],
        each: &mut impl FnMut(Ordinal),
    ) -> Result<(), StoreError> {
        rows::targets(parent, raw, each)
    }
}

impl Index {
    /// All references until now, to be read without the index.
    ///
    /// # Errors
    /// The index cannot be written or opened.
    pub fn scan(&mut self) -> Result<Scan, StoreError> {
        let dir = self.parents.write_out()?.parent().map(Path::to_path_buf).unwrap_or_default();
        self.references.write_out()?;
        Scan::open(&dir, self.objects(), self.parents.len() / PARENT_LEN)
    }
}
