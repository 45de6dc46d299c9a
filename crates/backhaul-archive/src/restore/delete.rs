//! Removes what a snapshot does not have. Nothing here follows a link, or goes over to another file system.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, Dir};
use rustix::io::Errno;

use super::Mode;
use super::fetch::join;
use super::place::{self, insist};
use super::run::Run;
use crate::patterns::Kind;

/// Deepest folder that is removed: each level holds a descriptor.
const DEPTH_MAX: usize = 4_000;

impl Run<'_, '_> {
    /// Removes from the innermost folder what the snapshot does not have, if that is asked for.
    pub(super) fn tidy(&mut self) {
        if !self.request.delete || self.mode != Mode::Write {
            return;
        }
        let Some(names) = self.folders.last().and_then(|folder| folder.names_of_all()).cloned() else {
            return;
        };
        let relative = self.here_path();
        let (prefix, select) = (self.prefix.clone(), &self.request.select);
        let report = &self.engine.report;
        let Some(place) = self.engine.place else { return };
        let Ok(dir) = place.dir(&relative) else { return };
        let listed = match list(&dir) {
            Ok(listed) => listed,
            Err(error) => {
                return report.error(&relative, format!("what is too much in it is not known: {error}"));
            }
        };
        for name in listed.iter().filter(|name| !names.contains(name.to_bytes())) {
            let path = join(&relative, name.to_bytes());
            let is_dir =
                place::look(&dir, name.to_bytes()).ok().flatten().is_some_and(|stat| place::is_dir(&stat));
            let kind = if is_dir { Kind::Directory } else { Kind::Other };
            if !select.protects(&[&prefix[..], &path].join(&b'/'), kind) {
                match remove(&dir, name, self.request.dry_run, 0) {
                    Ok(n) => report.deleted(&path, n),
                    Err(why) => report.error(&path, format!("not deleted: {why}")),
                }
            }
        }
    }

    /// Removes a folder where something else is to be.
    pub(super) fn make_way(&self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), String> {
        let Ok(c_name) = CString::new(name) else { return Ok(()) };
        let n = remove(dir, &c_name, self.request.dry_run, 0)?;
        self.engine.report.deleted(path, n);
        Ok(())
    }
}

fn list(dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Removes something with all that is in it, or only counts; how many names that is.
fn remove(dir: &OwnedFd, name: &CString, dry: bool, depth: usize) -> Result<u64, String> {
    let text = |error: Errno| error.to_string();
    let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(text)?;
    let mut n = 1;
    let mut how = AtFlags::empty();
    if place::is_dir(&stat) {
        if depth >= DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} folders within each other"));
        }
        let inner = if dry { place::open_dir(dir, name) } else { place::force_dir(dir, name) };
        let inner = inner.map_err(text)?;
        if fs::fstat(&inner).map_err(text)?.st_dev != fs::fstat(dir).map_err(text)?.st_dev {
            return Err("another file system is mounted there".to_owned());
        }
        if !dry {
            place::unlock(&inner);
        }
        for below in list(&inner).map_err(text)? {
            let why = |why| format!("{}: {why}", below.to_string_lossy());
            n += remove(&inner, &below, dry, depth + 1).map_err(why)?;
        }
        how = AtFlags::REMOVEDIR;
    }
    if !dry {
        insist(dir, name.to_bytes(), || fs::unlinkat(dir, name, how)).map_err(text)?;
    }
    Ok(n)
}
