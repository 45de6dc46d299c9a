//! The policies in force: read from the fleet database, where the command line puts them.

use backhaul_schedule::due::{Standing, standing};
use backhaul_schedule::policy::{DEFAULT_POLICY, Policies, Policy, PolicyError, parse};
use jiff::tz::TimeZone;

use crate::error::ServerError;
use crate::fleet::{Client, Fleet};

/// Reads a policy file; time zones are those of this machine.
///
/// # Errors
/// The first mistake, named.
pub fn read(text: &str) -> Result<Policies, PolicyError> {
    parse(text, &|name| match name {
        None => Some(TimeZone::system()),
        Some(name) => TimeZone::get(name).ok(),
    })
}

/// The policies in force. A text that was applied is a text that could be read.
///
/// # Errors
/// The database, or a text that another version wrote.
pub fn in_force(fleet: &Fleet) -> Result<Policies, ServerError> {
    Ok(read(&fleet.policy_text()?)?)
}

/// A client's policy; the default one if its own is gone.
pub fn of<'p>(policies: &'p Policies, client: &Client) -> Option<&'p Policy> {
    policies.policies.get(&client.policy).or_else(|| policies.policies.get(DEFAULT_POLICY))
}

/// How a client stands by its policy; `newest` and `now` are seconds since 1970.
pub fn judge(policies: &Policies, client: &Client, newest: Option<u64>, now: u64) -> Option<Standing> {
    let policy = of(policies, client)?;
    let mut head = [0; 8];
    head.copy_from_slice(&client.id.0[..8]);
    Some(standing(policy, u64::from_le_bytes(head), newest.map(|at| at as i64), now as i64))
}
