//! Looks what is there, by several threads behind the scan: its batches go to one after the other, and come out in the same
//! turns.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use rustix::fs::Stat;

use super::place;
use super::scan::Seen;

/// Threads that look: asking the file system is most of what a restore costs that finds all as it should be.
const LOOKERS: usize = 2;

/// What was found in the place of something.
pub(super) enum Looked {
    /// Nobody looked, or it could not be seen.
    Not,
    /// Nobody has looked yet into this folder.
    In(Arc<OwnedFd>),
    /// This.
    At(Option<Stat>),
}

impl Looked {
    fn look(&mut self, name: &[u8]) {
        if let Self::In(dir) = self {
            *self = place::look(dir, name).map_or(Self::Not, Self::At);
        }
    }
}

/// Nobody listens any more.
pub(super) struct Gone;

/// Takes batches of the scan.
pub(super) struct Unseen {
    lookers: Vec<SyncSender<Vec<Seen>>>,
    turn: usize,
}

impl Unseen {
    pub(super) fn hand_on(&mut self, batch: Vec<Seen>) -> Result<(), Gone> {
        let looker = self.lookers.get(self.turn).ok_or(Gone)?;
        self.turn = (self.turn + 1) % LOOKERS;
        looker.send(batch).map_err(|_| Gone)
    }
}

/// Yields them in their order.
pub(super) struct Batches {
    lookers: Vec<Receiver<Vec<Seen>>>,
    turn: usize,
}

impl Iterator for Batches {
    type Item = Vec<Seen>;

    fn next(&mut self) -> Option<Vec<Seen>> {
        let looker = self.lookers.get(self.turn)?;
        self.turn = (self.turn + 1) % LOOKERS;
        // The first that has no more ends it: the next batch would have been that one's.
        looker.recv().ok()
    }
}

/// Both ends, and the threads between them.
pub(super) fn begin<'scope>(
    scope: &'scope Scope<'scope, '_>,
) -> (Unseen, Batches, Vec<ScopedJoinHandle<'scope, ()>>) {
    let (mut ins, mut outs, mut threads) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..LOOKERS {
        let (unseen, batches) = sync_channel(1);
        let (seen, out) = sync_channel(1);
        threads.push(scope.spawn(move || look(&batches, &seen)));
        ins.push(unseen);
        outs.push(out);
    }
    (Unseen { lookers: ins, turn: 0 }, Batches { lookers: outs, turn: 0 }, threads)
}

fn look(batches: &Receiver<Vec<Seen>>, out: &SyncSender<Vec<Seen>>) {
    for mut batch in batches {
        for seen in &mut batch {
            if let Seen::Other { entry, looked } = seen {
                looked.look(&entry.name);
            }
        }
        if out.send(batch).is_err() {
            return;
        }
    }
}
