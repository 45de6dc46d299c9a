//! A life of daily versions: how long it takes to give back the room of the older half, beside restic in the same run.
//!
//! `cargo run --release -p backhaul-benches --bin life -- DATASETS.SH` with `DATA` set, after `datasets.sh make S4`,
//! prints tab-separated rows: program, step, seconds, MiB of the repository afterwards, peak memory in MiB of the process that
//! did it. Ours takes two passes, so both are counted; the last row of each program is the sum of its steps.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backhaul_store::mark::{NIGHT, State};
use backhaul_store::reclaim::Request;
use backhaul_store::vault::Marking;
use backhaul_store::{Ordinal, Owned, Vault};
use backhaul_tests::{TestServer, trees};

/// Versions in all, and how many of the newest stay.
const VERSIONS: usize = 10;
const KEPT: usize = 5;
const NOW: u64 = 2_000_000_000;
/// How often the memory of a running process is looked at; the kernel keeps the peak itself.
const LOOK: Duration = Duration::from_millis(5);

fn mib(folder: &Path) -> f64 {
    let files = trees::files(folder).into_iter();
    files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum::<u64>() as f64 / 1_048_576.0
}

fn row(program: &str, step: &str, (seconds, peak): (f64, f64), folder: &Path) {
    println!("{program}\t{step}\t{seconds:.3}\t{:.1}\t{peak:.1}", mib(folder));
}

/// Seconds, and peak memory in MiB.
fn timed(command: &mut Command) -> (f64, f64) {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut peak: f64 = 0.0;
    let status = loop {
        peak = peak.max(peak_of(&child.id().to_string()).unwrap_or(0.0));
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => std::thread::sleep(LOOK),
        }
    };
    assert!(status.success(), "{command:?}");
    (start.elapsed().as_secs_f64(), peak)
}

/// Does a step of ours in this process, as the server does: what came of it; seconds, and peak memory in MiB while it was done.
fn here<T>(act: impl FnOnce() -> T) -> (T, (f64, f64)) {
    // From here on the kernel counts the peak anew (proc_pid_clear_refs(5)).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let start = Instant::now();
    let came = act();
    (came, (start.elapsed().as_secs_f64(), peak_of("self").unwrap()))
}

fn peak_of(process: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

fn main() {
    let script = std::env::args().nth(1).map(PathBuf::from).unwrap();
    let data = PathBuf::from(std::env::var("DATA").unwrap()).join("S4/live");
    let dir = tempfile::tempdir().unwrap();
    let restic = |args: &[&str]| {
        let mut command = Command::new("restic");
        command.args(args).env("RESTIC_REPOSITORY", dir.path().join("repo")).env("RESTIC_PASSWORD", "x");
        command.env("RESTIC_CACHE_DIR", dir.path().join("cache"));
        command
    };
    timed(&mut restic(&["init", "-q"]));
    let mut server = TestServer::new();
    let client = {
        std::fs::create_dir_all(&data).unwrap();
        server.client("desk", &[&data])
    };
    println!("program\tstep\tseconds\tMiB\tpeak_MiB");
    for version in 1..=VERSIONS {
        timed(Command::new(&script).args(["day", "S4", &version.to_string()]));
        timed(&mut client.command(&["-q", "backup"]));
        timed(&mut restic(&["backup", "-q", data.to_str().unwrap()]));
    }
    server.stop();
    let vault = server.home.path().join("server/vaults/main");
    let (repo, packs) = (dir.path().join("repo"), vault.join("packs"));
    row("restic", "ten versions", (0.0, 0.0), &repo);
    row("backhaul", "ten versions", (0.0, 0.0), &packs);
    let taken = timed(&mut restic(&["forget", "-q", "--keep-last", &KEPT.to_string(), "--prune"]));
    row("restic", "forget and prune", taken, &repo);
    reclaim(&vault, &packs);
}

fn reclaim(root: &Path, packs: &Path) {
    let (vault, forgetting) = here(|| {
        let vault = Vault::open(root).unwrap();
        let rows = vault.snapshots(None).unwrap();
        for row in &rows[..rows.len() - KEPT] {
            let marking = Marking { state: State::Forgotten, now: NOW, grace: 0, reason: "" };
            vault.mark(row.client, row.sequence, marking).unwrap();
        }
        vault
    });
    row("backhaul", "forget", forgetting, packs);
    let mut all = vec![forgetting];
    for (pass, name) in [(1, "first pass"), (2, "second pass")] {
        let ((), taken) = here(|| {
            let now = NOW + pass * NIGHT;
            vault.count_night(now).unwrap();
            vault.reclaim(&Request { now, ..Request::default() }, &mut ()).unwrap();
        });
        row("backhaul", name, taken, packs);
        all.push(taken);
    }
    let sum = all
        .iter()
        .fold((0.0, 0.0), |(time, most): (f64, f64), (seconds, peak)| (time + seconds, most.max(*peak)));
    row("backhaul", "forget and prune", sum, packs);
    let (dead, all) = members(&vault);
    let mib = |bytes: f64| bytes / 1_048_576.0;
    println!("backhaul\tmembers that nobody needs, estimated\t-\t{:.1} of {:.1}", mib(dead), mib(all));
}

/// Bytes of bundles that are kept for the sake of others of their members, by the share of members that no snapshot
/// needs (how long each is only a client knows), and of all objects that snapshots need.
fn members(vault: &Vault) -> (f64, f64) {
    let mut needed = Owned::default();
    let mut highest = 0;
    for row in vault.snapshots(None).unwrap() {
        highest = highest.max(row.ordinal.0);
        needed.add_all(&vault.reach(row.ordinal).unwrap());
    }
    let (mut dead, mut all) = (0.0, 0.0);
    for ordinal in (0..=highest).map(Ordinal) {
        let part = needed.part(ordinal);
        if !needed.has(ordinal) && part.is_none() {
            continue;
        }
        let sealed = vault.get(ordinal).unwrap();
        all += sealed.body.len() as f64;
        let used: u32 = part.map_or(u32::MAX, |bits| bits.iter().map(|byte| byte.count_ones()).sum());
        let count = sealed.header.provides.len() as f64;
        if count > 0.0 && f64::from(used) < count {
            dead += sealed.body.len() as f64 * (1.0 - f64::from(used) / count);
        }
    }
    (dead, all)
}
