//! Draws the directories, and sends their nodes after what is in them.

use std::collections::HashSet;

use backhaul_object::entry::{Entry, Metadata};
use backhaul_object::keys::IdKey;
use backhaul_object::node::{DirectoryBuilder, write_root};
use backhaul_object::source::TransferError;
use backhaul_object::{Object, ObjectId, Proof};

use super::assemble::directory_entry;
use super::outbound::Outbound;
use super::state::{Journal, PendingState, Record};
use super::{BackupError, Figures, Follows, Saved, VaultParameters};

/// The part that draws directories and sends objects.
pub(super) struct Tree<'a> {
    parameters: &'a VaultParameters,
    outbound: &'a mut Outbound,
    journal: Option<Journal>,
    old_nodes: HashSet<u64>,
    stack: Vec<Level<'a>>,
}

/// A directory that is being drawn.
struct Level<'a> {
    entry: Entry,
    builder: DirectoryBuilder<'a>,
    missing: Missing,
}

/// What of a directory is not in it.
#[derive(Default)]
struct Missing {
    names: Vec<Vec<u8>>,
    /// There are more, or others.
    unknown: bool,
}

/// More names than this are not listed.
const MISSING_MAX: usize = 1_000;

impl<'a> Level<'a> {
    fn new(entry: Entry, key: &'a IdKey) -> Self {
        Self { entry, builder: DirectoryBuilder::new(key), missing: Missing::default() }
    }
}

impl<'a> Tree<'a> {
    pub(super) fn new(
        parameters: &'a VaultParameters,
        outbound: &'a mut Outbound,
        journal: Option<Journal>,
        old_nodes: HashSet<u64>,
    ) -> Self {
        let root = directory_entry(Vec::new(), Metadata::default());
        let stack = vec![Level::new(root, &parameters.id_key)];
        Self { parameters, outbound, journal, old_nodes, stack }
    }

    /// Sends content: a chunk, perhaps as a patch, or a bundle; returns its number.
    pub(super) fn send(&mut self, name: (ObjectId, Proof), object: Object, patch: Option<Object>) -> u64 {
        self.outbound.send(name, object, patch)
    }

    /// Sends a node or list, unless the server is known to have it.
    pub(super) fn emit(&mut self, id: ObjectId, object: Object) {
        let prefix = id.prefix();
        if !self.old_nodes.contains(&prefix) {
            let (_, proof) = object.identify(&self.parameters.id_key);
            self.outbound.send((id, proof), object, None);
        }
        if let Some(journal) = &mut self.journal {
            journal.node(prefix, self.outbound.sent());
        }
    }

    pub(super) fn enter(&mut self, entry: Entry) {
        self.stack.push(Level::new(entry, &self.parameters.id_key));
    }

    pub(super) fn add(&mut self, entry: Entry, record: Option<&Record>) {
        self.with_top(|tree, top| top.push(entry, &mut |id, object| tree.emit(id, object)));
        if let (Some(journal), Some(record)) = (&mut self.journal, record) {
            journal.file(record, self.outbound.sent());
        }
    }

    pub(super) fn leave(&mut self) {
        let Some(Level { entry, builder, missing }) = self.stack.pop() else { return };
        let entry = match missing {
            Missing { unknown: true, .. } => entry.with_left_out(None),
            Missing { names, .. } if names.is_empty() => entry,
            Missing { names, .. } => entry.with_left_out(Some(&names)),
        };
        let done = builder.finish(&mut |id, object| self.emit(id, object));
        self.with_top(|tree, top| top.push_directory(entry, done, &mut |id, object| tree.emit(id, object)));
    }

    /// Notes that a name of the innermost directory is not in it, or some that nobody knows.
    pub(super) fn missing(&mut self, name: Option<Vec<u8>>) {
        let Some(Level { missing, .. }) = self.stack.last_mut() else { return };
        match name {
            Some(name) if missing.names.len() < MISSING_MAX => missing.names.push(name),
            _ => missing.unknown = true,
        }
    }

    /// Lends the innermost directory out while objects are sent.
    fn with_top(&mut self, work: impl FnOnce(&mut Self, &mut DirectoryBuilder<'_>)) {
        if let Some(mut level) = self.stack.pop() {
            work(self, &mut level.builder);
            self.stack.push(level);
        }
    }

    pub(super) fn note_durable(&mut self, durable: u64) -> Result<(), BackupError> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.advance(durable))
    }

    pub(super) fn finish(mut self, figures: Figures) -> Result<Saved, BackupError> {
        while self.stack.len() > 1 {
            self.leave();
        }
        let Some(Level { builder, .. }) = self.stack.pop() else {
            return Err(TransferError::Lost("the walk did not begin".to_owned()).into());
        };
        let done = builder.finish(&mut |id, object| self.emit(id, object));
        let key = &self.parameters.id_key;
        let (root, totals) = write_root(done, key, &mut |id, object| self.emit(id, object));
        let figures = Figures { objects_sent: self.outbound.sent(), ..figures };
        let state = self.journal.map(|journal| PendingState { journal });
        Ok(Saved { root, totals, figures, follows: Follows::Nothing, state })
    }
}
