//! A vault through its life: write, crash, reopen, rebuild, damage.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use backhaul_object::bundle::BundleBuilder;
use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::{Packer, identify_content};
use backhaul_object::{Kind, Object, ObjectId, Reference, Sealed};
use backhaul_store::check::{Depth, Go, Mending, Report, Request, Selection};
use backhaul_store::index::Place;
use backhaul_store::session::Commit;
use backhaul_store::{StoreError, Vault, WriteSession, rebuild};
use bytes::Bytes;

const ANA: ClientId = ClientId([1; 16]);
const BEA: ClientId = ClientId([2; 16]);

fn check(vault: &Vault, depth: Depth) -> Result<Report, StoreError> {
    vault.check(&Request { depth, mending: Mending::Look, now: 5 }, None, &|_| Go::On)
}

fn create(root: &Path) -> Vault {
    Vault::create(root, &Descriptor::managed(VaultId([9; 16])), [1; 16]).unwrap()
}

fn seal(object: Object) -> Sealed {
    let key = VaultKey::new([7; 32]);
    object
        .compress(&key.id_key(), &mut Packer::new(3).unwrap())
        .unwrap()
        .seal(&key.data_key(), [3; 24])
        .unwrap()
}

fn object(kind: Kind, references: &[ObjectId], content: &[u8]) -> Sealed {
    let references = references.iter().map(|id| Reference::whole(*id)).collect();
    seal(Object { kind, references, provides: vec![], payload: Bytes::copy_from_slice(content) })
}

fn append(vault: &Vault, session: &mut WriteSession, sealed: &Sealed) -> ObjectId {
    let edges = vault.resolve(&sealed.header.references).unwrap();
    session.append(sealed, &edges).unwrap();
    sealed.header.id
}

fn commit(vault: &Vault, session: &mut WriteSession, client: &str, sequence: u64, root: ObjectId) {
    let snap = object(Kind::Snap, &[root], format!("{client} {sequence}").as_bytes());
    let edges = vault.resolve(&snap.header.references).unwrap();
    let commit =
        Commit { client_name: client, sequence, server_time: 1_000 + sequence, signature: vec![5; 70] };
    session.commit(&snap, &edges, commit).unwrap();
}

/// Two snapshots of one client; returns the ids of the chunk and of the second root.
fn fill(vault: &Vault) -> (ObjectId, ObjectId) {
    let mut session = vault.begin(SessionId([4; 16]), ANA);
    let chunk = append(vault, &mut session, &object(Kind::Chunk, &[], &[8; 300_000]));
    let node = append(vault, &mut session, &object(Kind::Node, &[chunk], b"node"));
    commit(vault, &mut session, "ana", 1, node);
    let root = append(vault, &mut session, &object(Kind::Node, &[node, chunk], b"root"));
    commit(vault, &mut session, "ana", 2, root);
    (chunk, root)
}

fn dump(vault: &Vault) -> String {
    let mut out = Vec::new();
    vault.dump(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn files(root: &Path, below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.join(below)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() { open.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    found
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let vault = create(dir.path());
    let (chunk, _) = fill(&vault);
    let before = dump(&vault);
    drop(vault);
    let vault = Vault::open(dir.path()).unwrap();
    assert_eq!(dump(&vault), before);
    assert_eq!(vault.snapshots(Some(ANA)).unwrap().len(), 2);
    let sealed = vault.get(vault.ordinal(&chunk).unwrap().unwrap()).unwrap();
    let opened = sealed.unseal(&VaultKey::new([7; 32]).data_key()).unwrap();
    assert_eq!(opened.header.id, chunk);
    assert!(files(dir.path(), "open").is_empty());
}

#[test]
fn an_object_is_stored_once_and_never_before_its_references() {
    let dir = tempfile::tempdir().unwrap();
    let vault = create(dir.path());
    let mut session = vault.begin(SessionId([4; 16]), ANA);
    let chunk = object(Kind::Chunk, &[], b"abc");
    let orphan = object(Kind::Node, &[chunk.header.id], b"n");
    assert!(
        matches!(vault.resolve(&orphan.header.references), Err(StoreError::MissingReference(id)) if id == chunk.header.id)
    );
    append(&vault, &mut session, &chunk);
    append(&vault, &mut session, &chunk);
    assert_eq!(session.added().0, 1);
}

#[test]
fn the_catalog_can_be_deleted_and_comes_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let vault = create(dir.path());
    fill(&vault);
    let before = dump(&vault);
    drop(vault);
    fs::remove_file(dir.path().join("catalog.sqlite")).unwrap();
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let error = Vault::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("--rebuild-index"), "{error}");
    let report = rebuild::rebuild(dir.path(), [2; 16], Mending::Look, 0).unwrap();
    assert_eq!((report.objects, report.snapshots, report.damage.len()), (5, 2, 0));
    let vault = Vault::open(dir.path()).unwrap();
    assert_eq!(dump(&vault), before);
    assert_eq!(vault.generation(), [2; 16]);
}

/// A crash is a copy of the directory taken while the session is open.
#[test]
fn a_crash_keeps_what_was_flushed_and_nothing_else() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let vault = create(dir.path());
    let mut session = vault.begin(SessionId([4; 16]), ANA);
    let kept = append(&vault, &mut session, &object(Kind::Chunk, &[], b"kept"));
    session.flush().unwrap();
    let lost = append(&vault, &mut session, &object(Kind::Chunk, &[], b"lost"));
    let status =
        std::process::Command::new("cp").arg("-a").arg(dir.path()).arg(copy.path()).status().unwrap();
    assert!(status.success());
    let crashed = copy.path().join(dir.path().file_name().unwrap());
    let vault = Vault::open(&crashed).unwrap();
    let ordinal = vault.ordinal(&kept).unwrap().unwrap();
    assert_eq!(vault.get(ordinal).unwrap().header.id, kept);
    assert_eq!(vault.ordinal(&lost).unwrap(), None);
    assert!(vault.owned(ANA).unwrap().has(ordinal) && !vault.owned(BEA).unwrap().has(ordinal));
    let report = check(&vault, Depth::ReadData(Selection::All)).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    // The number of the lost object is given out again, to another object.
    let mut session = vault.begin(SessionId([5; 16]), ANA);
    append(&vault, &mut session, &object(Kind::Chunk, &[], b"next"));
    drop(session);
    assert_eq!(vault.stats().unwrap().objects, 2);
}

#[test]
fn every_damaged_byte_of_a_pack_is_found_and_the_snapshots_that_need_it_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let vault = create(dir.path());
    fill(&vault);
    drop(vault);
    for pack in files(dir.path(), "packs") {
        let whole = fs::read(&pack).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 23 + 1) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&pack, &bytes).unwrap();
            let vault = Vault::open(dir.path()).unwrap();
            let report = check(&vault, Depth::ReadData(Selection::All)).unwrap();
            assert!(!report.damage.is_empty(), "byte {at} of {}", pack.display());
        }
        fs::write(&pack, &whole[..whole.len() / 2]).unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        let report = check(&vault, Depth::Structure).unwrap();
        assert!(report.damage.len() > 1 && !report.affected.is_empty(), "{report:?}");
        drop(vault);
        fs::write(&pack, &whole).unwrap();
    }
}

#[test]
fn a_second_process_is_told_who_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let _vault = create(dir.path());
    let error = Vault::open(dir.path()).err().unwrap();
    assert!(
        matches!(&error, StoreError::Busy { pid, .. } if *pid == std::process::id().to_string()),
        "{error}"
    );
}

#[test]
fn a_foreign_directory_is_no_vault_and_stays_untouched() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("letter.txt"), b"dear").unwrap();
    assert!(matches!(Vault::open(dir.path()), Err(StoreError::NotAVault { .. })));
    let descriptor = Descriptor::managed(VaultId([9; 16]));
    assert!(Vault::create(dir.path(), &descriptor, [1; 16]).is_err());
    assert_eq!(files(dir.path(), "").len(), 1);
}

#[test]
fn who_owns_a_member_does_not_own_the_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let vault = create(dir.path());
    let key = VaultKey::new([7; 32]).id_key();
    let mut builder = BundleBuilder::default();
    for content in [b"one", b"two"] {
        let (id, proof) = identify_content(&key, content);
        builder.push(id, proof, content);
    }
    let mut session = vault.begin(SessionId([4; 16]), ANA);
    append(&vault, &mut session, &seal(builder.finish()));
    session.flush().unwrap();
    let (two, proof) = identify_content(&key, b"two");
    let hits = vault.find(two.prefix()).unwrap();
    let Place::Member { bundle, bundle_id, member } = hits[0].place else { panic!("{hits:?}") };
    let header = vault.header(bundle).unwrap();
    assert_eq!((bundle_id, header.provides[usize::from(member)]), (header.id, (two, proof)));
    vault.note_proven(BEA, bundle, Some(member));
    let owned = vault.owned(BEA).unwrap();
    assert!(owned.has_member(bundle, 1) && !owned.has_member(bundle, 0) && !owned.has(bundle));
    assert!(vault.owned(ANA).unwrap().has(bundle));
}
