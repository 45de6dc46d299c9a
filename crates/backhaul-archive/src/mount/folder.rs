//! The names in a folder of a snapshot, some at a time, from any place on; and one of them by its name.

use std::sync::{Mutex, PoisonError};

use backhaul_object::entry::{Body, Entry};
use backhaul_object::node::Node;
use backhaul_object::{FormatError, ObjectId};

use super::cache::{Held, Store};
use crate::dump::DumpError;

/// Bits of a place that say which name of a part it is; the rest says which part.
const NAME_BITS: u32 = 24;

/// Where the names of a folder are.
#[derive(Debug, Clone)]
pub(crate) enum Names {
    Node(ObjectId),
    Here(Vec<Entry>),
}

impl Names {
    /// None for what is no folder.
    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        match &entry.body {
            Body::Directory { node, .. } => Some(Self::Node(*node)),
            Body::Folded(entries) => Some(Self::Here(entries.clone())),
            Body::File { .. } | Body::Symlink(_) | Body::Special(_) => None,
        }
    }

    /// The entry of a name.
    pub(crate) fn find(&self, store: &Store, name: &[u8]) -> Result<Option<Entry>, DumpError> {
        let mut id = match self {
            Self::Here(entries) => return Ok(pick(entries, name)),
            Self::Node(id) => *id,
        };
        loop {
            let held = store.one(id)?;
            match node(&held, id)? {
                Node::Leaf(entries) => return Ok(pick(entries, name)),
                Node::Index(branches) => {
                    let after = branches.partition_point(|branch| branch.first.as_slice() <= name);
                    match after.checked_sub(1).and_then(|i| branches.get(i)) {
                        Some(branch) => id = branch.node,
                        None => return Ok(None),
                    }
                }
            }
        }
    }
}

fn pick(entries: &[Entry], name: &[u8]) -> Option<Entry> {
    let found = entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok();
    found.and_then(|i| entries.get(i).cloned())
}

fn node(held: &Held, id: ObjectId) -> Result<&Node, DumpError> {
    match held {
        Held::Node(node) => Ok(node),
        _ => Err(DumpError::Format { id, why: FormatError::Invalid("not a folder") }),
    }
}

/// A folder that is open.
pub(crate) struct Folder {
    store: Store,
    here: Vec<Entry>,
    parts: Mutex<Parts>,
}

/// The parts of a folder that is an object, in order. One that turns out to be a list of parts gives way to them.
struct Parts {
    ids: Vec<ObjectId>,
    /// So many of the first are known to have names: only their numbers are those that places are made of.
    leaves: usize,
}

impl Folder {
    pub(crate) fn open(store: Store, names: Names) -> Self {
        let (here, parts) = match names {
            Names::Here(entries) => (entries, Vec::new()),
            Names::Node(id) => (Vec::new(), vec![id]),
        };
        Self { store, here, parts: Mutex::new(Parts { ids: parts, leaves: 0 }) }
    }

    /// Hands the names from a place on (0 at first) to `take`, each with the place after it, until that says that it is full.
    pub(crate) fn list(
        &self,
        place: u64,
        take: &mut dyn FnMut(u64, &Entry) -> bool,
    ) -> Result<(), DumpError> {
        let mask = (1 << NAME_BITS) - 1;
        let (mut part, mut from) = ((place >> NAME_BITS) as usize, (place & mask) as usize);
        let mut each = |part: usize, from: usize, entries: &[Entry]| {
            let rest = entries.iter().enumerate().skip(from);
            for (number, entry) in rest {
                if take((part as u64) << NAME_BITS | (number as u64 + 1), entry) {
                    return true;
                }
            }
            false
        };
        if each(0, from, &self.here) {
            return Ok(());
        }
        while let Some(id) = self.part(part)? {
            let held = self.store.one(id)?;
            let Node::Leaf(entries) = node(&held, id)? else {
                return Err(DumpError::Format { id, why: FormatError::Invalid("no names") });
            };
            if each(part, from, entries) {
                return Ok(());
            }
            (part, from) = (part + 1, 0);
        }
        Ok(())
    }

    /// The part of a number, none behind the last. Whoever begins in the middle (the kernel, which keeps what it was told
    /// when the folder was open before) learns first what the parts are up to there.
    fn part(&self, number: usize) -> Result<Option<ObjectId>, DumpError> {
        let parts = || self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (at, next) = {
                let parts = parts();
                if number < parts.leaves {
                    return Ok(parts.ids.get(number).copied());
                }
                (parts.leaves, parts.ids.get(parts.leaves).copied())
            };
            let Some(id) = next else { return Ok(None) };
            let held = self.store.one(id)?;
            let found = node(&held, id)?;
            let mut parts = parts();
            // Somebody else may have done it meanwhile.
            if parts.leaves == at && parts.ids.get(at) == Some(&id) {
                match found {
                    Node::Leaf(_) => parts.leaves += 1,
                    Node::Index(branches) => {
                        parts.ids.splice(at..=at, branches.iter().map(|branch| branch.node));
                    }
                }
            }
        }
    }
}
