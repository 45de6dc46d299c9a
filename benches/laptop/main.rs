//! How soon a laptop's bytes flow: from a nudge to the first of its upload, and from a change of network in mid-upload to
//! the first on the new path. Real processes; the networks are namespaces, which only root can make.
//!
//! `cargo run --release -p backhaul-benches --bin laptop`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers"
)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use backhaul_tests::netns::{Namespace, Office};
use backhaul_tests::{Daemon, Home, TestServer, binary, trees, wait_until};

/// The server lets somebody ask for so many in an hour.
const NUDGES: u64 = 3;
const ROAMS: u64 = 5;
/// What the issue asks for.
const NUDGE_MAX: Duration = Duration::from_secs(1);
const ROAM_MAX: Duration = Duration::from_secs(3);
/// More than a path is tried with before data goes over it.
const DATA: u64 = 20_000;

fn linked(server: &TestServer) -> bool {
    server.home.json(&["status"])[0]["link"] == "standing"
}

fn write(dir: &Path, files: u64, seed: u64) {
    for i in 0..files {
        fs::write(dir.join(format!("{seed}-{i}")), trees::noise(1_000_000, 1_000 * seed + i)).unwrap();
    }
}

/// Times from the operator's command, and from the agent's word that it has heard.
fn nudges() -> Vec<(Duration, Duration)> {
    let (server, dir, laptop) = (TestServer::new(), tempfile::tempdir().unwrap(), Home::new());
    write(dir.path(), 1, 1);
    server.join(&laptop, "laptop", &["--initiator", "hybrid"], &[dir.path()]);
    laptop.run(&["backup"]).ok();
    let agent = laptop.start(&["-vv", "agent", "run", "--no-listen"]);
    wait_until("its link stands", || linked(&server));
    let heard = |agent: &Daemon| agent.said().matches("Push { trigger: Nudge").count() as u64;
    let once = |round: u64| {
        write(dir.path(), 20, round + 2);
        let (before, start) = (server.vault_bytes(), Instant::now());
        let mut nudged = server.home.command(&["-q", "client", "nudge", "laptop"]).spawn().unwrap();
        wait_until("it is heard", || heard(&agent) > round);
        let at = Instant::now();
        wait_until("bytes arrive", || server.vault_bytes() > before);
        let times = (start.elapsed(), at.elapsed());
        nudged.wait().unwrap();
        wait_until("the run is over", || agent.said().matches("backed up: ").count() as u64 > round);
        wait_until("its link stands", || linked(&server));
        times
    };
    (0..NUDGES).map(once).collect()
}

/// Bytes that a machine has sent over a link.
fn sent(machine: &Namespace, link: &str) -> u64 {
    let shown = machine.ip(&["-s", "-j", "link", "show", "dev", link]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    shown[0]["stats64"]["tx"]["bytes"].as_u64().unwrap()
}

/// Times from a change of network to data on the new path; none without namespaces.
fn roams() -> Vec<Duration> {
    let Some(mut office) = Office::new() else { return Vec::new() };
    let (dir, laptop) = (tempfile::tempdir().unwrap(), Home::new());
    write(dir.path(), 300, 1);
    let policy = format!("{}limit_upload = \"8MB\"\n", TestServer::quiet_policy());
    let server = office.server.inside(|| TestServer::at("10.77.0.1:4455", "10.77.0.1", &policy));
    office.laptop.inside(|| server.join(&laptop, "laptop", &["--initiator", "hybrid"], &[dir.path()]));
    let _agent = office.laptop.inside(|| laptop.start(&["-v", "agent", "run", "--no-listen"]));
    wait_until("its link stands", || linked(&server));
    server.home.run(&["client", "run", "laptop"]).ok();
    let mut vault = 0;
    (0..ROAMS)
        .map(|_| {
            vault += 10_000_000;
            wait_until("it uploads", || server.vault_bytes() > vault);
            let link = office.link().other().name();
            let (before, start) = (sent(&office.laptop, link), Instant::now());
            office.roam();
            wait_until("data goes over the new path", || sent(&office.laptop, link) > before + DATA);
            vault = server.vault_bytes();
            start.elapsed()
        })
        .collect()
}

fn main() {
    binary();
    let nudged = nudges();
    println!(
        "from the command `client nudge` to the first byte in the vault, and from when the agent heard:"
    );
    for (command, heard) in &nudged {
        println!("  {:>6} ms  {:>6} ms", command.as_millis(), heard.as_millis());
    }
    let roamed = roams();
    println!("from a change of network in mid-upload to data on the new path:");
    for time in &roamed {
        println!("  {:>6} ms", time.as_millis());
    }
    assert!(nudged.iter().all(|(_, heard)| *heard < NUDGE_MAX), "a nudge takes too long");
    assert!(roamed.iter().all(|time| *time < ROAM_MAX), "a change of network takes too long");
}
