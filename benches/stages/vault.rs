//! The server's stages: what it is asked, what it writes, and its index.

use backhaul_object::descriptor::Descriptor;
use backhaul_object::header::{Compressor, Header};
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::source::Query;
use backhaul_object::{Kind, ObjectId, Proof, Sealed};
use backhaul_proto::agent::AgentSession;
use backhaul_proto::server::{Request, ServerSession, Verdict};
use backhaul_proto::{BATCH_MAX, wire};
use backhaul_store::Vault;
use backhaul_store::catalog::Counts;
use backhaul_store::index::{Index, Location};
use tempfile::TempDir;

use crate::sample::Sample;

/// Objects after which a session makes what it has durable.
const FLUSH_BYTES: usize = 12 << 20;
/// Objects in the index in which is looked up.
const INDEXED: u64 = 1_000_000;

fn vault() -> (TempDir, Vault) {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::create(dir.path(), &Descriptor::managed(VaultId([1; 16])), [1; 16]).unwrap();
    (dir, vault)
}

/// Asks about every content of a sample in an empty vault, in batches; returns how many are wanted.
pub fn questions(sample: &Sample) -> usize {
    let (_dir, vault) = vault();
    let hello = wire::Hello { intent: wire::Intent::Backup.into(), ..Default::default() };
    let (mut agent, mut server, mut wanted) = (AgentSession::new(hello), ServerSession::new(), 0);
    server.handle(agent.poll().unwrap()).unwrap();
    let grant = wire::Grant { session: vec![1; 16].into(), sequence: 1, ..Default::default() };
    server.welcome(wire::Welcome { protocol: 1, grant: Some(grant), ..Default::default() });
    agent.handle(server.poll().unwrap()).unwrap();
    let queries: Vec<Query> = sample.contents().map(|one| Query { id: one.id, proof: one.proof }).collect();
    for batch in queries.chunks(BATCH_MAX) {
        agent.ask(batch.to_vec()).unwrap();
        while let Some(frame) = agent.poll() {
            let Request::Ask(batch, prefixes) = server.handle(frame).unwrap() else { continue };
            let find = |prefix: &u64| match vault.find(*prefix).unwrap()[..] {
                [] => Verdict::Want,
                _ => Verdict::Prove,
            };
            let verdicts: Vec<Verdict> = prefixes.iter().map(find).collect();
            wanted += verdicts.len();
            server.answer(batch, &verdicts);
            while let Some(frame) = server.poll() {
                agent.handle(frame).unwrap();
            }
        }
    }
    wanted
}

/// Writes everything into a new vault, as a session does.
pub fn append(sealed: &[Sealed]) {
    let (_dir, vault) = vault();
    let mut session = vault.begin(SessionId([3; 16]), ClientId([2; 16]));
    let mut unflushed = 0;
    for one in sealed {
        session.append(one, &[]).unwrap();
        unflushed += one.body.len();
        if unflushed >= FLUSH_BYTES {
            session.flush().unwrap();
            unflushed = 0;
        }
    }
    session.finish().unwrap();
}

const PLACE: Location = Location { pack: 1, offset: 64, len: 100 };

fn index() -> (TempDir, Index) {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), &Counts::default()).unwrap();
    (dir, index)
}

/// Puts everything into a new index.
pub fn insert(sealed: &[Sealed]) {
    let (_dir, mut index) = index();
    for one in sealed {
        index.append(&one.header, PLACE, &[]).unwrap();
    }
    index.flush().unwrap();
}

/// Milliseconds to look up a batch of what is there, and of what is not.
pub fn look_up(rounds: usize) -> (f64, f64) {
    let (_dir, mut index) = index();
    for n in 0..INDEXED {
        index.append(&header(n), PLACE, &[]).unwrap();
    }
    let batch = |which: &dyn Fn(u64) -> u64| {
        let find =
            || (0..BATCH_MAX as u64).map(|n| index.find(id(which(n)).prefix()).unwrap().len()).sum::<usize>();
        1e3 * crate::least(rounds, find)
    };
    (batch(&|n| n * 7_919 % INDEXED), batch(&|n| INDEXED + n))
}

fn id(n: u64) -> ObjectId {
    let mut id = [0; 32];
    // Ids are hashes: neighbours must not lie side by side.
    id[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    id[8..16].copy_from_slice(&n.to_le_bytes());
    ObjectId(id)
}

fn header(n: u64) -> Header {
    Header {
        kind: Kind::Chunk,
        id: id(n),
        proof: Proof([7; 16]),
        compressor: Compressor::Raw,
        plain_len: 8,
        references: vec![],
        provides: vec![],
    }
}
