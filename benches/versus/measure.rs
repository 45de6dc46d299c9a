//! One step of one program: its time, processor time and memory, and the size of its repository afterwards.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backhaul_tests::trees;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::Step;
use crate::memory::Memory;
use crate::program::Program;

/// How often the memory of a running process is looked at; the kernel keeps the peak itself.
const LOOK: Duration = Duration::from_millis(5);
/// The kernel's unit of processor time in /proc (USER_HZ; 100 on every Linux we build for).
const TICKS: f64 = 100.0;

/// What a step took, and left.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Wall time.
    pub seconds: f64,
    /// Processor time of the command, its children and the server.
    pub cpu: f64,
    /// Peak memory of the command, in MiB.
    pub peak: f64,
    /// Peak memory of the server so far, in MiB; 0 where there is none.
    pub server_peak: f64,
    /// Bytes in the repository after it.
    pub repository: u64,
    /// Files in the repository after it.
    pub files: usize,
    /// What the step added to the repository.
    pub added: i64,
    /// Bytes over loopback meanwhile, packets' heads and answers included: of who has a server, what both ends sent.
    pub sent: u64,
}

/// Does a step, if the program has such a one.
pub fn step(program: &mut dyn Program, step: Step, live: &Path, memory: &mut Memory) -> Option<Measured> {
    let command = program.command(step)?;
    memory.take();
    warm(live);
    warm(&program.repository());
    assert!(Command::new("sync").status().unwrap().success());
    let before = size(&program.repository()).0;
    let server_before = program.server().map_or(0.0, cpu_of);
    let sent_before = sent();
    let (seconds, cpu, peak) = timed(command);
    let sent = sent() - sent_before;
    let server_cpu = program.server().map_or(0.0, cpu_of) - server_before;
    let (repository, files) = size(&program.repository());
    let added = i64::try_from(repository).unwrap() - i64::try_from(before).unwrap();
    let server_peak = program.server().and_then(peak_of).unwrap_or(0.0);
    program.clear();
    Some(Measured { seconds, cpu: cpu + server_cpu, peak, server_peak, repository, files, added, sent })
}

/// Seconds, processor seconds, peak MiB.
fn timed(mut command: Command) -> (f64, f64, f64) {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut peak: f64 = 0.0;
    while !has_ended(&child) {
        peak = peak.max(peak_of(child.id()).unwrap_or(0.0));
        std::thread::sleep(LOOK);
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = cpu_of(child.id());
    let status = child.wait().unwrap();
    assert!(status.success(), "{command:?}: {status}");
    (seconds, cpu, peak)
}

/// Whether it has ended; its entry in /proc stays until it is waited for.
fn has_ended(child: &Child) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(Pid::from_child(child)), options).unwrap().is_some()
}

/// Processor seconds of a process and the children that it has waited for.
fn cpu_of(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    // utime, stime, cutime, cstime: fields 14 to 17 (proc_pid_stat(5)); the name is the second.
    let ticks = after_name.split_whitespace().skip(11).take(4);
    ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS
}

fn peak_of(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Bytes that have gone over loopback since the machine started.
fn sent() -> u64 {
    let counter = std::fs::read_to_string("/sys/class/net/lo/statistics/tx_bytes").unwrap();
    counter.trim().parse().unwrap()
}

/// Bytes and files.
fn size(folder: &Path) -> (u64, usize) {
    let sizes: Vec<u64> =
        trees::files(folder).iter().filter_map(|file| Some(file.metadata().ok()?.len())).collect();
    (sizes.iter().sum(), sizes.len())
}

/// Reads everything once, so that every program finds the same page cache.
fn warm(folder: &Path) {
    for file in trees::files(folder) {
        if let Ok(mut file) = std::fs::File::open(file) {
            let _ = std::io::copy(&mut file, &mut std::io::sink());
        }
    }
}
