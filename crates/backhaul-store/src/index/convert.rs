//! An index of version 1 becomes one of version 2, in one pass over its files and without the packs.
//!
//! The new files have names of their own. They are whole and synced before the catalog says that they count; until then
//! the old ones do, and the next try begins anew.

use std::fs;
use std::path::Path;

use backhaul_object::codec::Reader;
use backhaul_object::header::MEMBERS_MAX;
use backhaul_object::{ObjectId, ShortId};

use super::log::Log;
use super::rows::{self, Content, ID_LEN};
use super::{Edge, Index, Location, Ordinal};
use crate::catalog::Counts;
use crate::error::{Doing, Of, StoreError};

/// Rows read at once.
const ROWS: u64 = 16_384;
const NAME_LEN: usize = 48;
const LOC_LEN: usize = 12;
const SPAN_LEN: usize = 8;
const MEMBER_LEN: usize = 58;
const OLD: [&str; 5] = ["names", "loc", "spans", "edges", "members"];
const NEW: [&str; 5] = ["ids", "places", "parents", "references", "contents"];

/// Writes the files of version 2 beside those of version 1. Returns the counts for the catalog.
///
/// # Errors
/// The old index cannot be read or the disk is full: then nothing new is left, and the old one is as it was.
pub(crate) fn convert(dir: &Path, old: &Counts) -> Result<Counts, StoreError> {
    write_new(dir, old).map_err(|error| {
        for name in NEW {
            // What stays is removed by the next try.
            let _ = remove(&dir.join(name));
        }
        let size = |name: &str| fs::metadata(dir.join(name)).map_or(0, |meta| meta.len());
        match error.is_full() {
            true => StoreError::NoRoomToConvert {
                mebibytes: OLD.into_iter().map(size).sum::<u64>().div_ceil(1 << 20),
                source: Box::new(error),
            },
            false => error,
        }
    })
}

fn write_new(dir: &Path, old: &Counts) -> Result<Counts, StoreError> {
    for name in NEW {
        remove(&dir.join(name))?;
    }
    let mut index = Index::open(dir, &Counts::default())?;
    let names = Log::open(&dir.join("names"), old.objects * NAME_LEN as u64)?;
    let loc = Log::open(&dir.join("loc"), old.objects * LOC_LEN as u64)?;
    let spans = Log::open(&dir.join("spans"), old.objects * SPAN_LEN as u64)?;
    let end = match old.objects.checked_sub(1) {
        Some(last) => u64::from_le_bytes(spans.array(last * SPAN_LEN as u64)?),
        None => 0,
    };
    let edges = Log::open(&dir.join("edges"), end)?;
    let mut start = 0;
    for from in (0..old.objects).step_by(ROWS as usize) {
        let n = ROWS.min(old.objects - from);
        let block = |log: &Log, len: usize| log.read(from * len as u64, n * len as u64);
        let (names, loc, spans) = (block(&names, NAME_LEN)?, block(&loc, LOC_LEN)?, block(&spans, SPAN_LEN)?);
        let rows = names.as_chunks::<NAME_LEN>().0.iter().zip(loc.as_chunks::<LOC_LEN>().0);
        for ((number, (name, place)), end) in (from..).zip(rows).zip(spans.as_chunks::<SPAN_LEN>().0) {
            let end = u64::from_le_bytes(*end);
            let raw = edges.read(start, end.checked_sub(start).ok_or_else(|| wrong("spans"))?)?;
            index.enter(Ordinal(number), name, location(place), &old_edges(&raw)?)?;
            start = end;
        }
    }
    let members = Log::open(&dir.join("members"), old.contents * MEMBER_LEN as u64)?;
    index.enter_members(&members, &names)?;
    index.flush()?;
    index.counts()
}

/// Removes what a conversion has left of version 1.
pub(crate) fn sweep(dir: &Path) -> Result<(), StoreError> {
    OLD.iter().try_for_each(|name| remove(&dir.join(name)))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).doing("remove", path),
        _ => Ok(()),
    }
}

fn wrong(name: &str) -> StoreError {
    StoreError::damaged(format!("index/{name}"), "it is not in order; run `backhaul check --rebuild-index`")
}

fn location(row: &[u8; LOC_LEN]) -> Location {
    let word = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
    Location { pack: word(0), offset: word(4), len: word(8) }
}

fn old_edges(raw: &[u8]) -> Result<Vec<Edge>, StoreError> {
    let mut r = Reader::new(raw);
    let mut edges = Vec::new();
    while !r.is_empty() {
        let to = Ordinal(r.varint("edge").of(|| "index/edges".into())?);
        let members = r.bytes("edge members", MEMBERS_MAX / 8).of(|| "index/edges".into())?.to_vec();
        edges.push(Edge { to, members });
    }
    Ok(edges)
}

impl Index {
    fn enter(
        &mut self,
        ordinal: Ordinal,
        name: &[u8; NAME_LEN],
        at: Location,
        edges: &[Edge],
    ) -> Result<(), StoreError> {
        // Of what was lost with its references, version 1 had no proof of possession.
        let is_blank = at.len == 0 && name[32..] == [0; 16];
        let place = if is_blank { rows::blank() } else { rows::place(at)? };
        self.append_references(ordinal, edges)?;
        self.places.append(&place);
        self.ids.append(&name[..ID_LEN as usize]);
        Ok(())
    }

    fn enter_members(&mut self, members: &Log, names: &Log) -> Result<(), StoreError> {
        let len = MEMBER_LEN as u64;
        for from in (0..members.len()).step_by((ROWS * len) as usize) {
            let raw = members.read(from, (ROWS * len).min(members.len() - from))?;
            for row in raw.as_chunks::<MEMBER_LEN>().0 {
                let (mut id, mut bundle) = ([0; 24], [0; 8]);
                id.copy_from_slice(&row[..24]);
                bundle.copy_from_slice(&row[NAME_LEN..NAME_LEN + 8]);
                let bundle = Ordinal(u64::from_le_bytes(bundle));
                let member = u16::from_le_bytes([row[56], row[57]]);
                if member == 0 {
                    let tail = rows::tail(&ObjectId(names.array(bundle.0 * NAME_LEN as u64)?));
                    self.contents.append(&rows::content(Content::Bundle { tail, bundle }));
                }
                self.contents.append(&rows::content(Content::Member { id: ShortId(id), bundle, member }));
            }
        }
        Ok(())
    }
}
