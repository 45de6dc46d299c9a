//! Many clients at once: so many machines with nearly the same files back up to one server at the same instant, beside one
//! machine alone. Real processes over QUIC on loopback.
//!
//! `cargo run --release -p backhaul-benches --bin crowd -- [CLIENTS] [MIB] [FOLDER]` (50 clients with 24 MiB each, of which
//! nine tenths are the same everywhere). Prints tab-separated figures beside what is asked of them, and ends with an error
//! when something is stored twice: that holds at any load.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first surprise")]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use backhaul_object::{Kind, ObjectId};
use backhaul_store::Vault;
use backhaul_store::index::Ordinal;
use backhaul_tests::{Home, TestServer, binary, trees};

/// Files of a folder.
const FOLDER: u64 = 100;
/// Bytes of most files: members of bundles.
const SMALL: usize = 16 << 10;
/// Every so many files there is one of so many bytes, which is cut into chunks.
const BIG_EVERY: u64 = 200;
const BIG: usize = 3 << 20;
/// Of ten files, so many are the same everywhere.
const SHARED: u64 = 9;
/// What the crowd may be slower than one alone, and the server's memory: MiB, and MiB for each.
const THROUGHPUT_MIN: f64 = 0.8;
const MEMORY: (f64, f64) = (256.0, 1.0);

/// Half noise, half zeros in turn, so that it compresses as common files do.
fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut content = trees::noise(len, seed);
    content.chunks_mut(512).skip(1).step_by(2).for_each(|part| part.fill(0));
    content
}

/// Writes what one client has; returns how many bytes that is.
fn tree(dir: &Path, mib: u64, client: u64) -> u64 {
    let (mut bytes, mut n) = (0, 0);
    while bytes < mib << 20 {
        let folder = dir.join(format!("{}", n / FOLDER));
        fs::create_dir_all(&folder).unwrap();
        let len = if n % BIG_EVERY == BIG_EVERY - 1 { BIG } else { SMALL };
        let seed = if n % 10 < SHARED { n } else { (client + 1) * 1_000_000 + n };
        fs::write(folder.join(format!("{n}")), content(len, seed)).unwrap();
        bytes += len as u64;
        n += 1;
    }
    bytes
}

fn peak_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

/// User and system seconds of a process.
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// The same command, after the server wherever both want a processor: elsewhere each client has its own, and here fifty
/// would leave it none to answer the last of them with.
fn behind(command: &Command) -> Command {
    let mut behind = Command::new("nice");
    behind.args(["-n", "10"]).arg(command.get_program()).args(command.get_args());
    behind
}

/// Backs all of these up at once, each from a home of its own, to one server. Prints a line; returns bytes a second.
fn round(name: &str, sources: &[PathBuf], bytes: u64) -> f64 {
    let policy = format!("{}[admission]\nslots = {}\n", TestServer::quiet_policy(), sources.len());
    let mut server = TestServer::with_policy(&policy);
    let join = |(n, source): (usize, &PathBuf)| server.client(&format!("c{n}"), &[source]);
    let clients: Vec<Home> = sources.iter().enumerate().map(join).collect();
    let pid = server.pid().unwrap();
    let (start, before) = (Instant::now(), cpu(pid));
    let running: Vec<_> = clients
        .iter()
        .map(|home| {
            behind(&home.command(&["-q", "backup", "--still", "off"])).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut client in running {
        assert!(client.wait().unwrap().success());
    }
    let (seconds, memory, used) = (start.elapsed().as_secs_f64(), peak_mib(pid), cpu(pid) - before);
    let most = MEMORY.0 + MEMORY.1 * sources.len() as f64;
    server.stop();
    let stored = Stored::read(&server.home.path().join("server/vaults/main"));
    println!(
        "{name}\t{}\t{:.1}\t{seconds:.2}\t{:.1}\t{used:.2}\t{memory:.0}\t{most:.0}\t{}\t{}\t{}",
        sources.len(),
        bytes as f64 / 1e6,
        bytes as f64 / 1e6 / seconds,
        stored.objects,
        stored.bytes >> 20,
        stored.members_twice
    );
    bytes as f64 / seconds
}

/// What a vault holds in the end.
struct Stored {
    objects: u64,
    bytes: u64,
    /// Contents that are members of more than one bundle: two clients have bundled them at the same instant.
    members_twice: usize,
}

impl Stored {
    /// Looks at every object.
    fn read(root: &Path) -> Self {
        let vault = Vault::open(root).unwrap();
        let objects = vault.stats().unwrap().objects;
        let (mut ids, mut members) = (HashSet::new(), HashMap::<ObjectId, usize>::new());
        for n in 0..objects {
            let header = vault.header(Ordinal(n)).unwrap();
            assert!(ids.insert(header.id), "{} is stored twice", header.id);
            if header.kind == Kind::Bundle {
                header.provides.iter().for_each(|(id, _)| *members.entry(*id).or_default() += 1);
            }
        }
        let packs = trees::files(&root.join("packs"));
        let bytes = packs.iter().map(|pack| pack.metadata().unwrap().len()).sum();
        Self { objects, bytes, members_twice: members.values().filter(|times| **times > 1).count() }
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let count: u64 = args.next().map_or(50, |count| count.parse().unwrap());
    let mib: u64 = args.next().map_or(24, |mib| mib.parse().unwrap());
    let scratch = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    binary();
    let dir = tempfile::tempdir_in(scratch).unwrap();
    let sources: Vec<PathBuf> = (0..count).map(|n| dir.path().join(format!("{n}"))).collect();
    let bytes: Vec<u64> = sources.iter().zip(0..).map(|(source, n)| tree(source, mib, n)).collect();
    println!("who\tclients\tMB\ts\tMB/s\tserver CPU s\tserver MiB\tat most\tobjects\tMiB\tmembers twice");
    // The first is warmer than nobody.
    let alone = (0..3).map(|_| round("one", &sources[..1], bytes[0])).fold(0.0, f64::max);
    let together = round("crowd", &sources, bytes.iter().sum());
    println!("throughput together / alone: {:.2} (at least {THROUGHPUT_MIN})", together / alone);
}
