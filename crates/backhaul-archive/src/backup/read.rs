//! Reads files that changed: small ones whole, big ones in content-defined chunks.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use backhaul_object::chunker::Chunker;
use backhaul_object::descriptor::INLINE_MAX;
use backhaul_object::entry::{Attribute, Metadata};
use backhaul_object::seal::identify_content;
use backhaul_object::{ObjectId, Proof};
use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags};

use super::look::Look;
use super::state::Fingerprint;
use super::{BackupRequest, VaultParameters, count};
use crate::attributes::{self, Handle};
use crate::extents::{self, Extent};
use crate::flags;

/// Reading threads: enough to hide the latency of one disk.
pub(super) const THREADS: usize = 4;
/// Chunks of one file that wait for the assembler.
pub(super) const PARTS_MAX: usize = 2;
/// How often a small file that changes under the reader is read again.
const RETRIES: usize = 2;
/// File time stamps are no finer than a kernel tick.
const GRANULARITY_NS: i64 = 10_000_000;

/// One file to read.
pub(super) struct Job {
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: CString,
    pub(super) parts: SyncSender<Part>,
}

/// What comes of a job, in order; the last is `Done` or `Failed`.
pub(super) enum Part {
    /// All of a file that goes into its directory entry.
    Inline(Bytes),
    /// All of a small file.
    Small { id: ObjectId, proof: Proof, content: Bytes },
    /// The next chunk of a big file.
    Chunk { id: ObjectId, proof: Proof, content: Bytes },
    /// The next bytes of a sparse file are none.
    Hole { len: u64 },
    /// The end.
    Done(Box<Outcome>),
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
    /// Inode flags.
    pub(super) flags: u32,
    /// It changed while it was read.
    pub(super) unstable: Option<&'static str>,
}

pub(super) struct Readers<'a> {
    parameters: &'a VaultParameters,
    request: &'a BackupRequest<'a>,
    chunker: Chunker,
}

/// The assembler has ended.
struct Over;

impl<'a> Readers<'a> {
    pub(super) fn new(parameters: &'a VaultParameters, request: &'a BackupRequest<'a>) -> Self {
        let chunker = Chunker::new(&parameters.descriptor, &parameters.chunker_key);
        Self { parameters, request, chunker }
    }

    pub(super) fn run(&self, jobs: &Mutex<Receiver<Job>>) {
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            let outcome = match self.read(&job) {
                Ok(done) => done,
                Err(error) => {
                    count(&self.request.progress.errors, 1);
                    Part::Failed(error.to_string())
                }
            };
            // The receiver is gone when the run is over.
            let _ = job.parts.send(outcome);
        }
    }

    fn read(&self, job: &Job) -> std::io::Result<Part> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let sampled = (self.request.now)();
        let fd = rustix::fs::openat(&*job.dir, &job.name, flags, Mode::empty())?;
        let (attributes, unread) = attributes::read(&Handle::open(&fd));
        let mut file = File::from(fd);
        let mut before = self.look(&file)?;
        if before.kind() != FileType::RegularFile {
            return Ok(Part::Failed("it is no regular file any more".to_owned()));
        }
        let mut unstable = None;
        let (mut size, mut read) = (0, 0);
        for attempt in 0..=RETRIES {
            let small = before.size() <= u64::from(self.parameters.descriptor.member_max);
            let content = if small && !extents::has_holes(&file, before.size(), before.room()) {
                Some(self.read_whole(&mut file, before.size())?)
            } else {
                match self.send_extents(&mut file, &before, job)? {
                    Err(Over) => return Ok(Part::Failed("the run ended".to_owned())),
                    Ok(sums) => (size, read) = sums,
                }
                None
            };
            let after = self.look(&file)?;
            let stable = Fingerprint::of(&before) == Fingerprint::of(&after);
            if let Some(mut content) = content {
                let is_longer = content.len() as u64 > before.size();
                content.truncate(before.size() as usize);
                if !stable && attempt < RETRIES {
                    before = after;
                    continue;
                }
                (size, read) = (content.len() as u64, content.len() as u64);
                self.send_small(content, job);
                unstable =
                    is_longer.then_some("it has more content than its size says; saved as far as that");
            }
            if !stable || size < before.size() {
                unstable = Some("it changed while it was read; saved as it was read");
            }
            break;
        }
        let fingerprint = Fingerprint::of(&before);
        let racy = unstable.is_some()
            || size != fingerprint.size
            || fingerprint.newest() >= sampled.saturating_sub(GRANULARITY_NS);
        let (metadata, flags) = (before.metadata(), flags::read(&file));
        count(&self.request.progress.bytes_read, read);
        count(&self.request.progress.errors, unread.len() as u64);
        let outcome =
            Outcome { metadata, fingerprint, size, read, racy, attributes, unread, flags, unstable };
        Ok(Part::Done(Box::new(outcome)))
    }

    fn look(&self, file: &File) -> std::io::Result<Look> {
        Ok(self.request.joints.as_of(Look::of(file)?))
    }

    fn read_whole(&self, file: &mut File, size: u64) -> std::io::Result<Vec<u8>> {
        // A byte more than it should have tells whether it has more.
        let mut content = Vec::with_capacity(size as usize + 2);
        // Looking for holes has moved it.
        file.rewind()?;
        file.take(size + 1).read_to_end(&mut content)?;
        Ok(content)
    }

    fn send_small(&self, content: Vec<u8>, job: &Job) {
        let content = Bytes::from(content);
        let part = if content.len() <= INLINE_MAX {
            Part::Inline(content)
        } else {
            let (id, proof) = identify_content(&self.parameters.id_key, &content);
            Part::Small { id, proof, content }
        };
        let _ = job.parts.send(part);
    }

    /// Reads what has data, and nothing where there is a hole; returns how many bytes that is in all, and of
    /// data. A file that grows as fast as it is read ends where it ended at first.
    fn send_extents(
        &self,
        file: &mut File,
        look: &Look,
        job: &Job,
    ) -> std::io::Result<Result<(u64, u64), Over>> {
        let (mut size, mut read) = (0, 0);
        while let Some(extent) = extents::next(file, size, look.size())? {
            match extent {
                Extent::Hole(len) => {
                    size += len;
                    if job.parts.send(Part::Hole { len }).is_err() {
                        return Ok(Err(Over));
                    }
                }
                Extent::Data(len) => {
                    file.seek(SeekFrom::Start(size))?;
                    let Ok(found) = self.send_chunks(file, len, job)? else { return Ok(Err(Over)) };
                    (size, read) = (size + found, read + found);
                    if found < len {
                        break;
                    }
                }
            }
        }
        Ok(Ok((size, read)))
    }

    /// Reads at most `size` bytes.
    fn send_chunks(&self, file: &mut File, size: u64, job: &Job) -> std::io::Result<Result<u64, Over>> {
        let mut gone = false;
        let total = cut_chunks(file, size, &self.chunker, &mut |content| {
            let (id, proof) = identify_content(&self.parameters.id_key, &content);
            gone = job.parts.send(Part::Chunk { id, proof, content }).is_err();
            !gone
        })?;
        Ok(if gone { Err(Over) } else { Ok(total) })
    }
}

/// Cuts at most `size` bytes into chunks, until `take` wants no more; returns how many bytes they have.
pub(super) fn cut_chunks(
    from: &mut dyn Read,
    size: u64,
    chunker: &Chunker,
    take: &mut dyn FnMut(Bytes) -> bool,
) -> std::io::Result<u64> {
    let mut rest = from.take(size);
    let room = size.min(chunker.max() as u64) as usize;
    let (mut buffer, mut filled, mut total, mut ended) = (vec![0; room], 0, 0, false);
    loop {
        while !ended && filled < buffer.len() {
            match rest.read(&mut buffer[filled..]) {
                Ok(0) => ended = true,
                Ok(n) => filled += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            return Ok(total);
        }
        let cut = chunker.cut(&buffer[..filled]);
        if !take(Bytes::copy_from_slice(&buffer[..cut])) {
            return Ok(total);
        }
        buffer.copy_within(cut..filled, 0);
        filled -= cut;
        total += cut as u64;
    }
}
