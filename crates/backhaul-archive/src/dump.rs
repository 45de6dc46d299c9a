//! The bytes of one file, in order.

use std::io::{self, Read, Write};

use backhaul_object::entry::{Body, Content, Entry};
use backhaul_object::source::{ObjectSource, TransferError};
use backhaul_object::{FormatError, Kind, Object, ObjectId, bundle};
use bytes::Bytes;
use thiserror::Error;

mod pieces;
mod stream;

use pieces::Pieces;
use stream::stream;

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

/// Takes the bytes of a file in order.
pub trait Sink {
    /// The next bytes.
    ///
    /// # Errors
    /// They cannot be written, or are not those that are wanted.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The next bytes are so many zeros that take no room.
    ///
    /// # Errors
    /// As [`Sink::data`].
    fn hole(&mut self, len: u64) -> io::Result<()>;
}

/// Where there are no holes, zeros are written.
impl<W: Write + ?Sized> Sink for W {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn hole(&mut self, len: u64) -> io::Result<()> {
        io::copy(&mut io::repeat(0).take(len), self).map(drop)
    }
}

/// Knows bytes of a file that need not be read from the vault.
pub(crate) trait Near: Sync {
    /// The `len` bytes at `at`, if they are those of the chunk.
    fn find(&self, at: u64, id: ObjectId, len: u64) -> Option<Bytes>;
}

/// A piece of a file that has been read.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Data(Bytes),
    Hole(u64),
}

impl Part {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Data(bytes) => bytes.len() as u64,
            Self::Hole(len) => *len,
        }
    }

    pub(crate) fn put(&self, out: &mut dyn Sink) -> io::Result<()> {
        match self {
            Self::Data(bytes) => out.data(bytes),
            Self::Hole(len) => out.hole(*len),
        }
    }
}

/// Writes the content of a file to `out`; returns how many bytes.
///
/// # Errors
/// [`DumpError`]; `out` may by then have received a beginning of the content.
pub fn dump_file(source: &dyn ObjectSource, entry: &Entry, out: &mut dyn Sink) -> Result<u64, DumpError> {
    match &entry.body {
        Body::File { size, content, .. } => dump_content(source, (content, *size), None, out),
        Body::Directory { .. } | Body::Folded(_) | Body::Symlink(_) | Body::Special(_) => {
            Err(DumpError::NotAFile)
        }
    }
}

/// As [`dump_file`], from the parts of an entry.
pub(crate) fn dump_content(
    source: &dyn ObjectSource,
    (content, size): (&Content, u64),
    near: Option<&dyn Near>,
    out: &mut dyn Sink,
) -> Result<u64, DumpError> {
    let found = match content {
        Content::Empty => 0,
        Content::Inline(bytes) => put(out, bytes)?,
        Content::Member { bundle, member } => {
            let object = read_one(source, *bundle)?;
            put(out, &member_of(&object, *bundle, *member)?)?
        }
        Content::Chunks(pieces) => stream(source, Pieces::new(source, pieces.clone()), (near, size), out)?,
        Content::Flist(id) => stream(source, Pieces::from_flist(source, *id)?, (near, size), out)?,
    };
    if found == size { Ok(found) } else { Err(DumpError::Size { expected: size, found }) }
}

/// Where a file has data: runs of bytes, each with its place; all of it where there are no holes.
pub(crate) fn extents(source: &dyn ObjectSource, entry: &Entry) -> Result<Vec<(u64, u64)>, DumpError> {
    let Body::File { size, content, .. } = &entry.body else { return Err(DumpError::NotAFile) };
    let mut pieces = match content {
        Content::Empty | Content::Inline(_) | Content::Member { .. } => return Ok(vec![(0, *size)]),
        Content::Chunks(pieces) => Pieces::new(source, pieces.clone()),
        Content::Flist(id) => Pieces::from_flist(source, *id)?,
    };
    let (mut at, mut runs) = (0u64, Vec::<(u64, u64)>::new());
    while let Some(piece) = pieces.next()? {
        match (piece.id(), runs.last_mut()) {
            (Some(_), Some((start, len))) if *start + *len == at => *len += piece.len(),
            (Some(_), _) => runs.push((at, piece.len())),
            (None, _) => {}
        }
        at = at.saturating_add(piece.len());
    }
    if at == *size { Ok(runs) } else { Err(DumpError::Size { expected: *size, found: at }) }
}

fn put(out: &mut dyn Sink, bytes: &[u8]) -> io::Result<u64> {
    out.data(bytes)?;
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
