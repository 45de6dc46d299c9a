//! A file that is there, read alongside what it should hold.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;

use rustix::fs::{self, Mode, OFlags};

use super::place::is_file_of;
use crate::dump::Sink;
use crate::extents::{self, Extent};

/// Bytes compared at a time.
const AT_ONCE: usize = 64 << 10;

/// Fails at the first difference.
pub(super) struct Comparer {
    file: File,
    at: u64,
    buffer: Vec<u8>,
}

impl Comparer {
    /// Opens a regular file of `size` bytes.
    pub(super) fn open(dir: &OwnedFd, name: &[u8], size: u64) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = fs::openat(dir, name, flags, Mode::empty())?;
        if !is_file_of(&fs::fstat(&fd)?, size) {
            return Err(io::Error::other("differs from the snapshot: not a file of the same size"));
        }
        Ok(Self { file: File::from(fd), at: 0, buffer: vec![0; AT_ONCE] })
    }

    /// The next bytes, of which `equal` is asked, some at a time.
    fn next(&mut self, len: u64, equal: impl Fn(&[u8], usize) -> bool) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let n = (len - done).min(AT_ONCE as u64) as usize;
            self.file.read_exact(&mut self.buffer[..n])?;
            if !equal(&self.buffer[..n], done as usize) {
                return Err(io::Error::other(format!("differs from the snapshot after byte {}", self.at)));
            }
            done += n as u64;
            self.at += n as u64;
        }
        Ok(())
    }
}

impl Sink for Comparer {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.next(bytes.len() as u64, |found, from| found == &bytes[from..from + found.len()])
    }

    /// Data is zeros too if it says so; holes are not read.
    fn hole(&mut self, len: u64) -> io::Result<()> {
        let end = self.at.saturating_add(len);
        while let Some(extent) = extents::next(&self.file, self.at, end)? {
            match extent {
                Extent::Hole(len) => self.at += len,
                Extent::Data(len) => {
                    self.file.seek(SeekFrom::Start(self.at))?;
                    self.next(len, |found, _| found.iter().all(|byte| *byte == 0))?;
                }
            }
        }
        self.file.seek(SeekFrom::Start(self.at)).map(drop)
    }
}
