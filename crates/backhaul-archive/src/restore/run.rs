//! The walk of a restore: directories and what has no content at once, files in batches.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use backhaul_object::entry::{Attribute, Body, Entry, Metadata};
use backhaul_object::source::TransferError;
use rustix::fs::{AtFlags, linkat};
use rustix::io::Errno;

use super::fetch::{self, Engine, FileJob, join};
use super::place::{self, Target, Verdict};
use super::{Mode, Overwrite, RestoreError, RestoreRequest};
use crate::attributes::Others;
use crate::browse::walker::{Event, Start, Step, Walker};

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
struct Leaf {
    relative: Arc<[u8]>,
    metadata: Metadata,
    /// None: they stay as they are.
    attributes: Option<Vec<Attribute>>,
    others: Others,
}

/// A directory that the walk is in.
pub(super) struct Folder {
    pub(super) relative: Arc<[u8]>,
    /// Made by this restore: nothing is in it that was there before.
    fresh: bool,
    /// It only leads to what was saved.
    way: bool,
    attributes: Option<Vec<Attribute>>,
    fd: Option<OwnedFd>,
}

pub(super) struct Run<'r, 'a> {
    pub(super) engine: &'r Engine<'a>,
    pub(super) request: &'r RestoreRequest,
    pub(super) mode: Mode,
    /// The open folders; only the last has its descriptor open.
    pub(super) folders: Vec<Folder>,
    batch: Batch,
    /// Where the first file of each link group is.
    pub(super) links: HashMap<u64, (Arc<[u8]>, Vec<u8>)>,
}

/// Restores or compares everything from `start`.
pub(crate) fn run(
    engine: &Engine<'_>,
    request: &RestoreRequest,
    mode: Mode,
    start: Start,
) -> Result<(), RestoreError> {
    let top = Folder { relative: Arc::from(&b""[..]), fresh: false, way: false, attributes: None, fd: None };
    let (batch, links) = (Batch::default(), HashMap::new());
    let mut run = Run { engine, request, mode, folders: vec![top], batch, links };
    Walker::new(engine.source, start, Vec::new()).run(&mut |path, event| run.event(path, event))?;
    run.flush()?;
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

impl Run<'_, '_> {
    pub(super) fn writes(&self) -> bool {
        self.mode == Mode::Write && !self.request.dry_run
    }

    fn event(&mut self, path: &[u8], event: Event<'_>) -> Result<Step, RestoreError> {
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        match event {
            Event::Unreadable(error) if error.is_fatal() => return Err(error.into()),
            Event::Unreadable(error) => {
                self.engine.report.error(relative, format!("part of the folder is left out: {error}"));
            }
            Event::Leave(metadata) => {
                if let Some(folder) = self.folders.pop()
                    && self.writes()
                    && (folder.fresh || self.changes_folders())
                {
                    let metadata = if folder.way { self.with_own_time(&folder, metadata) } else { metadata };
                    let Folder { relative, attributes, fresh, .. } = folder;
                    let others = if fresh { Others::Go } else { Others::Stay };
                    let bytes = attributes.iter().flatten().map(Attribute::size).sum::<usize>();
                    self.batch.bytes += bytes as u64;
                    self.batch.leaves.push(Leaf { relative, metadata, attributes, others });
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

    /// Whether folders that were there before get the snapshot's mode and time.
    fn changes_folders(&self) -> bool {
        matches!(self.engine.overwrite, Overwrite::Always | Overwrite::IfChanged)
    }

    /// A folder on the way was not saved: it keeps the time it has, and its owner unless root restores.
    fn with_own_time(&self, folder: &Folder, metadata: Metadata) -> Metadata {
        let fd = self.engine.place.and_then(|place| place.dir(&folder.relative).ok());
        match fd.and_then(|fd| rustix::fs::fstat(fd).ok()) {
            Some(stat) => {
                let root = rustix::process::geteuid().is_root();
                let (uid, gid) = if root { (metadata.uid, metadata.gid) } else { (stat.st_uid, stat.st_gid) };
                let (mtime_s, mtime_ns) = (stat.st_mtime, stat.st_mtime_nsec as u32);
                Metadata { uid, gid, mtime_s, mtime_ns, ..metadata }
            }
            None => metadata,
        }
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
        match &entry.body {
            Body::Directory { .. } | Body::Folded(_) => self.directory(entry, relative),
            Body::Symlink(_) | Body::Special(_) => self.plain(entry).map(|()| Step::Over),
            Body::File { .. } => self.file(entry).map(|()| Step::Over),
        }
    }

    /// The innermost folder, open; `None` when it is not there (in a dry run).
    pub(super) fn here(&mut self) -> Result<Option<&OwnedFd>, String> {
        let dry = self.request.dry_run && self.mode == Mode::Write;
        let (Some(place), Some(folder)) = (self.engine.place, self.folders.last_mut()) else {
            return if dry { Ok(None) } else { Err("the target folder is not there".to_owned()) };
        };
        if folder.fd.is_none() {
            match place.dir(&folder.relative) {
                Ok(fd) => folder.fd = Some(fd),
                Err(_) if dry => return Ok(None),
                Err(error) => return Err(format!("its folder cannot be opened: {error}")),
            }
        }
        Ok(folder.fd.as_ref())
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.folders.last().is_some_and(|folder| folder.fresh)
    }

    fn directory(&mut self, entry: &Entry, relative: &[u8]) -> Result<Step, String> {
        let (writes, overwrite, metadata) = (self.writes(), self.engine.overwrite, entry.metadata);
        let compare = self.mode == Mode::Compare;
        let mut fresh = false;
        if let Some(dir) = self.here()? {
            if writes {
                fresh = place::make_dir(dir, &entry.name, |stat| {
                    place::judge(stat, &metadata, overwrite, || false) == Verdict::Write
                })?;
            } else if compare && !look(dir, &entry.name)?.is_some_and(|stat| place::is_dir(&stat)) {
                return Err("differs from the snapshot: not a folder".to_owned());
            }
        }
        self.engine.report.dir();
        // Descriptors are kept for the innermost folder only: depth is not limited by their number.
        if let Some(outer) = self.folders.last_mut() {
            outer.fd = None;
        }
        let (relative, way, attributes) = (Arc::from(relative), entry.is_way(), Some(entry.attributes()));
        // It was not saved itself: what it has stays.
        let attributes = attributes.filter(|_| !way);
        self.folders.push(Folder { relative, fresh, way, attributes, fd: None });
        if writes && !fresh && self.changes_folders() {
            match self.here() {
                Ok(Some(dir)) => place::unlock(dir),
                Ok(None) => {}
                Err(why) => {
                    self.folders.pop();
                    return Err(why);
                }
            }
        }
        Ok(Step::Into)
    }

    fn file(&mut self, entry: &Entry) -> Result<(), String> {
        let Body::File { size, content, link } = &entry.body else { return Ok(()) };
        let (size, link) = (*size, *link);
        let (fresh, overwrite) = (self.is_fresh(), self.engine.overwrite);
        let dir = self.folders.last().map(|folder| Arc::clone(&folder.relative)).unwrap_or_default();
        let (name, metadata, content) = (entry.name.clone(), entry.metadata, content.clone());
        let attributes = entry.attributes();
        self.batch.bytes += attributes.iter().map(Attribute::size).sum::<usize>() as u64;
        let job = FileJob { dir, name, metadata, attributes, size, content, link };
        let write = self.mode == Mode::Write;
        if write && link.is_some_and(|group| self.links.contains_key(&group)) {
            self.batch.links.push(job);
            return Ok(());
        }
        let here = self.here()?;
        let mut verdict = Verdict::Write;
        if let (true, false, Some(dir)) = (write, fresh, here)
            && let Some(stat) = look(dir, &entry.name)?
        {
            verdict = place::judge(&stat, &entry.metadata, overwrite, || place::is_file_of(&stat, size));
        }
        if let (Some(group), true) = (link, write && verdict != Verdict::Skip) {
            self.links.insert(group, (Arc::clone(&job.dir), job.name.clone()));
        }
        if verdict != Verdict::Write {
            self.engine.report.skipped();
            if self.request.verify && !self.request.dry_run {
                self.batch.kept.push(job);
            }
        } else if write && self.request.dry_run {
            self.engine.report.file(size);
        } else {
            self.batch.bytes += if job.is_large() { 0 } else { size };
            self.batch.jobs.push(job);
        }
        Ok(())
    }

    /// Writes the batch: contents, then hard links, then the directories that are complete.
    fn flush(&mut self) -> Result<(), TransferError> {
        let Batch { jobs, links, leaves, kept, .. } = std::mem::take(&mut self.batch);
        if self.request.dry_run && self.mode == Mode::Write {
            // Each further link counts as a file without bytes of its own.
            links.iter().for_each(|_| self.engine.report.file(0));
            return Ok(());
        }
        self.contents(jobs)?;
        for job in links {
            self.hard_link(job)?;
        }
        // What was left as it was has not been proven equal by its time and size.
        fetch::run(self.engine, kept, Mode::Compare)?;
        if let Some(place) = self.engine.place {
            for Leaf { relative, metadata, attributes, others } in leaves {
                let attributes = attributes.as_deref().map(|wanted| (wanted, others));
                self.engine.finish_dir(place, &relative, &metadata, attributes);
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
        } else if self.request.verify {
            fetch::run(self.engine, outcome.done, Mode::Compare)?;
        }
        Ok(())
    }

    /// A further name of a file; where it cannot be linked, it gets the content.
    fn hard_link(&mut self, job: FileJob) -> Result<(), TransferError> {
        let first = job.link.and_then(|group| self.links.get(&group).cloned());
        let linked = match (first, self.engine.place) {
            (Some((dir, name)), Some(place)) => link(place, &dir, &name, &job, self.engine.overwrite),
            _ => Err(String::new()),
        };
        match linked {
            Ok(true) => self.engine.report.file(0),
            Ok(false) => self.engine.report.skipped(),
            Err(_) if self.stays(&job) => self.engine.report.skipped(),
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
            place::judge(&stat, &job.metadata, self.engine.overwrite, || false) != Verdict::Write
        })
    }
}

pub(super) fn look(dir: &OwnedFd, name: &[u8]) -> Result<Option<rustix::fs::Stat>, String> {
    place::look(dir, name).map_err(|error| error.to_string())
}

/// Links `job`'s name to a file of this restore; false when what is there stays.
fn link(place: &Target, dir: &[u8], name: &[u8], job: &FileJob, how: Overwrite) -> Result<bool, String> {
    let text = |error: Errno| error.to_string();
    let from = place.dir(dir).map_err(text)?;
    let to = place.dir(&job.dir).map_err(text)?;
    let first = look(&from, name)?.ok_or_else(|| format!("{:?} is gone", join(dir, name)))?;
    if !place::is_file_of(&first, job.size) {
        return Err("the first name is another file now".to_owned());
    }
    if let Some(stat) = look(&to, &job.name)? {
        if place::same_inode(&first, &stat)
            || place::judge(&stat, &job.metadata, how, || false) != Verdict::Write
        {
            return Ok(false);
        }
        place::clear(&to, &job.name)?;
    }
    linkat(&from, name, &to, &job.name[..], AtFlags::empty()).map_err(text)?;
    Ok(true)
}
