//! Lists everything to save in path order, relative to directory descriptors, never through links: every name is looked at
//! and opened by itself in its open directory, so that nothing that is put in its place meanwhile leads elsewhere.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use backhaul_object::entry::{Attribute, Body, Content, EXTENSION_WAY, Entry, InodeFlags, Metadata, Special};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::assemble::directory_entry;
use super::drafts::{KnownTo, Past};
use super::excludes::{Reason, is_of_the_kernel, is_unmounted};
use super::look::Look;
use super::read::{Large, Wanted};
use super::roots::Roots;
use super::state::{Fingerprint, Record, Records};
use super::step::{Before, Over, Seems, Step, Steps};
use super::{BackupRequest, VaultParameters, count, to_path};
use crate::attributes::{self, Handle};
use crate::inode_flags;
use crate::listing::names_in;
use crate::roomy::Numbers;

/// Deepest folder that is entered: each level holds a descriptor and some of the walk's [`STACK`].
const DEPTH_MAX: usize = 4_000;
/// Stack of the walking thread in bytes, reserved and not used: 16 KiB a level.
pub(super) const STACK: usize = 64 << 20;

/// The inode that btrfs shows in a snapshot where a subvolume is that the snapshot does not have
/// (`BTRFS_EMPTY_SUBVOL_DIR_OBJECTID`). Nowhere else is it a folder within another.
const NO_SUBVOLUME: u64 = 2;

pub(super) struct Walk<'a> {
    request: &'a BackupRequest<'a>,
    parameters: &'a VaultParameters,
    records: Records,
    steps: Steps,
    path: Vec<u8>,
    /// Link groups, by file system and inode.
    links: Numbers,
    depth: usize,
    /// The file system of the folder that it is in.
    volume: u64,
    skip: Vec<PathBuf>,
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl<'a> Walk<'a> {
    pub(super) fn new(
        request: &'a BackupRequest<'a>,
        parameters: &'a VaultParameters,
        records: Records,
        steps: Steps,
    ) -> Self {
        let skip = request.skip.clone();
        let (path, links) = (Vec::new(), Numbers::default());
        Self { request, parameters, records, steps, path, links, depth: 0, volume: 0, skip }
    }

    pub(super) fn run(mut self, roots: &Roots) {
        // A failure means that the assembler has ended, and it knows why.
        let _ = self.root(roots).and_then(|()| self.steps.flush());
    }

    fn root(&mut self, roots: &Roots) -> Result<(), Over> {
        let open = || rustix::fs::openat(CWD, "/", DIRECTORY, Mode::empty());
        match self.request.joints.open(b"").unwrap_or_else(open) {
            Ok(fd) if roots.whole => {
                self.volume = self.look_of(&fd).map_or(0, |look| look.volume());
                self.depth = 1;
                let device = self.request.one_file_system.then_some(self.volume);
                self.directory(&Arc::new(fd), device, None)
            }
            Ok(fd) => self.between(&Arc::new(fd), roots),
            Err(error) => self.unreadable(error),
        }
    }

    /// A directory above the paths to save: only the way to them is kept.
    fn between(&mut self, dir: &Arc<OwnedFd>, roots: &Roots) -> Result<(), Over> {
        for (name, below) in &roots.children {
            let Ok(c_name) = CString::new(name.clone()) else { continue };
            let length = self.enter(name);
            // A link on the way is followed, and kept as the directory it leads to.
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
            let open = || rustix::fs::openat(&**dir, &c_name, flags, Mode::empty());
            let done = match self.look_at(dir, &c_name) {
                Err(error) => self.unreadable(error),
                Ok(look) if below.whole => self.entry(dir, &c_name, &look, None),
                Ok(look) => match self.request.joints.open(&self.path).unwrap_or_else(open) {
                    Err(error) => self.unreadable(error),
                    Ok(fd) => {
                        let look = self.look_of(&fd).unwrap_or(look);
                        // Its time is other people's: with it no two snapshots of one tree would be equal.
                        let metadata = Metadata { mtime_s: 0, mtime_ns: 0, ..look.metadata() };
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

    /// Everything in an open directory, or one name of it; `device` is set when the walk must not leave it.
    fn directory(
        &mut self,
        dir: &Arc<OwnedFd>,
        device: Option<u64>,
        only: Option<&CStr>,
    ) -> Result<(), Over> {
        let names = match names_in(dir) {
            Ok(names) => names,
            Err(error) => {
                self.unreadable(error)?;
                return self.send(Step::Missing(None));
            }
        };
        for name in names.iter().filter(|name| only.is_none_or(|only| only == *name)) {
            let length = self.enter(name.to_bytes());
            let done = match self.look_at(dir, name) {
                // It vanished between the two looks: as if it had never been there.
                Err(rustix::io::Errno::NOENT) => Ok(()),
                Err(error) => self.unreadable(error).and_then(|()| self.missing(name)),
                Ok(look) => match self.request.exclude.reason(&self.path, &look) {
                    Some(reason) => self.send(Step::LeftOut(reason)).and_then(|()| self.missing(name)),
                    None => self.entry(dir, name, &look, device),
                },
            };
            self.path.truncate(length);
            done?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: &Arc<OwnedFd>,
        name: &CStr,
        look: &Look,
        device: Option<u64>,
    ) -> Result<(), Over> {
        match look.kind() {
            FileType::Directory => self.enter_directory(dir, name, look, device),
            FileType::RegularFile => self.file(dir, name, look),
            FileType::Symlink => self.symlink(dir, name, look),
            FileType::Fifo => self.plain(dir, name, look, Body::Special(Special::Fifo)),
            FileType::Socket => self.plain(dir, name, look, Body::Special(Special::Socket)),
            FileType::CharacterDevice => {
                self.plain(dir, name, look, Body::Special(Special::Character(look.device())))
            }
            FileType::BlockDevice => {
                self.plain(dir, name, look, Body::Special(Special::Block(look.device())))
            }
            FileType::Unknown => self.send(Step::NotKept("unknown kind")).and_then(|()| self.missing(name)),
        }
    }

    fn enter_directory(
        &mut self,
        dir: &Arc<OwnedFd>,
        name: &CStr,
        look: &Look,
        device: Option<u64>,
    ) -> Result<(), Over> {
        let is_root = self.depth == 0;
        let path = to_path(&self.path);
        if self.skip.contains(&path) {
            return self.missing(name);
        }
        if self.depth >= DEPTH_MAX {
            let why = format!("more than {DEPTH_MAX} folders within each other: what is in it is not saved");
            return self.refuse(name, &why);
        }
        count(&self.request.progress.dirs, 1);
        let elsewhere = self.request.joints.open(&self.path);
        let there = elsewhere.as_ref().and_then(|opened| opened.as_ref().ok());
        let look = &there.and_then(|fd| self.look_of(fd).ok()).unwrap_or(*look);
        if elsewhere.is_none() && !is_root && !self.request.joints.is_empty() && look.inode() == NO_SUBVOLUME
        {
            return self
                .refuse(name, "a subvolume that came while the backup began: it is saved the next time");
        }
        let device = device.or(self.request.one_file_system.then_some(look.volume()));
        let enter = |attributes: Vec<Attribute>, flags: InodeFlags| {
            let entry = directory_entry(name.to_bytes().to_vec(), look.metadata());
            Step::Enter(entry.with_attributes(&attributes).with_inode_flags(flags))
        };
        // A mount point is kept as an empty directory when the walk must stay on its file system.
        if device.is_some_and(|device| device != look.volume()) {
            let attributes = match there {
                Some(fd) => self.attributes(&Handle::open(fd))?,
                None => self.named_attributes(dir, name)?,
            };
            return self.closed(enter(attributes, InodeFlags::default()), None);
        }
        if elsewhere.is_none() && !is_root && self.volume != look.volume() && is_unmounted(dir, name) {
            return self.closed(enter(Vec::new(), InodeFlags::default()), Some(Reason::Unmounted));
        }
        let open = || rustix::fs::openat(&**dir, name, DIRECTORY, Mode::empty());
        match elsewhere.unwrap_or_else(open) {
            Ok(fd) => {
                let attributes = self.attributes(&Handle::open(&fd))?;
                let entered = enter(attributes, inode_flags::read(&fd));
                if !is_root && self.volume != look.volume() && is_of_the_kernel(&fd) {
                    return self.closed(entered, Some(Reason::Kernel));
                }
                self.send(entered)?;
                let outer = std::mem::replace(&mut self.volume, look.volume());
                // What somebody names is wanted, whatever it is marked as.
                let mark = if is_root { None } else { self.request.exclude.mark(&fd) };
                if mark.is_some() {
                    self.send(Step::LeftOut(Reason::Marked))?;
                    self.send(Step::Missing(None))?;
                }
                self.depth += 1;
                self.directory(&Arc::new(fd), device, mark)?;
                self.depth -= 1;
                self.volume = outer;
            }
            Err(error) => {
                self.send(enter(Vec::new(), InodeFlags::default()))?;
                self.unreadable(error)?;
                self.send(Step::Missing(None))?;
            }
        }
        self.send(Step::Leave)
    }

    /// A directory that is kept without what is in it.
    fn closed(&mut self, entered: Step, why: Option<Reason>) -> Result<(), Over> {
        self.send(entered)?;
        why.map_or(Ok(()), |why| self.send(Step::LeftOut(why)))?;
        self.send(Step::Missing(None))?;
        self.send(Step::Leave)
    }

    fn look_at(&self, dir: &impl AsFd, name: &CStr) -> Result<Look, rustix::io::Errno> {
        Look::at(dir, name).map(|look| self.request.joints.as_of(look))
    }

    fn look_of(&self, fd: &impl AsFd) -> Result<Look, rustix::io::Errno> {
        Look::of(fd).map(|look| self.request.joints.as_of(look))
    }

    fn file(&mut self, dir: &Arc<OwnedFd>, name: &CStr, look: &Look) -> Result<(), Over> {
        let progress = &self.request.progress;
        count(&progress.files, 1);
        count(&progress.bytes_scanned, look.size());
        let link = self.link_group(look)?;
        let mut record = self.records.find(&self.path);
        let is_same = |record: &Record| !record.racy && record.fingerprint == Fingerprint::of(look);
        if let Some(record) = record.take_if(|record| is_same(record)) {
            let attributes = if record.attributes { self.named_attributes(dir, name)? } else { Vec::new() };
            let body = Body::File { size: record.fingerprint.size, content: record.content.clone(), link };
            let entry =
                Entry { name: name.to_bytes().to_vec(), metadata: look.metadata(), body, extensions: vec![] };
            let entry = entry.with_attributes(&attributes).with_inode_flags(record.flags);
            let record = Box::new(record);
            return self.send(Step::Known { entry, record });
        }
        let (path, size) = (self.path.clone(), look.size());
        let past = if record.is_some() { Past::Changed } else { Past::New };
        let is_large = size > u64::from(self.parameters.descriptor.member_max);
        let is_listed = record.as_ref().is_some_and(|record| matches!(record.content, Content::Flist(_)));
        let known_to = if is_listed { KnownTo::Signatures } else { KnownTo::Sink };
        let large = is_large.then(|| Large { path: path.clone(), past, known_to });
        let wanted = Wanted { dir: Arc::clone(dir), look: *look, large };
        let seems = |record: &Record| match record.fingerprint == Fingerprint::of(look) {
            true => Seems::Same,
            false => Seems::Changed,
        };
        let before = record.map(|record| Before { seems: seems(&record), content: record.content });
        self.steps.read(wanted, name, Step::Read { path, link, size, before })
    }

    /// One number for all names of an inode, where it has several: the keyed hash of the first path, so that two runs agree.
    fn link_group(&mut self, look: &Look) -> Result<Option<u64>, Over> {
        if look.names() < 2 {
            return Ok(None);
        }
        let inode = (look.volume(), look.inode());
        let known = self.links.get(inode).and_then(|known| match known {
            Some(group) => Ok(group),
            None => {
                let group = self.parameters.id_key.identify(&[b"link", &self.path]).0.prefix();
                self.links.set(inode, group).map(|()| group)
            }
        });
        match known {
            Ok(group) => Ok(Some(group)),
            // It is saved as a file by itself.
            Err(error) => {
                self.unreadable(Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                Ok(None)
            }
        }
    }

    fn symlink(&mut self, dir: &Arc<OwnedFd>, name: &CStr, look: &Look) -> Result<(), Over> {
        match rustix::fs::readlinkat(&**dir, name, Vec::new()) {
            Ok(target) => self.plain(dir, name, look, Body::Symlink(target.into_bytes())),
            Err(error) => self.unreadable(error).and_then(|()| self.missing(name)),
        }
    }

    /// What has no content is whole with its entry.
    fn plain(&mut self, dir: &OwnedFd, name: &CStr, look: &Look, body: Body) -> Result<(), Over> {
        count(&self.request.progress.files, 1);
        let link = self.link_group(look)?;
        let attributes = self.named_attributes(dir, name)?;
        let (name, extensions) = (name.to_bytes().to_vec(), Entry::extensions_of_plain(link));
        let entry = Entry { name, metadata: look.metadata(), body, extensions };
        self.send(Step::Plain(entry.with_attributes(&attributes)))
    }

    /// The attributes of what is not open, and may be nothing that can be opened.
    fn named_attributes(&mut self, dir: &OwnedFd, name: &CStr) -> Result<Vec<Attribute>, Over> {
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

    /// Appends a name to the path; returns the length to cut it back to.
    fn enter(&mut self, name: &[u8]) -> usize {
        let length = self.path.len();
        self.path.push(b'/');
        self.path.extend_from_slice(name);
        length
    }

    /// A name of the innermost directory is not saved: whoever restores it does not take it for gone.
    fn missing(&mut self, name: &CStr) -> Result<(), Over> {
        self.send(Step::Missing(Some(name.to_bytes().to_vec())))
    }

    /// A name is not saved for a reason of our own.
    fn refuse(&mut self, name: &CStr, why: &str) -> Result<(), Over> {
        count(&self.request.progress.errors, 1);
        self.send(Step::Unreadable { path: self.path.clone(), why: why.to_owned() })?;
        self.missing(name)
    }

    fn unreadable(&mut self, error: Errno) -> Result<(), Over> {
        count(&self.request.progress.errors, 1);
        let mut why = std::io::Error::from(error).to_string();
        if error == Errno::MFILE {
            why += "; a folder in a folder takes one more each (`ulimit -Hn` says how many there may be)";
        }
        let path = if self.path.is_empty() { b"/".to_vec() } else { self.path.clone() };
        self.send(Step::Unreadable { path, why })
    }

    fn send(&mut self, step: Step) -> Result<(), Over> {
        self.steps.send(step)
    }
}
