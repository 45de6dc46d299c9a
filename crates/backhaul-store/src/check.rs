//! Is everything that snapshots need still there and whole? And with leave to mend: make it so.
//!
//! - `packs`: one pack with its sidecar, read by two threads;
//! - `records`: what a pack holds against what the index says, both ways;
//! - `taint`: what damage means for snapshots;
//! - `places`: what is not lost, only not found;
//! - `snaps`: snapshot objects that are lost, which their manifests have;
//! - `turns`: all packs, so that others get their turn meanwhile;
//! - `settle`: what comes of a pack that was looked at: it is mended, or noted;
//! - `papers`: manifests, descriptor, catalog;
//! - `schedule`: what the scrub reads next.
//!
//! Runs beside sessions and reclaim: what is added meanwhile is not looked at, and what is moved is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{MutexGuard, PoisonError};

use backhaul_object::ids::PackId;
use backhaul_object::{Sealed, ShortId};

use crate::aside::Aside;
use crate::catalog::{PackCheck, PackRow, SnapshotRow};
use crate::error::StoreError;
use crate::index::Ordinal;
use crate::owned::Owned;
use crate::sidecar::sidecar_blob;
use crate::vault::{Vault, pack_blob};

mod leftovers;
mod packs;
mod papers;
mod places;
mod records;
mod schedule;
mod settle;
mod snaps;
mod taint;
mod turns;

pub use schedule::{Results, standing};
pub use snaps::Verify;

use packs::Exams;
use records::Seen;

/// How far a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Packs are there with the right length and footer, the index fits them, every reference resolves.
    Structure,
    /// Every byte of these packs and their parity is read, too.
    ReadData(Selection),
}

/// Which packs are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// Part `part` (from 1) of `of`: the parts together are all.
    Part {
        /// From 1.
        part: u64,
        /// How many there are.
        of: u64,
    },
    /// About so many in a million, others for each seed.
    Sample {
        /// In a million.
        millionths: u64,
        /// What chooses them.
        seed: u64,
    },
}

impl Selection {
    /// True when a pack is among them.
    pub fn takes(&self, pack: &PackId) -> bool {
        let mut head = [0; 8];
        head.copy_from_slice(&pack.0[..8]);
        let number = u64::from_le_bytes(head);
        match *self {
            Self::All => true,
            Self::Part { part, of } => number % of.max(1) == part.wrapping_sub(1),
            Self::Sample { millionths, seed } => {
                let mut head = [0; 8];
                let hash = blake3::keyed_hash(&pack.0, &seed.to_le_bytes());
                head.copy_from_slice(&hash.as_bytes()[..8]);
                u64::from_le_bytes(head) % 1_000_000 < millionths
            }
        }
    }
}

/// How much of a pack is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Its ends.
    Glance,
    /// Every byte.
    Whole,
}

/// What one round of the scrub takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// One pack.
    Pack,
    /// And the small files, and whether anything is lost.
    PackAndPapers,
}

/// Whether a check may change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mending {
    /// It only looks.
    Look,
    /// It makes good what it can, into new files; the old ones go to `quarantine/`.
    Mend,
}

/// What is to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// How far.
    pub depth: Depth,
    /// With what leave.
    pub mending: Mending,
    /// Seconds since 1970.
    pub now: u64,
}

/// What is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A pack.
    Pack(PackId),
    /// A pack's sidecar.
    Parity(PackId),
    /// An object.
    Object(ShortId),
    /// The index.
    Index,
    /// A file, by its name in the vault.
    File(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pack(pack) => write!(f, "{}", pack_blob(pack)),
            Self::Parity(pack) => write!(f, "{}", sidecar_blob(pack)),
            Self::Object(id) => write!(f, "object {id}"),
            Self::Index => write!(f, "index"),
            Self::File(name) => write!(f, "{name}"),
        }
    }
}

/// One damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// To what.
    pub what: Part,
    /// How it was noticed.
    pub why: String,
    /// How it was made good, if it was.
    pub mended: Option<String>,
}

impl Damage {
    pub(crate) fn new(what: Part, why: impl fmt::Display) -> Self {
        Self { what, why: why.to_string(), mended: None }
    }
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Packs looked at.
    pub packs: u64,
    /// Packs read whole.
    pub packs_read: u64,
    /// Objects that the packs hold as the index says.
    pub objects: u64,
    /// Bytes of the packs.
    pub bytes: u64,
    /// Packs and manifests that have no parity or copy yet.
    pub unprotected: u64,
    /// What was put aside.
    pub aside: Aside,
    /// What is damaged, and how.
    pub damage: Vec<Damage>,
    /// Snapshots that need something which cannot be read.
    pub affected: Vec<SnapshotRow>,
    /// What cannot be read and is needed.
    pub unreadable: Owned,
    /// What needs something that cannot be read, and that itself.
    pub tainted: Owned,
}

impl Report {
    /// True when nothing is damaged now.
    pub fn is_sound(&self) -> bool {
        self.damage.iter().all(|damage| damage.mended.is_some())
    }
}

/// What a check has come to so far.
#[derive(Default)]
struct Findings {
    report: Report,
    /// Packs that are damaged and not mended, by number.
    bad: BTreeMap<u32, PackId>,
    /// Those of them that are not given up: what is in them is not known, only that it could not be read.
    kept: BTreeSet<u32>,
    /// What the catalog is to know.
    checks: Vec<PackCheck>,
}

/// Looks deeper into an object than the store can: it has no key.
pub type Inspect<'a> = dyn FnMut(&Sealed) -> Result<(), String> + 'a;
/// Whether a check goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    /// It does.
    On,
    /// It ends where it is.
    Stop,
}

/// Hears of bytes done, from several threads; may take its time, and says whether to go on.
pub type Progress<'a> = dyn Fn(u64) -> Go + Sync + 'a;

impl Vault {
    /// Checks the vault. `inspect` sees every object that can be read.
    ///
    /// # Errors
    /// Catalog or index cannot be read or written; damage is in the report.
    pub fn check(
        &self,
        request: &Request,
        mut inspect: Option<&mut Inspect<'_>>,
        progress: &Progress<'_>,
    ) -> Result<Report, StoreError> {
        let seen = Seen::new(self.state().index.objects());
        let exams = Exams::new(self, request.depth, &seen, progress);
        let mut found = Findings::default();
        let rows = self.examine_in_turns(request, &exams, &mut found)?;
        let mut inspected = BTreeMap::new();
        if let Some(inspect) = &mut inspect {
            inspected = self.inspect(seen.ordinals(), inspect, progress)?;
        }
        // From here on nothing is moved by anybody else.
        let _upkeep = self.upkeep();
        self.drop_settled(&mut found)?;
        if let Some(inspect) = &mut inspect {
            inspected = self.inspect(inspected.into_keys(), inspect, progress)?;
        }
        found.report.objects = seen.count();
        let mut unreadable = self.unreadable_in(&found.bad)?;
        unreadable.append(&mut inspected);
        self.compare_index(&rows, &found.bad, &seen, &mut found.report)?;
        self.check_unknown_packs(request.mending, &rows, &mut found.report)?;
        self.check_papers(request, &mut found.report)?;
        found.report.aside = self.aside()?;
        self.judge(request, unreadable, found)
    }

    /// Reads one pack whole and mends what can be mended; with the small files, too, if that is asked for.
    ///
    /// # Errors
    /// As [`Vault::check`].
    pub fn scrub(
        &self,
        pack: &PackId,
        round: Round,
        now: u64,
        progress: &Progress<'_>,
    ) -> Result<Report, StoreError> {
        let _upkeep = self.upkeep();
        let request = Request { depth: Depth::ReadData(Selection::All), mending: Mending::Mend, now };
        let seen = Seen::new(self.state().index.objects());
        let exams = Exams::new(self, request.depth, &seen, progress);
        let mut found = Findings::default();
        if let Some(row) = self.sealed_packs().into_iter().find(|row| row.name == Some(*pack)) {
            let exam = exams.one(&row)?;
            self.settle(&request, &row, exam, &exams, &mut found)?;
        }
        found.report.objects = seen.count();
        if round == Round::PackAndPapers {
            self.check_papers(&request, &mut found.report)?;
        }
        self.state().catalog.note_checks(&found.checks)?;
        if found.bad.is_empty() && round == Round::Pack {
            return Ok(found.report);
        }
        let unreadable = self.unreadable_in(&found.bad)?;
        self.judge(&request, unreadable, found)
    }

    /// One upkeep at a time: what one moves, another must not. Who comes again and again takes turns with who waits: the
    /// one that is next keeps the others from being next.
    pub(crate) fn upkeep(&self) -> MutexGuard<'_, ()> {
        let _next = self.shared.upkeep_next.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.upkeep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Packs that are sealed and in their place, by number.
    pub(crate) fn sealed_packs(&self) -> Vec<PackRow> {
        let state = self.state();
        let mut rows: Vec<PackRow> = state.packs.values().filter(|row| row.name.is_some()).cloned().collect();
        rows.sort_by_key(|row| row.number);
        rows
    }

    /// The objects of damaged packs that cannot be read any more.
    fn unreadable_in(&self, bad: &BTreeMap<u32, PackId>) -> Result<BTreeMap<Ordinal, String>, StoreError> {
        let mut unreadable = BTreeMap::new();
        if !bad.is_empty() {
            let mut suspect = Vec::new();
            self.each_located(&mut |ordinal, at| {
                if bad.contains_key(&at.pack) {
                    suspect.push(ordinal);
                }
            })?;
            for ordinal in suspect {
                match self.get(ordinal) {
                    // It was let go meanwhile.
                    Ok(_) | Err(StoreError::NotFound(_)) => {}
                    Err(error) => drop(unreadable.insert(ordinal, how_unread(error))),
                }
            }
        }
        Ok(unreadable)
    }

    /// Shows objects to `inspect`; returns those with which something is wrong.
    fn inspect(
        &self,
        ordinals: impl Iterator<Item = Ordinal>,
        inspect: &mut Inspect<'_>,
        progress: &Progress<'_>,
    ) -> Result<BTreeMap<Ordinal, String>, StoreError> {
        let mut wrong = BTreeMap::new();
        for ordinal in ordinals {
            let why = match self.get(ordinal) {
                Ok(sealed) => {
                    if progress(sealed.body.len() as u64) == Go::Stop {
                        return Err(StoreError::Interrupted);
                    }
                    inspect(&sealed).err()
                }
                Err(StoreError::NotFound(_)) => None,
                Err(error) => Some(how_unread(error)),
            };
            if let Some(why) = why {
                wrong.insert(ordinal, why);
            }
        }
        Ok(wrong)
    }
}

/// Why an object cannot be read; which one is said with it.
fn how_unread(error: StoreError) -> String {
    match error {
        StoreError::Damaged { why, .. } => why,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
