//! Faults of the disk outside of the vault: every place where the real server, agent and commands touch their homes fails once
//! (the fleet's database, keys, exports, an agent's state, what is restored). Somebody says so and ends, or it goes well.

use std::path::Path;

use rustix::io::Errno;

use crate::daemons::{BACKUPS, Victim, assured, struck};
use crate::fault::Outcome;
use crate::local::Failure;
use crate::real::Real;
use crate::record::{self, Fault, Touch};
use crate::stage::Stage;

/// Ways to fail.
const WAYS: [record::Failure; 14] = [
    record::Failure::Short,
    record::Failure::Sync,
    refused(Touch::Write, Errno::NOSPC),
    refused(Touch::Write, Errno::IO),
    refused(Touch::Write, Errno::INTR),
    refused(Touch::Open, Errno::MFILE),
    refused(Touch::Open, Errno::ACCESS),
    refused(Touch::Open, Errno::IO),
    refused(Touch::Name, Errno::NOSPC),
    refused(Touch::Name, Errno::IO),
    refused(Touch::Change, Errno::IO),
    refused(Touch::Read, Errno::IO),
    refused(Touch::Read, Errno::INTR),
    refused(Touch::Look, Errno::IO),
];
/// Places in a row at which nothing failed, for there were no more: a process does not always touch as many.
const IDLE_MAX: u64 = 3;

const fn refused(touch: Touch, error: Errno) -> record::Failure {
    record::Failure::Refused(touch, error.raw_os_error())
}

/// Fails every `step`th place in every way.
///
/// # Errors
/// The homes cannot be made.
pub fn sweep(
    stage: &Stage,
    work: &Path,
    victim: Victim,
    (seed, step): (u64, u64),
    most: usize,
) -> Result<Outcome, Failure> {
    let own = work.join(format!("around-{victim:?}"));
    let real = Real::prepare(stage, &own, BACKUPS)?;
    assured(&real, victim)?;
    let (mut outcome, step) = (Outcome::default(), step.max(1));
    for failure in WAYS {
        let (mut nth, mut idle) = (seed % step, 0);
        while idle < IDLE_MAX && outcome.broken.len() < most {
            idle = if one(&real, victim, Fault { nth, failure }, &mut outcome) { 0 } else { idle + 1 };
            nth += step;
        }
    }
    let _ = std::fs::remove_dir_all(own);
    Ok(outcome)
}

/// True if it came to the fault.
fn one(real: &Real<'_>, victim: Victim, fault: Fault, outcome: &mut Outcome) -> bool {
    let (refused, restored) = match struck(real, victim, fault) {
        Ok(None) => return false,
        Ok(Some(done)) => done,
        Err(why) => {
            outcome.broken.push(format!("{victim:?} with {fault:?}: {why}"));
            (true, 0)
        }
    };
    outcome.sites += 1;
    outcome.refused += u64::from(refused);
    outcome.restored += restored;
    true
}
