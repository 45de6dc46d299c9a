//! What differs between two snapshots. Folders that are one object in both are not read.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::vec::IntoIter;

use backhaul_object::entry::{Body, Content, Entry};
use backhaul_object::source::TransferError;
use backhaul_object::{ObjectId, header::Kind};

use crate::browse::{BrowseError, Located, Tree, absolute};

/// Bundles of which it is held what is in them.
const BUNDLES: usize = 256;

/// How something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Another content.
    Content,
    /// The same content, but another mode, owner, time, attribute or flag.
    Metadata,
    /// Another kind of thing.
    Kind,
}

/// Receives what differs in path order: the path, how, and the entry in the second (in the first if it is removed).
pub type Visit<'v> = dyn FnMut(&[u8], Change, &Entry) -> Result<(), BrowseError> + 'v;

/// Two folders of one path.
struct Level {
    path: Vec<u8>,
    before: Peekable<IntoIter<Entry>>,
    after: Peekable<IntoIter<Entry>>,
}

/// Compares what is at one path in two snapshots.
///
/// # Errors
/// The path is in neither, or something cannot be read.
pub fn diff(
    before: &Tree<'_>,
    after: &Tree<'_>,
    path: &[u8],
    visit: &mut Visit<'_>,
) -> Result<(), BrowseError> {
    let pair = (found(before, path)?, found(after, path)?);
    if matches!(pair, (None, None)) {
        // It says what is near.
        after.lookup(path)?;
    }
    let prefix = absolute(path);
    let list = |tree: &Tree<'_>, located: Option<Located>| match located {
        Some(located) => tree.list(&located),
        None => Ok(Vec::new()),
    };
    let level = |path, before: Vec<Entry>, after: Vec<Entry>| Level {
        path,
        before: before.into_iter().peekable(),
        after: after.into_iter().peekable(),
    };
    let mut same = Same::default();
    let mut levels = vec![level(prefix, list(before, pair.0)?, list(after, pair.1)?)];
    while let Some(top) = levels.last_mut() {
        let (old, new) = top.next();
        let name = match (&old, &new) {
            (None, None) => {
                levels.pop();
                continue;
            }
            (Some(entry), _) | (None, Some(entry)) => &entry.name,
        };
        let path = [&top.path[..], b"/", name].concat();
        match (old, new) {
            (Some(old), Some(new)) if old.is_folder() && new.is_folder() => {
                if differs(&old, &new) {
                    visit(&path, Change::Metadata, &new)?;
                }
                if old.body != new.body {
                    let below = |tree: &Tree<'_>, entry| tree.list(&Located::Entry(entry));
                    levels.push(level(path, below(before, old)?, below(after, new)?));
                }
            }
            (Some(old), Some(new))
                if std::mem::discriminant(&old.body) != std::mem::discriminant(&new.body) =>
            {
                all(before, &path, old, Change::Removed, visit)?;
                all(after, &path, new, Change::Kind, visit)?;
            }
            (Some(old), Some(new)) if !same.content((before, &old), (after, &new), &path)? => {
                visit(&path, Change::Content, &new)?;
            }
            (Some(old), Some(new)) if differs(&old, &new) => visit(&path, Change::Metadata, &new)?,
            (Some(old), None) => all(before, &path, old, Change::Removed, visit)?,
            (None, Some(new)) => all(after, &path, new, Change::Added, visit)?,
            _ => {}
        }
    }
    Ok(())
}

fn found(tree: &Tree<'_>, path: &[u8]) -> Result<Option<Located>, BrowseError> {
    match tree.lookup(path) {
        Ok(located) => Ok(Some(located)),
        Err(BrowseError::NotFound { .. } | BrowseError::NotADirectory { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Level {
    /// The next name, as it is in either.
    fn next(&mut self) -> (Option<Entry>, Option<Entry>) {
        let order = match (self.before.peek(), self.after.peek()) {
            (Some(old), Some(new)) => old.name.cmp(&new.name),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, _) => std::cmp::Ordering::Greater,
        };
        let old = if order.is_le() { self.before.next() } else { None };
        let new = if order.is_ge() { self.after.next() } else { None };
        (old, new)
    }
}

/// Something and all that is in it.
fn all(
    tree: &Tree<'_>,
    path: &[u8],
    entry: Entry,
    change: Change,
    visit: &mut Visit<'_>,
) -> Result<(), BrowseError> {
    visit(path, change, &entry)?;
    if !entry.is_folder() {
        return Ok(());
    }
    let below = if change == Change::Kind { Change::Added } else { change };
    tree.walk(path, &mut |path, entry| visit(path, below, entry))
}

/// Whether contents are the same, wherever they lie.
#[derive(Default)]
struct Same {
    /// What is in the bundles that were read last.
    bundles: VecDeque<(ObjectId, Vec<ObjectId>)>,
}

impl Same {
    fn content(
        &mut self,
        (before, old): (&Tree<'_>, &Entry),
        (after, new): (&Tree<'_>, &Entry),
        path: &[u8],
    ) -> Result<bool, BrowseError> {
        let (Body::File { size, content, .. }, Body::File { size: other_size, content: other, .. }) =
            (&old.body, &new.body)
        else {
            return Ok(old.body == new.body);
        };
        if size != other_size || content == other {
            return Ok(size == other_size);
        }
        // The same bytes may lie in another bundle, or in an object of their own: their id tells.
        match (self.id(before, content, path)?, self.id(after, other, path)?) {
            (Some(old), Some(new)) => Ok(old == new),
            _ => Ok(false),
        }
    }

    /// The id of bytes that are in one piece.
    fn id(
        &mut self,
        tree: &Tree<'_>,
        content: &Content,
        path: &[u8],
    ) -> Result<Option<ObjectId>, BrowseError> {
        match content {
            Content::Member { bundle, member } => {
                let known = self.bundles.iter().find(|(id, _)| id == bundle);
                if known.is_none() {
                    if self.bundles.len() >= BUNDLES {
                        self.bundles.pop_front();
                    }
                    self.bundles.push_back((*bundle, members(tree, *bundle, path)?));
                }
                let known = self.bundles.iter().find(|(id, _)| id == bundle);
                Ok(known.and_then(|(_, members)| members.get(usize::from(*member)).copied()))
            }
            Content::Chunks(pieces) if pieces.len() == 1 => Ok(pieces[0].id()),
            _ => Ok(None),
        }
    }
}

fn members(tree: &Tree<'_>, id: ObjectId, path: &[u8]) -> Result<Vec<ObjectId>, BrowseError> {
    let transfer = |source| BrowseError::Transfer { path: path.to_vec(), source };
    let object = tree.source().read(&[id]).map_err(transfer)?.pop();
    let object = object.filter(|object| object.kind == Kind::Bundle);
    let object = object.ok_or_else(|| transfer(TransferError::NotFound(id)))?;
    Ok(object.provides.iter().map(|(id, _)| *id).collect())
}

fn differs(old: &Entry, new: &Entry) -> bool {
    old.metadata != new.metadata || old.extensions != new.extensions
}
