//! Targets that cannot take what comes, and sources that are not what they seem: each is named, the rest is done.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use backhaul_tests::mounts::{Mount, can_mount};
use backhaul_tests::netns::skipped;
use backhaul_tests::volumes::Volume;
use backhaul_tests::{Home, trees};
use serde_json::Value;

/// A home in which a tree was saved.
fn saved(tree: &Path) -> Home {
    let home = Home::new();
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    home
}

/// Restores a tree that cannot come back whole: what was said of it.
fn partly(home: &Home, tree: &Path, to: &Path) -> Value {
    let what = format!("latest:{}", tree.display());
    home.run(&["--json", "restore", &what, "-t", to.to_str().unwrap()]).expect(3).json()
}

/// The last names of what is named in the errors.
fn named(done: &Value) -> BTreeSet<String> {
    let errors = done["errors"].as_array().unwrap().iter();
    errors.map(|error| error["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
}

#[test]
fn what_a_full_disk_has_no_room_for_is_named_and_leaves_nothing_of_itself() {
    let Some(volume) = Volume::new("tmpfs", 6, "") else { return };
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for (name, len) in [("huge", 20_000_000), ("large", 9_000_000), ("middling", 4_000_000)] {
        fs::write(tree.join(name), trees::noise(len, 1)).unwrap();
    }
    for i in 0..50u64 {
        fs::write(tree.join(format!("small {i}")), trees::noise(2_000, i)).unwrap();
    }
    let (home, to) = (saved(&tree), volume.path().join("out"));
    let done = partly(&home, &tree, &to);
    let why = done["errors"][0]["error"].as_str().unwrap();
    assert!(why.contains("No space left"), "{done}");
    let missing = named(&done);
    assert!(missing.contains("huge") && missing.contains("large"), "{missing:?}");
    let there: BTreeSet<String> =
        fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for name in fs::read_dir(&tree).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        assert!(there.contains(&name) != missing.contains(&name), "{name} is both, or neither");
        if there.contains(&name) {
            assert!(fs::read(tree.join(&name)).unwrap() == fs::read(to.join(&name)).unwrap(), "{name}");
        }
    }
    assert!(there.len() + missing.len() == 53, "{there:?}: something of ours is left");
}

/// On btrfs, for which no user's quota files are needed.
#[test]
fn what_a_quota_has_no_room_for_is_named_and_comes_when_there_is_more() {
    let Some(volume) = Volume::new("btrfs", 400, "") else { return };
    let (dir, to) = (tempfile::tempdir().unwrap(), volume.path().join("counted"));
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for i in 0..12u64 {
        fs::write(tree.join(format!("{i:02}")), trees::noise(3_000_000, i)).unwrap();
    }
    let btrfs = |args: &[&str]| {
        let done = Command::new("btrfs").args(args).arg(&to).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    btrfs(&["subvolume", "create"]);
    btrfs(&["quota", "enable"]);
    btrfs(&["qgroup", "limit", "16M"]);
    let home = saved(&tree);
    let done = partly(&home, &tree, &to);
    let missing = named(&done);
    assert!(missing.len() > 5 && missing.len() < 12, "{done}");
    for error in done["errors"].as_array().unwrap() {
        assert!(error["error"].as_str().unwrap().contains("quota exceeded"), "{error}");
    }
    for name in fs::read_dir(&tree).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        let there = fs::read(to.join(&name)).unwrap_or_default();
        assert!(missing.contains(&name) == there.is_empty(), "{name} is both, or neither");
        assert!(there.is_empty() || there == fs::read(tree.join(&name)).unwrap(), "{name}");
    }
    btrfs(&["qgroup", "limit", "none"]);
    let what = format!("latest:{}", tree.display());
    let rest = home.json(&["restore", &what, "-t", to.to_str().unwrap()]);
    assert_eq!(rest["files"].as_u64(), Some(missing.len() as u64), "{rest}");
    trees::assert_equal_below(&tree, &to);
}

/// Of blocks of 1 KiB each an ext2 has no files of more than 16 GiB, and says so at once.
#[test]
fn what_is_too_large_a_file_for_the_target_is_named_and_leaves_nothing_of_itself() {
    let Some(volume) = Volume::new("ext2", 64, "") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (tree, to) = (dir.path().join("tree"), volume.path().join("to"));
    fs::create_dir(&tree).unwrap();
    trees::sparse(&tree.join("large"), 20 << 30, &[(0, 4_096), (19 << 30, 4_096)]);
    fs::write(tree.join("small"), "small").unwrap();
    let home = saved(&tree);
    let done = partly(&home, &tree, &to);
    assert_eq!(named(&done), BTreeSet::from(["large".to_owned()]), "{done}");
    assert!(done["errors"][0]["error"].as_str().unwrap().contains("File too large"), "{done}");
    assert_eq!(trees::names(&to), ["small"]);
    assert_eq!(fs::read_to_string(to.join("small")).unwrap(), "small");
}

#[test]
fn a_target_that_may_not_be_written_to_is_named_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("in")).unwrap();
    fs::write(tree.join("in/new"), "new").unwrap();
    fs::write(tree.join("old"), "as saved").unwrap();
    let home = saved(&tree);
    if let Some(volume) = Volume::new("tmpfs", 4, "") {
        fs::write(volume.path().join("old"), "as it is").unwrap();
        volume.freeze();
        let done = partly(&home, &tree, &volume.path());
        assert!(done["errors"].to_string().contains("Read-only file system"), "{done}");
        assert!(named(&done).is_superset(&BTreeSet::from(["in".to_owned(), "old".to_owned()])), "{done}");
        assert_eq!(fs::read_to_string(volume.path().join("old")).unwrap(), "as it is");
        let what = format!("latest:{}", tree.display());
        let nowhere = volume.path().join("not there");
        let failed = home.run(&["restore", &what, "-t", nowhere.to_str().unwrap()]).expect(1);
        assert!(failed.err.contains("not there") && failed.err.contains("Read-only"), "{}", failed.err);
    }
    let user = Home::unprivileged();
    let to = dir.path().join("closed");
    fs::create_dir(&to).unwrap();
    for path in [dir.path(), &tree, &tree.join("in")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&to, fs::Permissions::from_mode(0o555)).unwrap();
    user.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    let done = partly(&user, &tree, &to);
    assert!(done["errors"].to_string().contains("Permission denied"), "{done}");
    assert!(fs::read_dir(&to).unwrap().next().is_none());
}

/// ramfs has none, whoever asks.
#[test]
fn without_extended_attributes_the_files_come_back_and_what_is_lost_is_named() {
    let Some(volume) = Volume::new("ramfs", 4, "") else { return };
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("with"), "with").unwrap();
    fs::write(tree.join("without"), "without").unwrap();
    if !trees::attribute(&tree.join("with"), "user.comment", b"kept") {
        return skipped("no attributes can be set here");
    }
    let home = saved(&tree);
    let done = partly(&home, &tree, &volume.path());
    let unset = done["unset"].as_array().unwrap();
    assert!(unset.len() == 1 && named(&done).is_empty(), "{done}");
    assert!(unset[0]["path"].as_str().unwrap().ends_with("/with"), "{done}");
    assert!(unset[0]["error"].as_str().unwrap().contains("user.comment"), "{done}");
    for name in ["with", "without"] {
        assert_eq!(fs::read_to_string(volume.path().join(name)).unwrap(), name);
    }
}

#[test]
fn folders_that_may_not_be_read_and_files_that_grow_without_end_are_named_and_end_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("closed/in")).unwrap();
    fs::write(tree.join("open"), "open").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let user = Home::unprivileged();
    user.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o0)).unwrap();
    let partial = user.run(&["--json", "backup", tree.to_str().unwrap()]).expect(3).json();
    assert_eq!((named(&partial), &partial["files"]), (BTreeSet::from(["closed".to_owned()]), &1.into()));
    fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o755)).unwrap();

    let (growing, stop) = (tree.join("growing"), AtomicBool::new(false));
    fs::write(&growing, trees::noise(30_000_000, 1)).unwrap();
    let partial = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::File::options().append(true).open(&growing).unwrap();
            while !stop.load(Ordering::Relaxed) {
                std::io::Write::write_all(&mut file, &[1; 4_096]).unwrap();
                // As fast as a log that has gone mad, and no faster than a small disk takes.
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        let done = user.run(&["--json", "backup", tree.to_str().unwrap(), "--still", "off"]);
        stop.store(true, Ordering::Relaxed);
        done.expect(3).json()
    });
    assert_eq!(named(&partial), BTreeSet::from(["growing".to_owned()]), "{partial}");
    assert!(partial["errors"].to_string().contains("changed while it was read"), "{partial}");
    let out = dir.path().join("growing");
    user.run(&["dump", &format!("latest:{}", growing.display())]).ok();
    let dumped = user.command(&["dump", &format!("latest:{}", growing.display())]).output().unwrap();
    fs::write(&out, &dumped.stdout).unwrap();
    assert!(dumped.stdout.starts_with(&trees::noise(30_000_000, 1)));
}

/// Where letters are not told by their case, whatever is listed, one of two such names is there and the other is named.
#[test]
fn of_names_that_the_target_takes_for_one_the_second_is_refused_each_time() {
    let (dir, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (disk, at) = (image.path().join("disk"), image.path().join("at"));
    fs::create_dir(&at).unwrap();
    fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let works = |program: &str, args: &[&str], paths: &[&Path]| {
        let done = Command::new(program).args(args).args(paths).output();
        done.is_ok_and(|output| output.status.success())
    };
    if !works("mkfs.ntfs", &["-q", "-F"], &[&disk])
        || !works("lowntfs-3g", &["-o", "ignore_case"], &[&disk, &at])
    {
        return skipped("no file system is here that does not tell letters by their case");
    }
    let tree = dir.path().join("tree");
    for (name, text) in [("D/y", "1"), ("d/x", "2"), ("Twin", "upper"), ("twin", "lower"), ("other", "o")] {
        fs::create_dir_all(tree.join(name).parent().unwrap()).unwrap();
        fs::write(tree.join(name), text).unwrap();
    }
    let home = saved(&tree);
    let mut results = Vec::new();
    for more in [&[][..], &["--overwrite", "always"]] {
        let (from, to) = (format!("latest:{}", tree.display()), at.join("to"));
        let args = ["--json", "restore", &from, "-t", to.to_str().unwrap()];
        let done = home.run(&[&args[..], more].concat());
        let texts =
            ["twin", "other", "d/y"].map(|name| fs::read_to_string(to.join(name)).unwrap_or_default());
        results.push((done, texts, to.join("d/x").exists()));
    }
    assert!(works("umount", &[], &[&at]));
    for (done, texts, is_mixed) in results {
        let named = named(&done.expect(3).json());
        assert_eq!(named.iter().map(String::as_str).collect::<Vec<_>>(), ["d", "twin"]);
        assert_eq!((texts, is_mixed), (["upper", "o", "1"].map(str::to_owned), false));
    }
}

/// An entry has room for so many: what is left out is named, and the rest of the file is saved.
#[test]
fn attributes_for_which_there_is_no_room_are_named() {
    let Some(volume) = Volume::new("tmpfs", 16, "") else { return };
    let tree = volume.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("many"), "many").unwrap();
    fs::write(tree.join("large"), "large").unwrap();
    let set =
        (0..1_003).filter(|n| trees::attribute(&tree.join("many"), format!("trusted.n{n:04}"), b"x")).count();
    let large = (0..5)
        .filter(|n| trees::attribute(&tree.join("large"), format!("trusted.n{n}"), &[7; 60_000]))
        .count();
    if (set, large) != (1_003, 5) {
        return skipped("a file cannot have so many attributes here");
    }
    let (home, back) = (Home::new(), volume.path().join("back"));
    let saved = home.run(&["--json", "quickstart", tree.to_str().unwrap()]).expect(3).json();
    let said: Vec<&str> =
        saved["errors"].as_array().unwrap().iter().map(|error| error["error"].as_str().unwrap()).collect();
    assert_eq!(said.iter().filter(|why| why.contains("is not saved")).count(), 3 + 1, "{said:?}");
    home.run(&["-q", "restore", &format!("latest:{}", tree.display()), "-t", back.to_str().unwrap()]).ok();
    let count = |name: &str| {
        let mut names = vec![0; 64 << 10];
        let len = rustix::fs::listxattr(back.join(name), &mut names[..]).unwrap();
        names[..len].split(|byte| *byte == 0).filter(|name| name.starts_with(b"trusted.")).count()
    };
    assert_eq!((count("many"), count("large")), (1_000, 4));
}

/// The first file of a name below a folder.
fn below(top: &Path, name: &str) -> PathBuf {
    let named = |path: &PathBuf| path.file_name().is_some_and(|last| last == name);
    trees::files(top).into_iter().find(named).unwrap()
}

/// A mounted snapshot is such a source: served by a program, with inodes of its own making.
#[test]
fn what_a_program_serves_as_files_is_saved_like_others() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (tree, at, back) = (dir.path().join("tree"), dir.path().join("at"), dir.path().join("back"));
    fs::create_dir_all(tree.join("in")).unwrap();
    fs::create_dir(&at).unwrap();
    for i in 0..40u64 {
        fs::write(tree.join(format!("in/{i}")), trees::noise(20_000 * i as usize, i)).unwrap();
    }
    let home = saved(&tree);
    let mount = Mount::on(&home, &at, &[]);
    let other = Home::new();
    let done = other.run(&["--json", "quickstart", at.to_str().unwrap()]);
    mount.umount();
    let saved = done.ok().json();
    assert_eq!(saved["errors"], serde_json::json!([]), "{saved}");
    other.run(&["-q", "restore", "latest", "-t", back.to_str().unwrap()]).ok();
    trees::assert_equal(&tree.join("in"), below(&back, "39").parent().unwrap());
}

/// A disk with a bad sector gives the beginning of a file and then an error. Here a mounted snapshot does, of which the vault has
/// lost a part.
#[test]
fn a_file_that_cannot_be_read_to_its_end_is_named_and_the_rest_is_saved() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (tree, at, back) = (dir.path().join("tree"), dir.path().join("at"), dir.path().join("back"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(&at).unwrap();
    fs::write(tree.join("large"), trees::noise(30_000_000, 1)).unwrap();
    (2..20).for_each(|i| fs::write(tree.join(i.to_string()), trees::noise(3_000, i)).unwrap());
    let home = saved(&tree);
    let vault = home.path().join("server/vaults/main");
    let largest = |path: &PathBuf| path.metadata().unwrap().len();
    let pack = trees::files(&vault.join("packs")).into_iter().max_by_key(largest).unwrap();
    let file = fs::File::options().write(true).open(&pack).unwrap();
    file.write_all_at(&[0; 64], pack.metadata().unwrap().len() / 2).unwrap();
    fs::remove_dir_all(vault.join("parity")).unwrap();

    let mount = Mount::on(&home, &at, &[]);
    let shown = below(&at, "large");
    let read = fs::File::open(&shown).and_then(|mut file| std::io::copy(&mut file, &mut std::io::sink()));
    let other = Home::new();
    let done = other.run(&["--json", "quickstart", shown.parent().unwrap().to_str().unwrap()]);
    mount.umount();
    let error = read.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
    let saved = done.expect(3).json();
    assert_eq!(named(&saved), BTreeSet::from(["large".to_owned()]), "{saved}");
    assert!(saved["errors"][0]["error"].as_str().unwrap().contains("Input/output error"), "{saved}");
    other.run(&["-q", "restore", "latest", "-t", back.to_str().unwrap()]).ok();
    // What was to be replaced by it is still what it was.
    let kept = dir.path().join("kept");
    fs::write(&kept, "before").unwrap();
    let what = format!("latest:{}", tree.join("large").display());
    let dumped = home.run(&["dump", &what, "-o", kept.to_str().unwrap()]);
    assert!(dumped.code != 0 && dumped.err.contains("damaged"), "{}", dumped.err);
    assert!(fs::read(&kept).unwrap() == b"before" && !dir.path().join("kept.part").exists());
    let small = format!("latest:{}", tree.join("19").display());
    for (place, why) in
        [(dir.path().join("no/where"), "its folder is not there"), (tree.clone(), "is a directory")]
    {
        let refused = home.run(&["dump", &small, "-o", place.to_str().unwrap()]).expect(1);
        let said = format!("{} cannot be written: {why}", place.display());
        assert!(refused.err.contains(&said) && refused.err.contains("hint: say -o"), "{}", refused.err);
    }
    home.run(&["dump", &small, "-o", kept.to_str().unwrap()]).ok();
    assert!(fs::read(&kept).unwrap() == fs::read(tree.join("19")).unwrap());
    fs::remove_file(tree.join("large")).unwrap();
    trees::assert_equal_below(&tree, below(&back, "19").parent().unwrap());
}
