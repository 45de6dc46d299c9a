//! Makes parity beside the sessions: a sealed pack is as good as it was, and its sidecar follows.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use backhaul_object::ids::PackId;

use crate::blobs::Blobs;
use crate::error::{Of, StoreError};
use crate::pack::Class;
use crate::sidecar::{BLOCK, Sidecar, sidecar_blob};
use crate::vault::pack_blob;

/// Bytes read at once: what a processor's cache holds beside the hash.
const RUN: usize = 512 << 10;
/// How much nicer its thread is than the others: what it does is a seventh of what a first backup costs both ends on one machine, and nobody waits for it. It
/// has what nobody else wants, and a tenth of a share at least, so that a server that is never idle has its parity, too.
const NICE: i32 = 10;

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
    // Of Linux's calling thread alone. Where it is not allowed, sessions are a little slower.
    let _ = rustix::process::nice(NICE);
    for job in queue {
        // A disk that is full, or fails, is noticed by the sessions; the scrub makes the sidecar later.
        let _ = make(blobs, job.pack, job.class, job.len);
    }
}

/// Makes the sidecar of a pack that is in its place, if that is what its name says: parity of anything else would make
/// damage last.
pub(crate) fn make(blobs: &dyn Blobs, pack: PackId, class: Class, len: u64) -> Result<(), StoreError> {
    let blob = pack_blob(&pack);
    let mut read = |offset, out: &mut [u8]| match blobs.read_into(&blob, offset, out)? == out.len() {
        true => Ok(()),
        false => Err(StoreError::damaged(blob.clone(), "it is too short")),
    };
    let bytes = super::encode(pack, class, len, &mut read)?;
    if !is_of(blobs, &pack, &bytes)? {
        return Err(StoreError::damaged(blob, "its bytes do not hash to its name"));
    }
    blobs.put(&sidecar_blob(&pack), &bytes)
}

/// True when a sidecar's checksums are those of a pack that hashes to its name. Parity is computed across the pack, and the
/// hash along it: the checksums say that both have seen the same bytes.
fn is_of(blobs: &dyn Blobs, pack: &PackId, sidecar: &[u8]) -> Result<bool, StoreError> {
    let sidecar = Sidecar::parse(sidecar.to_vec()).of(|| sidecar_blob(pack))?;
    let mut sums = sidecar.table().sums.iter();
    let (mut hasher, mut at, mut run) = (blake3::Hasher::new(), 0, vec![0; RUN]);
    loop {
        let n = blobs.read_into(&pack_blob(pack), at, &mut run)?;
        hasher.update(&run[..n]);
        if !run[..n].chunks(BLOCK).all(|block| sums.next() == Some(&crc32fast::hash(block))) {
            return Ok(false);
        }
        at += n as u64;
        if n < run.len() {
            return Ok(hasher.finalize().as_bytes() == pack.as_bytes());
        }
    }
}
