//! The second opinion before anything is deleted. It reads manifests and packs, and neither index nor catalog; it does
//! not count on numbers being in order either: from each manifest it follows ids through the headers of records.

use std::collections::HashSet;

use backhaul_object::ids::PackId;
use backhaul_object::{Header, ObjectId, ShortId};

use super::Pace;
use crate::around;
use crate::bits::Bits;
use crate::blobs::Blobs;
use crate::error::StoreError;
use crate::index::Ordinal;
use crate::manifest::Manifest;
use crate::pack::{self, Class, HEAD_LEN, Head, ID_END, RECORD_HEAD_LEN, Row, TRAILER_LEN};
use crate::vault::pack_blob;

/// Largest manifest file that is read.
const MANIFEST_MAX: usize = 32 << 20;

/// Where a record of a metadata pack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Spot {
    pack: u32,
    offset: u32,
    header_len: u32,
}

/// What the second opinion is asked about.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Packs that go: what lies in them is read from them.
    pub packs: HashSet<PackId>,
    /// What is to be found no more, wherever it lies.
    pub objects: HashSet<ShortId>,
}

/// All metadata records, to be followed from the manifests.
pub struct Verifier<'a> {
    blobs: &'a dyn Blobs,
    /// Of metadata.
    packs: Vec<String>,
    /// In the order of the first bytes of their ids: 24 bytes of memory a record.
    records: Vec<(u64, Spot)>,
    manifests: Vec<(String, Manifest)>,
}

fn unsure(what: &str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Unsure { what: what.to_owned(), why: why.to_string() }
}

impl<'a> Verifier<'a> {
    /// Reads all manifests, then the headers in all metadata packs.
    ///
    /// # Errors
    /// [`StoreError::Unsure`] when one cannot be read: then nobody knows what is needed.
    pub fn new(blobs: &'a dyn Blobs, pace: &mut Pace<'_>) -> Result<Self, StoreError> {
        let mut found = Self { blobs, packs: Vec::new(), records: Vec::new(), manifests: Vec::new() };
        for name in blobs.list("snaps")? {
            if !name.ends_with(".snap") {
                continue;
            }
            let bytes = blobs.read(&name, 0, MANIFEST_MAX)?;
            let manifest = Manifest::decode(&bytes).map_err(|why| unsure(&name, why))?;
            found.manifests.push((name, manifest));
        }
        for name in blobs.list("packs")? {
            // What lies beside packs, such as parity, has an ending.
            if name.rsplit('/').next().is_some_and(|file| file.len() != 64) {
                continue;
            }
            let head = Head::decode(&blobs.read(&name, 0, HEAD_LEN)?).map_err(|why| unsure(&name, why))?;
            if head.class == Class::Meta {
                found.enter(name, pace)?;
            }
        }
        found.records.sort_unstable();
        Ok(found)
    }

    fn enter(&mut self, name: String, pace: &mut Pace<'_>) -> Result<(), StoreError> {
        let pack = self.packs.len() as u32;
        for row in rows(self.blobs, &name)? {
            let id = record_id(self.blobs, &name, &row)?;
            pace(ID_END as u64)?;
            let spot = Spot { pack, offset: row.offset, header_len: row.header_len };
            self.records.push((id.prefix(), spot));
        }
        self.packs.push(name);
        Ok(())
    }

    /// Makes sure that of what is asked about, and of what lies in the packs that go, everything that a manifest
    /// reaches stays. `stays` is what the one who deletes says of that, and has looked at.
    ///
    /// # Errors
    /// [`StoreError::StillNeeded`] names an object that is not, and a snapshot that needs it.
    pub fn agree(
        &self,
        question: Question,
        stays: &dyn Fn(&ObjectId) -> Result<bool, StoreError>,
        pace: &mut Pace<'_>,
    ) -> Result<(), StoreError> {
        let Question { packs: going, objects: mut doomed } = question;
        for name in &going {
            let blob = pack_blob(name);
            for row in rows(self.blobs, &blob)? {
                doomed.insert(record_id(self.blobs, &blob, &row)?.short());
                pace(ID_END as u64)?;
            }
        }
        let mut lost = None;
        self.follow(self.all(), pace, &mut |id| {
            if lost.is_none() && doomed.remove(&id.short()) && !stays(id)? {
                lost = Some(*id);
            }
            Ok(())
        })?;
        let Some(object) = lost else { return Ok(()) };
        for (name, manifest) in &self.manifests {
            let mut needs = false;
            self.follow(std::iter::once(manifest), pace, &mut |id| {
                needs |= *id == object;
                Ok(())
            })?;
            if needs {
                return Err(StoreError::StillNeeded { object, snapshot: name.clone() });
            }
        }
        Err(StoreError::StillNeeded { object, snapshot: "snaps".to_owned() })
    }

    /// Which of these objects a manifest reaches.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn needed(
        &self,
        mut of: HashSet<ShortId>,
        pace: &mut Pace<'_>,
    ) -> Result<HashSet<ShortId>, StoreError> {
        let mut needed = HashSet::new();
        self.follow(self.all(), pace, &mut |id| {
            needed.extend(of.take(&id.short()));
            Ok(())
        })?;
        Ok(needed)
    }

    fn all(&self) -> impl Iterator<Item = &Manifest> {
        self.manifests.iter().map(|(_, manifest)| manifest)
    }

    /// Calls `each` with every id that manifests reach, at least once.
    fn follow<'m>(
        &self,
        manifests: impl Iterator<Item = &'m Manifest>,
        pace: &mut Pace<'_>,
        each: &mut dyn FnMut(&ObjectId) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut seen = Bits::sized(self.records.len() as u64);
        let mut next: Vec<Spot> = Vec::new();
        let mut reached = |id: &ObjectId, next: &mut Vec<Spot>| {
            let first = self.records.partition_point(|(prefix, _)| *prefix < id.prefix());
            let same = self.records[first..].iter().take_while(|(prefix, _)| *prefix == id.prefix());
            for (number, (_, spot)) in (first as u64..).zip(same) {
                if !seen.has(Ordinal(number)) {
                    seen.add(Ordinal(number));
                    next.push(*spot);
                }
            }
            each(id)
        };
        for manifest in manifests {
            reached(&manifest.id, &mut next)?;
            let (_, sealed) =
                pack::decode_record(&manifest.record).map_err(|why| unsure(&manifest.name(), why))?;
            for reference in &sealed.header.references {
                reached(&reference.id, &mut next)?;
            }
        }
        // Level by level, each in the order in which it lies on the disk.
        while !next.is_empty() {
            let mut level: Vec<Spot> = std::mem::take(&mut next);
            level.sort_unstable();
            for spot in level {
                let name = &self.packs[spot.pack as usize];
                let at = u64::from(spot.offset) + RECORD_HEAD_LEN as u64;
                let bytes = self.blobs.read(name, at, spot.header_len as usize)?;
                pace(bytes.len() as u64)?;
                let header = Header::decode(&bytes).map_err(|why| unsure(name, why))?;
                for reference in &header.references {
                    reached(&reference.id, &mut next)?;
                }
            }
        }
        Ok(())
    }
}

/// What a pack's footer lists.
pub(crate) fn rows(blobs: &dyn Blobs, name: &str) -> Result<Vec<Row>, StoreError> {
    let bytes = blobs.len(name)?.ok_or_else(|| unsure(name, "it is missing"))?;
    let trailer = around::read(blobs, name, bytes.saturating_sub(TRAILER_LEN as u64), TRAILER_LEN)?;
    let len = pack::footer_len(&trailer).map_err(|why| unsure(name, why))? as u64;
    let footer = around::read(blobs, name, bytes.saturating_sub(len), len as usize)?;
    pack::decode_footer(&footer).map_err(|why| unsure(name, why))
}

fn record_id(blobs: &dyn Blobs, name: &str, row: &Row) -> Result<ObjectId, StoreError> {
    let bytes = blobs.read(name, u64::from(row.offset), ID_END)?;
    let (found, _) = pack::decode_record_head(&bytes, row.offset).map_err(|why| unsure(name, why))?;
    if found != *row {
        return Err(unsure(name, "its footer lists another record"));
    }
    pack::decode_record_id(&bytes).ok_or_else(|| unsure(name, "a record is cut short"))
}
