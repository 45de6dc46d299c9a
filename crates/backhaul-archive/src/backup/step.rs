//! What the walk finds, in path order.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use backhaul_object::entry::Entry;

use super::excludes::Reason;
use super::read::Part;
use super::state::Record;
use super::{Figures, JOBS_MAX, to_path};

/// Weight of a batch: what is handed over one by one costs a wake-up of the other thread each time.
const BATCH: usize = 256;
/// Weight of a file that is read: its content waits in memory. So eight of them are a batch.
const READ: usize = 32;
// Else the walk could wait for readers, they for the assembler, and it for the batch that the walk has not handed over.
const _: () = assert!(BATCH / READ < JOBS_MAX);
/// Bytes of extensions of the weight of a step.
const EXTENSIONS: usize = 256;
/// Batches that wait.
const BATCHES_MAX: usize = 16;

/// The walk's end of the way to the assembler.
pub(super) struct Steps {
    batch: Vec<Step>,
    weight: usize,
    out: SyncSender<Vec<Step>>,
}

/// The consumer is gone: the run is over.
pub(super) struct Over;

impl Steps {
    /// The two ends.
    pub(super) fn channel() -> (Self, Receiver<Vec<Step>>) {
        let (out, steps) = sync_channel(BATCHES_MAX);
        (Self { batch: Vec::new(), weight: 0, out }, steps)
    }

    pub(super) fn send(&mut self, step: Step) -> Result<(), Over> {
        self.weight += step.weight();
        self.batch.push(step);
        if self.weight < BATCH { Ok(()) } else { self.flush() }
    }

    /// Hands over what there is; needed at the end only.
    pub(super) fn flush(&mut self) -> Result<(), Over> {
        self.weight = 0;
        self.out.send(std::mem::take(&mut self.batch)).map_err(|_| Over)
    }
}

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
    fn weight(&self) -> usize {
        match self {
            Self::Read { .. } => READ,
            Self::Enter(entry) | Self::Plain(entry) | Self::Known { entry, .. } => {
                1 + extensions(entry) / EXTENSIONS
            }
            _ => 1,
        }
    }

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

/// Bytes of an entry that wait in memory like contents: nothing else in it is large.
pub(super) fn extensions(entry: &Entry) -> usize {
    entry.extensions.iter().map(|(_, value)| value.len()).sum()
}
