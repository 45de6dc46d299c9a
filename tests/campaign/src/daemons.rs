//! `kill -9` of the real server, agent and commands, at system calls of theirs and at any time, while they work with each
//! other. A server that was killed is started again; who was its client goes on by itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use backhaul_server::home::ServerHome;
use backhaul_store::catalog::SnapshotRow;
use backhaul_tests::dice::Dice;
use clap::ValueEnum;

use crate::local::{Failure, Local};
use crate::real::{Done, NAMES, Real, Running};
use crate::stage::{CLIENTS, Stage};
use crate::{place, trace};

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Victim {
    /// The server, while a client backs up
    Server,
    /// The client, while it backs up
    Agent,
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
}

/// When somebody is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At this call of a thread that changes something.
    Call(u64),
    /// So long after the start.
    Time(Duration),
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
            let real = Real::prepare(stage, &own, 2)?;
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
    for when in whens {
        outcome.points += 1;
        match point(real, victim, when) {
            Ok((killed, restored)) => {
                outcome.killed += u64::from(killed);
                outcome.restored += restored;
            }
            Err(why) => outcome.broken.push(format!("{victim:?} killed at {when:?}: {why}")),
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

fn wrap(real: &Real<'_>, when: When) -> Vec<String> {
    match when {
        When::Call(nth) => {
            trace::inject(trace::CHANGES, "signal=KILL", nth, &real.home("server").with_file_name("trace"))
        }
        When::Time(_) => Vec::new(),
    }
}

/// True if somebody was killed, and how many snapshots were restored afterwards.
fn point(real: &Real<'_>, victim: Victim, when: When) -> Result<(bool, u64), Failure> {
    real.reset();
    let version = real.next(NAMES[0]);
    let mut acknowledged: BTreeSet<String> =
        NAMES.iter().flat_map(|name| (1..version).map(move |n| format!("{name} {n}"))).collect();
    let tree = real.stage.tree(CLIENTS[0], version).display().to_string();
    let backup = ["--json", "backup", &tree];
    let key = real.key().display().to_string();
    let vault = real.vault().display().to_string();
    let killed = match victim {
        Victim::Server => {
            let (done, killed) = beside(real, when, NAMES[0], &backup)?;
            match done.code {
                Some(0) => drop(acknowledged.insert(format!("{} {version}", NAMES[0]))),
                // Who is cut off at the commit does not know, and says what to do.
                Some(1) if done.said.contains("run the same command again") => {}
                code => return Err(format!("the client of a server that came back: {code:?} {}", done.said)),
            }
            killed
        }
        Victim::Agent => {
            let _running = real.serve(&[])?;
            let done = ended(real, when, NAMES[0], &backup)?;
            if done.code == Some(0) {
                acknowledged.insert(format!("{} {version}", NAMES[0]));
            }
            done.code != Some(0)
        }
        Victim::Rebuild => twice(real, when, &["check", "--rebuild-index"])?,
        Victim::Repair => {
            spoil(real)?;
            twice(real, when, &["check", "--repair", "--read-data"])?
        }
        Victim::Export => twice(real, when, &["server", "export"])?,
        Victim::Recover => {
            let aside = real.home("server").with_file_name("data");
            let _ = fs::remove_dir_all(&aside);
            fs::rename(&vault, &aside).map_err(|error| error.to_string())?;
            fs::remove_dir_all(real.home("server")).map_err(|error| error.to_string())?;
            let data = aside.display().to_string();
            recovered(real, when, &["server", "recover", &data, "--recovery-key-file", &key])?
        }
        Victim::Restore => return place::point(real, |args| ended(real, when, NAMES[0], args)),
        Victim::Prune => {
            forget_first(real)?;
            acknowledged.retain(|name| !name.ends_with(" 1"));
            pruned(real, when)?
        }
    };
    after(real, &acknowledged).map(|restored| (killed, restored))
}

/// A command in a role's home that is killed.
fn ended(real: &Real<'_>, when: When, role: &str, args: &[&str]) -> Result<Done, Failure> {
    let mut command = real.command(&wrap(real, when), role, args);
    let child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let mut waiting = Waiting::new(child);
    loop {
        if let Some(done) = waiting.done()? {
            return Ok(done);
        }
        if let When::Time(after) = when
            && waiting.since.elapsed() >= after
        {
            waiting.kill();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A process with its outputs, which are read while it runs.
struct Waiting {
    child: Child,
    since: Instant,
    outputs: Vec<std::thread::JoinHandle<Vec<u8>>>,
}

impl Waiting {
    fn new(mut child: Child) -> Self {
        fn listen(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = from.read_to_end(&mut bytes);
                bytes
            })
        }
        let outputs = child.stdout.take().map(listen).into_iter().chain(child.stderr.take().map(listen));
        let outputs = outputs.collect();
        Self { child, since: Instant::now(), outputs }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// What it came to, if it has ended.
    fn done(&mut self) -> Result<Option<Done>, Failure> {
        let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? else {
            if self.since.elapsed() < PATIENCE {
                return Ok(None);
            }
            self.kill();
            let _ = self.child.wait();
            return Err(format!("still at it after {PATIENCE:?}: {}", self.said()));
        };
        Ok(Some(Done { code: status.code(), said: self.said() }))
    }

    fn said(&mut self) -> String {
        let all: Vec<u8> =
            self.outputs.drain(..).flat_map(|output| output.join().unwrap_or_default()).collect();
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// The server that was killed; a command may be doing what it was asked for meanwhile, and have its home for that time.
fn again(real: &Real<'_>) -> Result<Running, Failure> {
    let begun = Instant::now();
    loop {
        match real.serve(&[]) {
            Err(said) if said.contains("in use") && begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done.map_err(|said| format!("the server does not start again: {said}")),
        }
    }
}

/// A command beside a server that is killed, and started again.
fn beside(real: &Real<'_>, when: When, role: &str, args: &[&str]) -> Result<(Done, bool), Failure> {
    let (mut running, mut killed) = match real.serve(&wrap(real, when)) {
        Ok(running) => (running, false),
        Err(_) => (again(real)?, true),
    };
    let mut command = real.command(&[], role, args);
    let child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let mut waiting = Waiting::new(child);
    loop {
        if let Some(done) = waiting.done()? {
            return Ok((done, killed));
        }
        if let When::Time(after) = when
            && !killed
            && waiting.since.elapsed() >= after
        {
            running.kill();
        }
        if running.has_ended() {
            killed = true;
            drop(running);
            running = again(real)?;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A command on the server that is killed, and then done again.
fn twice(real: &Real<'_>, when: When, args: &[&str]) -> Result<bool, Failure> {
    let done = ended(real, when, "server", args)?;
    if done.code == Some(0) {
        return Ok(false);
    }
    if done.code.is_some() {
        return Err(format!("{args:?} ended with {:?} by itself: {}", done.code, done.said));
    }
    let again = real.run(&[], "server", args);
    match again.code {
        Some(0) => Ok(true),
        code => Err(format!("{args:?} again: {code:?} {}", again.said)),
    }
}

/// The first snapshot of each client is forgotten, and what only the first of the first needs is condemned already: there
/// is something of each kind for a prune to do.
fn forget_first(real: &Real<'_>) -> Result<(), Failure> {
    let key = ServerHome::at(&real.home("server")).vault_key().map_err(|error| error.to_string())?;
    let local = Local::open_with(&real.vault(), key).map_err(|error| error.to_string())?;
    let rows = local.vault.snapshots(None).map_err(|error| error.to_string())?;
    let forget = |name: &str| {
        let first = rows.iter().find(|row| row.client_name == name && row.sequence == 1);
        first.map_or(Err(format!("{name} has no first snapshot")), |row| local.forget(row.client, 1))
    };
    forget(NAMES[0])?;
    local.prune()?;
    forget(NAMES[1])
}

/// A server that is killed while it prunes is started again, and the next prunes go on.
fn pruned(real: &Real<'_>, when: When) -> Result<bool, Failure> {
    // It takes less time than other things.
    let when = match when {
        When::Time(after) => When::Time(after / 5),
        call @ When::Call(_) => call,
    };
    let (done, killed) = beside(real, when, "server", &["prune"])?;
    match done.code {
        Some(0) => {}
        Some(1) if killed && done.said.contains("stopped meanwhile") => {}
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

/// A recovery that was killed is done again, or was done; the clients are known, and find their snapshots.
fn recovered(real: &Real<'_>, when: When, args: &[&str]) -> Result<bool, Failure> {
    fs::create_dir_all(real.home("server")).map_err(|error| error.to_string())?;
    let done = ended(real, when, "server", args)?;
    if done.code != Some(0) {
        let again = real.run(&[], "server", args);
        // It may have been done but for its last words.
        if again.code != Some(0) && !again.said.contains("already") {
            return Err(format!("recovering again: {:?} {}", again.code, again.said));
        }
    }
    let _running = real.serve(&[]).map_err(|said| format!("what was recovered does not start: {said}"))?;
    let listed = real.run(&[], NAMES[0], &["--json", "snapshots"]);
    let rows: serde_json::Value = serde_json::from_str(&listed.said).unwrap_or_default();
    match rows.as_array().map(Vec::len) {
        Some(2) => Ok(done.code != Some(0)),
        _ => Err(format!("after the recovery: {:?} {}", listed.code, listed.said)),
    }
}

/// Everything is started again: what was acknowledged is there, the next backup works, and a check finds nothing.
fn after(real: &Real<'_>, acknowledged: &BTreeSet<String>) -> Result<u64, Failure> {
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
