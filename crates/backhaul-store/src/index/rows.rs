//! The rows of the index files as bytes, version 2 (docs/format.md, "The index").

use std::ops::Range;

use backhaul_object::codec::{Reader, Write};
use backhaul_object::header::{MEMBERS_MAX, REFERENCES_MAX};
use backhaul_object::{ObjectId, ShortId};

use super::{Edge, Location, Ordinal};
use crate::error::{Of, StoreError};

/// Bytes of a row of `ids`.
pub(super) const ID_LEN: u64 = 24;
/// Bytes of a row of `places`.
pub(super) const PLACE_LEN: u64 = 10;
/// Bytes of a row of `parents`.
pub(super) const PARENT_LEN: u64 = 16;
/// Bytes of a row of `contents`.
pub(super) const CONTENT_LEN: u64 = 31;

const OFFSET_BITS: u32 = 26;
const LEN_BITS: u32 = 24;
const PACK_BITS: u32 = 30;
/// A byte of references that are no more: nothing refers to itself.
pub(super) const DROPPED: u8 = 0;
/// The member number of a row that is about the bundle itself.
const BUNDLE_ITSELF: u16 = u16::MAX;

/// The location of an object that was lost.
pub(super) const LOST: Location = Location { pack: 0, offset: 0, len: 0 };
/// The location of an object that was lost together with what it referred to.
pub(super) const BLANK: Location = Location { pack: 0, offset: 1, len: 0 };

/// An object that refers to something, and where in `references` that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Which.
    pub ordinal: Ordinal,
    /// Bytes of `references`.
    pub span: Range<u64>,
}

/// The row of a place.
pub(super) fn place(at: Location) -> Result<[u8; PLACE_LEN as usize], StoreError> {
    let fits = at.pack >> PACK_BITS == 0 && at.offset >> OFFSET_BITS == 0 && at.len >> LEN_BITS == 0;
    if !fits {
        return Err(StoreError::damaged("the record", format!("no pack has such a place: {at:?}")));
    }
    Ok(place_unchecked(at))
}

fn place_unchecked(at: Location) -> [u8; PLACE_LEN as usize] {
    let packed = u128::from(at.pack) << (OFFSET_BITS + LEN_BITS)
        | u128::from(at.offset) << LEN_BITS
        | u128::from(at.len);
    let mut row = [0; PLACE_LEN as usize];
    row.copy_from_slice(&packed.to_le_bytes()[..PLACE_LEN as usize]);
    row
}

/// The row of an object that was lost with what it referred to.
pub(super) fn blank() -> [u8; PLACE_LEN as usize] {
    place_unchecked(BLANK)
}

/// The place in a row.
pub(super) fn location(row: &[u8; PLACE_LEN as usize]) -> Location {
    let mut raw = [0; 16];
    raw[..row.len()].copy_from_slice(row);
    let packed = u128::from_le_bytes(raw);
    let part = |shift: u32, bits: u32| (packed >> shift & ((1 << bits) - 1)) as u32;
    Location {
        pack: part(OFFSET_BITS + LEN_BITS, PACK_BITS),
        offset: part(LEN_BITS, OFFSET_BITS),
        len: part(0, LEN_BITS),
    }
}

/// A row of `contents`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A bundle, before its members, with the last 24 bytes of its id.
    Bundle { tail: [u8; 24], bundle: Ordinal },
    /// A member.
    Member { id: ShortId, bundle: Ordinal, member: u16 },
}

/// The row of a bundle or of a member.
pub(super) fn content(content: Content) -> [u8; CONTENT_LEN as usize] {
    let mut row = [0; CONTENT_LEN as usize];
    let (bundle, number) = match content {
        Content::Bundle { tail, bundle } => {
            row[..24].copy_from_slice(&tail);
            (bundle, BUNDLE_ITSELF)
        }
        Content::Member { id, bundle, member } => {
            row[..24].copy_from_slice(&id.0);
            (bundle, member)
        }
    };
    row[24..29].copy_from_slice(&bundle.0.to_le_bytes()[..5]);
    row[29..].copy_from_slice(&number.to_le_bytes());
    row
}

/// What a row of `contents` says.
pub(super) fn content_of(row: &[u8; CONTENT_LEN as usize]) -> Content {
    let (mut id, mut raw) = ([0; 24], [0; 8]);
    id.copy_from_slice(&row[..24]);
    raw[..5].copy_from_slice(&row[24..29]);
    let bundle = Ordinal(u64::from_le_bytes(raw));
    match u16::from_le_bytes([row[29], row[30]]) {
        BUNDLE_ITSELF => Content::Bundle { tail: id, bundle },
        member => Content::Member { id: ShortId(id), bundle, member },
    }
}

/// True for the row of a member.
pub(super) fn is_member(row: &[u8]) -> bool {
    row[CONTENT_LEN as usize - 2..] != BUNDLE_ITSELF.to_le_bytes()
}

/// The last 24 bytes of an id.
pub(super) fn tail(id: &ObjectId) -> [u8; 24] {
    let mut tail = [0; 24];
    tail.copy_from_slice(&id.0[8..]);
    tail
}

/// The whole of an id from its first and its last 24 bytes, if they fit each other.
pub(super) fn join(short: ShortId, tail: [u8; 24]) -> Option<ObjectId> {
    let mut id = [0; 32];
    id[..24].copy_from_slice(&short.0);
    id[24..].copy_from_slice(&tail[16..]);
    (tail[..16] == short.0[8..]).then_some(ObjectId(id))
}

/// The row of a parent: its number, and where its references end.
pub(super) fn parent(ordinal: Ordinal, end: u64) -> [u8; PARENT_LEN as usize] {
    let mut row = [0; PARENT_LEN as usize];
    row[..8].copy_from_slice(&ordinal.0.to_le_bytes());
    row[8..].copy_from_slice(&end.to_le_bytes());
    row
}

/// Number and end of a row of `parents`.
pub(super) fn parent_of(row: &[u8; PARENT_LEN as usize]) -> (Ordinal, u64) {
    let word = |at: usize| {
        let mut raw = [0; 8];
        raw.copy_from_slice(&row[at..at + 8]);
        u64::from_le_bytes(raw)
    };
    (Ordinal(word(0)), word(8))
}

/// Rows of `parents` with the end of the one before them as spans.
///
/// # Errors
/// Their numbers or their ends are not in order.
pub(super) fn parents(raw: &[u8], mut start: u64, objects: u64) -> Result<Vec<Parent>, StoreError> {
    let mut found: Vec<Parent> = Vec::with_capacity(raw.len() / PARENT_LEN as usize);
    for row in raw.as_chunks().0 {
        let (ordinal, end) = parent_of(row);
        let follows = found.last().is_none_or(|before| before.ordinal < ordinal);
        if !follows || ordinal.0 >= objects || end < start {
            return Err(StoreError::damaged("index/parents", "it is not in order"));
        }
        found.push(Parent { ordinal, span: start..end });
        start = end;
    }
    Ok(found)
}

/// References of a parent, as bytes: how far back each is, doubled, and one more when members are named.
pub(super) fn references(parent: Ordinal, edges: &[Edge], out: &mut Vec<u8>) -> Result<(), StoreError> {
    for Edge { to, members } in edges {
        let back = parent.0.checked_sub(to.0).filter(|back| *back > 0);
        let back = back.ok_or_else(|| senseless(parent))?;
        out.put_varint(back << 1 | u64::from(!members.is_empty()));
        if !members.is_empty() {
            out.put_bytes(members);
        }
    }
    Ok(())
}

/// The edges in bytes of references.
pub(super) fn edges(parent: Ordinal, raw: &[u8]) -> Result<Vec<Edge>, StoreError> {
    let mut r = Reader::new(raw);
    let mut edges = Vec::new();
    while !r.is_empty() && edges.len() <= REFERENCES_MAX {
        let word = r.varint("reference").of(|| "index".into())?;
        if word == u64::from(DROPPED) {
            continue;
        }
        let to = parent.0.checked_sub(word >> 1).filter(|to| *to < parent.0);
        let to = Ordinal(to.ok_or_else(|| senseless(parent))?);
        let members = match word & 1 {
            0 => Vec::new(),
            _ => r.bytes("members", MEMBERS_MAX / 8).of(|| "index".into())?.to_vec(),
        };
        edges.push(Edge { to, members });
    }
    Ok(edges)
}

/// Calls `each` with what a parent's references lead to.
///
/// # Errors
/// They are not what was written, or lead to no smaller number.
pub(super) fn targets(
    parent: Ordinal,
    mut raw: &[u8],
    each: &mut impl FnMut(Ordinal),
) -> Result<(), StoreError> {
    let bad = || senseless(parent);
    while !raw.is_empty() {
        let word = varint(&mut raw).ok_or_else(bad)?;
        if word == u64::from(DROPPED) {
            continue;
        }
        let to = parent.0.checked_sub(word >> 1).filter(|to| *to < parent.0).ok_or_else(bad)?;
        if word & 1 == 1 {
            let members = varint(&mut raw).ok_or_else(bad)?;
            raw = usize::try_from(members).ok().and_then(|n| raw.get(n..)).ok_or_else(bad)?;
        }
        each(Ordinal(to));
    }
    Ok(())
}

fn senseless(parent: Ordinal) -> StoreError {
    let why = format!("the references of object number {} make no sense", parent.0);
    StoreError::damaged("index/references", why)
}

fn varint(raw: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (i, byte) in raw.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *raw = &raw[i + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::pack::Class;

    proptest! {
        #[test]
        fn rows_come_back_as_they_went(
            (pack, offset, len) in (0u32..1 << 30, 0u32..1 << 26, 0u32..1 << 24),
            (bundle, member) in (0u64..1 << 40, 0u16..1_024),
            parent in 1u64..1 << 40,
            edges in proptest::collection::vec((1u64.., proptest::collection::vec(1u8.., 0..4)), 0..20),
        ) {
            let at = Location { pack, offset, len };
            prop_assert_eq!(location(&place(at).unwrap()), at);
            let bundle = Ordinal(bundle);
            for one in [Content::Bundle { tail: [7; 24], bundle }, Content::Member { id: ShortId([3; 24]), bundle, member }] {
                prop_assert_eq!(content_of(&content(one)), one);
            }
            let edges: Vec<Edge> = edges.into_iter()
                .map(|(to, members)| Edge { to: Ordinal(to % parent), members })
                .collect();
            let mut raw = Vec::new();
            references(Ordinal(parent), &edges, &mut raw).unwrap();
            prop_assert_eq!(super::edges(Ordinal(parent), &raw).unwrap(), edges.clone());
            let mut seen = Vec::new();
            targets(Ordinal(parent), &raw, &mut |to| seen.push(to)).unwrap();
            prop_assert_eq!(seen, edges.iter().map(|edge| edge.to).collect::<Vec<_>>());
        }

        #[test]
        fn bytes_that_nobody_wrote_are_refused_or_lead_to_smaller_numbers(
            raw in proptest::collection::vec(any::<u8>(), 0..60), parent in 0u64..1 << 40,
        ) {
            let _ = targets(Ordinal(parent), &raw, &mut |to| assert!(to.0 < parent));
            if let Ok(edges) = edges(Ordinal(parent), &raw) {
                prop_assert!(edges.iter().all(|edge| edge.to.0 < parent));
            }
            let _ = parents(&raw, 0, 1_000);
        }
    }

    /// Records begin before the size at which a pack is sealed, and none is larger than its parts may be.
    #[test]
    fn every_pack_that_is_written_fits() {
        let header = 64 + REFERENCES_MAX * (32 + 2 + MEMBERS_MAX / 8) + MEMBERS_MAX * 48;
        let record = crate::pack::RECORD_HEAD_LEN + header + (8 << 20) + 64;
        let last = Class::Data.target().max(Class::Meta.target()) as u32 - 1;
        assert!(place(Location { pack: (1 << 30) - 1, offset: last, len: record as u32 }).is_ok());
        assert!(place(Location { pack: 1, offset: last + 1, len: 9 }).is_err());
        assert!(place(Location { pack: 1 << 30, offset: 64, len: 9 }).is_err());
        assert!(place(Location { pack: 1, offset: 64, len: 1 << 24 }).is_err());
    }
}
