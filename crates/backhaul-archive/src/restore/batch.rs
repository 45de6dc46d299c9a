//! What the walk has found, done behind it while it goes on: contents, then hard links, then the folders that are complete.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use backhaul_object::ObjectId;
use backhaul_object::entry::{Attribute, Content, Entry, InodeFlags, Metadata};
use backhaul_object::header::MEMBERS_MAX;
use backhaul_object::source::TransferError;
use rustix::fs::{self, AtFlags, linkat};
use rustix::io::Errno;

use super::fetch::{self, Engine, FileJob, Found, join};
use super::links::Links;
use super::part;
use super::place::{self, Target, Verdict};
use super::report::Flagged;
use super::run::look;
use super::{Act, Mode};
use crate::attributes::Others;
use crate::inode_flags::{self, Unflagged};

/// A batch ends at this many files and the rest of the last one's bundle, or as many finished directories: their records are
/// what it costs in memory.
const FILES_MAX: usize = 16_384;
/// A writer that has nothing to do gets a batch of this many already.
const FILES_MIN: usize = 64;
/// A batch ends at this many bytes of what its records hold themselves.
const HELD_MAX: u64 = 16 << 20;

/// Files and what follows once they are written.
#[derive(Default)]
pub(super) struct Batch {
    jobs: Vec<FileJob>,
    links: Vec<FileJob>,
    leaves: Vec<Leaf>,
    /// Left as they were, and to be compared.
    kept: Vec<FileJob>,
    /// Bytes of attributes and of contents in entries.
    held: u64,
    /// The bundle that the last of the files is in, until one of another comes, and how many are of it.
    goes_on: Option<(ObjectId, usize)>,
}

impl Batch {
    /// A file is come to, whether anything is done about it or not. Files are bundled in the order of the tree, so a batch
    /// that ends where the next bundle begins leaves none to be read again.
    pub(super) fn pass(&mut self, content: &Content) {
        if let Content::Member { bundle, .. } = content
            && self.goes_on.is_some_and(|(last, _)| last != *bundle)
        {
            self.goes_on = None;
        }
    }

    pub(super) fn push(&mut self, job: FileJob) {
        if let Content::Member { bundle, .. } = job.content {
            let before = self.goes_on.filter(|(last, _)| *last == bundle).map_or(0, |(_, count)| count);
            self.goes_on = Some((bundle, before + 1));
        }
        self.hold(&job);
        self.jobs.push(job);
    }

    pub(super) fn push_link(&mut self, job: FileJob) {
        self.hold(&job);
        self.links.push(job);
    }

    pub(super) fn push_kept(&mut self, job: FileJob) {
        self.hold(&job);
        self.kept.push(job);
    }

    pub(super) fn push_leaf(&mut self, leaf: Leaf) {
        self.held += leaf.attributes.iter().flatten().map(Attribute::size).sum::<usize>() as u64;
        self.leaves.push(leaf);
    }

    fn hold(&mut self, job: &FileJob) {
        self.held += job.attributes.iter().map(Attribute::size).sum::<usize>() as u64;
        if let Content::Inline(bytes) = &job.content {
            self.held += bytes.len() as u64;
        }
    }

    pub(super) fn is_full(&self, writer: Writing) -> bool {
        let files = self.jobs.len() + self.links.len() + self.kept.len();
        let max = if writer == Writing::Idle { FILES_MIN } else { FILES_MAX };
        let has = files.max(self.leaves.len());
        // No bundle has more, whatever a snapshot says.
        let goes_on = self.goes_on.is_some_and(|(_, count)| count < MEMBERS_MAX);
        has >= max && !goes_on || self.held >= HELD_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.links.is_empty() && self.leaves.is_empty() && self.kept.is_empty()
    }
}

/// A directory whose content is complete.
pub(super) struct Leaf {
    pub(super) relative: Arc<[u8]>,
    pub(super) metadata: Metadata,
    /// None: they stay as they are.
    pub(super) attributes: Option<Vec<Attribute>>,
    pub(super) others: Others,
    pub(super) flags: InodeFlags,
}

/// What the writer does while the walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    Idle,
    Busy,
}

/// What the walk tells its writer.
pub(super) enum Order {
    /// Do this,
    Write(Box<Batch>),
    /// and say when all before this is done.
    Tell(SyncSender<()>),
}

/// Does what the walk has found, in its order.
pub(super) struct Writer<'w, 'a> {
    pub(super) engine: &'w Engine<'a>,
    pub(super) mode: Mode,
    pub(super) links: &'w Links,
    /// Orders that are not done yet.
    pub(super) open: &'w AtomicUsize,
}

impl Writer<'_, '_> {
    /// Until the walk has ended, or the session.
    pub(super) fn run(&self, orders: &Receiver<Order>) -> Result<(), TransferError> {
        for order in orders {
            match order {
                Order::Write(batch) => self.write(*batch)?,
                // Who asked may have given up.
                Order::Tell(done) => drop(done.send(())),
            }
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn write(&self, batch: Batch) -> Result<(), TransferError> {
        let Batch { jobs, links, leaves, kept, .. } = batch;
        if self.engine.request.dry_run && self.mode == Mode::Write {
            for job in links {
                if let Err(why) = self.rehearse_link(&job) {
                    self.engine.report.error(&job.path(), why);
                }
            }
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
                if inode_flags::last_of(flags) != 0 {
                    let of = place.dir(&relative).ok().and_then(|fd| fs::fstat(fd).ok());
                    self.engine.report.flag_last(&relative, flags, of);
                }
            }
        }
        Ok(())
    }

    fn contents(&self, jobs: Vec<FileJob>) -> Result<(), TransferError> {
        let outcome = fetch::run(self.engine, jobs, self.mode)?;
        for job in outcome.failed {
            if let Some(Err(why)) = job.link.map(|group| self.links.forget(group, &job.dir, &job.name)) {
                self.engine.report.error(&job.path(), why);
            }
        }
        if self.mode == Mode::Compare {
            outcome.done.iter().for_each(|job| self.engine.report.file(job.size));
        } else if self.engine.request.verify {
            fetch::run(self.engine, outcome.done, Mode::Compare)?;
        }
        Ok(())
    }

    /// Says what [`Writer::hard_link`] would do.
    fn rehearse_link(&self, job: &FileJob) -> Result<(), String> {
        let first = self.links.first(job.link)?;
        let look = |dir: &[u8], name: &[u8]| {
            let dir = self.engine.place.and_then(|place| place.dir(dir).ok())?;
            place::look(&dir, name).ok().flatten()
        };
        let (there, first) = (look(&job.dir, &job.name), first.and_then(|(dir, name)| look(&dir, &name)));
        let is_new = job.link.map_or(Ok(false), |group| self.links.would_be_rewritten(group))?;
        let is_linked =
            !is_new && there.zip(first).is_some_and(|(there, first)| place::same_inode(&there, &first));
        if is_linked || self.stays(job) {
            self.engine.report.skipped(|| job.path());
        } else {
            self.linked(job, Act::upon(there.as_ref()));
        }
        Ok(())
    }

    /// A further name counts as a file without bytes of its own.
    fn linked(&self, job: &FileJob, act: Act) {
        self.engine.report.file(0);
        self.engine.report.act(act, &job.path());
    }

    /// A further name of a file; where it cannot be linked, it gets the content.
    fn hard_link(&self, job: FileJob) -> Result<(), TransferError> {
        let first = self.links.first(job.link);
        let linked = match (first, self.engine.place) {
            (Ok(Some((dir, name))), Some(place)) => link(self.engine, place, &dir, &name, &job).map_err(Some),
            (Err(why), _) => Err(Some(why)),
            _ => Err(None),
        };
        match linked {
            Ok(Some(act)) => self.linked(&job, act),
            Ok(None) => self.engine.report.skipped(|| job.path()),
            Err(_) if self.stays(&job) => self.engine.report.skipped(|| job.path()),
            Err(why) => {
                if let Some(why) = why {
                    self.engine.report.unlinked(&job.path(), &why);
                }
                if let Some(Err(why)) = job.link.map(|group| self.links.set(group, &job.dir, &job.name)) {
                    self.engine.report.error(&job.path(), why);
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

    /// Before anything is put into the target.
    pub(super) fn begin_top(&self, place: &Target, entry: &Entry) {
        if let Ok(dir) = place.dir(b"") {
            place::unlock(&dir);
            self.report.unflagged(b"", inode_flags::write(&dir, entry.inode_flags(), InodeFlags::default()));
        }
    }

    /// When all is in the target.
    pub(super) fn finish_top(&self, place: &Target, entry: &Entry) {
        let last = inode_flags::last_of(entry.inode_flags());
        if last != 0 {
            let set = place.dir(b"").and_then(|dir| inode_flags::write_last(&dir, last));
            self.report.unflagged(b"", set.map_err(|why| Unflagged::flags(last, why)).err());
        }
    }

    /// The flags that forbid changes, when there are no more.
    pub(super) fn finish_flags(&self, place: &Target) {
        for Flagged { path, flags, of } in self.report.take_flagged() {
            let set = place.open_file(&path).and_then(|fd| match fs::fstat(&fd)? {
                stat if of.is_some_and(|of| place::same_inode(&of, &stat)) => {
                    inode_flags::write_last(&fd, flags)
                }
                // Somebody has put something else there.
                _ => Err(Errno::STALE),
            });
            self.report.unflagged(&path, set.map_err(|why| Unflagged::flags(flags, why)).err());
        }
    }
}

/// Links `job`'s name to a file of this restore; none when what is there stays.
fn link(
    engine: &Engine<'_>,
    place: &Target,
    dir: &[u8],
    name: &[u8],
    job: &FileJob,
) -> Result<Option<Act>, String> {
    let text = |error: Errno| error.to_string();
    let from = place.dir(dir).map_err(text)?;
    let to = place.dir(&job.dir).map_err(text)?;
    let first = look(&from, name)?.ok_or_else(|| format!("{:?} is gone", join(dir, name)))?;
    if !place::is_file_of(&first, job.size) {
        return Err("the first name is another file now".to_owned());
    }
    let there = look(&to, &job.name)?;
    if let Some(stat) = there
        && (place::same_inode(&first, &stat)
            || place::judge(&stat, &job.metadata, engine.request.overwrite, || false) != Verdict::Write)
    {
        return Ok(None);
    }
    let link = |to_name: &[u8]| linkat(&from, name, &to, to_name, AtFlags::empty());
    let make = |to_name: &[u8]| match link(to_name) {
        Err(Errno::XDEV) => {
            let file = place::open_file(&from, name).map_err(|_| Errno::XDEV)?;
            inode_flags::as_of_folder((&file, &to), || link(to_name))
        }
        done => done,
    };
    let make_way = |dir: &OwnedFd| engine.make_way(dir, &job.name, &job.path());
    part::put(&to, (&job.name, Found::of(there.as_ref())), make, |_| Ok(()), &make_way)?;
    Ok(Some(Act::upon(there.as_ref())))
}
