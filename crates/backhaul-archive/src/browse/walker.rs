//! The streaming walk that listing, finding and restoring share.
//!
//! An explicit stack, so that a tree of any depth takes no stack space; sibling nodes are read
//! [`AHEAD`] at a time.

use std::collections::VecDeque;
use std::vec::IntoIter;

use backhaul_object::entry::{Body, Entry};
use backhaul_object::node::{self, Branch, Node};
use backhaul_object::source::{ObjectSource, TransferError};
use backhaul_object::{Object, ObjectId};

use super::{BrowseError, is_fatal};

/// Nodes asked for in one read.
const AHEAD: usize = 32;

/// What the walk has come to.
pub(crate) enum Event<'e> {
    /// A name. Directories are answered with [`Step::Into`] to descend.
    Entry(&'e Entry),
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
    /// True when the topmost read-ahead belongs to this level.
    owns_ahead: bool,
}

/// The nodes that one node refers to, in the order in which the walk needs them.
#[derive(Default)]
struct Ahead {
    upcoming: VecDeque<ObjectId>,
    ready: VecDeque<(ObjectId, Object)>,
    /// Set once a batch failed: then nodes are read one by one, to name the bad one.
    single: bool,
}

/// A walk under way.
pub(crate) struct Walker<'a> {
    source: &'a dyn ObjectSource,
    start: Start,
    path: Vec<u8>,
    levels: Vec<Level>,
    aheads: Vec<Ahead>,
}

/// Receives the events of a walk.
pub(crate) type Visit<'v, E> = dyn FnMut(&[u8], Event<'_>) -> Result<Step, E> + 'v;

impl<'a> Walker<'a> {
    /// A walk whose paths begin with `prefix` (no `/` at its end).
    pub(crate) fn new(source: &'a dyn ObjectSource, start: Start, prefix: Vec<u8>) -> Self {
        Self { source, start, path: prefix, levels: Vec::new(), aheads: Vec::new() }
    }

    /// Runs to the end, or to the visitor's error. Paths are `prefix/name/name`.
    pub(crate) fn run<E>(mut self, visit: &mut Visit<'_, E>) -> Result<(), E> {
        match std::mem::replace(&mut self.start, Start::Entries(Vec::new())) {
            Start::Entries(entries) => {
                self.aheads.push(Ahead::over(&entries));
                self.push(entries, Vec::new(), End::Part, true);
            }
            Start::Node(id) => {
                self.aheads.push(Ahead { upcoming: VecDeque::from([id]), ..Ahead::default() });
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
                if level.owns_ahead {
                    self.aheads.pop();
                }
                self.levels.pop();
                if end == End::Directory {
                    visit(&self.path, Event::Leave)?;
                }
            }
        }
        Ok(())
    }

    fn enter<E>(&mut self, entry: Entry, visit: &mut Visit<'_, E>) -> Result<(), E> {
        self.path.push(b'/');
        self.path.extend_from_slice(&entry.name);
        let step = visit(&self.path, Event::Entry(&entry))?;
        if step == Step::Over {
            return Ok(());
        }
        match entry.body {
            Body::Folded(entries) => self.push(entries, Vec::new(), End::Directory, false),
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
        let path = || self.path.clone();
        let read = match self.aheads.last_mut() {
            Some(ahead) => ahead.take(self.source, id),
            None => read_one(self.source, id),
        };
        let object = read.map_err(|source| BrowseError::Transfer { path: path(), source })?;
        let node =
            node::decode(&object).map_err(|source| BrowseError::Format { path: path(), id, source })?;
        match node {
            Node::Leaf(entries) => {
                self.aheads.push(Ahead::over(&entries));
                self.push(entries, Vec::new(), end, true);
            }
            Node::Index(branches) => {
                let upcoming = branches.iter().map(|branch| branch.node).collect();
                self.aheads.push(Ahead { upcoming, ..Ahead::default() });
                self.push(Vec::new(), branches, end, true);
            }
        }
        Ok(())
    }

    fn push(&mut self, entries: Vec<Entry>, branches: Vec<Branch>, end: End, owns_ahead: bool) {
        let (entries, branches) = (entries.into_iter(), branches.into_iter());
        self.levels.push(Level { entries, branches, end, path_len: self.path.len(), owns_ahead });
    }
}

impl Ahead {
    /// The nodes below these entries, through folded directories.
    fn over(entries: &[Entry]) -> Self {
        let mut upcoming = VecDeque::new();
        // Folding is limited to 64 levels by the decoder.
        fn collect(entries: &[Entry], out: &mut VecDeque<ObjectId>) {
            for entry in entries {
                match &entry.body {
                    Body::Directory { node, .. } => out.push_back(*node),
                    Body::Folded(below) => collect(below, out),
                    Body::File { .. } | Body::Symlink(_) | Body::Special(_) => {}
                }
            }
        }
        collect(entries, &mut upcoming);
        Self { upcoming, ..Self::default() }
    }

    /// The object `id`; those passed over since the last call are dropped.
    fn take(&mut self, source: &dyn ObjectSource, id: ObjectId) -> Result<Object, TransferError> {
        while let Some((ready, object)) = self.ready.pop_front() {
            if ready == id {
                return Ok(object);
            }
        }
        while self.upcoming.pop_front().is_some_and(|next| next != id) {}
        if self.single {
            return read_one(source, id);
        }
        let mut ids = vec![id];
        ids.extend(self.upcoming.iter().take(AHEAD - 1));
        match source.read(&ids) {
            Ok(objects) if objects.len() == ids.len() => {
                self.upcoming.drain(..ids.len() - 1);
                self.ready = ids.into_iter().zip(objects).collect();
                self.ready.pop_front().map(|(_, object)| object).ok_or(TransferError::NotFound(id))
            }
            Err(error) if is_fatal(&error) => Err(error),
            _ => {
                self.single = true;
                read_one(source, id)
            }
        }
    }
}

fn read_one(source: &dyn ObjectSource, id: ObjectId) -> Result<Object, TransferError> {
    source.read(&[id])?.pop().ok_or(TransferError::NotFound(id))
}
