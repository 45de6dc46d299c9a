//! What keeping whole costs: parity beside a backup's writing, `check --read-data` beside `b3sum`, the index made anew.
//!
//! `cargo run --release -p backhaul-benches --bin check -- [MIB] [DIR]` makes a vault of that much noise (default 1,024
//! MiB) in chunks of 1 MiB and bundles' worth of nodes, and prints tab-separated figures; each comparison thrice, turn by
//! turn. `b3sum` is taken from the PATH.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{ClientId, PackId, SessionId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::Packer;
use backhaul_object::{Kind, Object, ObjectId, Reference, Sealed};
use backhaul_store::check::{Depth, Go, Mending, Request, Selection};
use backhaul_store::pack::Class;
use backhaul_store::session::Commit;
use backhaul_store::{Vault, parity, rebuild};
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

/// Seconds of processor that this process has had.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // User and system, in hundredths.
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// Makes the parity of all packs once more, alone; seconds of time and of processor.
fn encode(files: &[PathBuf]) -> (f64, f64) {
    use std::os::unix::fs::FileExt;
    let (start, before) = (Instant::now(), cpu());
    for path in files {
        let file = fs::File::open(path).unwrap();
        let name: PackId = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let mut read = |offset, out: &mut [u8]| {
            file.read_exact_at(out, offset).unwrap();
            Ok(())
        };
        parity::encode(name, Class::Data, file.metadata().unwrap().len(), &mut read).unwrap();
    }
    (start.elapsed().as_secs_f64(), cpu() - before)
}

fn b3sum(files: &[PathBuf]) -> f64 {
    let start = Instant::now();
    let done = Command::new("b3sum").args(files).stdout(Stdio::null()).status();
    assert!(done.is_ok_and(|status| status.success()), "b3sum is not there");
    start.elapsed().as_secs_f64()
}

fn main() {
    let mut args = std::env::args().skip(1);
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
