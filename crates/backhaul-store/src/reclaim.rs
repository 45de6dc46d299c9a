//! Reclaim: what no snapshot reaches goes, beside everything else (docs/format.md, "Reclaim").
//!
//! - [`fence`]: the pure machine that says what may go, and [`condemned`], what is written down of it;
//! - [`mark`]: what is needed, in one pass over the references; `marking`: of a vault that is being written to;
//! - [`verify`]: the second opinion, from packs and manifests alone; `opinion`: asked about a pass;
//! - [`plan`]: which packs go and which are compacted; `moving` does it, by a [`journal`];
//! - `settle`: what a rebuild must know, and does at its end;
//! - `run`: all of it in order, [`Vault::reclaim`].
//!
//! Invariants:
//! - nothing is deleted by age or clock: it was unreached in two marks, and nobody is left from before the first;
//! - what is not condemned refers to nothing condemned, and what is there to nothing gone;
//! - nothing is taken out of the index, and no pack is removed, before a second opinion has agreed; and a pack only when
//!   nothing in the index is in it.

use std::collections::HashSet;

use backhaul_object::Header;
use backhaul_object::ids::{ClientId, PackId};

use crate::bits::Bits;
use crate::error::StoreError;
use crate::index::{Edge, Location, Ordinal};
use crate::reserve;
use crate::vault::{State, Vault};

pub mod condemned;
pub mod fence;
pub mod journal;
pub mod mark;
mod marking;
mod moving;
mod opinion;
pub mod plan;
mod run;
mod settle;
pub mod verify;

pub use run::{Report, Request};
pub(crate) use settle::without_condemned;
pub(crate) use verify::{Verifier, rows};

/// Marks for which the objects of a session that has made no snapshot are kept, and proofs.
pub const HOLD: u64 = 30;

/// Hears of bytes read and written, and may ask to stop.
pub type Pace<'a> = dyn FnMut(u64) -> Result<(), StoreError> + 'a;

/// What reclaim is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A forgotten snapshot has lost its row in the catalog.
    Unlisted,
    /// And its manifest.
    Unmade,
    /// It is known what is needed.
    Marked,
    /// The rest is condemned.
    Condemned,
    /// Of what was condemned before, the second opinion agrees with all.
    Verified,
    /// It is let go: nobody finds it from here on.
    LetGo,
    /// It is out of the index.
    Cleared,
    /// A new pack is whole, and nobody knows it.
    Written,
    /// It is written down which packs go.
    Journalled,
    /// A new pack has its name.
    Adopted,
    /// The index leads to it, in memory.
    Relocated,
    /// And on disk.
    Indexed,
    /// The catalog knows the new packs and not the old.
    Switched,
    /// An old pack is gone.
    Removed,
}

/// Whoever watches: for progress, for a limit of the rate, to stop, and in tests to end it all at any step.
pub trait Watch {
    /// So many bytes were read or written.
    ///
    /// # Errors
    /// To stop here.
    fn bytes(&mut self, _count: u64) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether all snapshots of a client stay, whatever their marks say. Asked before each goes: much may have happened since
    /// the pass began.
    ///
    /// # Errors
    /// Nobody can tell.
    fn holds(&mut self, _client: ClientId) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// This was just done.
    ///
    /// # Errors
    /// To stop here.
    fn step(&mut self, _step: Step) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Nobody watches.
impl Watch for () {}

/// While it lives, nothing goes that was there when it was made.
pub struct Pass {
    vault: Vault,
    token: u64,
}

/// While it lives, nothing goes that a client's snapshots reached when it was made, or was [renewed](Self::renew).
pub struct ReaderPass {
    pass: Pass,
    of: ClientId,
}

impl ReaderPass {
    /// Its holder has read nothing for long, and makes do with what is there now.
    pub fn renew(&self) {
        self.pass.vault.state().fence.renew(self.pass.token, self.of);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.vault.state().fence.leave(self.token);
    }
}

impl Vault {
    /// Says that somebody (`who`, for people) is going to rely on what this vault says it has.
    pub fn enter(&self, who: &str) -> Pass {
        let token = self.state().fence.enter(who.to_owned());
        Pass { vault: self.clone(), token }
    }

    /// Says that somebody (`who`, for people) is going to read what a client's snapshots reach.
    pub fn enter_reader(&self, who: &str, of: ClientId) -> ReaderPass {
        let token = self.state().fence.enter_reader(who.to_owned(), of);
        ReaderPass { pass: Pass { vault: self.clone(), token }, of }
    }

    /// Makes sure that an object that was found stays while its claimant has a [`Pass`]. False when it is gone.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn claim(&self, ordinal: Ordinal) -> Result<bool, StoreError> {
        self.state().claim(ordinal)
    }

    /// Sets room aside, so that reclaim works on a full disk, unless there is little; true when it is there.
    ///
    /// # Errors
    /// The disk refused.
    pub fn keep_reserve(&self) -> Result<bool, StoreError> {
        reserve::keep(&self.shared.root)
    }

    /// What is fenced off, and what waits: for tests and for people.
    pub fn fence(&self) -> fence::Fence {
        self.state().fence.clone()
    }

    /// Packs that a journal is about, if one is: which of them the catalog knows is open.
    pub(crate) fn in_journal(&self) -> Result<HashSet<PackId>, StoreError> {
        let journal = journal::load(&self.shared.root)?.unwrap_or_default();
        let new = journal.new.iter().filter_map(|row| row.name);
        Ok(new.chain(journal.old.iter().map(|(_, name)| *name)).collect())
    }

    /// Finishes what was going on when the vault was last open.
    pub(crate) fn resume_reclaim(&self) -> Result<(), StoreError> {
        {
            let mut state = self.state();
            let epoch = state.fence.epoch();
            let needed: Bits = state.catalog.resurrected(epoch)?.into_iter().collect();
            state.fence.resume(&needed);
        }
        self.finish_reclaim(&mut ())
    }

    /// Does what is written down and not done yet.
    fn finish_reclaim(&self, watch: &mut dyn Watch) -> Result<(), StoreError> {
        self.clear_leaving()?;
        match journal::load(&self.shared.root)? {
            Some(journal) if journal.generation == self.generation() && self.can_redo(&journal)? => {
                self.redo(&journal, watch)
            }
            // The index was rebuilt since, from old packs and new: both are there, and what is superfluous will go. Or a
            // new pack was lost, or does not say what is in it: what was to be moved is still where it was.
            Some(_) => journal::remove(&self.shared.root),
            None => Ok(()),
        }
    }

    /// Takes what is leaving out of the index. From before its first step on, nobody finds any of it.
    fn clear_leaving(&self) -> Result<(), StoreError> {
        const BLOCK: u64 = 1 << 20;
        let count = {
            let mut state = self.state();
            if state.fence.leaving().is_empty() {
                return Ok(());
            }
            let leaving = state.fence.leaving().clone();
            state.index.let_go(leaving);
            state.index.objects()
        };
        for from in (0..count).step_by(BLOCK as usize) {
            self.state().index.clear(from, from + BLOCK)?;
        }
        let mut state = self.state();
        state.flush_index()?;
        let mut fence = state.fence.clone();
        fence.left();
        state.change_fence(&self.shared.root, fence)
    }
}

impl State {
    /// Resurrects an object with all that it refers to, if it is condemned. False when it is gone.
    pub(crate) fn claim(&mut self, ordinal: Ordinal) -> Result<bool, StoreError> {
        let index = &self.index;
        let mut children = |parent| Ok(index.edges(parent)?.into_iter().map(|edge| edge.to).collect());
        self.fence.claim(ordinal, &mut children)
    }

    /// The same for all references of an object that is about to be added: they may have been condemned since they
    /// were resolved.
    pub(crate) fn claim_all(&mut self, header: &Header, edges: &[Edge]) -> Result<(), StoreError> {
        for (i, edge) in edges.iter().enumerate() {
            if !self.claim(edge.to)? {
                let id = header.references.get(i).map_or(header.id, |reference| reference.id);
                return Err(StoreError::MissingReference(id));
            }
        }
        Ok(())
    }

    /// What was lost has come back under its number: written down by the next flush.
    pub(crate) fn revive(&mut self, lost: Ordinal, header: &Header, at: Location) -> Result<(), StoreError> {
        self.fence.revive(lost);
        self.claim(lost)?;
        self.index.revive(lost, header, at)
    }

    /// After a failed sync nobody knows what is on disk.
    pub(crate) fn flush_index(&mut self) -> Result<(), StoreError> {
        let done = self.index.flush();
        self.poisoned |= matches!(done, Err(StoreError::Io { doing: "sync", .. }));
        done
    }

    /// What is needed whether or not a snapshot reaches it: possessions shown not long ago, and the packs of sessions
    /// that have made no snapshot.
    fn holds(&self) -> Result<(HashSet<Ordinal>, HashSet<u32>), StoreError> {
        let since = self.fence.epoch().saturating_sub(HOLD);
        let mut proven = self.catalog.all_proven(since)?;
        proven.extend(self.proven.iter().map(|proof| proof.ordinal));
        let held = |session| self.uploads.get(session).is_some_and(|upload| upload.epoch >= since);
        let packs = self.packs.values().filter(|row| held(&row.session)).map(|row| row.number).collect();
        Ok((proven, packs))
    }
}
