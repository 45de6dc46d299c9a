//! Reading spans and edges in large blocks, beside whoever adds to them.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Index, SPAN_LEN};
use crate::error::{Doing, StoreError};
use crate::index::Ordinal;

/// The references of all numbers that were given out when it was made. It needs no lock: these rows never change.
pub struct Scan {
    objects: u64,
    spans: Part,
    edges: Part,
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
    /// The first `objects` numbers of the index in a directory.
    ///
    /// # Errors
    /// There is none.
    pub fn open(dir: &Path, objects: u64) -> Result<Self, StoreError> {
        Ok(Self { objects, spans: Part::open(dir.join("spans"))?, edges: Part::open(dir.join("edges"))? })
    }

    /// How many numbers it covers.
    pub fn objects(&self) -> u64 {
        self.objects
    }

    /// Where the references of `from..to` are in the edges: the first one's begin, and each one's end.
    ///
    /// # Errors
    /// The index cannot be read.
    pub(crate) fn ends(
        &self,
        from: u64,
        to: u64,
        raw: &mut Vec<u8>,
        ends: &mut Vec<u64>,
    ) -> Result<u64, StoreError> {
        // One row before the first says where that begins; the very first begins at 0.
        let before = from.min(1);
        self.spans.read((from - before) * SPAN_LEN, (to - from + before) * SPAN_LEN, raw)?;
        ends.clear();
        ends.extend(raw.as_chunks::<8>().0.iter().map(|row| u64::from_le_bytes(*row)));
        let start = if before == 1 { ends.remove(0) } else { 0 };
        match ends.windows(2).all(|pair| pair[0] <= pair[1]) && ends.first().is_none_or(|end| start <= *end) {
            true => Ok(start),
            false => Err(StoreError::damaged(self.spans.path.display().to_string(), "it is not in order")),
        }
    }

    /// Encoded references.
    ///
    /// # Errors
    /// The index cannot be read.
    pub(crate) fn edges(&self, range: Range<u64>, into: &mut Vec<u8>) -> Result<(), StoreError> {
        self.edges.read(range.start, range.end - range.start, into)
    }

    /// Calls `each` with what encoded references of number `parent` lead to.
    ///
    /// # Errors
    /// They are not what was written, or lead to no smaller number.
    pub(crate) fn targets(
        &self,
        parent: u64,
        mut raw: &[u8],
        each: &mut impl FnMut(Ordinal),
    ) -> Result<(), StoreError> {
        let bad = || {
            let why = format!("the references of object number {parent} make no sense");
            StoreError::damaged(self.edges.path.display().to_string(), why)
        };
        while !raw.is_empty() {
            let to = varint(&mut raw).filter(|to| *to < parent).ok_or_else(bad)?;
            let members = varint(&mut raw).ok_or_else(bad)?;
            raw = usize::try_from(members).ok().and_then(|n| raw.get(n..)).ok_or_else(bad)?;
            each(Ordinal(to));
        }
        Ok(())
    }
}

fn varint(raw: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (i, byte) in raw.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *raw = &raw[i + 1..];
            return Some(value);
        }
    }
    None
}

impl Index {
    /// All references until now, to be read without the index.
    ///
    /// # Errors
    /// The index cannot be written or opened.
    pub fn scan(&mut self) -> Result<Scan, StoreError> {
        let dir = self.spans.write_out()?.parent().map(Path::to_path_buf).unwrap_or_default();
        self.edges.write_out()?;
        Scan::open(&dir, self.objects())
    }
}
