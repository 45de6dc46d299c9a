//! The second opinion, asked about all that a pass would let go and remove.

use std::collections::HashSet;

use backhaul_object::ids::PackId;
use backhaul_object::{ObjectId, ShortId};

use super::Watch;
use super::plan::{PackUse, Plan, plan};
use super::verify::{Question, Verifier};
use crate::bits::Bits;
use crate::error::StoreError;
use crate::pack;
use crate::vault::Vault;

/// Objects that are asked about at a time: some 50 bytes of memory each.
const ASKED_MAX: u64 = 1 << 20;
/// Rows of the index read at once.
const BLOCK: u64 = 16_384;

/// Packs about which the second opinion was asked in this pass.
#[derive(Default)]
pub(super) struct Agreed {
    dead: HashSet<u32>,
    moving: HashSet<u32>,
}

impl Agreed {
    pub(super) fn with(plan: &Plan) -> Self {
        let dead = plan.dead.iter().map(|pack| pack.number).collect();
        Self { dead, moving: plan.compact.iter().flatten().map(|pack| pack.number).collect() }
    }

    /// True when what of a pack was said to be moved is moved, or the pack was dead as a whole.
    pub fn covers(&self, plan: &Plan) -> bool {
        let moved = |pack: &PackUse| self.dead.contains(&pack.number) || self.moving.contains(&pack.number);
        plan.dead.iter().all(|pack| self.dead.contains(&pack.number))
            && plan.compact.iter().flatten().all(moved)
    }
}

impl Vault {
    /// Asks about everything that is found no more when `dead` goes, in whatever pack it lies, and about all packs that
    /// would go then.
    ///
    /// # Errors
    /// [`StoreError::StillNeeded`], or nobody can tell.
    pub(super) fn second_opinion(
        &self,
        packs: &[PackUse],
        dead: &Bits,
        watch: &mut dyn Watch,
    ) -> Result<Agreed, StoreError> {
        let plan = plan(packs);
        let agreed = Agreed::with(&plan);
        let going: Vec<(PackId, u64)> = {
            let state = self.state();
            let one =
                |pack: &PackUse| state.packs.get(&pack.number).and_then(|row| Some((row.name?, row.objects)));
            plan.packs().filter_map(one).collect()
        };
        if going.is_empty() && dead.is_empty() {
            return Ok(agreed);
        }
        let stays = |id: &ObjectId| self.stays(id, dead, &agreed);
        let verifier = Verifier::new(&*self.shared.blobs, &mut |bytes| watch.bytes(bytes))?;
        let (mut question, mut asked) = (Question::default(), 0);
        let mut ask = |question: &mut Question, asked: &mut u64, least: u64| {
            if *asked < least {
                return Ok(());
            }
            *asked = 0;
            verifier.agree(std::mem::take(question), &stays, &mut |bytes| watch.bytes(bytes))
        };
        for (name, objects) in going {
            question.packs.insert(name);
            asked += objects;
            ask(&mut question, &mut asked, ASKED_MAX)?;
        }
        // What is condemned may be written down before the rows of it are.
        let count = self.state().index.objects();
        for range in dead.ranges() {
            for from in (range.start..range.end.min(count)).step_by(BLOCK as usize) {
                let to = range.end.min(count).min(from + BLOCK);
                let ids = self.state().index.shorts(from, to)?;
                // A number that was lost without its name is nobody's.
                question.objects.extend(ids.into_iter().filter(|id| *id != ShortId([0; 24])));
                asked += to - from;
                ask(&mut question, &mut asked, ASKED_MAX)?;
            }
        }
        ask(&mut question, &mut asked, 1)?;
        Ok(agreed)
    }

    /// True when an object that the second opinion has found needed is not among what goes, and its record is where the
    /// index says: what lies in a pack that is dead goes, and in one that is to be moved only what the index has there
    /// is moved.
    fn stays(&self, id: &ObjectId, dead: &Bits, agreed: &Agreed) -> Result<bool, StoreError> {
        let at = {
            let state = self.state();
            let Some(ordinal) = state.index.ordinal(id)? else { return Ok(false) };
            // Since it was ripe somebody may have claimed it, and made the snapshot that needs it.
            if dead.has(ordinal) && state.fence.is_condemned(ordinal) {
                return Ok(false);
            }
            let at = state.index.location(ordinal)?;
            if agreed.dead.contains(&at.pack) && !dead.has(ordinal) {
                return Ok(false);
            }
            at
        };
        let record = self.read_pack(at.pack, u64::from(at.offset), at.len as usize);
        Ok(record.is_ok_and(|raw| pack::decode_record(&raw).is_ok_and(|(_, sealed)| sealed.header.id == *id)))
    }
}
