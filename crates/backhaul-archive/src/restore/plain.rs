//! What has no content: symbolic links, pipes, sockets, devices. They are made at once, and their further names linked.

use std::os::fd::OwnedFd;

use backhaul_object::entry::{Body, Entry};
use rustix::fs::{AtFlags, linkat};

use super::Mode;
use super::fetch::join;
use super::place::{self, Target, Verdict};
use super::run::{Run, look};

const DIFFERS: &str = "differs from the snapshot: another link or special file";

impl Run<'_, '_> {
    pub(super) fn plain(&mut self, entry: &Entry) -> Result<(), String> {
        let (writes, fresh, overwrite) = (self.writes(), self.is_fresh(), self.engine.overwrite);
        let verify = self.request.verify && !self.request.dry_run;
        let (compare, place) = (self.mode == Mode::Compare, self.engine.place);
        let first = entry.link().and_then(|group| self.links.get(&group).cloned());
        let mut missed = None;
        if let Some(dir) = self.here()? {
            let same = || place::is_as(dir, &entry.name, &entry.body);
            if compare {
                if !same() {
                    return Err(DIFFERS.to_owned());
                }
            } else if !fresh
                && let Some(stat) = look(dir, &entry.name)?
                && place::judge(&stat, &entry.metadata, overwrite, same) != Verdict::Write
            {
                let differs = verify && !same();
                self.engine.report.skipped();
                return if differs { Err(DIFFERS.to_owned()) } else { Ok(()) };
            } else if writes {
                let linked = match (&first, place) {
                    (Some((from, name)), Some(place)) => further_name(place, from, name, dir, entry).is_ok(),
                    _ => false,
                };
                if !linked {
                    place::make(dir, &entry.name, &entry.body)?;
                    let done = place::apply_to_plain(dir, &entry.name, entry);
                    missed = Some(done.map_err(|error| format!("metadata not set: {error}"))?);
                }
            }
        }
        if let (Some(group), true, Some(folder)) = (entry.link(), writes, self.folders.last()) {
            self.links.entry(group).or_insert_with(|| (folder.relative.clone(), entry.name.clone()));
        }
        if let (Some(missed), Some(folder)) = (missed, self.folders.last()) {
            self.engine.report.missed(&join(&folder.relative, &entry.name), missed);
        }
        match entry.body {
            Body::Special(_) => self.engine.report.special(),
            _ => self.engine.report.symlink(),
        }
        Ok(())
    }
}

/// Links an entry's name to the first of its group, if that is still what this restore has made.
fn further_name(
    place: &Target,
    from: &[u8],
    name: &[u8],
    dir: &OwnedFd,
    entry: &Entry,
) -> Result<(), String> {
    let from = place.dir(from).map_err(|error| error.to_string())?;
    if !place::is_as(&from, name, &entry.body) {
        return Err("the first name is something else now".to_owned());
    }
    place::clear(dir, &entry.name)?;
    linkat(&from, name, dir, &entry.name[..], AtFlags::empty()).map_err(|error| error.to_string())
}
