//! The walk over a snapshot's tree, ahead of what is done about it: it takes what the selection wants, and opens the folders that
//! are there already, in which others [`look`](super::look). So the tree is read and the file system asked while another thread
//! decides and makes folders.
//!
//! What is said of a name is a look like any other: the name may have become something else when its turn comes, and nothing is
//! replaced that was not judged. Only folders are looked into that are there before the restore makes any, by descriptors that
//! were opened one beneath the other, and are handed on.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use backhaul_object::entry::{Body, Entry};
use rustix::fs::{self, Mode as Bits};

use super::Mode;
use super::fetch::Engine;
use super::look::{Gone, Looked, Unseen};
use super::select::Choice;
use crate::beneath::dir_flags;
use crate::browse::BrowseError;
use crate::browse::walker::{Event, Start, Step, Walker};
use crate::patterns::Kind;

/// Innermost folders of which descriptors are kept; those further out are opened by their path again.
pub(super) const OPEN_MAX: usize = 32;
/// What is handed on at a time: names, of these folders (which are open), and bytes of what comes with names.
const NAMES_MAX: usize = 256;
const FOLDERS_MAX: usize = 32;
const HELD_MAX: usize = 1 << 20;

/// What the walk came to.
pub(super) enum Seen {
    /// A folder that is wanted or that something wanted may be in, without what is in it: that follows, and then a `Leave`.
    Folder {
        entry: Entry,
        choice: Choice,
        /// It is there.
        there: Option<Arc<OwnedFd>>,
    },
    /// Something else that is wanted.
    Other { entry: Entry, looked: Looked },
    /// A name that is not wanted.
    Unwanted(Vec<u8>),
    /// The end of a folder.
    Leave,
    /// A part of the folder cannot be read.
    Unreadable(BrowseError),
}

/// A folder that the walk is in.
struct Above {
    choice: Choice,
    ground: Ground,
}

enum Ground {
    /// It is not there, or cannot be opened.
    Absent,
    /// It is there, and was closed: deeper ones are open.
    Closed,
    Open(Arc<OwnedFd>),
}

pub(super) struct Scan<'s, 'a> {
    engine: &'s Engine<'a>,
    mode: Mode,
    above: Vec<Above>,
    gathered: Vec<Seen>,
    folders: usize,
    held: usize,
    out: Unseen,
}

impl<'s, 'a> Scan<'s, 'a> {
    pub(super) fn new(engine: &'s Engine<'a>, mode: Mode, out: Unseen) -> Self {
        let target = engine.place.and_then(|place| place.dir(b"").ok());
        let ground = target.map_or(Ground::Absent, |dir| Ground::Open(Arc::new(dir)));
        let above = vec![Above { choice: engine.request.select.at_start(), ground }];
        Self { engine, mode, above, gathered: Vec::new(), folders: 0, held: 0, out }
    }

    /// To the end, or until nobody listens.
    pub(super) fn run(mut self, start: Start) {
        let walker = Walker::new(self.engine.source, start, Vec::new());
        if walker.run(&mut |path, event| self.event(path, event)).is_ok() {
            let _ = self.hand_on();
        }
    }

    fn event(&mut self, path: &[u8], event: Event<'_>) -> Result<Step, Gone> {
        let mut step = Step::Into;
        let seen = match event {
            Event::Unreadable(error) if error.is_fatal() => {
                self.gathered.push(Seen::Unreadable(error));
                self.hand_on()?;
                return Err(Gone);
            }
            Event::Unreadable(error) => Some(Seen::Unreadable(error)),
            Event::Leave => {
                self.above.pop();
                Some(Seen::Leave)
            }
            Event::Entry(entry) => {
                let relative = path.strip_prefix(b"/").unwrap_or(path);
                let seen = self.entry(entry, relative);
                step = if matches!(seen, Some(Seen::Folder { .. })) { Step::Into } else { Step::Over };
                seen
            }
        };
        self.gathered.extend(seen);
        if self.gathered.len() >= NAMES_MAX || self.folders >= FOLDERS_MAX || self.held >= HELD_MAX {
            self.hand_on()?;
        }
        Ok(step)
    }

    fn hand_on(&mut self) -> Result<(), Gone> {
        (self.folders, self.held) = (0, 0);
        let gathered = std::mem::replace(&mut self.gathered, Vec::with_capacity(NAMES_MAX));
        self.out.hand_on(gathered)
    }

    fn entry(&mut self, entry: &mut Entry, relative: &[u8]) -> Option<Seen> {
        let kind = if entry.is_folder() { Kind::Directory } else { Kind::Other };
        let (select, above) = (&self.engine.request.select, self.above.last()?);
        let choice = match select.is_everything() {
            true => above.choice,
            false => select.choose(&[&self.engine.prefix[..], relative].join(&b'/'), kind, above.choice),
        };
        if choice == Choice::Unwanted {
            return Some(Seen::Unwanted(entry.name.clone()));
        }
        self.held += entry.extensions.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        if kind == Kind::Directory {
            self.folders += 1;
            let (name, extensions) = (entry.name.clone(), entry.extensions.clone());
            let bare = Entry { name, metadata: entry.metadata, body: Body::Folded(Vec::new()), extensions };
            return Some(self.enter(bare, choice, relative));
        }
        let looked = match &above.ground {
            Ground::Open(dir) if self.mode == Mode::Write => Looked::In(Arc::clone(dir)),
            _ => Looked::Not,
        };
        Some(Seen::Other { entry: take(entry), looked })
    }

    fn enter(&mut self, entry: Entry, choice: Choice, relative: &[u8]) -> Seen {
        let opened = match self.above.last().map(|above| &above.ground) {
            Some(Ground::Open(dir)) => fs::openat(dir, &entry.name[..], dir_flags(), Bits::empty()).ok(),
            Some(Ground::Closed) => self.engine.place.and_then(|place| place.dir(relative).ok()),
            Some(Ground::Absent) | None => None,
        };
        let there = opened.map(Arc::new);
        let ground = there.clone().map_or(Ground::Absent, Ground::Open);
        self.above.push(Above { choice, ground });
        if let Some(outer) = self.above.len().checked_sub(OPEN_MAX + 1).and_then(|at| self.above.get_mut(at))
            && matches!(outer.ground, Ground::Open(_))
        {
            outer.ground = Ground::Closed;
        }
        Seen::Folder { entry, choice, there }
    }
}

/// What is no directory is taken, not copied: what stays there is empty.
fn take(entry: &mut Entry) -> Entry {
    let empty = Body::Folded(Vec::new());
    Entry {
        name: std::mem::take(&mut entry.name),
        metadata: entry.metadata,
        body: std::mem::replace(&mut entry.body, empty),
        extensions: std::mem::take(&mut entry.extensions),
    }
}
