//! A file of which something is there already, and of which only what differs is written: a clone of the old one, what an
//! interrupted restore has left, or the old one itself.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{self, FallocateFlags, Mode, OFlags, fallocate};

use super::place::is_file;

/// Bytes that are compared at a time: of a chunk that has changed a little, the rest is not written.
const BLOCK: usize = 16 << 10;

/// A file that is written from its beginning to its end.
pub(super) struct Given {
    file: File,
    /// So many bytes were there.
    there: u64,
}

impl Given {
    /// One that was made just now.
    pub(super) fn fresh(file: File) -> Self {
        Self { file, there: 0 }
    }

    /// One that is open for reading and writing.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let there = file.metadata()?.len();
        Ok(Self { file, there })
    }

    /// The file that has a name: none when something else has it, or when it has further names.
    pub(super) fn within(dir: &OwnedFd, name: &[u8]) -> Option<Self> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = fs::openat(dir, name, flags, Mode::empty()).ok()?;
        let stat = fs::fstat(&fd).ok()?;
        (is_file(&stat) && stat.st_nlink == 1).then(|| Self::new(File::from(fd)).ok())?
    }

    /// Lets it share all blocks of another, where it has none yet and the file system can do that.
    pub(super) fn share(&mut self, old: &File) -> io::Result<()> {
        if self.there == 0 && fs::ioctl_ficlone(&self.file, old).is_ok() {
            self.there = self.file.metadata()?.len();
        }
        Ok(())
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Goes on with these bytes; returns how many of them were not there.
    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<u64> {
        if self.there == 0 {
            return self.file.write_all(bytes).map(|()| bytes.len() as u64);
        }
        let (mut at, mut written, mut old) = (self.file.stream_position()?, 0, [0; BLOCK]);
        for block in bytes.chunks(BLOCK) {
            let old = &mut old[..block.len()];
            if at >= self.there || self.file.read_exact_at(old, at).is_err() || old != block {
                self.file.write_all_at(block, at)?;
                written += block.len() as u64;
            }
            at += block.len() as u64;
        }
        self.file.seek(SeekFrom::Start(at)).map(|_| written)
    }

    /// Goes on with a hole.
    pub(super) fn hole(&mut self, len: u64, size: u64) -> io::Result<()> {
        let file = &mut self.file;
        let at = file.stream_position()?;
        let old = self.there.min(file.metadata()?.len());
        let end = at.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
        if at < old {
            // Where no hole can be made, the rest of it goes.
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&*file, how, at, len.min(old - at)).or_else(|_| file.set_len(at))?;
        }
        // Nothing else may follow that makes the file so long. And as long as it will be: where a file grows with each write, XFS
        // sets room aside behind it, and the hole that follows is none.
        file.set_len(end.max(size).max(file.metadata()?.len()))?;
        file.seek(SeekFrom::Start(end)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_blocks_that_differ_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut wanted: Vec<u8> = (0..10 * BLOCK).map(|n| (n / 7) as u8).collect();
        std::fs::write(&path, &wanted).unwrap();
        let open = || Given::within(&std::fs::File::open(dir.path()).unwrap().into(), b"f").unwrap();
        let put = |wanted: &[u8]| {
            let mut given = open();
            let written: u64 = wanted.chunks(3 * BLOCK + 5).map(|part| given.put(part).unwrap()).sum();
            assert!(std::fs::read(&path).unwrap()[..wanted.len()] == *wanted);
            written
        };
        assert_eq!(put(&wanted), 0);
        wanted[4 * BLOCK] ^= 1;
        assert!((1..=BLOCK as u64).contains(&put(&wanted)));
        wanted.extend([7; 100]);
        assert!((100..=2 * BLOCK as u64).contains(&put(&wanted)));
        std::fs::hard_link(&path, dir.path().join("g")).unwrap();
        assert!(Given::within(&std::fs::File::open(dir.path()).unwrap().into(), b"f").is_none());
    }
}
