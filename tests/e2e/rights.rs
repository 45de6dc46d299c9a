//! Who may set what: owners, modes, attributes, flags and devices, restored by root and by everybody else.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use backhaul_tests::cases::Released;
use backhaul_tests::netns::skipped;
use backhaul_tests::volumes::Volume;
use backhaul_tests::{Home, trees};
use rustix::fs::{FileType, IFlags, ioctl_getflags, ioctl_setflags};

use crate::restore::saved;

/// A folder into which everybody may write.
fn open_to_all() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    dir
}

/// Runs a script as the user whose home it is.
fn as_its_user(home: &Home, script: &str) {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    home.as_its_user(&mut command);
    assert!(command.status().unwrap().success(), "{script}");
}

#[test]
fn an_ordinary_user_gets_their_files_back_without_complaint() {
    let (dir, out) = (open_to_all(), open_to_all());
    let (home, tree) = (Home::unprivileged(), dir.path().join("mine"));
    as_its_user(&home, &format!("mkdir {0} && echo a > {0}/a", tree.display()));
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    home.run(&["restore", "latest", "-t", out.path().join("back").to_str().unwrap()]).ok();
}

/// Their owner has taken rights from them since: he may give them back, and does.
#[test]
fn files_that_their_owner_may_not_open_any_more_are_put_right() {
    let (dir, out) = (open_to_all(), open_to_all());
    let (home, tree, to) = (Home::unprivileged(), dir.path().join("mine"), out.path().join("back"));
    let sh = |script: &str| as_its_user(&home, script);
    let (mine, back) = (tree.display(), to.display());
    sh(&format!("mkdir {mine} && echo a > {mine}/a && echo b > {mine}/b && echo c > {mine}/c"));
    let has_attributes = trees::attribute(&tree.join("b"), "user.note", b"kept");
    sh(&format!("chmod 444 {mine}/b && chmod 600 {mine}/c && echo d > {mine}/d"));
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    let restore = || {
        let what = format!("latest:{mine}");
        home.run(&["restore", &what, "-t", to.to_str().unwrap()]).ok();
        trees::assert_equal_below(&tree, &to);
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

/// The same of folders, whatever is left of their rights; one that is to stay as it is stays closed, and is named.
#[test]
fn folders_that_their_owner_may_not_open_any_more_are_put_right() {
    let (dir, out) = (open_to_all(), open_to_all());
    let (home, tree, to) = (Home::unprivileged(), dir.path().join("mine"), out.path().join("back"));
    let sh = |script: &str| as_its_user(&home, script);
    let (mine, back) = (tree.display(), to.display());
    sh(&format!("mkdir -p {mine}/f/in/deep && echo a > {mine}/f/a && echo b > {mine}/f/in/deep/b"));
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    let what = format!("latest:{mine}");
    let restore = |more: &[&str]| {
        home.run(&[&["restore", &what, "-t", to.to_str().unwrap(), "--delete"], more].concat())
    };
    restore(&[]).ok();
    for mode in ["000", "300", "100", "200", "500"] {
        sh(&format!("echo changed > {back}/f/a && rm -f {back}/f/in/deep/b && touch {back}/f/in/more"));
        sh(&format!("chmod {mode} {back}/f/in && chmod {mode} {back}/f"));
        restore(&[]).ok();
        trees::assert_equal(&tree, &to);
    }
    sh(&format!("chmod 000 {back}/f"));
    let refused = home.run(&["restore", &what, "-t", to.to_str().unwrap(), "--overwrite", "never"]).expect(3);
    assert!(refused.err.contains("its folder cannot be opened: Permission denied"), "{}", refused.err);
    assert_eq!(fs::metadata(to.join("f")).unwrap().permissions().mode() & 0o777, 0);
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

/// What somebody's shell takes away from new files is not taken from what is restored.
#[test]
fn modes_are_those_of_the_snapshot_whatever_the_umask_is() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("folder")).unwrap();
    for (name, len, mode) in [("small", 100, 0o666), ("folder/large", 9_000_000, 0o755), ("set", 100, 0o2775)]
    {
        fs::write(tree.join(name), trees::noise(len, 1)).unwrap();
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::hard_link(tree.join("small"), tree.join("linked")).unwrap();
    trees::special(&tree, "pipe", FileType::Fifo, 0).unwrap();
    fs::set_permissions(tree.join("pipe"), fs::Permissions::from_mode(0o622)).unwrap();
    for folder in [&tree, &tree.join("folder")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let (home, from) = (saved(&tree), format!("latest:{}", tree.display()));
    for umask in ["000", "077", "777"] {
        let to = out.path().join(umask);
        let inner = home.command(&["-q", "restore", &from, "-t", to.to_str().unwrap()]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("umask {umask} && exec \"$0\" \"$@\""));
        shell.arg(inner.get_program()).args(inner.get_args());
        assert!(shell.status().unwrap().success(), "umask {umask}");
        trees::assert_equal(&tree, &to);
    }
}

fn xfs(command: &str, path: &Path) -> String {
    let done = Command::new("xfs_io").args(["-r", "-c", command]).arg(path).output().unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn project(path: PathBuf) -> u32 {
    xfs("lsproj", &path).trim().trim_start_matches("projid = ").parse().unwrap()
}

/// A folder that gives its project to what comes into it (+P), and files of several projects in it and beside it.
fn counted(tree: &Path) -> Vec<PathBuf> {
    fs::create_dir_all(tree.join("counted/below")).unwrap();
    fs::create_dir(tree.join("aside")).unwrap();
    for (name, id) in [("", 3), ("counted", 4_294_967_294_u32), ("counted/below", 7)] {
        xfs(&format!("chproj {id}"), &tree.join(name));
    }
    for name in ["", "counted"] {
        xfs("chattr +P", &tree.join(name));
    }
    for (name, len) in [("below/small", 100), ("other", 100), ("huge", 9_000_000), ("first", 100)] {
        fs::write(tree.join("counted").join(name), trees::noise(len, 1)).unwrap();
    }
    fs::write(tree.join("free"), "content").unwrap();
    // Of another project than the folder that one of its names is in: so it could not be linked into it.
    fs::hard_link(tree.join("counted/first"), tree.join("aside/one")).unwrap();
    for (name, id) in
        [("counted/below/small", 8), ("counted/huge", 5), ("aside/one", 9), ("free", 0), ("aside", 0)]
    {
        xfs(&format!("chproj {id}"), &tree.join(name));
    }
    let names = [
        "",
        "aside",
        "aside/one",
        "counted",
        "counted/below",
        "counted/below/small",
        "counted/other",
        "counted/huge",
    ];
    names.into_iter().chain(["counted/first", "free"]).map(PathBuf::from).collect()
}

/// Which quota a file is counted by: it comes back, also over a file of another project, and where there are none it is said.
#[test]
fn projects_come_back_and_are_named_where_there_are_none() {
    let Some(volume) = Volume::new("xfs", 400, "") else { return };
    let (tree, to) = (volume.path().join("tree"), volume.path().join("to"));
    let names = counted(&tree);
    let same = |to: &Path| {
        for name in &names {
            assert_eq!(project(to.join(name)), project(tree.join(name)), "{}", name.display());
        }
        assert_eq!(fs::metadata(to.join("aside/one")).unwrap().nlink(), 2);
        trees::assert_equal(&tree, to);
    };
    let home = saved(&tree);
    // What has not changed is not opened, and keeps what is known of it.
    home.run(&["-q", "backup", tree.to_str().unwrap()]).ok();
    let from = format!("latest:{}", tree.display());
    let restore = |to: &Path, more: &[&str]| {
        home.run(&[&["--json", "restore", &from, "-t", to.to_str().unwrap()], more].concat())
    };
    restore(&to, &["--verify"]).ok();
    same(&to);
    for name in ["", "counted"] {
        assert!(xfs("lsattr", &to.join(name)).contains('P'));
    }
    // Over what is there: other contents, other projects.
    for (name, id) in [("other", 9), ("below", 10), ("huge", 11)] {
        xfs(&format!("chproj {id}"), &to.join("counted").join(name));
    }
    for name in ["counted/other", "counted/huge"] {
        fs::write(to.join(name), "changed since").unwrap();
    }
    fs::remove_file(to.join("counted/first")).unwrap();
    restore(&to, &["--overwrite", "always", "--delete"]).ok();
    same(&to);

    // A new project alone is a change.
    xfs("chproj 12", &tree.join("counted/below/small"));
    home.run(&["-q", "backup", tree.to_str().unwrap()]).ok();
    restore(&to, &["--delete"]).ok();
    same(&to);
}

#[test]
fn projects_are_named_where_there_are_none() {
    let Some(volume) = Volume::new("xfs", 400, "") else { return };
    let tree = volume.path().join("tree");
    counted(&tree);
    let (home, elsewhere) = (saved(&tree), tempfile::tempdir_in("/dev/shm").unwrap());
    let (from, to) = (format!("latest:{}", tree.display()), elsewhere.path().join("to"));
    let done = home.run(&["--json", "restore", &from, "-t", to.to_str().unwrap()]).expect(3).json();
    let unset: BTreeSet<(&str, &str)> = (done["unset"].as_array().unwrap().iter())
        .map(|unset| (unset["path"].as_str().unwrap(), unset["error"].as_str().unwrap()))
        .collect();
    for (name, id) in [
        ("", 3),
        ("counted", 4_294_967_294_u32),
        ("counted/below/small", 8),
        ("counted/huge", 5),
        ("aside/one", 9),
    ] {
        let (path, why) = (to.join(name), format!("project {id} not set: "));
        let path = path.to_str().unwrap().trim_end_matches('/');
        assert!(unset.iter().any(|(at, error)| *at == path && error.starts_with(&why)), "{name}: {unset:?}");
    }
    assert!(!unset.iter().any(|(_, error)| error.contains("project 0")), "{unset:?}");
    assert_eq!(done["errors"], serde_json::json!([]));
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
    trees::assert_equal_below(&tree, out.path());
    let listed = home.run(&["ls", "-l", &from]).ok();
    assert!(listed.out.contains("brw") && listed.out.contains("(259:1048575)"), "{}", listed.out);

    // A socket has taken the place of a device meanwhile: that is seen, and put right.
    fs::remove_file(out.path().join("disk")).unwrap();
    trees::special(out.path(), "disk", FileType::Socket, 0).unwrap();
    let kept = ["restore", &from, "-t", out.path().to_str().unwrap(), "--overwrite", "never", "--verify"];
    let done = home.run(&kept).expect(3);
    assert!(done.err.contains("disk: differs from the snapshot"), "{}", done.err);
    home.run(&["restore", &from, "-t", out.path().to_str().unwrap(), "--overwrite", "always"]).ok();
    trees::assert_equal_below(&tree, out.path());

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
