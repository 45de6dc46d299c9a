//! Marking snapshots. The order: the catalog forgets what it knew, the file is replaced, the catalog learns it: a
//! crash in between leaves a file without a row, which opening the vault makes up for.

use std::collections::{HashMap, HashSet};

use backhaul_object::ids::ClientId;

use crate::blobs::Blobs;
use crate::catalog::SnapshotRow;
use crate::error::StoreError;
use crate::mark::{Mark, Nights, REASON_MAX, State, mark_name};
use crate::vault::Vault;

/// Largest mark file that is read.
const MARK_MAX: usize = 4_096;
const NIGHTS_FILE: &str = "nights";

/// What is said about a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Marking<'a> {
    /// The state it gets.
    pub state: State,
    /// When, in seconds since 1970.
    pub now: u64,
    /// Seconds for which it can be had back, if it is forgotten.
    pub grace: u64,
    /// Why, for people; cut at 400 bytes.
    pub reason: &'a str,
}

impl Vault {
    /// All marks by client and sequence.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn marks(&self) -> Result<Vec<Mark>, StoreError> {
        self.state().catalog.marks()
    }

    /// Snapshots that are not forgotten, by client and sequence; of one client or of all.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn visible(&self, client: Option<ClientId>) -> Result<Vec<SnapshotRow>, StoreError> {
        let mut rows = self.snapshots(client)?;
        let marks = self.marks()?;
        hide_forgotten(&mut rows, &marks);
        Ok(rows)
    }

    /// Marks a snapshot, durably.
    ///
    /// # Errors
    /// There is no such snapshot, or the disk refused: the mark from before may or may not stand.
    pub fn mark(&self, client: ClientId, sequence: u64, marking: Marking<'_>) -> Result<Mark, StoreError> {
        let night = self.nights()?.count;
        let state = self.state();
        let Some(id) = state.catalog.snapshot_id(client, sequence)? else {
            return Err(StoreError::damaged(mark_name(client, sequence), "there is no such snapshot"));
        };
        let mut reason = marking.reason.to_owned();
        while reason.len() > REASON_MAX {
            reason.pop();
        }
        let Marking { state: said, now: marked_at, grace, .. } = marking;
        let mark = Mark { client, sequence, id, state: said, marked_at, night, grace, reason };
        state.catalog.drop_mark(client, sequence)?;
        self.shared.blobs.put(&mark.name(), &mark.encode())?;
        state.catalog.note_mark(&mark)?;
        Ok(mark)
    }

    /// Nights that have passed over this vault. A file that was lost or damaged counts as the newest mark's night:
    /// nothing is released early.
    ///
    /// # Errors
    /// The disk refused.
    pub fn nights(&self) -> Result<Nights, StoreError> {
        let least = self.state().catalog.newest_night()?;
        let kept = match self.shared.blobs.len(NIGHTS_FILE)? {
            Some(_) => Nights::decode(&self.shared.blobs.read(NIGHTS_FILE, 0, MARK_MAX)?).unwrap_or_default(),
            None => Nights::default(),
        };
        Ok(Nights { count: kept.count.max(least), ..kept })
    }

    /// Counts a night if one has passed, durably. Whoever releases what is forgotten calls this before.
    ///
    /// # Errors
    /// The disk refused.
    pub fn count_night(&self, now: u64) -> Result<Nights, StoreError> {
        let before = self.nights()?;
        let (after, _) = before.look(now);
        if after != before {
            self.shared.blobs.put(NIGHTS_FILE, &after.encode())?;
        }
        Ok(after)
    }

    /// Brings the catalog's marks in line with the files; `names` are all names under `snaps/`.
    pub(super) fn adopt_marks(&self, names: &[String]) -> Result<(), StoreError> {
        let state = self.state();
        let known: HashMap<String, Mark> =
            state.catalog.marks()?.into_iter().map(|mark| (mark.name(), mark)).collect();
        let found: HashSet<&String> = names.iter().filter(|name| name.ends_with(".mark")).collect();
        for mark in known.iter().filter(|(name, _)| !found.contains(name)).map(|(_, mark)| mark) {
            state.catalog.drop_mark(mark.client, mark.sequence)?;
        }
        for name in found.into_iter().filter(|name| !known.contains_key(*name)) {
            // One that is damaged, or lies in another's place, marks nothing: what it stood beside is kept. `check`
            // names it.
            if let Some(mark) = read_mark(&*self.shared.blobs, name)?.ok().filter(|mark| mark.name() == *name)
            {
                state.catalog.note_mark(&mark)?;
            }
        }
        Ok(())
    }

    /// Mark files that mark nothing, and why.
    pub(crate) fn bad_marks(&self) -> Result<Vec<(String, String)>, StoreError> {
        let mut bad = Vec::new();
        for name in self.shared.blobs.list("snaps")?.into_iter().filter(|name| name.ends_with(".mark")) {
            match read_mark(&*self.shared.blobs, &name)? {
                Ok(mark) if mark.name() == name => {}
                Ok(mark) => bad.push((name, format!("it is the mark of {}", mark.name()))),
                Err(error) => bad.push((name, error.to_string())),
            }
        }
        Ok(bad)
    }
}

/// Leaves out what is forgotten. A mark speaks for the snapshot with its id only.
pub fn hide_forgotten(rows: &mut Vec<SnapshotRow>, marks: &[Mark]) {
    let forgotten: HashSet<_> =
        marks.iter().filter(|mark| mark.state == State::Forgotten).map(|mark| mark.id).collect();
    rows.retain(|row| !forgotten.contains(&row.id));
}

fn read_mark(
    blobs: &dyn Blobs,
    name: &str,
) -> Result<Result<Mark, backhaul_object::FormatError>, StoreError> {
    Ok(Mark::decode(&blobs.read(name, 0, MARK_MAX)?))
}
