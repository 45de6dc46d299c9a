//! What patches are made of, opened. Files that lay together change together, and what was described to a client is what its patches
//! are made of a moment later: so the last ones are kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use backhaul_object::patch::unpack_base;
use backhaul_object::seal::Unpacker;
use backhaul_object::{Compressed, FormatError, Kind, Object, ObjectId};
use backhaul_store::{Ordinal, StoreError};
use bytes::Bytes;

use super::OpenVault;

/// Bytes of contents that are kept, for all sessions together.
const KEPT_MAX: usize = 32 << 20;
/// Objects that are kept.
const OBJECTS_MAX: usize = 512;
/// Bytes that a member's id and proof take.
const MEMBER_LEN: usize = 48;

/// What a base is stored as.
pub(super) enum Base {
    /// A chunk or a bundle.
    Whole(Arc<Object>),
    /// A chunk, as a difference itself.
    Patch(Compressed),
    /// It is no base.
    Unfit,
}

/// Those that were opened last, by their numbers: an object that has gone and is there again has another, for it may be there in another
/// form. The newest is at the end.
#[derive(Default)]
pub(super) struct Bases(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    objects: VecDeque<(Ordinal, Arc<Object>)>,
    bytes: usize,
}

/// Bytes that an object takes.
fn size(object: &Object) -> usize {
    object.payload.len() + object.provides.len() * MEMBER_LEN
}

impl Bases {
    fn find(&self, number: Ordinal) -> Option<Arc<Object>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.objects.iter().rposition(|(known, _)| *known == number)?;
        let found = kept.objects.remove(at)?;
        let object = Arc::clone(&found.1);
        kept.objects.push_back(found);
        Some(object)
    }

    fn keep(&self, number: Ordinal, object: &Arc<Object>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += size(object);
        kept.objects.push_back((number, Arc::clone(object)));
        while kept.bytes > KEPT_MAX || kept.objects.len() > OBJECTS_MAX {
            let Some((_, oldest)) = kept.objects.pop_front() else { return };
            kept.bytes -= size(&oldest);
        }
    }
}

impl OpenVault {
    /// What may be a base, and how many bytes had to be unpacked for it. Whoever asks has made sure that it may be used.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub(super) fn base(&self, id: &ObjectId, unpacker: &mut Unpacker) -> Result<(Base, usize), StoreError> {
        let number = self.vault.ordinal(id)?.ok_or(StoreError::MissingReference(*id))?;
        if let Some(object) = self.bases.find(number) {
            return Ok((Base::Whole(object), 0));
        }
        let stored = self.unseal(&self.vault.get(number)?)?;
        match stored.header.kind {
            Kind::Chunk | Kind::Bundle => {}
            Kind::Patch => return Ok((Base::Patch(stored), 0)),
            _ => return Ok((Base::Unfit, 0)),
        }
        let damaged =
            |why: FormatError| StoreError::Damaged { what: format!("object {id}"), why: why.to_string() };
        let opened = unpack_base(&stored, unpacker).map_err(damaged)?;
        // What was unpacked has the room of the largest that ever was.
        let payload = Bytes::copy_from_slice(&opened.payload);
        let Object { kind, references, provides, payload: room } = opened;
        let unpacked = room.len();
        unpacker.take_back(room);
        let object = Arc::new(Object { kind, references, provides, payload });
        self.bases.keep(number, &object);
        Ok((Base::Whole(object), unpacked))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_no_more_than_there_is_room_for() {
        let bases = Bases::default();
        let payload = Bytes::from(vec![0; 8 << 20]);
        let large = Arc::new(Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload });
        (0..4).for_each(|n| bases.keep(Ordinal(n), &large));
        assert!((0..4).all(|n| bases.find(Ordinal(n)).is_some()));
        bases.find(Ordinal(0)).unwrap();
        bases.keep(Ordinal(4), &large);
        assert_eq!(
            [0, 1, 2, 3, 4].map(|n| bases.find(Ordinal(n)).is_some()),
            [true, false, true, true, true]
        );
        let small = Arc::new(Object { payload: Bytes::new(), ..(*large).clone() });
        (10..600).for_each(|n| bases.keep(Ordinal(n), &small));
        let kept = bases.0.lock().unwrap();
        assert_eq!((kept.objects.len(), kept.bytes), (OBJECTS_MAX, 0));
    }
}
