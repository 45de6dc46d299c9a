//! What patches are made of, opened. Files that lay together change together, and what was described to a client is what its patches
//! are made of a moment later: so the last ones are kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use backhaul_object::patch::unpack_base;
use backhaul_object::seal::Unpacker;
use backhaul_object::{Compressed, FormatError, Kind, Object, ObjectId};
use backhaul_store::StoreError;

use super::OpenVault;

/// Bytes of contents that are kept, for all sessions together.
const KEPT_MAX: usize = 32 << 20;
/// Objects that are kept.
const OBJECTS_MAX: usize = 512;

/// What a base is stored as.
pub(super) enum Base {
    /// A chunk or a bundle.
    Whole(Arc<Object>),
    /// A chunk, as a difference itself.
    Patch(Compressed),
    /// It is no base.
    Unfit,
}

/// Those that were opened last; the newest at the end.
#[derive(Default)]
pub(super) struct Bases(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    objects: VecDeque<(ObjectId, Arc<Object>)>,
    bytes: usize,
}

impl Bases {
    fn find(&self, id: &ObjectId) -> Option<Arc<Object>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.objects.iter().rposition(|(known, _)| known == id)?;
        let found = kept.objects.remove(at)?;
        let object = Arc::clone(&found.1);
        kept.objects.push_back(found);
        Some(object)
    }

    fn keep(&self, id: ObjectId, object: &Arc<Object>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += object.payload.len();
        kept.objects.push_back((id, Arc::clone(object)));
        while kept.bytes > KEPT_MAX || kept.objects.len() > OBJECTS_MAX {
            let Some((_, oldest)) = kept.objects.pop_front() else { return };
            kept.bytes -= oldest.payload.len();
        }
    }
}

impl OpenVault {
    /// What may be a base. Whoever asks has made sure that it may be used.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub(super) fn base(&self, id: &ObjectId, unpacker: &mut Unpacker) -> Result<Base, StoreError> {
        if let Some(object) = self.bases.find(id) {
            return Ok(Base::Whole(object));
        }
        let ordinal = self.vault.ordinal(id)?.ok_or(StoreError::MissingReference(*id))?;
        let stored = self.unseal(&self.vault.get(ordinal)?)?;
        match stored.header.kind {
            Kind::Chunk | Kind::Bundle => {}
            Kind::Patch => return Ok(Base::Patch(stored)),
            _ => return Ok(Base::Unfit),
        }
        let damaged =
            |why: FormatError| StoreError::Damaged { what: format!("object {id}"), why: why.to_string() };
        let object = Arc::new(unpack_base(&stored, unpacker).map_err(damaged)?);
        self.bases.keep(*id, &object);
        Ok(Base::Whole(object))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_no_more_than_there_is_room_for() {
        let bases = Bases::default();
        let id = |n: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            ObjectId(id)
        };
        let payload = Bytes::from(vec![0; 8 << 20]);
        let large = Arc::new(Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload });
        (0..4).for_each(|n| bases.keep(id(n), &large));
        assert!((0..4).all(|n| bases.find(&id(n)).is_some()));
        bases.find(&id(0)).unwrap();
        bases.keep(id(4), &large);
        assert_eq!([0, 1, 2, 3, 4].map(|n| bases.find(&id(n)).is_some()), [true, false, true, true, true]);
        let small = Arc::new(Object { payload: Bytes::new(), ..(*large).clone() });
        (10..600).for_each(|n| bases.keep(id(n), &small));
        let kept = bases.0.lock().unwrap();
        assert_eq!((kept.objects.len(), kept.bytes), (OBJECTS_MAX, 0));
    }
}
