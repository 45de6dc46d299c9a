//! What damage means: which snapshots need what cannot be read.

use std::collections::{BTreeMap, BTreeSet};

use backhaul_object::Kind;
use backhaul_object::ids::PackId;

use super::{Damage, Findings, Mending, Part, Report, Request};
use crate::catalog::Lost;
use crate::error::StoreError;
use crate::index::Ordinal;
use crate::owned::Owned;
use crate::vault::{State, Vault};

/// Rows of the index read at once.
const BLOCK: u64 = 65_536;
/// What is said of what is lost.
const WANTED: &str = "it is lost; the next backup of a client that still has it brings it back";

/// Everything that needs one of `unreadable`, and those themselves: one pass from the lowest number up, because parents
/// have higher numbers.
fn taint(state: &State, unreadable: &Owned, needed: &Owned) -> Result<Owned, StoreError> {
    let (mut tainted, mut from, count) = (unreadable.clone(), 0, state.index.objects());
    while from < count {
        let to = count.min(from + BLOCK);
        for parent in state.index.parents(from, to)? {
            if needed.has(parent.ordinal)
                && state.index.edges_of(&parent)?.iter().any(|edge| tainted.has(edge.to))
            {
                tainted.add(parent.ordinal);
            }
        }
        from = to;
    }
    Ok(tainted)
}

/// A pack that was given up is no damage any more if nothing is `hit` that it had.
fn settle_given_up<'p>(
    packs: impl Iterator<Item = &'p PackId>,
    hit: &BTreeMap<Ordinal, Option<PackId>>,
    report: &mut Report,
) {
    for pack in packs.filter(|pack| !hit.values().flatten().any(|hit| hit == *pack)) {
        if let Some(damage) = report.damage.iter_mut().find(|damage| damage.what == Part::Pack(*pack)) {
            damage.mended = Some("all that is needed of it is in new packs".to_owned());
        }
    }
}

impl Vault {
    /// Everything that a snapshot needs.
    fn needed(&self) -> Result<Owned, StoreError> {
        let mut needed = Owned::default();
        let state = self.state();
        state.catalog.snapshots()?.iter().for_each(|row| needed.add(row.ordinal));
        needed.close(&state)?;
        Ok(needed)
    }

    /// What is needed and has no place: it was lost, and has not come back under another number either.
    fn lost(&self, needed: &Owned, now: u64) -> Result<Vec<Lost>, StoreError> {
        let (mut lost, mut from) = (Vec::new(), 0);
        let state = self.state();
        let count = state.index.objects();
        while from < count {
            let to = count.min(from + BLOCK);
            for (ordinal, at) in (from..to).map(Ordinal).zip(state.index.locations(from, to)?) {
                if at.len > 0 || !needed.reaches(ordinal) {
                    continue;
                }
                let id = state.index.short(ordinal)?;
                if state.index.ordinal_of(id)?.is_none() {
                    lost.push(Lost { ordinal, id, found_at: now });
                }
            }
            from = to;
        }
        Ok(lost)
    }

    /// A patch whose base is lost is lost with it: its chunk is wanted, and comes back whole.
    fn lose_baseless(&self) -> Result<(), StoreError> {
        let (mut baseless, mut from) = (Vec::new(), 0);
        let count = self.state().index.objects();
        while from < count {
            let to = count.min(from + BLOCK);
            let state = self.state();
            for parent in state.index.parents(from, to)? {
                let mut lacks = false;
                for edge in state.index.edges_of(&parent)? {
                    lacks |= state.index.location(edge.to)?.len == 0;
                }
                if lacks && state.index.location(parent.ordinal)?.len > 0 {
                    baseless.push(parent.ordinal);
                }
            }
            from = to;
        }
        for ordinal in baseless {
            // A header that cannot be read is for who reads it: what it is about counts as damaged already.
            if self.header(ordinal).is_ok_and(|header| header.kind == Kind::Patch) {
                self.state().index.mark_lost(ordinal)?;
            }
        }
        self.state().index.flush()
    }

    /// True when a snapshot needs something that is lost.
    pub(crate) fn has_lost(&self, now: u64) -> Result<bool, StoreError> {
        Ok(!self.lost(&self.needed()?, now)?.is_empty())
    }

    /// Says which objects are lost and which snapshots need them; with leave to mend, saves what damaged packs still
    /// hold and makes the rest wanted.
    pub(super) fn judge(
        &self,
        request: &Request,
        unreadable: BTreeMap<Ordinal, String>,
        found: Findings,
    ) -> Result<Report, StoreError> {
        let Findings { mut report, bad, kept, .. } = found;
        let needed = match self.needed() {
            Ok(needed) => needed,
            Err(StoreError::Damaged { why, .. }) => {
                report.damage.push(Damage::new(Part::Index, why));
                return Ok(report);
            }
            Err(error) => return Err(error),
        };
        // An index that is wrong does not say what a pack holds.
        let is_index_right = report.damage.iter().all(|damage| damage.what != Part::Index);
        let may_mend = request.mending == Mending::Mend && is_index_right;
        // What is needed and cannot be read, and in which damaged pack it is.
        let mut hit: BTreeMap<Ordinal, Option<PackId>> = BTreeMap::new();
        for (ordinal, why) in &unreadable {
            let (id, at) = {
                let state = self.state();
                (state.index.short(*ordinal)?, state.index.location(*ordinal)?)
            };
            if needed.reaches(*ordinal) {
                report.damage.push(Damage::new(Part::Object(id), why));
                hit.insert(*ordinal, bad.get(&at.pack).copied());
            }
        }
        // That it could not be read now is in the report, and is not kept.
        for pack in kept.iter().filter_map(|number| bad.get(number)) {
            self.state().catalog.forget_check(pack)?;
        }
        if may_mend {
            for number in bad.keys().filter(|number| !kept.contains(*number)) {
                self.abandon_pack(*number, &needed, request.now)?;
            }
        }
        let mut lost = self.lost(&needed, request.now)?;
        let may_lack_bases = !bad.is_empty() || !lost.is_empty();
        if may_mend && may_lack_bases {
            self.lose_baseless()?;
            lost = self.lost(&needed, request.now)?;
        }
        self.find_again(request, &bad, &mut lost, &mut report)?;
        let snapshots = self.heal_snapshots(may_mend, &mut lost, &mut report)?;
        hit.retain(|ordinal, _| !snapshots.healed.contains(ordinal));
        hit.keys().for_each(|ordinal| report.unreadable.add(*ordinal));
        if may_mend {
            let given_up = bad.iter().filter(|(number, _)| !kept.contains(*number)).map(|(_, pack)| pack);
            settle_given_up(given_up, &hit, &mut report);
        }
        for item in lost.iter().filter(|item| !unreadable.contains_key(&item.ordinal)) {
            let why = snapshots.left.get(&item.ordinal).map_or(WANTED, String::as_str);
            report.damage.push(Damage::new(Part::Object(item.id), why));
            report.unreadable.add(item.ordinal);
        }
        if !report.unreadable.is_empty() {
            let state = self.state();
            report.tainted = taint(&state, &report.unreadable, &needed)?;
            report.affected = state.catalog.snapshots()?;
            report.affected.retain(|row| report.tainted.has(row.ordinal));
        }
        if may_mend {
            self.note_lost(&lost, &report)?;
        }
        Ok(report)
    }

    /// Writes down what is lost; the agents of clients that need something new of it read everything anew.
    fn note_lost(&self, lost: &[Lost], report: &Report) -> Result<(), StoreError> {
        let mut state = self.state();
        let fresh = state.catalog.set_lost(lost)?;
        if !fresh.is_empty() {
            let clients: BTreeSet<_> = report.affected.iter().map(|row| row.client).collect();
            clients.into_iter().try_for_each(|client| state.catalog.add_loss(client))?;
        }
        Ok(())
    }
}
