//! A backup of what somebody else writes: one file that never was on a disk.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};

use backhaul_object::chunker::Chunker;
use backhaul_object::entry::{Metadata, check_name};
use backhaul_object::seal::identify_content;
use backhaul_object::source::ObjectSink;

use super::read::{Outcome, PARTS_MAX, Part, cut_chunks};
use super::state::Fingerprint;
use super::step::{self, Step};
use super::{BackupError, BackupProgress, Saved, VaultParameters, assemble, count, outbound};

/// Where the bytes come from.
pub struct Stream<'s> {
    /// The name of the file, at the root of the snapshot.
    pub name: String,
    /// Its mode, owner and time.
    pub metadata: Metadata,
    /// The bytes.
    pub from: Box<dyn Read + Send + 's>,
    /// Says at their end whether they are whole, and in words if not.
    pub end: Box<dyn FnOnce() -> Result<(), String> + Send + 's>,
}

/// Saves a stream into the sink. One that breaks off, or that is not whole by its own word, makes no snapshot.
///
/// # Errors
/// [`BackupError`]
pub fn backup_stream(
    stream: Stream<'_>,
    parameters: &VaultParameters,
    progress: &Arc<BackupProgress>,
    sink: &dyn ObjectSink,
) -> Result<Saved, BackupError> {
    check_name(stream.name.as_bytes())?;
    let (parts_in, parts) = sync_channel(PARTS_MAX);
    let path = [b"/", stream.name.as_bytes()].concat();
    count(&progress.files, 1);
    let batches = step::only(Step::Read { path, link: None, size: 0, before: None }, parts);
    let (put, saved) = std::thread::scope(|scope| {
        scope.spawn(move || {
            let last = pour(stream, parameters, progress, &parts_in).unwrap_or_else(Part::Failed);
            // The receiver is gone when the run is over.
            let _ = parts_in.send(last);
        });
        outbound::with(scope, sink, progress, |outbound| {
            let nodes = std::collections::HashSet::new();
            assemble::Assembler::new(parameters, sink, outbound, None, nodes, None).run(&batches)
        })
    });
    match put {
        Ok(()) => {
            let mut saved = saved?;
            if let Some((_, why)) = saved.figures.errors.pop() {
                return Err(BackupError::Stream { why });
            }
            saved.figures.bytes_scanned = saved.figures.bytes_read;
            saved.figures.bytes_sent = progress.bytes_sent.load(Ordering::Relaxed);
            Ok(saved)
        }
        // The sink's own reason is the true one.
        Err(error) => Err(sink.failure().map_or(error, BackupError::Transfer)),
    }
}

fn pour(
    stream: Stream<'_>,
    parameters: &VaultParameters,
    progress: &BackupProgress,
    parts: &SyncSender<Part>,
) -> Result<Part, String> {
    let Stream { metadata, mut from, end, .. } = stream;
    let chunker = Chunker::new(&parameters.descriptor, &parameters.chunker_key);
    let mut gone = false;
    let size = cut_chunks(&mut from, u64::MAX, &chunker, &mut |content| {
        count(&progress.bytes_read, content.len() as u64);
        count(&progress.bytes_scanned, content.len() as u64);
        let (id, proof) = identify_content(&parameters.id_key, &content);
        gone = parts.send(Part::Chunk { id, proof, content, draft: None }).is_err();
        !gone
    });
    // Whoever writes must not wait for a reader any more when it is waited for.
    drop(from);
    let ended = end();
    let size = size.map_err(|error| error.to_string())?;
    if gone {
        return Err("the run ended".to_owned());
    }
    ended?;
    let outcome = Outcome {
        metadata,
        fingerprint: Fingerprint { size, ..Fingerprint::default() },
        size,
        read: size,
        ..Outcome::default()
    };
    Ok(Part::Done(outcome))
}
