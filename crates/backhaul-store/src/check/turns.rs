//! All packs, a few at a time. A check of every byte takes hours: who moves or removes packs, or mends one, does not wait
//! for more than a turn, and the check does not rely on what was there before.

use std::collections::{BTreeMap, BTreeSet};

use backhaul_object::ids::{PackId, SessionId};

use super::packs::Exams;
use super::{Findings, Part, Request};
use crate::catalog::{PackRow, Verdict};
use crate::error::StoreError;
use crate::vault::Vault;

/// Packs of a turn: a few seconds of reading, and enough for all threads.
const TURN: usize = 16;

impl Vault {
    /// Looks at all packs, and at those into which reclaim moves something meanwhile. Returns what was looked at.
    pub(super) fn examine_in_turns(
        &self,
        request: &Request,
        exams: &Exams<'_>,
        found: &mut Findings,
    ) -> Result<Vec<PackRow>, StoreError> {
        let mut looked_at: Vec<PackRow> = Vec::new();
        let mut next = self.sealed_packs();
        while !next.is_empty() {
            for turn in next.chunks(TURN) {
                let _upkeep = self.upkeep();
                for (row, exam) in turn.iter().zip(exams.all(turn)?) {
                    self.settle(request, row, exam, exams, found)?;
                }
                if !found.checks.is_empty() {
                    self.state().catalog.note_checks(&std::mem::take(&mut found.checks))?;
                }
            }
            looked_at.append(&mut next);
            let known: BTreeSet<u32> = looked_at.iter().map(|row| row.number).collect();
            next = self.sealed_packs();
            next.retain(|row| row.session == SessionId([0; 16]) && !known.contains(&row.number));
        }
        Ok(looked_at)
    }

    /// Packs that were damaged and have gone since, or were mended, by reclaim or the scrub: no damage is left of them.
    pub(super) fn drop_settled(&self, found: &mut Findings) -> Result<(), StoreError> {
        let state = self.state();
        let still = state.catalog.checks()?.into_iter().filter(|check| check.verdict == Verdict::Damaged);
        let still: BTreeSet<PackId> = still.map(|check| check.pack).collect();
        let stays = |number: &u32, pack: &PackId| state.packs.contains_key(number) && still.contains(pack);
        let (bad, settled): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut found.bad).into_iter().partition(|(number, pack)| stays(number, pack));
        found.bad = bad;
        for pack in settled.values() {
            let of_pack = found.report.damage.iter_mut().filter(|damage| damage.what == Part::Pack(*pack));
            of_pack
                .for_each(|damage| damage.mended = Some("it was mended, or has gone, meanwhile".to_owned()));
        }
        Ok(())
    }
}
