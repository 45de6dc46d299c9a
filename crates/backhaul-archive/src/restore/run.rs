//! What is done about what the [`scan`](super::scan) comes to: directories and what has no content at once, files in batches.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use backhaul_object::entry::{Body, Content, Entry, InodeFlags};
use backhaul_object::source::TransferError;
use rustix::fs::Stat;

use super::batch::{Batch, Order, Writer, Writing};
use super::fetch::{Engine, FileJob, Found, join};
use super::folders::Folder;
use super::links::Links;
use super::look::{self, Batches, Looked};
use super::place::{self, Verdict};
use super::same::Right;
use super::scan::{Scan, Seen};
use super::select::Choice;
use super::{Act, Extent, Mode, RestoreError};
use crate::browse::walker::Start;

pub(super) struct Run<'r, 'a> {
    pub(super) engine: &'r Engine<'a>,
    pub(super) mode: Mode,
    /// The folders that the walk is in, the target first.
    pub(super) folders: Vec<Folder>,
    /// Folders within each other that are passed by: the outermost could not be made.
    passed: usize,
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
        // One batch waits while one is written and the next is gathered.
        let (orders, queue) = sync_channel(1);
        let writer = Writer { engine, mode, links, open };
        let writing = scope.spawn(move || writer.run(&queue));
        let (unseen, seen, looking) = look::begin(scope);
        let scan = Scan::new(engine, mode, unseen);
        let scanning = scope.spawn(move || scan.run(start));
        let mut run = Run { engine, mode, folders, passed: 0, batch: Batch::default(), orders, open, links };
        let done = run.take(seen, is_folder);
        drop(run);
        // If the writer has ended, it knows why better than one that nobody listens to.
        let looked = looking.into_iter().try_for_each(std::thread::ScopedJoinHandle::join);
        match (writing.join(), scanning.join().and(looked)) {
            (Ok(written), Ok(())) => written.map_err(RestoreError::from).and(done),
            _ => Err(TransferError::Lost("restoring stopped in the middle".to_owned()).into()),
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

    fn take(&mut self, seen: Batches, is_folder: bool) -> Result<(), RestoreError> {
        for one in seen.flatten() {
            self.come_to(one)?;
            self.flush_if_full()?;
        }
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

    fn come_to(&mut self, seen: Seen) -> Result<(), RestoreError> {
        match seen {
            Seen::Unreadable(error) if error.is_fatal() => return Err(error.into()),
            Seen::Folder { .. } if self.passed > 0 => self.passed += 1,
            Seen::Leave if self.passed > 0 => self.passed -= 1,
            _ if self.passed > 0 => {}
            Seen::Unreadable(error) => {
                let why = format!("part of the folder is left out: {error}");
                self.engine.report.error(&self.here_path(), why);
                self.folders.last_mut().into_iter().for_each(Folder::note_partial);
            }
            Seen::Leave => {
                if let Some(leaf) = self.leave()? {
                    self.batch.push_leaf(leaf);
                }
            }
            Seen::Unwanted(name) => self.note_name(&name),
            Seen::Folder { entry, choice, there } => {
                let relative = join(&self.here_path(), &entry.name);
                if let Err(why) = self.folder(entry, &relative, choice, there) {
                    self.engine.report.error(&relative, why);
                    self.passed = 1;
                }
            }
            Seen::Other { entry, looked } => {
                if let Body::File { content, .. } = &entry.body {
                    self.batch.pass(content);
                    self.flush_if_full()?;
                }
                let name = entry.name.clone();
                if let Err(why) = self.other(entry, looked) {
                    self.engine.report.error(&join(&self.here_path(), &name), why);
                }
            }
        }
        Ok(())
    }

    fn flush_if_full(&mut self) -> Result<(), TransferError> {
        let is_idle = self.open.load(Ordering::SeqCst) == 0;
        let writing = if is_idle { Writing::Idle } else { Writing::Busy };
        if self.batch.is_full(writing) { self.flush() } else { Ok(()) }
    }

    /// What the snapshot has in a folder stays in it.
    fn note_name(&mut self, name: &[u8]) {
        if self.engine.request.delete {
            self.folders.last_mut().into_iter().for_each(|folder| folder.note_name(name));
        }
    }

    fn folder(
        &mut self,
        entry: Entry,
        relative: &[u8],
        choice: Choice,
        there: Option<Arc<OwnedFd>>,
    ) -> Result<(), String> {
        self.note_name(&entry.name);
        if choice == Choice::Wanted {
            self.refuse_alike(&entry.name)?;
        }
        self.enter(entry, relative, choice, there)
    }

    fn other(&mut self, entry: Entry, looked: Looked) -> Result<(), String> {
        self.note_name(&entry.name);
        self.refuse_alike(&entry.name)?;
        match &entry.body {
            Body::File { .. } => self.file(entry, looked),
            _ => self.plain(&entry, looked),
        }
    }

    /// What is at a name already.
    pub(super) fn found(&mut self, entry: &Entry, looked: Looked) -> Result<Option<Stat>, String> {
        self.settle()?;
        match looked {
            _ if self.mode != Mode::Write || self.is_fresh() => Ok(None),
            Looked::At(found) => Ok(found),
            Looked::Not | Looked::In(_) => match self.here()? {
                Some(dir) => look(dir, &entry.name),
                None => Ok(None),
            },
        }
    }

    fn file(&mut self, entry: Entry, looked: Looked) -> Result<(), String> {
        let Body::File { size, link, .. } = &entry.body else { return Ok(()) };
        let (size, link, write) = (*size, *link, self.mode == Mode::Write);
        let found = self.found(&entry, looked)?;
        let first = self.links.first(link);
        if write && self.or_named(first, &entry.name).is_some() {
            let job = self.job(entry, found.as_ref());
            self.batch.push_link(job);
            return Ok(());
        }
        let overwrite = self.engine.request.overwrite;
        let judge =
            |stat: &Stat| place::judge(stat, &entry.metadata, overwrite, || place::is_file_of(stat, size));
        let mut verdict = found.as_ref().map_or(Verdict::Write, judge);
        if let (Verdict::Same, Some(stat), true) = (verdict, &found, self.writes())
            && self.put_right(&entry, stat)? == Right::Elsewhere
        {
            // The file with its other names is left to whoever has them.
            verdict = Verdict::Write;
        }
        if let (Some(group), true) = (link, write && verdict != Verdict::Skip) {
            let noted = self.links.set(group, &self.here_path(), &entry.name);
            self.or_named(noted, &entry.name);
        }
        if verdict != Verdict::Write {
            self.engine.report.skipped(|| join(&self.here_path(), &entry.name));
            if self.engine.request.verify && !self.engine.request.dry_run {
                let job = self.job(entry, found.as_ref());
                self.batch.push_kept(job);
            }
            return Ok(());
        }
        let job = self.job(entry, found.as_ref());
        if write {
            self.engine.report.act(Act::upon(found.as_ref()), &job.path());
        }
        if write && self.engine.request.dry_run {
            self.rehearse_way(found.as_ref(), &job.dir, &job.name)?;
            self.or_named(self.links.rehearse(link), &job.name);
            self.engine.report.file(size);
        } else {
            self.batch.push(job);
        }
        Ok(())
    }

    /// What is known of a file's further names; if that failed it is named, and the file is one by itself.
    pub(super) fn or_named<T: Default>(&self, known: Result<T, String>, name: &[u8]) -> T {
        known.unwrap_or_else(|why| {
            self.engine.report.error(&join(&self.here_path(), name), why);
            T::default()
        })
    }

    /// What is to be done about a file; its folder changes by it.
    fn job(&mut self, entry: Entry, found: Option<&Stat>) -> FileJob {
        let (dir, found) = (self.here_path(), Found::of(found));
        let (attributes, flags) = (entry.attributes(), entry.inode_flags());
        let of_folder = self.folders.last().map_or(InodeFlags::default(), Folder::inode_flags);
        self.folders.last_mut().into_iter().for_each(Folder::note_change);
        let Entry { name, metadata, body, .. } = entry;
        let (size, content, link) = match body {
            Body::File { size, content, link } => (size, content, link),
            _ => (0, Content::Empty, None),
        };
        FileJob { dir, name, metadata, attributes, flags, of_folder, size, content, link, found }
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
