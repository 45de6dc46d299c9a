//! First, unchanged and second-client backup, and restore, of a folder: wall time and peak memory of every
//! process, beside `bupstash put` on the same data in the same run when it is on the PATH.
//!
//! `cargo run --release -p backhaul-benches --bin throughput -- FOLDER [ROUNDS]` prints tab-separated rows:
//! program, step, round, seconds, peak memory of the measured process in MiB, and of the server.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backhaul_tests::TestServer;

/// How often the memory of a running process is looked at; the kernel keeps the peak itself.
const LOOK: Duration = Duration::from_millis(5);

struct Measured {
    seconds: f64,
    peak_mib: f64,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let Some(folder) = args.next().map(PathBuf::from) else {
        eprintln_usage();
        std::process::exit(2);
    };
    let folder = std::fs::canonicalize(folder).unwrap();
    let rounds: usize = args.next().map_or(3, |text| text.parse().unwrap());
    println!("program\tstep\tround\tseconds\tpeak_MiB\tserver_peak_MiB");
    for round in 1..=rounds {
        warm(&folder);
        backhaul(&folder, round);
        if Command::new("bupstash").arg("--version").stdout(Stdio::null()).status().is_ok() {
            bupstash(&folder, round);
        }
    }
}

#[allow(clippy::print_stderr, reason = "usage")]
fn eprintln_usage() {
    eprintln!("usage: throughput FOLDER [ROUNDS]");
}

/// Reads everything once, so that every program finds the same page cache.
fn warm(folder: &Path) {
    for file in backhaul_tests::trees::files(folder) {
        if let Ok(mut file) = std::fs::File::open(file) {
            let _ = std::io::copy(&mut file, &mut std::io::sink());
        }
    }
}

fn peak_of(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

fn measure(mut command: Command) -> Measured {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut peak_mib: f64 = 0.0;
    let status = loop {
        peak_mib = peak_mib.max(peak_of(child.id()).unwrap_or(0.0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(LOOK);
    };
    assert!(status.success(), "{command:?}");
    Measured { seconds: start.elapsed().as_secs_f64(), peak_mib }
}

fn row(program: &str, step: &str, round: usize, measured: &Measured, server: Option<f64>) {
    let server = server.map_or_else(|| "-".to_owned(), |mib| format!("{mib:.0}"));
    println!("{program}\t{step}\t{round}\t{:.2}\t{:.0}\t{server}", measured.seconds, measured.peak_mib);
}

fn backhaul(folder: &Path, round: usize) {
    let server = TestServer::new();
    let (first, second) = (server.client("first", &[folder]), server.client("second", &[folder]));
    let out = tempfile::tempdir().unwrap();
    let target = out.path().to_str().unwrap();
    let what = format!("latest:{}", folder.display());
    let steps = [
        ("first", &first, vec!["-q", "backup"]),
        ("again", &first, vec!["-q", "backup"]),
        ("second-client", &second, vec!["-q", "backup"]),
        ("restore", &first, vec!["-q", "restore", &what, "-t", target]),
    ];
    for (step, home, args) in steps {
        let measured = measure(home.command(&args));
        row("backhaul", step, round, &measured, server.pid().and_then(peak_of));
    }
}

fn bupstash(folder: &Path, round: usize) {
    let dir = tempfile::tempdir().unwrap();
    let command = |args: &[&str]| {
        let mut command = Command::new("bupstash");
        command.args(args).env("HOME", dir.path());
        for (name, file) in
            [("REPOSITORY", "vault"), ("KEY", "key"), ("SEND_LOG", "log"), ("QUERY_CACHE", "cache")]
        {
            command.env(format!("BUPSTASH_{name}"), dir.path().join(file));
        }
        command
    };
    let key = dir.path().join("key");
    assert!(command(&["init"]).status().unwrap().success());
    assert!(command(&["new-key", "-o", key.to_str().unwrap()]).status().unwrap().success());
    for step in ["first", "again"] {
        let put = command(&["put", "-q", "--compression", "zstd:3", folder.to_str().unwrap()]);
        row("bupstash", step, round, &measure(put), None);
    }
}
