//! Every single-bit flip, cut and zeroed block of every file of a vault: noticed or harmless, and mended.
//!
//! `BACKHAUL_FLIPS=all cargo test -p backhaul-store --test damage` tries every one; without it a slice is tried, another
//! one for each `BACKHAUL_FLIPS=NUMBER`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use backhaul_object::bundle::BundleBuilder;
use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::{Packer, Unpacker, identify_content};
use backhaul_object::{Kind, Object, ObjectId, Reference, Sealed};
use backhaul_store::check::{Depth, Go, Mending, Part, Report, Request, Selection};
use backhaul_store::session::Commit;
use backhaul_store::vault::Marking;
use backhaul_store::{Ordinal, StoreError, Vault, mark, rebuild, repair};
use bytes::Bytes;

const ANA: ClientId = ClientId([1; 16]);
/// Cases of a slice: a few seconds.
const SLICE: usize = 400;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Flip(usize),
    Cut(usize),
    Zero(usize),
    Remove,
}

fn seal(object: Object) -> Sealed {
    let key = VaultKey::new([7; 32]);
    let nonce = [object.payload.len() as u8; 24];
    object
        .compress(&key.id_key(), &mut Packer::new(3).unwrap())
        .unwrap()
        .seal(&key.data_key(), nonce)
        .unwrap()
}

fn object(kind: Kind, references: &[ObjectId], content: &[u8]) -> Sealed {
    let references = references.iter().map(|id| Reference::whole(*id)).collect();
    seal(Object { kind, references, provides: vec![], payload: Bytes::copy_from_slice(content) })
}

/// Two snapshots of one client, one of them pinned.
fn golden(root: &Path) {
    let vault = Vault::create(root, &Descriptor::managed(VaultId([9; 16])), [1; 16]).unwrap();
    let key = VaultKey::new([7; 32]).id_key();
    for sequence in 1..=2u8 {
        let mut session = vault.begin(SessionId([sequence; 16]), ANA);
        let mut noise = [0; 1_500];
        blake3::Hasher::new().update(&[sequence]).finalize_xof().fill(&mut noise);
        let mut builder = BundleBuilder::default();
        for content in [&b"one"[..], &noise[..9]] {
            let (id, proof) = identify_content(&key, content);
            builder.push(id, proof, content);
        }
        let leaves = [object(Kind::Chunk, &[], &noise), seal(builder.finish())];
        let node = object(Kind::Node, &leaves.each_ref().map(|leaf| leaf.header.id), &noise[..100]);
        let root = object(Kind::Node, &[node.header.id], b"root");
        let root_id = root.header.id;
        for sealed in leaves.into_iter().chain([node, root]) {
            session.append(&sealed, &vault.resolve(&sealed.header.references).unwrap()).unwrap();
        }
        let snap = object(Kind::Snap, &[root_id], &[sequence]);
        let edges = vault.resolve(&snap.header.references).unwrap();
        let (sequence, server_time) = (u64::from(sequence), 1_000 + u64::from(sequence));
        let commit = Commit { client_name: "ana", sequence, server_time, signature: vec![5; 70] };
        session.commit(&snap, &edges, commit).unwrap();
    }
    vault.mark(ANA, 1, Marking { state: mark::State::Pinned, now: 5, grace: 7, reason: "dear" }).unwrap();
}

fn files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() { open.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    for path in files(from) {
        let place = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(path, place).unwrap();
    }
    fs::create_dir_all(to.join("open")).unwrap();
}

fn strike(path: &Path, harm: Harm) {
    let mut bytes = fs::read(path).unwrap();
    match harm {
        Harm::Flip(bit) => bytes[bit / 8] ^= 1 << (bit % 8),
        Harm::Cut(len) => bytes.truncate(len),
        Harm::Zero(block) => {
            let end = bytes.len().min((block + 1) * 512);
            bytes[block * 512..end].fill(0);
        }
        Harm::Remove => return fs::remove_file(path).unwrap(),
    }
    fs::write(path, bytes).unwrap();
}

fn check(vault: &Vault, mending: Mending) -> Result<Report, StoreError> {
    let request = Request { depth: Depth::ReadData(Selection::All), mending, now: 77 };
    vault.check(&request, None, &|_| Go::On)
}

/// All that the vault holds, with the contents.
fn everything(vault: &Vault) -> Result<Vec<u8>, StoreError> {
    let (key, mut unpacker, mut out) = (VaultKey::new([7; 32]), Unpacker::new().unwrap(), Vec::new());
    vault.dump(&mut out)?;
    for number in 0..vault.stats()?.objects {
        let opened = vault.get(Ordinal(number))?.unseal(&key.data_key()).unwrap();
        out.extend_from_slice(&opened.open(&key.id_key(), &mut unpacker).unwrap().payload);
    }
    Ok(out)
}

fn needs_rebuild(report: &Report) -> bool {
    let is_cache = |part: &Part| match part {
        Part::Index => true,
        Part::File(name) => name == "catalog.sqlite" || name.starts_with("packs/"),
        _ => false,
    };
    report.damage.iter().any(|damage| damage.mended.is_none() && is_cache(&damage.what))
}

/// As `check --repair` does it.
fn heal(root: &Path) -> Report {
    repair::restore_descriptor(root, 78).unwrap();
    let rebuild = || rebuild::rebuild(root, [2; 16], Mending::Mend, 79).unwrap();
    let vault = Vault::open(root).unwrap_or_else(|_| {
        rebuild();
        Vault::open(root).unwrap()
    });
    let report = check(&vault, Mending::Mend);
    if report.as_ref().is_ok_and(|report| !needs_rebuild(report)) {
        return report.unwrap();
    }
    drop(vault);
    rebuild();
    check(&Vault::open(root).unwrap(), Mending::Mend).unwrap()
}

/// True when it was noticed. What is not noticed must be of no consequence.
fn is_noticed(root: &Path, before: &[u8], case: &str) -> bool {
    let vault = match Vault::open(root) {
        Ok(vault) => vault,
        Err(StoreError::Io { source, .. }) => panic!("{case}: {source}"),
        Err(_) => return true,
    };
    match check(&vault, Mending::Look) {
        Err(StoreError::Io { source, .. }) => panic!("{case}: {source}"),
        Err(_) => true,
        Ok(report) if !report.is_sound() => true,
        Ok(_) => {
            assert!(everything(&vault).unwrap() == before, "{case}: not noticed, and not harmless");
            false
        }
    }
}

fn one(golden: &Path, work: &Path, name: &Path, harm: Harm, before: &[u8]) -> bool {
    let case = format!("{harm:?} of {}", name.display());
    copy(golden, work);
    strike(&work.join(name), harm);
    let noticed = is_noticed(work, before, &case);
    copy(golden, work);
    strike(&work.join(name), harm);
    let report = heal(work);
    let (is_mark, is_pack) = (name.extension().is_some_and(|e| e == "mark"), name.starts_with("packs"));
    // A mark has no copy: in doubt what it stood beside is kept. A pack may lose more than its parity makes good.
    if is_mark || (is_pack && !matches!(harm, Harm::Flip(_))) {
        assert!(is_mark || report.is_sound() || !report.unreadable.is_empty(), "{case}: {report:?}");
    } else {
        assert!(report.is_sound(), "{case}: {:?}", report.damage);
        let vault = Vault::open(work).unwrap();
        assert!(everything(&vault).unwrap() == before, "{case}: not as it was");
        assert!(check(&vault, Mending::Look).unwrap().damage.is_empty(), "{case}");
    }
    noticed
}

fn harms(len: usize) -> impl Iterator<Item = Harm> {
    let flips = (0..len * 8).map(Harm::Flip);
    let cuts = (0..len).map(Harm::Cut);
    flips.chain(cuts).chain((0..len.div_ceil(512)).map(Harm::Zero)).chain([Harm::Remove])
}

#[test]
fn every_harm_to_every_file_is_noticed_or_harmless_and_mended() {
    let base = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" };
    let dir = tempfile::tempdir_in(base).unwrap();
    let (home, work) = (dir.path().join("golden"), dir.path().join("work"));
    golden(&home);
    let before = everything(&Vault::open(&home).unwrap()).unwrap();
    let names: Vec<PathBuf> =
        files(&home).into_iter().map(|path| path.strip_prefix(&home).unwrap().to_path_buf()).collect();
    let names: Vec<PathBuf> = names.into_iter().filter(|name| !name.ends_with("lock")).collect();
    let asked = std::env::var("BACKHAUL_FLIPS").unwrap_or_default();
    let (mut tried, mut noticed) = (0, 0);
    for name in &names {
        let all: Vec<Harm> = harms(fs::metadata(home.join(name)).unwrap().len() as usize).collect();
        // A slice takes as many of each file, and always its end and its absence.
        let (step, start) = match asked.as_str() {
            "all" => (1, 0),
            seed => {
                let step = (all.len() * names.len() / SLICE).max(1);
                (step, seed.parse().unwrap_or(0) % step)
            }
        };
        let chosen = all.iter().skip(start).step_by(step).chain(all.iter().rev().take(usize::from(step > 1)));
        for harm in chosen {
            tried += 1;
            noticed += usize::from(one(&home, &work, name, *harm, &before));
        }
    }
    println!("{tried} harms to {} files: {noticed} noticed, the others harmless; all mended", names.len());
    assert!(noticed * 2 > tried, "{noticed} of {tried}");
}
