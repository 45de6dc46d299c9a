//! The walk of a restore: directories and what has no content at once, files in batches.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use backhaul_object::entry::{Attribute, Body, Entry, Metadata};
use backhaul_object::source::TransferError;
use rustix::fs::{self, AtFlags, Stat, linkat};
use rustix::io::Errno;

use super::fetch::{self, Engine, FileJob, join};
use super::folders::Folder;
use super::part;
use super::place::{self, Target, Verdict};
use super::report::Flagged;
use super::same::Right;
use super::select::Choice;
use super::{Act, Extent, Mode, RestoreError};
use crate::attributes::Others;
use crate::browse::walker::{Event, Start, Step, Walker};
use crate::flags;
use crate::patterns::Kind;

/// A batch ends at this many files, or as many finished directories.
const BATCH_FILES: usize = 4_096;
/// A batch ends at this many bytes of content, large files aside.
const BATCH_BYTES: u64 = 64 << 20;

/// Files and what follows once they are written.
#[derive(Default)]
struct Batch {
    jobs: Vec<FileJob>,
    links: Vec<FileJob>,
    leaves: Vec<Leaf>,
    /// Left as they were, and to be compared.
    kept: Vec<FileJob>,
    bytes: u64,
}

/// A directory whose content is complete.
pub(super) struct Leaf {
    pub(super) relative: Arc<[u8]>,
    pub(super) metadata: Metadata,
    /// None: they stay as they are.
    pub(super) attributes: Option<Vec<Attribute>>,
    pub(super) others: Others,
    pub(super) flags: u32,
}

pub(super) struct Run<'r, 'a> {
    pub(super) engine: &'r Engine<'a>,
    pub(super) mode: Mode,
    /// The folders that the walk is in, the target first.
    pub(super) folders: Vec<Folder>,
    batch: Batch,
    /// Where the first file of each link group is.
    pub(super) links: HashMap<u64, (Arc<[u8]>, Vec<u8>)>,
}

/// Restores or compares everything from `start`.
pub(crate) fn run(engine: &Engine<'_>, mode: Mode, start: Start, extent: Extent) -> Result<(), RestoreError> {
    let is_folder = matches!(extent, Extent::Folder(_));
    let folders = vec![Folder::target(extent, engine.request.select.at_start())];
    let (batch, links) = (Batch::default(), HashMap::new());
    let mut run = Run { engine, mode, folders, batch, links };
    Walker::new(engine.source, start, Vec::new()).run(&mut |path, event| run.event(path, event))?;
    run.flush()?;
    if is_folder {
        run.tidy()?;
    }
    if let Some(place) = engine.place {
        engine.finish_flags(place);
    }
    Ok(())
}

impl Engine<'_> {
    /// The metadata of a directory whose content is complete.
    pub(crate) fn finish_dir(
        &self,
        place: &Target,
        relative: &[u8],
        metadata: &Metadata,
        attributes: Option<(&[Attribute], Others)>,
    ) {
        match place.dir(relative).and_then(|fd| place::apply(&fd, metadata, attributes)) {
            Ok(missed) => self.report.missed(relative, missed),
            Err(error) => self.report.error(relative, format!("metadata not set: {error}")),
        }
    }
}

impl Engine<'_> {
    /// The flags that forbid changes, when there are no more.
    fn finish_flags(&self, place: &Target) {
        for Flagged { path, flags, of } in self.report.take_flagged() {
            let set = place.open_file(&path).and_then(|fd| match fs::fstat(&fd)? {
                stat if of.is_some_and(|of| place::same_inode(&of, &stat)) => flags::write_last(&fd, flags),
                // Somebody has put something else there.
                _ => Err(Errno::STALE),
            });
            self.report.flagged(&path, flags, set);
        }
    }
}

impl Run<'_, '_> {
    pub(super) fn writes(&self) -> bool {
        self.mode == Mode::Write && !self.engine.request.dry_run
    }

    fn event(&mut self, path: &[u8], event: Event<'_>) -> Result<Step, RestoreError> {
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        match event {
            Event::Unreadable(error) if error.is_fatal() => return Err(error.into()),
            Event::Unreadable(error) => {
                self.engine.report.error(relative, format!("part of the folder is left out: {error}"));
                self.folders.last_mut().into_iter().for_each(Folder::note_partial);
            }
            Event::Leave => {
                if let Some(leaf) = self.leave()? {
                    let bytes = leaf.attributes.iter().flatten().map(Attribute::size).sum::<usize>();
                    self.batch.bytes += bytes as u64;
                    self.batch.leaves.push(leaf);
                }
            }
            Event::Entry(entry) => {
                let step = match self.entry(entry, relative) {
                    Ok(step) => step,
                    Err(why) => {
                        self.engine.report.error(relative, why);
                        Step::Over
                    }
                };
                self.flush_if_full()?;
                return Ok(step);
            }
        }
        self.flush_if_full()?;
        Ok(Step::Into)
    }

    fn flush_if_full(&mut self) -> Result<(), TransferError> {
        let Batch { jobs, links, leaves, kept, bytes } = &self.batch;
        let files = jobs.len() + links.len() + kept.len();
        if files >= BATCH_FILES || leaves.len() >= BATCH_FILES || *bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, relative: &[u8]) -> Result<Step, String> {
        let is_dir = matches!(entry.body, Body::Directory { .. } | Body::Folded(_));
        let kind = if is_dir { Kind::Directory } else { Kind::Other };
        let Some(folder) = self.folders.last_mut() else { return Ok(Step::Over) };
        if self.engine.request.delete {
            folder.note_name(&entry.name);
        }
        let path = [&self.engine.prefix[..], relative].join(&b'/');
        let choice = self.engine.request.select.choose(&path, kind, folder.choice);
        match &entry.body {
            _ if choice == Choice::Unwanted => Ok(Step::Over),
            Body::Directory { .. } | Body::Folded(_) => {
                self.enter(entry, relative, choice).map(|()| Step::Into)
            }
            Body::Symlink(_) | Body::Special(_) => self.plain(entry).map(|()| Step::Over),
            Body::File { .. } => self.file(entry).map(|()| Step::Over),
        }
    }

    /// What is at a name already.
    pub(super) fn found(&mut self, entry: &Entry) -> Result<Option<Stat>, String> {
        let look_there = self.mode == Mode::Write && !self.is_fresh();
        match self.here()? {
            Some(dir) if look_there => look(dir, &entry.name),
            _ => Ok(None),
        }
    }

    fn file(&mut self, entry: &Entry) -> Result<(), String> {
        let Body::File { size, content, link } = &entry.body else { return Ok(()) };
        let (size, link) = (*size, *link);
        let found = self.found(entry)?;
        let (overwrite, dir) = (self.engine.request.overwrite, self.here_path());
        let (name, metadata, content) = (entry.name.clone(), entry.metadata, content.clone());
        let attributes = entry.attributes();
        self.batch.bytes += attributes.iter().map(Attribute::size).sum::<usize>() as u64;
        let (flags, of_folder) = (entry.flags(), self.folders.last().map_or(0, Folder::flags));
        let has_base = found.as_ref().is_some_and(place::is_file);
        let job =
            FileJob { dir, name, metadata, attributes, flags, of_folder, size, content, link, has_base };
        let write = self.mode == Mode::Write;
        if write && link.is_some_and(|group| self.links.contains_key(&group)) {
            self.batch.links.push(job);
            return Ok(());
        }
        let judge =
            |stat: &Stat| place::judge(stat, &entry.metadata, overwrite, || place::is_file_of(stat, size));
        let mut verdict = found.as_ref().map_or(Verdict::Write, judge);
        if let (Verdict::Same, Some(stat), true) = (verdict, &found, self.writes())
            && self.put_right(entry, stat, &job.path())? == Right::Elsewhere
        {
            // The file with its other names is left to whoever has them.
            verdict = Verdict::Write;
        }
        let act = if found.is_some() { Act::Replace } else { Act::Create };
        if let (Some(group), true) = (link, write && verdict != Verdict::Skip) {
            self.links.insert(group, (Arc::clone(&job.dir), job.name.clone()));
        }
        if verdict != Verdict::Write {
            self.engine.report.skipped(&job.path());
            if self.engine.request.verify && !self.engine.request.dry_run {
                self.batch.kept.push(job);
            }
            return Ok(());
        }
        if write {
            self.engine.report.act(act, &job.path());
        }
        if write && self.engine.request.dry_run {
            self.rehearse_way(found.as_ref(), &job.dir, &job.name)?;
            self.engine.report.file(size);
        } else {
            self.batch.bytes += if job.is_large() { 0 } else { size };
            self.batch.jobs.push(job);
        }
        Ok(())
    }

    /// Writes the batch: contents, then hard links, then the directories that are complete.
    pub(super) fn flush(&mut self) -> Result<(), TransferError> {
        let Batch { jobs, links, leaves, kept, .. } = std::mem::take(&mut self.batch);
        if self.engine.request.dry_run && self.mode == Mode::Write {
            links.iter().for_each(|job| self.rehearse_link(job));
            return Ok(());
        }
        self.contents(jobs)?;
        for job in links {
            self.hard_link(job)?;
        }
        // What was left as it was has not been proven equal by its time and size.
        fetch::run(self.engine, kept, Mode::Compare)?;
        if let Some(place) = self.engine.place {
            for Leaf { relative, metadata, attributes, others, flags } in leaves {
                let attributes = attributes.as_deref().map(|wanted| (wanted, others));
                self.engine.finish_dir(place, &relative, &metadata, attributes);
                let of = place.dir(&relative).ok().and_then(|fd| fs::fstat(fd).ok());
                self.engine.report.flag_last(&relative, flags, of);
            }
        }
        Ok(())
    }

    fn contents(&mut self, jobs: Vec<FileJob>) -> Result<(), TransferError> {
        let outcome = fetch::run(self.engine, jobs, self.mode)?;
        for job in outcome.failed {
            if let Some(group) = job.link
                && self.links.get(&group).is_some_and(|(dir, name)| *dir == job.dir && *name == job.name)
            {
                self.links.remove(&group);
            }
        }
        if self.mode == Mode::Compare {
            outcome.done.iter().for_each(|job| self.engine.report.file(job.size));
        } else if self.engine.request.verify {
            fetch::run(self.engine, outcome.done, Mode::Compare)?;
        }
        Ok(())
    }

    /// Says what becomes of a folder where something else is to be.
    pub(super) fn rehearse_way(&self, found: Option<&Stat>, dir: &[u8], name: &[u8]) -> Result<(), String> {
        match self.engine.place {
            Some(place) if found.is_some_and(place::is_dir) => {
                let at = place.dir(dir).map_err(|error| error.to_string())?;
                self.engine.make_way(&at, name, &join(dir, name))
            }
            _ => Ok(()),
        }
    }

    /// Says what [`Run::hard_link`] would do.
    fn rehearse_link(&self, job: &FileJob) {
        let first = job.link.and_then(|group| self.links.get(&group));
        let look = |dir: &[u8], name: &[u8]| {
            let dir = self.engine.place.and_then(|place| place.dir(dir).ok())?;
            place::look(&dir, name).ok().flatten()
        };
        let (there, first) = (look(&job.dir, &job.name), first.and_then(|(dir, name)| look(dir, name)));
        let is_linked = there.zip(first).is_some_and(|(there, first)| place::same_inode(&there, &first));
        if is_linked || self.stays(job) {
            self.engine.report.skipped(&job.path());
        } else {
            self.linked(job);
        }
    }

    /// A further name counts as a file without bytes of its own.
    fn linked(&self, job: &FileJob) {
        self.engine.report.file(0);
        self.engine.report.act(Act::Create, &job.path());
    }

    /// A further name of a file; where it cannot be linked, it gets the content.
    fn hard_link(&mut self, job: FileJob) -> Result<(), TransferError> {
        let first = job.link.and_then(|group| self.links.get(&group).cloned());
        let linked = match (first, self.engine.place) {
            (Some((dir, name)), Some(place)) => link(self.engine, place, &dir, &name, &job),
            _ => Err(String::new()),
        };
        match linked {
            Ok(true) => self.linked(&job),
            Ok(false) => self.engine.report.skipped(&job.path()),
            Err(_) if self.stays(&job) => self.engine.report.skipped(&job.path()),
            Err(_) => {
                if let Some(group) = job.link {
                    self.links.insert(group, (Arc::clone(&job.dir), job.name.clone()));
                }
                self.contents(vec![job])?;
            }
        }
        Ok(())
    }

    /// True when what is at the job's place is to be left.
    fn stays(&self, job: &FileJob) -> bool {
        let Some(dir) = self.engine.place.and_then(|place| place.dir(&job.dir).ok()) else { return false };
        place::look(&dir, &job.name).ok().flatten().is_some_and(|stat| {
            place::judge(&stat, &job.metadata, self.engine.request.overwrite, || false) != Verdict::Write
        })
    }
}

pub(super) fn look(dir: &OwnedFd, name: &[u8]) -> Result<Option<rustix::fs::Stat>, String> {
    place::look(dir, name).map_err(|error| error.to_string())
}

/// Links `job`'s name to a file of this restore; false when what is there stays.
fn link(engine: &Engine<'_>, place: &Target, dir: &[u8], name: &[u8], job: &FileJob) -> Result<bool, String> {
    let text = |error: Errno| error.to_string();
    let from = place.dir(dir).map_err(text)?;
    let to = place.dir(&job.dir).map_err(text)?;
    let first = look(&from, name)?.ok_or_else(|| format!("{:?} is gone", join(dir, name)))?;
    if !place::is_file_of(&first, job.size) {
        return Err("the first name is another file now".to_owned());
    }
    if let Some(stat) = look(&to, &job.name)?
        && (place::same_inode(&first, &stat)
            || place::judge(&stat, &job.metadata, engine.request.overwrite, || false) != Verdict::Write)
    {
        return Ok(false);
    }
    let make = |to_name: &[u8]| linkat(&from, name, &to, to_name, AtFlags::empty());
    let make_way = |dir: &OwnedFd| engine.make_way(dir, &job.name, &job.path());
    part::put(&to, &job.name, make, |_| Ok(()), &make_way)?;
    Ok(true)
}
