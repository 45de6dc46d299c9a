//! `kill -9` of the real server, agent and commands, at system calls of theirs, while they work with each other.

use std::collections::BTreeSet;
use std::path::PathBuf;

use backhaul_store::catalog::SnapshotRow;
use clap::ValueEnum;

use crate::dice::Dice;
use crate::real::{NAMES, Real};
use crate::stage::CLIENTS;
use crate::trace;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Victim {
    /// The server, while a client backs up
    Server,
    /// The client, while it backs up
    Agent,
    /// A command on the server that makes catalog and index anew
    Command,
}

/// What came of many kills.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Cases.
    pub points: u64,
    /// Those in which the victim was killed before its end.
    pub killed: u64,
    /// Snapshots restored and found equal.
    pub restored: u64,
    /// Laws broken, with what leads there again.
    pub broken: Vec<String>,
}

/// Kills at random calls below `calls`.
pub fn sweep(
    real: &Real<'_>,
    victim: Victim,
    (seed, points, calls): (u64, u64, u64),
    most: usize,
) -> Outcome {
    let mut outcome = Outcome::default();
    for n in 0..points {
        let nth = 1 + Dice::of(seed, n).below(calls);
        outcome.points += 1;
        match point(real, victim, nth, &mut outcome) {
            Ok(restored) => outcome.restored += restored,
            Err(why) => {
                outcome.broken.push(format!("{victim:?} killed at call {nth} (seed {seed}, case {n}): {why}"))
            }
        }
        if outcome.broken.len() >= most {
            break;
        }
    }
    outcome
}

fn point(real: &Real<'_>, victim: Victim, nth: u64, outcome: &mut Outcome) -> Result<u64, String> {
    real.reset();
    let log = real.home("server").with_file_name("trace");
    let wrap = trace::inject(trace::CHANGES, "signal=KILL", nth, &log);
    let (ana, before) = (NAMES[0], real.next(NAMES[0]));
    let tree = real.stage.tree(CLIENTS[0], before).display().to_string();
    let backup = ["--json", "backup", &tree];
    let mut acknowledged: BTreeSet<String> =
        NAMES.iter().flat_map(|name| (1..before).map(move |n| format!("{name} {n}"))).collect();
    let done = match victim {
        Victim::Server => match real.serve(&wrap) {
            Ok(_running) => real.run(&[], ana, &backup),
            Err(_) => {
                outcome.killed += 1;
                return after(real, &acknowledged);
            }
        },
        Victim::Agent => {
            let _running = real.serve(&[])?;
            real.run(&wrap, ana, &backup)
        }
        Victim::Command => real.run(&wrap, "server", &["check", "--rebuild-index"]),
    };
    outcome.killed += u64::from(done.code != Some(0));
    if victim == Victim::Command {
        if done.code != Some(0) {
            let again = real.run(&[], "server", &["check", "--rebuild-index", "--read-data"]);
            if again.code != Some(0) {
                return Err(format!("the command again: {:?} {}", again.code, again.said));
            }
        }
    } else if done.code == Some(0) {
        acknowledged.insert(format!("{ana} {before}"));
    }
    after(real, &acknowledged)
}

/// Everything is started again: what was acknowledged is there, the next backup works, and a check finds nothing.
fn after(real: &Real<'_>, acknowledged: &BTreeSet<String>) -> Result<u64, String> {
    // The tree of the next backup: whatever number it gets.
    let last = real.stage.tree(CLIENTS[0], 11);
    {
        let _running = real.serve(&[]).map_err(|said| format!("the server does not start again: {said}"))?;
        let next = real.run(&[], NAMES[0], &["--json", "backup", &last.display().to_string()]);
        if next.code != Some(0) {
            return Err(format!("the next backup: {:?} {}", next.code, next.said));
        }
    }
    let newest = real.next(NAMES[0]) - 1;
    let trees = |row: &SnapshotRow| -> PathBuf {
        if row.client_name == NAMES[0] && row.sequence == newest { last.clone() } else { real.tree(row) }
    };
    let (equal, refused) = real.restore_all(&trees)?;
    if let Some(why) = refused.first() {
        return Err(why.clone());
    }
    if let Some(lost) = acknowledged.iter().find(|name| !equal.contains(*name)) {
        return Err(format!("snapshot {lost} was acknowledged and is not there"));
    }
    let check = real.run(&[], "server", &["--json", "check", "--read-data"]);
    match check.code {
        Some(0) => Ok(equal.len() as u64),
        code => Err(format!("check: {code:?} {}", check.said)),
    }
}
