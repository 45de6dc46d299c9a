//! What is kept, and for how long.
//!
//! - [`forget`]: retention, or snapshots that go by name: hidden at once, gone when their grace is over;
//! - [`marking`]: pins, and forgotten snapshots that are had back;
//! - [`braking`]: what holds all that for a client whose run changed too much.
//!
//! Nothing is removed here. [`releasable`] says what may be.

use std::collections::HashSet;

use backhaul_object::ids::ClientId;
use backhaul_store::mark::may_reclaim;

use crate::chores::Tools;
use crate::error::ServerError;

pub mod braking;
pub mod forget;
pub mod marking;

/// Forgotten snapshots whose manifests may be removed now, by client and sequence: their grace is over by the clock and by
/// the nights counted, this one included, and no brake holds their client.
///
/// # Errors
/// The vault or the database.
pub fn releasable(tools: &Tools<'_>) -> Result<Vec<(ClientId, u64)>, ServerError> {
    let nights = tools.vault.vault.count_night(tools.now)?;
    let held: HashSet<ClientId> = tools.fleet.brakes()?.into_iter().map(|(client, _)| client).collect();
    let marks = tools.vault.vault.marks()?;
    let may =
        marks.iter().filter(|mark| may_reclaim(mark, tools.now, nights) && !held.contains(&mark.client));
    Ok(may.map(|mark| (mark.client, mark.sequence)).collect())
}
