//! What passes through the assembler, in path order.

use backhaul_object::entry::Entry;
use backhaul_object::source::Answers;
use backhaul_object::{ObjectId, Proof};
use bytes::Bytes;

use super::read::Outcome;
use super::state::Record;

/// Something that happened on the walk, in order.
pub(super) enum Event {
    Enter(Entry),
    Leave,
    Plain(Entry),
    Missing(Option<Vec<u8>>),
    Content {
        id: ObjectId,
        proof: Proof,
        content: Bytes,
        whole: Whole,
    },
    /// The next bytes of the current file are a hole.
    Hole {
        len: u64,
    },
    File {
        name: Vec<u8>,
        link: Option<u64>,
        inline: Option<Bytes>,
        read: Box<Outcome>,
        path: Vec<u8>,
    },
    Known {
        entry: Entry,
        record: Box<Record>,
    },
    /// The contents since the last file belong to one of this name that could not be read to its end.
    Abandoned {
        name: Vec<u8>,
    },
}

/// Whether a content is all of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whole {
    Small,
    Chunk,
}

/// Events up to one question batch.
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    /// Bytes that they hold.
    pub(super) held: usize,
    pub(super) answers: Answers,
    /// Objects that were durable when they were asked for.
    pub(super) durable: u64,
}

/// A step of tree drawing that may wait for its bundle.
pub(super) enum Draw {
    Enter(Entry),
    Leave,
    Missing(Option<Vec<u8>>),
    Entry { entry: Entry, record: Option<Box<Record>>, in_open_bundle: bool },
}
