//! What the scrub reads next, and how far it is.

use std::collections::HashMap;

use backhaul_object::ids::PackId;

use crate::catalog::{Catalog, PackCheck, PackRow, Verdict};
use crate::error::StoreError;
use crate::scrub::{self, Known, Standing, Turn};
use crate::vault::Vault;

fn known(rows: &[PackRow], checks: &[PackCheck]) -> Vec<Known> {
    let checked: HashMap<PackId, u64> = checks.iter().map(|check| (check.pack, check.checked_at)).collect();
    let one = |row: &PackRow| {
        let pack = row.name?;
        Some(Known { pack, bytes: row.bytes, checked_at: checked.get(&pack).copied() })
    };
    rows.iter().filter_map(one).collect()
}

/// What came of the packs when they were last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Results {
    /// Those that were damaged and made good.
    pub mended: u64,
    /// Those that were damaged and stayed so.
    pub damaged: u64,
}

impl Results {
    fn of(checks: &[PackCheck]) -> Self {
        let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count() as u64;
        Self { mended: count(Verdict::Mended), damaged: count(Verdict::Damaged) }
    }
}

/// How the scrub of a vault stands, from its catalog alone: also beside the process that has the vault.
///
/// # Errors
/// The catalog cannot be read.
pub fn standing(
    catalog: &Catalog,
    cycle: u64,
    now: u64,
) -> Result<(Standing, Option<Turn>, Results), StoreError> {
    let checks = catalog.checks()?;
    let known = known(&catalog.packs()?, &checks);
    Ok((scrub::standing(&known, cycle, now), scrub::next(&known, cycle, now), Results::of(&checks)))
}

impl Vault {
    /// How many packs were damaged when they were last read.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn damaged_packs(&self) -> Result<u64, StoreError> {
        Ok(Results::of(&self.state().catalog.checks()?).damaged)
    }

    /// The pack that is to be read next, and when.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn scrub_turn(&self, cycle: u64, now: u64) -> Result<Option<Turn>, StoreError> {
        let checks = self.state().catalog.checks()?;
        Ok(scrub::next(&known(&self.sealed_packs(), &checks), cycle, now))
    }
}
