//! `kill -9` of the real server, agent and commands, at system calls of theirs and at any time, while they work with each
//! other; or their disk fails. A server that was killed is started again; who was its client goes on by itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backhaul_store::catalog::SnapshotRow;
use backhaul_tests::dice::Dice;
use clap::ValueEnum;

use crate::local::Failure;
use crate::place::{self, Ran};
use crate::real::{Daemon, Done, NAMES, Real};
use crate::record::Fault;
use crate::stage::{CLIENTS, Stage};
use crate::trace;

mod join;
mod prune;
mod pull;
mod runs;

use join::{NEWCOMER, joined};
use prune::{compacts, forget_first, pruned};
use pull::{listens, pulled};
use runs::{beside, ended};

/// Snapshots of each client in fresh homes: enough of them that a prune has packs to write anew, of which some is needed.
pub const BACKUPS: u64 = 4;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Victim {
    /// The server, while a client backs up
    Server,
    /// The client, while it backs up
    Agent,
    /// A client's daemon, while the server that has dialled it backs it up
    Pulled,
    /// The server, while a client restores over files that have changed
    Serving,
    /// A command on the server that makes catalog and index anew
    Rebuild,
    /// A command on the server that mends a damaged pack
    Repair,
    /// A command on the server that exports it
    Export,
    /// A command that makes a server again from a vault
    Recover,
    /// A client that restores over files that have changed
    Restore,
    /// The server, while it prunes
    Prune,
    /// A machine that joins
    Join,
}

impl Victim {
    /// Whose home it is in.
    fn role(self) -> &'static str {
        match self {
            Self::Agent | Self::Pulled | Self::Restore => NAMES[0],
            Self::Join => NEWCOMER,
            _ => "server",
        }
    }
}

/// When something happens to somebody, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Killed at this call of a thread that changes something.
    Call(u64),
    /// Killed when a thread is about to send for this time.
    Send(u64),
    /// Killed so long after the start.
    Time(Duration),
    /// The disk fails.
    Fault(Fault),
}

impl When {
    /// For what takes only this part of the time of other things.
    fn hurried(self, part: u32) -> Self {
        match self {
            Self::Time(after) => Self::Time(after / part),
            other => other,
        }
    }

    /// True if this is how somebody may end to whom it happened: killed, or with words.
    fn excuses(self, done: &Done) -> bool {
        match (self, done.code) {
            (Self::Call(_) | Self::Send(_) | Self::Time(_), code) => code.is_none(),
            (Self::Fault(_), None | Some(PANICKED)) => false,
            (Self::Fault(_), Some(_)) => !done.said.trim().is_empty() && !done.said.contains("panicked at"),
        }
    }
}

/// What a program ends with that has a mistake.
const PANICKED: i32 = 101;

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

impl Outcome {
    /// Takes in another's.
    pub fn add(&mut self, other: Self) {
        self.points += other.points;
        self.killed += other.killed;
        self.restored += other.restored;
        self.broken.extend(other.broken);
    }
}

/// Kills at all of these, by so many workers, each with homes of its own.
///
/// # Errors
/// The homes cannot be made.
pub fn at_once(
    stage: &Stage,
    work: &Path,
    victim: Victim,
    whens: &[When],
    (workers, most): (usize, usize),
) -> Result<Outcome, Failure> {
    let workers = workers.max(1);
    std::thread::scope(|scope| {
        let one = |worker: usize| {
            let own = work.join(format!("worker-{worker}"));
            let real = Real::prepare(stage, &own, BACKUPS)?;
            let mine = whens.iter().skip(worker).step_by(workers).copied();
            let outcome = sweep(&real, victim, mine, most);
            let _ = fs::remove_dir_all(own);
            Ok::<_, Failure>(outcome)
        };
        let all: Vec<_> = (0..workers).map(|worker| scope.spawn(move || one(worker))).collect();
        let mut outcome = Outcome::default();
        for worker in all {
            outcome.add(worker.join().map_err(|_| "a worker panicked".to_owned())??);
        }
        Ok(outcome)
    })
}

/// Kills at each of these in turn.
pub fn sweep(real: &Real<'_>, victim: Victim, whens: impl IntoIterator<Item = When>, most: usize) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.broken.extend(assured(real, victim).err());
    for when in whens {
        outcome.points += 1;
        match point(real, victim, when) {
            Ok((killed, restored)) => {
                outcome.killed += u64::from(killed);
                outcome.restored += restored;
            }
            Err(why) => outcome.broken.push(format!("{victim:?} at {when:?}: {why}")),
        }
        if outcome.broken.len() >= most {
            break;
        }
    }
    outcome
}

/// Calls 1, 1 + `step`, … up to `calls`, then random times up to a second.
pub fn whens(seed: u64, calls: u64, step: u64, random: u64) -> Vec<When> {
    let at_calls = (1..=calls).step_by(step.max(1) as usize).map(When::Call);
    let at_times = (0..random).map(|n| When::Time(Duration::from_micros(Dice::of(seed, n).below(1_000_000))));
    at_calls.chain(at_times).collect()
}

/// What a victim must do when nothing happens to it, for something to happen to that.
pub(crate) fn assured(real: &Real<'_>, victim: Victim) -> Result<(), Failure> {
    prepared(real, victim)?;
    match victim {
        Victim::Prune => compacts(real),
        _ => Ok(()),
    }
}

fn wrap(real: &Real<'_>, when: When) -> Vec<String> {
    match when {
        When::Call(nth) => trace::inject(trace::CHANGES, "signal=KILL", nth, &real.log()),
        When::Send(nth) => trace::inject(trace::SENDS, "signal=KILL", nth, &real.log()),
        When::Fault(fault) => {
            real.arm(Some(fault));
            Vec::new()
        }
        When::Time(_) => Vec::new(),
    }
}

/// True if somebody was killed, or ended by itself with words, and how many snapshots were restored afterwards.
fn point(real: &Real<'_>, victim: Victim, when: When) -> Result<(bool, u64), Failure> {
    let mut acknowledged = prepared(real, victim)?;
    let (ended_early, restored) = acted(real, victim, when, &mut acknowledged)?;
    after(real, &acknowledged).map(|found| (ended_early, restored + found))
}

/// The same on a disk that fails; none if it did not. What comes before and after is not on it: a process that maps files of a
/// disk that it serves itself waits for itself.
pub(crate) fn struck(real: &Real<'_>, victim: Victim, fault: Fault) -> Result<Option<(bool, u64)>, Failure> {
    let mut acknowledged = prepared(real, victim)?;
    real.lay(victim.role())?;
    let done = acted(real, victim, When::Fault(fault), &mut acknowledged);
    let (struck, (ended_early, restored)) = (real.lift(), done?);
    if !struck {
        return Ok(None);
    }
    after(real, &acknowledged).map(|found| Some((ended_early, restored + found)))
}

/// Fresh homes, in which there is something to do for the victim; the snapshots that are in their vault.
fn prepared(real: &Real<'_>, victim: Victim) -> Result<BTreeSet<String>, Failure> {
    real.reset();
    let mut acknowledged: BTreeSet<String> =
        NAMES.iter().flat_map(|name| (1..=real.backups).map(move |n| format!("{name} {n}"))).collect();
    match victim {
        Victim::Pulled => listens(real)?,
        Victim::Repair => spoil(real)?,
        Victim::Prune => {
            let gone = forget_first(real)?;
            acknowledged.retain(|name| !gone.contains(name));
        }
        _ => {}
    }
    Ok(acknowledged)
}

/// True if somebody was killed, or ended by itself with words; and how many snapshots were restored already.
fn acted(
    real: &Real<'_>,
    victim: Victim,
    when: When,
    acknowledged: &mut BTreeSet<String>,
) -> Result<(bool, u64), Failure> {
    let version = real.backups + 1;
    let tree = real.stage.tree(CLIENTS[0], version).display().to_string();
    let backup = ["--json", "backup", &tree];
    let ended_early = match victim {
        Victim::Server => {
            let (done, ended_early) = beside(real, (Daemon::Server, when), NAMES[0], &backup)?;
            match done.code {
                Some(0) => drop(acknowledged.insert(format!("{} {version}", NAMES[0]))),
                // Who is cut off at the commit does not know, and says what to do.
                Some(1) if done.said.contains("run the same command again") => {}
                _ if matches!(when, When::Fault(_)) && when.excuses(&done) => {}
                code => return Err(format!("the client of a server that came back: {code:?} {}", done.said)),
            }
            ended_early || done.code != Some(0)
        }
        Victim::Agent => {
            let _running = real.serve(&[])?;
            let done = ended(real, when, NAMES[0], &backup)?;
            if done.code == Some(0) {
                acknowledged.insert(format!("{} {version}", NAMES[0]));
            } else if !when.excuses(&done) {
                return Err(format!("the client: {:?} {}", done.code, done.said));
            }
            done.code != Some(0)
        }
        Victim::Pulled => {
            acknowledged.insert(format!("{} {version}", NAMES[0]));
            pulled(real, when)?
        }
        Victim::Rebuild => twice(real, when, &["check", "--rebuild-index"])?,
        Victim::Repair => twice(real, when, &["check", "--repair", "--read-data"])?,
        Victim::Export => {
            let ended_early = twice(real, when, &["server", "export"])?;
            // What was exported is a server.
            recovered(real, None)?;
            ended_early
        }
        Victim::Recover => recovered(real, Some(when))?,
        Victim::Restore => {
            let run = |args: &[&str]| {
                let _running = real.serve(&[])?;
                let done = ended(real, when, NAMES[0], args)?;
                Ok(Ran { ended_early: done.code != Some(0), excused: when.excuses(&done), done })
            };
            return place::point(real, run);
        }
        Victim::Serving => return place::point(real, |args| served(real, when, args)),
        Victim::Prune => pruned(real, when)?,
        Victim::Join => {
            acknowledged.insert(format!("{NEWCOMER} 1"));
            joined(real, when)?
        }
    };
    Ok((ended_early, 0))
}

/// A restore from a server that is killed, or whose disk fails: who is cut off says so.
fn served(real: &Real<'_>, when: When, args: &[&str]) -> Result<Ran, Failure> {
    let when = match when.hurried(20) {
        // What it writes meanwhile is nothing to a restore.
        When::Call(nth) => When::Send(nth),
        other => other,
    };
    let (done, killed) = beside(real, (Daemon::Server, when), NAMES[0], args)?;
    let excused = match when {
        When::Fault(_) => when.excuses(&done),
        _ => killed && done.code.is_some() && !done.said.trim().is_empty(),
    };
    Ok(Ran { ended_early: killed || done.code != Some(0), excused, done })
}

/// A command on the server that is killed, and then done again.
fn twice(real: &Real<'_>, when: When, args: &[&str]) -> Result<bool, Failure> {
    let done = ended(real, when, "server", args)?;
    if done.code == Some(0) {
        return Ok(false);
    }
    if !when.excuses(&done) {
        return Err(format!("{args:?} ended with {:?} by itself: {}", done.code, done.said));
    }
    let again = real.run(&[], "server", args);
    match again.code {
        Some(0) => Ok(true),
        code => Err(format!("{args:?} again: {code:?} {}", again.said)),
    }
}

/// A bit of every pack.
fn spoil(real: &Real<'_>) -> Result<(), Failure> {
    for pack in backhaul_tests::trees::files(&real.vault().join("packs")) {
        let mut bytes = fs::read(&pack).map_err(|error| error.to_string())?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&pack, bytes).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A server is made again from its vault. A recovery that was killed is done again, or was done; the clients are known, and
/// find their snapshots.
fn recovered(real: &Real<'_>, when: Option<When>) -> Result<bool, Failure> {
    let (home, key) = (real.home("server"), real.key().display().to_string());
    let aside = home.with_file_name("data");
    let _ = fs::remove_dir_all(&aside);
    fs::rename(real.vault(), &aside).map_err(|error| error.to_string())?;
    fs::remove_dir_all(&home).map_err(|error| error.to_string())?;
    fs::create_dir_all(&home).map_err(|error| error.to_string())?;
    let data = aside.display().to_string();
    let args = ["server", "recover", &data, "--recovery-key-file", &key];
    let done = match when {
        Some(when) => ended(real, when, "server", &args)?,
        None => real.run(&[], "server", &args),
    };
    if done.code != Some(0) {
        if !when.is_some_and(|when| when.excuses(&done)) {
            return Err(format!("recovering: {:?} {}", done.code, done.said));
        }
        let again = real.run(&[], "server", &args);
        // It may have been done but for its last words.
        if again.code != Some(0) && !again.said.contains("already") {
            return Err(format!("recovering again: {:?} {}", again.code, again.said));
        }
    }
    let _running = real.serve(&[]).map_err(|said| format!("what was recovered does not start: {said}"))?;
    let listed = real.run(&[], NAMES[0], &["--json", "snapshots"]);
    let rows: serde_json::Value = serde_json::from_str(&listed.said).unwrap_or_default();
    match rows.as_array().map(Vec::len) {
        Some(count) if count as u64 == real.backups => Ok(done.code != Some(0)),
        _ => Err(format!("after the recovery: {:?} {}", listed.code, listed.said)),
    }
}

/// Everything is started again: what was acknowledged is there, the next backup works, and a check finds nothing.
fn after(real: &Real<'_>, acknowledged: &BTreeSet<String>) -> Result<u64, Failure> {
    // The tree of the next backup, whatever number it gets. What was saved meanwhile is all of one tree, too: who was cut off
    // may have saved it twice.
    let [meanwhile, last] = [real.backups + 1, 11].map(|version| real.stage.tree(CLIENTS[0], version));
    {
        let _running = real.serve(&[]).map_err(|said| format!("the server does not start again: {said}"))?;
        let next = real.run(&[], NAMES[0], &["--json", "backup", &last.display().to_string()]);
        if next.code != Some(0) {
            return Err(format!("the next backup: {:?} {}", next.code, next.said));
        }
    }
    let newest = real.next(NAMES[0]) - 1;
    let trees = |row: &SnapshotRow| -> PathBuf {
        match row.client_name == NAMES[0] {
            true if row.sequence == newest => last.clone(),
            true if row.sequence > real.backups => meanwhile.clone(),
            _ => real.tree(row),
        }
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
