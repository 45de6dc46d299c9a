//! Looking into a snapshot: find a path, list a folder, walk a subtree.
//!
//! Paths are raw bytes, with or without a leading `/`. Nothing here holds more than one node per level of
//! the tree, plus what is read [`ahead`] of the [`walker`].

use std::ops::ControlFlow;

use backhaul_object::entry::{Body, Entry, Totals};
use backhaul_object::node::{self, Node};
use backhaul_object::source::{ObjectSource, TransferError};
use backhaul_object::{FormatError, ObjectId};
use thiserror::Error;

mod ahead;
mod similar;
pub(crate) mod walker;

use walker::{Event, Start, Step, Walker};

/// Most names of a folder that are looked at for a suggestion.
const SIMILAR_SCAN: usize = 10_000;

/// Why a snapshot could not be browsed.
#[derive(Debug, Error)]
pub enum BrowseError {
    /// The snapshot holds no such path.
    #[error("{} is not in the snapshot: {}", show(path), hint(parent, similar))]
    NotFound {
        /// What was asked for.
        path: Vec<u8>,
        /// The nearest folder above it that is there.
        parent: Vec<u8>,
        /// Up to three names in `parent` that look alike, best first.
        similar: Vec<Vec<u8>>,
    },
    /// A folder was needed.
    #[error("{} is not a folder", show(path))]
    NotADirectory {
        /// What is there instead.
        path: Vec<u8>,
    },
    /// A node could not be read.
    #[error("{}: {source}", show(path))]
    Transfer {
        /// The folder.
        path: Vec<u8>,
        /// Why.
        source: TransferError,
    },
    /// A node does not follow the format.
    #[error("{}: object {id}: {source}", show(path))]
    Format {
        /// The folder.
        path: Vec<u8>,
        /// The node.
        id: ObjectId,
        /// Why.
        source: FormatError,
    },
    /// The visitor of a walk gave up.
    #[error("{}: {why}", show(path))]
    Stopped {
        /// Where.
        path: Vec<u8>,
        /// Its words.
        why: String,
    },
}

impl BrowseError {
    /// True when the session itself is over, so that nothing else can be read either.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Transfer { source, .. } if is_fatal(source))
    }
}

/// True for errors of the session, as opposed to errors of one object.
pub(crate) fn is_fatal(error: &TransferError) -> bool {
    !matches!(error, TransferError::NotFound(_) | TransferError::Damaged { .. })
}

fn show(path: &[u8]) -> String {
    if path.is_empty() { "/".to_owned() } else { String::from_utf8_lossy(path).into_owned() }
}

fn hint(parent: &[u8], similar: &[Vec<u8>]) -> String {
    let whole = |name: &Vec<u8>| {
        let parent = parent.strip_suffix(b"/").unwrap_or(parent);
        show(&[parent, b"/", name].concat())
    };
    let names: Vec<String> = similar.iter().map(whole).collect();
    match names.len() {
        0 => format!("{} is the nearest folder above it that is there", show(parent)),
        _ => format!("did you mean {}?", names.join(" or ")),
    }
}

/// The names that look most like one, best first.
pub fn nearest<'n>(wanted: &[u8], names: impl Iterator<Item = &'n [u8]>) -> Vec<Vec<u8>> {
    let mut nearest = similar::Nearest::new(wanted);
    names.for_each(|name| nearest.offer(name));
    nearest.finish()
}

/// Receives each entry of a walk with its full path.
pub type Visit<'v> = dyn FnMut(&[u8], &Entry) -> Result<(), BrowseError> + 'v;

/// What a path stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// The top of the snapshot.
    Root,
    /// Something below it.
    Entry(Entry),
}

/// The names of a path in a snapshot.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// The same path from the root of the snapshot, without `/` at its end.
pub(crate) fn absolute(path: &[u8]) -> Vec<u8> {
    components(path).flat_map(|name| [b"/", name].concat()).collect()
}

/// A snapshot's tree.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    source: &'a dyn ObjectSource,
    root: ObjectId,
    totals: Option<Totals>,
}

/// As [`Visit`], and decides whether to descend.
type Steer<'v> = dyn FnMut(&[u8], &Entry) -> Result<Step, BrowseError> + 'v;

/// A folder while a path is followed.
enum Folder {
    /// With the sums that are said of it.
    Node(ObjectId, Option<Totals>),
    Entries(Vec<Entry>),
}

impl<'a> Tree<'a> {
    /// The tree under a snapshot's root node.
    pub fn new(source: &'a dyn ObjectSource, root: ObjectId) -> Self {
        Self { source, root, totals: None }
    }

    /// The same, of which is said how much there is in it: whoever walks over all of it sees whether that is so.
    pub fn with_totals(self, totals: Option<Totals>) -> Self {
        Self { totals, ..self }
    }

    /// Where its objects are read.
    pub(crate) fn source(&self) -> &'a dyn ObjectSource {
        self.source
    }

    /// Finds a path.
    ///
    /// # Errors
    /// [`BrowseError::NotFound`] with suggestions, or an object that cannot be read.
    pub fn lookup(&self, path: &[u8]) -> Result<Located, BrowseError> {
        let mut at = Located::Root;
        let mut parent: Vec<u8> = Vec::new();
        for name in components(path) {
            let Some(folder) = self.folder(&at) else {
                return Err(BrowseError::NotADirectory { path: parent });
            };
            match self.find(&folder, name, &parent)? {
                Some(entry) => at = Located::Entry(entry),
                None => {
                    let similar = self.similar(&at, &parent, name)?;
                    let parent = if parent.is_empty() { b"/".to_vec() } else { parent };
                    return Err(BrowseError::NotFound { path: path.to_vec(), parent, similar });
                }
            }
            parent.push(b'/');
            parent.extend_from_slice(name);
        }
        Ok(at)
    }

    /// The entries of a folder in name order; a file or link yields itself.
    ///
    /// # Errors
    /// An object that cannot be read.
    pub fn list(&self, located: &Located) -> Result<Vec<Entry>, BrowseError> {
        let mut entries = Vec::new();
        self.list_each(located, &mut |entry| {
            entries.push(entry.clone());
            Ok(())
        })?;
        Ok(entries)
    }

    /// As [`Tree::list`] for folders of any size: entries go to `visit` as they are read.
    ///
    /// # Errors
    /// An object that cannot be read, or what `visit` returns.
    pub fn list_each(
        &self,
        located: &Located,
        visit: &mut dyn FnMut(&Entry) -> Result<(), BrowseError>,
    ) -> Result<(), BrowseError> {
        self.drive(located, Vec::new(), &mut |_, entry| visit(entry).map(|()| Step::Over))
    }

    /// Walks everything below `path` depth-first in name order; `visit` gets the full path (with a leading
    /// `/`) and the entry. A path to a file or link visits just that.
    ///
    /// # Errors
    /// As [`Tree::lookup`], an object that cannot be read, or what `visit` returns.
    pub fn walk(&self, path: &[u8], visit: &mut Visit<'_>) -> Result<(), BrowseError> {
        let located = self.lookup(path)?;
        let mut prefix = absolute(path);
        if self.folder(&located).is_none() {
            // The entry's own name comes with it.
            prefix.truncate(prefix.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
        }
        self.drive(&located, prefix, &mut |full, entry| visit(full, entry).map(|()| Step::Into))
    }

    /// How a walk over what was located starts: a folder's contents, or the one entry.
    pub(crate) fn start(&self, located: &Located) -> Start {
        match self.folder(located) {
            Some(Folder::Node(id, said)) => Start::Node(id, said),
            Some(Folder::Entries(entries)) => Start::Entries(entries),
            None => match located {
                Located::Root => Start::Node(self.root, self.totals),
                Located::Entry(entry) => Start::Entries(vec![entry.clone()]),
            },
        }
    }

    fn drive(&self, located: &Located, prefix: Vec<u8>, visit: &mut Steer<'_>) -> Result<(), BrowseError> {
        let walker = Walker::new(self.source, self.start(located), prefix);
        walker.run(&mut |path, event| match event {
            Event::Entry(entry) => visit(path, entry),
            Event::Leave => Ok(Step::Into),
            Event::Unreadable(error) => Err(error),
        })
    }

    fn folder(&self, located: &Located) -> Option<Folder> {
        match located {
            Located::Root => Some(Folder::Node(self.root, self.totals)),
            Located::Entry(entry) => match &entry.body {
                Body::Directory { node, totals } => Some(Folder::Node(*node, Some(*totals))),
                Body::Folded(entries) => Some(Folder::Entries(entries.clone())),
                Body::File { .. } | Body::Symlink(_) | Body::Special(_) => None,
            },
        }
    }

    fn find(&self, folder: &Folder, name: &[u8], path: &[u8]) -> Result<Option<Entry>, BrowseError> {
        let pick = |entries: &[Entry]| {
            let found = entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok();
            found.and_then(|i| entries.get(i).cloned())
        };
        let mut id = match folder {
            Folder::Entries(entries) => return Ok(pick(entries)),
            Folder::Node(id, _) => *id,
        };
        loop {
            match read_node(self.source, id, path)? {
                Node::Leaf(entries) => return Ok(pick(&entries)),
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

    fn similar(&self, at: &Located, parent: &[u8], name: &[u8]) -> Result<Vec<Vec<u8>>, BrowseError> {
        let mut names = similar::Nearest::new(name);
        let mut seen = 0;
        let walker = Walker::new(self.source, self.start(at), parent.to_vec());
        let end = walker.run(&mut |_, event| match event {
            Event::Entry(entry) if seen < SIMILAR_SCAN => {
                seen += 1;
                names.offer(&entry.name);
                Ok(Step::Over)
            }
            Event::Entry(_) => Err(ControlFlow::Break(())),
            Event::Leave => Ok(Step::Over),
            Event::Unreadable(error) => Err(ControlFlow::Continue(error)),
        });
        match end {
            Err(ControlFlow::Continue(error)) => Err(error),
            _ => Ok(names.finish()),
        }
    }
}

/// Reads and decodes one node.
pub(crate) fn read_node(source: &dyn ObjectSource, id: ObjectId, path: &[u8]) -> Result<Node, BrowseError> {
    let objects =
        source.read(&[id]).map_err(|source| BrowseError::Transfer { path: path.to_vec(), source })?;
    let object = objects
        .first()
        .ok_or_else(|| BrowseError::Transfer { path: path.to_vec(), source: TransferError::NotFound(id) })?;
    node::decode(object).map_err(|source| BrowseError::Format { path: path.to_vec(), id, source })
}

#[cfg(test)]
mod tests;
