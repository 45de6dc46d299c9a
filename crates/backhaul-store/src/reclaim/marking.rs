//! A mark of the whole vault, while it is being written to.

use std::collections::HashSet;

use backhaul_object::ObjectId;

use super::{Pace, mark};
use crate::bits::Bits;
use crate::error::StoreError;
use crate::index::{Ordinal, Scan};
use crate::vault::{State, Vault};

/// Rows of the index looked at in one go.
const BLOCK: u64 = 65_536;
/// Objects that were added during a mark and are looked at while everybody waits.
const FEW: u64 = 4_096;
/// How often more than these are looked at without anybody waiting.
const ROUNDS: u32 = 4;

/// A mark that is nearly finished.
pub(super) struct Marked {
    /// Snapshots that count as gone.
    pub without: HashSet<ObjectId>,
    /// What is needed.
    pub live: Bits,
    /// Up to which number that is known.
    pub until: u64,
}

impl Vault {
    /// What is needed of all that is there now: the long part, for which nobody waits.
    pub(super) fn mark_live(&self, pace: &mut Pace<'_>) -> Result<Marked, StoreError> {
        self.mark_without(HashSet::new(), pace)
    }

    /// The same, as if some snapshots were gone.
    pub(super) fn mark_without(
        &self,
        without: HashSet<ObjectId>,
        pace: &mut Pace<'_>,
    ) -> Result<Marked, StoreError> {
        let (scan, mut live, held) = {
            let mut state = self.state();
            let scan = state.index.scan()?;
            let mut live = Bits::sized(scan.objects());
            let (proven, packs) = state.holds()?;
            let rows = state.catalog.snapshots()?;
            let stay = rows.iter().filter(|row| !without.contains(&row.id));
            stay.for_each(|row| live.add(row.ordinal));
            proven.into_iter().for_each(|ordinal| live.add(ordinal));
            (scan, live, packs)
        };
        if !held.is_empty() {
            for from in (0..scan.objects()).step_by(BLOCK as usize) {
                let to = scan.objects().min(from + BLOCK);
                let locations = self.state().index.locations(from, to)?;
                let mine = (from..to).zip(locations).filter(|(_, at)| at.len > 0 && held.contains(&at.pack));
                mine.for_each(|(number, _)| live.add(Ordinal(number)));
            }
        }
        mark::close(&scan, &mut live, pace)?;
        let mut marked = Marked { without, live, until: scan.objects() };
        for _ in 0..ROUNDS {
            let fresh = self.state().index.objects() - marked.until;
            if fresh <= FEW {
                break;
            }
            let scan: Scan = self.state().index.scan()?;
            marked.live.add_range(marked.until..scan.objects());
            marked.until = scan.objects();
            mark::close(&scan, &mut marked.live, pace)?;
        }
        Ok(marked)
    }

    /// Ends a mark: nobody adds anything meanwhile. What it did not reach is condemned, durably. Returns how many
    /// objects are newly so.
    pub(super) fn conclude(&self, marked: &mut Marked) -> Result<u64, StoreError> {
        let mut state = self.state();
        state.add_fresh(marked)?;
        let mut fence = state.fence.clone();
        let new = fence.marked(&marked.live, marked.until);
        state.change_fence(&self.shared.root, fence)?;
        let (epoch, since) = (state.fence.epoch(), state.fence.epoch().saturating_sub(super::HOLD));
        state.catalog.expire(since, epoch)?;
        state.uploads.retain(|_, upload| upload.epoch >= since);
        Ok(new)
    }
}

impl State {
    /// What was added during the mark, and snapshots that were made of what was there, are needed, with all that they
    /// refer to: what any snapshot reaches is never condemned.
    pub(super) fn add_fresh(&self, marked: &mut Marked) -> Result<(), StoreError> {
        let count = self.index.objects();
        let mut open: Vec<Ordinal> = (marked.until..count).map(Ordinal).collect();
        marked.live.add_range(marked.until..count);
        marked.until = count;
        for row in self.catalog.snapshots()? {
            if !marked.without.contains(&row.id) && !marked.live.has(row.ordinal) {
                marked.live.add(row.ordinal);
                open.push(row.ordinal);
            }
        }
        while let Some(parent) = open.pop() {
            for edge in self.index.edges(parent)? {
                if !marked.live.has(edge.to) {
                    marked.live.add(edge.to);
                    open.push(edge.to);
                }
            }
        }
        Ok(())
    }
}
