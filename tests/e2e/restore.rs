//! Restores onto what is there.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use backhaul_tests::netns::skipped;
use backhaul_tests::{Home, trees, wait_until};
use rustix::fs::FileType;

/// A home in which a tree was saved.
pub fn saved(dir: &Path) -> Home {
    let home = Home::new();
    home.run(&["-q", "quickstart", dir.to_str().unwrap()]).ok();
    home
}

#[test]
fn verify_compares_what_was_left_as_it_was_too() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("f"), b"good").unwrap();
    let home = saved(dir.path());
    let (from, to) = (format!("latest:{}", dir.path().display()), out.path().join("f"));
    fs::write(&to, b"evil").unwrap();
    let same_time = Command::new("touch").arg("-r").arg(dir.path().join("f")).arg(&to).status().unwrap();
    assert!(same_time.success());
    for overwrite in ["if-changed", "never"] {
        let args =
            ["restore", &from, "-t", out.path().to_str().unwrap(), "--verify", "--overwrite", overwrite];
        let done = home.run(&args).expect(3);
        assert!(done.err.contains("differs"), "{}", done.err);
        assert_eq!(fs::read(&to).unwrap(), b"evil", "what is to stay stays");
    }
    home.run(&["restore", &from, "-t", out.path().to_str().unwrap(), "--overwrite", "always", "--verify"])
        .ok();
    assert_eq!(fs::read(&to).unwrap(), b"good");
}

#[test]
fn a_killed_restore_leaves_no_part_under_a_name_and_harms_no_original() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..4 {
        fs::write(dir.path().join(format!("{i}")), trees::noise(60_000_000, i)).unwrap();
    }
    let home = saved(dir.path());
    fs::write(out.path().join("2"), b"mine").unwrap();
    let from = format!("latest:{}", dir.path().display());
    let args = ["-q", "restore", &from, "-t", out.path().to_str().unwrap(), "--overwrite", "always"];
    let mut running = home.command(&args).spawn().unwrap();
    // Whoever looks too late finds it whole.
    wait_until("a file is half there", || {
        let is_part = |file: &std::path::PathBuf| file.to_str().unwrap().ends_with(".backhaul-part");
        trees::files(out.path()).iter().any(is_part) || running.try_wait().unwrap().is_some()
    });
    running.kill().unwrap();
    running.wait().unwrap();
    for i in 0..4u64 {
        let found = fs::read(out.path().join(format!("{i}"))).unwrap_or_default();
        let whole = found == trees::noise(60_000_000, i);
        assert!(found.is_empty() || whole || (i == 2 && found == b"mine"), "{i} has {} bytes", found.len());
    }
    home.run(&args).ok();
    assert_eq!(fs::read(out.path().join("2")).unwrap(), trees::noise(60_000_000, 2));
}

#[test]
fn never_changes_no_folder_that_is_there() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(dir.path().join("a")).unwrap();
    fs::write(dir.path().join("a/f"), b"f").unwrap();
    let home = saved(dir.path());
    fs::create_dir(out.path().join("a")).unwrap();
    fs::set_permissions(out.path().join("a"), fs::Permissions::from_mode(0o700)).unwrap();
    let from = format!("latest:{}", dir.path().display());
    home.run(&["restore", &from, "-t", out.path().to_str().unwrap(), "--overwrite", "never"]).ok();
    assert_eq!(fs::metadata(out.path().join("a")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read(out.path().join("a/f")).unwrap(), b"f");
}

/// Name by name, with what would become of it; and nothing does.
#[test]
fn a_dry_run_says_of_each_name_what_would_become_of_it() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["same", "changed", "missing"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let home = saved(dir.path());
    let (from, to) = (format!("latest:{}", dir.path().display()), out.path().join("to"));
    let restore =
        |more: &[&str]| home.run(&[&["restore", &from, "-t", to.to_str().unwrap()], more].concat()).ok().out;
    restore(&[]);
    fs::remove_file(to.join("missing")).unwrap();
    fs::write(to.join("changed"), "changed since").unwrap();
    fs::write(to.join("more"), "more").unwrap();
    let said = restore(&["--dry-run", "-v", "--delete"]);
    for (act, name) in [("keep", "same"), ("replace", "changed"), ("new", "missing"), ("delete", "more")] {
        assert!(said.contains(&format!("{act:<8} {}\n", to.join(name).display())), "{act} {name}: {said}");
    }
    assert!(!to.join("missing").exists() && to.join("more").exists());
    assert_eq!(fs::read_to_string(to.join("changed")).unwrap(), "changed since");
}

/// What a dry run says of each name, in each mode, is what the run after it does.
#[test]
fn a_dry_run_of_each_mode_says_what_then_is_done() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (tree, to) = (dir.path().join("tree"), out.path().join("to"));
    fs::create_dir(&tree).unwrap();
    let at = |from_1970| SystemTime::UNIX_EPOCH + Duration::from_secs(from_1970);
    let write = |path: &Path, text: &str, time| {
        fs::write(path, text).unwrap();
        fs::File::options().append(true).open(path).unwrap().set_modified(at(time)).unwrap();
    };
    for name in ["same", "older there", "newer there", "missing"] {
        write(&tree.join(name), "as saved", 1_000_000);
    }
    let home = saved(&tree);
    let from = format!("latest:{}", tree.display());
    let modes: [(&[&str], [&str; 4]); 5] = [
        (&["--overwrite", "always"], ["replace", "replace", "replace", "new"]),
        (&["--overwrite", "if-changed"], ["keep", "replace", "replace", "new"]),
        (&["--overwrite", "if-newer"], ["keep", "replace", "keep", "new"]),
        (&["--overwrite", "never"], ["keep", "keep", "keep", "new"]),
        (&["--in-place"], ["keep", "replace", "replace", "new"]),
    ];
    for (mode, acts) in modes {
        let _ = fs::remove_dir_all(&to);
        fs::create_dir(&to).unwrap();
        write(&to.join("same"), "as saved", 1_000_000);
        write(&to.join("older there"), "another text", 900_000);
        write(&to.join("newer there"), "another text", 1_100_000);
        let inodes = |name: &str| fs::metadata(to.join(name)).map(|meta| meta.ino()).ok();
        let names = ["same", "older there", "newer there", "missing"];
        let (before, seen) = (names.map(inodes), trees::describe(&to, trees::Regard::All));
        let run = |more: &[&str]| {
            home.run(&[&["restore", &from, "-t", to.to_str().unwrap()], mode, more].concat()).ok().out
        };
        let said = run(&["--dry-run", "-v"]);
        for (name, act) in names.iter().zip(acts) {
            let line = format!("{act:<8} {}\n", to.join(name).display());
            assert!(said.contains(&line), "{mode:?} {line}: {said}");
        }
        assert_eq!(trees::describe(&to, trees::Regard::All), seen, "{mode:?}");
        run(&[]);
        for ((name, act), before) in names.iter().zip(acts).zip(before) {
            let is_replaced = inodes(name) != before || *name != "same";
            let text = fs::read_to_string(to.join(name)).unwrap();
            match act {
                "keep" => {
                    assert_eq!(inodes(name), before, "{mode:?} {name}");
                    assert_eq!(text == "as saved", *name == "same", "{mode:?} {name}");
                }
                _ => assert!(is_replaced && text == "as saved", "{mode:?} {name}: {text}"),
            }
        }
    }
}

#[test]
fn a_link_with_a_slash_is_what_it_leads_to_and_without_is_warned_about() {
    let (home, dir) = (Home::new(), tempfile::tempdir().unwrap());
    fs::create_dir(dir.path().join("real")).unwrap();
    fs::write(dir.path().join("real/f"), b"f").unwrap();
    let link = dir.path().join("link");
    symlink("real", &link).unwrap();
    let bare = home.run(&["quickstart", link.to_str().unwrap()]).ok();
    assert!(bare.err.contains("symbolic link"), "{}", bare.err);
    home.run(&["-q", "backup", &format!("{}/", link.display())]).ok();
    let found = home.run(&["find", "f", "--snapshot", &format!("latest:{}", dir.path().display())]).ok();
    assert_eq!(found.out.lines().count(), 1, "{}", found.out);
}

#[test]
fn a_restore_onto_what_is_there_takes_no_attributes_from_folders_and_keeps_links() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("folder")).unwrap();
    symlink("nowhere", tree.join("a")).unwrap();
    trees::special(&tree, "b", FileType::Fifo, 0).unwrap();
    fs::hard_link(tree.join("a"), tree.join("folder/a-too")).unwrap();
    fs::hard_link(tree.join("b"), tree.join("folder/b-too")).unwrap();
    let home = saved(&tree);
    let restore = |path: &Path, to: &Path| {
        let from = format!("latest:{}", path.display());
        home.run(&["restore", &from, "-t", to.to_str().unwrap()]).ok();
    };
    restore(&tree, out.path());
    // Further names are lost, and found by the first that is still there.
    for name in ["folder/a-too", "folder/b-too"] {
        fs::remove_file(out.path().join(name)).unwrap();
    }
    restore(&tree, out.path());
    trees::assert_equal_below(&tree, out.path());
    if !trees::attribute(&out.path().join("folder"), "user.mine", b"mine") {
        return skipped("there are no extended attributes here");
    }
    fs::remove_file(out.path().join("a")).unwrap();
    restore(&tree, out.path());
    let mut value = [0; 8];
    let len = rustix::fs::getxattr(out.path().join("folder"), "user.mine", &mut value[..]).unwrap();
    assert_eq!(&value[..len], b"mine");
    // A folder above what was saved says nothing of a new target: neither a time nor what it inherited.
    let above = out.path().join("above");
    restore(dir.path(), &above);
    let age = fs::metadata(&above).unwrap().modified().unwrap().elapsed().unwrap();
    assert!(age < std::time::Duration::from_secs(3_600), "{age:?}");
}

/// What a snapshot does not have was not all deleted by somebody: much was never in it.
#[test]
fn what_was_never_saved_is_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let home_of = |name: &str| dir.path().join("ana").join(name);
    for name in ["docs/kept", "docs/skip.tmp", "docs/sub/a.keep", "docs/cache/junk", "pictures/p", "note"] {
        fs::create_dir_all(home_of(name).parent().unwrap()).unwrap();
        fs::write(home_of(name), name).unwrap();
    }
    fs::write(home_of("docs/cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55").unwrap();
    let home = Home::new();
    let docs = home_of("docs");
    home.run(&["-q", "quickstart", docs.to_str().unwrap()]).ok();
    home.run(&["-q", "backup", docs.to_str().unwrap(), "--exclude", "*.tmp", "--exclude", "sub/"]).ok();
    for name in ["docs/new", "docs/dir/deep/b.keep", "docs/dir/deep/c", "docs/gone/d"] {
        fs::create_dir_all(home_of(name).parent().unwrap()).unwrap();
        fs::write(home_of(name), name).unwrap();
    }
    let delete = |from: &Path, more: &[&str]| {
        let what = format!("latest:{}", from.display());
        let args = [&["--json", "restore", &what, "-t", from.to_str().unwrap(), "--delete"], more].concat();
        home.run(&args).ok().json()["deleted"].as_u64().unwrap()
    };
    // The folder above was not saved: only the way to this one was.
    assert_eq!(delete(&dir.path().join("ana"), &["--exclude", "*.keep", "--dry-run"]), 4);
    assert_eq!(delete(&dir.path().join("ana"), &["--exclude", "*.keep"]), 4, "new, c, gone, d");
    let left: Vec<String> = trees::files(dir.path())
        .iter()
        .map(|path| path.strip_prefix(dir.path().join("ana")).unwrap().display().to_string())
        .collect();
    let expected = [
        "docs/cache/CACHEDIR.TAG",
        "docs/cache/junk",
        "docs/dir/deep/b.keep",
        "docs/kept",
        "docs/skip.tmp",
        "docs/sub/a.keep",
        "note",
        "pictures/p",
    ];
    assert_eq!(left, expected);
    assert_eq!(delete(&docs, &[]), 3, "dir, deep and b.keep");
    if !rustix::process::geteuid().is_root() {
        return skipped("only root may mount");
    }
    // A disk that is mounted where the snapshot has a folder is not emptied.
    let script = format!(
        "mount -t tmpfs none {0} && echo f > {0}/f && \"$@\" && test -e {0}/f",
        home_of("docs/disk").display()
    );
    fs::create_dir(home_of("docs/disk")).unwrap();
    home.run(&["-q", "backup", docs.to_str().unwrap()]).ok();
    let what = format!("latest:{}", docs.display());
    let run = home.command(&["restore", &what, "-t", docs.to_str().unwrap(), "--delete"]);
    let mut inside = Command::new("unshare");
    inside.args(["-m", "sh", "-c", &script, "sh"]).arg(run.get_program()).args(run.get_args());
    let done = inside.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        said.contains("another file system is mounted there") || said.contains("permission denied"),
        "{said}"
    );
}

/// A copy by hard links shares its files with what is restored.
#[test]
fn what_has_names_elsewhere_is_not_changed_there() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("f"), "content").unwrap();
    let home = saved(dir.path());
    let (to, copy) = (out.path().join("to"), out.path().join("copy"));
    let what = format!("latest:{}", dir.path().display());
    home.run(&["-q", "restore", &what, "-t", to.to_str().unwrap()]).ok();
    fs::set_permissions(to.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(to.join("f"), &copy).unwrap();
    home.run(&["-q", "restore", &what, "-t", to.to_str().unwrap()]).ok();
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    trees::assert_equal_below(dir.path(), &to);
}
