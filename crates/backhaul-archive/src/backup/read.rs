//! Reads files that changed: small ones whole, big ones in content-defined chunks.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};

use backhaul_object::chunker::Chunker;
use backhaul_object::entry::{Attribute, InodeFlags, Metadata};
use backhaul_object::seal::identify_content;
use backhaul_object::{ObjectId, Proof};
use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::drafts::{Draft, Drafts, KnownTo, Past, Reading};
use super::look::Look;
use super::state::Fingerprint;
use super::{BackupRequest, VaultParameters, count};
use crate::attributes::{self, Handle};
use crate::extents::{self, Extent};
use crate::inode_flags;
use crate::listing::Names;

mod small;

use small::Small;

/// Reading threads: enough to hide the latency of one disk.
pub(super) const THREADS: usize = 4;
/// Chunks of one file that wait for the assembler: each reader has one more in hand.
pub(super) const PARTS_MAX: usize = 1;
/// What is said of a file that was not the same all along.
const CHANGED: &str = "it changed while it was read; saved as it was read";
/// How old the last change must be that proves by its time that none came after it. File systems keep times in steps of up to 2 s.
/// And whoever writes to a file that is mapped into memory moves its time only with the first write after the last one went to the
/// disk, which Linux does after 30 s by itself, looking every 5 s (`vm.dirty_expire_centisecs`, `vm.dirty_writeback_centisecs`).
const PROVEN_AFTER_NS: i64 = 60_000_000_000;

/// Files that one thread reads, in path order.
pub(super) struct Job {
    pub(super) files: Vec<Wanted>,
    /// Of each of them, in its directory.
    pub(super) names: Names,
    pub(super) found: Sender<Vec<Parts>>,
}

/// One file to read.
pub(super) struct Wanted {
    pub(super) dir: Arc<OwnedFd>,
    /// What it was when the walk looked at it.
    pub(super) look: Look,
    /// Of a large one.
    pub(super) large: Option<Large>,
}

/// By which it is known what was in a large file before.
#[derive(Clone)]
pub(super) struct Large {
    pub(super) path: Vec<u8>,
    pub(super) past: Past,
    pub(super) known_to: KnownTo,
}

/// What comes of a file, in order; the last is `Done` or `Failed`.
#[expect(clippy::large_enum_variant, reason = "most are small: each box would go from thread to thread")]
pub(super) enum Parts {
    /// Of a small one: its content and its end.
    Small([Part; 2]),
    /// Of a big one, while it is read.
    Coming(Receiver<Part>),
    /// Nothing could be read.
    Failed(String),
}

/// A part of what comes of a file.
pub(super) enum Part {
    /// All of a file that goes into its directory entry.
    Inline(Bytes),
    /// All of a small file.
    Small { id: ObjectId, proof: Proof, content: Bytes },
    /// The next chunk of a big file.
    Chunk { id: ObjectId, proof: Proof, content: Bytes, draft: Option<Box<Draft>> },
    /// The next bytes of a sparse file are none.
    Hole { len: u64 },
    /// The end.
    Done(Outcome),
    /// Nothing could be read.
    Failed(String),
}

/// What was read.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) metadata: Metadata,
    pub(super) fingerprint: Fingerprint,
    /// Bytes that were read, with the holes among them: what the entry says.
    pub(super) size: u64,
    /// Bytes that were read.
    pub(super) read: u64,
    /// The time stamps cannot prove that a later change would show.
    pub(super) racy: bool,
    pub(super) attributes: Vec<Attribute>,
    /// Attributes that are not saved, in words.
    pub(super) unread: Vec<String>,
    pub(super) flags: InodeFlags,
    /// It changed while it was read.
    pub(super) unstable: Option<&'static str>,
}

pub(super) struct Readers<'a> {
    parameters: &'a VaultParameters,
    request: &'a BackupRequest<'a>,
    chunker: Chunker,
    drafts: Option<&'a Drafts>,
}

/// The assembler has ended.
struct Over;

/// A file before it is read.
struct Opened {
    file: File,
    /// Of the walk, until it is looked at again.
    look: Look,
    sampled: i64,
    attributes: Vec<Attribute>,
    /// Attributes that are not saved, in words.
    unread: Vec<String>,
    large: Option<Large>,
}

impl<'a> Readers<'a> {
    pub(super) fn new(
        parameters: &'a VaultParameters,
        request: &'a BackupRequest<'a>,
        drafts: Option<&'a Drafts>,
    ) -> Self {
        let chunker = Chunker::new(&parameters.descriptor, &parameters.chunker_key);
        Self { parameters, request, chunker, drafts }
    }

    pub(super) fn run(&self, jobs: &crossbeam_channel::Receiver<Job>) {
        for Job { files, names, found } in jobs {
            let (mut held, mut big) = (self.room(&files), Vec::new());
            let read = |(wanted, name)| {
                self.open(wanted, name).and_then(|opened| self.read_small(opened, &mut held))
            };
            let small = files.iter().zip(names.iter()).map(read).collect::<Vec<_>>();
            let held = Bytes::from(held);
            let parts = small.into_iter().map(|small| match small {
                Ok(Small::Read(read)) => Parts::Small(read.parts(&held)),
                Ok(Small::Not(opened)) => {
                    let (parts_in, parts) = sync_channel(PARTS_MAX);
                    big.push((opened, parts_in));
                    Parts::Coming(parts)
                }
                Err(error) => Parts::Failed(self.failed(&error)),
            });
            // The receivers are gone when the run is over.
            let _ = found.send(parts.collect());
            drop(held);
            for (opened, parts) in big {
                let last = self.read_big(opened, &parts);
                let _ = parts.send(last.unwrap_or_else(|error| Part::Failed(self.failed(&error))));
            }
        }
    }

    fn failed(&self, error: &std::io::Error) -> String {
        count(&self.request.progress.errors, 1);
        error.to_string()
    }

    fn open(&self, wanted: &Wanted, name: &CStr) -> std::io::Result<Opened> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let sampled = (self.request.now)();
        let open = |flags| rustix::fs::openat(&*wanted.dir, name, flags, Mode::empty());
        // Only the owner and root may leave the time of the last access as it is.
        let fd = match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => open(flags),
            done => done,
        }?;
        let (attributes, unread) = attributes::read(&Handle::open(&fd));
        let (file, look, large) = (File::from(fd), wanted.look, wanted.large.clone());
        Ok(Opened { file, look, sampled, attributes, unread, large })
    }

    fn look(&self, file: &File) -> std::io::Result<Look> {
        let look = self.request.joints.as_of(Look::of(file)?);
        if look.kind() != FileType::RegularFile {
            return Err(std::io::Error::other("it is no regular file any more"));
        }
        Ok(look)
    }

    fn read_big(&self, mut opened: Opened, parts: &SyncSender<Part>) -> std::io::Result<Part> {
        opened.look = self.look(&opened.file)?;
        let before = opened.look;
        let Ok((size, read)) = self.send_extents(&mut opened, parts)? else {
            return Ok(Part::Failed("the run ended".to_owned()));
        };
        let after = self.look(&opened.file)?;
        let is_stable = Fingerprint::of(&before) == Fingerprint::of(&after) && size >= before.size();
        Ok(Part::Done(self.done(opened, (size, read), (!is_stable).then_some(CHANGED))))
    }

    fn done(&self, opened: Opened, (size, read): (u64, u64), unstable: Option<&'static str>) -> Outcome {
        let Opened { file, look, sampled, attributes, unread, .. } = opened;
        let fingerprint = Fingerprint::of(&look);
        let racy = unstable.is_some()
            || size != fingerprint.size
            || fingerprint.newest() >= sampled.saturating_sub(PROVEN_AFTER_NS);
        let (metadata, flags) = (look.metadata(), inode_flags::read(&file));
        count(&self.request.progress.bytes_read, read);
        count(&self.request.progress.errors, unread.len() as u64);
        Outcome { metadata, fingerprint, size, read, racy, attributes, unread, flags, unstable }
    }

    /// Reads what has data, and nothing where there is a hole; returns how many bytes that is in all, and of
    /// data. A file that grows as fast as it is read ends where it ended at first.
    fn send_extents(
        &self,
        opened: &mut Opened,
        parts: &SyncSender<Part>,
    ) -> std::io::Result<Result<(u64, u64), Over>> {
        let (mut size, mut read) = (0, 0);
        let Opened { file, look, large, .. } = opened;
        let begin = |drafts: &'a Drafts| {
            let Large { path, past, known_to } = large.as_ref()?;
            drafts.begin(path, look.size(), *past, *known_to)
        };
        let mut reading = self.drafts.and_then(begin);
        while let Some(extent) = extents::next(file, size, look.size())? {
            match extent {
                Extent::Hole(len) => {
                    size += len;
                    if parts.send(Part::Hole { len }).is_err() {
                        return Ok(Err(Over));
                    }
                }
                Extent::Data(len) => {
                    file.seek(SeekFrom::Start(size))?;
                    let Ok(found) = self.send_chunks(file, (size, len), parts, &mut reading)? else {
                        return Ok(Err(Over));
                    };
                    (size, read) = (size + found, read + found);
                    if found < len {
                        break;
                    }
                }
            }
        }
        reading.into_iter().for_each(Reading::finish);
        Ok(Ok((size, read)))
    }

    /// Reads at most `size` bytes, the first of which is at an offset in the file.
    fn send_chunks(
        &self,
        file: &mut File,
        (mut offset, size): (u64, u64),
        parts: &SyncSender<Part>,
        reading: &mut Option<Reading<'_>>,
    ) -> std::io::Result<Result<u64, Over>> {
        let mut gone = false;
        let total = cut_chunks(file, size, &self.chunker, &mut |content| {
            let (id, proof) = identify_content(&self.parameters.id_key, &content);
            let draft = reading.as_mut().and_then(|reading| reading.chunk(offset, (id, proof), &content));
            offset += content.len() as u64;
            gone = parts.send(Part::Chunk { id, proof, content, draft: draft.map(Box::new) }).is_err();
            !gone
        })?;
        Ok(if gone { Err(Over) } else { Ok(total) })
    }
}

/// Cuts at most `size` bytes into chunks, until `take` wants no more; returns how many bytes they have. A cut that is
/// found in what is there is where it would be with more: so a chunk is read no further ahead than twice the mean, and
/// what is left of it is moved seldom.
pub(super) fn cut_chunks(
    from: &mut dyn Read,
    size: u64,
    chunker: &Chunker,
    take: &mut dyn FnMut(Bytes) -> bool,
) -> std::io::Result<u64> {
    let mut rest = from.take(size);
    let (max, ahead) = (chunker.max(), chunker.ahead());
    // Room for half as much again: then it is moved to the front at every other chunk only.
    let room = size.min((ahead + ahead / 2).min(max) as u64) as usize;
    let (mut buffer, mut window, mut total, mut ended) = (vec![0; room], 0..0, 0, false);
    let mut wanted = ahead.min(room);
    loop {
        if window.start + wanted > buffer.len() {
            buffer.copy_within(window.clone(), 0);
            window = 0..window.len();
            buffer.resize(buffer.len().max(wanted), 0);
        }
        while !ended && window.len() < wanted {
            match rest.read(&mut buffer[window.end..]) {
                Ok(0) => ended = true,
                Ok(n) => window.end += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        ended |= rest.limit() == 0;
        if window.is_empty() {
            return Ok(total);
        }
        let cut = chunker.cut(&buffer[window.clone()]);
        if cut == window.len() && !ended && cut < max {
            wanted = max;
            continue;
        }
        wanted = ahead.min(room);
        if !take(Bytes::copy_from_slice(&buffer[window.start..window.start + cut])) {
            return Ok(total);
        }
        window.start += cut;
        total += cut as u64;
    }
}
