//! Patches whose bases are lost.

use std::fs;

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{SessionId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::patch;
use backhaul_object::seal::{Packer, identify_content};
use backhaul_object::signature::SignatureKey;
use backhaul_object::{Kind, Object, Sealed, ShortId};
use backhaul_store::check::{Mending, Part, Report};
use backhaul_store::index::Edge;
use backhaul_store::session::Commit;
use backhaul_store::{Ordinal, Vault, rebuild};
use bytes::Bytes;

use crate::scene::*;

fn content() -> Vec<u8> {
    let mut content = noise(1, 400_000);
    content[100_000..100_200].fill(0);
    content
}

/// The content as a patch of what it was.
fn patch_of(base: &[u8], content: &[u8]) -> Sealed {
    let key = VaultKey::new([7; 32]);
    let signatures = SignatureKey::new(&key.chunker_key());
    let (program, _) = signatures.difference(&[signatures.sign(base)], content, 2_000).unwrap();
    let references = vec![patch::base(identify_content(&key.id_key(), base).0)];
    let payload = Bytes::from(program.encode());
    let (id, proof) = identify_content(&key.id_key(), content);
    let object = Object { kind: Kind::Patch, references, provides: vec![], payload };
    let compressed = object.compress_as(id, proof, &mut Packer::new(3).unwrap()).unwrap();
    compressed.seal(&key.data_key(), [1; 24]).unwrap()
}

fn save(vault: &Vault, sequence: u64, content: &Sealed) {
    let mut session = vault.begin(SessionId([sequence as u8; 16]), ANA);
    append(vault, &mut session, content);
    let root = object(Kind::Node, &[content.header.id], b"root");
    append(vault, &mut session, &root);
    let snap = object(Kind::Snap, &[root.header.id], format!("{sequence}").as_bytes());
    let edges = vault.resolve(&snap.header.references).unwrap();
    let commit =
        Commit { client_name: "ana", sequence, server_time: 1_000 + sequence, signature: vec![5; 70] };
    session.commit(&snap, &edges, commit).unwrap();
}

/// A base and its patch, each in a snapshot; what they are, and their numbers.
fn two_versions(vault: &Vault) -> (Sealed, Sealed, [Ordinal; 2]) {
    let base = object(Kind::Chunk, &[], &noise(1, 400_000));
    let patch = patch_of(&noise(1, 400_000), &content());
    save(vault, 1, &base);
    save(vault, 2, &patch);
    let number = |sealed: &Sealed| vault.ordinal(&sealed.header.id).unwrap().unwrap();
    let numbers = [number(&base), number(&patch)];
    (base, patch, numbers)
}

fn fresh(dir: &tempfile::TempDir) -> Vault {
    Vault::create(dir.path(), &Descriptor::managed(VaultId([9; 16])), [1; 16]).unwrap()
}

/// Removes the only pack that is large enough to have the base in it.
fn lose_base(dir: &tempfile::TempDir) {
    let (data, _) = packs(dir.path());
    assert!(fs::metadata(&data).unwrap().len() > 400_000);
    fs::remove_file(data).unwrap();
    fs::remove_dir_all(dir.path().join("parity")).unwrap();
}

fn named(report: &Report) -> Vec<ShortId> {
    let object = |what: &Part| if let Part::Object(id) = what { Some(*id) } else { None };
    report.damage.iter().filter_map(|damage| object(&damage.what)).collect()
}

#[test]
fn a_patch_lies_with_the_metadata_and_who_owns_it_does_not_own_its_base() {
    let dir = tempfile::tempdir().unwrap();
    let vault = fresh(&dir);
    let (_, patch, [base, number]) = two_versions(&vault);
    let reached = vault.reach(number).unwrap();
    assert!(reached.has(number) && !reached.has(base) && reached.part(base).is_some());
    assert_eq!(vault.edges(number).unwrap(), [Edge { to: base, members: vec![1] }]);
    assert_eq!(vault.get(number).unwrap(), patch);
    drop(vault);
    let (data, _) = packs(dir.path());
    let bytes = fs::read(data).unwrap();
    let id = patch.header.id.as_bytes();
    assert!(!bytes.windows(32).any(|window| window == id), "it is in no pack of data");
}

/// The chunk is wanted, comes back whole under its number, and the snapshot that needs it is sound; the one that needs the
/// base is not.
#[test]
fn with_its_base_a_patch_is_lost_and_its_chunk_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let vault = fresh(&dir);
    let (base, patch, [_, number]) = two_versions(&vault);
    let generation = vault.generation_for(ANA).unwrap();
    drop(vault);
    lose_base(&dir);
    let vault = Vault::open(dir.path()).unwrap();
    let report = check(&vault, Mending::Mend);
    let mut expected = [base.header.id.short(), patch.header.id.short()];
    let mut lost = named(&report);
    lost.sort();
    expected.sort();
    assert_eq!((&lost[..], report.affected.len()), (&expected[..], 2), "{:?}", report.damage);
    assert!(vault.find(patch.header.id.prefix()).unwrap().is_empty(), "it is wanted");
    assert!(vault.is_lost(&patch.header.id).unwrap());
    assert_ne!(vault.generation_for(ANA).unwrap(), generation, "its client reads everything anew");
    let whole = object(Kind::Chunk, &[], &content());
    assert_eq!(whole.header.id, patch.header.id);
    save(&vault, 3, &whole);
    assert_eq!(vault.ordinal(&whole.header.id).unwrap(), Some(number));
    assert_eq!(vault.edges(number).unwrap(), []);
    let healed = check(&vault, Mending::Mend);
    assert_eq!(named(&healed), [base.header.id.short()]);
    assert_eq!(healed.affected.iter().map(|row| row.sequence).collect::<Vec<_>>(), [1]);
    assert_eq!(vault.get(number).unwrap(), whole);
    // The patch's record is still there: a rebuild takes the chunk.
    drop(vault);
    let rebuilt = rebuild::rebuild(dir.path(), [2; 16], Mending::Look, 79).unwrap();
    assert!(rebuilt.damage.is_empty(), "{:?}", rebuilt.damage);
    let vault = Vault::open(dir.path()).unwrap();
    assert_eq!((vault.get(number).unwrap(), vault.edges(number).unwrap()), (whole, vec![]));
    assert_eq!(named(&check(&vault, Mending::Look)), [base.header.id.short()]);
    // And the base heals the rest.
    save(&vault, 4, &base);
    assert!(check(&vault, Mending::Look).damage.is_empty());
}

#[test]
fn a_rebuild_without_the_base_wants_the_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let vault = fresh(&dir);
    let (base, patch, [_, number]) = two_versions(&vault);
    drop(vault);
    lose_base(&dir);
    rebuild::rebuild(dir.path(), [2; 16], Mending::Look, 79).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    for lost in [&base, &patch] {
        assert!(vault.ordinal(&lost.header.id).unwrap().is_none() && vault.is_lost(&lost.header.id).unwrap());
    }
    save(&vault, 3, &object(Kind::Chunk, &[], &content()));
    assert_eq!(vault.ordinal(&patch.header.id).unwrap(), Some(number));
    let healed = check(&vault, Mending::Mend);
    assert_eq!(named(&healed), [base.header.id.short()]);
}

/// The patch itself was never damaged: with its base it is there again.
#[test]
fn when_the_base_comes_back_so_does_the_patch() {
    let dir = tempfile::tempdir().unwrap();
    let vault = fresh(&dir);
    let (base, patch, [_, number]) = two_versions(&vault);
    drop(vault);
    lose_base(&dir);
    let vault = Vault::open(dir.path()).unwrap();
    assert_eq!(named(&check(&vault, Mending::Mend)).len(), 2);
    assert_eq!(named(&check(&vault, Mending::Mend)).len(), 2, "it is not found again before");
    save(&vault, 3, &base);
    let found = check(&vault, Mending::Mend);
    assert!(found.is_sound(), "{:?}", found.damage);
    assert_eq!(vault.get(number).unwrap(), patch);
    assert!(check(&vault, Mending::Look).damage.is_empty());
}
