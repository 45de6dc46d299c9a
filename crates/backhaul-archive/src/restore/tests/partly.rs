//! Restores over what is there, and after an interruption: what is fetched, and what stays.

use std::collections::BTreeSet;

use backhaul_object::entry::InodeFlags;

use super::*;

/// Bytes of chunks that were asked for since the last call.
fn fetched(source: &Source) -> u64 {
    let reads = std::mem::take(&mut *source.reads.lock().unwrap());
    let chunk = |id: &ObjectId| {
        let object = source.objects.get(id).filter(|object| object.kind == Kind::Chunk);
        object.map_or(0, |object| object.payload.len() as u64)
    };
    reads.iter().map(chunk).sum()
}

/// How often each bundle that was asked for since the last call was.
fn bundles_read(source: &Source) -> Vec<usize> {
    let mut often: BTreeMap<ObjectId, usize> = BTreeMap::new();
    for id in std::mem::take(&mut *source.reads.lock().unwrap()) {
        if source.objects.get(&id).is_some_and(|object| object.kind == Kind::Bundle) {
            *often.entry(id).or_default() += 1;
        }
    }
    often.into_values().collect()
}

/// Where a part of a file would be.
fn part_of(source: &Source, root: ObjectId, from: &str) -> String {
    let Located::Entry(entry) = Tree::new(source, root).lookup(from.as_bytes()).unwrap() else { panic!() };
    let Body::File { size, content, .. } = entry.body else { panic!() };
    let job = fetch::FileJob {
        dir: Arc::from(&b""[..]),
        name: entry.name,
        metadata: entry.metadata,
        attributes: vec![],
        flags: InodeFlags::default(),
        of_folder: InodeFlags::default(),
        size,
        content,
        link: None,
        found: fetch::Found::Nothing,
    };
    String::from_utf8(part::part_of(&job)).unwrap()
}

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    std::os::unix::fs::FileExt::write_all_at(&fs::File::options().write(true).open(path).unwrap(), bytes, at)
        .unwrap();
}

#[test]
fn only_chunks_that_differ_are_fetched() {
    let sample = sample();
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join("home/ana").join(name);
    // Reads to verify are not those that are counted.
    let request = RestoreRequest { verify: false, ..again(&sample, temp.path()) };
    restore(&sample.source, sample.root, None, &request).unwrap();
    assert_eq!(fetched(&sample.source), (9 << 20) + (40 << 20));
    write_at(&at("long"), 20 << 20, b"changed");
    write_at(&at("big"), 5 << 20, b"changed");
    fs::File::options().write(true).open(at("big")).unwrap().set_len(6 << 20).unwrap();
    let done = restore(&sample.source, sample.root, None, &request).unwrap();
    assert_eq!((done.errors, done.files), (vec![], 2));
    // Of `big` three chunks of 2 MiB end beyond what was left of it, or were changed.
    assert_eq!(fetched(&sample.source), (64 << 10) + (2 << 20) + (2 << 20) + (1 << 20));
    assert!(fs::read(at("long")).unwrap() == sample.long && fs::read(at("big")).unwrap() == sample.big);
}

/// Right into the file that is there, unless it has further names: those would change with it.
#[test]
fn in_place_a_file_stays_what_it_is_and_has_what_differs() {
    let sample = sample();
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join("home/ana").join(name);
    let request = RestoreRequest { verify: false, ..again(&sample, temp.path()) };
    restore(&sample.source, sample.root, None, &request).unwrap();
    let before = picture(temp.path());
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&at(name).metadata().unwrap());
    let (long, big) = (inode("long"), inode("big"));
    write_at(&at("long"), 20 << 20, b"changed");
    fs::File::options().write(true).open(at("long")).unwrap().set_len(45 << 20).unwrap();
    write_at(&at("big"), 5 << 20, b"changed");
    fs::hard_link(at("big"), temp.path().join("further")).unwrap();
    fetched(&sample.source);
    let request = RestoreRequest { replacing: Replacing::InPlace, ..request };
    let done = restore(&sample.source, sample.root, None, &request).unwrap();
    assert_eq!((done.errors, done.files), (vec![], 2));
    assert_eq!(fetched(&sample.source), (64 << 10) + (2 << 20));
    assert!(inode("long") == long && inode("big") != big);
    assert_eq!(&fs::read(temp.path().join("further")).unwrap()[5 << 20..][..7], b"changed");
    fs::remove_file(temp.path().join("further")).unwrap();
    assert!(picture(temp.path()) == before);
}

/// Many bundles, in which few files of a tree that is there were changed.
#[test]
fn of_bundles_only_the_files_that_differ_are_asked_for() {
    let mut source = Source::new();
    let (mut items, mut contents) = (BTreeMap::new(), Vec::new());
    for b in 0..30u64 {
        let files: Vec<Vec<u8>> = (0..20).map(|n| noise(10_000, b * 100 + n)).collect();
        let bundle = source.bundle(&files.iter().map(|file| &file[..]).collect::<Vec<_>>());
        for (member, file) in (0u16..).zip(files) {
            let content = Content::Member { bundle, member };
            items.insert(format!("{b:02}-{member:02}").into_bytes(), Item::File(content, 10_000, None));
            contents.push(file);
        }
    }
    let (root, temp) = (source.tree(items), tempfile::tempdir().unwrap());
    let request = RestoreRequest { verify: false, ..request(temp.path(), Overwrite::IfChanged) };
    restore(&source, root, None, &request).unwrap();
    // However many batches there were: each ends where a bundle does.
    assert_eq!(bundles_read(&source), [1; 30]);
    assert!(source.parts.lock().unwrap().is_empty());
    let path = |b: u64, n: u64| temp.path().join(format!("{b:02}-{n:02}"));
    for b in 0..30 {
        fs::write(path(b, b % 20), b"changed").unwrap();
        // Of one bundle so much that it is read whole.
        (0..if b == 3 { 20 } else { 0 }).for_each(|n| fs::write(path(b, n), b"changed").unwrap());
    }
    let done = restore(&source, root, None, &request).unwrap();
    assert_eq!((done.errors, done.files, done.skipped), (vec![], 49, 551));
    let parts = std::mem::take(&mut *source.parts.lock().unwrap());
    let members = |one: &Reference| one.members.iter().map(|byte| byte.count_ones()).sum::<u32>();
    assert_eq!((parts.len(), parts.iter().map(members).sum::<u32>()), (29, 29));
    for (i, content) in contents.iter().enumerate() {
        assert!(fs::read(path(i as u64 / 20, i as u64 % 20)).unwrap() == *content, "file {i}");
    }
}

/// Small files in small folders, more of them in a bundle than in the smallest batch.
#[test]
fn bundles_that_end_within_folders_are_read_once() {
    let (mut source, mut root) = (Source::new(), BTreeMap::new());
    let texts: Vec<Vec<u8>> = (0..9_000u64).map(|n| noise(60, n)).collect();
    let mut content = Vec::new();
    for files in texts.chunks(1_000) {
        let bundle = source.bundle(&files.iter().map(|file| &file[..]).collect::<Vec<_>>());
        content.extend((0..files.len() as u16).map(|member| Content::Member { bundle, member }));
    }
    for (d, files) in content.chunks(7).enumerate() {
        let file =
            |(n, content): (usize, &Content)| (vec![b'0' + n as u8], Item::File(content.clone(), 60, None));
        root.insert(format!("{d:04}").into_bytes(), Item::Dir(files.iter().enumerate().map(file).collect()));
    }
    let (root, temp) = (source.tree(root), tempfile::tempdir().unwrap());
    let request = RestoreRequest { verify: false, ..request(temp.path(), Overwrite::IfChanged) };
    let done = restore(&source, root, None, &request).unwrap();
    assert_eq!((done.errors, done.files), (vec![], 9_000));
    assert_eq!(bundles_read(&source), [1; 9]);
    assert!(fs::read(temp.path().join("1285/4")).unwrap() == texts[8_999]);
}

/// By where they lie, not by the names of the files that need them.
#[test]
fn contents_are_read_in_the_order_in_which_they_lie() {
    let (mut source, mut root, mut lie) = (Source::new(), BTreeMap::new(), Vec::new());
    for n in 0..40u64 {
        let content = noise(700_000, 2 * n);
        let piece = source.chunk(&content);
        // Evenly from three packs: the third file from the first, and so on.
        source.places.insert(piece.id().unwrap(), n % 3 * 1_000 + n);
        lie.push(piece.id().unwrap());
        let file = Item::File(Content::Chunks(vec![piece]), content.len() as u64, None);
        root.insert(format!("{n:02}").into_bytes(), file);
    }
    lie.sort_by_key(|id| source.places[id]);
    let root = source.tree(root);
    let temp = tempfile::tempdir().unwrap();
    let request = RestoreRequest { verify: false, ..request(temp.path(), Overwrite::IfChanged) };
    assert_eq!(restore(&source, root, None, &request).unwrap().errors, []);
    let read: Vec<ObjectId> = std::mem::take(&mut *source.reads.lock().unwrap())
        .into_iter()
        .filter(|id| source.places.contains_key(id))
        .collect();
    // In reads of five, each of neighbours; the readers may overtake each other.
    let reads: BTreeSet<&[ObjectId]> = read.chunks(5).collect();
    assert_eq!(reads, lie.chunks(5).collect());
}

/// What a bundle says of its members tells which of the files that are there have their content, whatever else was changed.
#[test]
fn small_files_that_were_touched_or_have_grown_are_not_fetched() {
    let mut source = Source::new();
    let files: Vec<Vec<u8>> = (0..40).map(|n| noise(9_000, n)).collect();
    let mut items = BTreeMap::new();
    for (b, files) in files.chunks(10).enumerate() {
        let bundle = source.bundle(&files.iter().map(|file| &file[..]).collect::<Vec<_>>());
        for member in 0..10 {
            let content = Content::Member { bundle, member };
            items.insert(format!("{b}-{member}").into_bytes(), Item::File(content, 9_000, None));
        }
    }
    let (root, temp) = (source.tree(items), tempfile::tempdir().unwrap());
    let id_key = Some(source.key.clone());
    let request = RestoreRequest { verify: false, id_key, ..request(temp.path(), Overwrite::IfChanged) };
    restore(&source, root, None, &request).unwrap();
    let before = picture(temp.path());
    let grown =
        |name: &str, from: &[u8]| fs::write(temp.path().join(name), [from, b"more"].concat()).unwrap();
    // Of the first bundle nothing is fetched, of the second one file of two; in the third one is too short, so
    // nobody asks about the other.
    grown("0-3", &files[3]);
    fs::write(temp.path().join("0-9"), &files[9]).unwrap();
    grown("1-0", &files[10]);
    grown("1-1", &files[12]);
    fs::write(temp.path().join("2-0"), "short").unwrap();
    grown("2-1", &files[21]);
    source.parts.lock().unwrap().clear();
    let done = restore(&source, root, None, &request).unwrap();
    assert_eq!((done.errors, done.files, done.bytes), (vec![], 6, 54_000));
    assert!(picture(temp.path()) == before);
    let parts = std::mem::take(&mut *source.parts.lock().unwrap());
    let mut fetched: Vec<Vec<u8>> = parts.into_iter().map(|one| one.members).collect();
    fetched.sort();
    assert_eq!(fetched, [vec![0], vec![0], vec![0b10], vec![0b11]]);
    // Nothing is taken on trust: what is written was compared with the id.
    assert_eq!(verify_restored(&source, root, None, &request).unwrap().errors, []);
}

#[test]
fn an_interrupted_file_goes_on_where_it_was() {
    let mut sample = sample();
    let temp = tempfile::tempdir().unwrap();
    let request = RestoreRequest { verify: false, ..again(&sample, temp.path()) };
    let at = |name: &str| temp.path().join("home/ana").join(name);
    let (long, part) = (at("long"), at(&part_of(&sample.source, sample.root, "/home/ana/long")));
    // Until a session lasts long enough to begin with that file.
    let mut lasts = 1;
    let had = loop {
        sample.source.lasts = std::sync::atomic::AtomicI64::new(lasts);
        let cut = restore(&sample.source, sample.root, None, &request);
        assert!(matches!(cut, Err(RestoreError::Transfer(TransferError::Lost(_)))), "{lasts}: {cut:?}");
        if let Some(had) = part.metadata().ok().map(|meta| meta.len()).filter(|len| *len > 0) {
            break had;
        }
        lasts += 1;
    };
    assert!(!long.exists() && had < 40 << 20);
    sample.source.lasts = std::sync::atomic::AtomicI64::new(i64::MAX);
    fetched(&sample.source);
    restore(&sample.source, sample.root, None, &request).unwrap();
    assert!(had > 0 && fetched(&sample.source) <= (49 << 20) - had + (2 << 20), "{had}");
    assert!(fs::read(&long).unwrap() == sample.long);
    assert!(!part.exists());
}

/// Over a file that is there: it stays until the new one is whole, and neither what it has nor what an interrupted restore
/// has left is fetched again.
#[test]
fn an_interrupted_restore_over_a_file_goes_on_from_both() {
    let mut sample = sample();
    let temp = tempfile::tempdir().unwrap();
    let request = RestoreRequest { verify: false, ..again(&sample, temp.path()) };
    let at = |name: &str| temp.path().join("home/ana").join(name);
    restore(&sample.source, sample.root, None, &request).unwrap();
    // The second half is another.
    let (long, part) = (at("long"), at(&part_of(&sample.source, sample.root, "/home/ana/long")));
    write_at(&long, 20 << 20, &noise(20 << 20, 99));
    let old = fs::read(&long).unwrap();
    let mut lasts = 1;
    let had = loop {
        sample.source.lasts = std::sync::atomic::AtomicI64::new(lasts);
        let cut = restore(&sample.source, sample.root, None, &request);
        assert!(cut.is_err(), "{lasts}: {cut:?}");
        assert!(fs::read(&long).unwrap() == old, "{lasts}: what was there stays");
        if let Some(had) = part.metadata().ok().map(|meta| meta.len()).filter(|len| *len > 20 << 20) {
            break had;
        }
        lasts += 1;
    };
    sample.source.lasts = std::sync::atomic::AtomicI64::new(i64::MAX);
    fetched(&sample.source);
    restore(&sample.source, sample.root, None, &request).unwrap();
    let again = fetched(&sample.source);
    assert!(again <= (40 << 20) - had + (2 << 20), "{had} bytes were there, {again} were fetched");
    assert!(fs::read(&long).unwrap() == sample.long && !part.exists());
}

/// Whoever may write into the target may put something where a part would be.
#[test]
fn what_is_planted_where_a_part_would_be_is_neither_used_nor_harmed() {
    let sample = sample();
    let (temp, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (home, victim) = (temp.path().join("home/ana"), outside.path().join("victim"));
    for plant in ["a link", "a second name", "a file of another mode", "a folder"] {
        fs::create_dir_all(&home).unwrap();
        fs::write(&victim, b"victim").unwrap();
        let part = home.join(part_of(&sample.source, sample.root, "/home/ana/long"));
        match plant {
            "a link" => symlink(&victim, &part).unwrap(),
            "a second name" => fs::hard_link(&victim, &part).unwrap(),
            "a file of another mode" => fs::write(&part, noise(30 << 20, 5)).unwrap(),
            _ => fs::create_dir(&part).unwrap(),
        }
        let done = restore(&sample.source, sample.root, None, &again(&sample, temp.path())).unwrap();
        assert_eq!(done.errors, [], "{plant}");
        assert_eq!(fs::read(&victim).unwrap(), b"victim", "{plant}");
        assert!(fs::read(home.join("long")).unwrap() == sample.long, "{plant}");
        fs::remove_dir_all(temp.path().join("home")).unwrap();
    }
}

/// What was left behind is longer than the file, and has data where the file has none.
#[test]
fn nothing_of_what_was_left_behind_stays_in_the_file() {
    let mut source = Source::new();
    let data = noise(300_000, 8);
    let mut pieces = vec![Piece::Hole { len: 20 << 20 }, source.chunk(&data), Piece::Hole { len: 1 << 20 }];
    let size = pieces.iter().map(Piece::len).sum::<u64>();
    let content = Content::Chunks(std::mem::take(&mut pieces));
    let root = source.tree(dir([(b"f", Item::File(content, size, None))]));
    let temp = tempfile::tempdir().unwrap();
    let (part, file) = (temp.path().join(part_of(&source, root, "/f")), temp.path().join("f"));
    fs::write(&part, noise(25 << 20, 9)).unwrap();
    // The mark of a part.
    fs::set_permissions(&part, std::os::unix::fs::PermissionsExt::from_mode(0o1600)).unwrap();
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let left = inode(&part);
    let request =
        RestoreRequest { id_key: Some(source.key.clone()), ..request(temp.path(), Overwrite::Always) };
    assert_eq!(restore(&source, root, None, &request).unwrap().errors, []);
    let mut expected = vec![0; size as usize];
    expected[20 << 20..(20 << 20) + data.len()].copy_from_slice(&data);
    assert!(fs::read(&file).unwrap() == expected && inode(&file) == left, "it went on with the part");
    // Neither of what was in the file's place.
    fs::write(&file, noise(25 << 20, 10)).unwrap();
    let request = RestoreRequest { replacing: Replacing::InPlace, ..request };
    assert_eq!(restore(&source, root, None, &request).unwrap().errors, []);
    assert!(fs::read(&file).unwrap() == expected && inode(&file) == left);
    let room = |path: &Path| std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512;
    assert!(room(&file) < 2 << 20, "holes are holes again");
}
