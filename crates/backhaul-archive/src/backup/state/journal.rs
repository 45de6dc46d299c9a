//! The state of the running backup: a file's record is written once all it refers to is durable.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::codec;
use super::file::HEADER_LEN;
use super::{Record, failed};
use crate::backup::BackupError;

/// Bytes at which a block is written even if more is durable.
const BLOCK: usize = 64 << 10;

/// Writes a state file.
pub(super) struct BlockWriter {
    file: File,
    block: Vec<u8>,
}

impl BlockWriter {
    pub(super) fn create(path: &Path, header: &[u8; HEADER_LEN]) -> io::Result<Self> {
        let mut file = File::create(path)?;
        file.write_all(header)?;
        Ok(Self { file, block: Vec::new() })
    }

    pub(super) fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        encode(&mut self.block);
        if self.block.len() >= BLOCK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let mut out = Vec::with_capacity(self.block.len() + 8);
        out.extend_from_slice(&(self.block.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&self.block).to_le_bytes());
        out.append(&mut self.block);
        self.file.write_all(&out)
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        // A short last block is worth having, and losing it costs a re-read only.
        let _ = self.flush();
    }
}

/// Encoded items and the number of objects that must be durable before they may be written. What is noted between two objects
/// needs the same number.
struct Waiting {
    needs: u64,
    items: Vec<u8>,
}

/// The journal of a run.
pub(crate) struct Journal {
    out: BlockWriter,
    waiting: VecDeque<Waiting>,
    new: PathBuf,
    resume: PathBuf,
    state: PathBuf,
}

impl Journal {
    pub(super) fn create(
        new: PathBuf,
        resume: PathBuf,
        state: PathBuf,
        header: &[u8; HEADER_LEN],
    ) -> Result<Self, BackupError> {
        let out = BlockWriter::create(&new, header).map_err(failed(&new))?;
        Ok(Self { out, waiting: VecDeque::new(), new, resume, state })
    }

    /// Notes a file; `needs` objects must be durable first.
    pub(crate) fn file(&mut self, record: &Record, needs: u64) {
        if record.path.len() > codec::PATH_MAX {
            return;
        }
        codec::encode_file(self.items(needs), record);
    }

    /// Notes a node.
    pub(crate) fn node(&mut self, prefix: u64, needs: u64) {
        codec::encode_node(self.items(needs), prefix);
    }

    /// Where an item is noted that needs so many objects.
    fn items(&mut self, needs: u64) -> &mut Vec<u8> {
        let is_open = |last: &Waiting| last.needs == needs && last.items.len() < BLOCK;
        if !self.waiting.back().is_some_and(is_open) {
            self.waiting.push_back(Waiting { needs, items: Vec::new() });
        }
        let last = self.waiting.len() - 1;
        &mut self.waiting[last].items
    }

    /// Writes what has become durable.
    pub(crate) fn advance(&mut self, durable: u64) -> Result<(), BackupError> {
        while self.waiting.front().is_some_and(|waiting| waiting.needs <= durable) {
            if let Some(waiting) = self.waiting.pop_front() {
                self.out.push(|block| block.extend_from_slice(&waiting.items)).map_err(failed(&self.new))?;
            }
        }
        self.out.flush().map_err(failed(&self.new))
    }

    pub(super) fn accept(mut self) -> Result<(), BackupError> {
        self.advance(u64::MAX)?;
        self.out.finish().map_err(failed(&self.new))?;
        fs::rename(&self.new, &self.state).map_err(failed(&self.state))?;
        match fs::remove_file(&self.resume) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&self.resume)(error)),
            _ => Ok(()),
        }
    }
}
