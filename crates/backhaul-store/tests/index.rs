//! The index files: their bytes, and those of an earlier version.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use backhaul_object::codec::Write as _;
use backhaul_object::header::Compressor;
use backhaul_object::ids::{ClientId, SessionId};
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::{Packer, identify_content};
use backhaul_object::{Header, Kind, Object, ObjectId, Proof, Sealed};
use backhaul_store::catalog::Counts;
use backhaul_store::check::{Depth, Go, Mending, Part, Report, Request, Selection};
use backhaul_store::index::{Edge, Index, Location, Place, Scan};
use backhaul_store::reclaim::mark::close;
use backhaul_store::{Bits, Ordinal, Vault, rebuild};
use backhaul_tests::dice::Dice;
use bytes::Bytes;

const FILES: [&str; 5] = ["ids", "places", "parents", "references", "contents"];

/// Vectors of the files of version 2: a chunk, a bundle of two members, a node, a lost number, a snapshot.
#[test]
fn files_of_version_2() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::open(dir.path(), &Counts::default()).unwrap();
    let header = |kind, seed: u8, members: u8| Header {
        kind,
        id: ObjectId(*blake3::hash(&[seed]).as_bytes()),
        proof: Proof([seed; 16]),
        compressor: Compressor::Raw,
        plain_len: 0,
        references: vec![],
        provides: (0..members).map(|m| (ObjectId([0x80 + m; 32]), Proof([m; 16]))).collect(),
    };
    let edge = |to, members: &[u8]| Edge { to: Ordinal(to), members: members.to_vec() };
    let at = |pack, offset, len| Location { pack, offset, len };
    index.append(&header(Kind::Chunk, 1, 0), at(1, 64, 700), &[]).unwrap();
    index.append(&header(Kind::Bundle, 2, 2), at(1, 764, 9_000_000), &[]).unwrap();
    index.append(&header(Kind::Node, 3, 0), at(2, 64, 90), &[edge(0, &[]), edge(1, &[2])]).unwrap();
    index.append_lost();
    index.append(&header(Kind::Snap, 4, 0), at((1 << 30) - 1, (1 << 26) - 1, 80), &[edge(2, &[])]).unwrap();
    index.flush().unwrap();
    let mut text = String::new();
    for name in FILES {
        let hex: String =
            fs::read(dir.path().join(name)).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{name} = {hex}").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/vectors/index.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

/// Over several blocks of parents and windows of references: what a mark reaches is what a walk reaches that follows each
/// reference by itself.
#[test]
fn a_mark_over_many_blocks_reaches_what_a_walk_reaches() {
    const COUNT: u64 = 120_000;
    let (dir, mut dice) = (tempfile::tempdir().unwrap(), Dice::of(7, 0));
    let (mut parents, mut references) = (Vec::new(), Vec::new());
    let mut children: Vec<Vec<u32>> = vec![Vec::new(); COUNT as usize];
    for n in (21..COUNT).step_by(2) {
        for _ in 0..100 + dice.below(60) {
            // Always to numbers of the same remainder: no root reaches everything.
            let back = 7 * (1 + dice.below((n / 7).min(9_000)));
            children[n as usize].push((n - back) as u32);
            let has_members = dice.once_in(9);
            references.put_varint(back << 1 | u64::from(has_members));
            if has_members {
                references.put_bytes(&[3]);
            }
        }
        parents.extend_from_slice(&n.to_le_bytes());
        parents.extend_from_slice(&(references.len() as u64).to_le_bytes());
    }
    let count = parents.len() as u64 / 16;
    assert!(count > 3 * 16_384 && references.len() > 4 * (4 << 20), "{count}, {}", references.len());
    fs::write(dir.path().join("parents"), parents).unwrap();
    fs::write(dir.path().join("references"), references).unwrap();
    let scan = Scan::open(dir.path(), COUNT, count).unwrap();
    for roots in 1..5 {
        let roots: Vec<u64> = (0..roots).map(|_| COUNT / 2 + dice.below(COUNT / 2)).collect();
        let mut live: Bits = roots.iter().map(|root| Ordinal(*root)).collect();
        close(&scan, &mut live, &mut |_| Ok(())).unwrap();
        let (mut walked, mut open) = (Bits::default(), roots);
        while let Some(next) = open.pop() {
            if !walked.has(Ordinal(next)) {
                walked.add(Ordinal(next));
                open.extend(children[next as usize].iter().map(|child| u64::from(*child)));
            }
        }
        assert!(live == walked, "{} and not {}", live.count(), walked.count());
        assert!(live.count() < COUNT);
    }
}

/// A vault whose index is of version 1, as Backhaul left it then: two clients, three snapshots, one chunk lost.
fn old() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/index-1");
    let copied = std::process::Command::new("cp").arg("-r").arg(&golden).arg(dir.path().join("v")).status();
    assert!(copied.unwrap().success());
    fs::create_dir(dir.path().join("v/open")).unwrap();
    dir
}

/// What the vault of version 1 held, as it said itself, with ids as long as they are now.
fn known() -> String {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/index-1.dump");
    let cut = |line: &str| {
        let mut words: Vec<&str> = line.split(' ').collect();
        if words[0] == "object" {
            words[2] = &words[2][..48];
        }
        words.join(" ") + "\n"
    };
    fs::read_to_string(golden).unwrap().lines().map(cut).collect()
}

fn dump(vault: &Vault) -> String {
    let mut out = Vec::new();
    vault.dump(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn check(vault: &Vault) -> Report {
    let request = Request { depth: Depth::ReadData(Selection::All), mending: Mending::Look, now: 77 };
    vault.check(&request, None, &|_| Go::On).unwrap()
}

#[test]
fn an_index_of_version_1_is_converted_when_the_vault_is_opened() {
    let dir = old();
    let root = dir.path().join("v");
    // What a conversion that was cut off has left is of no consequence.
    fs::write(root.join("index/ids"), b"half").unwrap();
    fs::write(root.join("index/contents"), [7; 500]).unwrap();
    let vault = Vault::open(&root).unwrap();
    assert_eq!(dump(&vault), known());
    let lost: Vec<_> = check(&vault).damage;
    assert!(matches!(lost[..], [ref one] if matches!(one.what, Part::Object(_))), "{lost:?}");
    // Members are found, and their bundles have their whole ids.
    let (two, proof) = identify_content(&VaultKey::new([7; 32]).id_key(), b"two");
    let [hit] = vault.find(two.prefix()).unwrap()[..] else { panic!("one hit") };
    let Place::Member { bundle, bundle_id, member } = hit.place else { panic!("{hit:?}") };
    let header = vault.header(bundle).unwrap();
    assert_eq!((bundle_id, header.provides[usize::from(member)]), (header.id, (two, proof)));
    drop(vault);
    let mut left: Vec<_> =
        fs::read_dir(root.join("index")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    let mut files = FILES;
    files.sort();
    assert_eq!(left, files);
    assert_eq!(dump(&Vault::open(&root).unwrap()), known());
}

/// A conversion that fails leaves what it found, and nothing that takes room.
#[test]
fn a_conversion_that_fails_leaves_nothing_of_the_new_index() {
    let dir = old();
    let root = dir.path().join("v");
    let names = || {
        let entries = fs::read_dir(root.join("index")).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let before = names();
    let members = root.join("index/members");
    let whole = fs::read(&members).unwrap();
    fs::write(&members, &whole[..whole.len() - 1]).unwrap();
    Vault::open(&root).err().unwrap();
    assert_eq!(names(), before);
    fs::write(&members, whole).unwrap();
    assert_eq!(dump(&Vault::open(&root).unwrap()), known());
}

#[test]
fn what_was_lost_before_a_conversion_comes_back_under_its_number() {
    let dir = old();
    let root = dir.path().join("v");
    let vault = Vault::open(&root).unwrap();
    let mut noise = [0; 40];
    blake3::Hasher::new().update(&200_u64.to_le_bytes()).finalize_xof().fill(&mut noise);
    let key = VaultKey::new([7; 32]);
    let chunk = Object {
        kind: Kind::Chunk,
        references: vec![],
        provides: vec![],
        payload: Bytes::copy_from_slice(&noise),
    };
    let packed = chunk.compress(&key.id_key(), &mut Packer::new(3).unwrap()).unwrap();
    let sealed: Sealed = packed.seal(&key.data_key(), [1; 24]).unwrap();
    assert_eq!(vault.ordinal(&sealed.header.id).unwrap(), None);
    let mut session = vault.begin(SessionId([8; 16]), ClientId([2; 16]));
    let ordinal = session.append(&sealed, &[]).unwrap();
    session.finish().unwrap();
    let count = known().lines().filter(|line| line.starts_with("object")).count() as u64;
    assert!(ordinal.0 < count, "{ordinal:?} is one of the {count} old numbers");
    assert!(check(&vault).damage.is_empty());
    let before = dump(&vault);
    drop(vault);
    rebuild::rebuild(&root, [1; 16], Mending::Look, 78).unwrap();
    assert_eq!(dump(&Vault::open(&root).unwrap()), before);
}

/// A bundle's own row may be anything: members are then wanted, and `check` says so.
#[test]
fn a_bundles_row_that_is_wrong_is_noticed() {
    let dir = old();
    let root = dir.path().join("v");
    drop(Vault::open(&root).unwrap());
    let path = root.join("index/contents");
    let whole = fs::read(&path).unwrap();
    let two = identify_content(&VaultKey::new([7; 32]).id_key(), b"two").0;
    for (at, found) in [(3, 0), (23, 1), (25, 0), (29, 0)] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let vault = Vault::open(&root).unwrap();
        assert_eq!(vault.find(two.prefix()).unwrap().len(), found, "byte {at}");
        assert!(check(&vault).damage.iter().any(|damage| damage.what == Part::Index), "byte {at}");
        drop(vault);
    }
}
