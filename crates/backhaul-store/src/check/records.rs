//! What a pack holds against what the index says, both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use backhaul_object::Header;
use backhaul_object::ids::PackId;

use super::{Damage, Effort, Part, Report};
use crate::catalog::PackRow;
use crate::error::{Of, StoreError};
use crate::index::{Hit, Location, Ordinal, Place};
use crate::pack::{self, Class, RECORD_HEAD_LEN, Row};
use crate::vault::{Vault, pack_blob};

/// Rows of the index read at once.
const BLOCK: u64 = 65_536;

/// One bit a number: the pack that the index names has the record.
pub(crate) struct Seen {
    objects: u64,
    bits: Vec<AtomicU64>,
}

impl Seen {
    /// For so many numbers.
    pub fn new(objects: u64) -> Self {
        Self { objects, bits: (0..objects.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    fn set(&self, ordinal: Ordinal) {
        if let Some(word) = self.bits.get((ordinal.0 / 64) as usize) {
            word.fetch_or(1 << (ordinal.0 % 64), Ordering::Relaxed);
        }
    }

    fn has(&self, ordinal: Ordinal) -> bool {
        let word = self.bits.get((ordinal.0 / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (ordinal.0 % 64) & 1 == 1)
    }

    pub(super) fn count(&self) -> u64 {
        self.bits.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    pub(super) fn ordinals(&self) -> impl Iterator<Item = Ordinal> + '_ {
        (0..self.objects).map(Ordinal).filter(|ordinal| self.has(*ordinal))
    }
}

/// Compares the records of one pack with the index; headers only where they are cheap or read anyway.
pub(super) fn compare(
    vault: &Vault,
    row: &PackRow,
    rows: &[Row],
    effort: Effort,
    seen: &Seen,
) -> Result<Vec<Damage>, StoreError> {
    let mut found = Vec::new();
    let with_headers = effort == Effort::Whole || row.class == Class::Meta;
    for record in rows {
        if record.ordinal.0 >= seen.objects {
            continue;
        }
        let here = Location { pack: row.number, offset: record.offset, len: record.len() as u32 };
        let at = vault.state().index.location(record.ordinal)?;
        // Elsewhere: it was moved, and the other pack is asked; nowhere: it is lost, and judged as such.
        if at != here {
            continue;
        }
        seen.set(record.ordinal);
        if with_headers && let Err(why) = compare_header(vault, row, record, here)? {
            found.push(Damage::new(Part::Index, format!("object number {}: {why}", record.ordinal.0)));
        }
    }
    Ok(found)
}

/// The header of the record that is `here` against names, edges and members.
fn compare_header(
    vault: &Vault,
    row: &PackRow,
    record: &Row,
    here: Location,
) -> Result<Result<(), &'static str>, StoreError> {
    let Some(name) = row.name else { return Ok(Ok(())) };
    let blob = pack_blob(&name);
    let len = RECORD_HEAD_LEN + record.header_len as usize;
    let bytes = vault.shared.blobs.read(&blob, u64::from(record.offset), len)?;
    let (found, _) = pack::decode_record_head(&bytes, record.offset).of(|| blob.clone())?;
    if found != *record {
        return Ok(Err("its record is not what the footer says"));
    }
    let header = Header::decode(bytes.get(RECORD_HEAD_LEN..).unwrap_or_default()).of(|| blob)?;
    let state = vault.state();
    let index = &state.index;
    // It was moved, or let go, since it was looked for.
    if index.is_leaving(record.ordinal) || index.location(record.ordinal)? != here {
        return Ok(Ok(()));
    }
    if index.short(record.ordinal)? != header.id.short() {
        return Ok(Err("the index has another name for it"));
    }
    let edges = match index.edges(record.ordinal) {
        Err(StoreError::Damaged { .. }) => {
            return Ok(Err("what the index says of its references makes no sense"));
        }
        edges => edges?,
    };
    if edges.len() != header.references.len() {
        return Ok(Err("the index has other references"));
    }
    for (edge, reference) in edges.iter().zip(&header.references) {
        if edge.to >= record.ordinal
            || index.short(edge.to)? != reference.id.short()
            || edge.members != reference.members
        {
            return Ok(Err("the index has other references"));
        }
    }
    for (member, (id, _)) in header.provides.iter().enumerate() {
        let (bundle, bundle_id) = (record.ordinal, header.id);
        let place = Place::Member { bundle, bundle_id, member: member as u16 };
        if !index.find(id.prefix())?.contains(&Hit { id: id.short(), place }) {
            return Ok(Err("the index does not know one of its members"));
        }
    }
    Ok(Ok(()))
}

impl Vault {
    /// Shows every number that has a place, with it.
    pub(crate) fn each_located(&self, see: &mut dyn FnMut(Ordinal, Location)) -> Result<(), StoreError> {
        let (mut from, count) = (0, self.state().index.objects());
        while from < count {
            let to = count.min(from + BLOCK);
            let places = self.state().index.locations(from, to)?;
            let there = (from..to).map(Ordinal).zip(places).filter(|(_, at)| at.len > 0);
            there.for_each(|(ordinal, at)| see(ordinal, at));
            from = to;
        }
        Ok(())
    }

    /// What the index says and no pack has.
    pub(super) fn compare_index(
        &self,
        rows: &[PackRow],
        bad: &BTreeMap<u32, PackId>,
        seen: &Seen,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let looked_at: BTreeSet<u32> = rows.iter().map(|row| row.number).collect();
        let mut unseen = Vec::new();
        self.each_located(&mut |ordinal, at| {
            if ordinal.0 < seen.objects && !seen.has(ordinal) && !bad.contains_key(&at.pack) {
                unseen.push((ordinal, at));
            }
        })?;
        for (ordinal, at) in unseen {
            let state = self.state();
            let is_known = state.packs.contains_key(&at.pack);
            // It has moved since, or its pack is still being written.
            if state.index.location(ordinal)? != at || (is_known && !looked_at.contains(&at.pack)) {
                continue;
            }
            let why =
                if is_known { "its pack does not have it there" } else { "the catalog has no such pack" };
            report.damage.push(Damage::new(Part::Index, format!("object number {}: {why}", ordinal.0)));
        }
        Ok(())
    }
}
