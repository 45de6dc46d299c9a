//! Golden vectors: the format as bytes, frozen. `BLESS=1 cargo test -p backhaul-object --test vectors` writes
//! them anew, which is a change of the format and needs a decision record.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;
use std::path::Path;

use backhaul_object::bundle::{self, BundleBuilder};
use backhaul_object::chunker::Chunker;
use backhaul_object::descriptor::Descriptor;
use backhaul_object::entry::{
    Attribute, Body, Content, Device, Entry, InodeFlags, Metadata, Special, Totals,
};
use backhaul_object::flist;
use backhaul_object::ids::{ClientId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::node::{self, DirectoryBuilder, Finished, Node, write_root};
use backhaul_object::patch::{self, Program};
use backhaul_object::piece::Piece;
use backhaul_object::seal::{Packer, Unpacker, identify_content};
use backhaul_object::signature::SignatureKey;
use backhaul_object::snapshot::Snapshot;
use backhaul_object::{Compressed, FormatError, Header, Kind, Object, ObjectId, Sealed};
use bytes::Bytes;

fn key() -> VaultKey {
    VaultKey::new(*b"0123456789abcdef0123456789abcdef")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// Compares lines `name = hex` with the file, or writes it.
fn check(file: &str, lines: &[(&str, Vec<u8>)]) {
    let mut text = String::new();
    for (name, bytes) in lines {
        writeln!(text, "{name} = {}", hex(bytes)).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/vectors").join(file);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{file}");
}

fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(b"backhaul test vector").finalize_xof().fill(&mut out);
    out
}

/// Header and sealed form of an object; opening both again gives the object back.
fn sealed(object: Object) -> Vec<(&'static str, Vec<u8>)> {
    let key = key();
    let compressed = object.clone().compress(&key.id_key(), &mut Packer::new(3).unwrap()).unwrap();
    let raw = Compressed { body: object.payload.clone(), header: compressed.header.clone() };
    let header = Header { compressor: backhaul_object::header::Compressor::Raw, ..raw.header };
    let sealed = Compressed { header, body: raw.body }.seal(&key.data_key(), [7; 24]).unwrap();
    let again =
        Sealed { header: Header::decode(&sealed.header.encode()).unwrap(), body: sealed.body.clone() };
    let opened =
        again.unseal(&key.data_key()).unwrap().open(&key.id_key(), &mut Unpacker::new().unwrap()).unwrap();
    assert_eq!(opened, object);
    assert_eq!(compressed.open(&key.id_key(), &mut Unpacker::new().unwrap()).unwrap(), object);
    vec![
        ("payload", object.payload.to_vec()),
        ("header", sealed.header.encode()),
        ("sealed", sealed.body.to_vec()),
    ]
}

#[test]
fn keys_and_ids() {
    let key = key();
    let (id, proof) = identify_content(&key.id_key(), b"content");
    let gear = key.chunker_key().gear();
    check(
        "keys.txt",
        &[
            ("vault-key", key.expose().to_vec()),
            ("id-key", key.id_key().expose().to_vec()),
            ("chunker-key", key.chunker_key().expose().to_vec()),
            ("content-id", id.as_bytes().to_vec()),
            ("content-proof", proof.as_bytes().to_vec()),
            ("gear-first", gear[0].to_le_bytes().to_vec()),
            ("gear-last", gear[255].to_le_bytes().to_vec()),
        ],
    );
}

#[test]
fn chunk_object() {
    let payload = Bytes::from_static(b"the bytes of a chunk");
    check("chunk.txt", &sealed(Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload }));
}

#[test]
fn patch_object() {
    let key = key();
    let base = noise(5_000);
    let mut content = base[..4_500].to_vec();
    content[2_000..2_004].copy_from_slice(b"XXXX");
    content.extend_from_slice(b"the end");
    let signatures = SignatureKey::new(&key.chunker_key());
    let signed = signatures.sign(&base);
    let (program, used) = signatures.difference(std::slice::from_ref(&signed), &content, 4_000).unwrap();
    assert_eq!(used, [0]);
    let payload = Bytes::from(program.encode());
    let references = vec![patch::base(identify_content(&key.id_key(), &base).0)];
    let object = Object { kind: Kind::Patch, references, provides: vec![], payload: payload.clone() };
    let (id, proof) = identify_content(&key.id_key(), &content);
    let sent = object.compress_as(id, proof, &mut Packer::new(3).unwrap()).unwrap();
    let made = patch::rebuild(&sent, &key.id_key(), &mut Unpacker::new().unwrap(), &mut |_, _| {
        Ok::<_, FormatError>(Bytes::from(base.clone()))
    });
    assert_eq!(made.unwrap().payload, content);
    let raw = Header { compressor: backhaul_object::header::Compressor::Raw, ..sent.header };
    let mut blocks = Vec::new();
    for block in &signed.blocks {
        blocks.extend_from_slice(&block.weak.to_le_bytes());
        blocks.extend_from_slice(&block.strong.to_le_bytes());
    }
    let of_members = vec![patch::base_of_members(raw.references[0].id, 9).unwrap()];
    let of_members = Header { references: of_members, ..raw.clone() };
    let headers =
        [("header", raw.encode()), ("header with a bundle of 9 members as base", of_members.encode())];
    let [first, second] = headers;
    check("patch.txt", &[("signatures", blocks), ("payload", payload.to_vec()), first, second]);
}

#[test]
fn bundle_object() {
    let mut builder = BundleBuilder::default();
    for content in [&b"first member"[..], b"second", b"third member of three"] {
        let (id, proof) = identify_content(&key().id_key(), content);
        builder.push(id, proof, content);
    }
    let object = builder.finish();
    assert_eq!(bundle::members(&object).unwrap()[1].as_deref(), Some(&b"second"[..]));
    check("bundle.txt", &sealed(object));
}

#[test]
fn file_list_object() {
    let pieces: Vec<Piece> = (0..300u64)
        .map(|i| Piece::Data { id: identify_content(&key().id_key(), &i.to_le_bytes()).0, len: 1_000 + i })
        .collect();
    let mut objects = Vec::new();
    let top = flist::build(&pieces, &key().id_key(), |id, object| objects.push((id, object)));
    let (id, object) = objects.pop().unwrap();
    assert_eq!(id, top);
    assert_eq!(flist::decode(&object).unwrap().pieces, pieces);
    let payload = object.payload.to_vec();
    check("flist.txt", &[("top", top.as_bytes().to_vec()), ("payload", payload)]);
}

#[test]
fn file_with_holes() {
    let chunk = |i: u8| Piece::Data { id: ObjectId([i; 32]), len: 4_096 };
    let pieces = [Piece::Hole { len: 1 << 40 }, chunk(1), Piece::Hole { len: 1 }, chunk(1), chunk(2)];
    let mut objects = Vec::new();
    flist::build(&pieces, &key().id_key(), |_, object| objects.push(object));
    assert_eq!(flist::decode(&objects[0]).unwrap().pieces, pieces);
    assert_eq!(objects[0].references.len(), 2, "a hole refers to nothing, a chunk is named once");
    check("holes.txt", &[("payload", objects[0].payload.to_vec())]);
}

fn file(name: &str, content: Content, size: u64) -> Entry {
    let metadata = Metadata { mode: 0o644, uid: 1_000, gid: 100, mtime_s: 1_700_000_000, mtime_ns: 5 };
    Entry { name: name.into(), metadata, body: Body::File { size, content, link: None }, extensions: vec![] }
}

fn directory(entries: Vec<Entry>) -> (Vec<(ObjectId, Object)>, Finished) {
    let key = key().id_key();
    let mut objects = Vec::new();
    let mut builder = DirectoryBuilder::new(&key);
    for entry in entries {
        builder.push(entry, &mut |id, object| objects.push((id, object)));
    }
    let done = builder.finish(&mut |id, object| objects.push((id, object)));
    (objects, done)
}

#[test]
fn node_object() {
    let id = ObjectId([9; 32]);
    let entries = vec![
        file("bundled", Content::Member { bundle: id, member: 3 }, 900),
        file("chunked", Content::Chunks(vec![Piece::Data { id: ObjectId([8; 32]), len: 300_000 }]), 300_000),
        file("empty", Content::Empty, 0),
        file("inline", Content::Inline(b"here".to_vec()), 4),
        Entry { body: Body::Symlink(b"../there".to_vec()), ..file("link", Content::Empty, 0) },
    ];
    let (_, done) = directory(entries.clone());
    let mut objects = Vec::new();
    let (root, totals) = write_root(done, &key().id_key(), &mut |id, object| objects.push((id, object)));
    assert_eq!(totals, Totals { files: 5, dirs: 0, bytes: 300_904 });
    assert_eq!(objects[0].0, root);
    assert_eq!(node::decode(&objects[0].1).unwrap(), Node::Leaf(entries));
    check("node.txt", &sealed(objects.remove(0).1));
}

#[test]
fn special_files() {
    let plain = |name: &str, body, link| Entry {
        body,
        extensions: Entry::extensions_of_plain(link),
        ..file(name, Content::Empty, 0)
    };
    let device = Device { major: 259, minor: 1_048_575 };
    let entries = vec![
        plain("block", Body::Special(Special::Block(device)), Some(0x0102_0304_0506_0708)),
        plain("character", Body::Special(Special::Character(Device { major: 1, minor: 3 })), None),
        plain("link", Body::Symlink(b"fifo".to_vec()), Some(9)),
        plain("pipe", Body::Special(Special::Fifo), None).with_attributes(&[
            Attribute { name: b"trusted.a".to_vec(), value: vec![] },
            Attribute { name: b"user.b".to_vec(), value: b"\x00value".to_vec() },
        ]),
        plain("socket", Body::Special(Special::Socket), None),
    ];
    let (_, done) = directory(entries.clone());
    let mut objects = Vec::new();
    let (_, totals) = write_root(done, &key().id_key(), &mut |id, object| objects.push((id, object)));
    assert_eq!(totals, Totals { files: 5, dirs: 0, bytes: 0 });
    let links: Vec<_> = entries.iter().map(Entry::link).collect();
    assert_eq!(links, [Some(0x0102_0304_0506_0708), None, Some(9), None, None]);
    assert_eq!(node::decode(&objects[0].1).unwrap(), Node::Leaf(entries));
    check("special.txt", &sealed(objects.remove(0).1));
}

#[test]
fn flagged_files() {
    let flagged = |name: &str, bits, project| {
        file(name, Content::Empty, 0).with_inode_flags(InodeFlags { bits, project })
    };
    let entries = vec![
        flagged("both", 0x10, 7),
        flagged("flags", 0x4000_0000, 0),
        flagged("none", 0, 0),
        flagged("project", 0, u32::MAX),
    ];
    let (_, done) = directory(entries.clone());
    let mut objects = Vec::new();
    write_root(done, &key().id_key(), &mut |id, object| objects.push((id, object)));
    let flags: Vec<_> =
        entries.iter().map(Entry::inode_flags).map(|flags| (flags.bits, flags.project)).collect();
    assert_eq!(flags, [(0x10, 7), (0x4000_0000, 0), (0, 0), (0, u32::MAX)]);
    assert_eq!(node::decode(&objects[0].1).unwrap(), Node::Leaf(entries));
    check("inode_flags.txt", &sealed(objects.remove(0).1));
}

/// Where big directories are cut follows from names and key alone.
#[test]
fn directory_split() {
    let entries = (0..3_000).map(|i| file(&format!("{i:05}"), Content::Empty, 0)).collect();
    let (objects, done) = directory(entries);
    let Finished::Written { node: top, totals } = done else { panic!("{done:?}") };
    assert_eq!(totals.files, 3_000);
    let Node::Index(branches) = node::decode(&objects.last().unwrap().1).unwrap() else { panic!() };
    let firsts = branches.iter().map(|branch| branch.first.clone()).collect::<Vec<_>>().join(&b' ');
    check("split.txt", &[("top", top.as_bytes().to_vec()), ("first-names", firsts)]);
}

#[test]
fn snapshot_object() {
    let snapshot = Snapshot {
        vault: VaultId([1; 16]),
        client: ClientId([2; 16]),
        sequence: 7,
        previous: Some(ObjectId([3; 32])),
        root: ObjectId([4; 32]),
        client_time: 1_700_000_000,
        paths: vec![b"/home".to_vec(), b"/etc/\xff".to_vec()],
        tags: vec!["before".to_owned()],
        totals: Totals { files: 10, dirs: 2, bytes: 12_345 },
        errors: 1,
        not_kept: vec![("fifo".to_owned(), 3)],
    };
    let object = snapshot.encode();
    assert_eq!(Snapshot::decode(&object).unwrap(), snapshot);
    check("snapshot.txt", &sealed(object));
}

#[test]
fn descriptor_and_cuts() {
    let descriptor = Descriptor::managed(VaultId([1; 16]));
    assert_eq!(Descriptor::decode(&descriptor.encode()).unwrap(), descriptor);
    let chunker = Chunker::new(&descriptor, &key().chunker_key());
    let data = noise(12 << 20);
    let (mut at, mut cuts) = (0, Vec::new());
    while at < data.len() {
        at += chunker.cut(&data[at..]);
        cuts.extend_from_slice(&(at as u32).to_le_bytes());
    }
    check("descriptor.txt", &[("descriptor", descriptor.encode()), ("cuts", cuts)]);
}

/// Decoders meet every prefix and every changed byte of every vector without a panic.
#[test]
fn damaged_bytes_are_errors() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/vectors");
    for file in std::fs::read_dir(dir).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for line in text.lines() {
            let (name, bytes) = line.split_once(" = ").map(|(name, hex)| (name, unhex(hex))).unwrap();
            if name != "payload" && name != "header" && name != "descriptor" {
                continue;
            }
            for end in 0..bytes.len().min(600) {
                let mut changed = bytes.clone();
                changed[end] ^= 0x55;
                for input in [&bytes[..end], &changed[..]] {
                    decode_all(input);
                }
                assert!(name != "header" || Header::decode(&bytes[..end]).is_err());
            }
        }
    }
}

fn decode_all(bytes: &[u8]) {
    let _ = Header::decode(bytes);
    let _ = Descriptor::decode(bytes);
    let _ = Program::decode(&Bytes::copy_from_slice(bytes), 1);
    for kind in [Kind::Node, Kind::Flist, Kind::Snap, Kind::Bundle] {
        let references = vec![backhaul_object::Reference::whole(ObjectId([1; 32]))];
        let payload = Bytes::copy_from_slice(bytes);
        let object = Object { kind, references, provides: vec![], payload };
        let _ = node::decode(&object);
        let _ = flist::decode(&object);
        let _ = Snapshot::decode(&object);
        let _ = bundle::members(&object);
    }
}
