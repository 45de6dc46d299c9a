//! Everything that a Linux file system holds, through a backup and back: as root and as somebody else, into an empty
//! folder, in part, over something else, and again after changes.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use backhaul_tests::cases::{self, Cases, Released};
use backhaul_tests::netns::skipped;
use backhaul_tests::volumes::Volume;
use backhaul_tests::{Home, trees};
use rustix::fs::{FallocateFlags, FileType, fallocate};

fn restore(home: &Home, from: &Path, to: &Path, more: &[&str]) {
    let what = format!("latest:{}", from.display());
    home.run(&[&["-q", "restore", &what, "-t", to.to_str().unwrap()], more].concat()).ok();
}

/// Saves and restores a tree, and again when much has changed: onto what is there, exactly.
fn there_and_back(tree: &Path, to: &Path) -> Home {
    let home = Home::new();
    let saved = home.json(&["quickstart", tree.to_str().unwrap()]);
    assert_eq!(saved["errors"], serde_json::json!([]), "{}", tree.display());
    restore(&home, tree, to, &["--verify"]);
    trees::assert_equal(tree, to);
    change(tree);
    home.run(&["-q", "backup", tree.to_str().unwrap()]).ok();
    restore(&home, tree, to, &["--delete"]);
    trees::assert_equal(tree, to);
    home
}

#[test]
fn every_case_comes_back_for_root() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root may make most of it");
    }
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (tree, to) = (dir.path().join("tree"), out.path().join("full"));
    let _released = Released(vec![dir.path().to_owned(), out.path().to_owned()]);
    let made = Cases::all(&tree, true);
    made.assert_at_least(&[("sizes", 54), ("modes", 4_682), ("names", 528), ("links", 23), ("holes", 14)]);
    made.assert_at_least(&[
        ("attributes", 60),
        ("depths", 2),
        ("owners", 390),
        ("devices", 10),
        ("flags", 8),
    ]);
    made.assert_at_least(&[("times", 230), ("top", 3)]);
    let home = there_and_back(&tree, &to);

    // Over things of other kinds.
    cases::release(&to);
    scramble(&to);
    restore(&home, &tree, &to, &["--delete", "--overwrite", "always", "--verify"]);
    trees::assert_equal(&tree, &to);

    one_by_one(&home, &tree, out.path());
    let of_root = ["devices/b 4095 1048575"];
    alone(&home, &tree, out.path(), &of_root);
}

/// Single paths: one of each group, and one of each kind.
fn one_by_one(home: &Home, tree: &Path, out: &Path) {
    let mut groups: Vec<PathBuf> = fs::read_dir(tree).unwrap().map(|entry| entry.unwrap().path()).collect();
    groups.sort();
    for (i, group) in groups.iter().enumerate() {
        let to = out.join(format!("part {i}"));
        restore(home, group, &to, &[]);
        trees::assert_equal(group, &to);
    }
    let names =
        ["attributes/fifo text", "modes/4755", "times/symlink -1 999999999", "links/elsewhere/third socket"];
    alone(home, tree, out, &names);
}

/// Single files beside what `cp -a` makes of them.
fn alone(home: &Home, tree: &Path, out: &Path, names: &[&str]) {
    for name in names {
        let to = out.join(name.replace('/', " "));
        restore(home, &tree.join(name), &to, &[]);
        let alone = out.join(format!("alone {}", name.replace('/', " ")));
        fs::create_dir(&alone).unwrap();
        let copied = Command::new("cp").arg("-a").arg(tree.join(name)).arg(&alone).status().unwrap();
        assert!(copied.success());
        trees::assert_equal_below(&alone, &to);
    }
}

/// What they can hold, that is: none of them holds all.
#[test]
fn every_case_of_other_file_systems_comes_back() {
    for kind in ["tmpfs", "btrfs", "xfs"] {
        let Some(volume) = Volume::new(kind, 1_500, "") else { continue };
        let (tree, to) = (volume.path().join("tree"), volume.path().join("back"));
        let _released = Released(vec![tree.clone(), to.clone()]);
        let made = Cases::all(&tree, true);
        assert!(made.all() >= 4_900, "on {kind} only {made:?}");
        if kind == "btrfs" {
            // Among them those that a file takes only while it is empty.
            made.assert_at_least(&[("flags", 16)]);
        }
        there_and_back(&tree, &to);
    }
}

/// Of what is not there nothing is read, sent or stored.
#[test]
fn a_file_of_a_tebibyte_costs_what_is_in_it() {
    let (dir, home, out) = (tempfile::tempdir().unwrap(), Home::new(), tempfile::tempdir().unwrap());
    let (tree, to) = (dir.path().join("tree"), out.path().join("to"));
    fs::create_dir(&tree).unwrap();
    trees::sparse(&tree.join("disk"), 1 << 40, &[(0, 4_096), (1 << 39, 10_000), ((1 << 40) - 3, 3)]);
    let held = trees::extents(&tree.join("disk")).iter().map(|(from, to)| to - from).sum::<u64>();
    if held > 1 << 20 {
        return skipped("this file system has no holes");
    }
    let done = home.json(&["quickstart", tree.to_str().unwrap()]);
    assert_eq!(done["bytes_scanned"].as_u64(), Some(1 << 40), "{done}");
    assert!(done["bytes_read"].as_u64().unwrap() <= held, "{done}");
    assert!(done["bytes_sent"].as_u64().unwrap() < 100_000, "{done}");
    restore(&home, &tree, &to, &[]);
    trees::assert_equal(&tree, &to);
}

/// As many as ext4 lets a file have.
#[test]
fn a_file_of_many_names_is_one_file_again() {
    let Some(volume) = Volume::new("tmpfs", 200, "") else { return };
    let (tree, to) = (volume.path().join("tree"), volume.path().join("back"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("first"), "one content").unwrap();
    (1..65_000).for_each(|n| fs::hard_link(tree.join("first"), tree.join(format!("{n:05}"))).unwrap());
    let home = Home::new();
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    restore(&home, &tree, &to, &[]);
    let first = fs::metadata(to.join("first")).unwrap();
    assert_eq!((first.nlink(), fs::read_dir(&to).unwrap().count()), (65_000, 65_000));
    assert_eq!(fs::read_to_string(to.join("64999")).unwrap(), "one content");
}

#[test]
fn every_case_of_an_ordinary_user_comes_back_for_them() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (tree, to) = (dir.path().join("tree"), out.path().join("full"));
    let _released = Released(vec![dir.path().to_owned(), out.path().to_owned()]);
    let made = Cases::all(&tree, false);
    made.assert_at_least(&[("sizes", 54), ("modes", 2_195), ("names", 528), ("links", 20), ("holes", 14)]);
    made.assert_at_least(&[("attributes", 36), ("depths", 2), ("flags", 4), ("times", 190)]);
    let home = Home::unprivileged();
    for path in [dir.path(), out.path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    give_away(&tree);
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    restore(&home, &tree, &to, &["--verify"]);
    trees::assert_equal(&tree, &to);

    // What its owner may not read is named, and the rest is there.
    let closed = tree.join("sizes/512");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();
    let partial = home.run(&["--json", "backup", tree.to_str().unwrap()]).expect(3).json();
    let errors = partial["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0]["path"].as_str(), closed.to_str());
    fs::remove_file(&closed).unwrap();
    home.run(&["-q", "backup", tree.to_str().unwrap()]).ok();
    restore(&home, &tree, &to, &["--delete"]);
    trees::assert_equal(&tree, &to);

    // After changes, over things of other kinds, and one by one.
    change(&tree);
    give_away(&tree);
    home.run(&["-q", "backup", tree.to_str().unwrap()]).ok();
    restore(&home, &tree, &to, &["--delete"]);
    trees::assert_equal(&tree, &to);
    scramble(&to);
    give_away(&to);
    restore(&home, &tree, &to, &["--delete", "--overwrite", "always", "--verify"]);
    trees::assert_equal(&tree, &to);
    one_by_one(&home, &tree, out.path());
}

/// Makes a tree an ordinary user's, if root has made it.
fn give_away(tree: &Path) {
    if rustix::process::geteuid().is_root() {
        // Changing an owner takes away set-user-id and the like: a second time they stay.
        let before = modes(tree);
        assert!(Command::new("chown").args(["-hR", "65534"]).arg(tree).status().unwrap().success());
        for (path, mode) in before {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

/// Modes of all files and folders, deepest first.
fn modes(root: &Path) -> Vec<(PathBuf, u32)> {
    let mut all = vec![(root.to_owned(), fs::metadata(root).unwrap().permissions().mode())];
    let mut at = 0;
    while at < all.len() {
        let dir = all[at].0.clone();
        at += 1;
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let meta = entry.path().symlink_metadata().unwrap();
            if !meta.is_symlink() {
                all.push((entry.path(), meta.permissions().mode()));
            }
        }
    }
    all.reverse();
    all
}

/// Changes a tree in the ways that people do.
fn change(tree: &Path) {
    let at = |name: &str| tree.join(name);
    fs::rename(at("names"), at("renamed")).unwrap();
    // An ordinary user has none.
    let _ = fs::remove_dir_all(at("owners"));
    fs::rename(at("sizes/4096"), at("sizes/moved")).unwrap();
    fs::write(at("sizes/511"), trees::noise(511, 99)).unwrap();
    fs::write(at("links/second file"), "one name changes, all do").unwrap();
    fs::remove_file(at("links/elsewhere/third fifo")).unwrap();
    fs::remove_file(at("links/symlink 0")).unwrap();
    fs::create_dir(at("links/symlink 0")).unwrap();
    fs::remove_dir_all(at("times/dir 1 0")).unwrap();
    std::os::unix::fs::symlink("/etc", at("times/dir 1 0")).unwrap();
    fs::remove_dir_all(at("times/dir 0 0")).unwrap();
    fs::write(at("times/dir 0 0"), "a file now").unwrap();
    fs::write(at("holes/all"), "no hole any more").unwrap();
    let full = fs::File::options().write(true).open(at("holes/written zeros")).unwrap();
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let _ = fallocate(&full, how, 256 << 10, 512 << 10);
    for (was, is) in [("times/file 1 0", FileType::Fifo), ("attributes/file empty", FileType::Socket)] {
        fs::remove_file(at(was)).unwrap();
        let (folder, name) = was.rsplit_once('/').unwrap();
        trees::special(&at(folder), name, is, 0).unwrap();
    }
    fs::remove_file(at("times/fifo 1 0")).unwrap();
    fs::write(at("times/fifo 1 0"), "a file now").unwrap();
    fs::hard_link(at("sizes/513"), at("links/elsewhere/has one now")).unwrap();
    let file = fs::File::options().write(true).open(at("sizes/9437184")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"changed", 5_000_000).unwrap();
    trees::attribute(&at("attributes/file text"), "user.text", b"changed");
    fs::set_permissions(at("modes/0644"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// Puts something else in the place of much.
fn scramble(to: &Path) {
    let mut all: Vec<PathBuf> = trees::files(to);
    all.sort();
    for (i, path) in all.iter().enumerate().filter(|(i, _)| i % 5 == 0) {
        let _ = fs::remove_file(path);
        match i / 5 % 4 {
            0 => fs::create_dir_all(path.join("in the way")).unwrap(),
            1 => std::os::unix::fs::symlink("/etc/passwd", path).unwrap(),
            2 => fs::write(path, b"other content").unwrap(),
            _ => drop(trees::special(
                path.parent().unwrap(),
                &String::from_utf8_lossy(path.file_name().unwrap().as_bytes()),
                FileType::Fifo,
                0,
            )),
        }
    }
    let folder = to.join("deep");
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, b"a file where a folder was").unwrap();
}
