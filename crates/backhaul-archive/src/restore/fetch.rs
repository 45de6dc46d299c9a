//! The contents of a batch of files: few large reads, some under way while others are written.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::vec::IntoIter;

use backhaul_object::entry::{Attribute, Content, InodeFlags, Metadata};
use backhaul_object::piece::Piece;
use backhaul_object::source::{ObjectSource, TransferError};
use backhaul_object::{Object, Reference};
use bytes::Bytes;
use rustix::fs::Stat;

use super::base::Base;
use super::near;
use super::out::Out;
use super::part;
use super::place::{self, Target};
use super::plan::{Group, Task, arrange, plan};
use super::report::Report;
use super::{Mode, RestoreRequest};
use crate::browse::is_fatal;
use crate::dump::{DumpError, Near, Part, chunk_of, dump_content, members_of, pick};

/// Files up to this size are fetched whole.
const WHOLE_MAX: u64 = 8 << 20;
/// Reads under way at a time: while one is opened, the next is on its way.
const READERS: usize = 3;
/// Threads that write files.
const WRITERS: usize = 4;
/// Tasks waiting for a writer.
const QUEUE: usize = 4;
/// Large files under way at a time, each with its own readers (`crate::dump`).
const LARGE_AT_ONCE: usize = 2;

/// What every part of a restore needs.
pub(crate) struct Engine<'a> {
    pub(crate) source: &'a dyn ObjectSource,
    /// `None` in a dry run into a folder that is not there.
    pub(crate) place: Option<&'a Target>,
    pub(crate) request: &'a RestoreRequest,
    /// The folder of the snapshot that becomes the target.
    pub(crate) prefix: Vec<u8>,
    pub(crate) report: Report,
}

impl Engine<'_> {
    fn base(&self, dir: &OwnedFd, job: &FileJob) -> Option<Base> {
        let files = [part::leftover(dir, job), place::open_file(dir, &job.name).ok()];
        let files = files.into_iter().flatten().collect();
        Some(Base { key: self.request.id_key.clone()?, files })
    }
}

/// One file to write or compare.
#[derive(Debug, Clone)]
pub(crate) struct FileJob {
    /// Its folder, relative to the target.
    pub(crate) dir: Arc<[u8]>,
    pub(crate) name: Vec<u8>,
    pub(crate) metadata: Metadata,
    pub(crate) attributes: Vec<Attribute>,
    /// Its inode flags, and those of the folder that it is in.
    pub(crate) flags: InodeFlags,
    pub(crate) of_folder: InodeFlags,
    pub(crate) size: u64,
    pub(crate) content: Content,
    pub(crate) link: Option<u64>,
    /// What was in its place when the walk came there.
    pub(crate) found: Found,
}

impl FileJob {
    pub(crate) fn path(&self) -> Vec<u8> {
        join(&self.dir, &self.name)
    }

    /// Streamed: too large to be held whole, or to be fetched in parts only.
    pub(crate) fn is_large(&self) -> bool {
        match self.content {
            Content::Flist(_) => true,
            Content::Chunks(_) => self.size > WHOLE_MAX || matches!(self.found, Found::File(_)),
            Content::Empty | Content::Inline(_) | Content::Member { .. } => false,
        }
    }
}

/// What is at a name before something is put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// What has come there by the time is not replaced: whoever looked did not judge it.
    Nothing,
    /// A file of so many bytes, which may have parts of the content.
    File(u64),
    /// Something else.
    Other,
}

impl Found {
    pub(crate) fn of(stat: Option<&Stat>) -> Self {
        match stat {
            None => Self::Nothing,
            Some(stat) if place::is_file(stat) => Self::File(stat.st_size as u64),
            Some(_) => Self::Other,
        }
    }
}

/// A path relative to the target.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

type Fetched = Result<Object, String>;

/// A task with its objects, in the order of its places.
struct Work {
    task: Task,
    objects: Vec<Fetched>,
}

/// What became of the jobs.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Those that are to be compared now, or were.
    pub(crate) done: Vec<FileJob>,
    pub(crate) failed: Vec<FileJob>,
}

struct Shared<'s, 'a> {
    engine: &'s Engine<'a>,
    place: &'s Target,
    mode: Mode,
    outcome: Mutex<Outcome>,
}

/// Writes or compares the files. Those that fail are in the report and in [`Outcome::failed`].
pub(crate) fn run(engine: &Engine<'_>, jobs: Vec<FileJob>, mode: Mode) -> Result<Outcome, TransferError> {
    let Some(place) = engine.place else { return Ok(Outcome::default()) };
    let jobs = arrange(engine.source, jobs)?;
    let (large, small): (Vec<_>, Vec<_>) = jobs.into_iter().partition(FileJob::is_large);
    let shared = Shared { engine, place, mode, outcome: Mutex::default() };
    if !small.is_empty() {
        run_small(&shared, plan(small));
    }
    let large = Mutex::new(large.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..LARGE_AT_ONCE.min(large.lock().unwrap_or_else(PoisonError::into_inner).len()) {
            scope.spawn(|| {
                loop {
                    let next = large.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(job) = next else { return };
                    if engine.report.is_over().is_none() {
                        shared.large(job);
                    }
                }
            });
        }
    });
    match engine.report.is_over() {
        Some(error) => Err(error),
        None => Ok(shared.outcome.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn run_small(shared: &Shared<'_, '_>, groups: Vec<Group>) {
    let groups = &Mutex::new(groups.into_iter());
    std::thread::scope(|scope| {
        let (work, queue) = sync_channel::<Work>(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..READERS {
            let work = work.clone();
            scope.spawn(move || fetch_all(shared, groups, &work));
        }
        for _ in 0..WRITERS {
            let queue = Arc::clone(&queue);
            scope.spawn(move || write_all(shared, &queue));
        }
    });
}

fn fetch_all(shared: &Shared<'_, '_>, groups: &Mutex<IntoIter<Group>>, work: &SyncSender<Work>) {
    let engine = shared.engine;
    while engine.report.is_over().is_none() {
        let next = groups.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(mut group) = next else { return };
        if shared.mode == Mode::Write
            && let Err(error) = near::find(engine, &mut group)
        {
            return engine.report.fatal(error);
        }
        let Group { wanted, tasks, .. } = group;
        let objects = match read_group(engine.source, &wanted) {
            Ok(objects) => objects,
            Err(error) => return engine.report.fatal(error),
        };
        let get = |at: &usize| objects.get(*at).cloned().unwrap_or_else(|| Err("not read".to_owned()));
        for task in tasks {
            let objects = match &task {
                Task::Bundle { at, .. } => vec![get(at)],
                Task::Whole { at, .. } => at.iter().flatten().map(get).collect(),
                Task::Near { .. } => Vec::new(),
            };
            if work.send(Work { task, objects }).is_err() {
                return;
            }
        }
    }
}

/// All objects of a read; after a failure one by one, so that only the bad ones are missing.
fn read_group(source: &dyn ObjectSource, wanted: &[Reference]) -> Result<Vec<Fetched>, TransferError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    match source.read_parts(wanted) {
        Ok(objects) if objects.len() == wanted.len() => return Ok(objects.into_iter().map(Ok).collect()),
        Err(error) if is_fatal(&error) => return Err(error),
        _ => {}
    }
    let mut out = Vec::with_capacity(wanted.len());
    for one in wanted {
        out.push(match source.read_parts(std::slice::from_ref(one)) {
            Ok(mut objects) => objects.pop().ok_or_else(|| TransferError::NotFound(one.id).to_string()),
            Err(error) if is_fatal(&error) => return Err(error),
            Err(error) => Err(error.to_string()),
        });
    }
    Ok(out)
}

fn write_all(shared: &Shared<'_, '_>, queue: &Mutex<Receiver<Work>>) {
    let mut folder = Folder::default();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Work { task, objects }) = next else { return };
        match task {
            Task::Whole { job, .. } => {
                let parts = parts_of(&job, objects);
                shared.file(&mut folder, job, parts);
            }
            Task::Near { job, bytes } => shared.file(&mut folder, job, Ok(vec![Part::Data(bytes)])),
            Task::Bundle { files, .. } => {
                let id = files.first().map(|(_, job)| job.content.clone());
                let members = match objects.into_iter().next() {
                    Some(Ok(object)) => members_of(&object).map_err(|why| named(id.as_ref(), &why)),
                    Some(Err(why)) => Err(why),
                    None => Err("not read".to_owned()),
                };
                for (member, job) in files {
                    let found = members.as_ref().map_err(Clone::clone).and_then(|members| {
                        pick(members, member).map_err(|why| named(Some(&job.content), &why))
                    });
                    shared.file(&mut folder, job, found.map(|bytes| vec![Part::Data(bytes)]));
                }
            }
        }
    }
}

fn named(content: Option<&Content>, why: &dyn std::fmt::Display) -> String {
    match content {
        Some(Content::Member { bundle, .. }) => format!("object {bundle}: {why}"),
        _ => why.to_string(),
    }
}

fn parts_of(job: &FileJob, objects: Vec<Fetched>) -> Result<Vec<Part>, String> {
    match &job.content {
        Content::Inline(bytes) => Ok(vec![Part::Data(Bytes::from(bytes.clone()))]),
        Content::Chunks(pieces) => {
            let mut objects = objects.into_iter();
            let part = |piece: &Piece| match *piece {
                Piece::Hole { len } => Ok(Part::Hole(len)),
                Piece::Data { id, len } => {
                    let object = objects.next().unwrap_or_else(|| Err("not read".to_owned()))?;
                    let bytes = chunk_of(&object, len).map_err(|why| format!("object {id}: {why}"))?;
                    Ok(Part::Data(bytes))
                }
            };
            pieces.iter().map(part).collect()
        }
        Content::Empty | Content::Member { .. } | Content::Flist(_) => Ok(Vec::new()),
    }
}

/// The folder a thread worked in last.
#[derive(Default)]
pub(super) struct Folder(Option<(Arc<[u8]>, OwnedFd)>);

impl Folder {
    pub(super) fn get(&mut self, place: &Target, dir: &Arc<[u8]>) -> Result<&OwnedFd, String> {
        if self.0.as_ref().is_none_or(|(open, _)| open != dir) {
            let fd = place.dir(dir).map_err(|error| format!("its folder cannot be opened: {error}"))?;
            self.0 = Some((Arc::clone(dir), fd));
        }
        self.0.as_ref().map(|(_, fd)| fd).ok_or_else(|| "its folder is not open".to_owned())
    }
}

impl Shared<'_, '_> {
    fn file(&self, folder: &mut Folder, job: FileJob, parts: Result<Vec<Part>, String>) {
        let result = parts.and_then(|parts| {
            let found = parts.iter().map(Part::len).fold(0, u64::saturating_add);
            if found != job.size {
                return Err(DumpError::Size { expected: job.size, found }.to_string());
            }
            let mut out = Out::new(self.engine, folder.get(self.place, &job.dir)?, &job, self.mode);
            let written = parts.iter().try_for_each(|part| part.put(&mut out));
            out.end(written.map_err(|error| error.to_string()))
        });
        self.settle(job, result);
    }

    fn large(&self, job: FileJob) {
        let mut folder = Folder::default();
        let result = folder.get(self.place, &job.dir).and_then(|dir| {
            let base = if self.mode == Mode::Write { self.engine.base(dir, &job) } else { None };
            let near = base.as_ref().map(|base| base as &dyn Near);
            let mut out = Out::new(self.engine, dir, &job, self.mode);
            let written = dump_content(self.engine.source, (&job.content, job.size), near, &mut out);
            if let Err(DumpError::Transfer(error)) = &written
                && is_fatal(error)
            {
                self.engine.report.fatal(error.clone());
            }
            out.end(written.map(drop).map_err(|error| error.to_string()))
        });
        self.settle(job, result);
    }

    fn settle(&self, job: FileJob, result: Result<(), String>) {
        let report = &self.engine.report;
        let outcome = || self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        match (result, self.mode) {
            (Ok(()), Mode::Write) => {
                report.file(job.size);
                if self.engine.request.verify {
                    outcome().done.push(job);
                }
            }
            (Ok(()), Mode::Compare) => {
                report.verified();
                outcome().done.push(job);
            }
            (Err(why), _) => {
                report.error(&job.path(), why);
                outcome().failed.push(job);
            }
        }
    }
}
