//! Restores onto what is there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use backhaul_tests::cases::Released;
use backhaul_tests::netns::skipped;
use backhaul_tests::{Home, trees, wait_until};
use rustix::fs::{FileType, IFlags, ioctl_getflags, ioctl_setflags};

fn saved(dir: &Path) -> Home {
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

#[test]
fn an_ordinary_user_gets_their_files_back_without_complaint() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (home, tree) = (Home::unprivileged(), dir.path().join("mine"));
    for path in [dir.path(), out.path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let script = format!("mkdir {0} && echo a > {0}/a", tree.display());
    let mut make = Command::new("sh");
    make.args(["-c", &script]);
    home.as_its_user(&mut make);
    assert!(make.status().unwrap().success());
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    home.run(&["restore", "latest", "-t", out.path().join("back").to_str().unwrap()]).ok();
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

/// Their owner has taken rights from them since: he may give them back, and does.
#[test]
fn files_that_their_owner_may_not_open_any_more_are_put_right() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (home, tree, to) = (Home::unprivileged(), dir.path().join("mine"), out.path().join("back"));
    for path in [dir.path(), out.path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let sh = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        home.as_its_user(&mut command);
        assert!(command.status().unwrap().success(), "{script}");
    };
    let (mine, back) = (tree.display(), to.display());
    sh(&format!("mkdir {mine} && echo a > {mine}/a && echo b > {mine}/b && echo c > {mine}/c"));
    let has_attributes = trees::attribute(&tree.join("b"), "user.note", b"kept");
    sh(&format!("chmod 444 {mine}/b && chmod 600 {mine}/c && echo d > {mine}/d"));
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    let restore = || {
        let what = format!("latest:{mine}");
        home.run(&["restore", &what, "-t", to.to_str().unwrap()]).ok();
        trees::assert_equal(&tree, &to);
    };
    restore();
    sh(&format!(
        "chmod 000 {back}/a && chmod 200 {back}/c && chmod 000 {back}/d && ln {back}/d {back}/../elsewhere"
    ));
    // What has a name elsewhere is not touched there, and is made anew here.
    let (elsewhere, d) = (out.path().join("elsewhere"), to.join("d"));
    restore();
    assert_eq!(fs::metadata(&elsewhere).unwrap().permissions().mode() & 0o7777, 0);
    assert!(fs::metadata(&elsewhere).unwrap().ino() != fs::metadata(&d).unwrap().ino());
    sh(&format!("chmod 000 {back}/a && chmod 200 {back}/c"));
    if has_attributes {
        assert!(trees::attribute(&to.join("b"), "user.note", b"another"));
    }
    restore();
}

/// Immutable, and only to be appended to: whoever may set these flags restores over them, and so they are gone.
#[test]
fn what_may_not_be_changed_is_replaced_and_removed_all_the_same_if_that_is_asked_for() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (tree, to) = (dir.path().join("tree"), out.path().join("to"));
    for folder in ["i", "a"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
        fs::write(tree.join(folder).join("text"), "as it was").unwrap();
        fs::write(tree.join(folder).join("large"), trees::noise(9_000_000, 1)).unwrap();
    }
    let (home, from) = (saved(&tree), format!("latest:{}", tree.display()));
    let restore = |more: &[&str]| home.run(&[&["restore", &from, "-t", to.to_str().unwrap()], more].concat());
    for more in [&["--overwrite", "always", "--delete"][..], &["--delete"], &["--delete", "--in-place"]] {
        restore(&["--delete"]).ok();
        let _released = Released(vec![to.clone()]);
        for (folder, flag) in [("i", IFlags::IMMUTABLE), ("a", IFlags::APPEND)] {
            let at = |name: &str| to.join(folder).join(name);
            fs::write(at("text"), "changed since").unwrap();
            fs::write(at("too much"), "not in the snapshot").unwrap();
            let large = fs::File::options().write(true).open(at("large")).unwrap();
            large.write_all_at(b"other", 5_000_000).unwrap();
            for path in [at("text"), at("too much"), at("large"), to.join(folder)] {
                let file = fs::File::open(&path).unwrap();
                let set = ioctl_getflags(&file).and_then(|flags| ioctl_setflags(&file, flags | flag));
                if set.is_err() {
                    return skipped("such flags cannot be set here");
                }
            }
        }
        restore(more).ok();
        trees::assert_equal(&tree, &to);
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
fn devices_come_back_for_root_and_are_named_for_everybody_else() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root may make devices");
    }
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = dir.path().join("dev");
    fs::create_dir(&tree).unwrap();
    let made = |name: &str, kind, device| trees::special(&tree, name, kind, device);
    let null = rustix::fs::makedev(1, 3);
    if made("null", FileType::CharacterDevice, null).is_err() {
        return skipped("this machine lets nobody make devices");
    }
    made("disk", FileType::BlockDevice, rustix::fs::makedev(259, 1_048_575)).unwrap();
    made("pipe", FileType::Fifo, 0).unwrap();
    fs::hard_link(tree.join("null"), tree.join("zero")).unwrap();
    let home = saved(&tree);
    let from = format!("latest:{}", tree.display());
    let done = home.json(&["restore", &from, "-t", out.path().to_str().unwrap(), "--verify"]);
    assert_eq!((done["special"].as_u64(), done["verified"].as_bool()), (Some(4), Some(true)), "{done}");
    trees::assert_equal(&tree, out.path());
    let listed = home.run(&["ls", "-l", &from]).ok();
    assert!(listed.out.contains("brw") && listed.out.contains("(259:1048575)"), "{}", listed.out);

    // A socket has taken the place of a device meanwhile: that is seen, and put right.
    fs::remove_file(out.path().join("disk")).unwrap();
    trees::special(out.path(), "disk", FileType::Socket, 0).unwrap();
    let kept = ["restore", &from, "-t", out.path().to_str().unwrap(), "--overwrite", "never", "--verify"];
    let done = home.run(&kept).expect(3);
    assert!(done.err.contains("disk: differs from the snapshot"), "{}", done.err);
    home.run(&["restore", &from, "-t", out.path().to_str().unwrap(), "--overwrite", "always"]).ok();
    trees::assert_equal(&tree, out.path());

    let (user, theirs) = (Home::unprivileged(), tempfile::tempdir().unwrap());
    fs::set_permissions(theirs.path(), fs::Permissions::from_mode(0o777)).unwrap();
    Command::new("cp").arg("-a").arg(home.path().join(".")).arg(user.path()).status().unwrap();
    Command::new("chown").arg("-R").arg("65534").arg(user.path()).status().unwrap();
    let into = theirs.path().join("out");
    fs::create_dir(&into).unwrap();
    fs::write(into.join("disk"), b"mine").unwrap();
    Command::new("chown").arg("-R").arg("65534").arg(&into).status().unwrap();
    let done = user.run(&["restore", &from, "-t", into.to_str().unwrap()]).expect(3);
    assert_eq!(done.err.matches("only root may make a device").count(), 3, "{}", done.err);
    assert!(done.err.contains("null") && into.join("pipe").symlink_metadata().is_ok());
    assert_eq!(fs::read(into.join("disk")).unwrap(), b"mine", "what cannot be replaced stays");
}

/// Who is not root gets the contents of what was root's, and hears what else is missing, and of which; what would run as its
/// owner runs as nobody else.
#[test]
fn what_only_root_may_set_is_named_for_everybody_else() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root may make what others cannot have back");
    }
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("folder")).unwrap();
    for name in ["plain", "runs as its owner", "folder/plain"] {
        fs::write(tree.join(name), name).unwrap();
    }
    (0..30).for_each(|n| fs::write(tree.join(format!("{n:02}")), "one of many").unwrap());
    std::os::unix::fs::chown(tree.join("runs as its owner"), Some(1_234), Some(1_234)).unwrap();
    fs::set_permissions(tree.join("runs as its owner"), fs::Permissions::from_mode(0o6755)).unwrap();
    symlink("plain", tree.join("link")).unwrap();
    if !trees::attribute(&tree.join("plain"), "trusted.backhaul", b"for root") {
        return skipped("there are no attributes of the system here");
    }
    let (home, from) = (saved(&tree), format!("latest:{}", tree.display()));
    let user = Home::unprivileged();
    Command::new("cp").arg("-a").arg(home.path().join(".")).arg(user.path()).status().unwrap();
    Command::new("chown").arg("-R").arg("65534").arg(user.path()).status().unwrap();
    fs::set_permissions(out.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let to = out.path().join("to");
    let args = ["--json", "restore", &from, "-t", to.to_str().unwrap()];
    let mut all = vec![String::new()];
    let files = trees::files(&tree).into_iter().chain([tree.join("folder")]);
    all.extend(files.map(|path| path.strip_prefix(&tree).unwrap().to_str().unwrap().to_owned()));
    assert_eq!(all.len(), 36);
    // The second time, the folder that it is restored into was there, and stays as it is.
    for owned in [&all[..], &all[1..]] {
        let done = user.run(&args).expect(3).json();
        assert_eq!(done["errors"].as_array().unwrap().len(), 0, "{done}");
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let unset = done["unset"].as_array().unwrap().iter();
        let said: BTreeSet<_> = unset.map(|unset| (text(&unset["path"]), text(&unset["error"]))).collect();
        let at = |name: &str| to.join(name).to_str().unwrap().trim_end_matches('/').to_owned();
        let mut expected: BTreeSet<_> =
            owned.iter().map(|name| (at(name), "owner not set: not root".to_owned())).collect();
        expected.insert((at("plain"), "attribute trusted.backhaul not set: not root".to_owned()));
        assert_eq!(said, expected, "{done}");
    }
    let said = user.run(&args[1..]).expect(3).err;
    assert!(
        said.contains(&format!("restored, but: {}: owner not set: not root\n", to.join("01").display())),
        "{said}"
    );
    assert!(said.contains("and 15 more: owner not set: not root (--json names all)"), "{said}");
    assert_eq!(said.matches("owner not set").count(), 21, "{said}");
    for name in ["plain", "runs as its owner", "folder/plain"] {
        assert_eq!(fs::read_to_string(to.join(name)).unwrap(), name);
    }
    let mode = fs::metadata(to.join("runs as its owner")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

/// Programs that set attributes do not change a file's own time, and a place may give attributes to what is made in it.
#[test]
fn attributes_come_back_are_seen_when_they_change_and_none_is_added() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("folder")).unwrap();
    fs::write(tree.join("file"), trees::noise(600_000, 1)).unwrap();
    fs::write(tree.join("folder/plain"), b"plain").unwrap();
    if !trees::attribute(&tree.join("file"), "user.comment", b"first") {
        return skipped("there are no extended attributes here");
    }
    trees::attribute(&tree.join("folder"), "user.comment", b"folder");
    let (home, from) = (saved(&tree), format!("latest:{}", tree.display()));
    // Whatever is made in the target inherits an access list.
    assert!(trees::attribute(out.path(), "system.posix_acl_default", &trees::acl(7)));
    let restore = |name: &str| {
        let to = out.path().join(name);
        home.run(&["restore", &from, "-t", to.to_str().unwrap()]).ok();
        trees::assert_equal(&tree, &to);
    };
    restore("first");
    // Nothing but the attribute is another, and nothing is sent for it but the entry.
    assert!(trees::attribute(&tree.join("file"), "user.comment", b"second"));
    let again = home.json(&["backup", tree.to_str().unwrap()]);
    assert!(again["bytes_stored"].as_u64().unwrap() < 20_000, "{again}");
    restore("second");
    // A file that is known from the last run keeps them, though it is not read.
    home.run(&["-q", "backup", tree.to_str().unwrap()]).ok();
    restore("third");
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
    trees::assert_equal(&tree, out.path());
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
    trees::assert_equal(dir.path(), &to);
}
