//! Makes parity beside the sessions: a sealed pack is as good as it was, and its sidecar follows.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use backhaul_object::ids::PackId;

use crate::blobs::Blobs;
use crate::error::StoreError;
use crate::pack::Class;
use crate::sidecar::sidecar_blob;
use crate::vault::pack_blob;

/// A pack that has no sidecar yet.
struct Job {
    pack: PackId,
    class: Class,
    len: u64,
}

/// A thread that makes sidecars; it ends, with all its work done, when this is dropped.
pub(crate) struct ParityWorker {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl ParityWorker {
    pub(crate) fn start(blobs: Arc<dyn Blobs>) -> Self {
        let (jobs, queue) = channel();
        let thread =
            std::thread::Builder::new().name("parity".to_owned()).spawn(move || run(&*blobs, &queue));
        // Without the thread there is no parity until the scrub finds it missing: the packs are safe all the same.
        Self { jobs: Some(jobs), thread: thread.ok() }
    }

    /// A pack has come to its place.
    pub(crate) fn add(&self, pack: PackId, class: Class, len: u64) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(Job { pack, class, len });
        }
    }
}

impl Drop for ParityWorker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(blobs: &dyn Blobs, queue: &Receiver<Job>) {
    for job in queue {
        // A disk that is full, or fails, is noticed by the sessions; the scrub makes the sidecar later.
        let _ = make(blobs, job.pack, job.class, job.len);
    }
}

/// Makes the sidecar of a pack that is in its place.
pub(crate) fn make(blobs: &dyn Blobs, pack: PackId, class: Class, len: u64) -> Result<(), StoreError> {
    let blob = pack_blob(&pack);
    let mut read = |offset, out: &mut [u8]| match blobs.read_into(&blob, offset, out)? == out.len() {
        true => Ok(()),
        false => Err(StoreError::damaged(blob.clone(), "it is too short")),
    };
    let bytes = super::encode(pack, class, len, &mut read)?;
    blobs.put(&sidecar_blob(&pack), &bytes)
}
