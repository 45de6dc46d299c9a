//! Whole restores into temporary folders, from trees built by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use backhaul_object::bundle::{BundleBuilder, Cutter};
use backhaul_object::entry::{Body, Content, Entry, Metadata};
use backhaul_object::flist;
use backhaul_object::keys::IdKey;
use backhaul_object::node::{DirectoryBuilder, Finished, write_root};
use backhaul_object::piece::Piece;
use backhaul_object::seal::{Packer, Unpacker, identify_content};
use backhaul_object::{Kind, Object, Reference};
use bytes::Bytes;

use super::*;

mod hostile;
mod partly;
mod races;
mod selected;

pub(crate) struct Source {
    pub(crate) objects: HashMap<ObjectId, Object>,
    pub(crate) gone: HashSet<ObjectId>,
    pub(crate) key: IdKey,
    /// What was asked for.
    reads: std::sync::Mutex<Vec<ObjectId>>,
    /// Those of which only some members were.
    parts: std::sync::Mutex<Vec<Reference>>,
    /// Where what is there lies, if anybody knows.
    places: HashMap<ObjectId, u64>,
    /// Reads until the session ends.
    lasts: std::sync::atomic::AtomicI64,
}

impl ObjectSource for Source {
    fn read(&self, ids: &[ObjectId]) -> Result<Vec<Object>, TransferError> {
        let get = |id: &ObjectId| match self.objects.get(id) {
            Some(object) if !self.gone.contains(id) => Ok(object.clone()),
            _ => Err(TransferError::NotFound(*id)),
        };
        if self.lasts.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(TransferError::Lost("it was cut".to_owned()));
        }
        self.reads.lock().unwrap().extend(ids);
        ids.iter().map(get).collect()
    }

    fn arrange(&self, ids: &[ObjectId]) -> Result<Vec<usize>, TransferError> {
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|at| self.places.get(&ids[*at]));
        Ok(order)
    }

    /// Nothing comes that was not asked for.
    fn read_parts(&self, wanted: &[Reference]) -> Result<Vec<Object>, TransferError> {
        self.parts.lock().unwrap().extend(wanted.iter().filter(|one| !one.members.is_empty()).cloned());
        let whole = self.read(&wanted.iter().map(|one| one.id).collect::<Vec<_>>())?;
        let (mut packer, mut unpacker) = (Packer::new(1).unwrap(), Unpacker::new().unwrap());
        let mut cutter = Cutter::new().unwrap();
        let mut part = |(object, one): (Object, &Reference)| {
            if one.members.is_empty() {
                return Ok(object);
            }
            let damaged = |why| TransferError::Damaged { id: one.id, why };
            let packed = object.compress(&self.key, &mut packer).map_err(damaged)?;
            let part = cutter.part_of(&packed, &one.members).map_err(damaged)?;
            part.open(&self.key, &mut unpacker).map_err(damaged)
        };
        whole.into_iter().zip(wanted).map(&mut part).collect()
    }
}

pub(crate) enum Item {
    Dir(BTreeMap<Vec<u8>, Item>),
    File(Content, u64, Option<u64>),
    Link(&'static [u8]),
}

fn owner() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

impl Source {
    pub(crate) fn new() -> Self {
        Self {
            objects: HashMap::new(),
            gone: HashSet::new(),
            key: IdKey::new([7; 32]),
            reads: std::sync::Mutex::default(),
            parts: std::sync::Mutex::default(),
            places: HashMap::new(),
            lasts: i64::MAX.into(),
        }
    }

    pub(crate) fn chunk(&mut self, data: &[u8]) -> Piece {
        let payload = Bytes::copy_from_slice(data);
        let object = Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload };
        let (id, _) = object.identify(&self.key);
        self.objects.insert(id, object);
        Piece::Data { id, len: data.len() as u64 }
    }

    pub(crate) fn bundle(&mut self, files: &[&[u8]]) -> ObjectId {
        let mut builder = BundleBuilder::default();
        for file in files {
            let (id, proof) = identify_content(&self.key, file);
            builder.push(id, proof, file);
        }
        let object = builder.finish();
        let (id, _) = object.identify(&self.key);
        self.objects.insert(id, object);
        id
    }

    pub(crate) fn flist(&mut self, pieces: &[Piece]) -> ObjectId {
        let (key, objects) = (self.key.clone(), &mut self.objects);
        flist::build(pieces, &key, |id, object| drop(objects.insert(id, object)))
    }

    pub(crate) fn tree(&mut self, items: BTreeMap<Vec<u8>, Item>) -> ObjectId {
        let key = self.key.clone();
        let done = self.dir(items, &key);
        write_root(done, &key, &mut |id, object| drop(self.objects.insert(id, object))).0
    }

    fn dir(&mut self, items: BTreeMap<Vec<u8>, Item>, key: &IdKey) -> Finished {
        let mut builder = DirectoryBuilder::new(key);
        let (uid, gid) = owner();
        for (i, (name, item)) in items.into_iter().enumerate() {
            let is_dir = matches!(item, Item::Dir(_));
            let mode = if is_dir { 0o755 } else { 0o640 };
            let mtime_s = 1_600_000_000 + i as i64;
            let metadata = Metadata { mode, uid, gid, mtime_s, mtime_ns: 123_456_789 };
            let entry = |body| Entry { name, metadata, body, extensions: vec![] };
            match item {
                Item::Dir(items) => {
                    let done = self.dir(items, key);
                    let entry = entry(Body::Folded(vec![]));
                    builder.push_directory(entry, done, &mut |id, o| drop(self.objects.insert(id, o)));
                }
                Item::File(content, size, link) => builder
                    .push(entry(Body::File { size, content, link }), &mut |id, o| {
                        drop(self.objects.insert(id, o))
                    }),
                Item::Link(to) => builder
                    .push(entry(Body::Symlink(to.to_vec())), &mut |id, o| drop(self.objects.insert(id, o))),
            }
        }
        builder.finish(&mut |id, o| drop(self.objects.insert(id, o)))
    }
}

pub(crate) fn dir<const N: usize>(items: [(&[u8], Item); N]) -> BTreeMap<Vec<u8>, Item> {
    items.into_iter().map(|(name, item)| (name.to_vec(), item)).collect()
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let step = move || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (x >> 33) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

struct Sample {
    source: Source,
    root: ObjectId,
    bundle: ObjectId,
    big: Vec<u8>,
    long: Vec<u8>,
}

fn inline(text: &[u8]) -> Item {
    Item::File(Content::Inline(text.to_vec()), text.len() as u64, None)
}

fn sample() -> Sample {
    let mut source = Source::new();
    let (a, b) = (noise(3_000, 1), noise(70_000, 2));
    let bundle = source.bundle(&[&a, &b]);
    let big = noise(9 << 20, 3);
    let pieces: Vec<Piece> = big.chunks(2 << 20).map(|data| source.chunk(data)).collect();
    let long = noise(40 << 20, 4);
    let listed: Vec<Piece> = long.chunks(64 << 10).map(|data| source.chunk(data)).collect();
    let list = source.flist(&listed);
    let member = |member, len| Item::File(Content::Member { bundle, member }, len, None);
    let linked = || Item::File(Content::Member { bundle, member: 0 }, 3_000, Some(9));
    let many = (0..2_000).map(|i| (format!("n{i:04}").into_bytes(), inline(format!("{i}").as_bytes())));
    let home = dir([
        (b"a", member(0, 3_000)),
        (b"b", member(1, 70_000)),
        (b"big", Item::File(Content::Chunks(pieces), 9 << 20, None)),
        (b"empty", Item::File(Content::Empty, 0, None)),
        (b"link1", linked()),
        (b"long", Item::File(Content::Flist(list), 40 << 20, None)),
        (b"many", Item::Dir(many.collect())),
        (b"sub", Item::Dir(dir([(b"link2", linked()), (b"to", Item::Link(b"../a")), (b"z", inline(b"zz"))]))),
        (b"\xff\xfe", inline(b"not utf-8")),
    ]);
    let root = source.tree(dir([(b"home", Item::Dir(dir([(b"ana", Item::Dir(home))])))]));
    Sample { source, root, bundle, big, long }
}

fn request(target: &Path, overwrite: Overwrite) -> RestoreRequest {
    RestoreRequest { verify: true, overwrite, ..RestoreRequest::to(target.to_owned()) }
}

/// An independent walk: path, type and mode, mtime, content.
fn picture(top: &Path) -> BTreeMap<Vec<u8>, (u32, i64, i64, Vec<u8>)> {
    let mut out = BTreeMap::new();
    let mut todo = vec![top.to_owned()];
    while let Some(at) = todo.pop() {
        for item in fs::read_dir(&at).unwrap() {
            let path = item.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_dir() {
                todo.push(path.clone());
                vec![]
            } else if meta.is_symlink() {
                fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
            out.insert(name, (meta.mode(), meta.mtime(), meta.mtime_nsec(), content));
        }
    }
    out
}

/// A restore into a folder, with the key that makes ids.
fn again(sample: &Sample, target: &Path) -> RestoreRequest {
    RestoreRequest { id_key: Some(sample.source.key.clone()), ..request(target, Overwrite::IfChanged) }
}

#[test]
fn the_whole_tree_comes_back_and_again() {
    let Sample { source, root, big, long, .. } = sample();
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("new/place");
    let progress = request(&target, Overwrite::Always);
    let done = restore(&source, root, None, &progress).unwrap();
    assert_eq!(done.errors, []);
    assert_eq!((done.files, done.dirs, done.symlinks), (2_009, 4, 1));
    assert_eq!(progress.progress.verified.load(Ordering::Relaxed), 2_008);
    let seen = picture(&target);
    assert_eq!(seen.len(), 2_014);
    let at = |name: &[u8]| &seen[&[b"home/ana/", name].concat()];
    assert_eq!(at(b"a"), &(0o100_640, 1_600_000_000, 123_456_789, noise(3_000, 1)));
    assert_eq!(at(b"b").3, noise(70_000, 2));
    assert!(at(b"big").3 == big && at(b"long").3 == long && at(b"empty").3.is_empty());
    assert_eq!(at(b"\xff\xfe").3, b"not utf-8");
    assert_eq!((at(b"sub").0, at(b"sub").1, at(b"sub").2), (0o040_755, 1_600_000_007, 123_456_789));
    assert_eq!((at(b"sub/to").1, at(b"sub/to").3.as_slice()), (1_600_000_001, &b"../a"[..]));
    assert_eq!(at(b"many/n1999").3, b"1999");
    let ino = |name: &str| fs::metadata(target.join("home/ana").join(name)).unwrap().ino();
    assert_eq!(ino("link1"), ino("sub/link2"));
    assert_ne!(ino("link1"), ino("a"));

    for (how, files) in [(Overwrite::Always, 2_009), (Overwrite::IfChanged, 0), (Overwrite::Never, 0)] {
        let again = restore(&source, root, None, &request(&target, how)).unwrap();
        assert_eq!((again.files, again.errors), (files, vec![]), "{how:?}");
        assert!(picture(&target) == seen, "{how:?}");
    }
    let checked = verify_restored(&source, root, None, &request(&target, Overwrite::Always)).unwrap();
    assert_eq!((checked.files, checked.errors), (2_009, vec![]));
    fs::write(target.join("home/ana/sub/z"), "zy").unwrap();
    let checked = verify_restored(&source, root, None, &request(&target, Overwrite::Always)).unwrap();
    assert_eq!(checked.errors.len(), 1);
    assert_eq!(checked.errors[0].0, target.join("home/ana/sub/z"));
}

#[test]
fn one_folder_and_one_file() {
    let Sample { source, root, .. } = sample();
    let temp = tempfile::tempdir().unwrap();
    let done =
        restore(&source, root, Some(b"/home/ana/sub"), &request(temp.path(), Overwrite::Always)).unwrap();
    assert_eq!((done.files, done.dirs, done.symlinks), (2, 0, 1));
    assert_eq!(fs::read(temp.path().join("z")).unwrap(), b"zz");
    let done = restore(&source, root, Some(b"home/ana/b"), &request(temp.path(), Overwrite::Always)).unwrap();
    assert_eq!((done.files, done.bytes), (1, 70_000));
    assert_eq!(fs::read(temp.path().join("b")).unwrap(), noise(70_000, 2));
    let mut dry = request(&temp.path().join("none"), Overwrite::Always);
    dry.dry_run = true;
    let done = restore(&source, root, None, &dry).unwrap();
    assert_eq!((done.files, done.dirs, done.errors), (2_009, 4, vec![]));
    assert!(!temp.path().join("none").exists());
}

#[test]
fn nothing_is_written_through_a_link() {
    let Sample { source, root, .. } = sample();
    for how in [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never] {
        let (temp, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("z"), "canary").unwrap();
        fs::create_dir(temp.path().join("ana")).unwrap();
        symlink(outside.path(), temp.path().join("ana/sub")).unwrap();
        symlink(outside.path().join("z"), temp.path().join("ana/a")).unwrap();
        let done = restore(&source, root, Some(b"home"), &request(temp.path(), how)).unwrap();
        assert_eq!(fs::read(outside.path().join("z")).unwrap(), b"canary", "{how:?}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{how:?}");
        let replaced = how == Overwrite::Always || how == Overwrite::IfChanged;
        assert_eq!(done.errors.is_empty(), replaced, "{how:?} {:?}", done.errors);
        assert_eq!(temp.path().join("ana/sub").symlink_metadata().unwrap().is_dir(), replaced);
    }
}

#[test]
fn overwrite_modes() {
    let mut source = Source::new();
    let root = source.tree(dir([(b"f", inline(b"new!"))]));
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let later = old + std::time::Duration::from_secs(900_000_000);
    for (how, old_time, expected) in [
        (Overwrite::Always, later, "new!"),
        (Overwrite::IfChanged, later, "new!"),
        (Overwrite::IfNewer, later, "old!"),
        (Overwrite::IfNewer, old, "new!"),
        (Overwrite::Never, old, "old!"),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("f");
        fs::write(&path, "old!").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(old_time).unwrap();
        let done = restore(&source, root, None, &request(temp.path(), how)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{how:?}");
        assert_eq!(done.skipped, u64::from(expected == "old!"));
    }
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("f")).unwrap();
    let done = restore(&source, root, None, &request(temp.path(), Overwrite::Always)).unwrap();
    assert_eq!(done.errors.len(), 1);
    assert!(done.errors[0].1.contains("directory is in its place"));
}

#[test]
fn a_missing_object_names_its_files_only() {
    let Sample { mut source, root, bundle, .. } = sample();
    source.gone.insert(bundle);
    let pieces: Vec<ObjectId> =
        source.objects.iter().filter(|(_, o)| o.payload.len() == 64 << 10).map(|(id, _)| *id).collect();
    source.gone.insert(pieces[0]);
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("a"), "kept").unwrap();
    let done = restore(&source, root, Some(b"home/ana"), &request(temp.path(), Overwrite::Always)).unwrap();
    let names: Vec<_> =
        done.errors.iter().map(|(path, _)| path.strip_prefix(temp.path()).unwrap().to_owned()).collect();
    assert_eq!(names, ["a", "b", "link1", "long", "sub/link2"].map(std::path::PathBuf::from));
    assert!(done.errors[0].1.contains(&bundle.to_string()));
    assert_eq!(done.files, 2_004);
    assert_eq!(fs::read(temp.path().join("a")).unwrap(), b"kept");
    assert!(!temp.path().join("long").exists());
    assert_eq!(fs::metadata(temp.path().join("big")).unwrap().permissions().mode() & 0o7777, 0o640);
}
