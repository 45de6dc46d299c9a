//! What keeping whole costs: parity beside a backup's writing, `check --read-data` beside `b3sum`, the index made anew.
//!
//! `cargo run --release -p backhaul-benches --bin check -- [MIB] [DIR]` makes a vault of that much noise (default 1,024
//! MiB) in chunks of 1 MiB and bundles' worth of nodes, and prints tab-separated figures; each comparison thrice, turn by
//! turn. `b3sum` is taken from the PATH. With `backup FOLDER` it saves that folder, thrice, each time to a new server, by the real
//! program, and says which part of the time parity takes.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{ClientId, PackId, SessionId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::Packer;
use backhaul_object::{Kind, Object, ObjectId, Reference, Sealed};
use backhaul_store::check::{Depth, Go, Mending, Request, Selection};
use backhaul_store::pack::{Class, HEAD_LEN, Head};
use backhaul_store::session::Commit;
use backhaul_store::{Vault, parity, rebuild};
use backhaul_tests::TestServer;
use bytes::Bytes;

/// Bytes of a chunk.
const CHUNK: usize = 1 << 20;
/// Chunks between two flushes, as a session has them.
const FLUSH: u64 = 12;
/// Chunks that one node refers to.
const NODE: usize = 64;
const ROUNDS: usize = 3;

struct Sealer {
    key: VaultKey,
    packer: Packer,
    count: u64,
}

impl Sealer {
    fn seal(&mut self, kind: Kind, references: Vec<Reference>, payload: Vec<u8>) -> Sealed {
        self.count += 1;
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&self.count.to_le_bytes());
        let object = Object { kind, references, provides: vec![], payload: Bytes::from(payload) };
        object
            .compress(&self.key.id_key(), &mut self.packer)
            .unwrap()
            .seal(&self.key.data_key(), nonce)
            .unwrap()
    }
}

fn row(step: &str, bytes: u64, seconds: f64) {
    let mib = bytes as f64 / f64::from(1 << 20);
    println!("{step}\t{mib:.0}\t{seconds:.3}\t{:.0}", mib / seconds);
}

fn packs(root: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(root.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())).collect();
    files.sort();
    files
}

/// Writes as a session does; returns the seconds until the snapshot exists, and until its parity does.
fn write(root: &Path, mib: u64) -> (f64, f64) {
    let vault = Vault::create(root, &Descriptor::managed(VaultId([1; 16])), [1; 16]).unwrap();
    let mut sealer = Sealer { key: VaultKey::new([7; 32]), packer: Packer::new(3).unwrap(), count: 0 };
    let start = Instant::now();
    let mut session = vault.begin(SessionId([3; 16]), ClientId([2; 16]));
    let (mut children, mut nodes): (Vec<ObjectId>, Vec<ObjectId>) = (Vec::new(), Vec::new());
    let whole = |ids: &[ObjectId]| ids.iter().map(|id| Reference::whole(*id)).collect::<Vec<_>>();
    for n in 0..mib {
        let mut noise = vec![0; CHUNK];
        blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut noise);
        let chunk = sealer.seal(Kind::Chunk, vec![], noise);
        session.append(&chunk, &[]).unwrap();
        children.push(chunk.header.id);
        if children.len() == NODE || n + 1 == mib {
            let node =
                sealer.seal(Kind::Node, whole(&std::mem::take(&mut children)), n.to_le_bytes().to_vec());
            session.append(&node, &vault.resolve(&node.header.references).unwrap()).unwrap();
            nodes.push(node.header.id);
        }
        if n % FLUSH == FLUSH - 1 {
            session.flush().unwrap();
        }
    }
    let root = sealer.seal(Kind::Node, whole(&nodes), b"root".to_vec());
    session.append(&root, &vault.resolve(&root.header.references).unwrap()).unwrap();
    let snap = sealer.seal(Kind::Snap, whole(&[root.header.id]), b"snap".to_vec());
    let edges = vault.resolve(&snap.header.references).unwrap();
    let commit = Commit { client_name: "bench", sequence: 1, server_time: 1, signature: vec![0; 70] };
    session.commit(&snap, &edges, commit).unwrap();
    let committed = start.elapsed().as_secs_f64();
    drop(session);
    drop(vault);
    (committed, start.elapsed().as_secs_f64())
}

/// Seconds of processor that a process or thread has had.
fn cpu(stat: &Path) -> f64 {
    let stat = fs::read_to_string(stat).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // User and system, in hundredths.
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// Makes the parity of all packs once more, alone; seconds of time and of processor.
fn encode(files: &[PathBuf]) -> (f64, f64) {
    use std::os::unix::fs::FileExt;
    let own = Path::new("/proc/self/stat");
    let (start, before) = (Instant::now(), cpu(own));
    for path in files {
        let file = fs::File::open(path).unwrap();
        let name: PackId = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let mut read = |offset, out: &mut [u8]| {
            file.read_exact_at(out, offset).unwrap();
            Ok(())
        };
        parity::encode(name, Class::Data, file.metadata().unwrap().len(), &mut read).unwrap();
    }
    (start.elapsed().as_secs_f64(), cpu(own) - before)
}

fn b3sum(files: &[PathBuf]) -> f64 {
    let start = Instant::now();
    let done = Command::new("b3sum").args(files).stdout(Stdio::null()).status();
    assert!(done.is_ok_and(|status| status.success()), "b3sum is not there");
    start.elapsed().as_secs_f64()
}

/// Seconds of processor that the thread that makes parity has had in a process.
fn parity_thread(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().map(|task| task.path());
    let is_it =
        |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "parity");
    tasks.filter(is_it).map(|task| cpu(&task.join("stat"))).sum()
}

/// The share of parity in a first backup of a folder: all that its thread does (it reads what was written, hashes it against its
/// name, sums its blocks, computes and writes), and the code alone.
fn backup(folder: &Path) {
    println!("step\tround\tseconds\tof_the_backup");
    let (mut threads, mut codes) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let server = TestServer::new();
        let client = server.client("bench", &[folder]);
        let (start, pid) = (Instant::now(), server.pid().unwrap());
        client.run(&["-q", "backup"]).ok();
        let wall = start.elapsed().as_secs_f64();
        println!("backup\t{round}\t{wall:.2}\t");
        // What is still to be done when the snapshot is there counts, too.
        let mut thread = -1.0;
        while thread < parity_thread(pid) {
            thread = parity_thread(pid);
            std::thread::sleep(Duration::from_millis(500));
        }
        assert!(thread > 0.0, "nothing is known of it");
        let code: f64 = server.packs().iter().map(|path| code_alone(path)).sum();
        for (step, seconds, all) in
            [("parity, its thread", thread, &mut threads), ("parity, the code", code, &mut codes)]
        {
            println!("{step}\t{round}\t{seconds:.2}\t{:.1} %", seconds / wall * 100.0);
            all.push(seconds / wall * 100.0);
        }
    }
    for (step, mut all, bar) in [("thread", threads, ""), ("code", codes, "\tbar: 10 %")] {
        all.sort_by(f64::total_cmp);
        println!("parity, the {step}\tmedian\t\t{:.1} %{bar}", all[ROUNDS / 2]);
    }
}

/// Seconds in which the parity of a pack is computed that is in memory.
fn code_alone(path: &Path) -> f64 {
    let bytes = fs::read(path).unwrap();
    let name: PackId = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let class = Head::decode(&bytes[..HEAD_LEN]).unwrap().class;
    let mut read = |offset: u64, out: &mut [u8]| {
        out.copy_from_slice(&bytes[offset as usize..][..out.len()]);
        Ok(())
    };
    let start = Instant::now();
    parity::encode(name, class, bytes.len() as u64, &mut read).unwrap();
    start.elapsed().as_secs_f64()
}

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if_eq("backup").is_some() {
        let folder = args.next().map(|folder| fs::canonicalize(folder).unwrap());
        return backup(&folder.unwrap());
    }
    let mib: u64 = args.next().map_or(1_024, |text| text.parse().unwrap());
    let base = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(base).unwrap();
    let root = dir.path().join("vault");
    println!("step\tMiB\tseconds\tMiB_per_second");
    let (committed, drained) = write(&root, mib);
    let files = packs(&root);
    let bytes: u64 = files.iter().map(|path| path.metadata().unwrap().len()).sum();
    row("write and commit, parity beside it", bytes, committed);
    row("until the parity is there", bytes, drained);
    let vault = Vault::open(&root).unwrap();
    let request = Request { depth: Depth::ReadData(Selection::All), mending: Mending::Look, now: 1 };
    for _ in 0..ROUNDS {
        let (time, busy) = encode(&files);
        row("parity alone", bytes, time);
        row("parity alone, of a processor", bytes, busy);
        row("b3sum", bytes, b3sum(&files));
        let start = Instant::now();
        let report = vault.check(&request, None, &|_| Go::On).unwrap();
        row("check --read-data", bytes, start.elapsed().as_secs_f64());
        assert!(report.is_sound() && report.packs_read == report.packs);
    }
    drop(vault);
    let start = Instant::now();
    rebuild::rebuild(&root, [2; 16], Mending::Look, 1).unwrap();
    row("rebuild of the index", bytes, start.elapsed().as_secs_f64());
}
