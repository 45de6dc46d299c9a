//! Snapshots that no honest client makes: nothing of them lands where it must not, and each is named.

use backhaul_object::entry::{Attribute, Device, InodeFlags, Special, Totals};

use super::*;

/// A tree of one folder with these entries, in a source that has whatever else they need.
fn tree_of(source: &mut Source, entries: Vec<Entry>) -> ObjectId {
    let key = source.key.clone();
    let mut builder = DirectoryBuilder::new(&key);
    for entry in entries {
        builder.push(entry, &mut |id, object| drop(source.objects.insert(id, object)));
    }
    let done = builder.finish(&mut |id, object| drop(source.objects.insert(id, object)));
    write_root(done, &key, &mut |id, object| drop(source.objects.insert(id, object))).0
}

fn entry(name: &str, body: Body) -> Entry {
    let (uid, gid) = owner();
    let metadata = Metadata { mode: 0o644, uid, gid, mtime_s: 1_600_000_000, mtime_ns: 0 };
    Entry { name: name.into(), metadata, body, extensions: vec![] }
}

fn file(size: u64, content: Content) -> Body {
    Body::File { size, content, link: None }
}

#[test]
fn sizes_that_are_not_true_are_named_and_leave_nothing() {
    let mut source = Source::new();
    let (chunk, small) = (source.chunk(&noise(5_000, 1)), source.bundle(&[b"member"]));
    let hole = |len| Piece::Hole { len };
    let lie = |piece: Piece, len| Piece::Data { id: piece.id().unwrap(), len };
    let cases = [
        ("hole over all bounds", u64::MAX, Content::Chunks(vec![hole(u64::MAX)])),
        ("holes that overflow", 7, Content::Chunks(vec![hole(u64::MAX), hole(8)])),
        ("larger than a file can be", i64::MAX as u64 + 1, Content::Chunks(vec![hole(i64::MAX as u64 + 1)])),
        ("a hole that is not said", 5_000, Content::Chunks(vec![chunk, hole(1)])),
        ("more than there is", 6_000, Content::Chunks(vec![chunk])),
        ("less than there is", 4_000, Content::Chunks(vec![chunk])),
        ("a chunk of another length", 4_000, Content::Chunks(vec![lie(chunk, 4_000)])),
        ("a member that is not there", 6, Content::Member { bundle: small, member: 1 }),
        ("a member of a chunk", 5_000, Content::Member { bundle: chunk.id().unwrap(), member: 0 }),
        ("a list that is a chunk", 5_000, Content::Flist(chunk.id().unwrap())),
        ("inline of another size", 9, Content::Inline(b"four".to_vec())),
        ("empty of another size", 9, Content::Empty),
    ];
    let mut entries: Vec<Entry> =
        cases.iter().map(|(name, size, content)| entry(name, file(*size, content.clone()))).collect();
    entries.push(entry("honest", file(6, Content::Member { bundle: small, member: 0 })));
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let root = tree_of(&mut source, entries);
    let temp = tempfile::tempdir().unwrap();
    for id_key in [None, Some(source.key.clone())] {
        let request = RestoreRequest { id_key, ..request(temp.path(), Overwrite::Always) };
        let done = restore(&source, root, None, &request).unwrap();
        assert_eq!(done.errors.len(), cases.len(), "{:?}", done.errors);
        assert_eq!(picture(temp.path()).into_keys().collect::<Vec<_>>(), [b"honest".to_vec()]);
        for (path, why) in &done.errors {
            assert!(
                cases.iter().any(|(name, ..)| path.ends_with(name)) && !why.is_empty(),
                "{path:?}: {why}"
            );
        }
    }
}

/// A folder in each folder twice, the same: every level doubles what there is.
fn doubled(source: &mut Source, levels: u32, said: impl Fn(Totals) -> Totals) -> (ObjectId, Totals) {
    let leaf = tree_of(source, vec![entry("f", file(1, Content::Inline(b"1".to_vec())))]);
    let (mut at, mut totals) = (leaf, Totals { files: 1, dirs: 0, bytes: 1 });
    for _ in 0..levels {
        let folder = |name: &str| entry(name, Body::Directory { node: at, totals: said(totals) });
        let entries = [folder("a"), folder("b")];
        let sum = entries.iter().map(Entry::totals).sum();
        (at, totals) = (tree_of(source, entries.to_vec()), sum);
    }
    (at, totals)
}

#[test]
fn a_tree_has_no_more_names_than_it_says_and_none_says_more_than_there_can_be() {
    let temp = tempfile::tempdir().unwrap();
    let request = request(temp.path(), Overwrite::Always);
    let mut source = Source::new();
    // Shared folders are nothing bad in themselves.
    let (root, totals) = doubled(&mut source, 6, |totals| totals);
    let request_of = |totals| RestoreRequest { totals, ..request.clone() };
    let done = restore(&source, root, None, &request_of(Some(totals))).unwrap();
    assert_eq!((done.errors, done.files, done.dirs), (vec![], 64, 126));
    fs::remove_dir_all(temp.path().join("a")).unwrap();
    fs::remove_dir_all(temp.path().join("b")).unwrap();
    // Two to the sixtieth, truly said; as many, but said to be few; and few, of which the manifest says something else.
    let few = Totals { files: 3, dirs: 3, bytes: 3 };
    let honest = doubled(&mut source, 60, |totals| totals).0;
    let lying = doubled(&mut source, 60, |_| few).0;
    for (root, said, least) in [(honest, None, 1), (lying, None, 2), (root, Some(few), 1)] {
        source.reads.lock().unwrap().clear();
        let (why, errors) = match restore(&source, root, None, &request_of(said)) {
            Ok(done) => (done.errors.iter().map(|(_, why)| why.clone()).collect(), done.errors.len()),
            Err(error) => (error.to_string(), 1),
        };
        assert!(errors >= least && why.contains("object ") && why.contains("number of names"), "{why}");
        assert!(picture(temp.path()).len() <= 2, "{:?}", picture(temp.path()).keys());
        assert!(source.reads.lock().unwrap().len() < 300);
        let _ = fs::remove_dir_all(temp.path().join("a"));
        let _ = fs::remove_dir_all(temp.path().join("b"));
    }
}

/// A list of a few bytes that names terabytes: of one chunk, again and again.
#[test]
fn a_list_that_names_more_than_its_file_has_is_given_up_at_once() {
    let mut source = Source::new();
    let zeros = source.chunk(&vec![0; 8 << 20]);
    let list = source.flist(&vec![zeros; 200_000]);
    let bomb = entry("bomb", file(20 << 20, Content::Flist(list)));
    let root = tree_of(&mut source, vec![bomb, entry("honest", file(1, Content::Inline(b"1".to_vec())))]);
    let temp = tempfile::tempdir().unwrap();
    let request = RestoreRequest { verify: false, ..request(temp.path(), Overwrite::Always) };
    let done = restore(&source, root, None, &request).unwrap();
    assert_eq!(done.errors.len(), 1, "{:?}", done.errors);
    assert!(
        done.errors[0].0.ends_with("bomb") && done.errors[0].1.contains("its entry says"),
        "{:?}",
        done.errors
    );
    assert_eq!(picture(temp.path()).into_keys().collect::<Vec<_>>(), [b"honest".to_vec()]);
    let reads = source.reads.lock().unwrap().len();
    assert!(reads < 60, "{reads} objects were read for it");
}

#[test]
fn links_lead_nowhere_for_what_comes_after_them() {
    let (temp, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("f"), "canary").unwrap();
    let mut source = Source::new();
    let to = outside.path().as_os_str().as_bytes().to_vec();
    let at_f = outside.path().join("f").as_os_str().as_bytes().to_vec();
    let linked = |name: &str, link| {
        let mut entry = entry(name, Body::Symlink(at_f.clone()));
        entry.extensions = Entry::extensions_of_plain(Some(link));
        entry
    };
    // A file of the link group of a symbolic link, attributes and flags on a link, and a folder under a link's name.
    let mut planted =
        linked("b", 5).with_attributes(&[Attribute { name: b"user.x".to_vec(), value: b"x".to_vec() }]);
    planted = planted.with_inode_flags(InodeFlags { bits: 0x10, project: 7 });
    let file = entry("c", Body::File { size: 1, content: Content::Inline(b"x".to_vec()), link: Some(5) });
    let root = tree_of(&mut source, vec![entry("a", Body::Symlink(to)), planted, file]);
    let second = tree_of(
        &mut source,
        vec![entry(
            "a",
            Body::Folded(vec![entry(
                "f",
                Body::File { size: 8, content: Content::Inline(b"intruder".to_vec()), link: None },
            )]),
        )],
    );
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never] {
        for root in [root, second] {
            let request =
                RestoreRequest { overwrite, delete: true, ..RestoreRequest::to(temp.path().to_owned()) };
            let _ = restore(&source, root, Some(b"/"), &request).unwrap();
            assert_eq!(fs::read(outside.path().join("f")).unwrap(), b"canary", "{overwrite:?}");
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{overwrite:?}");
            let flags = rustix::fs::ioctl_getflags(fs::File::open(outside.path().join("f")).unwrap());
            assert!(!flags.is_ok_and(|flags| flags.contains(rustix::fs::IFlags::IMMUTABLE)));
        }
    }
}

#[test]
fn what_linux_does_not_have_is_named() {
    let mut source = Source::new();
    let device = Device { major: u32::MAX, minor: u32::MAX };
    let strange = Attribute { name: b"nothing.like.it".to_vec(), value: b"x".to_vec() };
    let mut late = entry("time", file(0, Content::Empty));
    late.metadata.mtime_s = i64::MAX;
    let root = tree_of(
        &mut source,
        vec![
            entry("attribute", file(0, Content::Empty)).with_attributes(&[strange]),
            entry("device", Body::Special(Special::Block(device))),
            entry("flags", file(0, Content::Empty))
                .with_inode_flags(InodeFlags { bits: 0x8000_0000, project: 0 }),
            late,
        ],
    );
    let temp = tempfile::tempdir().unwrap();
    let done = restore(&source, root, None, &request(temp.path(), Overwrite::Always)).unwrap();
    let named: Vec<_> =
        done.errors.iter().chain(&done.unset).filter_map(|(path, _)| path.file_name()?.to_str()).collect();
    assert!(named.contains(&"attribute") && named.contains(&"device"), "{:?}", done.errors);
    // No clock goes so far, but some file systems do.
    let is_kept = fs::metadata(temp.path().join("time")).unwrap().mtime() == i64::MAX;
    let is_said =
        done.unset.iter().any(|(path, why)| path.ends_with("time") && why.contains("time not set as it was"));
    assert!(is_kept != is_said, "{:?}", done.unset);
    // A file system's own flags are nobody's to set.
    assert!(!named.contains(&"flags"), "{:?}", done.errors);
}

#[test]
fn names_that_are_none_are_refused_with_all_of_their_folder_and_nothing_lands_outside() {
    let (temp, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("canary"), "canary").unwrap();
    let out = outside.path().file_name().unwrap().to_str().unwrap();
    let to = temp.path().join("a/b");
    fs::create_dir_all(&to).unwrap();
    fs::write(temp.path().join("a/canary"), "canary").unwrap();
    let planted = |name: &str| entry(name, file(8, Content::Inline(b"intruder".to_vec())));
    let way_out = format!("../../../{out}/canary");
    let absolute = outside.path().join("canary").display().to_string();
    let long = "x".repeat(256);
    for bad in ["", ".", "..", "a/b", "/", "../canary", &way_out, &absolute, "a\0b", "\0", &long] {
        for in_a_folder in [false, true] {
            let mut source = Source::new();
            let mut entries = vec![planted(bad), planted("plain")];
            if in_a_folder {
                entries = vec![entry("folder", Body::Folded(entries)), planted("plain")];
            }
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            let root = tree_of(&mut source, entries);
            match restore(&source, root, None, &request(&to, Overwrite::Always)) {
                Ok(done) => assert!(!done.errors.is_empty(), "{bad:?} was taken"),
                Err(why) => assert!(why.to_string().contains(&root.to_string()[..8]), "{bad:?}: {why}"),
            }
            assert_eq!(fs::read_dir(&to).unwrap().count(), 0, "{bad:?}");
            assert_eq!(fs::read(temp.path().join("a/canary")).unwrap(), b"canary", "{bad:?}");
            assert_eq!(fs::read(outside.path().join("canary")).unwrap(), b"canary", "{bad:?}");
        }
    }
    // Twice the same, and out of order: whoever comes second would be written over what came first, or through a link that did.
    let link = entry("same", Body::Symlink(outside.path().as_os_str().as_bytes().to_vec()));
    let folder = entry("same", Body::Folded(vec![planted("canary")]));
    for entries in [
        ["same", "same"].map(planted),
        ["z", "a"].map(planted),
        [link.clone(), folder.clone()],
        [folder, link.clone()],
        [link, planted("same")],
    ] {
        let mut source = Source::new();
        let root = tree_of(&mut source, entries.to_vec());
        let done = restore(&source, root, None, &request(&to, Overwrite::Always));
        assert!(done.is_err() || !done.unwrap().errors.is_empty(), "{entries:?}");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0, "{entries:?}");
        assert_eq!(fs::read(outside.path().join("canary")).unwrap(), b"canary", "{entries:?}");
    }
}
