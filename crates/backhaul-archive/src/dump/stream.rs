//! Reads a large file in several reads at a time, and writes it in order.
//!
//! What comes is decompressed and hashed by whoever asked for it, which costs several times as much as to write it: with one
//! reader a disk image is restored by one processor.

use std::collections::HashMap;
use std::thread::scope;

use backhaul_object::piece::Piece;
use backhaul_object::source::{ObjectSource, TransferError};
use backhaul_turns::turns;
use bytes::Bytes;

use super::pieces::{Pieces, READ_BYTES, Run, Runs};
use super::{DumpError, Near, Part, Sink, chunk_of};

/// Threads that read one file.
const READERS: u64 = 3;
/// Reads that are queued, under way, or wait to be written.
const READS_MAX: usize = 4;

type Group = Result<Vec<Part>, DumpError>;

/// Writes the pieces to `out`; returns how many bytes. Nothing is written of what goes beyond `size`. What is one read needs no
/// thread: an archive has many such files.
pub(super) fn stream(
    source: &dyn ObjectSource,
    pieces: Pieces<'_>,
    (near, size): (Option<&dyn Near>, u64),
    out: &mut dyn Sink,
) -> Result<u64, DumpError> {
    let runs = Runs::new(pieces);
    let get = |run: Run| run.and_then(|(at, run)| read(source, near, at, &run));
    if size <= READ_BYTES {
        return drain(runs.map(get), size, out);
    }
    let (giver, worker, mut results) = turns::<Run, Group>(READS_MAX);
    scope(|scope| {
        scope.spawn(move || {
            for run in runs {
                if giver.give(run).is_err() {
                    return;
                }
            }
        });
        for _ in 0..READERS.min(size.div_ceil(READ_BYTES)) {
            let worker = worker.clone();
            scope.spawn(move || worker.run(get));
        }
        drop(worker);
        let failed = |_| Err(TransferError::Lost("a reading thread failed".to_owned()).into());
        let groups = std::iter::from_fn(move || results.take().unwrap_or_else(|gone| Some(failed(gone))));
        drain(groups, size, out)
    })
}

/// A list may name more than the file's size, and a few chunks of it without end.
fn drain(groups: impl Iterator<Item = Group>, size: u64, out: &mut dyn Sink) -> Result<u64, DumpError> {
    let mut written = 0u64;
    for group in groups {
        for part in group? {
            written = written.saturating_add(part.len());
            if written > size {
                return Err(DumpError::Size { expected: size, found: written });
            }
            part.put(out)?;
        }
    }
    Ok(written)
}

/// Where the bytes of a piece come from.
enum From {
    Near(Bytes),
    /// The place in the read.
    Vault(usize),
    Nowhere,
}

/// The bytes of the pieces from `at` on; a chunk that occurs twice is asked for once.
fn read(source: &dyn ObjectSource, near: Option<&dyn Near>, mut at: u64, group: &[Piece]) -> Group {
    let (mut ids, mut index) = (Vec::new(), HashMap::new());
    let mut places = Vec::with_capacity(group.len());
    for piece in group {
        places.push(match *piece {
            Piece::Hole { .. } => From::Nowhere,
            Piece::Data { id, len } => match near.and_then(|near| near.find(at, id, len)) {
                Some(bytes) => From::Near(bytes),
                None => From::Vault(*index.entry(id).or_insert_with(|| {
                    ids.push(id);
                    ids.len() - 1
                })),
            },
        });
        at = at.saturating_add(piece.len());
    }
    let objects = if ids.is_empty() { Vec::new() } else { source.read(&ids)? };
    let mut out = Vec::with_capacity(group.len());
    for (piece, place) in group.iter().zip(places) {
        out.push(match (*piece, place) {
            (_, From::Near(bytes)) => Part::Data(bytes),
            (Piece::Data { id, len }, From::Vault(place)) => {
                let object = objects.get(place).ok_or(TransferError::NotFound(id))?;
                Part::Data(chunk_of(object, len).map_err(|why| DumpError::Format { id, why })?)
            }
            (piece, _) => Part::Hole(piece.len()),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::sleep;
    use std::time::Duration;

    use backhaul_object::{FormatError, Kind, Object, ObjectId};

    use super::*;

    const LEN: usize = 1 << 20;

    /// Chunks of one byte repeated, which their id begins with. The first reads take the longest.
    #[derive(Default)]
    struct Slow {
        reads: AtomicUsize,
        under_way: AtomicUsize,
        most: AtomicUsize,
        damaged: Option<u8>,
    }

    impl ObjectSource for Slow {
        fn read(&self, ids: &[ObjectId]) -> Result<Vec<Object>, TransferError> {
            let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            let n = self.reads.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_millis(40_u64.saturating_sub(15 * n as u64).max(1)));
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            let object = |id: &ObjectId| match id.as_bytes()[0] {
                n if self.damaged == Some(n) => {
                    Err(TransferError::Damaged { id: *id, why: FormatError::Mismatch("id") })
                }
                n => Ok(Object {
                    kind: Kind::Chunk,
                    references: vec![],
                    provides: vec![],
                    payload: vec![n; LEN].into(),
                }),
            };
            ids.iter().map(object).collect()
        }
    }

    fn pieces(count: u8) -> Vec<Piece> {
        (0..count).map(|n| Piece::Data { id: ObjectId([n; 32]), len: LEN as u64 }).collect()
    }

    fn streamed(source: &Slow, count: u8, size: u64) -> (Result<u64, DumpError>, Vec<u8>) {
        let mut out = Vec::new();
        let result = stream(source, Pieces::new(source, pieces(count)), (None, size), &mut out);
        // The first of each chunk.
        (result, out.chunks(LEN).map(|chunk| chunk[0]).collect())
    }

    #[test]
    fn reads_go_on_beside_each_other_and_what_comes_is_written_in_order() {
        let source = Slow::default();
        let (result, written) = streamed(&source, 30, 30 * LEN as u64);
        assert_eq!(result.unwrap(), 30 * LEN as u64);
        assert_eq!(written, (0..30).collect::<Vec<_>>());
        let most = source.most.load(Ordering::SeqCst);
        assert!(most > 1 && most <= READERS as usize, "{most} at a time");
    }

    #[test]
    fn a_small_file_has_one_reader_and_no_more_is_written_than_it_has() {
        let source = Slow::default();
        let (result, written) = streamed(&source, 30, 2 * LEN as u64);
        assert!(matches!(result, Err(DumpError::Size { .. })), "{result:?}");
        assert_eq!(written, [0, 1]);
        assert_eq!(source.most.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_comes_before_a_damaged_read_is_written_and_nothing_behind_it() {
        let source = Slow { damaged: Some(9), ..Slow::default() };
        let (result, written) = streamed(&source, 30, 30 * LEN as u64);
        assert!(matches!(result, Err(DumpError::Transfer(TransferError::Damaged { .. }))), "{result:?}");
        assert_eq!(written, (0..8).collect::<Vec<_>>());
    }
}
