//! What was in a file's place before, as the sink describes it: so that what has changed goes as a patch of that, though nobody here
//! has it any more. Large files are compared by signatures that were kept of them ([`super::drafts`]); of all others none are
//! kept, for most never change.

use std::ops::Range;

use backhaul_object::entry::Content;
use backhaul_object::keys::ChunkerKey;
use backhaul_object::patch::BASES_MAX;
use backhaul_object::piece::Piece;
use backhaul_object::seal::Packer;
use backhaul_object::signature::{Signature, SignatureKey};
use backhaul_object::source::{Kin, Spot};
use backhaul_object::{Kind, Object};
use bytes::Bytes;

use super::events::{Found, Whole};
use super::outbound::{Task, pack};

/// How far from its place a chunk is looked for.
const MARGIN: u64 = 64 << 10;
/// A chunk goes as a patch if at most so many parts of 100 are not copied.
const CHUNK_LITERALS: usize = 40;
/// The same of a small file, and what it must save besides: it gives up its place in a bundle, where it would cost a quarter of its
/// length or less, for a record, references and rows of the index of its own.
const SMALL_LITERALS: usize = 30;
const SMALL_COST: usize = 600;

/// Where the parts of a file's former content are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Former(Vec<(Range<u64>, Spot)>);

impl Former {
    /// Of a file that was this; nothing of one that has a list of its chunks.
    pub(super) fn of(content: &Content) -> Self {
        match content {
            Content::Member { bundle, member } => {
                Self(vec![(0..u64::MAX, Spot { object: *bundle, member: Some(*member) })])
            }
            Content::Chunks(pieces) => {
                let mut at = 0;
                let place = |piece: &Piece| match *piece {
                    Piece::Data { id, len } => {
                        at += len;
                        Some((at - len..at, Spot { object: id, member: None }))
                    }
                    Piece::Hole { len } => {
                        at += len;
                        None
                    }
                };
                Self(pieces.iter().filter_map(place).collect())
            }
            Content::Empty | Content::Inline(_) | Content::Flist(_) => Self::default(),
        }
    }

    /// What was at or near this place of the file.
    pub(super) fn near(&self, offset: u64, len: usize) -> Vec<Spot> {
        let (from, to) = (offset.saturating_sub(MARGIN), offset + len as u64 + MARGIN);
        let is_near = |(at, _): &&(Range<u64>, Spot)| at.start < to && at.end > from;
        self.0.iter().filter(is_near).map(|(_, spot)| *spot).take(BASES_MAX).collect()
    }
}

/// Finds former contents in new ones.
pub(super) struct Kinship {
    key: SignatureKey,
    packer: Packer,
}

impl Kinship {
    /// Nothing where there is no memory for it.
    pub(super) fn new(key: &ChunkerKey) -> Option<Self> {
        Some(Self { key: SignatureKey::new(key), packer: Packer::of_backups().ok()? })
    }

    /// True if it is worth it to ask what was in the place of such a content.
    pub(super) fn is_worth_it(len: usize, whole: Whole) -> bool {
        literals_max(len, whole) > 0
    }

    /// A content as a patch of what is described, if it is little else. A small one gives up its place in a bundle only for what will
    /// be sent.
    pub(super) fn patch(&mut self, found: &Found, kin: &[Kin]) -> Option<Object> {
        let patch = self.draft(&found.content, found.whole, kin)?;
        if found.whole == Whole::Small {
            let object = Object {
                kind: Kind::Chunk,
                references: vec![],
                provides: vec![],
                payload: found.content.clone(),
            };
            let task = Task { name: (found.id, found.proof), object, patch: Some(patch.clone()) };
            let sent = pack(task, &mut self.packer).ok()?;
            return (sent.header.kind == Kind::Patch).then_some(patch);
        }
        Some(patch)
    }

    fn draft(&self, content: &[u8], whole: Whole, kin: &[Kin]) -> Option<Object> {
        let is_first =
            |(n, one): &(usize, &Kin)| kin[..*n].iter().all(|before| before.base.id != one.base.id);
        let bases = kin.iter().enumerate().filter(is_first).take(BASES_MAX);
        let (references, signatures): (Vec<_>, Vec<Signature>) =
            bases.map(|(_, one)| (&one.base, one.signature.clone())).unzip();
        let (program, used) =
            self.key.difference(&signatures, content, literals_max(content.len(), whole))?;
        let references = used.into_iter().map(|n| references[n].clone()).collect();
        let payload = Bytes::from(program.encode());
        Some(Object { kind: Kind::Patch, references, provides: vec![], payload })
    }
}

fn literals_max(len: usize, whole: Whole) -> usize {
    match whole {
        Whole::Chunk => len * CHUNK_LITERALS / 100,
        Whole::Small => (len * SMALL_LITERALS / 100).saturating_sub(SMALL_COST),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use backhaul_object::{ObjectId, Proof};

    use super::*;

    fn id(n: u8) -> ObjectId {
        ObjectId([n; 32])
    }

    #[test]
    fn what_was_near_is_found_by_its_place() {
        let data = |n, len| Piece::Data { id: id(n), len };
        let pieces = vec![data(1, 1 << 20), Piece::Hole { len: 1 << 20 }, data(2, 1 << 20), data(3, 1 << 20)];
        let former = Former::of(&Content::Chunks(pieces));
        let near = |offset: u64, len| {
            former.near(offset, len).into_iter().map(|spot| spot.object).collect::<Vec<_>>()
        };
        assert_eq!(near(0, 1 << 20), [id(1)]);
        assert_eq!(near(1_500_000, 1_000), []);
        assert_eq!(near(2 << 20, 1 << 20), [id(2), id(3)], "with what begins within the margin");
        assert_eq!(near(5 << 20, 1 << 20), []);
        let member = Former::of(&Content::Member { bundle: id(9), member: 4 });
        assert_eq!(member.near(0, 77), [Spot { object: id(9), member: Some(4) }]);
        assert_eq!(Former::of(&Content::Flist(id(1))), Former::default());
    }

    #[test]
    fn one_base_is_referred_to_once_and_nothing_goes_as_a_patch_that_is_mostly_new_or_cheap_as_it_is() {
        let mut kinship = Kinship::new(&ChunkerKey::new([3; 32])).unwrap();
        let old: Vec<u8> =
            (0..20_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()).collect();
        let base = backhaul_object::patch::base(id(1));
        let signature = kinship.key.sign(&old);
        let kin = |of, signature: &Signature| Kin { of, base: base.clone(), signature: signature.clone() };
        let found = |content: &[u8]| Found {
            id: id(7),
            proof: Proof([7; 16]),
            content: Bytes::copy_from_slice(content),
            whole: Whole::Small,
            draft: None,
            former: vec![],
        };
        let mut new = old.clone();
        new[30_000..30_004].copy_from_slice(b"edit");
        let patch = kinship.patch(&found(&new), &[kin(0, &signature), kin(1, &signature)]).unwrap();
        assert_eq!(patch.references, std::slice::from_ref(&base));
        assert!(patch.payload.len() < 1_200, "{} bytes", patch.payload.len());
        new[..60_000].reverse();
        assert_eq!(kinship.patch(&found(&new), &[kin(0, &signature)]), None);
        // Next to nothing in a bundle, however little of it is new.
        let mut plain = vec![b'x'; 6_000];
        let signature = kinship.key.sign(&plain);
        plain[3_000..3_004].copy_from_slice(b"edit");
        assert_eq!(kinship.patch(&found(&plain), &[kin(0, &signature)]), None);
        assert!(!Kinship::is_worth_it(2_000, Whole::Small) && Kinship::is_worth_it(2_001, Whole::Chunk));
    }
}
