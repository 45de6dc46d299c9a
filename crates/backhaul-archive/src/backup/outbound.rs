//! Compresses in parallel and gives objects to the sink in the order they were made.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use backhaul_object::seal::Packer;
use backhaul_object::source::{ObjectSink, TransferError};
use backhaul_object::{Compressed, FormatError, Object, ObjectId, Proof};

use super::{BackupError, BackupProgress, count};

/// Compressing threads.
const THREADS: usize = 2;
/// Objects that wait before and after each of them.
const QUEUE_MAX: usize = 1;

pub(super) type Packed = Result<Compressed, FormatError>;

pub(super) struct Task {
    pub(super) name: (ObjectId, Proof),
    pub(super) object: Object,
    /// The same as a patch.
    pub(super) patch: Option<Object>,
}

/// The near end of the queue.
pub(super) struct Outbound {
    workers: Vec<SyncSender<Task>>,
    sent: u64,
}

impl Outbound {
    /// Queues an object, or the patch that stands for it if that is much shorter; returns its number, from 1. Blocks while
    /// the queue is full.
    pub(super) fn send(&mut self, name: (ObjectId, Proof), object: Object, patch: Option<Object>) -> u64 {
        let worker = self.sent as usize % THREADS;
        self.sent += 1;
        // A worker is gone only after the sink failed, which shows at the next question or at the end.
        let _ = self.workers[worker].send(Task { name, object, patch });
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
    let (mut workers, mut results) = (Vec::new(), Vec::new());
    for _ in 0..THREADS {
        let (tasks_in, tasks) = sync_channel::<Task>(QUEUE_MAX);
        let (results_in, result) = sync_channel(QUEUE_MAX);
        workers.push(tasks_in);
        results.push(result);
        scope.spawn(move || compress(&tasks, &results_in));
    }
    let progress = Arc::clone(progress);
    let putter = scope.spawn(move || put(&results, sink, &progress));
    let mut outbound = Outbound { workers, sent: 0 };
    let done = work(&mut outbound);
    drop(outbound);
    let put = putter.join().unwrap_or_else(|_| Err(TransferError::Lost("a thread failed".to_owned()).into()));
    (put, done)
}

fn compress(tasks: &Receiver<Task>, results: &SyncSender<Packed>) {
    let mut packer = match Packer::of_backups() {
        Ok(packer) => packer,
        Err(error) => {
            let _ = results.send(Err(error));
            return;
        }
    };
    for task in tasks {
        if results.send(pack(task, &mut packer)).is_err() {
            return;
        }
    }
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
    results: &[Receiver<Packed>],
    sink: &dyn ObjectSink,
    progress: &BackupProgress,
) -> Result<(), BackupError> {
    for result in results.iter().cycle() {
        let Ok(packed) = result.recv() else { return Ok(()) };
        let object = packed?;
        count(&progress.bytes_sent, size(&object) as u64);
        sink.put(object)?;
    }
    Ok(())
}
