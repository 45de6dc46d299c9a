//! Says what contents that a client owns are like, so that it can send later ones as differences to them (docs/protocol.md, "A
//! session"): it has no earlier version of a file that has changed, and this is a hundredth of it.

use std::ops::Range;
use std::sync::Mutex;

use backhaul_object::keys::ChunkerKey;
use backhaul_object::patch::{self, program_of, substance};
use backhaul_object::seal::Unpacker;
use backhaul_object::signature::SignatureKey;
use backhaul_object::source::{Kin, Spot};
use backhaul_object::{Compressed, FormatError, Kind, Object, ObjectId, Reference, bundle};
use backhaul_proto::end;
use backhaul_proto::signing::SIGNED_MAX;
use backhaul_store::{Owned, StoreError};
use bytes::Bytes;

use super::bases::Base;
use super::{Ending, OpenVault, lock};

/// Bytes that are unpacked for one question: of many small files that lay far apart the last are not described.
const OPENED_MAX: usize = 256 << 20;

/// The signatures of what is at these spots, as far as it is there and wholly the client's. What is itself stored as a difference is
/// described by what it was made of: nothing is built on what is itself built.
///
/// # Errors
/// The catalog cannot be read. An object that cannot be is left out: what was to be built on it is sent whole.
pub(super) fn sign(vault: &OpenVault, owned: &Mutex<Owned>, spots: &[Spot]) -> Result<Vec<Kin>, Ending> {
    let key = SignatureKey::new(&ChunkerKey::new(vault.chunker_key));
    let unpacker = Unpacker::new().map_err(|error| Ending::new(end::STORAGE, error.to_string()))?;
    let mut asker = Asker { vault, owned, unpacker, opened: 0 };
    let (mut kin, mut room) = (Vec::new(), SIGNED_MAX);
    for (of, spot) in spots.iter().enumerate() {
        if asker.opened > OPENED_MAX {
            break;
        }
        let stretches = match asker.stretches(spot) {
            Ok(stretches) => stretches,
            Err(
                error @ (StoreError::Damaged { .. }
                | StoreError::MissingReference(_)
                | StoreError::NotFound(_)
                | StoreError::Io { .. }),
            ) => {
                tracing::warn!(
                    "nothing is built on object {}: {error}; run `backhaul check --read-data`",
                    spot.object
                );
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for Stretch { base, content, range } in stretches {
            let Some(left) = room.checked_sub(range.len()) else { continue };
            room = left;
            let mut signature = key.sign(&content[range.clone()]);
            signature.at = range.start;
            kin.push(Kin { of, base, signature });
        }
    }
    Ok(kin)
}

/// A part of a base.
struct Stretch {
    base: Reference,
    content: Bytes,
    range: Range<usize>,
}

/// What may be built on.
struct Asker<'v> {
    vault: &'v OpenVault,
    owned: &'v Mutex<Owned>,
    unpacker: Unpacker,
    opened: usize,
}

impl Asker<'_> {
    fn stretches(&mut self, spot: &Spot) -> Result<Vec<Stretch>, StoreError> {
        let Some(base) = self.mine(&spot.object)? else { return Ok(Vec::new()) };
        match (base, spot.member) {
            (Base::Whole(object), member) => Ok(part(&spot.object, &object, member).into_iter().collect()),
            (Base::Patch(stored), None) => self.below(&stored),
            (Base::Patch(_), Some(_)) | (Base::Unfit, _) => Ok(Vec::new()),
        }
    }

    /// The parts of its bases that a patch copies from.
    fn below(&mut self, stored: &Compressed) -> Result<Vec<Stretch>, StoreError> {
        let damaged = |why: FormatError| {
            let what = format!("object {}", stored.header.id);
            StoreError::Damaged { what, why: why.to_string() }
        };
        self.opened += stored.header.plain_len as usize;
        let program = program_of(stored, &mut self.unpacker).map_err(damaged)?;
        let stretches = program.stretches(stored.header.references.len());
        let mut found = Vec::new();
        for (base, stretch) in stored.header.references.iter().zip(stretches) {
            let Some(Base::Whole(object)) = self.mine(&base.id)? else { continue };
            let content = substance(&object, base).map_err(damaged)?;
            if stretch.end <= content.len() {
                found.push(Stretch { base: base.clone(), content, range: stretch });
            }
        }
        Ok(found)
    }

    /// An object that the client owns, and may rely on from now on.
    fn mine(&mut self, id: &ObjectId) -> Result<Option<Base>, StoreError> {
        let Some(ordinal) = self.vault.vault.ordinal(id)? else { return Ok(None) };
        let is_mine = lock(self.owned).has(ordinal);
        if !is_mine || !self.vault.vault.claim(ordinal)? {
            return Ok(None);
        }
        let (base, unpacked) = self.vault.base(id, &mut self.unpacker)?;
        self.opened += unpacked;
        Ok(Some(base))
    }
}

/// A chunk, or a member of a bundle, as a part of a base.
fn part(id: &ObjectId, object: &Object, member: Option<u16>) -> Option<Stretch> {
    match (object.kind, member) {
        (Kind::Chunk, None) => {
            let content = object.payload.clone();
            let range = 0..content.len();
            Some(Stretch { base: patch::base(*id), content, range })
        }
        (Kind::Bundle, Some(member)) => {
            let base = patch::base_of_members(*id, object.provides.len())?;
            let members: Option<Vec<Bytes>> = bundle::members(object).ok()?.into_iter().collect();
            let (members, member) = (members?, usize::from(member));
            let start = members.get(..member)?.iter().map(Bytes::len).sum();
            let range = start..start + members.get(member)?.len();
            Some(Stretch { base, content: bundle::contents(object).ok()?, range })
        }
        _ => None,
    }
}
