//! What the walk finds, in path order.

use std::sync::mpsc::Receiver;

use backhaul_object::entry::Entry;

use super::excludes::Reason;
use super::read::Part;
use super::state::Record;
use super::{Figures, to_path};

/// One step of the walk.
pub(super) enum Step {
    /// A directory begins.
    Enter(Entry),
    /// The innermost directory ends.
    Leave,
    /// A file as it was in the last run.
    Known { entry: Entry, record: Box<Record> },
    /// A file that is being read.
    Read { name: Vec<u8>, path: Vec<u8>, changed: bool, link: Option<u64>, size: u64, parts: Receiver<Part> },
    /// Something without content.
    Plain(Entry),
    /// Something of a kind that is not kept.
    NotKept(&'static str),
    /// Something that is not wanted.
    LeftOut(Reason),
    /// A name of the innermost directory that is not saved, or some that nobody knows.
    Missing(Option<Vec<u8>>),
    /// Something that could not be read.
    Unreadable { path: Vec<u8>, why: String },
}

impl Step {
    /// Adds what the step alone tells.
    pub(super) fn count(&self, figures: &mut Figures) {
        match self {
            Self::Known { record, .. } => {
                figures.files_unmodified += 1;
                figures.bytes_scanned += record.fingerprint.size;
            }
            Self::Read { changed, size, .. } => {
                *(if *changed { &mut figures.files_changed } else { &mut figures.files_new }) += 1;
                figures.bytes_scanned += size;
            }
            Self::NotKept(kind) => tally(&mut figures.not_kept, kind),
            Self::LeftOut(reason) => tally(&mut figures.left_out, reason.words()),
            Self::Unreadable { path, why } => figures.errors.push((to_path(path), why.clone())),
            Self::Enter(_) | Self::Leave | Self::Plain(_) | Self::Missing(_) => {}
        }
    }
}

fn tally(counts: &mut Vec<(String, u64)>, kind: &str) {
    match counts.iter_mut().find(|(known, _)| known == kind) {
        Some((_, n)) => *n += 1,
        None => counts.push((kind.to_owned(), 1)),
    }
}
