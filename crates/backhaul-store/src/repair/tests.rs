//! A disk with bad sectors.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::Packer;
use backhaul_object::{Kind, Object, Reference, Sealed};
use bytes::Bytes;
use rustix::io::Errno;

use crate::blobs::{Blobs, LocalBlobs};
use crate::catalog::Verdict;
use crate::check::{Depth, Go, Mending, Part, Report, Request, Selection};
use crate::error::{Doing, StoreError};
use crate::session::Commit;
use crate::vault::Vault;
use crate::writer::scan;

/// Reads that touch a bad stretch of a blob fail, as a disk fails them.
struct Sectors {
    disk: LocalBlobs,
    blob: String,
    bad: Range<u64>,
    /// The blob is in another place of the disk now.
    is_moved: AtomicBool,
    /// What the first read says after that.
    refusal: Mutex<Option<Errno>>,
}

impl Sectors {
    fn look(&self, name: &str, offset: u64, len: usize) -> Result<(), StoreError> {
        if self.is_moved.load(Ordering::Relaxed)
            && let Some(refusal) = self.refusal.lock().unwrap().take()
        {
            return Err(refusal.into()).doing("open", Path::new(name));
        }
        let is_there = name == self.blob && !self.is_moved.load(Ordering::Relaxed);
        let is_bad = is_there && offset < self.bad.end && offset + len as u64 > self.bad.start;
        let done = if is_bad { Err(Errno::IO.into()) } else { Ok(()) };
        done.doing("read", Path::new(name))
    }
}

impl Blobs for Sectors {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.disk.put(name, bytes)
    }

    fn adopt(&self, file: &Path, name: &str) -> Result<(), StoreError> {
        self.is_moved.fetch_or(name == self.blob, Ordering::Relaxed);
        self.disk.adopt(file, name)
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.look(name, offset, len)?;
        self.disk.read(name, offset, len)
    }

    fn read_into(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<usize, StoreError> {
        self.look(name, offset, out.len())?;
        self.disk.read_into(name, offset, out)
    }

    fn keep_as(&self, name: &str, copy: &str) -> Result<(), StoreError> {
        self.disk.keep_as(name, copy)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.disk.remove(name)
    }

    fn len(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.disk.len(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.disk.list(prefix)
    }
}

fn sealed(kind: Kind, references: &[&Sealed], seed: u64) -> Sealed {
    let key = VaultKey::new([7; 32]);
    let mut content = vec![0; 3_000];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut content);
    let references = references.iter().map(|to| Reference::whole(to.header.id)).collect();
    let object = Object { kind, references, provides: vec![], payload: Bytes::from(content) };
    let packed = object.compress(&key.id_key(), &mut Packer::new(1).unwrap()).unwrap();
    packed.seal(&key.data_key(), [3; 24]).unwrap()
}

/// A snapshot of a hundred chunks in one pack, and the name of that.
fn filled(root: &Path, chunks: &[Sealed]) -> String {
    let vault = Vault::create(root, &Descriptor::managed(VaultId([9; 16])), [1; 16]).unwrap();
    let mut session = vault.begin(SessionId([1; 16]), ClientId([1; 16]));
    let node = sealed(Kind::Node, &chunks.iter().collect::<Vec<_>>(), 1_000);
    let snap = sealed(Kind::Snap, &[&node], 1_001);
    for object in chunks.iter().chain([&node]) {
        let edges = vault.resolve(&object.header.references).unwrap();
        session.append(object, &edges).unwrap();
    }
    let edges = vault.resolve(&snap.header.references).unwrap();
    let commit = Commit { client_name: "ana", sequence: 1, server_time: 1, signature: vec![5; 70] };
    session.commit(&snap, &edges, commit).unwrap();
    let packs = vault.shared.blobs.list("packs").unwrap();
    let bytes = |name: &&String| vault.shared.blobs.len(name).unwrap();
    packs.iter().max_by_key(bytes).unwrap().clone()
}

fn opened(root: &Path, blob: &str, bad: Range<u64>, refusal: Option<Errno>) -> Vault {
    let mut vault = Vault::open(root).unwrap();
    let (disk, blob, is_moved) = (LocalBlobs::new(root), blob.to_owned(), AtomicBool::new(false));
    let sectors = Sectors { disk, blob, bad, is_moved, refusal: Mutex::new(refusal) };
    Arc::get_mut(&mut vault.shared).unwrap().blobs = Arc::new(sectors);
    vault
}

fn mended(vault: &Vault) -> Report {
    let request = Request { depth: Depth::ReadData(Selection::All), mending: Mending::Mend, now: 77 };
    vault.check(&request, None, &|_| Go::On).unwrap()
}

/// What a bad sector touches comes back by parity, and without that it is all that is lost.
#[test]
fn a_bad_sector_costs_no_more_than_what_it_touches() {
    let chunks: Vec<Sealed> = (0..100).map(|n| sealed(Kind::Chunk, &[], n)).collect();
    for has_parity in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("v");
        let blob = filled(&root, &chunks);
        let bad = 40_960..45_056;
        let disk = LocalBlobs::new(&root);
        let read = |offset, len| disk.read(&blob, offset, len);
        let rows = scan(disk.len(&blob).unwrap().unwrap(), &read).unwrap();
        let touched: BTreeSet<u64> = rows
            .iter()
            .filter(|row| u64::from(row.offset) < bad.end && u64::from(row.offset) + row.len() > bad.start)
            .map(|row| row.ordinal.0)
            .collect();
        assert!(rows.len() == 100 && (2..4).contains(&touched.len()));
        if !has_parity {
            std::fs::remove_dir_all(root.join("parity")).unwrap();
        }
        let vault = opened(&root, &blob, bad, None);
        let report = mended(&vault);
        let lost = report.damage.iter().filter(|damage| matches!(damage.what, Part::Object(_))).count();
        assert_eq!(lost, if has_parity { 0 } else { touched.len() }, "{:?}", report.damage);
        assert!(has_parity != disk.len(&blob).unwrap().is_none());
        drop(vault);
        let vault = Vault::open(&root).unwrap();
        for chunk in &chunks {
            let ordinal = vault.ordinal(&chunk.header.id).unwrap();
            let is_there = ordinal.is_some_and(|ordinal| vault.get(ordinal).unwrap().body == chunk.body);
            let number = chunks.iter().position(|other| other.header.id == chunk.header.id).unwrap() as u64;
            assert_eq!(is_there, has_parity || !touched.contains(&number));
        }
    }
}

fn assert_all_there(root: &Path, chunks: &[Sealed]) {
    let vault = Vault::open(root).unwrap();
    let checks = vault.state().catalog.checks().unwrap();
    assert!(
        checks.iter().all(|check| check.verdict != Verdict::Damaged),
        "what is said of packs is of those"
    );
    for chunk in chunks {
        let ordinal = vault.ordinal(&chunk.header.id).unwrap().unwrap();
        assert_eq!(vault.get(ordinal).unwrap().body, chunk.body);
    }
    assert!(mended(&vault).damage.is_empty());
}

/// A vault with a pack of which all records are whole, but not what follows them, and no parity; and the bytes of that pack.
fn with_a_wrong_end(root: &Path, chunks: &[Sealed]) -> Vec<u8> {
    let blob = filled(root, chunks);
    let mut bytes = std::fs::read(root.join(&blob)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(root.join(&blob), &bytes).unwrap();
    std::fs::remove_dir_all(root.join("parity")).unwrap();
    bytes
}

/// Whatever is written anew under its own numbers is byte for byte what it was before it was damaged, and so has its name.
#[test]
fn a_pack_all_of_whose_records_are_whole_is_not_removed_with_the_damaged_one() {
    let chunks: Vec<Sealed> = (0..20).map(|n| sealed(Kind::Chunk, &[], n)).collect();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("v");
    let bytes = with_a_wrong_end(&root, &chunks);
    let report = mended(&Vault::open(&root).unwrap());
    assert!(report.is_sound() && !report.damage.is_empty(), "{:?}", report.damage);
    assert_all_there(&root, &chunks);
    let kept = LocalBlobs::new(&root).list("quarantine").unwrap();
    assert!(kept.iter().any(|name| std::fs::read(root.join(name)).unwrap() == bytes), "{kept:?}");
}

/// That a pack cannot be read a moment after it was mended says nothing of what is in it.
#[test]
fn a_mended_pack_that_cannot_be_opened_at_once_stays() {
    let chunks: Vec<Sealed> = (0..100).map(|n| sealed(Kind::Chunk, &[], n)).collect();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("v");
    let blob = filled(&root, &chunks);
    let vault = opened(&root, &blob, 40_960..45_056, Some(Errno::MFILE));
    let before = vault.sealed_packs();
    let report = mended(&vault);
    assert!(report.damage.iter().any(|damage| damage.what != Part::Index), "{:?}", report.damage);
    assert_eq!(vault.sealed_packs(), before);
    drop(vault);
    assert_all_there(&root, &chunks);
}

/// Until what is readable of a pack is in another, durably, nothing of it is given up.
#[test]
fn a_pack_that_cannot_be_written_anew_keeps_what_it_has() {
    let chunks: Vec<Sealed> = (0..20).map(|n| sealed(Kind::Chunk, &[], n)).collect();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("v");
    with_a_wrong_end(&root, &chunks);
    let vault = Vault::open(&root).unwrap();
    // As on a disk that is full.
    std::fs::rename(root.join("open"), root.join("away")).unwrap();
    std::fs::write(root.join("open"), b"").unwrap();
    let request = Request { depth: Depth::ReadData(Selection::All), mending: Mending::Mend, now: 77 };
    assert!(vault.check(&request, None, &|_| Go::On).is_err());
    std::fs::remove_file(root.join("open")).unwrap();
    std::fs::rename(root.join("away"), root.join("open")).unwrap();
    for chunk in &chunks {
        let ordinal = vault.ordinal(&chunk.header.id).unwrap().unwrap();
        assert_eq!(vault.get(ordinal).unwrap().body, chunk.body);
    }
    drop(vault);
    assert!(mended(&Vault::open(&root).unwrap()).is_sound());
    assert_all_there(&root, &chunks);
}
