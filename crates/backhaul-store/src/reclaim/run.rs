//! A pass of reclaim from its first step to its last.

use std::collections::{BTreeMap, HashSet};
use std::sync::TryLockError;

use backhaul_object::ObjectId;
use backhaul_object::ids::ClientId;

use super::fence::Wait;
use super::marking::Marked;
use super::opinion::Agreed;
use super::plan::{Plan, plan};
use super::{Step, Watch};
use crate::bits::Bits;
use crate::catalog::SnapshotRow;
use crate::error::StoreError;
use crate::manifest::{copy_name, manifest_name};
use crate::mark::{Nights, State, may_reclaim};
use crate::reserve;
use crate::vault::Vault;

/// Records that are moved by one look at the index: some 50 bytes of memory each.
const RECORDS_MAX: u64 = 1 << 20;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Seconds since 1970: the grace of forgotten snapshots ends by it, among other things.
    pub now: u64,
    /// Clients whose snapshots all stay, whatever their marks say.
    pub held: HashSet<ClientId>,
    /// Only find out.
    pub dry_run: bool,
    /// For how many seconds what a repair replaced is kept; none for ever.
    pub aside_kept: Option<u64>,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Marks that were finished until now.
    pub epoch: u64,
    /// Forgotten snapshots that are gone.
    pub snapshots: u64,
    /// Objects that are gone.
    pub objects: u64,
    /// Packs that are gone.
    pub packs: u64,
    /// Packs among them whose needed records are in a new one.
    pub compacted: u64,
    /// Bytes that were written into new packs.
    pub bytes_moved: u64,
    /// Bytes on disk that are free again.
    pub bytes_freed: u64,
    /// Objects that wait.
    pub condemned: u64,
    /// Their bytes.
    pub bytes_condemned: u64,
    /// Bytes of packs, afterwards.
    pub bytes_on_disk: u64,
    /// For whom the condemned wait, besides for the next pass: sessions that began before they were.
    pub waits_for: Vec<String>,
    /// Files that were put aside long ago and are gone.
    pub aside_removed: u64,
    /// True when there was no room for a new pack: packs that are half dead stay.
    pub no_room: bool,
}

impl Vault {
    /// One pass: forgotten snapshots whose grace is over go; what no snapshot reaches is condemned; what was condemned
    /// by an earlier pass, is still unreached and is nobody's any more goes, and its room is freed. Beside everything
    /// else. It may be stopped at any point, and a later pass goes on from there.
    ///
    /// # Errors
    /// [`StoreError::Reclaiming`], [`StoreError::StillNeeded`], [`StoreError::Unsure`], or the disk refused.
    pub fn reclaim(&self, request: &Request, watch: &mut dyn Watch) -> Result<Report, StoreError> {
        let _alone = match self.shared.reclaiming.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(StoreError::Reclaiming),
        };
        if self.state().poisoned {
            return Err(StoreError::Poisoned);
        }
        let root = &self.shared.root;
        let mut report = Report::default();
        if request.dry_run {
            self.rehearse(request, watch, &mut report)?;
        } else {
            match self.work(request, watch, &mut report) {
                // Once more, with the room that was set aside.
                Err(error) if error.is_full() && reserve::release(root)? => {
                    self.work(request, watch, &mut report)?;
                }
                done => done?,
            }
            self.remove_given_up(request.now)?;
            if let Some(kept) = request.aside_kept {
                report.aside_removed = self.sweep_aside(request.now, kept)?;
            }
            reserve::keep(root)?;
        }
        report.bytes_on_disk = self.stats()?.bytes_on_disk.saturating_sub(match request.dry_run {
            true => report.bytes_freed,
            false => 0,
        });
        Ok(report)
    }

    fn work(&self, request: &Request, watch: &mut dyn Watch, report: &mut Report) -> Result<(), StoreError> {
        let mut agreed = Agreed::default();
        self.finish_reclaim(watch)?;
        self.refuse_disputed(&mut |bytes| watch.bytes(bytes))?;
        self.remove_forgotten(request, watch, report)?;
        self.condemn_and_let_go(watch, report, &mut agreed)?;
        self.free(watch, report, &agreed)
    }

    /// Snapshots that are forgotten for good.
    fn forgotten(&self, request: &Request, nights: Nights) -> Result<Vec<SnapshotRow>, StoreError> {
        let over: HashSet<ObjectId> = self
            .marks()?
            .iter()
            .filter(|mark| may_reclaim(mark, request.now, nights) && !request.held.contains(&mark.client))
            .map(|mark| mark.id)
            .collect();
        let mut rows = self.snapshots(None)?;
        rows.retain(|row| over.contains(&row.id));
        Ok(rows)
    }

    /// The row goes first: if the manifest stays, opening the vault makes up for it.
    fn remove_forgotten(
        &self,
        request: &Request,
        watch: &mut dyn Watch,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let _upkeep = self.upkeep();
        for row in self.forgotten(request, self.nights()?)? {
            if watch.holds(row.client)? {
                continue;
            }
            let mut state = self.state();
            state.fence.unmade(row.client);
            state.catalog.remove_snapshot(row.client, row.sequence)?;
            let manifest = manifest_name(row.client, row.sequence);
            let remove = |name: &str| self.shared.blobs.remove(name);
            let removed = watch
                .step(Step::Unlisted)
                .and_then(|()| remove(&copy_name(&manifest)))
                .and_then(|()| remove(&manifest));
            if let Err(error) = removed {
                // If the manifest is gone, though nobody knows how durably, so is the snapshot; else opening the vault enters it.
                if !matches!(self.shared.blobs.len(&manifest), Ok(None)) {
                    state.catalog.put_back(&row)?;
                }
                return Err(error);
            }
            drop(state);
            watch.step(Step::Unmade)?;
            report.snapshots += 1;
        }
        self.sweep_marks()
    }

    /// Marks of snapshots that are gone go too, but a client's highest number stays taken.
    fn sweep_marks(&self) -> Result<(), StoreError> {
        let rows = self.snapshots(None)?;
        let known: HashSet<(ClientId, u64)> = rows.iter().map(|row| (row.client, row.sequence)).collect();
        for mark in self.marks()? {
            let gone = mark.state == State::Forgotten && !known.contains(&(mark.client, mark.sequence));
            if gone && mark.sequence < self.last_sequence(mark.client)? {
                self.shared.blobs.remove(&copy_name(&mark.name()))?;
                self.shared.blobs.remove(&mark.name())?;
                self.state().catalog.drop_mark(mark.client, mark.sequence)?;
            }
        }
        Ok(())
    }

    fn condemn_and_let_go(
        &self,
        watch: &mut dyn Watch,
        report: &mut Report,
        agreed: &mut Agreed,
    ) -> Result<(), StoreError> {
        let mut marked = self.mark_live(&mut |bytes| watch.bytes(bytes))?;
        watch.step(Step::Marked)?;
        self.conclude(&mut marked)?;
        watch.step(Step::Condemned)?;
        if self.state().fence.ripe().is_ok() {
            self.refuse_lost(&marked.live)?;
        }
        loop {
            let ripe = self.state().fence.ripe();
            match ripe {
                Ok(ripe) => {
                    *agreed = self.second_opinion(&self.usage(&ripe)?, &ripe, watch)?;
                    self.let_go(watch, report)?;
                }
                Err(wait) => {
                    if let Wait::Guests(guests) = wait {
                        report.waits_for = guests;
                    }
                    break;
                }
            }
        }
        self.count_condemned(report)
    }

    /// What a lost object refers to is not known when the index was made without it.
    fn refuse_lost(&self, live: &Bits) -> Result<(), StoreError> {
        let mut there = Bits::default();
        self.each_located(&mut |ordinal, _| there.add(ordinal))?;
        let mut lost = live.clone();
        lost.remove_all(&there);
        let state = self.state();
        for ordinal in lost.iter() {
            if state.index.is_blank(ordinal)? && state.index.edges(ordinal)?.is_empty() {
                let (what, why) =
                    (format!("object {}", state.index.short(ordinal)?), "it is lost".to_owned());
                return Err(StoreError::Unsure { what, why });
            }
        }
        Ok(())
    }

    fn count_condemned(&self, report: &mut Report) -> Result<(), StoreError> {
        let fence = self.fence();
        report.epoch = fence.epoch();
        if fence.condemned().is_empty() {
            return Ok(());
        }
        self.each_located(&mut |ordinal, at| {
            if fence.is_condemned(ordinal) {
                report.condemned += 1;
                report.bytes_condemned += u64::from(at.len);
            }
        })
    }

    /// After the second opinion, what is ripe is found no more.
    fn let_go(&self, watch: &mut dyn Watch, report: &mut Report) -> Result<(), StoreError> {
        watch.step(Step::Verified)?;
        let gone = {
            let mut state = self.state();
            let mut fence = state.fence.clone();
            // What was claimed since is not among them any more.
            let Ok(gone) = fence.let_go() else { return Ok(()) };
            state.change_fence(&self.shared.root, fence)?;
            gone
        };
        watch.step(Step::LetGo)?;
        self.clear_leaving()?;
        watch.step(Step::Cleared)?;
        report.objects += gone.count();
        Ok(())
    }

    /// Frees the room of what is gone: dead packs first, which needs none.
    fn free(&self, watch: &mut dyn Watch, report: &mut Report, agreed: &Agreed) -> Result<(), StoreError> {
        let none = Bits::default();
        // What a repair moves from here on is not in the plan: then it ends, and the next pass goes on.
        let planned = self.state().places_given;
        let packs = self.usage(&none)?;
        let plan = plan(&packs);
        if plan.packs().next().is_none() {
            return Ok(());
        }
        if !agreed.covers(&plan) {
            self.second_opinion(&packs, &none, watch)?;
        }
        let Some(freed) = self.drop_packs(&plan.dead, planned, watch)? else { return Ok(()) };
        report.packs += plan.dead.len() as u64;
        report.bytes_freed += freed;
        let mut records = BTreeMap::new();
        for (i, group) in plan.compact.iter().enumerate() {
            if records.is_empty() {
                records = self.records_of(&plan.compact[i..], RECORDS_MAX)?;
            }
            match self.compact(group, &mut records, planned, watch) {
                // It was given up, or what a repair did has made the plan untrue.
                Ok((0, 0)) => {}
                Ok((written, freed)) => {
                    report.packs += group.len() as u64;
                    report.compacted += group.len() as u64;
                    report.bytes_moved += written;
                    report.bytes_freed += freed.saturating_sub(written);
                }
                Err(error) if error.is_full() => {
                    report.no_room = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What a pass would do now.
    fn rehearse(
        &self,
        request: &Request,
        watch: &mut dyn Watch,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let nights = self.nights()?.look(request.now).0;
        let going = self.forgotten(request, nights)?;
        let going: HashSet<ObjectId> = going.iter().map(|row| row.id).collect();
        report.snapshots = going.len() as u64;
        let mut marked: Marked = self.mark_without(going, &mut |bytes| watch.bytes(bytes))?;
        self.state().add_fresh(&mut marked)?;
        let mut fence = self.fence();
        fence.marked(&marked.live, marked.until);
        report.epoch = fence.epoch();
        let mut dead = Bits::default();
        loop {
            match fence.let_go() {
                Ok(gone) => dead.add_all(&gone),
                Err(Wait::Guests(guests)) => {
                    report.waits_for = guests;
                    break;
                }
                Err(Wait::Grace | Wait::Nothing) => break,
            }
        }
        report.objects = dead.count();
        let Plan { dead: gone, compact } = plan(&self.usage(&dead)?);
        report.packs = (gone.len() + compact.iter().flatten().count()) as u64;
        report.compacted = compact.iter().flatten().count() as u64;
        report.bytes_moved = compact.iter().flatten().map(|pack| pack.live).sum();
        report.bytes_freed = Plan { dead: gone, compact }.freed();
        self.each_located(&mut |ordinal, at| {
            if fence.is_condemned(ordinal) {
                report.condemned += 1;
                report.bytes_condemned += u64::from(at.len);
            }
        })
    }
}

#[cfg(test)]
mod tests;
