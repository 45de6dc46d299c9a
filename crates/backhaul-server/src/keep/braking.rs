//! The brake's two hands: a run that trips it, and the operator who releases it.

use backhaul_schedule::brake::{Profile, judge};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::alerts::{Alert, AlertKind};
use crate::chores::{Outcome, Tools};
use crate::error::ServerError;
use crate::fleet::{Brake, Client, Fleet};

/// Whose brake is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The client.
    pub client: String,
}

/// Writes down what a run changed in all its sessions; if that is unusual, trips the client's brake and returns the alert to be raised.
pub(crate) fn note(
    fleet: &Fleet,
    client: &Client,
    profile: &Profile,
    now: u64,
) -> Result<Option<Alert>, ServerError> {
    let history = fleet.profiles(client.id)?;
    let profile = &Profile { added: profile.added + fleet.unfinished(client.id)?, ..*profile };
    fleet.add_profile(client.id, profile)?;
    fleet.forget_unfinished(client.id)?;
    let Some(jump) = judge(&history, profile) else { return Ok(None) };
    let brake = Brake { sequence: profile.sequence, since: now, why: jump.to_string() };
    if !fleet.trip_brake(client.id, &brake)? {
        return Ok(None);
    }
    let text =
        format!("{}: nothing of {} is forgotten or reclaimed until you have looked", brake.why, client.name);
    let alert =
        Alert { kind: AlertKind::Brake, client: Some(client.id), group: None, text, obstacle: String::new() };
    Ok(Some(alert))
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
