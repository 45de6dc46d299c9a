//! Properties of the pure format: what goes in comes out, and what is accepted is canonical.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, HashMap};

use backhaul_object::bundle::{self, BundleBuilder, Cutter};
use backhaul_object::entry::{Attribute, Body, Content, Entry, FOLD_DEPTH_MAX, Metadata};
use backhaul_object::flist;
use backhaul_object::header::{Compressor, Reference};
use backhaul_object::keys::{IdKey, VaultKey};
use backhaul_object::node::{self, DirectoryBuilder, Finished, NODE_MAX, Node, write_root};
use backhaul_object::piece::Piece;
use backhaul_object::seal::{Packer, Unpacker, identify_content};
use backhaul_object::{Header, Kind, Object, ObjectId, Proof};
use bytes::Bytes;
use proptest::prelude::*;

/// A tree of names: files with an inline content, and folders.
#[derive(Debug, Clone)]
enum Tree {
    File(Vec<u8>),
    Folder(BTreeMap<Vec<u8>, Tree>),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(
        any::<u8>().prop_map(|b| if matches!(b, 0 | b'/' | b'.') { b'x' } else { b }),
        1..20,
    )
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = proptest::collection::vec(any::<u8>(), 0..300).prop_map(Tree::File);
    leaf.prop_recursive(5, 400, 40, |inner| {
        proptest::collection::btree_map(name(), inner, 0..40).prop_map(Tree::Folder)
    })
}

type Store = HashMap<ObjectId, Object>;

fn write(key: &IdKey, folder: &BTreeMap<Vec<u8>, Tree>, store: &mut Store) -> Finished {
    let mut builder = DirectoryBuilder::new(key);
    for (name, item) in folder {
        let entry =
            |body| Entry { name: name.clone(), metadata: Metadata::default(), body, extensions: vec![] };
        match item {
            Tree::File(bytes) => {
                let content = if bytes.is_empty() { Content::Empty } else { Content::Inline(bytes.clone()) };
                let body = Body::File { size: bytes.len() as u64, content, link: None };
                builder.push(entry(body), &mut |id, object| drop(store.insert(id, object)));
            }
            Tree::Folder(below) => {
                let done = write(key, below, store);
                let entry = entry(Body::Folded(vec![]));
                builder.push_directory(entry, done, &mut |id, object| drop(store.insert(id, object)));
            }
        }
    }
    builder.finish(&mut |id, object| drop(store.insert(id, object)))
}

fn read(store: &Store, id: &ObjectId) -> BTreeMap<Vec<u8>, Tree> {
    match node::decode(&store[id]).unwrap() {
        Node::Leaf(entries) => {
            entries.into_iter().map(|entry| (entry.name.clone(), read_entry(store, entry))).collect()
        }
        Node::Index(branches) => branches.iter().flat_map(|branch| read(store, &branch.node)).collect(),
    }
}

fn read_entry(store: &Store, entry: Entry) -> Tree {
    match entry.body {
        Body::File { content: Content::Inline(bytes), .. } => Tree::File(bytes),
        Body::File { .. } | Body::Symlink(_) | Body::Special(_) => Tree::File(vec![]),
        Body::Directory { node, .. } => Tree::Folder(read(store, &node)),
        Body::Folded(entries) => Tree::Folder(
            entries.into_iter().map(|entry| (entry.name.clone(), read_entry(store, entry))).collect(),
        ),
    }
}

fn show(tree: &BTreeMap<Vec<u8>, Tree>) -> String {
    format!("{tree:?}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_tree_comes_back_whatever_was_folded_or_split(top in proptest::collection::btree_map(name(), tree(), 0..60)) {
        let (key, mut store) = (VaultKey::new([1; 32]).id_key(), Store::new());
        let done = write(&key, &top, &mut store);
        let (root, _) = write_root(done, &key, &mut |id, object| drop(store.insert(id, object)));
        prop_assert_eq!(show(&read(&store, &root)), show(&top));
        for (id, object) in &store {
            prop_assert_eq!(object.identify(&key).0, *id);
            prop_assert!(object.references.iter().all(|reference| store.contains_key(&reference.id)));
        }
        // The shape follows from the content alone.
        let mut again = Store::new();
        let done = write(&key, &top, &mut again);
        prop_assert_eq!(write_root(done, &key, &mut |_, _| ()).0, root);
    }

    #[test]
    fn chains_of_folders_stay_readable_at_any_depth(depth in 1usize..300, content in 0usize..40) {
        let key = VaultKey::new([1; 32]).id_key();
        let mut tree = Tree::File(vec![7; content]);
        for _ in 0..depth {
            tree = Tree::Folder(BTreeMap::from([(b"d".to_vec(), tree)]));
        }
        let (top, mut store) = (BTreeMap::from([(b"top".to_vec(), tree)]), Store::new());
        let done = write(&key, &top, &mut store);
        let (root, _) = write_root(done, &key, &mut |id, object| drop(store.insert(id, object)));
        prop_assert_eq!(show(&read(&store, &root)), show(&top));
        prop_assert!(store.len() > depth / (FOLD_DEPTH_MAX + 1));
        prop_assert!(store.values().all(|object| object.payload.len() <= 2 * NODE_MAX));
    }

    #[test]
    fn any_file_list_comes_back(
        ids in proptest::collection::vec((any::<Option<[u8; 32]>>(), 1u64..5_000_000), 1..3_000)
    ) {
        let key = VaultKey::new([1; 32]).id_key();
        let piece = |(id, len): (Option<[u8; 32]>, u64)| match id {
            Some(id) => Piece::Data { id: ObjectId(id), len },
            None => Piece::Hole { len },
        };
        let pieces: Vec<Piece> = ids.into_iter().map(piece).collect();
        let sum = |pieces: &[Piece]| pieces.iter().map(Piece::len).sum::<u64>();
        let mut store = Store::new();
        let top = flist::build(&pieces, &key, |id, object| drop(store.insert(id, object)));
        let mut found = vec![Piece::Data { id: top, len: sum(&pieces) }];
        while let Some(object) = found.first().and_then(Piece::id).and_then(|id| store.get(&id)) {
            let level = flist::decode(object).unwrap().level;
            let below = |piece: &Piece| flist::decode(&store[&piece.id().unwrap()]).unwrap().pieces;
            for piece in &found {
                prop_assert_eq!(sum(&below(piece)), piece.len(), "a list says how much it covers");
            }
            found = found.iter().flat_map(below).collect();
            if level == 0 {
                break;
            }
        }
        prop_assert_eq!(found, pieces);
    }

    #[test]
    fn headers_are_canonical_and_decoding_never_panics(
        id: [u8; 32], proof: [u8; 16], raw: bool, plain_len in 0u32..8_000_000,
        references in proptest::collection::vec((any::<[u8; 32]>(), proptest::collection::vec(any::<u8>(), 0..4)), 0..20),
        noise in proptest::collection::vec(any::<u8>(), 0..200), flip: prop::sample::Index,
    ) {
        let references = references.into_iter().map(|(id, mut members)| {
            while members.last() == Some(&0) {
                members.pop();
            }
            Reference { id: ObjectId(id), members }
        }).collect();
        let header = Header {
            kind: Kind::Node,
            id: ObjectId(id),
            proof: Proof(proof),
            compressor: if raw { Compressor::Raw } else { Compressor::Zstd },
            plain_len,
            references,
            provides: vec![],
        };
        let bytes = header.encode();
        prop_assert_eq!(Header::decode(&bytes).unwrap(), header);
        let _ = Header::decode(&noise);
        let mut changed = bytes.clone();
        changed[flip.index(bytes.len())] ^= 1 << (noise.len() % 8);
        if let Ok(other) = Header::decode(&changed) {
            prop_assert_eq!(other.encode(), changed);
        }
    }

    #[test]
    fn a_part_of_a_bundle_has_its_id_what_is_wanted_of_it_and_nothing_else(
        files in proptest::collection::vec((any::<u8>(), 1usize..9_000, any::<bool>()), 1..60), noisy: bool,
        cut: prop::sample::Index,
    ) {
        let key = VaultKey::new([1; 32]).id_key();
        let (mut builder, mut wanted, mut contents) = (BundleBuilder::default(), Reference::whole(ObjectId([0; 32])), Vec::new());
        for (n, (seed, len, want)) in files.iter().enumerate() {
            let byte = |i: usize| if noisy { (i as u8).wrapping_mul(167) ^ (i >> 3) as u8 ^ seed } else { *seed };
            let content: Vec<u8> = (0..*len).map(byte).collect();
            let (id, proof) = identify_content(&key, &content);
            builder.push(id, proof, &content);
            if *want {
                wanted.use_member(n);
            }
            contents.push(want.then(|| Bytes::from(content)));
        }
        let mut packer = Packer::new(3).unwrap();
        let whole = builder.finish().compress(&key, &mut packer).unwrap();
        let mut cutter = Cutter::new().unwrap();
        let part = cutter.part_of(&whole, &wanted.members).unwrap();
        let opened = part.open(&key, &mut Unpacker::new().unwrap()).unwrap();
        prop_assert_eq!((part.header.id, part.header.proof), (whole.header.id, whole.header.proof));
        prop_assert_eq!(bundle::members(&opened).unwrap(), contents.clone());
        for ((_, proof), content) in opened.provides.iter().zip(&contents) {
            prop_assert_eq!(content.is_none(), proof.0 == [0; 16]);
        }
        // Of a part, too.
        let same = cutter.part_of(&part, &wanted.members).unwrap();
        prop_assert_eq!(&same.open(&key, &mut Unpacker::new().unwrap()).unwrap(), &opened);
        // A frame that ends too early, or is longer than it says, is an error or the same, and no panic.
        let mut broken = whole.clone();
        broken.body = broken.body.slice(..cut.index(broken.body.len()));
        let _ = cutter.part_of(&broken, &wanted.members);
        let mut short = whole.clone();
        short.header.plain_len /= 2;
        let _ = cutter.part_of(&short, &wanted.members);
        // And what was wrong before does not show in what comes after it.
        let again = cutter.part_of(&whole, &wanted.members).unwrap();
        prop_assert_eq!(again.open(&key, &mut Unpacker::new().unwrap()).unwrap(), opened);
    }

    #[test]
    fn sealing_returns_the_object_and_any_change_is_noticed(
        payload in proptest::collection::vec(any::<u8>(), 0..5_000), nonce: [u8; 24], flip: prop::sample::Index, bit in 0u8..8,
    ) {
        let key = VaultKey::new([1; 32]);
        let payload = Bytes::from(payload);
        let object = Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload };
        let compressed = object.clone().compress(&key.id_key(), &mut Packer::new(3).unwrap()).unwrap();
        let mut sealed = compressed.seal(&key.data_key(), nonce).unwrap();
        let opened = sealed.unseal(&key.data_key()).unwrap();
        prop_assert_eq!(opened.open(&key.id_key(), &mut Unpacker::new().unwrap()).unwrap(), object);
        let mut body = sealed.body.to_vec();
        let at = flip.index(body.len());
        body[at] ^= 1 << bit;
        sealed.body = Bytes::from(body);
        prop_assert!(sealed.unseal(&key.data_key()).is_err());
    }
}

/// Whatever is on them, files make nodes that can be sealed.
#[test]
fn a_folder_of_large_attributes_is_cut_and_comes_back() {
    let key = VaultKey::new([1; 32]).id_key();
    let (mut store, mut builder) = (Store::new(), DirectoryBuilder::new(&key));
    let entries: Vec<Entry> = (0..200u8)
        .map(|n| {
            let body = Body::File { size: 0, content: Content::Empty, link: None };
            let value = |i: u8| vec![n ^ i; 60 << 10];
            let attributes =
                [1, 2, 3, 4].map(|i| Attribute { name: format!("user.{i}").into_bytes(), value: value(i) });
            Entry { name: vec![b'n', n.max(1)], metadata: Metadata::default(), body, extensions: vec![] }
                .with_attributes(&attributes)
        })
        .skip(1)
        .filter(|entry| entry.name[1] != b'/')
        .collect();
    for entry in entries.clone() {
        builder.push(entry, &mut |id, object| drop(store.insert(id, object)));
    }
    let done = builder.finish(&mut |id, object| drop(store.insert(id, object)));
    let (root, _) = write_root(done, &key, &mut |id, object| drop(store.insert(id, object)));
    let (mut packer, mut found, mut open) = (Packer::new(3).unwrap(), Vec::new(), vec![root]);
    while let Some(id) = open.pop() {
        store[&id].clone().compress(&key, &mut packer).unwrap();
        match node::decode(&store[&id]).unwrap() {
            Node::Leaf(entries) => found.extend(entries),
            Node::Index(branches) => open.extend(branches.iter().map(|branch| branch.node)),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(found, entries);
    assert!(found.iter().all(|entry| entry.attributes().len() == 4));
}
