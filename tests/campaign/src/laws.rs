//! What must be true of a vault after anything: the laws, each asked of the real code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use backhaul_object::ids::ClientId;
use backhaul_store::check::Mending;
use backhaul_store::{StoreError, rebuild};

use crate::local::{Failure, Local};
use crate::mend::mend;
use crate::stage::{CLIENTS, Stage, WRITER};
use crate::story::{Told, first_again};

/// A snapshot, by whose it is and its number.
pub type Which = (ClientId, u64);

/// What was acknowledged before something happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Must be there, and whole.
    pub snapshots: BTreeSet<Which>,
    /// May be there; if so, whole.
    pub doubtful: BTreeSet<Which>,
    /// Packs are damaged, and all of it can be made good.
    pub damaged: bool,
    /// More is damaged than can be mended: what is lost may be missing, until it is sent again.
    pub lost: bool,
    /// What is lost is known, and wanted.
    pub named: bool,
    /// There may be no vault: it was being made.
    pub making: bool,
    /// Catalog and index may be gone: a rebuild was under way.
    pub rebuilding: bool,
}

impl Acknowledged {
    /// Takes in what a story said.
    pub fn hear(&mut self, told: Told) {
        match told {
            Told::Committing(which) => drop(self.doubtful.insert(which)),
            Told::Committed(which) => {
                self.doubtful.remove(&which);
                self.snapshots.insert(which);
            }
            Told::Forgetting(which) => {
                self.snapshots.remove(&which);
                self.doubtful.insert(which);
            }
            Told::Damaged => self.damaged = true,
            Told::Mended => self.damaged = false,
            Told::Losing => self.lost = true,
            Told::Named => self.named = true,
            Told::Healed => self.lost = false,
            Told::Making => self.making = true,
            Told::Made => self.making = false,
            Told::Rebuilding => self.rebuilding = true,
            Told::Rebuilt => self.rebuilding = false,
            Told::Compacted => {}
        }
    }
}

/// How far the laws are looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What is there is whole.
    Whole,
    /// And a further backup works and is whole, too.
    Next,
}

/// What was seen of a vault that keeps the laws.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Snapshots restored and found equal.
    pub restored: u64,
    /// True if catalog and index had to be made anew.
    pub rebuilt: bool,
}

/// Opens a vault as it was left and asks every law of it. `scratch` is for what is restored.
///
/// # Errors
/// The law that is broken.
pub fn verify(
    dir: &Path,
    stage: &Stage,
    acknowledged: &Acknowledged,
    depth: Depth,
    scratch: &Path,
) -> Result<Seen, Failure> {
    let (mut seen, mut acknowledged) = (Seen::default(), acknowledged.clone());
    if acknowledged.lost {
        acknowledged.snapshots.insert(go_on(dir, stage, acknowledged.named, scratch)?);
        seen.restored += 1;
        mend(dir).map(drop).map_err(|error| format!("the repair: {error}"))?;
    }
    let local = match Local::open(dir) {
        Ok(local) => local,
        Err(StoreError::Damaged { why, .. })
            if acknowledged.rebuilding && why.contains("--rebuild-index") =>
        {
            seen.rebuilt = true;
            let report = rebuild::rebuild(dir, [3; 16], Mending::Look, 5_000)
                .map_err(|error| format!("rebuild: {error}"))?;
            // What is not whole at the end of a pack in the making is put aside, and said to be.
            let found = report.damage.iter().find(|damage| damage.mended.is_none());
            if let (Some(found), false) = (found, acknowledged.damaged) {
                return Err(format!("the rebuild found damage: {}: {}", found.what, found.why));
            }
            Local::open(dir).map_err(|error| format!("opening after a rebuild: {error}"))?
        }
        // Nothing was promised yet, and whoever makes it is told.
        Err(_) if acknowledged.making => return Ok(seen),
        Err(error) => return Err(format!("the vault does not open: {error}")),
    };
    if acknowledged.damaged {
        // Whatever a repair had come to, the next one finishes it.
        let report = local.check(Mending::Mend)?;
        if !report.is_sound() {
            return Err(format!("a repair leaves damage: {:?}", report.damage));
        }
    }
    snapshots(&local, stage, &acknowledged, scratch, &mut seen)?;
    if !acknowledged.lost {
        clean(&local)?;
    }
    if depth == Depth::Next {
        let is_writing = local.next(WRITER)? > 1;
        for client in CLIENTS.into_iter().chain(is_writing.then_some(WRITER)) {
            let row = local.back_up(stage, client).map_err(|why| format!("the next backup failed: {why}"))?;
            whole(&local, stage, &row, scratch).map_err(|why| format!("after the next backup: {why}"))?;
            seen.restored += 1;
        }
        if !acknowledged.lost {
            clean(&local).map_err(|why| format!("after the next backup: {why}"))?;
        }
    }
    Ok(seen)
}

/// What a server and a client do by themselves after a loss, without a check: the scrub names what it meets, and the next
/// backup of a client that still has the files is whole.
fn go_on(dir: &Path, stage: &Stage, named: bool, scratch: &Path) -> Result<Which, Failure> {
    let local = Local::open(dir).map_err(|error| format!("the vault does not open after a loss: {error}"))?;
    if !named {
        local.scrub().map_err(|why| format!("the scrub after a loss: {why}"))?;
    }
    let client = CLIENTS[0];
    let sequence = first_again(local.next(client)?);
    let row = local.back_up_as(stage, client, sequence);
    let row = row.map_err(|why| format!("the next backup after a loss failed: {why}"))?;
    whole(&local, stage, &row, scratch).map_err(|why| format!("the next backup after a loss: {why}"))?;
    Ok((row.client, row.sequence))
}

fn clean(local: &Local) -> Result<(), Failure> {
    let report = local.check(Mending::Look)?;
    match report.damage.first() {
        Some(found) => Err(format!("check reports damage: {}: {}", found.what, found.why)),
        None => Ok(()),
    }
}

fn snapshots(
    local: &Local,
    stage: &Stage,
    acknowledged: &Acknowledged,
    scratch: &Path,
    seen: &mut Seen,
) -> Result<(), Failure> {
    let rows = local.vault.snapshots(None).map_err(|error| format!("the list of snapshots: {error}"))?;
    let listed: BTreeMap<Which, _> = rows.iter().map(|row| ((row.client, row.sequence), row)).collect();
    if let Some((client, sequence)) = acknowledged.snapshots.iter().find(|which| !listed.contains_key(which))
    {
        return Err(format!("snapshot {sequence} of {client} was acknowledged and is not listed"));
    }
    for (which, row) in &listed {
        if !acknowledged.snapshots.contains(which) && !acknowledged.doubtful.contains(which) {
            return Err(format!("snapshot {} of {} is listed and was never made", row.sequence, row.client));
        }
        match restored(local, stage, row, scratch)? {
            Restored::Equal => seen.restored += 1,
            Restored::Refused(_) if acknowledged.lost => {}
            Restored::Refused(why) => return Err(why),
        }
    }
    Ok(())
}

/// What came of a restore that gave nothing wrong.
enum Restored {
    Equal,
    Refused(Failure),
}

fn whole(
    local: &Local,
    stage: &Stage,
    row: &backhaul_store::catalog::SnapshotRow,
    scratch: &Path,
) -> Result<(), Failure> {
    match restored(local, stage, row, scratch)? {
        Restored::Equal => Ok(()),
        Restored::Refused(why) => Err(why),
    }
}

fn restored(
    local: &Local,
    stage: &Stage,
    row: &backhaul_store::catalog::SnapshotRow,
    scratch: &Path,
) -> Result<Restored, Failure> {
    let name = format!("snapshot {} of {}", row.sequence, row.client);
    let (tree, target) = (stage.tree(row.client, row.sequence), scratch.join("restored"));
    let _ = fs::remove_dir_all(&target);
    if let Err(why) = local.restore(&stage.name(row.client, row.sequence), row, &target) {
        return Ok(Restored::Refused(format!("{name} does not restore: {why}")));
    }
    match stage.difference(&tree, &target) {
        Some(difference) => Err(format!("{name} restores to something else: {difference}")),
        None => Ok(Restored::Equal),
    }
}
