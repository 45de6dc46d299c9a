//! Marking snapshots. The order: the catalog forgets what it knew, the file is replaced, the catalog learns it: a
//! crash in between leaves a file without a row, which opening the vault makes up for. The copy goes before, and comes after.

use std::collections::{BTreeSet, HashMap, HashSet};

use backhaul_object::ids::ClientId;

use crate::blobs::Blobs;
use crate::catalog::SnapshotRow;
use crate::check::{Damage, Mending, Part, Report, Request};
use crate::error::StoreError;
use crate::manifest::copy_name;
use crate::mark::{Mark, Nights, REASON_MAX, State, mark_name};
use crate::repair;
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

/// What the file `nights` says, if there is a whole one.
pub(crate) fn counted(blobs: &dyn Blobs) -> Result<Option<Nights>, StoreError> {
    Ok(match blobs.len(NIGHTS_FILE)? {
        Some(_) => Nights::decode(&blobs.read(NIGHTS_FILE, 0, MARK_MAX)?).ok(),
        None => None,
    })
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
        let (name, bytes) = (mark.name(), mark.encode());
        state.catalog.drop_mark(client, sequence)?;
        // So that no copy says what the mark does not say any more.
        self.shared.blobs.remove(&copy_name(&name))?;
        self.shared.blobs.put(&name, &bytes)?;
        // The mark stands; a copy that cannot be written is made by the scrub.
        let _ = self.shared.blobs.put(&copy_name(&name), &bytes);
        state.catalog.note_mark(&mark)?;
        Ok(mark)
    }

    /// Nights that have passed over this vault. A file that was lost or damaged counts as the newest mark's night:
    /// nothing is released early.
    ///
    /// # Errors
    /// The disk refused.
    pub fn nights(&self) -> Result<Nights, StoreError> {
        match counted(&*self.shared.blobs)? {
            // A mark may be of a night that was taken back since: then that is none.
            Some(nights) => Ok(nights),
            None => Ok(Nights { count: self.state().catalog.newest_night()?, ..Nights::default() }),
        }
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

    /// Names of marks, of those too of which only the copy is left; `names` are all names under `snaps/`.
    fn mark_names(&self, names: &[String]) -> Result<BTreeSet<String>, StoreError> {
        let copies = self.shared.blobs.list("copies")?;
        let of_copies = copies.iter().map(|copy| copy.replacen("copies/", "snaps/", 1));
        Ok(names.iter().cloned().chain(of_copies).filter(|name| name.ends_with(".mark")).collect())
    }

    /// Brings the catalog's marks in line with the files; `names` are all names under `snaps/`.
    pub(super) fn adopt_marks(&self, names: &[String]) -> Result<(), StoreError> {
        let found = self.mark_names(names)?;
        let state = self.state();
        let known: HashMap<String, Mark> =
            state.catalog.marks()?.into_iter().map(|mark| (mark.name(), mark)).collect();
        for mark in known.iter().filter(|(name, _)| !found.contains(*name)).map(|(_, mark)| mark) {
            state.catalog.drop_mark(mark.client, mark.sequence)?;
        }
        for name in found.iter().filter(|name| !known.contains_key(*name)) {
            // One that is damaged, or lies in another's place, marks nothing, and without a copy what it stood beside is
            // kept. `check` names it.
            let mark = self.read_mark(name, name).or_else(|_| self.read_mark(&copy_name(name), name));
            if let Ok(mark) = mark {
                state.catalog.note_mark(&mark)?;
            }
        }
        Ok(())
    }

    /// The mark in a file, if it is that of `name`; or why it is none. One that cannot be read is none either.
    fn read_mark(&self, file: &str, name: &str) -> Result<Mark, String> {
        let blobs = &self.shared.blobs;
        if blobs.len(file).map_err(|error| error.to_string())?.is_none() {
            return Err("it is missing".to_owned());
        }
        let bytes = blobs.read(file, 0, MARK_MAX).map_err(|error| error.to_string())?;
        match Mark::decode(&bytes) {
            Ok(mark) if mark.name() == name => Ok(mark),
            Ok(mark) => Err(format!("it is the mark of {}", mark.name())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Compares marks with their copies, and makes the one from the other where one is not whole.
    pub(crate) fn check_marks(&self, request: &Request, report: &mut Report) -> Result<(), StoreError> {
        let may_mend = request.mending == Mending::Mend;
        for name in self.mark_names(&self.shared.blobs.list("snaps")?)? {
            // Nobody marks meanwhile.
            let state = self.state();
            let copy = copy_name(&name);
            let has_copy = !matches!(self.shared.blobs.len(&copy), Ok(None));
            let (bad, why, good) = match (self.read_mark(&name, &name), self.read_mark(&copy, &name)) {
                (Ok(mark), Ok(same)) if mark == same => continue,
                (Ok(mark), _) if !has_copy && may_mend => {
                    self.shared.blobs.put(&copy, &mark.encode())?;
                    continue;
                }
                (Ok(_), _) if !has_copy => {
                    report.unprotected += 1;
                    continue;
                }
                // Both are whole: one is of another time, and the catalog has heard what was said last.
                (Ok(_), Ok(same)) if state.catalog.marks()?.contains(&same) => {
                    (name, "it is not what was said last".to_owned(), Some(same))
                }
                (Ok(mark), Ok(_)) => (copy, "it is not as the mark".to_owned(), Some(mark)),
                (Ok(mark), Err(why)) => (copy, why, Some(mark)),
                // It was removed, with its copy, since the names were listed.
                (Err(_), Err(_)) if !has_copy && matches!(self.shared.blobs.len(&name), Ok(None)) => continue,
                (Err(why), good) => (name, why, good.ok()),
            };
            let mut damage = Damage::new(Part::File(bad.clone()), why);
            if let (Some(good), true) = (good, may_mend) {
                repair::replace(&*self.shared.blobs, &bad, &good.encode(), request.now)?;
                damage.mended = Some("written anew from its copy".to_owned());
            }
            report.damage.push(damage);
        }
        Ok(())
    }
}

/// Leaves out what is forgotten. A mark speaks for the snapshot with its id only.
pub fn hide_forgotten(rows: &mut Vec<SnapshotRow>, marks: &[Mark]) {
    let forgotten: HashSet<_> =
        marks.iter().filter(|mark| mark.state == State::Forgotten).map(|mark| mark.id).collect();
    rows.retain(|row| !forgotten.contains(&row.id));
}
