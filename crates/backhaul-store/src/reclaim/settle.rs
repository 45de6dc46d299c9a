//! When catalog and index are made anew from the packs.

use std::path::Path;

use super::fence::Fence;
use super::{condemned, journal};
use crate::bits::Bits;
use crate::error::StoreError;
use crate::index::Ordinal;
use crate::vault::Vault;

/// Rows of the index looked at in one go.
const BLOCK: u64 = 65_536;

/// What is written down when caches are made anew: nothing is condemned any more, because which of it was resurrected is
/// lost with the catalog. What is gone though its records may still be in packs stays so; nothing when that is not known.
pub(crate) fn without_condemned(root: &Path) -> Result<Fence, StoreError> {
    // Which packs were moved shows from the packs. One that is damaged, or cannot be read, would be in everybody's way.
    if journal::load(root).is_err() {
        journal::remove(root)?;
    }
    let before = condemned::load(root)?;
    // What is leaving still is: until the new caches are in their place the old ones have it, and may be opened again.
    Ok(Fence::restore(before.epoch(), Vec::new(), before.gone().clone(), before.leaving().clone()))
}

impl Vault {
    /// After a rebuild: what no snapshot reaches and refers to something that is not there was reclaimed with it, and
    /// goes. Otherwise somebody would be told that it is there, with all that it refers to.
    pub(crate) fn settle_rebuilt(&self) -> Result<(), StoreError> {
        let live = self.mark_live(&mut |_| Ok(()))?.live;
        let mut gone = Bits::default();
        let count = self.state().index.objects();
        for from in (0..count).step_by(BLOCK as usize) {
            let to = count.min(from + BLOCK);
            let state = self.state();
            let places = state.index.locations(from, to)?;
            let mut parents = state.index.parents(from, to)?.into_iter().peekable();
            for (number, at) in (from..).zip(places) {
                let parent = parents.next_if(|parent| parent.ordinal.0 == number);
                if live.has(Ordinal(number)) {
                    continue;
                }
                // Children have smaller numbers: whether they are there is known.
                let lacks =
                    |to: Ordinal| Ok::<_, StoreError>(gone.has(to) || state.index.location(to)?.len == 0);
                let mut is_gone = at.len == 0;
                if let (false, Some(parent)) = (is_gone, parent) {
                    for edge in state.index.edges_of(&parent)? {
                        is_gone |= lacks(edge.to)?;
                    }
                }
                if is_gone {
                    gone.add(Ordinal(number));
                }
            }
        }
        let mut state = self.state();
        gone.add_all(state.fence.gone());
        let fence = Fence::restore(state.fence.epoch(), Vec::new(), gone.clone(), gone);
        state.change_fence(&self.shared.root, fence)?;
        drop(state);
        self.clear_leaving()
    }
}
