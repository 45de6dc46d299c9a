//! Tree nodes: directories as objects, small ones folded into their parent, big ones split.
//!
//! The shape follows from the content alone and is frozen by golden vectors:
//! - a directory whose encoded entries take at most [`FOLD_MAX`] bytes is folded into its parent while the
//!   parent stays within [`NODE_MAX`], at most [`FOLD_DEPTH_MAX`] deep;
//! - a directory over [`NODE_MAX`] is cut after each name whose keyed hash has 8 low zero bits (at least
//!   64 and at most 1,024 entries a leaf) under an index, itself split by the same rule.

use bytes::Bytes;

use crate::codec::{FormatError, Reader, Write};
use crate::entry::{self, Body, Entry, FOLD_DEPTH_MAX, NAME_MAX, Totals, check_name};
use crate::header::{Kind, REFERENCES_MAX, Reference};
use crate::ids::{ObjectId, OwnIdMap};
use crate::keys::IdKey;
use crate::seal::Object;

/// Largest encoding of a directory that is folded, in bytes.
pub const FOLD_MAX: usize = 4 << 10;
/// Size over which a directory is split, in bytes.
pub const NODE_MAX: usize = 32 << 10;
/// A leaf ends with the entry that makes it so large: only extended attributes do. The largest entry still fits after it.
const LEAF_BYTES: usize = 4 << 20;
/// Entries per leaf: fewest, most; the mean is 2^[`SPLIT_BITS`] above the fewest.
const LEAF_ENTRIES: std::ops::Range<usize> = 64..1_024;
const SPLIT_BITS: u32 = 8;

/// A decoded node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Entries in name order.
    Leaf(Vec<Entry>),
    /// Nodes of one split directory, in name order.
    Index(Vec<Branch>),
}

/// One part of a split directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// First name in it.
    pub first: Vec<u8>,
    /// Its node.
    pub node: ObjectId,
    /// Sums below it.
    pub totals: Totals,
}

/// Numbers what one object refers to in order of first use.
pub(crate) trait Refer {
    fn whole(&mut self, id: ObjectId) -> u64;
    fn member(&mut self, bundle: ObjectId, member: usize) -> u64;
}

/// The numbers alone. A server may have named bundles among them, but an object refers to few.
#[derive(Debug, Default)]
struct Slots(OwnIdMap<u64>);

impl Refer for Slots {
    fn whole(&mut self, id: ObjectId) -> u64 {
        let next = self.0.len() as u64;
        *self.0.entry(id).or_insert(next)
    }

    fn member(&mut self, bundle: ObjectId, _member: usize) -> u64 {
        self.whole(bundle)
    }
}

/// Collects the references of one object.
#[derive(Debug, Default)]
struct References {
    list: Vec<Reference>,
    slots: Slots,
}

impl Refer for References {
    fn whole(&mut self, id: ObjectId) -> u64 {
        let slot = self.slots.whole(id);
        if slot as usize == self.list.len() {
            self.list.push(Reference::whole(id));
        }
        slot
    }

    fn member(&mut self, bundle: ObjectId, member: usize) -> u64 {
        let slot = self.whole(bundle);
        self.list[slot as usize].use_member(member);
        slot
    }
}

/// What a finished directory became.
#[derive(Debug)]
pub enum Finished {
    /// Small: its parent decides whether to fold it.
    Small(Vec<Entry>),
    /// Written; its top node.
    Written {
        /// Top node.
        node: ObjectId,
        /// Sums below it.
        totals: Totals,
    },
}

/// Builds one directory from its entries, given in name order; memory is bounded by one leaf plus the index.
pub struct DirectoryBuilder<'k> {
    key: &'k IdKey,
    leaves: Vec<Vec<Entry>>,
    size: usize,
    /// Encoded bytes of the last leaf.
    leaf: usize,
    branches: Vec<Branch>,
    measure: Measure,
}

/// Says how many bytes entries take by themselves; its room serves again.
#[derive(Default)]
struct Measure {
    room: Vec<u8>,
    slots: Slots,
}

impl Measure {
    fn encoded_len(&mut self, entries: &[Entry]) -> usize {
        self.room.clear();
        self.slots.0.clear();
        entry::encode_all(&mut self.room, entries, &mut self.slots);
        self.room.len()
    }
}

impl<'k> DirectoryBuilder<'k> {
    /// An empty directory.
    pub fn new(key: &'k IdKey) -> Self {
        let (leaves, branches) = (vec![Vec::new()], Vec::new());
        Self { key, leaves, size: 0, leaf: 0, branches, measure: Measure::default() }
    }

    /// Adds a finished child directory: folded if small enough, else written through `emit`.
    pub fn push_directory(
        &mut self,
        mut child: Entry,
        done: Finished,
        emit: &mut dyn FnMut(ObjectId, Object),
    ) {
        child.body = match done {
            Finished::Written { node, totals } => Body::Directory { node, totals },
            Finished::Small(entries) => {
                let len = self.measure.encoded_len(&entries);
                if self.size + len <= NODE_MAX && entry::folds(&entries) < FOLD_DEPTH_MAX {
                    Body::Folded(entries)
                } else {
                    let totals = entries.iter().map(Entry::totals).sum();
                    Body::Directory { node: write(encode_leaf(&entries), self.key, emit), totals }
                }
            }
        };
        self.push(child, emit);
    }

    /// Adds an entry; leaves that are complete go out through `emit` once the directory is known to be split.
    pub fn push(&mut self, entry: Entry, emit: &mut dyn FnMut(ObjectId, Object)) {
        let len = self.measure.encoded_len(std::slice::from_ref(&entry));
        self.size += len;
        let cut = is_boundary(self.key, &entry.name);
        if self.leaves.is_empty() {
            self.leaves.push(Vec::new());
        }
        let last = self.leaves.len() - 1;
        let leaf = &mut self.leaves[last];
        leaf.push(entry);
        self.leaf += len;
        if (cut && leaf.len() >= LEAF_ENTRIES.start)
            || leaf.len() >= LEAF_ENTRIES.end
            || self.leaf >= LEAF_BYTES
        {
            self.leaves.push(Vec::new());
            self.leaf = 0;
        }
        if self.size > NODE_MAX {
            let open = self.leaves.pop();
            self.flush(emit);
            self.leaves.extend(open);
        }
    }

    /// Ends the directory.
    pub fn finish(mut self, emit: &mut dyn FnMut(ObjectId, Object)) -> Finished {
        if self.size <= NODE_MAX {
            let entries: Vec<Entry> = self.leaves.into_iter().flatten().collect();
            if self.measure.encoded_len(&entries) <= FOLD_MAX {
                return Finished::Small(entries);
            }
            let totals = entries.iter().map(Entry::totals).sum();
            return Finished::Written { node: write(encode_leaf(&entries), self.key, emit), totals };
        }
        self.flush(emit);
        let totals = self.branches.iter().map(|b| b.totals).sum();
        Finished::Written { node: write_index(self.branches, self.key, emit), totals }
    }

    fn flush(&mut self, emit: &mut dyn FnMut(ObjectId, Object)) {
        for entries in self.leaves.drain(..).filter(|leaf| !leaf.is_empty()) {
            let totals = entries.iter().map(Entry::totals).sum();
            let node = write(encode_leaf(&entries), self.key, emit);
            self.branches.push(Branch { first: entries[0].name.clone(), node, totals });
        }
    }
}

/// Writes a directory that must have a node of its own (a snapshot's root).
pub fn write_root(done: Finished, key: &IdKey, emit: &mut dyn FnMut(ObjectId, Object)) -> (ObjectId, Totals) {
    match done {
        Finished::Written { node, totals } => (node, totals),
        Finished::Small(entries) => {
            let totals = entries.iter().map(Entry::totals).sum();
            (write(encode_leaf(&entries), key, emit), totals)
        }
    }
}

fn is_boundary(key: &IdKey, name: &[u8]) -> bool {
    key.identify(&[b"split", name]).0.prefix().trailing_zeros() >= SPLIT_BITS
}

fn write(object: Object, key: &IdKey, emit: &mut dyn FnMut(ObjectId, Object)) -> ObjectId {
    let (id, _) = object.identify(key);
    emit(id, object);
    id
}

fn encode_leaf(entries: &[Entry]) -> Object {
    let mut payload = vec![0];
    let mut references = References::default();
    entry::encode_all(&mut payload, entries, &mut references);
    node_object(payload, references)
}

fn node_object(payload: Vec<u8>, references: References) -> Object {
    let payload = Bytes::from(payload);
    Object { kind: Kind::Node, references: references.list, provides: Vec::new(), payload }
}

fn encode_index(level: u8, branches: &[Branch]) -> Object {
    let mut payload = vec![level];
    let mut references = References::default();
    payload.put_varint(branches.len() as u64);
    for branch in branches {
        payload.put_bytes(&branch.first);
        payload.put_varint(references.whole(branch.node));
        entry::encode_totals(&mut payload, &branch.totals);
    }
    node_object(payload, references)
}

fn write_index(mut branches: Vec<Branch>, key: &IdKey, emit: &mut dyn FnMut(ObjectId, Object)) -> ObjectId {
    let mut level = 1;
    while branches.len() > LEAF_ENTRIES.end {
        let mut above = Vec::new();
        let mut rest = &branches[..];
        while !rest.is_empty() {
            let wanted = |(i, b): (usize, &Branch)| i + 1 >= LEAF_ENTRIES.start && is_boundary(key, &b.first);
            let cut = rest.iter().enumerate().position(wanted).map_or(rest.len(), |i| i + 1);
            let (group, tail) = rest.split_at(cut.min(LEAF_ENTRIES.end));
            let node = write(encode_index(level, group), key, emit);
            let totals = group.iter().map(|b| b.totals).sum();
            above.push(Branch { first: group[0].first.clone(), node, totals });
            rest = tail;
        }
        branches = above;
        level += 1;
    }
    write(encode_index(level, &branches), key, emit)
}

/// Reads a node.
///
/// # Errors
/// Another kind, or a payload that breaks the format.
pub fn decode(object: &Object) -> Result<Node, FormatError> {
    if object.kind != Kind::Node {
        return Err(FormatError::Invalid("not a tree node"));
    }
    let ids: Vec<ObjectId> = object.references.iter().map(|r| r.id).collect();
    let mut r = Reader::new(&object.payload);
    let level = r.u8("node level")?;
    if level == 0 {
        let entries = entry::decode_all(&mut r, &ids, 0)?;
        r.finish()?;
        return Ok(Node::Leaf(entries));
    }
    let count = r.count("branches", REFERENCES_MAX)?;
    let mut branches: Vec<Branch> = Vec::with_capacity(count.min(1_024));
    for _ in 0..count {
        let first = r.bytes("first name", NAME_MAX)?.to_vec();
        check_name(&first)?;
        if branches.last().is_some_and(|before| before.first >= first) {
            return Err(FormatError::Invalid("branches out of order"));
        }
        let index = r.count("branch reference", REFERENCES_MAX)?;
        let node = *ids.get(index).ok_or(FormatError::Invalid("branch out of range"))?;
        branches.push(Branch { first, node, totals: entry::decode_totals(&mut r)? });
    }
    r.finish()?;
    Ok(Node::Index(branches))
}
