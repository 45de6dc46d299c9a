//! What passes through the assembler, in path order.

use backhaul_object::entry::{Body, Content, Entry};
use backhaul_object::source::Spot;
use backhaul_object::{ObjectId, Proof};
use bytes::Bytes;

use super::drafts::Draft;
use super::read::Outcome;
use super::state::Record;

/// Something that happened on the walk, in order.
pub(super) enum Event {
    Enter(Entry),
    Leave,
    Plain(Entry),
    Missing(Option<Vec<u8>>),
    Content(Found),
    /// The next bytes of the current file are a hole.
    Hole {
        len: u64,
    },
    File {
        path: Vec<u8>,
        link: Option<u64>,
        inline: Option<Bytes>,
        read: Box<Outcome>,
        /// What it was, if it seemed to be the same.
        doubted: Option<Content>,
    },
    Known {
        entry: Entry,
        record: Box<Record>,
    },
    /// The contents since the last file belong to one that could not be read to its end.
    Abandoned {
        path: Vec<u8>,
    },
}

/// A content that was read.
pub(super) struct Found {
    pub(super) id: ObjectId,
    pub(super) proof: Proof,
    pub(super) content: Bytes,
    pub(super) whole: Whole,
    /// A chunk as a patch.
    pub(super) draft: Option<Box<Draft>>,
    /// Where that is which was in its place.
    pub(super) former: Vec<Spot>,
}

/// Whether a content is all of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whole {
    Small,
    Chunk,
}

/// A step of tree drawing that may wait for its bundle.
pub(super) enum Draw {
    Enter(Entry),
    Leave,
    Missing(Option<Vec<u8>>),
    Entry { entry: Entry, record: Option<Record>, in_open_bundle: bool },
}

impl Draw {
    /// A file as it was read.
    pub(super) fn file(
        path: Vec<u8>,
        link: Option<u64>,
        content: Content,
        in_open_bundle: bool,
        read: &Outcome,
    ) -> Self {
        let name = name_of(&path);
        let record = Record {
            path,
            fingerprint: read.fingerprint,
            racy: read.racy,
            // What could not be read is tried again, and named again.
            attributes: !read.attributes.is_empty() || !read.unread.is_empty(),
            flags: read.flags,
            content: content.clone(),
        };
        let body = Body::File { size: read.size, content, link };
        let entry = Entry { name, metadata: read.metadata, body, extensions: vec![] };
        let entry = entry.with_attributes(&read.attributes).with_inode_flags(read.flags);
        Self::Entry { entry, record: Some(record), in_open_bundle }
    }
}

/// The last name of a path.
pub(super) fn name_of(path: &[u8]) -> Vec<u8> {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec()
}
