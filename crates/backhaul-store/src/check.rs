//! Is everything that snapshots need still there and whole?

use std::collections::{BTreeMap, BTreeSet};

use backhaul_object::Sealed;
use backhaul_object::ids::PackId;

use crate::catalog::{PackRow, SnapshotRow};
use crate::error::{Of, StoreError};
use crate::index::Ordinal;
use crate::pack::{self, HEAD_LEN, Head, TRAILER_LEN};
use crate::vault::{Vault, pack_blob};

/// Bytes read at once when a pack is hashed.
const BLOCK: usize = 4 << 20;

/// How far a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Packs are there with the right length and a readable footer; every reference resolves.
    Structure,
    /// Every byte of every pack is read, too.
    ReadData,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Packs looked at.
    pub packs: u64,
    /// Objects looked at.
    pub objects: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is damaged, by pack or object, and how.
    pub damage: Vec<(String, String)>,
    /// Snapshots that need something damaged.
    pub affected: Vec<SnapshotRow>,
}

/// Looks deeper into an object than the store can: it has no key.
pub type Inspect<'a> = dyn FnMut(&Sealed) -> Result<(), String> + 'a;

impl Vault {
    /// Checks the vault. `inspect` sees every object when data is read; `progress` hears of bytes done.
    ///
    /// # Errors
    /// Catalog or index cannot be read; damage to packs is in the report.
    pub fn check(
        &self,
        depth: Depth,
        inspect: &mut Inspect<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Report, StoreError> {
        let mut report = Report::default();
        let mut bad = BTreeSet::new();
        let packs: BTreeMap<u32, PackRow> =
            self.state().packs.iter().map(|(number, row)| (*number, row.clone())).collect();
        for row in packs.values() {
            let Some(name) = row.name else { continue };
            report.packs += 1;
            let blob = pack_blob(&name);
            if let Err(error) = self.check_pack(row, name, depth) {
                report.damage.push((blob, error.to_string()));
                bad.insert(row.number);
            }
            report.bytes += row.bytes;
            progress(row.bytes);
        }
        let damaged = self.check_objects(&packs, &bad, depth, inspect, &mut report)?;
        for row in self.snapshots(None)? {
            let reached = self.reach(row.ordinal)?;
            if damaged.iter().any(|ordinal| reached.reaches(*ordinal)) {
                report.affected.push(row);
            }
        }
        self.check_manifests(&mut report)?;
        Ok(report)
    }

    fn check_pack(&self, row: &PackRow, name: PackId, depth: Depth) -> Result<(), StoreError> {
        let blob = pack_blob(&name);
        let damaged = |why: String| StoreError::damaged("the pack", why);
        let Some(len) = self.shared.blobs.len(&blob)? else {
            return Err(damaged("it is missing".to_owned()));
        };
        if len != row.bytes {
            return Err(damaged(format!("{len} bytes, {} expected", row.bytes)));
        }
        let head = Head::decode(&self.shared.blobs.read(&blob, 0, HEAD_LEN)?).of(|| "head".into())?;
        if head.vault != self.descriptor().vault {
            return Err(damaged("it belongs to another vault".to_owned()));
        }
        let end = len.saturating_sub(TRAILER_LEN as u64);
        let trailer = self.shared.blobs.read(&blob, end, TRAILER_LEN)?;
        let footer_len = pack::footer_len(&trailer).of(|| "trailer".into())?;
        let footer = self.shared.blobs.read(&blob, len.saturating_sub(footer_len as u64), footer_len)?;
        pack::decode_footer(&footer).of(|| "footer".into())?;
        if depth == Depth::ReadData {
            let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
            while at < len {
                let block = self.shared.blobs.read(&blob, at, BLOCK)?;
                at += block.len() as u64;
                hasher.update(&block);
            }
            if hasher.finalize().as_bytes() != name.as_bytes() {
                return Err(damaged("its bytes do not hash to its name".to_owned()));
            }
        }
        Ok(())
    }

    /// Finds the objects that cannot be read; reads only what a damaged pack may still hold, unless data is
    /// to be read anyway.
    fn check_objects(
        &self,
        packs: &BTreeMap<u32, PackRow>,
        bad: &BTreeSet<u32>,
        depth: Depth,
        inspect: &mut Inspect<'_>,
        report: &mut Report,
    ) -> Result<BTreeSet<Ordinal>, StoreError> {
        let mut damaged = BTreeSet::new();
        let count = self.state().index.objects();
        for ordinal in (0..count).map(Ordinal) {
            let at = self.state().index.location(ordinal)?;
            if at.len == 0 {
                damaged.insert(ordinal);
                let id = self.id(ordinal)?;
                if id.0 != [0; 32] {
                    report.damage.push((format!("object {id}"), "it was lost with its pack".to_owned()));
                }
                continue;
            }
            report.objects += 1;
            let why = if !packs.contains_key(&at.pack) {
                Some("its pack is not in the catalog".to_owned())
            } else if depth == Depth::ReadData || bad.contains(&at.pack) {
                match self.get(ordinal) {
                    Ok(sealed) => inspect(&sealed).err(),
                    Err(error) => Some(error.to_string()),
                }
            } else {
                None
            };
            if let Some(why) = why {
                damaged.insert(ordinal);
                report.damage.push((format!("object {}", self.id(ordinal)?), why));
            }
        }
        Ok(damaged)
    }

    fn check_manifests(&self, report: &mut Report) -> Result<(), StoreError> {
        let known: BTreeSet<String> = self
            .snapshots(None)?
            .iter()
            .map(|row| format!("snaps/{}/{:010}.snap", row.client, row.sequence))
            .collect();
        let mut found: BTreeSet<String> = self.shared.blobs.list("snaps")?.into_iter().collect();
        found.retain(|name| !name.ends_with(".mark"));
        report.damage.extend(self.bad_marks()?);
        for name in known.difference(&found) {
            report.damage.push((name.clone(), "the manifest is missing".to_owned()));
        }
        for name in found.difference(&known) {
            report.damage.push((name.clone(), "its snapshot object is not in the vault".to_owned()));
        }
        Ok(())
    }
}
