//! The walk of a restore: directories and what has no content at once, files in batches.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use backhaul_object::entry::{Attribute, Body, Content, Entry};
use backhaul_object::source::TransferError;
use rustix::fs::Stat;

use super::batch::{Batch, Links, Order, Writer, Writing};
use super::fetch::{Engine, FileJob, Found, join};
use super::folders::Folder;
use super::place::{self, Verdict};
use super::same::Right;
use super::select::Choice;
use super::{Act, Extent, Mode, RestoreError};
use crate::browse::walker::{Event, Start, Step, Walker};
use crate::patterns::Kind;

pub(super) struct Run<'r, 'a> {
    pub(super) engine: &'r Engine<'a>,
    pub(super) mode: Mode,
    /// The folders that the walk is in, the target first.
    pub(super) folders: Vec<Folder>,
    batch: Batch,
    /// Takes batches.
    orders: SyncSender<Order>,
    /// Those that are not done yet.
    open: &'r AtomicUsize,
    pub(super) links: &'r Links,
}

/// Restores or compares everything from `start`.
pub(crate) fn run(engine: &Engine<'_>, mode: Mode, start: Start, extent: Extent) -> Result<(), RestoreError> {
    let is_folder = matches!(extent, Extent::Folder(_));
    let folders = vec![Folder::target(extent, engine.request.select.at_start())];
    let (links, open) = (&Links::default(), &AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // One batch waits while one is written and the walk gathers the next.
        let (orders, queue) = sync_channel(1);
        let writer = Writer { engine, mode, links, open };
        let writing = scope.spawn(move || writer.run(&queue));
        let mut run = Run { engine, mode, folders, batch: Batch::default(), orders, open, links };
        let walked = run.walk(start, is_folder);
        drop(run);
        // If it has ended, it knows why better than a walk that nobody listens to.
        match writing.join() {
            Ok(written) => written.map_err(RestoreError::from).and(walked),
            Err(_) => Err(TransferError::Lost("writing stopped in the middle".to_owned()).into()),
        }
    })?;
    if let Some(place) = engine.place {
        engine.finish_flags(place);
    }
    Ok(())
}

impl Run<'_, '_> {
    pub(super) fn writes(&self) -> bool {
        self.mode == Mode::Write && !self.engine.request.dry_run
    }

    fn walk(&mut self, start: Start, is_folder: bool) -> Result<(), RestoreError> {
        Walker::new(self.engine.source, start, Vec::new()).run(&mut |path, event| self.event(path, event))?;
        self.flush()?;
        if is_folder { self.tidy() } else { Ok(()) }
    }

    fn order(&self, order: Order) -> Result<(), TransferError> {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.orders.send(order).map_err(|_| TransferError::Lost("writing has ended".to_owned()))
    }

    /// Has the batch written.
    fn flush(&mut self) -> Result<(), TransferError> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() { Ok(()) } else { self.order(Order::Write(Box::new(batch))) }
    }

    /// Waits until all that was found is written.
    pub(super) fn drain(&mut self) -> Result<(), TransferError> {
        self.flush()?;
        let (tell, told) = sync_channel(0);
        self.order(Order::Tell(tell))?;
        told.recv().map_err(|_| TransferError::Lost("writing has ended".to_owned()))
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
                    self.batch.held += bytes as u64;
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
        let is_idle = self.open.load(Ordering::SeqCst) == 0;
        let writing = if is_idle { Writing::Idle } else { Writing::Busy };
        if self.batch.is_full(writing) { self.flush() } else { Ok(()) }
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
        if choice == Choice::Wanted {
            self.refuse_alike(&entry.name)?;
        }
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
        self.batch.held += attributes.iter().map(Attribute::size).sum::<usize>() as u64;
        if let Content::Inline(bytes) = &content {
            self.batch.held += bytes.len() as u64;
        }
        let (flags, of_folder) = (entry.flags(), self.folders.last().map_or(0, Folder::flags));
        let there = Found::of(found.as_ref());
        let job =
            FileJob { dir, name, metadata, attributes, flags, of_folder, size, content, link, found: there };
        let write = self.mode == Mode::Write;
        if write && self.links.first(link).is_some() {
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
            self.links.set(group, (Arc::clone(&job.dir), job.name.clone()));
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
            self.links.rehearse(link);
            self.engine.report.file(size);
        } else {
            self.batch.jobs.push(job);
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
}

pub(super) fn look(dir: &OwnedFd, name: &[u8]) -> Result<Option<rustix::fs::Stat>, String> {
    place::look(dir, name).map_err(|error| error.to_string())
}
