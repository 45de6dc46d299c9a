//! The object index at size: inserts, look-ups of a batch, opening, and the pass for what a client owns.
//!
//! `cargo run --release -p backhaul-benches --bin index -- [OBJECTS]` makes a vault of that many tiny objects
//! (default 1,000,000; every 100th refers to the 99 before it) and prints tab-separated figures. With `mark OBJECTS` it
//! marks a generated index of that many.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first surprise")]

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

use backhaul_object::codec::Write as _;
use backhaul_object::descriptor::Descriptor;
use backhaul_object::header::{Compressor, Header};
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::{Kind, ObjectId, Proof, Reference, Sealed};
use backhaul_store::index::{Edge, Scan};
use backhaul_store::reclaim::mark::close;
use backhaul_store::{Bits, Ordinal, Vault};
use bytes::Bytes;

/// Prefixes in one question of an agent.
const BATCH: u64 = 2_048;
/// Objects between two flushes.
const FLUSH: u64 = 50_000;

fn id(n: u64) -> ObjectId {
    let mut id = [0; 32];
    // Ids are hashes: neighbours must not lie side by side.
    id[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    id[8..16].copy_from_slice(&n.to_le_bytes());
    ObjectId(id)
}

fn object(n: u64) -> Sealed {
    let parent = n % 100 == 99;
    let references =
        if parent { (n - 99..n).map(|child| Reference::whole(id(child))).collect() } else { vec![] };
    let header = Header {
        kind: if parent { Kind::Node } else { Kind::Chunk },
        id: id(n),
        proof: Proof([7; 16]),
        compressor: Compressor::Raw,
        plain_len: 8,
        references,
        provides: vec![],
    };
    Sealed { header, body: Bytes::from_static(&[0; 49]) }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [what, count] if what == "mark" => mark(count.parse().unwrap()),
        [what, count, dir] if what == "mark-here" => mark_here(count.parse().unwrap(), Path::new(dir)),
        _ => life(args.first().map_or(1_000_000, |text| text.parse().unwrap())),
    }
}

fn life(count: u64) {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::create(dir.path(), &Descriptor::managed(VaultId([1; 16])), [1; 16]).unwrap();
    let client = ClientId([2; 16]);
    println!("step\tobjects\tseconds\tper_second");
    let row = |step: &str, objects: u64, since: Instant| {
        let seconds = since.elapsed().as_secs_f64();
        println!("{step}\t{objects}\t{seconds:.3}\t{:.0}", objects as f64 / seconds);
    };
    let start = Instant::now();
    let mut session = vault.begin(SessionId([3; 16]), client);
    for n in 0..count {
        let sealed = object(n);
        let edges: Vec<Edge> = vault.resolve(&sealed.header.references).unwrap();
        session.append(&sealed, &edges).unwrap();
        if n % FLUSH == FLUSH - 1 {
            session.flush().unwrap();
        }
    }
    drop(session);
    row("insert (with packs and flushes)", count, start);
    let start = Instant::now();
    for n in 0..BATCH {
        vault.find(id(n * 7_919 % count).prefix()).unwrap();
    }
    row("look up a batch, present", BATCH, start);
    let start = Instant::now();
    for n in 0..BATCH {
        vault.find(id(count + n).prefix()).unwrap();
    }
    row("look up a batch, absent", BATCH, start);
    drop(vault);
    let start = Instant::now();
    let vault = Vault::open(dir.path()).unwrap();
    row("open", count, start);
    let start = Instant::now();
    let owned = vault.owned(client).unwrap();
    row("what a client owns", count, start);
    assert!(owned.has(Ordinal(count / 2)));
    let start = Instant::now();
    vault.owned(ClientId([9; 16])).unwrap();
    row("what a new client owns", count, start);
}

/// `index mark OBJECTS`: a mark of that many objects, in a process of its own.
///
/// Every 50th object refers to the 49 before it, to the parent before, and to 50 others anywhere below: two references
/// an object, half of them as far apart as can be.
fn mark(count: u64) {
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path(), count);
    let program = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(program);
    child.arg("mark-here").arg(count.to_string()).arg(dir.path());
    assert!(child.status().unwrap().success());
}

fn generate(dir: &Path, count: u64) {
    let mut spans = BufWriter::new(File::create(dir.join("spans")).unwrap());
    let mut edges = BufWriter::new(File::create(dir.join("edges")).unwrap());
    let (mut end, mut dice) = (0_u64, 1_u64);
    let mut out = Vec::new();
    for n in 0..count {
        if n % 50 == 49 {
            out.clear();
            let near = (n - 49..n).chain((n > 99).then(|| n - 50));
            let far = (0..50).map(|_| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (dice >> 24) % n
            });
            for to in near.chain(far) {
                out.put_varint(to);
                out.put_varint(0);
            }
            edges.write_all(&out).unwrap();
            end += out.len() as u64;
        }
        spans.write_all(&end.to_le_bytes()).unwrap();
    }
    spans.into_inner().unwrap().sync_all().unwrap();
    edges.into_inner().unwrap().sync_all().unwrap();
}

fn mark_here(count: u64, dir: &Path) {
    let start = Instant::now();
    let scan = Scan::open(dir, count).unwrap();
    let mut live = Bits::sized(count);
    live.add(Ordinal(count / 50 * 50 - 1));
    close(&scan, &mut live, &mut |_| Ok(())).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("step\tobjects\treached\tseconds\tpeak_MiB");
    println!("mark\t{count}\t{}\t{seconds:.2}\t{}", live.count(), kib / 1024);
}
