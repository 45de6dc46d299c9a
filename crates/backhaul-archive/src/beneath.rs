//! Opens what is beneath a directory, and nothing else: the kernel refuses symbolic links and ways out (`openat2`). Where it
//! does not know that call, or a path is longer than it takes, every name is opened by itself in its open directory,
//! `O_NOFOLLOW`: what is not a directory at that moment, a link among others, fails, and `..` is refused before.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Longest path handed to one system call; longer ones are opened name by name.
const PATH_AT_ONCE: usize = 2_048;

/// How directories are opened.
pub(crate) fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW
}

/// Opens the directory at `relative`, which begins with no `/`; the empty path is `at` itself.
pub(crate) fn open_dir(at: &impl AsFd, relative: &[u8]) -> Result<OwnedFd, Errno> {
    if relative.is_empty() {
        return fs::openat(at, ".", dir_flags(), Mode::empty());
    }
    if relative.len() < PATH_AT_ONCE {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match fs::openat2(at, relative, dir_flags(), Mode::empty(), how) {
            Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN | Errno::INVAL) => {}
            other => return other,
        }
    }
    let mut dir = fs::openat(at, ".", dir_flags(), Mode::empty())?;
    for name in relative.split(|byte| *byte == b'/') {
        if name == b".." {
            return Err(Errno::XDEV);
        }
        dir = fs::openat(&dir, name, dir_flags(), Mode::empty())?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// By the kernel's rule for a short way, name by name for a long one.
    #[test]
    fn neither_links_nor_ways_out_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("in/deep")).unwrap();
        std::os::unix::fs::symlink("deep", dir.path().join("in/link")).unwrap();
        let at = fs::open(dir.path().join("in"), dir_flags(), Mode::empty()).unwrap();
        for before in ["", &"./".repeat(1_500)] {
            let open = |name: &str| open_dir(&at, format!("{before}{name}").as_bytes());
            assert!(open("deep").is_ok());
            for refused in ["link", "..", "../in", "deep/../../in", "link/.", "/etc"] {
                assert!(open(refused).is_err(), "{refused:?} after {} bytes", before.len());
            }
        }
    }
}
