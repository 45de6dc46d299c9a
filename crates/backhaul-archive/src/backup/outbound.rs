//! Compresses in parallel and gives objects to the sink in the order they were made.

use std::sync::Arc;
use std::thread::Scope;

use backhaul_object::seal::Packer;
use backhaul_object::source::{ObjectSink, TransferError};
use backhaul_object::{Compressed, FormatError, Object, ObjectId, Proof};
use backhaul_turns::{Giver, Results, Worker, turns};

use super::{BackupError, BackupProgress, count};

/// Compressing threads.
const THREADS: usize = 2;
/// Objects that wait to be compressed, are being compressed or wait to be sent: one of each for each thread.
const UNDER_WAY_MAX: usize = 3 * THREADS;

pub(super) type Packed = Result<Compressed, FormatError>;

pub(super) struct Task {
    pub(super) name: (ObjectId, Proof),
    pub(super) object: Object,
    /// The same as a patch.
    pub(super) patch: Option<Object>,
}

/// The near end of the queue.
pub(super) struct Outbound {
    tasks: Giver<Task, Packed>,
    sent: u64,
}

impl Outbound {
    /// Queues an object, or the patch that stands for it if that is much shorter; returns its number, from 1. Blocks while
    /// the queue is full.
    pub(super) fn send(&mut self, name: (ObjectId, Proof), object: Object, patch: Option<Object>) -> u64 {
        self.sent += 1;
        // Nobody takes it only after the sink or the packing failed, which shows at the next question or at the end.
        let _ = self.tasks.give(Task { name, object, patch });
        self.sent
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }
}

/// Runs `work` with an [`Outbound`], and waits until everything it sent is with the sink; returns what both
/// came to: the sink's own reason explains what `work` could only notice.
pub(super) fn with<'scope, T>(
    scope: &'scope Scope<'scope, '_>,
    sink: &'scope dyn ObjectSink,
    progress: &Arc<BackupProgress>,
    work: impl FnOnce(&mut Outbound) -> Result<T, BackupError>,
) -> (Result<(), BackupError>, Result<T, BackupError>) {
    let (tasks, worker, results) = turns(UNDER_WAY_MAX);
    for _ in 0..THREADS {
        let worker = worker.clone();
        scope.spawn(move || compress(worker));
    }
    drop(worker);
    let progress = Arc::clone(progress);
    let putter = scope.spawn(move || put(results, sink, &progress));
    let mut outbound = Outbound { tasks, sent: 0 };
    let done = work(&mut outbound);
    drop(outbound);
    let put = putter.join().unwrap_or_else(|_| Err(TransferError::Lost("a thread failed".to_owned()).into()));
    (put, done)
}

fn compress(worker: Worker<Task, Packed>) {
    let mut packer = Packer::of_backups();
    worker.run(|task| match &mut packer {
        Ok(packer) => pack(task, packer),
        Err(error) => Err(error.clone()),
    });
}

/// As a patch only what is less than 40 % of the whole. What is less than a 64th of it as it is, is so unless next to nothing is
/// gained or lost: this is not looked at.
pub(super) fn pack(task: Task, packer: &mut Packer) -> Packed {
    let Task { name: (id, proof), object, patch } = task;
    let Some(patch) = patch else { return object.compress_as(id, proof, packer) };
    let plain_len = object.payload.len();
    let patch = patch.compress_as(id, proof, packer)?;
    if size(&patch) < plain_len / 64 {
        return Ok(patch);
    }
    let whole = object.compress_as(id, proof, packer)?;
    Ok(if size(&patch) * 5 < size(&whole) * 2 { patch } else { whole })
}

/// Bytes that an object takes on its way.
fn size(object: &Compressed) -> usize {
    object.header.encode().len() + object.body.len()
}

fn put(
    mut results: Results<Packed>,
    sink: &dyn ObjectSink,
    progress: &BackupProgress,
) -> Result<(), BackupError> {
    let failed = |_| TransferError::Lost("a compressing thread failed".to_owned());
    while let Some(packed) = results.take().map_err(failed)? {
        let object = packed?;
        count(&progress.bytes_sent, size(&object) as u64);
        sink.put(object)?;
    }
    Ok(())
}
