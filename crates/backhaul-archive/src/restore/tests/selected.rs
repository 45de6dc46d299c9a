//! Restores of a part, with what goes where the snapshot has nothing, and what a dry run says of it.

use super::*;

fn patterns(texts: &[&str]) -> crate::patterns::Patterns {
    let case = crate::patterns::Case::Sensitive;
    crate::patterns::Patterns::new(texts.iter().map(|text| (*text, case))).unwrap()
}

/// Everything below a folder, sorted.
fn names(top: &Path) -> Vec<String> {
    picture(top).into_keys().map(|name| String::from_utf8_lossy(&name).into_owned()).collect()
}

/// What is included, excluded, from where, and the names that come.
type Example<'e> = (&'e [&'e str], &'e [&'e str], Option<&'e str>, &'e [&'e str]);

#[test]
fn a_selection_brings_what_fits_and_the_folders_that_lead_to_it() {
    let Sample { source, root, .. } = sample();
    let cases: [Example<'_>; 7] = [
        (&["z"], &[], None, &["home", "home/ana", "home/ana/sub", "home/ana/sub/z"]),
        (&["z"], &[], Some("/home/ana"), &["sub", "sub/z"]),
        (&["sub/"], &["link*"], Some("/home/ana"), &["sub", "sub/to", "sub/z"]),
        (&["/home/ana/sub/z", "n1999"], &[], Some("/home/ana"), &["many", "many/n1999", "sub", "sub/z"]),
        (&["/home/ana/sub/*", "!to"], &["link2"], Some("/home/ana"), &["sub", "sub/z"]),
        (&["nothing"], &[], None, &[]),
        (&[], &["many", "b*", "l*", "e*", "*\u{fffd}*", "a"], Some("home/ana/sub"), &["to", "z"]),
    ];
    for (include, exclude, from, expected) in cases {
        let temp = tempfile::tempdir().unwrap();
        let select = Selection { include: patterns(include), exclude: patterns(exclude) };
        let request = RestoreRequest { select, ..request(temp.path(), Overwrite::IfChanged) };
        let done = restore(&source, root, from.map(str::as_bytes), &request).unwrap();
        assert_eq!(done.errors, []);
        assert_eq!(names(temp.path()), expected, "{include:?} {exclude:?} {from:?}");
    }
}

#[test]
fn what_the_snapshot_does_not_have_goes_from_its_folders_and_from_no_others() {
    let sample = sample();
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join("home").join(name);
    restore(&sample.source, sample.root, None, &request(temp.path(), Overwrite::IfChanged)).unwrap();
    let whole = names(temp.path());
    let litter = || {
        fs::create_dir_all(at("ana/extra/deep")).unwrap();
        fs::write(at("ana/extra/deep/f"), b"1").unwrap();
        fs::set_permissions(at("ana/extra/deep"), fs::Permissions::from_mode(0o0)).unwrap();
        fs::write(at("ana/sub/more.txt"), b"2").unwrap();
        symlink("/etc", at("ana/sub/out")).unwrap();
        fs::remove_file(at("ana/a")).unwrap();
        fs::create_dir_all(at("ana/a/in the way")).unwrap();
    };
    litter();
    let mut request = RestoreRequest { delete: true, dry_run: true, ..again(&sample, temp.path()) };
    let littered = names(temp.path());
    let acts = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = Arc::clone(&acts);
    request.tell = Some(Arc::new(move |act, path: &Path| {
        if act != Act::Keep {
            heard.lock().unwrap().push((act, path.file_name().unwrap().to_string_lossy().into_owned()));
        }
    }));
    let foretold = restore(&sample.source, sample.root, None, &request).unwrap();
    assert_eq!(names(temp.path()), littered, "a dry run changes nothing");
    let planned = std::mem::take(&mut *acts.lock().unwrap());
    let done =
        restore(&sample.source, sample.root, None, &RestoreRequest { dry_run: false, ..request.clone() });
    let done = done.unwrap();
    assert_eq!(done.errors, []);
    assert_eq!(*acts.lock().unwrap(), planned, "what was foretold is what was done");
    assert_eq!((done.deleted, foretold.deleted), (7, 7), "extra, deep, f, more.txt, out, a, in the way");
    assert_eq!((done.files, foretold.files), (1, 1));
    assert_eq!(names(temp.path()), whole);

    // What is excluded stays; a folder that the snapshot does not know whole, or only leads through, too.
    litter();
    fs::create_dir_all(at("../other")).unwrap();
    let select = Selection { exclude: patterns(&["*.txt", "/home/ana/extra"]), include: patterns(&[]) };
    let done = restore(
        &sample.source,
        sample.root,
        Some(b"/home"),
        &RestoreRequest { select, dry_run: false, target: at(""), ..request },
    );
    assert_eq!(done.unwrap().errors, []);
    assert!(at("ana/extra/deep").exists() && at("ana/sub/more.txt").exists() && at("../other").exists());
    assert!(!at("ana/sub/out").exists());
}

/// A folder of which a part cannot be read is not known: what it has too much cannot be told from what is missing.
#[test]
fn nothing_is_deleted_from_a_folder_that_cannot_be_read_whole() {
    let mut source = Source::new();
    let many = (0..3_000).map(|i| (format!("n{i:04}").into_bytes(), inline(b"x"))).collect();
    let root = source.tree(dir([(b"d", Item::Dir(many))]));
    let temp = tempfile::tempdir().unwrap();
    restore(&source, root, None, &request(temp.path(), Overwrite::IfChanged)).unwrap();
    assert_eq!(names(temp.path()).len(), 3_001);
    let leaf = source
        .objects
        .iter()
        .find(|(id, object)| object.kind == Kind::Node && object.references.is_empty() && **id != root);
    source.gone.insert(*leaf.unwrap().0);
    let request = RestoreRequest { delete: true, ..request(temp.path(), Overwrite::IfChanged) };
    let done = restore(&source, root, None, &request).unwrap();
    assert_eq!((done.errors.len(), done.deleted), (1, 0));
    assert_eq!(names(temp.path()).len(), 3_001);
}

#[test]
fn a_dry_run_says_what_a_restore_does_with_files_where_folders_go_and_with_links() {
    let mut source = Source::new();
    let linked = || Item::File(Content::Inline(b"linked".to_vec()), 6, Some(5));
    let inner = dir([(b"in", Item::File(Content::Inline(b"x".to_vec()), 1, None))]);
    let items = dir([(b"a", linked()), (b"b", linked()), (b"folder", Item::Dir(inner))]);
    let root = source.tree(dir([(b"top", Item::Dir(items))]));
    let temp = tempfile::tempdir().unwrap();
    let (there, dry, wet) = (temp.path(), temp.path().join("dry"), temp.path().join("wet"));
    for place in [&dry, &wet] {
        fs::create_dir(place).unwrap();
        fs::write(place.join("a"), "older").unwrap();
        fs::hard_link(place.join("a"), place.join("b")).unwrap();
        fs::write(place.join("folder"), "a file").unwrap();
    }
    assert!(there.exists());
    let run = |place: &Path, dry_run, overwrite| {
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (heard, at) = (Arc::clone(&told), place.to_path_buf());
        let tell = move |act, path: &Path| {
            heard.lock().unwrap().push((act, path.strip_prefix(&at).unwrap().to_path_buf()));
        };
        let request = RestoreRequest {
            dry_run,
            overwrite,
            tell: Some(Arc::new(tell)),
            ..RestoreRequest::to(place.to_path_buf())
        };
        let done = restore(&source, root, Some(b"/top"), &request).unwrap();
        let mut acts = told.lock().unwrap().clone();
        acts.sort_by(|a, b| a.1.cmp(&b.1));
        let errors: Vec<String> = done.errors.iter().map(|(_, why)| why.clone()).collect();
        (acts, errors, (done.files, done.dirs, done.bytes, done.skipped))
    };
    for overwrite in [Overwrite::Never, Overwrite::IfChanged] {
        let said = run(&dry, true, overwrite);
        assert_eq!(said, run(&wet, false, overwrite), "{overwrite:?}");
        // A further name that was another file's is replaced; it is not new.
        let act = |name: &str| said.0.iter().find(|(_, path)| path == Path::new(name)).unwrap().0;
        let expected = if overwrite == Overwrite::Never { Act::Keep } else { Act::Replace };
        assert_eq!((act("a"), act("b")), (expected, expected));
        assert_eq!(fs::read(dry.join("a")).unwrap(), b"older");
    }
    assert_eq!(fs::read(wet.join("folder/in")).unwrap(), b"x");
    assert_eq!(fs::metadata(wet.join("a")).unwrap().ino(), fs::metadata(wet.join("b")).unwrap().ino());
}

#[test]
fn with_delete_the_target_is_as_the_folder_was() {
    let mut source = Source::new();
    let file = Item::File(Content::Inline(b"x".to_vec()), 1, None);
    let root = source.tree(dir([(b"top", Item::Dir(dir([(b"f", file)])))]));
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("extra"), b"").unwrap();
    let request = RestoreRequest { delete: true, ..RestoreRequest::to(temp.path().to_path_buf()) };
    restore(&source, root, Some(b"/top"), &request).unwrap();
    let Located::Entry(top) = Tree::new(&source, root).lookup(b"/top").unwrap() else { panic!() };
    let meta = fs::metadata(temp.path()).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (top.metadata.mtime_s, i64::from(top.metadata.mtime_ns)));
    assert_eq!(meta.mode() & 0o7777, u32::from(top.metadata.mode));
    assert!(!temp.path().join("extra").exists());
}
