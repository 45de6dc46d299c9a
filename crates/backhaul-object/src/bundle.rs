//! Bundles: many small files in one object and one compression frame.
//!
//! Payload: one varint per member, 0 for a dropped member and length + 1 for a present one, then the
//! present members' bytes in order. The id is over the member ids (see [`Object::identify`]).

use bytes::Bytes;

use crate::codec::{FormatError, Reader, Write};
use crate::header::{Kind, MEMBERS_MAX, PLAIN_MAX};
use crate::ids::{ObjectId, Proof};
use crate::keys::IdKey;
use crate::seal::{Object, identify_content};

/// A bundle being filled, in path order.
#[derive(Default)]
pub struct BundleBuilder {
    provides: Vec<(ObjectId, Proof)>,
    lengths: Vec<u8>,
    content: Vec<u8>,
}

impl BundleBuilder {
    /// Adds a file; returns its member number.
    pub fn push(&mut self, id: ObjectId, proof: Proof, content: &[u8]) -> usize {
        self.provides.push((id, proof));
        self.lengths.put_varint(content.len() as u64 + 1);
        self.content.extend_from_slice(content);
        self.provides.len() - 1
    }

    /// Bytes of content so far.
    pub fn len(&self) -> usize {
        self.content.len()
    }

    /// True before the first member.
    pub fn is_empty(&self) -> bool {
        self.provides.is_empty()
    }

    /// True when no further member fits.
    pub fn is_full(&self, target: usize) -> bool {
        self.content.len() >= target || self.provides.len() >= MEMBERS_MAX
    }

    /// The finished object.
    pub fn finish(self) -> Object {
        let mut payload = self.lengths;
        payload.extend_from_slice(&self.content);
        Object {
            kind: Kind::Bundle,
            references: Vec::new(),
            provides: self.provides,
            payload: Bytes::from(payload),
        }
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
