//! The object index at size: inserts, look-ups of a batch, opening, and the pass for what a client owns.
//!
//! `cargo run --release -p backhaul-benches --bin index -- [OBJECTS]` makes a vault of that many tiny objects
//! (default 1,000,000; every 100th refers to the 99 before it) and prints tab-separated figures.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first surprise")]

use std::time::Instant;

use backhaul_object::descriptor::Descriptor;
use backhaul_object::header::{Compressor, Header};
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::{Kind, ObjectId, Proof, Reference, Sealed};
use backhaul_store::Vault;
use backhaul_store::index::Edge;
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
    let count: u64 = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().unwrap());
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
    assert!(owned.has(backhaul_store::Ordinal(count / 2)));
    let start = Instant::now();
    vault.owned(ClientId([9; 16])).unwrap();
    row("what a new client owns", count, start);
}
