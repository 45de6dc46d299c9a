//! A vault with snapshots of two clients, and what can be done to its files.

use std::fs;
use std::path::{Path, PathBuf};

use backhaul_object::bundle::BundleBuilder;
use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::{Packer, identify_content};
use backhaul_object::{Kind, Object, ObjectId, Reference, Sealed};
use backhaul_store::check::{Depth, Go, Mending, Report, Request, Selection};
use backhaul_store::manifest::Manifest;
use backhaul_store::session::Commit;
use backhaul_store::{Vault, WriteSession};
use bytes::Bytes;

pub const ANA: ClientId = ClientId([1; 16]);
pub const BEA: ClientId = ClientId([2; 16]);

pub fn seal(object: Object) -> Sealed {
    let key = VaultKey::new([7; 32]);
    let nonce = [object.payload.len() as u8; 24];
    object
        .compress(&key.id_key(), &mut Packer::new(3).unwrap())
        .unwrap()
        .seal(&key.data_key(), nonce)
        .unwrap()
}

pub fn object(kind: Kind, references: &[ObjectId], content: &[u8]) -> Sealed {
    let references = references.iter().map(|id| Reference::whole(*id)).collect();
    seal(Object { kind, references, provides: vec![], payload: Bytes::copy_from_slice(content) })
}

pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

pub fn bundle() -> Sealed {
    let key = VaultKey::new([7; 32]).id_key();
    let mut builder = BundleBuilder::default();
    for content in [&b"one"[..], b"two"] {
        let (id, proof) = identify_content(&key, content);
        builder.push(id, proof, content);
    }
    seal(builder.finish())
}

/// What one client saves: chunks, a bundle, and the nodes above them, children first.
pub fn tree(seed: u64) -> Vec<Sealed> {
    let chunks: Vec<Sealed> =
        (0..20).map(|n| object(Kind::Chunk, &[], &noise(seed * 100 + n, 20_000))).collect();
    let bundle = bundle();
    let ids: Vec<ObjectId> = chunks.iter().map(|chunk| chunk.header.id).chain([bundle.header.id]).collect();
    let node = object(Kind::Node, &ids, &noise(seed, 3_000));
    let root = object(Kind::Node, &[node.header.id], b"root");
    chunks.into_iter().chain([bundle, node, root]).collect()
}

pub fn append(vault: &Vault, session: &mut WriteSession, sealed: &Sealed) {
    let edges = vault.resolve(&sealed.header.references).unwrap();
    session.append(sealed, &edges).unwrap();
}

pub fn back_up(vault: &Vault, client: ClientId, sequence: u64, seed: u64) {
    let mut session = vault.begin(SessionId([sequence as u8; 16]), client);
    let objects = tree(seed);
    objects.iter().for_each(|sealed| append(vault, &mut session, sealed));
    let root = objects.last().unwrap().header.id;
    let snap = object(Kind::Snap, &[root], format!("{client} {sequence}").as_bytes());
    let edges = vault.resolve(&snap.header.references).unwrap();
    let commit =
        Commit { client_name: "ana", sequence, server_time: 1_000 + sequence, signature: vec![5; 70] };
    session.commit(&snap, &edges, commit).unwrap();
}

/// A vault with two snapshots of ana and one of bea, closed.
pub fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::create(dir.path(), &Descriptor::managed(VaultId([9; 16])), [1; 16]).unwrap();
    back_up(&vault, ANA, 1, 1);
    back_up(&vault, ANA, 2, 2);
    back_up(&vault, BEA, 1, 3);
    dir
}

pub fn check(vault: &Vault, mending: Mending) -> Report {
    let request = Request { depth: Depth::ReadData(Selection::All), mending, now: 77 };
    vault.check(&request, None, &|_| Go::On).unwrap()
}

pub fn files(root: &Path, below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.join(below)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
            if entry.path().is_dir() { open.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    found
}

pub fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

pub fn dump(vault: &Vault) -> String {
    let mut out = Vec::new();
    vault.dump(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The largest pack, which is of data, and the smallest, of metadata.
pub fn packs(root: &Path) -> (PathBuf, PathBuf) {
    let mut all = files(root, "packs");
    all.sort_by_key(|path| path.metadata().unwrap().len());
    (all.last().unwrap().clone(), all[0].clone())
}

/// Where a manifest or its copy lies.
pub fn name(folder: &str, client: ClientId, sequence: u64) -> String {
    format!("{folder}/{client}/{sequence:010}.snap")
}

/// What lies there.
pub fn manifest(root: &Path, client: ClientId, sequence: u64) -> Manifest {
    Manifest::decode(&fs::read(root.join(name("snaps", client, sequence))).unwrap()).unwrap()
}

/// What is in the packs of a snapshot's object is damaged, beyond parity.
pub fn damage_snapshot_object(root: &Path, manifest: &Manifest) {
    let record = &manifest.record;
    let hit = files(root, "packs").into_iter().find_map(|path| {
        let bytes = fs::read(&path).unwrap();
        let at = bytes.windows(record.len()).position(|window| window == record)?;
        Some((path, bytes, at))
    });
    let (path, mut bytes, at) = hit.unwrap();
    bytes[at + 100..at + record.len()].fill(0);
    fs::write(path, bytes).unwrap();
    files(root, "parity").into_iter().for_each(|sidecar| fs::remove_file(sidecar).unwrap());
}

/// Copies a vault as a kill at this moment would leave it, and opens that.
pub fn killed(root: &Path) -> (tempfile::TempDir, Vault) {
    let copy = tempfile::tempdir().unwrap();
    for path in files(root, "") {
        let place = copy.path().join(path.strip_prefix(root).unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        // Parity comes beside, in its own time.
        let _ = fs::copy(path, place);
    }
    fs::create_dir_all(copy.path().join("open")).unwrap();
    let vault = Vault::open(copy.path()).unwrap();
    (copy, vault)
}
