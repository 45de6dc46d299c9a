//! Lists everything to save in path order, relative to directory descriptors, never through links.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use backhaul_object::entry::{Attribute, Body, Device, EXTENSION_WAY, Entry, Metadata, Special};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

use super::assemble::directory_entry;
use super::read::{Job, PARTS_MAX, Part};
use super::state::{Fingerprint, Record, Records};
use super::{BackupError, BackupRequest, Figures, VaultParameters, count, to_path};
use crate::attributes::{self, Handle};

/// One step of the walk.
pub(super) enum Step {
    /// A directory begins.
    Enter(Entry),
    /// The innermost directory ends.
    Leave,
    /// A file as it was in the last run.
    Known { entry: Entry, record: Box<Record> },
    /// A file that is being read.
    Read { name: Vec<u8>, path: Vec<u8>, changed: bool, link: Option<u64>, size: u64, parts: Receiver<Part> },
    /// Something without content.
    Plain(Entry),
    /// Something of a kind that is not kept.
    NotKept(&'static str),
    /// Something that could not be read.
    Unreadable { path: Vec<u8>, why: String },
}

impl Step {
    /// Adds what the step alone tells.
    pub(super) fn count(&self, figures: &mut Figures) {
        match self {
            Self::Known { record, .. } => {
                figures.files_unmodified += 1;
                figures.bytes_scanned += record.fingerprint.size;
            }
            Self::Read { changed, size, .. } => {
                *(if *changed { &mut figures.files_changed } else { &mut figures.files_new }) += 1;
                figures.bytes_scanned += size;
            }
            Self::NotKept(kind) => not_kept(figures, kind),
            Self::Unreadable { path, why } => figures.errors.push((to_path(path), why.clone())),
            Self::Enter(_) | Self::Leave | Self::Plain(_) => {}
        }
    }
}

pub(super) fn not_kept(figures: &mut Figures, kind: &str) {
    match figures.not_kept.iter_mut().find(|(known, _)| known == kind) {
        Some((_, n)) => *n += 1,
        None => figures.not_kept.push((kind.to_owned(), 1)),
    }
}

/// The paths to save as a tree of names; a leaf is saved with all below it.
#[derive(Default)]
pub(super) struct Roots {
    children: BTreeMap<Vec<u8>, Roots>,
    whole: bool,
}

/// Checks the paths and arranges them; a path inside another adds nothing. One of several may be missing.
pub(super) fn roots(request: &BackupRequest<'_>) -> Result<Roots, BackupError> {
    let mut roots = Roots::default();
    let (mut found, mut missing) = (false, None);
    for path in &request.paths {
        let bad = |why: &str| BackupError::Path { path: path.clone(), why: why.to_owned() };
        if request.skip.iter().any(|skip| path.starts_with(skip)) {
            return Err(bad("it is inside Backhaul's own home, which is never saved"));
        }
        match std::fs::symlink_metadata(path) {
            Ok(_) => found = true,
            // The walk names it; the others are saved.
            Err(error) => missing = Some(bad(&error.to_string())),
        }
        let mut at = &mut roots;
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => {
                    at = at.children.entry(name.as_bytes().to_vec()).or_default();
                }
                _ => return Err(bad("it must be an absolute path without . and ..")),
            }
        }
        at.whole = true;
    }
    match missing {
        Some(error) if !found => Err(error),
        _ => Ok(roots),
    }
}

/// Deepest folder that is entered: each level holds a descriptor and some of the walk's [`STACK`].
const DEPTH_MAX: usize = 4_000;
/// Stack of the walking thread in bytes, reserved and not used: 16 KiB a level.
pub(super) const STACK: usize = 64 << 20;

/// The consumer is gone: the run is over.
struct Over;

pub(super) struct Walk<'a> {
    request: &'a BackupRequest<'a>,
    parameters: &'a VaultParameters,
    records: Records,
    steps: SyncSender<Step>,
    jobs: SyncSender<Job>,
    path: Vec<u8>,
    links: HashMap<(u64, u64), u64>,
    depth: usize,
    skip: Vec<PathBuf>,
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl<'a> Walk<'a> {
    pub(super) fn new(
        request: &'a BackupRequest<'a>,
        parameters: &'a VaultParameters,
        records: Records,
        steps: SyncSender<Step>,
        jobs: SyncSender<Job>,
    ) -> Self {
        let skip = request.skip.clone();
        let (path, links) = (Vec::new(), HashMap::new());
        Self { request, parameters, records, steps, jobs, path, links, depth: 0, skip }
    }

    pub(super) fn run(mut self, roots: &Roots) {
        // A failure means that the assembler has ended, and it knows why.
        let _ = self.root(roots);
    }

    fn root(&mut self, roots: &Roots) -> Result<(), Over> {
        match rustix::fs::openat(CWD, "/", DIRECTORY, Mode::empty()) {
            Ok(fd) if roots.whole => self.directory(&Arc::new(fd), None),
            Ok(fd) => self.between(&Arc::new(fd), roots),
            Err(error) => self.unreadable(error),
        }
    }

    /// A directory above the paths to save: only the way to them is kept.
    fn between(&mut self, dir: &Arc<OwnedFd>, roots: &Roots) -> Result<(), Over> {
        for (name, below) in &roots.children {
            let Ok(c_name) = CString::new(name.clone()) else { continue };
            let length = self.enter(name);
            let done = match rustix::fs::statat(&**dir, &c_name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(error) => self.unreadable(error),
                Ok(stat) if below.whole => self.entry(dir, &c_name, &stat, None),
                Ok(stat) => match rustix::fs::openat(
                    &**dir,
                    &c_name,
                    OFlags::DIRECTORY | OFlags::CLOEXEC,
                    Mode::empty(),
                ) {
                    Err(error) => self.unreadable(error),
                    // A link on the way is followed, and kept as the directory it leads to.
                    Ok(fd) => {
                        let stat = rustix::fs::fstat(&fd).unwrap_or(stat);
                        // Its time is other people's: with it no two snapshots of one tree would be equal.
                        let metadata = Metadata { mtime_s: 0, mtime_ns: 0, ..metadata(&stat) };
                        // Only the way to something below is kept.
                        let extensions = vec![(EXTENSION_WAY, Vec::new())];
                        let way = Entry { extensions, ..directory_entry(name.clone(), metadata) };
                        self.send(Step::Enter(way))?;
                        self.between(&Arc::new(fd), below)?;
                        self.send(Step::Leave)
                    }
                },
            };
            self.path.truncate(length);
            done?;
        }
        Ok(())
    }

    /// Everything in an open directory; `device` is set when the walk must not leave it.
    fn directory(&mut self, dir: &Arc<OwnedFd>, device: Option<u64>) -> Result<(), Over> {
        let names = match list(dir) {
            Ok(names) => names,
            Err(error) => return self.unreadable(error),
        };
        for name in names {
            let length = self.enter(name.as_bytes());
            let done = match rustix::fs::statat(&**dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                _ if self.is_excluded() => Ok(()),
                // It vanished between the two looks: as if it had never been there.
                Err(rustix::io::Errno::NOENT) => Ok(()),
                Err(error) => self.unreadable(error),
                Ok(stat) => self.entry(dir, &name, &stat, device),
            };
            self.path.truncate(length);
            done?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: &Arc<OwnedFd>,
        name: &CString,
        stat: &Stat,
        device: Option<u64>,
    ) -> Result<(), Over> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.enter_directory(dir, name, stat, device),
            FileType::RegularFile => self.file(dir, name, stat),
            FileType::Symlink => self.symlink(dir, name, stat),
            FileType::Fifo => self.plain(dir, name, stat, Body::Special(Special::Fifo)),
            FileType::Socket => self.plain(dir, name, stat, Body::Special(Special::Socket)),
            FileType::CharacterDevice => {
                self.plain(dir, name, stat, Body::Special(Special::Character(device_of(stat))))
            }
            FileType::BlockDevice => {
                self.plain(dir, name, stat, Body::Special(Special::Block(device_of(stat))))
            }
            FileType::Unknown => self.send(Step::NotKept("unknown kind")),
        }
    }

    fn enter_directory(
        &mut self,
        dir: &Arc<OwnedFd>,
        name: &CString,
        stat: &Stat,
        device: Option<u64>,
    ) -> Result<(), Over> {
        let path = to_path(&self.path);
        if self.skip.contains(&path) {
            return Ok(());
        }
        if self.depth >= DEPTH_MAX {
            count(&self.request.progress.errors, 1);
            let why = format!("more than {DEPTH_MAX} folders within each other: what is in it is not saved");
            return self.send(Step::Unreadable { path: self.path.clone(), why });
        }
        count(&self.request.progress.dirs, 1);
        let device = device.or(self.request.one_file_system.then_some(stat.st_dev));
        let enter = |attributes: Vec<Attribute>| {
            let entry = directory_entry(name.to_bytes().to_vec(), metadata(stat));
            Step::Enter(entry.with_attributes(&attributes))
        };
        // A mount point is kept as an empty directory when the walk must stay on its file system.
        if device.is_some_and(|device| device != stat.st_dev) {
            let attributes = self.named_attributes(dir, name)?;
            self.send(enter(attributes))?;
            return self.send(Step::Leave);
        }
        match rustix::fs::openat(&**dir, name, DIRECTORY, Mode::empty()) {
            Ok(fd) => {
                let attributes = self.attributes(&Handle::open(&fd))?;
                self.send(enter(attributes))?;
                self.depth += 1;
                self.directory(&Arc::new(fd), device)?;
                self.depth -= 1;
            }
            Err(error) => {
                self.send(enter(Vec::new()))?;
                self.unreadable(error)?;
            }
        }
        self.send(Step::Leave)
    }

    fn file(&mut self, dir: &Arc<OwnedFd>, name: &CString, stat: &Stat) -> Result<(), Over> {
        let progress = &self.request.progress;
        count(&progress.files, 1);
        count(&progress.bytes_scanned, stat.st_size as u64);
        let link = (stat.st_nlink > 1).then(|| self.link_group(stat));
        let record = self.records.find(&self.path);
        let before = record.is_some();
        let plain_name = name.to_bytes().to_vec();
        if let Some(record) = record.filter(|r| !r.racy && r.fingerprint == Fingerprint::of(stat)) {
            let attributes = if record.attributes { self.named_attributes(dir, name)? } else { Vec::new() };
            let body = Body::File { size: record.fingerprint.size, content: record.content.clone(), link };
            let entry = Entry { name: plain_name, metadata: metadata(stat), body, extensions: vec![] };
            let (entry, record) = (entry.with_attributes(&attributes), Box::new(record));
            return self.send(Step::Known { entry, record });
        }
        let (parts_in, parts) = sync_channel(PARTS_MAX);
        let job = Job { dir: Arc::clone(dir), name: name.clone(), parts: parts_in };
        // In a dry run there are no readers; otherwise they outlive the walk.
        let _ = self.jobs.send(job);
        self.send(Step::Read {
            name: plain_name,
            path: self.path.clone(),
            changed: before,
            link,
            size: stat.st_size as u64,
            parts,
        })
    }

    /// One number for all names of an inode: the keyed hash of the first path, so that two runs agree.
    fn link_group(&mut self, stat: &Stat) -> u64 {
        let (key, path) = (&self.parameters.id_key, &self.path);
        *self
            .links
            .entry((stat.st_dev, stat.st_ino))
            .or_insert_with(|| key.identify(&[b"link", path]).0.prefix())
    }

    fn symlink(&mut self, dir: &Arc<OwnedFd>, name: &CString, stat: &Stat) -> Result<(), Over> {
        match rustix::fs::readlinkat(&**dir, name, Vec::new()) {
            Ok(target) => self.plain(dir, name, stat, Body::Symlink(target.into_bytes())),
            Err(error) => self.unreadable(error),
        }
    }

    /// What has no content is whole with its entry.
    fn plain(&mut self, dir: &OwnedFd, name: &CString, stat: &Stat, body: Body) -> Result<(), Over> {
        count(&self.request.progress.files, 1);
        let link = (stat.st_nlink > 1).then(|| self.link_group(stat));
        let attributes = self.named_attributes(dir, name)?;
        let (name, extensions) = (name.to_bytes().to_vec(), Entry::extensions_of_plain(link));
        let entry = Entry { name, metadata: metadata(stat), body, extensions };
        self.send(Step::Plain(entry.with_attributes(&attributes)))
    }

    /// The attributes of what is not open, and may be nothing that can be opened.
    fn named_attributes(&mut self, dir: &OwnedFd, name: &CString) -> Result<Vec<Attribute>, Over> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => self.attributes(&Handle::named(&fd)),
            // It vanished between the two looks.
            Err(rustix::io::Errno::NOENT) => Ok(Vec::new()),
            Err(error) => self.unreadable(error).map(|()| Vec::new()),
        }
    }

    fn attributes(&mut self, handle: &Handle<'_>) -> Result<Vec<Attribute>, Over> {
        let (found, unread) = attributes::read(handle);
        for why in unread {
            count(&self.request.progress.errors, 1);
            self.send(Step::Unreadable { path: self.path.clone(), why })?;
        }
        Ok(found)
    }

    fn is_excluded(&self) -> bool {
        self.request.exclude.iter().any(|pattern| pattern.matches(&self.path))
    }

    /// Appends a name to the path; returns the length to cut it back to.
    fn enter(&mut self, name: &[u8]) -> usize {
        let length = self.path.len();
        self.path.push(b'/');
        self.path.extend_from_slice(name);
        length
    }

    fn unreadable(&mut self, error: rustix::io::Errno) -> Result<(), Over> {
        count(&self.request.progress.errors, 1);
        let why = std::io::Error::from(error).to_string();
        let path = if self.path.is_empty() { b"/".to_vec() } else { self.path.clone() };
        self.send(Step::Unreadable { path, why })
    }

    fn send(&mut self, step: Step) -> Result<(), Over> {
        self.steps.send(step).map_err(|_| Over)
    }
}

fn list(dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn device_of(stat: &Stat) -> Device {
    Device { major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) }
}

pub(super) fn metadata(stat: &Stat) -> Metadata {
    Metadata {
        mode: (stat.st_mode & 0o7777) as u16,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_s: stat.st_mtime,
        mtime_ns: stat.st_mtime_nsec as u32,
    }
}
