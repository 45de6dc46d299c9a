//! A server that prunes, to which something happens.

use backhaul_server::home::ServerHome;

use super::When;
use super::runs::beside;
use crate::local::{Failure, Local};
use crate::real::{Daemon, NAMES, Real};

/// What is condemned already when a prune begins; and what is forgotten for that.
const BEFORE: [(&str, u64); 4] = [(NAMES[0], 1), (NAMES[0], 2), (NAMES[1], 1), (NAMES[1], 2)];
const AT_LAST: (&str, u64) = (NAMES[1], 3);

/// Snapshots are forgotten, and what only some of them need is condemned already: there is something of each kind for a
/// prune to do. Returns which are no more.
pub(super) fn forget_first(real: &Real<'_>) -> Result<Vec<String>, Failure> {
    let key = ServerHome::at(&real.home("server")).vault_key().map_err(|error| error.to_string())?;
    let local = Local::open_with(&real.vault(), key).map_err(|error| error.to_string())?;
    let rows = local.vault.snapshots(None).map_err(|error| error.to_string())?;
    let forget = |(name, number): (&str, u64)| {
        let found = rows.iter().find(|row| row.client_name == name && row.sequence == number);
        found.map_or(Err(format!("{name} has no snapshot {number}")), |row| local.forget(row.client, number))
    };
    BEFORE.into_iter().try_for_each(forget)?;
    local.prune()?;
    forget(AT_LAST)?;
    Ok(BEFORE.into_iter().chain([AT_LAST]).map(|(name, number)| format!("{name} {number}")).collect())
}

/// A server that is killed while it prunes is started again, and the next prunes go on.
pub(super) fn pruned(real: &Real<'_>, when: When) -> Result<bool, Failure> {
    let when = when.hurried(5);
    let (done, killed) = beside(real, (Daemon::Server, when), "server", &["prune"])?;
    match done.code {
        Some(0) => {}
        Some(1) if killed && done.said.contains("stopped meanwhile") => {}
        _ if matches!(when, When::Fault(_)) && when.excuses(&done) => {}
        code => return Err(format!("the prune of a server that was killed: {code:?} {}", done.said)),
    }
    for _ in 0..3 {
        let again = real.run(&[], "server", &["prune"]);
        if again.code != Some(0) {
            return Err(format!("the next prune: {:?} {}", again.code, again.said));
        }
    }
    Ok(killed)
}

/// In a prune to which nothing happens, what is needed of packs is written anew: else nothing could happen to that.
pub(super) fn compacts(real: &Real<'_>) -> Result<(), Failure> {
    let _running = real.serve(&[])?;
    let done = real.run(&[], "server", &["--json", "prune"]);
    let document: serde_json::Value = serde_json::from_str(&done.said).unwrap_or_default();
    match document["packs_compacted"].as_u64() {
        Some(1..) => Ok(()),
        _ => Err(format!("a prune that compacts nothing: {:?} {}", done.code, done.said)),
    }
}
