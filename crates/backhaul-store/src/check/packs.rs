//! One pack with its sidecar: is it there, is it what its name says, does the index fit it?

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use backhaul_object::ids::PackId;

use super::{Damage, Depth, Effort, Go, Progress, Seen, records};
use crate::around;
use crate::catalog::PackRow;
use crate::error::{Of, StoreError};
use crate::pack::{self, HEAD_LEN, Head, Row, TRAILER_LEN};
use crate::repair::load_sidecar;
use crate::sidecar::{Layout, sidecar_blob};
use crate::vault::{Vault, pack_blob};

/// Packs read at once.
const THREADS: usize = 2;
/// Bytes read at once: what a processor's cache holds beside the hash.
const BLOCK: usize = 512 << 10;

/// How a sidecar stands.
pub(crate) enum Sidecar {
    /// As it was written, as far as it was looked at.
    Whole,
    /// Not made yet, or lost.
    Missing,
    /// Of no use as it is.
    Damaged(String),
    /// It could not be looked at now.
    Unread(String),
}

/// What is wrong with a pack.
pub(crate) enum Flaw {
    /// Its bytes are not what was written, or the disk has lost some of them or all.
    Damaged(String),
    /// It could not be looked at now, which says nothing of what is in it.
    Unread(String),
}

/// What was found of a pack.
pub(crate) struct Exam {
    /// It was removed while it was looked at.
    pub is_gone: bool,
    /// How much of it was read.
    pub effort: Effort,
    /// What is wrong with it.
    pub flaw: Option<Flaw>,
    /// Where the index does not fit it.
    pub records: Vec<Damage>,
    /// Its sidecar.
    pub sidecar: Sidecar,
}

/// The examination of packs.
pub(super) struct Exams<'c> {
    vault: &'c Vault,
    depth: Depth,
    seen: &'c Seen,
    progress: &'c Progress<'c>,
}

impl<'c> Exams<'c> {
    pub(super) fn new(vault: &'c Vault, depth: Depth, seen: &'c Seen, progress: &'c Progress<'c>) -> Self {
        Self { vault, depth, seen, progress }
    }

    /// All of them, in their order.
    pub(super) fn all(&self, rows: &[PackRow]) -> Result<Vec<Exam>, StoreError> {
        let next = AtomicUsize::new(0);
        let exams: Vec<Mutex<Option<Exam>>> = rows.iter().map(|_| Mutex::default()).collect();
        let work = || {
            while let Some((row, slot)) = {
                let number = next.fetch_add(1, Ordering::Relaxed);
                rows.get(number).zip(exams.get(number))
            } {
                let exam = self.one(row)?;
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(exam);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            let joined =
                threads.into_iter().map(|thread| thread.join().unwrap_or(Err(StoreError::Interrupted)));
            joined.fold(Ok(()), Result::and)
        })?;
        let taken = |slot: Mutex<Option<Exam>>| slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(exams.into_iter().filter_map(taken).collect())
    }

    /// One pack.
    pub(super) fn one(&self, row: &PackRow) -> Result<Exam, StoreError> {
        self.with(
            row,
            match (self.depth, &row.name) {
                (Depth::ReadData(selection), Some(name)) if selection.takes(name) => Effort::Whole,
                _ => Effort::Glance,
            },
        )
    }

    /// One pack, however much of it was to be read.
    pub(super) fn with(&self, row: &PackRow, effort: Effort) -> Result<Exam, StoreError> {
        let mut exam =
            Exam { is_gone: false, effort, flaw: None, records: Vec::new(), sidecar: Sidecar::Whole };
        let Some(name) = row.name else { return Ok(exam) };
        let compared = match self.vault.examine(row, name, effort, self.progress) {
            Ok(rows) => match records::compare(self.vault, row, &rows, effort, self.seen) {
                Err(error @ StoreError::Io { .. }) => Err(error),
                compared => Ok(compared.unwrap_or_else(|error| vec![Damage::new(super::Part::Index, error)])),
            },
            Err(error) => Err(error),
        };
        match compared {
            Ok(records) => exam.records = records,
            Err(StoreError::Interrupted) => return Err(StoreError::Interrupted),
            Err(error) => {
                exam.is_gone = !self.vault.state().packs.contains_key(&row.number);
                exam.flaw = Some(self.vault.flaw(&name, error));
            }
        }
        if effort == Effort::Glance && (self.progress)(row.bytes) == Go::Stop {
            return Err(StoreError::Interrupted);
        }
        exam.sidecar = self.vault.examine_sidecar(row, name, effort);
        Ok(exam)
    }
}

/// Other packs that are asked whether the disk serves.
const WITNESSES: usize = 64;

impl Vault {
    /// What an error says of a pack. That it is missing, or that the disk cannot read it, is said by a disk that gives
    /// another pack; a folder that is not mounted, or a disk that is gone, says nothing.
    fn flaw(&self, name: &PackId, error: StoreError) -> Flaw {
        let is_missing = |source: &std::io::Error| source.kind() == std::io::ErrorKind::NotFound;
        match error {
            StoreError::Damaged { why, .. } => Flaw::Damaged(why),
            StoreError::Io { source, .. } if is_missing(&source) => {
                match self.serves(|other| other != name) {
                    true => Flaw::Damaged("it is missing".to_owned()),
                    false => Flaw::Unread(
                        "it is missing, and so is every other; is their folder there?".to_owned(),
                    ),
                }
            }
            error if around::is_medium(&error) && self.serves(|_| true) => Flaw::Damaged(error.to_string()),
            error => Flaw::Unread(error.to_string()),
        }
    }

    /// True when a pack among some can be read.
    fn serves(&self, among: impl Fn(&PackId) -> bool) -> bool {
        let blobs = &self.shared.blobs;
        let packs = self.sealed_packs().into_iter().filter_map(|row| row.name).filter(among);
        let is_there = |blob: &String| matches!(blobs.len(blob), Ok(Some(_)));
        let head = |blob: String| Head::decode(&blobs.read(&blob, 0, HEAD_LEN).ok()?).ok();
        let vault = self.descriptor().vault;
        let mut heads = packs.take(WITNESSES).map(|name| pack_blob(&name)).filter(is_there).filter_map(head);
        heads.any(|head| head.vault == vault)
    }

    /// Looks at a sealed pack; returns its records.
    pub(crate) fn examine(
        &self,
        row: &PackRow,
        name: PackId,
        effort: Effort,
        progress: &Progress<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let (blob, blobs) = (pack_blob(&name), &self.shared.blobs);
        let damaged = |why: String| StoreError::damaged("the pack", why);
        let Some(len) = blobs.len(&blob)? else {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(StoreError::Io { doing: "find", path: self.shared.root.join(blob), source });
        };
        if len != row.bytes {
            return Err(damaged(format!("{len} bytes, {} expected", row.bytes)));
        }
        if effort == Effort::Whole {
            let (mut hasher, mut at, mut block) = (blake3::Hasher::new(), 0, vec![0; BLOCK]);
            loop {
                let n = blobs.read_into(&blob, at, &mut block)?;
                hasher.update(&block[..n]);
                if progress(n as u64) == Go::Stop {
                    return Err(StoreError::Interrupted);
                }
                at += n as u64;
                if n < block.len() {
                    break;
                }
            }
            if hasher.finalize().as_bytes() != name.as_bytes() {
                return Err(damaged("its bytes do not hash to its name".to_owned()));
            }
        }
        let head = Head::decode(&blobs.read(&blob, 0, HEAD_LEN)?).of(|| "head".into())?;
        if head.vault != self.descriptor().vault {
            return Err(damaged("it belongs to another vault".to_owned()));
        }
        if (head.class, head.session, head.client) != (row.class, row.session, row.client) {
            return Err(damaged("its head is not what the catalog says".to_owned()));
        }
        let end = len.saturating_sub(TRAILER_LEN as u64);
        let footer_len =
            pack::footer_len(&blobs.read(&blob, end, TRAILER_LEN)?).of(|| "trailer".into())? as u64;
        let start =
            len.checked_sub(footer_len).ok_or_else(|| damaged("its footer is too long".to_owned()))?;
        let rows =
            pack::decode_footer(&blobs.read(&blob, start, footer_len as usize)?).of(|| "footer".into())?;
        // One after the other, from the head to the footer.
        let mut at = HEAD_LEN as u64;
        for record in &rows {
            if u64::from(record.offset) != at {
                return Err(damaged("its footer has gaps".to_owned()));
            }
            at += record.len();
        }
        match at == start && rows.len() as u64 == row.objects {
            true => Ok(rows),
            false => Err(damaged(format!("{} records, {} expected", rows.len(), row.objects))),
        }
    }

    /// Looks at a pack's sidecar.
    pub(crate) fn examine_sidecar(&self, row: &PackRow, name: PackId, effort: Effort) -> Sidecar {
        let blob = sidecar_blob(&name);
        let wanted = Layout::of(row.class, row.bytes).file_len() as u64;
        let len = match self.shared.blobs.len(&blob) {
            Ok(Some(len)) => len,
            Ok(None) => return Sidecar::Missing,
            Err(error) => return Sidecar::Unread(error.to_string()),
        };
        if len != wanted {
            return Sidecar::Damaged(format!("{len} bytes, {wanted} expected"));
        }
        if effort == Effort::Glance {
            return Sidecar::Whole;
        }
        match load_sidecar(&*self.shared.blobs, &name) {
            Ok(None) => Sidecar::Missing,
            Ok(Some(sidecar))
                if sidecar.table().pack != name || sidecar.table().layout.pack_len != row.bytes =>
            {
                Sidecar::Damaged("it is of another pack".to_owned())
            }
            Ok(Some(sidecar)) if sidecar.is_whole() => Sidecar::Whole,
            Ok(Some(_)) => Sidecar::Damaged("its bytes do not fit its checksums".to_owned()),
            Err(StoreError::Damaged { why, .. }) => Sidecar::Damaged(why),
            Err(error) => Sidecar::Unread(error.to_string()),
        }
    }
}
