//! A client's daemon that the server dials, to which something happens in the middle of a run.

use std::fs;

use super::When;
use super::runs::{again, beside};
use crate::local::Failure;
use crate::real::{Daemon, NAMES, Real};
use crate::stage::CLIENTS;

/// The first client waits to be dialled from now on, and what it saves then is its next tree.
pub(super) fn listens(real: &Real<'_>) -> Result<(), Failure> {
    let edit = ["client", "edit", NAMES[0], "--initiator", "server", "--address", &real.address];
    let edited = real.run(&[], "server", &edit);
    if edited.code != Some(0) {
        return Err(format!("{edit:?}: {:?} {}", edited.code, edited.said));
    }
    let config = real.home(NAMES[0]).join("agent/config.toml");
    let words = fs::read_to_string(&config).map_err(|error| error.to_string())?;
    // As it stands in quotes: the name of one is the beginning of another's.
    let [first, next] =
        [0, real.backups + 1].map(|version| format!("{:?}", real.stage.tree(CLIENTS[0], version)));
    let changed = words.replace(&first, &next);
    match changed == words {
        true => Err(format!("{} does not say {first}", config.display())),
        false => fs::write(config, changed).map_err(|error| error.to_string()),
    }
}

/// A daemon that was killed is started again; the run that was cut off has an end, and the next one is whole.
pub(super) fn pulled(real: &Real<'_>, when: When) -> Result<bool, Failure> {
    let _server = real.serve(&[])?;
    let run = ["--json", "client", "run", NAMES[0], "--wait"];
    let when = match when.hurried(5) {
        // By turns: what it keeps, and what the server hears of it.
        When::Call(nth) if nth % 2 == 0 => When::Send(nth / 2),
        When::Call(nth) => When::Call(nth / 2 + 1),
        other => other,
    };
    let (done, ended_early) = beside(real, (Daemon::Agent, when), "server", &run)?;
    let excused = ended_early || matches!(when, When::Fault(_)) && when.excuses(&done);
    if done.code != Some(0) {
        if !excused {
            return Err(format!("the run: {:?} {}", done.code, done.said));
        }
        let _agent = again(real, Daemon::Agent)?;
        let next = real.run(&[], "server", &run);
        if next.code != Some(0) {
            return Err(format!("the next run: {:?} {}", next.code, next.said));
        }
    }
    Ok(ended_early || done.code != Some(0))
}
