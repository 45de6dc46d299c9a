//! The names in a directory.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::Errno;

/// Bytes that are asked of the kernel at once: some 800 names.
const ASKED: usize = 32 << 10;

/// Names, all in one piece of memory: there may be millions.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Each with the zero byte that ends it.
    bytes: Vec<u8>,
    /// Where each begins, in the order in which they are told.
    starts: Vec<usize>,
}

impl Names {
    /// None, and room for as many as these are.
    pub(crate) fn with_room_of(other: &Self) -> Self {
        Self { bytes: Vec::with_capacity(other.bytes.len()), starts: Vec::with_capacity(other.starts.len()) }
    }

    pub(crate) fn push(&mut self, name: &CStr) {
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
    }

    fn at(&self, start: usize) -> &CStr {
        // Each start is that of a name with its zero byte.
        CStr::from_bytes_until_nul(&self.bytes[start..]).unwrap_or_default()
    }

    fn sort(&mut self) {
        let mut starts = std::mem::take(&mut self.starts);
        starts.sort_unstable_by_key(|start| self.at(*start));
        self.starts = starts;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.starts.iter().map(|start| self.at(*start))
    }
}

/// All but `.` and `..`, in byte order.
pub(crate) fn names_in(dir: &OwnedFd) -> rustix::io::Result<Names> {
    // Another descriptor, for each reads on from where it is.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(dir, c".", flags, Mode::empty())?;
    let mut names = Names::default();
    let mut room = Vec::with_capacity(ASKED);
    let mut listed = RawDir::new(dir, room.spare_capacity_mut());
    while let Some(entry) = listed.next() {
        let entry = match entry {
            Err(Errno::INTR) => continue,
            // It has been removed: there is nothing in it any more.
            Err(Errno::NOENT) => break,
            entry => entry?,
        };
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_come_once_and_in_byte_order_however_often_a_descriptor_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mut made: Vec<Vec<u8>> = (0..3_000u32)
            .map(|n| {
                format!("{:x}-{}", n.wrapping_mul(2_654_435_761), "n".repeat(n as usize % 90)).into_bytes()
            })
            .collect();
        made.extend([b"\xff".to_vec(), b"\x01".to_vec(), b"...".to_vec(), vec![b'l'; 255]]);
        for name in &made {
            use std::os::unix::ffi::OsStrExt;
            std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(name)), b"").unwrap();
        }
        made.sort();
        let fd = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        for _ in 0..2 {
            let names = names_in(&fd).unwrap();
            assert_eq!(names.iter().map(|name| name.to_bytes().to_vec()).collect::<Vec<_>>(), made);
        }
    }

    #[test]
    fn a_folder_that_was_removed_while_it_was_open_has_no_names() {
        let dir = tempfile::tempdir().unwrap();
        let fd = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        dir.close().unwrap();
        assert_eq!(names_in(&fd).unwrap().iter().count(), 0);
    }
}
