//! The brake's two hands: a run that trips it, and the operator who releases it.

use std::collections::BTreeMap;

use backhaul_object::ids::ClientId;
use backhaul_object::seal::Unpacker;
use backhaul_object::snapshot::{Origin, Snapshot};
use backhaul_schedule::brake::{Added, HISTORY, Profile, judge};
use backhaul_store::catalog::SnapshotRow;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::alerts::AlertKind;
use crate::chores::{Outcome, Tools};
use crate::error::ServerError;
use crate::fleet::{Brake, Client, Fleet};
use crate::keep::forget;
use crate::session::OpenVault;

/// Whose brake is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The client.
    pub client: String,
}

/// Writes down what a run of files has changed, and trips the client's brake if that is unusual. Runs before it that nobody
/// has judged come first.
pub(crate) fn note(
    fleet: &mut Fleet,
    vault: &OpenVault,
    client: &Client,
    profile: &Profile,
    now: u64,
) -> Result<(), ServerError> {
    let judged = fleet.profiles(client.id)?.last().map_or(0, |last| last.sequence);
    // Streams have numbers, too.
    if judged + 1 < profile.sequence {
        let mut missed = vault.vault.snapshots(Some(client.id))?;
        missed.retain(|row| judged < row.sequence && row.sequence < profile.sequence);
        judge_missed(fleet, vault, (client, &missed), &mut Unpacker::new()?, now)?;
    }
    judge_run(fleet, client, profile, now)
}

/// Judges all runs that nobody has, before anything is decided by their brakes.
pub(crate) fn catch_up(fleet: &mut Fleet, vault: &OpenVault, now: u64) -> Result<(), ServerError> {
    // One that the fleet does not know has no brake, and nothing of it is forgotten.
    let judged = fleet.judged()?;
    let mut missed: BTreeMap<ClientId, Vec<SnapshotRow>> = BTreeMap::new();
    for row in vault.vault.snapshots(None)? {
        if judged.get(&row.client).is_some_and(|judged| row.sequence > *judged) {
            missed.entry(row.client).or_default().push(row);
        }
    }
    let mut unpacker = Unpacker::new()?;
    for (id, rows) in missed {
        let Some(client) = fleet.client_by_id(id)? else { continue };
        judge_missed(fleet, vault, (&client, &rows), &mut unpacker, now)?;
    }
    Ok(())
}

/// Judges runs of a client whose snapshot is there and whose profile is not: the server was killed between the two, or lost since
/// it was exported, or the database refused. Of files that are gone and contents that are others the vault knows enough; names
/// only the client has counted.
fn judge_missed(
    fleet: &mut Fleet,
    vault: &OpenVault,
    (client, rows): (&Client, &[SnapshotRow]),
    unpacker: &mut Unpacker,
    now: u64,
) -> Result<(), ServerError> {
    for row in &rows[rows.len().saturating_sub(HISTORY)..] {
        let manifest = forget::read(vault, row, unpacker);
        if let Some(manifest) = manifest.filter(|manifest| manifest.origin() == Origin::Files) {
            judge_run(fleet, client, &profile(row, &manifest), now)?;
        }
    }
    Ok(())
}

/// What the vault knows of a run. How large its new contents were is not told, only what they take, which is least what they were.
/// So that nobody knows whether they compress: they pass neither for what does, nor for what does not.
fn profile(row: &SnapshotRow, manifest: &Snapshot) -> Profile {
    Profile {
        sequence: row.sequence,
        files: manifest.totals.files,
        bytes: manifest.totals.bytes,
        added: Added { bytes: row.bytes_stored, packed: row.bytes_stored - row.bytes_stored / 10 },
        ..Profile::default()
    }
}

/// Judges a run by those before it, with all its sessions.
fn judge_run(fleet: &mut Fleet, client: &Client, profile: &Profile, now: u64) -> Result<(), ServerError> {
    let mut history = fleet.profiles(client.id)?;
    // Whoever forgets or prunes may have been faster.
    history.retain(|before| before.sequence < profile.sequence);
    let profile = Profile { added: profile.added + fleet.unfinished(client.id)?, ..*profile };
    let jump = judge(&history, &profile);
    let brake = jump.map(|jump| Brake { sequence: profile.sequence, since: now, why: jump.to_string() });
    fleet.note_run(client, &profile, brake.as_ref())
}

pub(crate) fn release(request: &Release, tools: &mut Tools<'_>) -> Result<Outcome, ServerError> {
    let client = tools.fleet.require(&request.client)?;
    let brake = tools.fleet.brake(client.id)?;
    tools.fleet.release_brake(client.id)?;
    tools.fleet.clear(AlertKind::Brake, Some(client.id), None, tools.now)?;
    let words = match &brake {
        Some(brake) => format!("the brake of {} is released: {}", client.name, brake.why),
        None => format!("the brake of {} does not hold", client.name),
    };
    let document = json!({ "client": client.name, "released": brake.is_some(), "why": brake.map(|b| b.why) });
    Ok(Outcome { words, document })
}
