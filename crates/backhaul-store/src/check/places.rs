//! What is needed and has no place in the index though its record is whole in a pack: it is found, and with leave to mend
//! gets its place back.

use std::collections::{BTreeMap, HashMap, HashSet};

use backhaul_object::ids::PackId;
use backhaul_object::{Header, Kind, ShortId};

use super::{Damage, Mending, Part, Report, Request};
use crate::catalog::Lost;
use crate::error::StoreError;
use crate::index::{Location, Ordinal};
use crate::pack;
use crate::reclaim::rows;
use crate::vault::{Vault, pack_blob};

/// Where a record is, and what its object is.
struct Found {
    at: Location,
    blob: String,
    header: Header,
}

impl Vault {
    /// Names what is not lost, only not found, and takes it off the list of the lost if it is found from now on.
    pub(super) fn find_again(
        &self,
        request: &Request,
        bad: &BTreeMap<u32, PackId>,
        lost: &mut Vec<Lost>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let found = self.records_of_lost(lost, bad)?;
        let may_mend = request.mending == Mending::Mend && !found.is_empty();
        if may_mend {
            self.bring_back(found.keys())?;
        }
        for (ordinal, place) in &found {
            let why = format!("the index has no place for it, and its record is in {}", place.blob);
            let mut damage = Damage::new(Part::Object(place.header.id.short()), why);
            match may_mend && self.give_place(*ordinal, place)? {
                true => damage.mended = Some("it has its place again".to_owned()),
                false => report.unreadable.add(*ordinal),
            }
            report.damage.push(damage);
        }
        lost.retain(|item| !found.contains_key(&item.ordinal));
        if !may_mend {
            return Ok(());
        }
        self.state().places_given += 1;
        self.flush()
    }

    /// What comes back is gone no more, durably: what has a place and is gone is told to nobody.
    fn bring_back<'o>(&self, back: impl Iterator<Item = &'o Ordinal>) -> Result<(), StoreError> {
        let mut state = self.state();
        let mut fence = state.fence.clone();
        back.for_each(|ordinal| fence.revive(*ordinal));
        state.change_fence(&self.shared.root, fence)
    }

    /// Records of what is lost, in packs that are whole.
    fn records_of_lost(
        &self,
        lost: &[Lost],
        bad: &BTreeMap<u32, PackId>,
    ) -> Result<BTreeMap<Ordinal, Found>, StoreError> {
        let mut found = BTreeMap::new();
        if lost.is_empty() {
            return Ok(found);
        }
        let wanted: HashMap<Ordinal, &Lost> = lost.iter().map(|item| (item.ordinal, item)).collect();
        for row in self.sealed_packs().iter().filter(|row| !bad.contains_key(&row.number)) {
            let Some(blob) = row.name.as_ref().map(pack_blob) else { continue };
            let Ok(records) = rows(&*self.shared.blobs, &blob) else { continue };
            for record in records {
                let Some(item) = wanted.get(&record.ordinal) else { continue };
                let at = Location { pack: row.number, offset: record.offset, len: record.len() as u32 };
                let bytes = self.shared.blobs.read(&blob, u64::from(at.offset), at.len as usize);
                let Some((ordinal, sealed)) = bytes.ok().and_then(|bytes| pack::decode_record(&bytes).ok())
                else {
                    continue;
                };
                let is_named = item.id.0 != [0; 24];
                let is_it = ordinal == item.ordinal && (!is_named || sealed.header.id.short() == item.id);
                if is_it {
                    found.insert(ordinal, Found { at, blob: blob.clone(), header: sealed.header });
                }
            }
        }
        // A patch without its bases is as good as lost.
        let there: HashSet<ShortId> = found.values().map(|found| found.header.id.short()).collect();
        let mut lacking = Vec::new();
        for (ordinal, Found { header, .. }) in
            found.iter().filter(|(_, found)| found.header.kind == Kind::Patch)
        {
            for base in &header.references {
                if !there.contains(&base.id.short()) && self.ordinal(&base.id)?.is_none() {
                    lacking.push(*ordinal);
                }
            }
        }
        lacking.iter().for_each(|ordinal| drop(found.remove(ordinal)));
        Ok(found)
    }

    /// Enters a record under its number again. False when the index does not know what it refers to: then a rebuild does.
    fn give_place(&self, ordinal: Ordinal, Found { at, header, .. }: &Found) -> Result<bool, StoreError> {
        let mut state = self.state();
        if state.index.location(ordinal)?.len > 0 {
            return Ok(true);
        }
        if state.index.edges(ordinal)?.len() != header.references.len() {
            return Ok(false);
        }
        if state.index.short(ordinal)? != header.id.short() {
            state.index.name_lost(ordinal, &header.id)?;
        }
        state.revive(ordinal, header, *at).map(|()| true)
    }
}
