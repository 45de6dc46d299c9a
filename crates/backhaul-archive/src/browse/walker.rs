//! The streaming walk that listing, finding and restoring share.
//!
//! An explicit stack, so that a tree of any depth takes no stack space; nodes are read [`ahead`](super::ahead).

use std::vec::IntoIter;

use backhaul_object::ObjectId;
use backhaul_object::entry::{Body, Entry};
use backhaul_object::node::{Branch, Node};
use backhaul_object::source::ObjectSource;

use super::BrowseError;
use super::ahead::{Ahead, Failed};

/// What the walk has come to.
pub(crate) enum Event<'e> {
    /// A name. Directories are answered with [`Step::Into`] to descend; what is none may be taken away.
    Entry(&'e mut Entry),
    /// The end of a directory that was entered.
    Leave,
    /// Part of the directory at the path cannot be read; going on leaves that part out.
    Unreadable(BrowseError),
}

/// What to do with a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Descend.
    Into,
    /// Go on to the next name.
    Over,
}

/// Where a walk begins.
pub(crate) enum Start {
    /// At the contents of a node.
    Node(ObjectId),
    /// At these entries.
    Entries(Vec<Entry>),
}

/// What the end of a level is the end of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A directory that was entered.
    Directory,
    /// A part of one, or the start.
    Part,
}

/// One directory, or one part of a split one.
struct Level {
    entries: IntoIter<Entry>,
    branches: IntoIter<Branch>,
    end: End,
    /// Length of the path above this level's names.
    path_len: usize,
}

/// A walk under way.
pub(crate) struct Walker<'a> {
    start: Start,
    path: Vec<u8>,
    levels: Vec<Level>,
    ahead: Ahead<'a>,
}

/// Receives the events of a walk.
pub(crate) type Visit<'v, E> = dyn FnMut(&[u8], Event<'_>) -> Result<Step, E> + 'v;

impl<'a> Walker<'a> {
    /// A walk whose paths begin with `prefix` (no `/` at its end).
    pub(crate) fn new(source: &'a dyn ObjectSource, start: Start, prefix: Vec<u8>) -> Self {
        Self { start, path: prefix, levels: Vec::new(), ahead: Ahead::new(source) }
    }

    /// Runs to the end, or to the visitor's error. Paths are `prefix/name/name`.
    pub(crate) fn run<E>(mut self, visit: &mut Visit<'_, E>) -> Result<(), E> {
        match std::mem::replace(&mut self.start, Start::Entries(Vec::new())) {
            Start::Entries(entries) => {
                self.ahead.begin(&entries);
                self.push(entries, Vec::new(), End::Part);
            }
            Start::Node(id) => {
                if let Err(error) = self.open(id, End::Part) {
                    visit(&self.path, Event::Unreadable(error))?;
                }
            }
        }
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path_len);
            if let Some(entry) = level.entries.next() {
                self.enter(entry, visit)?;
            } else if let Some(branch) = level.branches.next() {
                if let Err(error) = self.open(branch.node, End::Part) {
                    visit(&self.path, Event::Unreadable(error))?;
                }
            } else {
                let end = level.end;
                self.levels.pop();
                if end == End::Directory {
                    visit(&self.path, Event::Leave)?;
                }
            }
        }
        Ok(())
    }

    fn enter<E>(&mut self, mut entry: Entry, visit: &mut Visit<'_, E>) -> Result<(), E> {
        self.path.push(b'/');
        self.path.extend_from_slice(&entry.name);
        let step = visit(&self.path, Event::Entry(&mut entry))?;
        if step == Step::Over {
            return Ok(());
        }
        match entry.body {
            Body::Folded(entries) => self.push(entries, Vec::new(), End::Directory),
            Body::Directory { node, .. } => {
                if let Err(error) = self.open(node, End::Directory) {
                    visit(&self.path, Event::Unreadable(error))?;
                    visit(&self.path, Event::Leave)?;
                }
            }
            Body::File { .. } | Body::Symlink(_) | Body::Special(_) => {}
        }
        Ok(())
    }

    fn open(&mut self, id: ObjectId, end: End) -> Result<(), BrowseError> {
        let node = self.ahead.take(id).map_err(|failed| match failed {
            Failed::Read(source) => BrowseError::Transfer { path: self.path.clone(), source },
            Failed::Format(source) => BrowseError::Format { path: self.path.clone(), id, source },
        })?;
        match node {
            Node::Leaf(entries) => self.push(entries, Vec::new(), end),
            Node::Index(branches) => self.push(Vec::new(), branches, end),
        }
        Ok(())
    }

    fn push(&mut self, entries: Vec<Entry>, branches: Vec<Branch>, end: End) {
        let (entries, branches) = (entries.into_iter(), branches.into_iter());
        self.levels.push(Level { entries, branches, end, path_len: self.path.len() });
    }
}
