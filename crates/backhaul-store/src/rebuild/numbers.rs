//! Which record is to have which number. A footer's checksum covers the numbers it lists; those that stand in records
//! only are covered by none, and one flipped bit makes of them anything.

use std::collections::{HashMap, HashSet};

use backhaul_object::{Kind, ObjectId};

use super::{Found, Report, blob_of};
use crate::around;
use crate::bits::Bits;
use crate::blobs::Blobs;
use crate::catalog::PackRow;
use crate::check::{Damage, Part};
use crate::error::StoreError;
use crate::index::Ordinal;
use crate::pack;
use crate::reclaim::rows;

/// Highest number that is ever given out.
const NUMBER_MAX: u64 = 1 << 40;
/// Numbers that may be missing between those that are known and those that are to be believed: a lost pack's.
const SLACK: u64 = 1 << 20;

/// From which number on none is believed that no checksum covers: `known` is the highest that is sure, of so many records.
pub(super) fn limit(known: u64, records: usize) -> u64 {
    known.saturating_add(records as u64 + SLACK).min(NUMBER_MAX)
}

/// What is sure of numbers before anything is made anew.
pub(super) struct Sure {
    /// The highest that the footer of a pack lists, or that was reclaimed.
    pub highest: Option<u64>,
    /// Which objects have those that were asked about, by the footers.
    pub owners: HashMap<u64, Vec<ObjectId>>,
}

impl Sure {
    /// Reads the footers of all packs.
    pub(super) fn read(blobs: &dyn Blobs, gone: &Bits, asked: &HashSet<u64>) -> Result<Self, StoreError> {
        let highest = gone.ranges().last().map(|range| range.end);
        let mut sure = Self { highest, owners: HashMap::new() };
        for name in blobs.list("packs")? {
            let rows = match rows(blobs, &name) {
                Err(error @ StoreError::Io { .. }) => return Err(error),
                rows => rows.unwrap_or_default(),
            };
            sure.highest = sure.highest.max(rows.iter().map(|row| row.ordinal.0).max());
            for row in rows.iter().filter(|row| asked.contains(&row.ordinal.0)) {
                sure.owners.entry(row.ordinal.0).or_default().extend(id_at(blobs, &name, row.offset)?);
            }
        }
        Ok(sure)
    }
}

/// The id of the object in a record, if it is one.
pub(super) fn id_at(blobs: &dyn Blobs, blob: &str, offset: u32) -> Result<Option<ObjectId>, StoreError> {
    Ok(pack::decode_record_id(&around::read(blobs, blob, u64::from(offset), pack::ID_END)?))
}

/// Packs, and which of them list numbers that no checksum covers.
pub(super) struct Packs<'p> {
    pub blobs: &'p dyn Blobs,
    pub rows: &'p [PackRow],
    pub uncovered: &'p HashSet<u32>,
}

impl Packs<'_> {
    fn is_covered(&self, record: &Found) -> bool {
        !self.uncovered.contains(&record.pack)
    }

    fn leave_out(&self, record: &Found, why: String, report: &mut Report) {
        report.damage.push(Damage::new(Part::File(blob_of(self.rows, record)), why));
    }

    /// Leaves out records whose number cannot have been given out; `found` is in the order of their numbers.
    pub(super) fn bound(&self, found: &mut Vec<Found>, gone: &Bits, report: &mut Report) {
        let covered =
            found.iter().rev().find(|record| self.is_covered(record)).map(|record| record.ordinal.0);
        let reclaimed = gone.ranges().last().map(|range| range.end);
        // Where nothing is covered, most numbers are right all the same.
        let middle = found.get(found.len() / 2).map_or(0, |record| record.ordinal.0.saturating_mul(2));
        let known = covered.max(reclaimed).unwrap_or(middle);
        let limit = limit(known, found.len());
        found.retain(|record| {
            let is_believed = record.ordinal.0 < if self.is_covered(record) { NUMBER_MAX } else { limit };
            if !is_believed {
                let why = format!("object number {}: none so high was given out", record.ordinal.0);
                self.leave_out(record, why, report);
            }
            is_believed
        });
    }

    /// Of several records with one number (it was moved, or came back, and its old pack is still there) one that is
    /// whole, rather one whose number is covered. Another object with the same number is named.
    pub(super) fn choose<'f>(&self, group: &'f [Found], report: &mut Report) -> Option<&'f Found> {
        let [first, _, ..] = group else { return group.first() };
        let mut whole: Vec<(ObjectId, Kind, &Found)> = group
            .iter()
            .filter_map(|record| self.look(record).map(|(id, kind)| (id, kind, record)))
            .collect();
        whole.sort_by_key(|(.., record)| !self.is_covered(record));
        let Some(&(id, ..)) = whole.first() else { return Some(first) };
        let (same, others): (Vec<_>, Vec<_>) = whole.into_iter().partition(|(other, ..)| *other == id);
        for (other, _, record) in others {
            let Ordinal(number) = record.ordinal;
            let why = format!("object {other}: its number, {number}, is that of object {id}: it is left out");
            self.leave_out(record, why, report);
        }
        // A chunk before the patch that it was before it was lost.
        same.iter().min_by_key(|(_, kind, _)| *kind == Kind::Patch).map(|(.., chosen)| *chosen)
    }

    /// What a record is that is whole.
    fn look(&self, record: &Found) -> Option<(ObjectId, Kind)> {
        let (offset, len) = (u64::from(record.offset), record.len as usize);
        let bytes = self.blobs.read(&blob_of(self.rows, record), offset, len).ok()?;
        pack::decode_record(&bytes).ok().map(|(_, sealed)| (sealed.header.id, sealed.header.kind))
    }
}
