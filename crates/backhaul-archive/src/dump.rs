//! The bytes of one file, in order.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use backhaul_object::entry::{Body, Content, Entry};
use backhaul_object::flist::{self, Piece};
use backhaul_object::source::{ObjectSource, TransferError};
use backhaul_object::{FormatError, Kind, Object, ObjectId, bundle};
use bytes::Bytes;
use thiserror::Error;

/// Plain bytes asked for in one read; one read is queued and one under way while a third is written.
const READ_BYTES: u64 = 8 << 20;
/// Chunks asked for in one read.
const READ_PIECES: usize = 256;

/// Why a file's bytes could not be produced.
#[derive(Debug, Error)]
pub enum DumpError {
    /// A directory or a link has no bytes of its own.
    #[error("not a regular file")]
    NotAFile,
    /// An object could not be read.
    #[error("{0}")]
    Transfer(#[from] TransferError),
    /// An object does not fit the file.
    #[error("object {id}: {why}")]
    Format {
        /// Which.
        id: ObjectId,
        /// Why.
        why: FormatError,
    },
    /// The pieces do not add up to the size in the entry.
    #[error("content has {found} bytes, its entry says {expected}")]
    Size {
        /// In the entry.
        expected: u64,
        /// In the objects.
        found: u64,
    },
    /// The receiver of the bytes failed.
    #[error("{0}")]
    Write(#[from] io::Error),
}

/// Writes the content of a file to `out`; returns how many bytes.
///
/// # Errors
/// [`DumpError`]; `out` may by then have received a beginning of the content.
pub fn dump_file(source: &dyn ObjectSource, entry: &Entry, out: &mut dyn Write) -> Result<u64, DumpError> {
    match &entry.body {
        Body::File { size, content, .. } => dump_content(source, content, *size, out),
        Body::Directory { .. } | Body::Folded(_) | Body::Symlink(_) | Body::Special(_) => {
            Err(DumpError::NotAFile)
        }
    }
}

/// As [`dump_file`], from the parts of an entry.
pub(crate) fn dump_content(
    source: &dyn ObjectSource,
    content: &Content,
    size: u64,
    out: &mut dyn Write,
) -> Result<u64, DumpError> {
    let found = match content {
        Content::Empty => 0,
        Content::Inline(bytes) => put(out, bytes)?,
        Content::Member { bundle, member } => {
            let object = read_one(source, *bundle)?;
            put(out, &member_of(&object, *bundle, *member)?)?
        }
        Content::Chunks(pieces) => stream(source, Pieces::new(source, pieces.clone()), out)?,
        Content::Flist(id) => stream(source, Pieces::from_flist(source, *id)?, out)?,
    };
    if found == size { Ok(found) } else { Err(DumpError::Size { expected: size, found }) }
}

fn put(out: &mut dyn Write, bytes: &[u8]) -> io::Result<u64> {
    out.write_all(bytes)?;
    Ok(bytes.len() as u64)
}

fn read_one(source: &dyn ObjectSource, id: ObjectId) -> Result<Object, TransferError> {
    source.read(&[id])?.pop().ok_or(TransferError::NotFound(id))
}

fn member_of(object: &Object, id: ObjectId, member: u16) -> Result<Bytes, DumpError> {
    let members = members_of(object).map_err(|why| DumpError::Format { id, why })?;
    pick(&members, member).map_err(|why| DumpError::Format { id, why })
}

/// The members of an object that must be a bundle.
pub(crate) fn members_of(object: &Object) -> Result<Vec<Option<Bytes>>, FormatError> {
    if object.kind != Kind::Bundle {
        return Err(FormatError::Invalid("not a bundle"));
    }
    bundle::members(object)
}

/// One member of those.
pub(crate) fn pick(members: &[Option<Bytes>], member: u16) -> Result<Bytes, FormatError> {
    let found = members.get(usize::from(member)).cloned().flatten();
    found.ok_or(FormatError::Invalid("the bundle does not hold this member"))
}

/// The payload of an object that must be a chunk of `len` bytes.
pub(crate) fn chunk_of(object: &Object, len: u64) -> Result<Bytes, FormatError> {
    if object.kind != Kind::Chunk {
        return Err(FormatError::Invalid("not a chunk"));
    }
    if object.payload.len() as u64 != len {
        return Err(FormatError::Invalid("chunk of another length than its file says"));
    }
    Ok(object.payload.clone())
}

/// The chunks of a file in order; nested lists are read when their turn comes.
struct Pieces<'a> {
    source: &'a dyn ObjectSource,
    /// From the top list down: (level, pieces still to come).
    lists: Vec<(u8, VecDeque<Piece>)>,
}

impl<'a> Pieces<'a> {
    fn new(source: &'a dyn ObjectSource, pieces: Vec<Piece>) -> Self {
        Self { source, lists: vec![(0, pieces.into())] }
    }

    fn from_flist(source: &'a dyn ObjectSource, id: ObjectId) -> Result<Self, DumpError> {
        let mut pieces = Self { source, lists: Vec::new() };
        pieces.open(id, None)?;
        Ok(pieces)
    }

    fn open(&mut self, id: ObjectId, level: Option<u8>) -> Result<(), DumpError> {
        let object = read_one(self.source, id)?;
        let list = flist::decode(&object).map_err(|why| DumpError::Format { id, why })?;
        if level.is_some_and(|level| level != list.level) {
            let why = FormatError::Invalid("file list of another level than the one above it says");
            return Err(DumpError::Format { id, why });
        }
        self.lists.push((list.level, list.pieces.into()));
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Piece>, DumpError> {
        while let Some((level, pieces)) = self.lists.last_mut() {
            let level = *level;
            match pieces.pop_front() {
                None => drop(self.lists.pop()),
                Some(piece) if level == 0 => return Ok(Some(piece)),
                Some(piece) => self.open(piece.id, Some(level - 1))?,
            }
        }
        Ok(None)
    }

    /// The chunks of the next read, and the one that was too much for it.
    fn group(&mut self, held: &mut Option<Piece>) -> Result<Vec<Piece>, DumpError> {
        let (mut group, mut bytes) = (Vec::new(), 0u64);
        loop {
            let next = match held.take() {
                Some(piece) => Some(piece),
                None => self.next()?,
            };
            let Some(piece) = next else { return Ok(group) };
            bytes = bytes.saturating_add(piece.len);
            if !group.is_empty() && (bytes > READ_BYTES || group.len() >= READ_PIECES) {
                *held = Some(piece);
                return Ok(group);
            }
            group.push(piece);
        }
    }
}

type Group = Result<Vec<Bytes>, DumpError>;

fn stream(source: &dyn ObjectSource, pieces: Pieces<'_>, out: &mut dyn Write) -> Result<u64, DumpError> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel::<Group>(1);
        scope.spawn(move || read_ahead(source, pieces, &sender));
        drain(&receiver, out)
    })
}

fn drain(receiver: &Receiver<Group>, out: &mut dyn Write) -> Result<u64, DumpError> {
    let mut written = 0;
    while let Ok(group) = receiver.recv() {
        for bytes in group? {
            written += put(out, &bytes)?;
        }
    }
    Ok(written)
}

fn read_ahead(source: &dyn ObjectSource, mut pieces: Pieces<'_>, sender: &SyncSender<Group>) {
    let mut held = None;
    loop {
        let group = pieces.group(&mut held).and_then(|group| read_group(source, &group));
        let last = match &group {
            Ok(group) => group.is_empty(),
            Err(_) => true,
        };
        if sender.send(group).is_err() || last {
            return;
        }
    }
}

/// The chunks' bytes; a chunk that occurs twice is asked for once.
fn read_group(source: &dyn ObjectSource, group: &[Piece]) -> Group {
    if group.is_empty() {
        return Ok(Vec::new());
    }
    let (mut ids, mut index) = (Vec::new(), HashMap::new());
    let mut places = Vec::with_capacity(group.len());
    for piece in group {
        places.push(*index.entry(piece.id).or_insert_with(|| {
            ids.push(piece.id);
            ids.len() - 1
        }));
    }
    let objects = source.read(&ids)?;
    let mut out = Vec::with_capacity(group.len());
    for (piece, place) in group.iter().zip(places) {
        let object = objects.get(place).ok_or(TransferError::NotFound(piece.id))?;
        out.push(chunk_of(object, piece.len).map_err(|why| DumpError::Format { id: piece.id, why })?);
    }
    Ok(out)
}
