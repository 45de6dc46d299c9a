//! Contents sent a moment ago: the sink's answers do not know of them yet.

use std::collections::VecDeque;

use backhaul_object::entry::Content;
use backhaul_object::piece::Piece;
use backhaul_object::{ObjectId, OwnIdMap};

/// Contents remembered: about 10 MiB of memory.
const RECENT_MAX: usize = 65_536;
/// Room for fewer than so many is not given back.
const MANY: usize = 1_024;

/// Where a content was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// As an object of its own.
    Object,
    /// As a member of a bundle that is closed.
    Member { bundle: ObjectId, member: u16 },
}

impl Place {
    /// As a directory entry says it.
    pub(super) fn content(self, id: ObjectId, len: u64) -> Content {
        match self {
            Self::Object => Content::Chunks(vec![Piece::Data { id, len }]),
            Self::Member { bundle, member } => Content::Member { bundle, member },
        }
    }
}

#[derive(Default)]
pub(super) struct Recent {
    places: OwnIdMap<Place>,
    /// In the order of the objects that they are in, whose numbers are beside them.
    order: VecDeque<(u64, ObjectId)>,
}

impl Recent {
    pub(super) fn get(&self, id: &ObjectId) -> Option<Place> {
        self.places.get(id).copied()
    }

    /// A content that is in object number `sent`.
    pub(super) fn insert(&mut self, id: ObjectId, place: Place, sent: u64) {
        if self.places.insert(id, place).is_some() {
            return;
        }
        self.order.push_back((sent, id));
        if self.order.len() > RECENT_MAX {
            self.forget_first();
        }
    }

    /// Forgets what answers know of to questions that were asked when so many objects were durable.
    pub(super) fn forget(&mut self, durable: u64) {
        while self.order.front().is_some_and(|(sent, _)| *sent <= durable) {
            self.forget_first();
        }
        if self.places.capacity() > 4 * (self.places.len() + MANY) {
            self.places.shrink_to(2 * self.places.len());
            self.order.shrink_to(2 * self.order.len());
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, oldest)) = self.order.pop_front() {
            self.places.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_answers_know_of_is_forgotten_and_the_rest_is_not() {
        let mut recent = Recent::default();
        let id = |n: u8| ObjectId([n; 32]);
        for (n, sent) in [(1, 1), (2, 1), (3, 2), (1, 3)] {
            recent.insert(id(n), Place::Object, sent);
        }
        recent.forget(1);
        assert_eq!([1, 2, 3].map(|n| recent.get(&id(n)).is_some()), [false, false, true]);
        recent.forget(2);
        assert_eq!(recent.get(&id(3)), None);
    }

    #[test]
    fn there_are_never_more_than_there_is_room_for() {
        let mut recent = Recent::default();
        for n in 0..RECENT_MAX as u64 + 10 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            recent.insert(ObjectId(id), Place::Object, n);
        }
        assert_eq!((recent.places.len(), recent.order.len()), (RECENT_MAX, RECENT_MAX));
        recent.forget(u64::MAX);
        assert!(recent.places.is_empty() && recent.places.capacity() < 8 * MANY);
    }
}
