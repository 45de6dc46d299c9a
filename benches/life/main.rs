//! A life of daily versions: how long it takes to give back the room of the older half, beside restic in the same run.
//!
//! `cargo run --release -p backhaul-benches --bin life -- DATASETS.SH` with `DATA` set, after `datasets.sh make S4`,
//! prints tab-separated rows: program, step, seconds, MiB of the repository afterwards. Ours takes two passes, so both
//! are counted; the last row of each program is the sum of its steps.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use backhaul_store::mark::{NIGHT, State};
use backhaul_store::reclaim::Request;
use backhaul_store::vault::Marking;
use backhaul_store::{Ordinal, Owned, Vault};
use backhaul_tests::{TestServer, trees};

/// Versions in all, and how many of the newest stay.
const VERSIONS: usize = 10;
const KEPT: usize = 5;
const NOW: u64 = 2_000_000_000;

fn mib(folder: &Path) -> f64 {
    let files = trees::files(folder).into_iter();
    files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum::<u64>() as f64 / 1_048_576.0
}

fn row(program: &str, step: &str, seconds: f64, folder: &Path) {
    println!("{program}\t{step}\t{seconds:.3}\t{:.1}", mib(folder));
}

fn timed(command: &mut Command) -> f64 {
    let start = Instant::now();
    assert!(command.stdout(Stdio::null()).status().unwrap().success(), "{command:?}");
    start.elapsed().as_secs_f64()
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
    println!("program\tstep\tseconds\tMiB");
    for version in 1..=VERSIONS {
        timed(Command::new(&script).args(["day", "S4", &version.to_string()]));
        timed(&mut client.command(&["-q", "backup"]));
        timed(&mut restic(&["backup", "-q", data.to_str().unwrap()]));
    }
    server.stop();
    let vault = server.home.path().join("server/vaults/main");
    let (repo, packs) = (dir.path().join("repo"), vault.join("packs"));
    row("restic", "ten versions", 0.0, &repo);
    row("backhaul", "ten versions", 0.0, &packs);
    let seconds = timed(&mut restic(&["forget", "-q", "--keep-last", &KEPT.to_string(), "--prune"]));
    row("restic", "forget and prune", seconds, &repo);
    reclaim(&vault, &packs);
}

fn reclaim(root: &Path, packs: &Path) {
    let start = Instant::now();
    let vault = Vault::open(root).unwrap();
    let rows = vault.snapshots(None).unwrap();
    for row in &rows[..rows.len() - KEPT] {
        let marking = Marking { state: State::Forgotten, now: NOW, grace: 0, reason: "" };
        vault.mark(row.client, row.sequence, marking).unwrap();
    }
    row("backhaul", "forget", start.elapsed().as_secs_f64(), packs);
    for (pass, name) in [(1, "first pass"), (2, "second pass")] {
        let start = Instant::now();
        let now = NOW + pass * NIGHT;
        vault.count_night(now).unwrap();
        vault.reclaim(&Request { now, ..Request::default() }, &mut ()).unwrap();
        row("backhaul", name, start.elapsed().as_secs_f64(), packs);
    }
    row("backhaul", "forget and prune", start.elapsed().as_secs_f64(), packs);
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
