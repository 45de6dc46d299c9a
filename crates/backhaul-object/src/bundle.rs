//! Bundles: many small files in one object and one compression frame.
//!
//! Payload: one varint per member, 0 for a dropped member and length + 1 for a present one, then the
//! present members' bytes in order. The id is over the member ids (see [`Object::identify`]).

mod cutter;

pub use cutter::Cutter;

use bytes::Bytes;

use crate::codec::{FormatError, Reader, Write};
use crate::header::{Compressor, Header, Kind, MEMBERS_MAX, PLAIN_MAX};
use crate::ids::{ObjectId, Proof};
use crate::keys::IdKey;
use crate::seal::{Compressed, Object, identify_content};

/// A bundle being filled, in path order.
#[derive(Default)]
pub struct BundleBuilder {
    provides: Vec<(ObjectId, Proof)>,
    lengths: Vec<u8>,
    /// The contents, after as much room as the lengths commonly take: they are put before them, and nothing is moved.
    content: Vec<u8>,
}

/// Room for the lengths of a bundle's members.
const LENGTHS_ROOM: usize = 4 << 10;
/// Room for the contents of a bundle of a managed vault: its target, and one member more.
const CONTENT_ROOM: usize = (512 + 128) << 10;

impl BundleBuilder {
    /// Adds a file; returns its member number.
    pub fn push(&mut self, id: ObjectId, proof: Proof, content: &[u8]) -> usize {
        if self.content.is_empty() {
            self.content.reserve(LENGTHS_ROOM + CONTENT_ROOM);
            self.content.resize(LENGTHS_ROOM, 0);
        }
        self.provides.push((id, proof));
        self.lengths.put_varint(content.len() as u64 + 1);
        self.content.extend_from_slice(content);
        self.provides.len() - 1
    }

    /// Bytes of content so far.
    pub fn len(&self) -> usize {
        self.content.len().saturating_sub(LENGTHS_ROOM)
    }

    /// True before the first member.
    pub fn is_empty(&self) -> bool {
        self.provides.is_empty()
    }

    /// True when no further member fits.
    pub fn is_full(&self, target: usize) -> bool {
        self.len() >= target || self.provides.len() >= MEMBERS_MAX
    }

    /// The finished object.
    pub fn finish(self) -> Object {
        let (lengths, mut content) = (self.lengths, self.content);
        let payload = match LENGTHS_ROOM.checked_sub(lengths.len()) {
            Some(start) if !content.is_empty() => {
                content[start..LENGTHS_ROOM].copy_from_slice(&lengths);
                Bytes::from(content).slice(start..)
            }
            _ => [&lengths[..], content.get(LENGTHS_ROOM..).unwrap_or_default()].concat().into(),
        };
        Object { kind: Kind::Bundle, references: Vec::new(), provides: self.provides, payload }
    }
}

/// The members of an opened bundle, `None` where one was dropped.
///
/// # Errors
/// A table that does not fit the payload.
pub fn members(object: &Object) -> Result<Vec<Option<Bytes>>, FormatError> {
    let mut r = Reader::new(&object.payload);
    let mut lengths = Vec::with_capacity(object.provides.len());
    for _ in &object.provides {
        lengths.push(r.count("member length", PLAIN_MAX)?);
    }
    let mut at = object.payload.len() - r.rest().len();
    let mut out = Vec::with_capacity(lengths.len());
    for length in lengths {
        out.push(match length.checked_sub(1) {
            None => None,
            Some(len) if len <= object.payload.len() - at => {
                at += len;
                Some(object.payload.slice(at - len..at))
            }
            Some(_) => return Err(FormatError::Truncated("bundle member")),
        });
    }
    if at != object.payload.len() {
        return Err(FormatError::Invalid("trailing bytes after the last member"));
    }
    Ok(out)
}

/// The contents of a bundle that has all of its members, one after the other.
///
/// # Errors
/// As [`members`]; or one was dropped.
pub fn contents(object: &Object) -> Result<Bytes, FormatError> {
    let mut len = 0;
    for member in members(object)? {
        len += member.ok_or(FormatError::Invalid("a bundle with members left out"))?.len();
    }
    Ok(object.payload.slice(object.payload.len() - len..))
}

/// A bundle with none of its members, from its header: it tells their ids, by which whoever has their contents recognises
/// them, and no proofs.
///
/// # Errors
/// Not a bundle.
pub fn none_of(header: Header) -> Result<Compressed, FormatError> {
    if header.kind != Kind::Bundle {
        return Err(FormatError::Invalid("not a bundle"));
    }
    let provides: Vec<_> = header.provides.into_iter().map(|(id, _)| (id, Proof([0; 16]))).collect();
    let body = Bytes::from(vec![0; provides.len()]);
    let (compressor, plain_len) = (Compressor::Raw, body.len() as u32);
    Ok(Compressed { header: Header { compressor, plain_len, provides, ..header }, body })
}

/// Re-hashes every present member against the clear header.
pub(crate) fn verify(object: &Object, key: &IdKey) -> Result<(), FormatError> {
    for (member, claimed) in members(object)?.iter().zip(&object.provides) {
        if let Some(content) = member
            && identify_content(key, content) != *claimed
        {
            return Err(FormatError::Mismatch("bundle member"));
        }
    }
    Ok(())
}
