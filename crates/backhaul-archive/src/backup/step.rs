//! What the walk finds, in path order.

use std::ffi::CStr;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use backhaul_object::entry::{Content, Entry};

use super::excludes::Reason;
use super::read::{Job, Part, Parts, Wanted};
use super::state::Record;
use super::{Figures, to_path};
use crate::listing::Names;

/// Weight of a batch: what is handed over one by one costs a wake-up of the other thread each time. One thread reads all
/// files of a batch.
const BATCH: usize = 256;
/// Weight of a file that is read, however small it is: its folder is open until it is. So 32 of them are a batch.
const READ: usize = 8;
/// Bytes of a file of the weight of a step: what was read waits in memory. So half a MiB is a batch.
const CONTENT: u64 = 2 << 10;
/// Bytes of extensions of the weight of a step.
const EXTENSIONS: usize = 256;
/// Batches that wait.
const BATCHES_MAX: usize = 32;

/// The walk's end of the ways to the readers and to the assembler.
pub(super) struct Steps {
    batch: Vec<Step>,
    weight: usize,
    wanted: Vec<Wanted>,
    /// Of each of them.
    names: Names,
    jobs: crossbeam_channel::Sender<Job>,
    out: SyncSender<Batch>,
}

/// Steps in path order, and what is read of the files among them.
pub(super) struct Batch {
    pub(super) steps: Vec<Step>,
    /// Comes once, with one for each [`Step::Read`].
    pub(super) found: Receiver<Vec<Parts>>,
}

/// The consumer is gone: the run is over.
pub(super) struct Over;

impl Steps {
    /// The walk's end, and the assembler's.
    pub(super) fn channel(jobs: crossbeam_channel::Sender<Job>) -> (Self, Receiver<Batch>) {
        let (out, batches) = sync_channel(BATCHES_MAX);
        (
            Self { batch: Vec::new(), weight: 0, wanted: Vec::new(), names: Names::default(), jobs, out },
            batches,
        )
    }

    pub(super) fn send(&mut self, step: Step) -> Result<(), Over> {
        self.weight += step.weight();
        self.batch.push(step);
        if self.weight < BATCH { Ok(()) } else { self.flush() }
    }

    /// Sends the step of a file and has it read.
    pub(super) fn read(&mut self, wanted: Wanted, name: &CStr, step: Step) -> Result<(), Over> {
        self.names.push(name);
        self.wanted.push(wanted);
        self.send(step)
    }

    /// Hands over what there is; needed at the end only. First to the readers: whatever else they have in hand is of
    /// batches that the assembler has or gets without their doing, so none waits for the other.
    pub(super) fn flush(&mut self) -> Result<(), Over> {
        self.weight = 0;
        let (found_in, found) = channel();
        // The next batch is about as large.
        let (files, steps) = (next(&mut self.wanted), next(&mut self.batch));
        let names = Names::with_room_of(&self.names);
        let names = std::mem::replace(&mut self.names, names);
        if !files.is_empty() {
            // In a dry run there are no readers; otherwise they outlive the walk.
            let _ = self.jobs.send(Job { files, names, found: found_in });
        }
        self.out.send(Batch { steps, found }).map_err(|_| Over)
    }
}

/// What is in it; another takes its place that has room for as much.
fn next<T>(of: &mut Vec<T>) -> Vec<T> {
    let empty = Vec::with_capacity(of.len());
    std::mem::replace(of, empty)
}

/// A run of one file whose parts come from elsewhere.
pub(super) fn only(step: Step, parts: Receiver<Part>) -> Receiver<Batch> {
    let ((out, batches), (found_in, found)) = (channel(), channel());
    // The receivers are in this function.
    let _ = found_in.send(vec![Parts::Coming(parts)]);
    let _ = out.send(Batch { steps: vec![step], found });
    batches
}

/// What a file was in the last run.
pub(super) struct Before {
    pub(super) content: Content,
    pub(super) seems: Seems,
}

/// What a file's size and times say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seems {
    /// It is another.
    Changed,
    /// It is the same, but they were too new to prove that.
    Same,
}

/// One step of the walk.
pub(super) enum Step {
    /// A directory begins.
    Enter(Entry),
    /// The innermost directory ends.
    Leave,
    /// A file as it was in the last run.
    Known { entry: Entry, record: Box<Record> },
    /// A file that is being read, and what it was in the last run.
    Read { path: Vec<u8>, link: Option<u64>, size: u64, before: Option<Before> },
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
            Self::Read { size, .. } => READ + (size / CONTENT).min(BATCH as u64) as usize,
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
            Self::Read { before, size, .. } => {
                *(match before.as_ref().map(|before| before.seems) {
                    None => &mut figures.files_new,
                    Some(Seems::Changed) => &mut figures.files_changed,
                    // Until it is read.
                    Some(Seems::Same) => &mut figures.files_unmodified,
                }) += 1;
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
