//! Damage that is found, mended, and, where it cannot be mended, sent again.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use backhaul_object::bundle::BundleBuilder;
use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::{Packer, identify_content};
use backhaul_object::{Kind, Object, ObjectId, Reference, Sealed, ShortId};
use backhaul_store::check::{Depth, Go, Mending, Part, Report, Request, Selection};
use backhaul_store::session::Commit;
use backhaul_store::{StoreError, Vault, WriteSession, rebuild, reclaim, repair};
use bytes::Bytes;

const ANA: ClientId = ClientId([1; 16]);
const BEA: ClientId = ClientId([2; 16]);

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

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn bundle() -> Sealed {
    let key = VaultKey::new([7; 32]).id_key();
    let mut builder = BundleBuilder::default();
    for content in [&b"one"[..], b"two"] {
        let (id, proof) = identify_content(&key, content);
        builder.push(id, proof, content);
    }
    seal(builder.finish())
}

/// What one client saves: chunks, a bundle, and the nodes above them, children first.
fn tree(seed: u64) -> Vec<Sealed> {
    let chunks: Vec<Sealed> =
        (0..20).map(|n| object(Kind::Chunk, &[], &noise(seed * 100 + n, 20_000))).collect();
    let bundle = bundle();
    let ids: Vec<ObjectId> = chunks.iter().map(|chunk| chunk.header.id).chain([bundle.header.id]).collect();
    let node = object(Kind::Node, &ids, &noise(seed, 3_000));
    let root = object(Kind::Node, &[node.header.id], b"root");
    chunks.into_iter().chain([bundle, node, root]).collect()
}

fn append(vault: &Vault, session: &mut WriteSession, sealed: &Sealed) {
    let edges = vault.resolve(&sealed.header.references).unwrap();
    session.append(sealed, &edges).unwrap();
}

fn back_up(vault: &Vault, client: ClientId, sequence: u64, seed: u64) {
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
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::create(dir.path(), &Descriptor::managed(VaultId([9; 16])), [1; 16]).unwrap();
    back_up(&vault, ANA, 1, 1);
    back_up(&vault, ANA, 2, 2);
    back_up(&vault, BEA, 1, 3);
    dir
}

fn check(vault: &Vault, mending: Mending) -> Report {
    let request = Request { depth: Depth::ReadData(Selection::All), mending, now: 77 };
    vault.check(&request, None, &|_| Go::On).unwrap()
}

fn files(root: &Path, below: &str) -> Vec<PathBuf> {
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

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn dump(vault: &Vault) -> String {
    let mut out = Vec::new();
    vault.dump(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The largest pack, which is of data, and the smallest, of metadata.
fn packs(root: &Path) -> (PathBuf, PathBuf) {
    let mut all = files(root, "packs");
    all.sort_by_key(|path| path.metadata().unwrap().len());
    (all.last().unwrap().clone(), all[0].clone())
}

#[test]
fn a_healthy_vault_has_parity_and_copies_of_everything_and_a_repair_changes_nothing() {
    let dir = filled();
    let names = |below: &str| {
        let name = |path: &PathBuf| path.file_name().unwrap().to_owned();
        files(dir.path(), below).iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names("packs"), names("parity"));
    assert_eq!((names("packs").len(), names("snaps").len(), names("copies").len()), (6, 3, 4));
    let before: Vec<_> = ["packs", "parity", "snaps", "copies"]
        .iter()
        .flat_map(|below| files(dir.path(), below))
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    let vault = Vault::open(dir.path()).unwrap();
    let report = check(&vault, Mending::Mend);
    assert!(report.damage.is_empty() && report.unprotected == 0, "{:?}", report.damage);
    assert_eq!((report.packs, report.packs_read, report.objects), (6, 6, 20 * 3 + 1 + 2 * 3 + 3));
    for (bytes, path) in before {
        assert!(fs::read(&path).unwrap() == bytes, "{}", path.display());
    }
    assert!(!dir.path().join("quarantine").exists());
}

#[test]
fn what_parity_covers_comes_back_byte_for_byte_and_the_damaged_file_is_kept() {
    let dir = filled();
    for pack in files(dir.path(), "packs") {
        let whole = fs::read(&pack).unwrap();
        // Head, a record, footer; and all at once.
        for places in [vec![3], vec![whole.len() / 2], vec![whole.len() - 30], vec![0, whole.len() - 1]] {
            places.iter().for_each(|at| flip(&pack, *at));
            let vault = Vault::open(dir.path()).unwrap();
            let found = check(&vault, Mending::Look);
            assert!(!found.is_sound(), "{places:?} of {}", pack.display());
            let report = check(&vault, Mending::Mend);
            assert!(report.is_sound() && !report.damage.is_empty(), "{:?}", report.damage);
            assert!(fs::read(&pack).unwrap() == whole);
            assert!(check(&vault, Mending::Look).damage.is_empty());
        }
    }
    assert!(!files(dir.path(), "quarantine").is_empty());
}

#[test]
fn sidecars_and_copies_are_made_anew() {
    let dir = filled();
    let (parity, copies) = (files(dir.path(), "parity"), files(dir.path(), "copies"));
    let before: Vec<Vec<u8>> = parity.iter().chain(&copies).map(|path| fs::read(path).unwrap()).collect();
    flip(&parity[0], 3_000);
    fs::remove_file(&parity[1]).unwrap();
    flip(&copies[0], 30);
    fs::remove_file(&copies[1]).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    let found = check(&vault, Mending::Look);
    assert_eq!((found.damage.len(), found.unprotected), (2, 2), "{:?}", found.damage);
    assert!(check(&vault, Mending::Mend).is_sound());
    let after: Vec<Vec<u8>> = parity.iter().chain(&copies).map(|path| fs::read(path).unwrap()).collect();
    assert!(before == after);
}

#[test]
fn a_manifest_comes_back_from_its_copy_also_when_the_catalog_is_gone() {
    let dir = filled();
    let manifests = files(dir.path(), "snaps");
    let whole = fs::read(&manifests[0]).unwrap();
    let before = dump(&Vault::open(dir.path()).unwrap());
    for is_rebuilt in [false, true] {
        for is_missing in [false, true] {
            match is_missing {
                false => flip(&manifests[0], 40),
                true => fs::remove_file(&manifests[0]).unwrap(),
            }
            if is_rebuilt {
                let report = rebuild::rebuild(dir.path(), [1; 16], Mending::Mend, 78).unwrap();
                assert!(report.damage.len() == 1 && report.damage[0].mended.is_some(), "{:?}", report.damage);
            }
            let vault = Vault::open(dir.path()).unwrap();
            let report = check(&vault, Mending::Mend);
            assert_eq!((report.is_sound(), report.damage.len()), (true, usize::from(!is_rebuilt)));
            assert!(fs::read(&manifests[0]).unwrap() == whole);
            assert_eq!(dump(&vault), before);
        }
    }
}

#[test]
fn a_damaged_descriptor_is_named_and_comes_back() {
    let dir = filled();
    let path = dir.path().join("vault.desc");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        flip(&path, at);
        assert!(matches!(Vault::open(dir.path()), Err(StoreError::Damaged { .. })), "byte {at}");
        let damage = repair::restore_descriptor(dir.path(), at as u64).unwrap().unwrap();
        assert!(damage.mended.is_some());
        assert!(fs::read(&path).unwrap() == whole);
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(Vault::open(dir.path()), Err(StoreError::NotAVault { .. })));
    assert!(repair::restore_descriptor(dir.path(), 1).unwrap().is_some());
    Vault::open(dir.path()).unwrap();
}

/// Beyond parity: what is readable is saved, the rest is named and wanted; a client that sends it again heals the old
/// snapshots with it, whatever kind of object it is.
#[test]
fn what_is_lost_is_wanted_and_heals_the_snapshots_that_lost_it() {
    for is_data in [true, false] {
        let dir = filled();
        let (data, meta) = packs(dir.path());
        let pack = if is_data { data } else { meta };
        let mut bytes = fs::read(&pack).unwrap();
        let (from, to) = (bytes.len() / 4, bytes.len() * 3 / 4);
        bytes[from..to].fill(0);
        fs::write(&pack, &bytes).unwrap();
        // Parity of data is weak enough for this, that of metadata must go, too.
        for sidecar in files(dir.path(), "parity") {
            fs::remove_file(sidecar).unwrap();
        }
        let vault = Vault::open(dir.path()).unwrap();
        let before = (vault.generation_for(ANA).unwrap(), vault.generation_for(BEA).unwrap());
        let numbers = |vault: &Vault| {
            let ids = [1, 2, 3].into_iter().flat_map(tree).map(|sealed| sealed.header.id);
            ids.map(|id| vault.ordinal(&id).unwrap()).collect::<Vec<_>>()
        };
        let numbered = numbers(&vault);
        let report = check(&vault, Mending::Mend);
        let lost: Vec<ShortId> = report
            .damage
            .iter()
            .filter_map(|damage| if let Part::Object(id) = damage.what { Some(id) } else { None })
            .collect();
        assert!(!lost.is_empty() && !report.is_sound() && report.affected.len() == 1, "{report:?}");
        let hit = report.affected[0].client;
        // The objects of the damaged pack that were readable are in a new one, and the old one is kept.
        assert!(!pack.exists() && !files(dir.path(), "quarantine").is_empty());
        let again = check(&vault, Mending::Look);
        assert_eq!(again.damage.len(), lost.len(), "{:?}", again.damage);
        assert!(lost.iter().all(|id| vault.find(id.prefix()).unwrap().is_empty()));
        let after = (vault.generation_for(ANA).unwrap(), vault.generation_for(BEA).unwrap());
        assert_eq!(
            (before.0 != after.0, before.1 != after.1),
            (hit == ANA, hit == BEA),
            "whose state is void"
        );
        // A second check finds no new loss.
        check(&vault, Mending::Mend);
        assert_eq!(vault.generation_for(hit).unwrap(), if hit == ANA { after.0 } else { after.1 });
        drop(vault);
        // The client reads everything anew and sends what is wanted.
        let vault = Vault::open(dir.path()).unwrap();
        let sequence = vault.last_sequence(hit).unwrap() + 1;
        let seed = match (hit == BEA, report.affected[0].sequence) {
            (true, _) => 3,
            (false, sequence) => sequence,
        };
        back_up(&vault, hit, sequence, seed);
        let healed = check(&vault, Mending::Mend);
        assert!(healed.damage.is_empty() && healed.affected.is_empty(), "{:?}", healed.damage);
        assert_eq!(numbers(&vault), numbered, "everything has its old number");
        // And so it stays when the caches are made anew.
        let count = vault.snapshots(None).unwrap().len();
        drop(vault);
        rebuild::rebuild(dir.path(), [2; 16], Mending::Look, 79).unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        assert!(check(&vault, Mending::Look).damage.is_empty());
        assert_eq!(vault.snapshots(None).unwrap().len(), count);
    }
}

/// A repair that was cut off after it had made objects lost finds them again in the pack that it had not yet removed.
#[test]
fn an_interrupted_repair_goes_on_and_loses_nothing_more() {
    let dir = filled();
    let (data, _) = packs(dir.path());
    let mut bytes = fs::read(&data).unwrap();
    let (from, to) = (bytes.len() / 4, bytes.len() / 2);
    bytes[from..to].fill(0);
    fs::write(&data, &bytes).unwrap();
    fs::remove_dir_all(dir.path().join("parity")).unwrap();
    let (whole, loc) = (tempfile::tempdir().unwrap(), dir.path().join("index/places"));
    let done = whole.path().join("done");
    let copied = std::process::Command::new("cp").arg("-a").arg(dir.path()).arg(&done).status().unwrap();
    assert!(copied.success());
    let vault = Vault::open(&done).unwrap();
    let lost = |report: &Report| {
        let object = |what: &Part| matches!(what, Part::Object(_));
        report.damage.iter().filter(|damage| object(&damage.what)).count()
    };
    let expected = lost(&check(&vault, Mending::Mend));
    drop(vault);
    // The places of the whole pack's objects are gone, the pack is still there.
    let number = Vault::open(dir.path()).unwrap();
    let ordinal = number.ordinal(&tree(1)[0].header.id).unwrap().unwrap();
    drop(number);
    let mut places = fs::read(&loc).unwrap();
    // A row's pack is in its upper 30 bits.
    let pack = |place: &[u8]| u32::from_le_bytes(place[6..].try_into().unwrap()) >> 2;
    let number = pack(&places[ordinal.0 as usize * 10..][..10]);
    for place in places.chunks_exact_mut(10).filter(|place| pack(place) == number) {
        place.fill(0);
    }
    fs::write(&loc, places).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    check(&vault, Mending::Mend);
    assert_eq!(lost(&check(&vault, Mending::Look)), expected);
    assert!(expected < 15, "{expected}");
}

/// A member of a bundle that is lost must be sent, too, not only the bundle.
#[test]
fn a_member_of_a_lost_bundle_is_wanted() {
    let dir = filled();
    let two = identify_content(&VaultKey::new([7; 32]).id_key(), b"two").0;
    let vault = Vault::open(dir.path()).unwrap();
    assert_eq!(vault.find(two.prefix()).unwrap().len(), 1);
    drop(vault);
    for path in files(dir.path(), "packs").into_iter().chain(files(dir.path(), "parity")) {
        if path.metadata().unwrap().len() > 100_000 || path.starts_with(dir.path().join("parity")) {
            fs::remove_file(path).unwrap();
        }
    }
    let vault = Vault::open(dir.path()).unwrap();
    check(&vault, Mending::Mend);
    assert!(vault.find(two.prefix()).unwrap().is_empty());
    back_up(&vault, ANA, 3, 1);
    assert_eq!(vault.find(two.prefix()).unwrap().len(), 1);
}

/// What a repair has replaced, and parity of packs that are gone, stay for a stated time, and longer while anything is lost.
#[test]
fn what_was_put_aside_goes_in_time_but_never_while_something_is_lost() {
    let dir = filled();
    let (data, _) = packs(dir.path());
    let whole = fs::read(&data).unwrap();
    flip(&data, 5_000);
    let orphan = dir.path().join("parity/ab").join("ab".repeat(32));
    fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    fs::write(&orphan, b"parity").unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    let mended = check(&vault, Mending::Mend);
    assert!(mended.is_sound() && mended.aside.orphans == 1, "{mended:?}");
    let aside = |vault: &Vault| vault.aside().unwrap();
    let files_before = aside(&vault).files;
    assert!(files_before > 0 && aside(&vault).bytes >= whole.len() as u64);
    let prune = |vault: &Vault, now: u64| {
        let request = reclaim::Request { now, aside_kept: Some(1_000), ..Default::default() };
        vault.reclaim(&request, &mut ()).unwrap().aside_removed
    };
    assert_eq!(prune(&vault, 78), 0);
    assert_eq!((aside(&vault).orphans, aside(&vault).files), (0, files_before + 1));
    assert!(!orphan.exists());
    // A chunk that a snapshot needs is lost: what is left of its pack may be all that there is.
    let path = packs(dir.path()).0;
    let mut bytes = fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0);
    fs::write(&path, bytes).unwrap();
    files(dir.path(), "parity").into_iter().for_each(|sidecar| fs::remove_file(sidecar).unwrap());
    check(&vault, Mending::Mend);
    assert!(!check(&vault, Mending::Look).is_sound());
    assert_eq!(prune(&vault, 99_000), 0);
    assert!(aside(&vault).files > files_before);
    for (client, sequence, seed) in [(ANA, 3, 1), (ANA, 4, 2), (BEA, 2, 3)] {
        back_up(&vault, client, sequence, seed);
    }
    assert!(check(&vault, Mending::Look).is_sound());
    assert!(prune(&vault, 99_000) > 0);
    assert_eq!(aside(&vault).files, 0);
    assert!(check(&vault, Mending::Look).is_sound());
}

/// Every byte of the index files is either noticed or of no consequence; whatever was noticed is gone after a rebuild.
#[test]
fn a_changed_index_is_noticed_and_made_anew() {
    let dir = filled();
    let before = dump(&Vault::open(dir.path()).unwrap());
    for path in files(dir.path(), "index") {
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 40 + 1) {
            flip(&path, at);
            match Vault::open(dir.path()) {
                Err(StoreError::Damaged { .. }) => {}
                Err(error) => panic!("byte {at} of {}: {error}", path.display()),
                Ok(vault) => {
                    let report = check(&vault, Mending::Look);
                    assert!(!report.is_sound(), "byte {at} of {}", path.display());
                }
            }
            fs::write(&path, &whole).unwrap();
        }
    }
    let path = dir.path().join("index/places");
    flip(&path, 5);
    rebuild::rebuild(dir.path(), [1; 16], Mending::Mend, 78).unwrap();
    assert_eq!(dump(&Vault::open(dir.path()).unwrap()), before);
}

#[test]
fn a_catalog_or_index_of_another_vault_or_time_is_refused() {
    let (dir, other, later) = (filled(), tempfile::tempdir().unwrap(), filled());
    let vault = Vault::create(other.path(), &Descriptor::managed(VaultId([8; 16])), [1; 16]).unwrap();
    back_up(&vault, ANA, 1, 1);
    drop(vault);
    let catalog = dir.path().join("catalog.sqlite");
    let mine = fs::read(&catalog).unwrap();
    fs::copy(other.path().join("catalog.sqlite"), &catalog).unwrap();
    let error = Vault::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("another vault") && error.contains("--rebuild-index"), "{error}");
    fs::write(&catalog, mine).unwrap();
    Vault::open(dir.path()).unwrap();
    let vault = Vault::open(later.path()).unwrap();
    back_up(&vault, BEA, 2, 9);
    back_up(&vault, BEA, 3, 10);
    drop(vault);
    // The catalog of before over the index of after is cut back; the other way round is refused.
    let borrow = |from: &Path| {
        for name in ["ids", "places", "parents", "references", "contents"] {
            fs::copy(from.join("index").join(name), later.path().join("index").join(name)).unwrap();
        }
        Vault::open(later.path()).err().unwrap().to_string()
    };
    let error = borrow(dir.path());
    assert!(error.contains("--rebuild-index"), "{error}");
    // Nor does one that is long enough pass, if it is not this vault's.
    let vault = Vault::open(other.path()).unwrap();
    (2..9).for_each(|sequence| back_up(&vault, ANA, sequence, 20 + sequence));
    drop(vault);
    let error = borrow(other.path());
    assert!(error.contains("not the index of this catalog"), "{error}");
}

/// Something that SQLite itself does not look at: the name of a client in a row.
#[test]
fn a_changed_row_of_the_catalog_is_noticed_when_the_vault_is_opened() {
    let dir = filled();
    let path = dir.path().join("catalog.sqlite");
    let mut bytes = fs::read(&path).unwrap();
    let place = bytes.windows(3).rposition(|bytes| bytes == b"ana").unwrap();
    bytes[place] = b'A';
    fs::write(&path, bytes).unwrap();
    let error = Vault::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("snapshots") && error.contains("--rebuild-index"), "{error}");
}

#[test]
fn packs_that_do_not_belong_are_named() {
    let (dir, other) = (filled(), tempfile::tempdir().unwrap());
    let vault = Vault::create(other.path(), &Descriptor::managed(VaultId([8; 16])), [1; 16]).unwrap();
    back_up(&vault, ANA, 1, 5);
    drop(vault);
    let foreign = packs(other.path()).0;
    let place = dir.path().join("packs/zz").join(foreign.file_name().unwrap());
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::copy(&foreign, &place).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    let report = check(&vault, Mending::Look);
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    assert!(report.damage[0].what.to_string().contains("packs/zz/"), "{:?}", report.damage);
    drop(vault);
    let report = rebuild::rebuild(dir.path(), [2; 16], Mending::Mend, 78).unwrap();
    assert!(report.damage[0].why.contains("another vault"), "{:?}", report.damage);
    fs::remove_file(place).unwrap();
    // Two packs that have changed places: neither is what its name says.
    let all = files(dir.path(), "packs");
    let (one, two) = (fs::read(&all[0]).unwrap(), fs::read(&all[1]).unwrap());
    fs::write(&all[0], &two).unwrap();
    fs::write(&all[1], &one).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    let request = Request { depth: Depth::Structure, mending: Mending::Look, now: 77 };
    let report = vault.check(&request, None, &|_| Go::On).unwrap();
    assert!(
        report.damage.iter().filter(|damage| matches!(damage.what, Part::Pack(_))).count() == 2,
        "{report:?}"
    );
}
