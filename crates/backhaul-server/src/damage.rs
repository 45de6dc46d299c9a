//! From objects that cannot be read to what people know them by: client, snapshot, path.
//!
//! Only folders that need something unreadable are opened, so this takes as long as the damage is large.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use backhaul_object::entry::{Body, Content, Entry};
use backhaul_object::ids::ObjectId;
use backhaul_object::node::{self, Node};
use backhaul_object::seal::Unpacker;
use backhaul_store::StoreError;
use backhaul_store::catalog::SnapshotRow;
use backhaul_store::check::{Go, Report};

use crate::session::OpenVault;

mod listed;

use listed::Listed;
pub(crate) use listed::describe;

/// Most paths that are held in memory, and said in an answer.
const PATHS_MAX: usize = 100_000;
/// Most paths in a file: some gigabytes. Whoever has lost more has lost everything.
const FILE_MAX: u64 = 20_000_000;

/// Where all of them go when there are more: into a file, or nowhere.
pub enum LongList<'a> {
    /// For somebody who has asked.
    File(&'a Path),
    /// For who needs their number only.
    None,
}

/// A path that cannot be restored whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostPath {
    /// In which snapshot.
    pub snapshot: ObjectId,
    /// Whose.
    pub client: String,
    /// Raw bytes; of a folder, which ends in `/`, everything below is lost.
    pub path: Vec<u8>,
}

/// What damage costs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LostPaths {
    /// In the order of snapshots and paths; the first of them, if there are many.
    pub paths: Vec<LostPath>,
    /// How many there are.
    pub count: u64,
    /// Whose they are.
    pub clients: BTreeSet<String>,
    /// A file with all of them (over 20,000,000 the last line says how many more), a document a line, if there are more than in
    /// `paths`; none also if it cannot be written.
    pub list: Option<PathBuf>,
}

/// Lists the paths that damage costs, snapshot by snapshot.
///
/// # Errors
/// The index cannot be read, or it is to stop. Objects that cannot be read are what this is about.
pub fn lost_paths(
    vault: &OpenVault,
    report: &Report,
    long: LongList<'_>,
    stop: &dyn Fn() -> Go,
) -> Result<LostPaths, StoreError> {
    let mut search = Search { vault, report, found: Listed::new(long, PATHS_MAX, FILE_MAX), stop };
    for row in &report.affected {
        search.snapshot(row)?;
    }
    Ok(search.found.finish())
}

/// A folder to be looked into.
enum Folder {
    Node(ObjectId),
    Entries(Vec<Entry>),
}

struct Search<'a> {
    vault: &'a OpenVault,
    report: &'a Report,
    found: Listed,
    stop: &'a dyn Fn() -> Go,
}

impl Search<'_> {
    fn snapshot(&mut self, row: &SnapshotRow) -> Result<(), StoreError> {
        let root = match self.vault.vault.get(row.ordinal) {
            Ok(sealed) if !self.report.unreadable.has(row.ordinal) => {
                sealed.header.references.first().map(|reference| reference.id)
            }
            _ => None,
        };
        let Some(root) = root else {
            self.lost(row, b"/".to_vec());
            return Ok(());
        };
        let mut open = vec![(Folder::Node(root), Vec::new())];
        while let Some((folder, path)) = open.pop() {
            if (self.stop)() == Go::Stop {
                return Err(StoreError::Interrupted);
            }
            self.folder(row, folder, path, &mut open)?;
        }
        Ok(())
    }

    fn lost(&mut self, row: &SnapshotRow, path: Vec<u8>) {
        self.found.add(LostPath { snapshot: row.id, client: row.client_name.clone(), path });
    }

    /// True when an object cannot be read, or needs one that cannot.
    fn is_tainted(&self, id: &ObjectId) -> Result<bool, StoreError> {
        Ok(self.vault.vault.ordinal(id)?.is_none_or(|ordinal| self.report.tainted.has(ordinal)))
    }

    fn folder(
        &mut self,
        row: &SnapshotRow,
        folder: Folder,
        path: Vec<u8>,
        open: &mut Vec<(Folder, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        let entries = match folder {
            Folder::Entries(entries) => entries,
            Folder::Node(id) if !self.is_tainted(&id)? => return Ok(()),
            Folder::Node(id) => match self.node(&id) {
                None => {
                    self.lost(row, [&path[..], b"/"].concat());
                    return Ok(());
                }
                Some(Node::Leaf(entries)) => entries,
                Some(Node::Index(branches)) => {
                    let parts = branches.into_iter().rev();
                    open.extend(parts.map(|branch| (Folder::Node(branch.node), path.clone())));
                    return Ok(());
                }
            },
        };
        let mut below = Vec::new();
        for entry in entries {
            let path = [&path[..], b"/", &entry.name].concat();
            match entry.body {
                Body::File { content, .. } if self.is_lost(&content)? => self.lost(row, path),
                Body::Directory { node, .. } => below.push((Folder::Node(node), path)),
                Body::Folded(entries) => below.push((Folder::Entries(entries), path)),
                _ => {}
            }
        }
        open.extend(below.into_iter().rev());
        Ok(())
    }

    fn is_lost(&self, content: &Content) -> Result<bool, StoreError> {
        match content {
            Content::Empty | Content::Inline(_) => Ok(false),
            Content::Member { bundle, .. } => self.is_tainted(bundle),
            Content::Flist(list) => self.is_tainted(list),
            Content::Chunks(pieces) => {
                for id in pieces.iter().filter_map(|piece| piece.id()) {
                    if self.is_tainted(&id)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    fn node(&self, id: &ObjectId) -> Option<Node> {
        let ordinal = self.vault.vault.ordinal(id).ok().flatten()?;
        if self.report.unreadable.has(ordinal) {
            return None;
        }
        let object =
            self.vault.get(ordinal).ok()?.open(&self.vault.id_key, &mut Unpacker::new().ok()?).ok()?;
        node::decode(&object).ok()
    }
}
