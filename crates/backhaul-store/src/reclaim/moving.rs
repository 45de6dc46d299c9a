//! Packs go, and what is needed of them goes into new ones: written and synced, journalled, done.

use std::collections::BTreeMap;

use backhaul_object::ids::{PackId, SessionId};

use super::journal::{self, Journal};
use super::plan::{PackUse, Session};
use super::verify::rows;
use super::{Step, Watch};
use crate::atomic::sync_parent;
use crate::bits::Bits;
use crate::catalog::PackRow;
use crate::error::{Doing, Of, StoreError};
use crate::index::{Location, Ordinal};
use crate::pack::{self, HEAD_LEN, Head, TRAILER_LEN};
use crate::vault::{State, Vault, open_name, pack_blob};
use crate::writer::PackWriter;

/// Of a pack: bytes that are no records, besides the rows of its footer.
const AROUND: u64 = HEAD_LEN as u64 + 4 + TRAILER_LEN as u64;
/// Bytes of a footer's row.
const ROW: u64 = 20;

/// A needed record in a pack that is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Record {
    pack: u32,
    offset: u32,
    len: u32,
    ordinal: u64,
}

impl Vault {
    /// What of each sealed pack is needed: everything that the index has there, without `dead`.
    pub(super) fn usage(&self, dead: &Bits) -> Result<Vec<PackUse>, StoreError> {
        let mut found: BTreeMap<u32, PackUse> = BTreeMap::new();
        let state = self.state();
        for row in state.packs.values().filter(|row| row.name.is_some()) {
            let session =
                if state.uploads.contains_key(&row.session) { Session::Open } else { Session::Over };
            let bytes = row.bytes.saturating_sub(AROUND + ROW * row.objects);
            let PackRow { number, class, client, .. } = *row;
            found.insert(number, PackUse { number, class, client, bytes, live: 0, objects: 0, session });
        }
        drop(state);
        self.each_located(&mut |ordinal, at| {
            if let Some(pack) = found.get_mut(&at.pack).filter(|_| !dead.has(ordinal)) {
                pack.live += u64::from(at.len);
                pack.objects += 1;
            }
        })?;
        Ok(found.into_values().collect())
    }

    /// What is needed of the first groups of packs, as many as have together no more than so many records; of the
    /// first in any case.
    pub(super) fn records_of(
        &self,
        groups: &[Vec<PackUse>],
        most: u64,
    ) -> Result<BTreeMap<u32, Vec<Record>>, StoreError> {
        let mut records: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        let mut count = 0;
        for group in groups {
            count += group.iter().map(|pack| pack.objects).sum::<u64>();
            if !records.is_empty() && count > most {
                break;
            }
            records.extend(group.iter().map(|pack| (pack.number, Vec::new())));
        }
        self.each_located(&mut |ordinal, Location { pack, offset, len }| {
            if let Some(mine) = records.get_mut(&pack) {
                mine.push(Record { pack, offset, len, ordinal: ordinal.0 });
            }
        })?;
        records.values_mut().for_each(|mine| mine.sort_unstable());
        Ok(records)
    }

    /// Removes packs in which nothing is needed; none when a repair has made the plan untrue.
    pub(super) fn drop_packs(
        &self,
        dead: &[PackUse],
        planned: u64,
        watch: &mut dyn Watch,
    ) -> Result<Option<u64>, StoreError> {
        let _upkeep = self.upkeep();
        if self.state().places_given != planned {
            return Ok(None);
        }
        let old = self.named(dead);
        let freed = self.bytes_of(&old);
        self.carry_out(&Journal { generation: self.generation(), new: Vec::new(), old }, watch)?;
        Ok(Some(freed))
    }

    /// Writes what is needed of some packs into a new one, and removes them. Returns bytes written and freed.
    pub(super) fn compact(
        &self,
        group: &[PackUse],
        records: &mut BTreeMap<u32, Vec<Record>>,
        planned: u64,
        watch: &mut dyn Watch,
    ) -> Result<(u64, u64), StoreError> {
        let _upkeep = self.upkeep();
        let Some(first) = group.first() else { return Ok((0, 0)) };
        if self.state().places_given != planned {
            return Ok((0, 0));
        }
        // Repair may have given one up meanwhile.
        if group.iter().any(|pack| !self.state().packs.contains_key(&pack.number)) {
            return Ok((0, 0));
        }
        let records: Vec<Record> =
            group.iter().filter_map(|pack| records.remove(&pack.number)).flatten().collect();
        let number = {
            let mut state = self.state();
            state.next_pack += 1;
            state.next_pack - 1
        };
        let (class, client, session) = (first.class, first.client, SessionId([0; 16]));
        let path = self.shared.root.join(open_name(number));
        let head = Head { class, vault: self.descriptor().vault, session, client };
        let mut writer = PackWriter::create(&path, &head)?;
        let copied = self.copy(&records, &mut writer, watch).and_then(|()| writer.finish());
        // Its name in `open/` must be there when the journal is.
        let durable = copied.and_then(|written| sync_parent(&path).doing("sync", &path).map(|()| written));
        let written = durable.and_then(|written| watch.step(Step::Written).map(|()| written));
        let (_, name, bytes) = match written {
            Ok(written) => written,
            Err(error) => {
                // What cannot be removed now goes when the vault is opened next.
                let _ = writer.discard();
                return Err(error);
            }
        };
        let objects = records.len() as u64;
        let new = vec![PackRow { number, name: Some(name), class, session, client, bytes, objects }];
        let old = self.named(group);
        let freed = self.bytes_of(&old);
        let done = self.carry_out(&Journal { generation: self.generation(), new, old }, watch);
        if done.is_err() && !journal::is_there(&self.shared.root) {
            let _ = writer.discard();
        }
        done.map(|()| (bytes, freed))
    }

    fn copy(&self, records: &[Record], to: &mut PackWriter, watch: &mut dyn Watch) -> Result<(), StoreError> {
        for Record { pack, offset, len, ordinal } in records {
            let raw = self.read_pack(*pack, u64::from(*offset), *len as usize)?;
            let what = || format!("object number {ordinal}");
            let (found, sealed) = pack::decode_record(&raw).of(what)?;
            if found.0 != *ordinal {
                return Err(StoreError::damaged(what(), "another object is in its place"));
            }
            to.append(found, &sealed.header.encode(), &sealed.body)?;
            // Read, written, and read once more for the parity of the new pack.
            watch.bytes(3 * raw.len() as u64)?;
        }
        Ok(())
    }

    fn named(&self, packs: &[PackUse]) -> Vec<(u32, PackId)> {
        let state = self.state();
        let name = |pack: &PackUse| Some((pack.number, state.packs.get(&pack.number)?.name?));
        packs.iter().filter_map(name).collect()
    }

    fn bytes_of(&self, packs: &[(u32, PackId)]) -> u64 {
        let state = self.state();
        packs.iter().filter_map(|(number, _)| state.packs.get(number)).map(|row| row.bytes).sum()
    }

    fn carry_out(&self, journal: &Journal, watch: &mut dyn Watch) -> Result<(), StoreError> {
        journal::store(&self.shared.root, journal)?;
        watch.step(Step::Journalled)?;
        self.redo(journal, watch)
    }

    /// True when the catalog, and so the index before it, knows the new packs and not the old: these may be gone.
    fn is_switched(&self, journal: &Journal) -> bool {
        let state = self.state();
        let is_known = |number: &u32| state.packs.contains_key(number);
        journal.new.iter().all(|row| is_known(&row.number))
            && !journal.old.iter().any(|(number, _)| is_known(number))
    }

    /// True when a journal can be carried out: its new packs are there, and say what they hold.
    pub(super) fn can_redo(&self, journal: &Journal) -> Result<bool, StoreError> {
        for row in &journal.new {
            let Some(name) = row.name else { return Ok(false) };
            let (open, blob) = (open_name(row.number), pack_blob(&name));
            let is_open = self.shared.root.join(&open).exists();
            if !is_open && self.shared.blobs.len(&blob)?.is_none() {
                return Ok(false);
            }
            let file = if is_open { open } else { blob };
            match rows(&*self.shared.blobs, &file) {
                Err(StoreError::Unsure { .. }) if !self.is_switched(journal) => return Ok(false),
                Err(error @ StoreError::Io { .. }) => return Err(error),
                _ => {}
            }
        }
        Ok(true)
    }

    /// Does what a journal says; after a crash, again.
    pub(super) fn redo(&self, journal: &Journal, watch: &mut dyn Watch) -> Result<(), StoreError> {
        let (mut places, is_switched) = (Vec::new(), self.is_switched(journal));
        for row in &journal.new {
            let Some(name) = row.name else { continue };
            let (blob, file) = (pack_blob(&name), self.shared.root.join(open_name(row.number)));
            if file.exists() {
                self.shared.blobs.adopt(&file, &blob)?;
            }
            watch.step(Step::Adopted)?;
            if is_switched {
                continue;
            }
            for found in rows(&*self.shared.blobs, &blob)? {
                let at = Location { pack: row.number, offset: found.offset, len: found.len() as u32 };
                places.push((found.ordinal, at));
            }
        }
        self.state().switch(journal, &places, watch)?;
        for row in &journal.new {
            row.name.iter().for_each(|name| self.shared.parity.add(*name, row.class, row.bytes));
        }
        for (_, name) in &journal.old {
            self.remove_pack_files(name)?;
            watch.step(Step::Removed)?;
        }
        journal::remove(&self.shared.root)
    }
}

impl State {
    /// Index, then catalog: readers go to the new packs from here on.
    fn switch(
        &mut self,
        journal: &Journal,
        places: &[(Ordinal, Location)],
        watch: &mut dyn Watch,
    ) -> Result<(), StoreError> {
        let old: Vec<u32> = journal.old.iter().map(|(number, _)| *number).collect();
        // Before the index leads to them.
        self.packs.extend(journal.new.iter().map(|row| (row.number, row.clone())));
        for (ordinal, at) in places {
            if old.contains(&self.index.location(*ordinal)?.pack) {
                self.index.relocate(*ordinal, *at)?;
            }
        }
        watch.step(Step::Relocated)?;
        self.flush_index()?;
        watch.step(Step::Indexed)?;
        self.catalog.replace_packs(&journal.new, &old)?;
        self.packs.retain(|number, _| !old.contains(number));
        let highest = journal.new.iter().map(|row| row.number).max().unwrap_or(0);
        self.next_pack = self.next_pack.max(highest + 1);
        watch.step(Step::Switched)
    }
}
