//! What has no content: symbolic links, pipes, sockets, devices. They are made at once, and their further names linked.

use std::os::fd::OwnedFd;

use backhaul_object::entry::{Body, Entry, Special};
use rustix::fs::{AtFlags, linkat};

use super::fetch::{Found, join};
use super::folders::Folder;
use super::look::Looked;
use super::part;
use super::place::{self, Missed, Target, Verdict};
use super::run::Run;
use super::same::Right;
use super::{Act, Mode};

const DIFFERS: &str = "differs from the snapshot: another link or special file";

impl Run<'_, '_> {
    pub(super) fn plain(&mut self, entry: &Entry, looked: Looked) -> Result<(), String> {
        let (writes, overwrite) = (self.writes(), self.engine.request.overwrite);
        let found = self.found(entry, looked)?;
        let path = join(&self.here_path(), &entry.name);
        let (engine, there) = (self.engine, Found::of(found.as_ref()));
        let make_way = |dir: &OwnedFd| engine.make_way(dir, &entry.name, &path);
        let verify = self.engine.request.verify && !self.engine.request.dry_run;
        let (compare, place) = (self.mode == Mode::Compare, self.engine.place);
        let first = self.or_named(self.links.first(entry.link()), &entry.name);
        let (mut missed, mut is_changed) = (None, false);
        if let Some(dir) = self.here()? {
            let same = || place::is_as(dir, &entry.name, &entry.body);
            if compare {
                if !same() {
                    return Err(DIFFERS.to_owned());
                }
            } else if let Some(stat) = &found
                && let verdict = place::judge(stat, &entry.metadata, overwrite, same)
                && verdict != Verdict::Write
            {
                let differs = verify && !same();
                self.engine.report.skipped(|| path.clone());
                if verdict == Verdict::Same {
                    self.note_first(entry);
                    if writes && self.put_right(entry, stat)? == Right::Elsewhere {
                        let why = "its mode, owner or attributes stay: it has further names";
                        self.engine.report.error(&path, why.to_owned());
                    }
                }
                return if differs { Err(DIFFERS.to_owned()) } else { Ok(()) };
            } else if writes {
                is_changed = true;
                let linked = first.as_ref().zip(place).map(|((from, name), place)| {
                    further_name(place, (from, name), dir, (entry, there), &make_way)
                });
                if linked.as_ref().is_none_or(Result::is_err) {
                    missed = Some(make(dir, (entry, there), &make_way)?);
                }
                if let Some(Err(why)) = linked {
                    engine.report.unlinked(&path, &why);
                }
            }
        }
        if self.engine.request.dry_run && self.mode == Mode::Write {
            self.rehearse_way(found.as_ref(), &self.here_path(), &entry.name)?;
        }
        if writes {
            self.note_first(entry);
        }
        if is_changed {
            self.folders.last_mut().into_iter().for_each(Folder::note_change);
        }
        if let Some(missed) = missed {
            self.engine.report.missed(&path, missed);
        }
        self.engine.report.act(Act::upon(found.as_ref()), &path);
        match entry.body {
            Body::Special(_) => self.engine.report.special(),
            _ => self.engine.report.symlink(),
        }
        Ok(())
    }

    /// Where the further names of an entry find it.
    fn note_first(&self, entry: &Entry) {
        if let (Some(group), Some(folder)) = (entry.link(), self.folders.last()) {
            self.or_named(self.links.note(group, &folder.relative, &entry.name), &entry.name);
        }
    }
}

fn make(
    dir: &OwnedFd,
    (entry, found): (&Entry, Found),
    make_way: part::MakeWay<'_>,
) -> Result<Missed, String> {
    let make = |name: &[u8]| place::make(dir, name, &entry.body);
    let is_device = matches!(entry.body, Body::Special(Special::Character(_) | Special::Block(_)));
    if is_device && !rustix::process::geteuid().is_root() {
        return Err("only root may make a device".to_owned());
    }
    part::put(dir, (&entry.name, found), make, |name| place::apply_to_plain(dir, name, entry), make_way)
}

/// Links an entry's name to the first of its group, if that is still what this restore has made.
fn further_name(
    place: &Target,
    (from, name): (&[u8], &[u8]),
    dir: &OwnedFd,
    (entry, found): (&Entry, Found),
    make_way: part::MakeWay<'_>,
) -> Result<(), String> {
    let from = place.dir(from).map_err(|error| error.to_string())?;
    if !place::is_as(&from, name, &entry.body) {
        return Err("the first name is something else now".to_owned());
    }
    let link = |to: &[u8]| linkat(&from, name, dir, to, AtFlags::empty());
    part::put(dir, (&entry.name, found), link, |_| Ok(()), make_way)
}
