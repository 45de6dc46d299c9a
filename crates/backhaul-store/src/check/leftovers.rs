//! Packs that the catalog does not know. Where a repair that gave one up was cut off before it removed it, it was put aside
//! before, and can go. Any other may have what nothing else has: only a rebuild tells.

use backhaul_object::ids::PackId;

use super::{Damage, Mending, Part, Report};
use crate::aside::is_aside;
use crate::blobs::{Blobs, LocalBlobs};
use crate::catalog::PackRow;
use crate::error::StoreError;
use crate::rebuild;
use crate::sidecar::sidecar_blob;
use crate::vault::{Vault, pack_blob};

/// A file among the packs.
enum Unknown {
    /// All of it is in `quarantine/`.
    GivenUp(PackId),
    /// Nobody knows what it is.
    Other(String),
}

impl Vault {
    /// `rows`: the packs that were known when the check began.
    pub(super) fn check_unknown_packs(
        &self,
        mending: Mending,
        rows: &[PackRow],
        report: &mut Report,
    ) -> Result<(), StoreError> {
        for unknown in self.unknown_packs(rows)? {
            let damage = match unknown {
                Unknown::Other(name) => Damage::new(Part::File(name), "the catalog does not know this pack"),
                Unknown::GivenUp(pack) => {
                    let why = "it was given up, and lies in quarantine/";
                    let mut damage = Damage::new(Part::File(pack_blob(&pack)), why);
                    if mending == Mending::Mend {
                        self.shared.blobs.remove(&pack_blob(&pack))?;
                        damage.mended = Some("removed from the packs".to_owned());
                    }
                    damage
                }
            };
            report.damage.push(damage);
        }
        Ok(())
    }

    /// Removes packs that were given up, and put aside, by a repair that was cut off then. While anything is lost or damaged
    /// nothing goes.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn remove_given_up(&self, now: u64) -> Result<(), StoreError> {
        let _upkeep = self.upkeep();
        let given_up = self.unknown_packs(&[])?.into_iter().filter_map(|unknown| match unknown {
            Unknown::GivenUp(pack) => Some(pack_blob(&pack)),
            Unknown::Other(_) => None,
        });
        let given_up: Vec<String> = given_up.collect();
        if given_up.is_empty() || self.damaged_packs()? > 0 || self.has_lost(now)? {
            return Ok(());
        }
        given_up.iter().try_for_each(|name| self.shared.blobs.remove(name))
    }

    /// Files among the packs that are none of the catalog's, nor of `rows`.
    fn unknown_packs(&self, rows: &[PackRow]) -> Result<Vec<Unknown>, StoreError> {
        let (moving, mut unknown) = (self.in_journal()?, Vec::new());
        for name in self.shared.blobs.list("packs")? {
            let id: Option<PackId> = name.rsplit('/').next().and_then(|hex| hex.parse().ok());
            let is_known = id.is_some_and(|id| {
                if moving.contains(&id) {
                    return true;
                }
                let state = self.state();
                let named = |row: &PackRow| row.name == Some(id);
                state.packs.values().any(named) || state.pending.values().any(named)
            });
            // One that was just removed was known when the list was made.
            if is_known || rows.iter().any(|row| row.name == id) || self.shared.blobs.len(&name)?.is_none() {
                continue;
            }
            unknown.push(match id.filter(|id| name == pack_blob(id) && self.is_given_up(id)) {
                Some(id) => Unknown::GivenUp(id),
                None => Unknown::Other(name),
            });
        }
        Ok(unknown)
    }

    /// Whether a pack is damaged and lies in quarantine as it is, and its parity, too, if it is there: a repair that mends one
    /// puts the damaged one aside as well, and of what is whole somebody may have put it back.
    fn is_given_up(&self, pack: &PackId) -> bool {
        // Opened anew: meanwhile another file may have come to be under the name.
        let blobs = LocalBlobs::new(&self.shared.root);
        let (name, sidecar) = (pack_blob(pack), sidecar_blob(pack));
        let is_damaged = rebuild::hash(&blobs, &name, None).is_ok_and(|found| found != *pack);
        let has_parity = !matches!(blobs.len(&sidecar), Ok(None));
        is_damaged && is_aside(&blobs, &name) && (!has_parity || is_aside(&blobs, &sidecar))
    }
}
