//! The names in a directory.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::Dir;

/// All but `.` and `..`, in byte order.
pub(crate) fn names_in(dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
