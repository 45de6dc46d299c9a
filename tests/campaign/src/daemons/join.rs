//! A machine that joins, to which something happens.

use std::fs;

use super::When;
use super::runs::ended;
use crate::local::Failure;
use crate::real::Real;
use crate::stage::CLIENTS;

/// Who joins.
pub(super) const NEWCOMER: &str = "cyd";

/// A machine that did not join with its code gets another one; afterwards it backs up.
pub(super) fn joined(real: &Real<'_>, when: When) -> Result<bool, Failure> {
    let _running = real.serve(&[])?;
    let code = || {
        let added = real.run(&[], "server", &["--json", "client", "add", NEWCOMER]);
        let document: serde_json::Value = serde_json::from_str(&added.said).unwrap_or_default();
        document["join_code"].as_str().map(str::to_owned).ok_or(added.said)
    };
    let tree = real.stage.tree(CLIENTS[0], 1).display().to_string();
    let first = code()?;
    let when = when.hurried(20);
    let done = ended(real, when, NEWCOMER, &["join", &first, &tree])?;
    if done.code != Some(0) {
        if !when.excuses(&done) {
            return Err(format!("joining: {:?} {}", done.code, done.said));
        }
        let again = real.run(&[], NEWCOMER, &["join", &first, &tree]);
        if again.code != Some(0) {
            // The code was used, or the home is one's already.
            real.run(&[], "server", &["client", "revoke", NEWCOMER]);
            let _ = fs::remove_dir_all(real.home(NEWCOMER));
            let second = code()?;
            let again = real.run(&[], NEWCOMER, &["join", &second, &tree]);
            if again.code != Some(0) {
                return Err(format!("joining with another code: {:?} {}", again.code, again.said));
            }
        }
    }
    let backup = real.run(&[], NEWCOMER, &["backup"]);
    match backup.code {
        Some(0) => Ok(done.code != Some(0)),
        code => Err(format!("the backup of who has joined: {code:?} {}", backup.said)),
    }
}
