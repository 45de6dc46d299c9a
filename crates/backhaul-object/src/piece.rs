//! What a file is made of, in order: data in chunks, and holes.

use crate::codec::{FormatError, Reader, Write};
use crate::header::REFERENCES_MAX;
use crate::ids::ObjectId;

/// Stands where a reference index would: no object has so many that it could be one.
const HOLE: usize = REFERENCES_MAX;

/// One piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// Bytes that are in an object.
    Data {
        /// Its chunk (level 0) or list.
        id: ObjectId,
        /// Bytes of the file that it covers.
        len: u64,
    },
    /// Zeros that take no room.
    Hole {
        /// How many; never none.
        len: u64,
    },
}

impl Piece {
    /// Bytes of the file that it covers.
    #[allow(clippy::len_without_is_empty, reason = "no piece is empty")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Data { len, .. } | Self::Hole { len } => *len,
        }
    }

    /// The object with its bytes, if there is one.
    pub fn id(&self) -> Option<ObjectId> {
        match self {
            Self::Data { id, .. } => Some(*id),
            Self::Hole { .. } => None,
        }
    }

    /// Appends length and reference; `index` says which reference an object is.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, index: impl FnOnce(ObjectId) -> u64) {
        out.put_varint(self.len());
        out.put_varint(self.id().map_or(HOLE as u64, index));
    }

    /// Reads what [`Piece::encode`] wrote; `id` says which object a reference is.
    pub(crate) fn decode(
        r: &mut Reader<'_>,
        id: impl FnOnce(usize) -> Option<ObjectId>,
    ) -> Result<Self, FormatError> {
        let len = r.varint("piece length")?;
        match r.count("piece reference", REFERENCES_MAX)? {
            HOLE if len == 0 => Err(FormatError::Invalid("a hole of no bytes")),
            HOLE => Ok(Self::Hole { len }),
            index => {
                id(index).map(|id| Self::Data { id, len }).ok_or(FormatError::Invalid("piece out of range"))
            }
        }
    }
}
