//! An append-only file whose unwritten end is in memory.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Doing, StoreError};

/// Bytes appended since the last flush at which they are written (not yet synced).
const TAIL_MAX: usize = 8 << 20;

pub(super) struct Log {
    path: PathBuf,
    file: File,
    written: u64,
    dirty: bool,
    tail: Vec<u8>,
}

impl Log {
    /// Opens or makes the file, cut to `len`.
    pub(super) fn open(path: &Path, len: u64) -> Result<Self, StoreError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).doing("open", path)?;
        let found = file.metadata().doing("examine", path)?.len();
        if found < len {
            let why = format!("{found} bytes, the catalog says {len}; run `backhaul check --rebuild-index`");
            return Err(StoreError::damaged(path.display().to_string(), why));
        }
        file.set_len(len).doing("cut", path)?;
        // What a process wrote that was killed shows, and is not durable before it is synced.
        Ok(Self { path: path.to_path_buf(), file, written: len, dirty: true, tail: Vec::new() })
    }

    pub(super) fn len(&self) -> u64 {
        self.written + self.tail.len() as u64
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        if self.tail.len() >= TAIL_MAX {
            // A failure shows again, and is reported, at the flush.
            let _ = self.write();
        }
    }

    pub(super) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            return Err(StoreError::damaged(self.path.display().to_string(), "reference past its end"));
        }
        let mut out = vec![0; len as usize];
        self.read_into(offset, &mut out)?;
        Ok(out)
    }

    fn read_into(&self, offset: u64, out: &mut [u8]) -> Result<(), StoreError> {
        let len = out.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            return Err(StoreError::damaged(self.path.display().to_string(), "reference past its end"));
        }
        let from_file = self.written.saturating_sub(offset).min(len) as usize;
        self.file.read_exact_at(&mut out[..from_file], offset).doing("read", &self.path)?;
        if from_file < out.len() {
            let start = (offset + from_file as u64 - self.written) as usize;
            let rest = out.len() - from_file;
            out[from_file..].copy_from_slice(&self.tail[start..start + rest]);
        }
        Ok(())
    }

    pub(super) fn array<const N: usize>(&self, offset: u64) -> Result<[u8; N], StoreError> {
        let mut out = [0; N];
        self.read_into(offset, &mut out)?;
        Ok(out)
    }

    /// Changes bytes that were appended; not durable before the next flush.
    pub(super) fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.write()?;
        self.dirty = true;
        self.file.write_all_at(bytes, offset).doing("write", &self.path)
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.file.write_all_at(&self.tail, self.written).doing("write", &self.path)?;
        self.dirty |= !self.tail.is_empty();
        self.written += self.tail.len() as u64;
        self.tail.clear();
        Ok(())
    }

    /// Writes what was appended so far, for others to read from the file; not durable before the next flush.
    pub(super) fn write_out(&mut self) -> Result<&Path, StoreError> {
        self.write()?;
        Ok(&self.path)
    }

    pub(super) fn flush(&mut self) -> Result<(), StoreError> {
        self.write()?;
        if self.dirty {
            self.file.sync_data().doing("sync", &self.path)?;
            self.dirty = false;
        }
        Ok(())
    }
}
