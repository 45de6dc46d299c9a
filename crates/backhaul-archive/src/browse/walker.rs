//! The streaming walk that listing, finding and restoring share.
//!
//! An explicit stack, so that a tree of any depth takes no stack space; nodes are read [`ahead`](super::ahead).

use std::vec::IntoIter;

use backhaul_object::entry::{Body, Entry, Totals};
use backhaul_object::node::{Branch, Node};
use backhaul_object::source::ObjectSource;
use backhaul_object::{FormatError, ObjectId};

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
    /// At the contents of a node, which are as many as is said elsewhere.
    Node(ObjectId, Option<Totals>),
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
    source: &'a dyn ObjectSource,
    start: Start,
    path: Vec<u8>,
}

/// Where it is.
struct Walk {
    path: Vec<u8>,
    levels: Vec<Level>,
    ahead: Ahead,
}

/// More names than any file system has.
const NAMES_MAX: u64 = 1 << 40;

/// Sums are what is said of them, from the top to the last folder: however often a node is referred to, a walk comes to no
/// more names than the snapshot has said that it has.
fn check(node: &Node, said: Option<Totals>) -> Result<(), FormatError> {
    let found: Totals = match node {
        Node::Leaf(entries) => entries.iter().map(Entry::totals).sum(),
        Node::Index(branches) => branches.iter().map(|branch| branch.totals).sum(),
    };
    let names = found.files.saturating_add(found.dirs);
    if names > NAMES_MAX {
        return Err(FormatError::TooLarge { what: "number of names", value: names, limit: NAMES_MAX });
    }
    match said {
        Some(said) if said != found => Err(FormatError::Mismatch("number of names or bytes below it")),
        _ => Ok(()),
    }
}

/// Receives the events of a walk.
pub(crate) type Visit<'v, E> = dyn FnMut(&[u8], Event<'_>) -> Result<Step, E> + 'v;

impl<'a> Walker<'a> {
    /// A walk whose paths begin with `prefix` (no `/` at its end).
    pub(crate) fn new(source: &'a dyn ObjectSource, start: Start, prefix: Vec<u8>) -> Self {
        Self { source, start, path: prefix }
    }

    /// Runs to the end, or to the visitor's error. Paths are `prefix/name/name`.
    pub(crate) fn run<E>(self, visit: &mut Visit<'_, E>) -> Result<(), E> {
        let (ahead, reader) = Ahead::new(self.source);
        std::thread::scope(|scope| {
            scope.spawn(|| reader.run());
            // What is asked for ends with the walk, and then the reader does.
            Walk { path: self.path, levels: Vec::new(), ahead }.run(self.start, visit)
        })
    }
}

impl Walk {
    fn run<E>(mut self, start: Start, visit: &mut Visit<'_, E>) -> Result<(), E> {
        match start {
            Start::Entries(entries) => {
                self.ahead.begin(&entries);
                self.push(entries, Vec::new(), End::Part);
            }
            Start::Node(id, said) => {
                if let Err(error) = self.open((id, said), End::Part) {
                    visit(&self.path, Event::Unreadable(error))?;
                }
            }
        }
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path_len);
            if let Some(entry) = level.entries.next() {
                self.enter(entry, visit)?;
            } else if let Some(branch) = level.branches.next() {
                if let Err(error) = self.open((branch.node, Some(branch.totals)), End::Part) {
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
            Body::Directory { node, totals } => {
                if let Err(error) = self.open((node, Some(totals)), End::Directory) {
                    visit(&self.path, Event::Unreadable(error))?;
                    visit(&self.path, Event::Leave)?;
                }
            }
            Body::File { .. } | Body::Symlink(_) | Body::Special(_) => {}
        }
        Ok(())
    }

    fn open(&mut self, (id, said): (ObjectId, Option<Totals>), end: End) -> Result<(), BrowseError> {
        let node = self.ahead.take(id).map_err(|failed| match failed {
            Failed::Read(source) => BrowseError::Transfer { path: self.path.clone(), source },
            Failed::Format(source) => BrowseError::Format { path: self.path.clone(), id, source },
        })?;
        check(&node, said).map_err(|source| BrowseError::Format { path: self.path.clone(), id, source })?;
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
