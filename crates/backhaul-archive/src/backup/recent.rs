//! Contents sent a moment ago: the sink's answers do not know of them yet.

use std::collections::{HashMap, VecDeque};

use backhaul_object::ObjectId;
use backhaul_object::entry::Content;
use backhaul_object::piece::Piece;

/// Contents remembered: about 10 MiB of memory.
const RECENT_MAX: usize = 65_536;

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
    places: HashMap<ObjectId, Place>,
    order: VecDeque<ObjectId>,
}

impl Recent {
    pub(super) fn get(&self, id: &ObjectId) -> Option<Place> {
        self.places.get(id).copied()
    }

    pub(super) fn insert(&mut self, id: ObjectId, place: Place) {
        if self.places.insert(id, place).is_some() {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
    }
}
