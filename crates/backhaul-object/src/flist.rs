//! File lists: the chunks of one large file, in up to a few levels.
//!
//! Payload: level byte, then per entry (length in bytes, reference index). Level 0 refers to chunks and has the
//! holes, level n refers to lists of level n - 1. A list is cut after an entry whose id has [`SPLIT_BITS`] low zero bits, so a
//! changed chunk rewrites one list per level.

use bytes::Bytes;

use crate::codec::{FormatError, Reader, Write};
use crate::header::{Kind, REFERENCES_MAX, Reference};
use crate::ids::ObjectId;
use crate::keys::IdKey;
use crate::piece::Piece;
use crate::seal::Object;

/// One list in 2^10 entries on average.
const SPLIT_BITS: u64 = 10;
/// Bounds on the entries of one list.
const ENTRIES: std::ops::Range<usize> = 256..4_096;
/// Deepest list: 1024^4 chunks of 1 MiB are far over any file.
const LEVELS_MAX: u8 = 4;

/// A decoded list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flist {
    /// 0 when the pieces are chunks.
    pub level: u8,
    /// In file order.
    pub pieces: Vec<Piece>,
}

/// Writes the lists of one file; `emit` receives them children first. Returns the top list.
pub fn build(pieces: &[Piece], key: &IdKey, mut emit: impl FnMut(ObjectId, Object)) -> ObjectId {
    let mut level = 0;
    let mut current = pieces.to_vec();
    loop {
        let mut next = Vec::new();
        for group in groups(&current) {
            let object = encode(level, group);
            let (id, _) = object.identify(key);
            next.push(Piece::Data { id, len: group.iter().map(Piece::len).fold(0, u64::saturating_add) });
            emit(id, object);
        }
        if let [Piece::Data { id, .. }] = next[..] {
            return id;
        }
        current = next;
        level += 1;
    }
}

fn groups(pieces: &[Piece]) -> impl Iterator<Item = &[Piece]> {
    let mut rest = pieces;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let wanted = |(i, p): (usize, &Piece)| {
            let zeros = p.id().map_or(0, |id| u64::from(id.prefix().trailing_zeros()));
            i + 1 >= ENTRIES.start && zeros >= SPLIT_BITS
        };
        let cut = rest.iter().enumerate().position(wanted).map_or(rest.len(), |i| i + 1);
        let (head, tail) = rest.split_at(cut.min(ENTRIES.end));
        rest = tail;
        Some(head)
    })
}

fn encode(level: u8, pieces: &[Piece]) -> Object {
    let mut payload = vec![level];
    let mut references: Vec<Reference> = Vec::new();
    let mut seen = std::collections::HashMap::new();
    payload.put_varint(pieces.len() as u64);
    for piece in pieces {
        piece.encode(&mut payload, |id| {
            *seen.entry(id).or_insert_with(|| {
                references.push(Reference::whole(id));
                references.len() as u64 - 1
            })
        });
    }
    Object { kind: Kind::Flist, references, provides: Vec::new(), payload: Bytes::from(payload) }
}

/// Reads a list.
///
/// # Errors
/// Another kind, or a payload that breaks the format.
pub fn decode(object: &Object) -> Result<Flist, FormatError> {
    if object.kind != Kind::Flist {
        return Err(FormatError::Invalid("not a file list"));
    }
    let mut r = Reader::new(&object.payload);
    let level = r.u8("level")?;
    if level > LEVELS_MAX {
        let (value, limit) = (u64::from(level), u64::from(LEVELS_MAX));
        return Err(FormatError::TooLarge { what: "file list level", value, limit });
    }
    let count = r.count("pieces", REFERENCES_MAX)?;
    let mut pieces = Vec::with_capacity(count);
    for _ in 0..count {
        let piece =
            Piece::decode(&mut r, |index| object.references.get(index).map(|reference| reference.id))?;
        if level > 0 && piece.id().is_none() {
            return Err(FormatError::Invalid("a hole in a list of lists"));
        }
        pieces.push(piece);
    }
    r.finish()?;
    Ok(Flist { level, pieces })
}
