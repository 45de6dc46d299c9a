//! Sources that are not what they seem: a folder in two places, layers over each other, what only another may see or whose
//! key is not here, and what a server far away has forgotten.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use backhaul_tests::mounts::{Apart, Mount, can_mount};
use backhaul_tests::netns::skipped;
use backhaul_tests::strange::{self, LETTER, RIGHTS};
use backhaul_tests::volumes::{Volume, tool};
use backhaul_tests::{Home, binary, trees};
use serde_json::Value;

/// The last parts of the paths that could not be read.
fn named(done: &Value) -> BTreeSet<&str> {
    let errors = done["errors"].as_array().unwrap().iter();
    errors.map(|error| error["path"].as_str().unwrap().rsplit('/').next().unwrap()).collect()
}

/// Restores the latest into a new folder: what is there of the right size and time would be left as it is.
fn restore(home: &Home, tree: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let what = format!("latest:{}", tree.display());
    home.run(&["-q", "restore", &what, "-t", to.to_str().unwrap()]).ok();
}

/// Something mounted on a folder, until the end of a test.
struct Mounted<'p>(&'p Path);

impl<'p> Mounted<'p> {
    fn new(args: &[&str], at: &'p Path) -> Option<Self> {
        let mounted = Command::new("mount").args(args).arg(at).stderr(std::process::Stdio::null()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(at));
        }
        skipped(&format!("mount {args:?} does not work here"));
        None
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// As `rsync -x` and `find -xdev` have it, a bind mount of the same file system is no other one; and what is in both places is the
/// same files.
#[test]
fn a_folder_that_is_mounted_in_a_second_place_is_saved_in_both() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, to) = (dir.path().join("tree"), dir.path().join("back"));
    fs::create_dir_all(tree.join("here/in")).unwrap();
    fs::create_dir(tree.join("there")).unwrap();
    fs::write(tree.join("here/letter"), trees::noise(50_000, 1)).unwrap();
    fs::hard_link(tree.join("here/letter"), tree.join("here/in/same letter")).unwrap();
    let there = tree.join("there");
    // The top folder in itself, too: it is not gone round and round.
    let Some(_bound) = Mounted::new(&["--bind", tree.to_str().unwrap()], &there) else { return };
    let home = Home::new();
    let path = tree.to_str().unwrap();
    for args in [&["-q", "quickstart", path][..], &["-q", "backup", "-x", path]] {
        home.run(args).ok();
        restore(&home, &tree, &to);
        trees::assert_equal(&tree, &to);
        assert_eq!(fs::metadata(to.join("there/here/letter")).unwrap().nlink(), 4);
        assert!(fs::read_dir(to.join("there/there")).unwrap().next().is_none());
    }
}

/// A file of a lower layer is another one from its first change on; both as the machine sees it, and as it lies on its disk.
#[test]
fn layers_over_each_other_come_back_as_seen_and_as_they_lie_there() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["lower/folder", "lower/gone", "upper", "work", "merged"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("lower/large"), trees::noise(5_000_000, 1)).unwrap();
    fs::write(at("lower/small"), "of the lower layer").unwrap();
    fs::write(at("lower/folder/one of two"), "one file").unwrap();
    fs::hard_link(at("lower/folder/one of two"), at("lower/other")).unwrap();
    fs::write(at("lower/gone/too"), "gone").unwrap();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        at("lower").display(),
        at("upper").display(),
        at("work").display()
    );
    let merged = at("merged");
    let Some(_mounted) = Mounted::new(&["-t", "overlay", "-o", &options, "backhaul-test"], &merged) else {
        return;
    };
    let (home, to) = (Home::new(), at("back"));
    home.run(&["-q", "quickstart", merged.to_str().unwrap()]).ok();
    restore(&home, &merged, &to);
    trees::assert_equal(&merged, &to);

    // Copied up, a name of two for its own; of the same length, and with the same time of change.
    let before = fs::metadata(merged.join("large")).unwrap();
    let file = fs::File::options().write(true).open(merged.join("large")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"changed", 2_000_000).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    drop(file);
    fs::set_permissions(merged.join("small"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(merged.join("other"), "a file by itself").unwrap();
    fs::remove_file(merged.join("folder/one of two")).unwrap();
    fs::remove_dir_all(merged.join("gone")).unwrap();
    fs::create_dir(merged.join("gone")).unwrap();
    fs::write(merged.join("gone/new"), "of the upper layer").unwrap();
    home.run(&["-q", "backup", merged.to_str().unwrap()]).ok();
    restore(&home, &merged, &to);
    trees::assert_equal(&merged, &to);

    // What is gone is a device there, and an attribute says what is covered.
    let (upper, back) = (at("upper"), at("upper back"));
    home.run(&["-q", "backup", upper.to_str().unwrap()]).ok();
    restore(&home, &upper, &back);
    trees::assert_equal(&upper, &back);
    let seen = format!("{:?}", trees::describe(&back, trees::Regard::All));
    assert!(seen.contains("CharacterDevice 0") && seen.contains("trusted.overlay.opaque"), "{seen}");
}

/// Not even root may look into what somebody mounts by FUSE.
#[test]
fn what_another_user_has_mounted_is_named_and_the_rest_is_saved() {
    if Command::new("fusermount3").arg("-V").output().is_err() {
        return skipped("who is not root mounts by fusermount3");
    }
    let Some(apart) = Apart::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let tree = dir.path().canonicalize().unwrap().join("tree");
    fs::create_dir_all(tree.join("theirs")).unwrap();
    fs::write(tree.join("letter"), "dear ana").unwrap();
    let (user, root) = (Home::unprivileged(), Home::new());
    user.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    root.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    let owner = fs::metadata(user.path()).unwrap();
    chown(tree.join("theirs"), Some(owner.uid()), Some(owner.gid())).unwrap();
    let mount = Mount::on_apart(&apart, &user, &tree.join("theirs"));
    let mut backup = apart.enter(&root, binary().to_str().unwrap());
    backup.arg("--home").arg(root.path()).args(["--json", "backup"]).arg(&tree);
    let done = backup.output().unwrap();
    let mut unmount = apart.enter(&user, "fusermount3");
    unmount.arg("-u");
    mount.umount_by(unmount);
    assert_eq!(done.status.code(), Some(3), "{}", String::from_utf8_lossy(&done.stderr));
    let done: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(named(&done), BTreeSet::from(["theirs"]), "{done}");
    assert!(done["errors"][0]["error"].as_str().unwrap().contains("Permission denied"), "{done}");
    restore(&root, &tree, &dir.path().join("back"));
    assert_eq!(fs::read_to_string(dir.path().join("back/letter")).unwrap(), "dear ana");
}

/// With its key in this session, and later without.
#[test]
fn an_encrypted_folder_is_saved_in_plain_while_it_is_open_and_named_when_it_is_locked() {
    let Some(volume) = Volume::new("ext4", 64, "") else { return };
    if Command::new("e4crypt").arg("help").output().is_err() {
        return skipped("e4crypt locks and unlocks folders");
    }
    let at = volume.path();
    tool("tune2fs", &[Path::new("-O"), Path::new("encrypt"), Path::new(&volume.device())]);
    tool("mount", &[Path::new("-o"), Path::new("remount"), &at]);
    let (tree, home, out) = (at.join("tree"), Home::new(), tempfile::tempdir().unwrap());
    fs::create_dir_all(tree.join("locked")).unwrap();
    fs::write(tree.join("letter"), "dear ana").unwrap();
    // The key is of the session of this shell, and goes with it.
    let script = "e4crypt new_session && echo pass | e4crypt add_key -S s:5a17 \"$2/locked\" \
        && echo secret > \"$2/locked/diary\" && exec \"$0\" --home \"$1\" -q quickstart \"$2\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(binary()).arg(home.path()).arg(&tree);
    let done = shell.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    if said.contains("Operation not supported") || said.contains("Function not implemented") {
        return skipped("this kernel encrypts no folders");
    }
    assert!(done.status.success(), "{said}");
    volume.again();
    let what = format!("latest:{}", tree.display());
    let dumped = home.run(&["dump", &format!("{what}/locked/diary")]).ok().out;
    assert_eq!(dumped, "secret\n");
    let restored = home.run(&["--json", "restore", &what, "-t", out.path().join("open").to_str().unwrap()]);
    assert_eq!(restored.ok().json()["unset"], serde_json::json!([]));
    assert_eq!(fs::read_to_string(out.path().join("open/locked/diary")).unwrap(), "secret\n");

    let done = home.run(&["--json", "backup", tree.to_str().unwrap()]).expect(3).json();
    let errors = done["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{done}");
    assert!(errors[0]["path"].as_str().unwrap().contains("/locked"), "{done}");
    assert!(errors[0]["error"].as_str().unwrap().contains("Required key not available"), "{done}");
    home.run(&["-q", "restore", &what, "-t", out.path().join("locked").to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(out.path().join("locked/letter")).unwrap(), "dear ana");
}

/// Each is named with what the system says of it; what can be read is saved, and what cannot be set is named, too.
#[test]
fn what_a_server_far_away_has_forgotten_is_named_and_so_are_rights_that_no_disk_here_takes() {
    if !can_mount() {
        return;
    }
    let (dir, home) = (tempfile::tempdir().unwrap(), Home::new());
    let (at, to) = (dir.path().join("at"), dir.path().join("back"));
    fs::create_dir(&at).unwrap();
    let mounted = strange::mount(&at);
    let done = home.run(&["--json", "quickstart", at.to_str().unwrap()]);
    drop(mounted);
    let saved = done.expect(3).json();
    let wanted = ["forgotten", "lost-half-way", "forgotten-folder", "half-listed"];
    assert_eq!(named(&saved), BTreeSet::from(wanted), "{saved}");
    for error in saved["errors"].as_array().unwrap() {
        let why = if error["path"].as_str().unwrap().ends_with("half-listed") {
            "its attribute user.broken: Input/output error"
        } else {
            "Stale file handle"
        };
        assert!(error["error"].as_str().unwrap().contains(why), "{error}");
    }
    let what = format!("latest:{}", at.display());
    let restored = home.run(&["--json", "restore", &what, "-t", to.to_str().unwrap()]).expect(3).json();
    let unset = restored["unset"].as_array().unwrap();
    assert_eq!(unset.len(), 1, "{restored}");
    assert!(unset[0]["path"].as_str().unwrap().ends_with("/listed"), "{restored}");
    assert!(unset[0]["error"].as_str().unwrap().contains(RIGHTS.0), "{restored}");
    for name in ["letter", "listed", "half-listed"] {
        assert_eq!(fs::read(to.join(name)).unwrap(), LETTER, "{name}");
    }
    let seen = trees::describe(&to, trees::Regard::All);
    for name in ["listed", "half-listed"] {
        assert!(seen[Path::new(name)].contains("user.plain=[70, 6c, 61, 69, 6e]"), "{seen:?}");
    }
    for name in ["forgotten", "lost-half-way"] {
        assert!(!to.join(name).exists(), "{name}");
    }
}
