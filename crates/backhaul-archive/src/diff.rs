//! What differs between two snapshots. Folders that are one object in both are not read.

use std::iter::Peekable;
use std::vec::IntoIter;

use backhaul_object::entry::{Body, Content, Entry};

use crate::browse::{BrowseError, Located, Tree, absolute};

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
            (Some(old), Some(new)) if content(&old) != content(&new) => visit(&path, Change::Content, &new)?,
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

/// What of a body is content, wherever it lies.
fn content(entry: &Entry) -> (Option<u64>, Body) {
    match &entry.body {
        Body::File { size, content, .. } => {
            // The same bytes may lie in another bundle; then their time tells.
            let moved = matches!(content, Content::Member { .. });
            let content = if moved { Content::Empty } else { content.clone() };
            let time =
                moved.then(|| entry.metadata.mtime_s as u64 ^ u64::from(entry.metadata.mtime_ns) << 32);
            (time, Body::File { size: *size, content, link: None })
        }
        other => (None, other.clone()),
    }
}

fn differs(old: &Entry, new: &Entry) -> bool {
    old.metadata != new.metadata || old.extensions != new.extensions
}
