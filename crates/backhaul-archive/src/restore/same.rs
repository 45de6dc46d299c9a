//! What is there with the right content: what belongs to it besides is put right, if it is not.

use std::os::fd::OwnedFd;

use backhaul_object::entry::{Attribute, Body, Entry, Metadata};
use rustix::fs::{self, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::place;
use super::run::Run;
use crate::attributes::{self, Handle, Others};
use crate::flags;

impl Run<'_, '_> {
    /// Sets mode, owner, attributes and flags of a file, link or special file that stays; what it has too much goes only if
    /// everything is to be as in the snapshot.
    pub(super) fn put_right(&mut self, entry: &Entry, stat: &Stat, path: &[u8]) -> Result<(), String> {
        let (report, delete) = (&self.engine.report, self.request.delete);
        let others = if delete { Others::Go } else { Others::Stay };
        let of_folder = self.folders.last().map_or(0, super::folders::Folder::flags);
        let Some(dir) = self.here()? else { return Ok(()) };
        let failed = |error: Errno| format!("metadata not set: {error}");
        let attributes = entry.attributes();
        if matches!(entry.body, Body::File { .. }) {
            let file = place::open_file(dir, &entry.name).map_err(failed)?;
            let lasting = flags::last_of(flags::read(&file)) | flags::last_of(entry.flags());
            let wrong_flags = entry.flags() | of_folder != 0 && flags::read(&file) != entry.flags();
            if is_right(stat, &entry.metadata)
                && has(&Handle::open(&file), &attributes, others)
                && !wrong_flags
            {
                return Ok(());
            }
            if lasting != 0 {
                flags::release(&file);
            }
            report.flagged(path, entry.flags(), flags::write(&file, entry.flags(), of_folder));
            let missed = place::apply(&file, &entry.metadata, Some((&attributes, others))).map_err(failed)?;
            report.missed(path, missed);
            report.flag_last(path, entry.flags());
        } else if stat.st_nlink == 1 {
            let is_link = matches!(entry.body, Body::Symlink(_));
            let metadata =
                Metadata { mode: if is_link { 0o777 } else { entry.metadata.mode }, ..entry.metadata };
            let named = named(dir, &entry.name).map_err(failed)?;
            if !(is_right(stat, &metadata) && has(&Handle::named(&named), &attributes, others)) {
                let missed = place::apply_to_plain(dir, &entry.name, entry).map_err(failed)?;
                report.missed(path, missed);
            }
        }
        Ok(())
    }
}

fn named(dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn is_right(stat: &Stat, metadata: &Metadata) -> bool {
    (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (metadata.mode.into(), metadata.uid, metadata.gid)
}

/// Whether it has all that is wanted, and no others if they are to go.
fn has(handle: &Handle<'_>, wanted: &[Attribute], others: Others) -> bool {
    let (found, _) = attributes::read(handle);
    let mut found = found.iter().filter(|one| others == Others::Stay || attributes::is_kept(&one.name));
    match others {
        Others::Go => found.eq(wanted.iter().filter(|one| attributes::is_kept(&one.name))),
        Others::Stay => {
            let found: Vec<&Attribute> = found.by_ref().collect();
            wanted.iter().all(|one| found.contains(&one))
        }
    }
}
