//! Packs that the catalog does not know. Where a repair that gave one up was cut off before it removed it, it was put aside
//! before, and can go. Any other may have what nothing else has: only a rebuild tells.

use backhaul_object::ids::PackId;

use super::{Damage, Mending, Part, Report};
use crate::aside::is_aside;
use crate::catalog::PackRow;
use crate::error::StoreError;
use crate::vault::Vault;

impl Vault {
    /// `rows`: the packs that were known when the check began.
    pub(super) fn check_unknown_packs(
        &self,
        mending: Mending,
        rows: &[PackRow],
        report: &mut Report,
    ) -> Result<(), StoreError> {
        for (name, id) in self.unknown_packs(rows)? {
            let given_up = id.filter(|_| is_aside(&*self.shared.blobs, &name));
            let why = match given_up {
                Some(_) => {
                    "the catalog does not know this pack any more: it was given up, and lies in quarantine/"
                }
                None => "the catalog does not know this pack",
            };
            let mut damage = Damage::new(Part::File(name), why);
            if let (Some(id), Mending::Mend) = (given_up, mending) {
                self.remove_pack_files(&id)?;
                damage.mended = Some("removed here".to_owned());
            }
            report.damage.push(damage);
        }
        Ok(())
    }

    /// Removes packs that were given up, and put aside, by a repair that was cut off then.
    pub(crate) fn remove_given_up(&self) -> Result<(), StoreError> {
        for (name, id) in self.unknown_packs(&[])? {
            if let Some(id) = id.filter(|_| is_aside(&*self.shared.blobs, &name)) {
                self.remove_pack_files(&id)?;
            }
        }
        Ok(())
    }

    /// Files among the packs that are none of the catalog's, nor of `rows`, by their names, and as which pack.
    fn unknown_packs(&self, rows: &[PackRow]) -> Result<Vec<(String, Option<PackId>)>, StoreError> {
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
            if !is_known && !rows.iter().any(|row| row.name == id) && self.shared.blobs.len(&name)?.is_some()
            {
                unknown.push((name, id));
            }
        }
        Ok(unknown)
    }
}
