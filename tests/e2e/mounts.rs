//! Snapshots as folders: what is mounted is what was saved, by two comparisons that know nothing of mounts.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use backhaul_tests::cases::{Cases, Released};
use backhaul_tests::clocks::off_by;
use backhaul_tests::mounts::{Apart, Mount, can_mount};
use backhaul_tests::netns::skipped;
use backhaul_tests::trees::{self, Regard};
use backhaul_tests::{Home, TestServer, wait_until};

/// Where a tree is below a folder of a mount.
fn within(folder: &Path, tree: &Path) -> PathBuf {
    folder.join(tree.strip_prefix("/").unwrap())
}

fn compare(saved: &Path, mounted: &Path) {
    let of = |tree: &Path| trees::describe(tree, Regard::ButForHoles);
    let (saved_as, shown_as) = (of(saved), of(mounted));
    for (name, what) in &saved_as {
        assert_eq!(shown_as.get(name), Some(what), "{}", name.display());
    }
    assert_eq!(saved_as.len(), shown_as.len());
    let (from, to) = (format!("{}/", mounted.display()), format!("{}/", saved.display()));
    let compared =
        Command::new("rsync").args(["-aHAXn", "--checksum", "--delete", "-i", &from, &to]).output();
    match compared {
        Ok(compared) => {
            let said = [compared.stdout, compared.stderr].concat();
            assert!(said.is_empty(), "rsync sees a difference: {}", String::from_utf8_lossy(&said));
        }
        Err(error) => skipped(&format!("a comparison by rsync: {error}")),
    }
}

#[test]
fn a_mounted_snapshot_is_the_tree_that_was_saved_and_survives_a_restart_of_the_server() {
    if !can_mount() {
        return;
    }
    let (dir, point) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = dir.path().canonicalize().unwrap().join("tree");
    let _released = Released(vec![dir.path().to_owned()]);
    assert!(Cases::all(&tree, true).all() >= 2_500);
    // Nothing that only holes make large: both comparisons read zeros for hours.
    let is_large = |path: &PathBuf| fs::symlink_metadata(path).unwrap().len() > 1 << 30;
    trees::files(&tree).iter().filter(|path| is_large(path)).for_each(|path| fs::remove_file(path).unwrap());
    trees::sparse(&tree.join("with holes"), 9_000_000, &[(0, 4_096), (5 << 20, 70_000)]);
    fs::write(tree.join("last"), trees::noise(3_000_000, 77)).unwrap();
    let mut server = TestServer::new();
    let client = server.client("desk", &[&tree]);
    client.run(&["-q", "backup"]).ok();
    let mount = Mount::on(&client, point.path(), &[]);
    let latest = point.path().join("desk/latest");
    let first = fs::read_link(&latest).unwrap();
    compare(&tree, &within(&latest, &tree));
    let holes = |tree: &Path| trees::extents(&tree.join("with holes"));
    assert_eq!(holes(&within(&latest, &tree)), holes(&tree));

    // The server goes and comes, and the cache does not have this.
    fs::write(tree.join("later"), trees::noise(2_000_000, 78)).unwrap();
    client.run(&["-q", "backup"]).ok();
    server.stop();
    server.start();
    wait_until("the new snapshot is there", || fs::read_link(&latest).unwrap() != first);
    assert_eq!(fs::read(within(&latest, &tree).join("later")).unwrap(), trees::noise(2_000_000, 78));
    let old = within(&point.path().join("desk").join(first), &tree);
    assert!(old.join("last").exists() && !old.join("later").exists());
    assert!(fs::write(old.join("mine"), b"x").is_err(), "nothing can be changed");

    let (status, said) = mount.umount();
    assert!(status.success(), "{said}");
    assert!(said.contains("is unmounted") && said.contains("looking for the server"), "{said}");
}

/// A mount may stay for months. What somebody has open of a snapshot that is forgotten and reclaimed meanwhile is read to its
/// end; when nobody holds it back any more it has gone, and whoever still asks for it gets an error.
#[test]
fn what_is_open_in_a_mount_outlives_prunes() {
    const LEN: usize = 24 << 20;
    if !can_mount() {
        return;
    }
    let policy = format!("{}keep = {{ last = 9, grace = \"1d\" }}\n", TestServer::quiet_policy());
    let (dir, point) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = dir.path().canonicalize().unwrap();
    let mut server = TestServer::with_policy(&policy);
    let client = server.client("desk", &[&tree]);
    // So little is new that the brake does not hold.
    let (whole, newer) = (trees::noise(LEN, 1), trees::noise(1 << 20, 2));
    fs::write(tree.join("one"), &whole).unwrap();
    fs::write(tree.join("two"), trees::noise(LEN, 3)).unwrap();
    let old = client.json(&["backup"])["snapshot"].as_str().unwrap().to_owned();
    let mount = Mount::on(&client, point.path(), &[]);
    let latest = point.path().join("desk/latest");
    let open =
        |name: &str| fs::File::open(within(&latest.canonicalize().unwrap(), &tree).join(name)).unwrap();
    let (one, two) = (open("one"), open("two"));
    let part = |file: &fs::File, from: usize, to: usize| {
        let mut bytes = vec![0; to - from];
        file.read_exact_at(&mut bytes, from as u64).map(|()| bytes)
    };
    assert!(part(&one, 0, 4_096).unwrap() == whole[..4_096] && part(&two, 0, 9).is_ok());
    ["one", "two"].iter().for_each(|name| fs::remove_file(tree.join(name)).unwrap());
    fs::write(tree.join("now"), &newer).unwrap();
    client.run(&["-q", "backup"]).ok();
    // Days ago, by the clock: its grace is over, and the next look at it counts a night.
    server.stop();
    let Some(mut forget) = off_by(-5, server.home.command(&["forget", &old])) else { return };
    let forgotten = forget.output().unwrap();
    assert!(forgotten.status.success(), "{}", String::from_utf8_lossy(&forgotten.stderr));
    server.start();
    // From here on the mount has a session again.
    assert!(part(&one, 5 << 20, 6 << 20).unwrap() == whole[5 << 20..6 << 20]);
    let prune = || server.home.json(&["prune"]);
    assert_eq!(prune()["snapshots"], 1);
    let [_, _, pruned] = std::array::from_fn(|_| prune());
    assert!(pruned["objects_condemned"].as_u64() > Some(10), "{pruned}");
    assert!(pruned["waits_for"][0].as_str().is_some_and(|who| who.ends_with("of desk")), "{pruned}");
    assert!(part(&one, 6 << 20, LEN).unwrap() == whole[6 << 20..], "it is read to its end");
    // What was the latest is listed for a moment longer.
    wait_until("the latest is the one that is there", || {
        latest.canonicalize().is_ok_and(|path| within(&path, &tree).join("now").exists())
    });
    let now = within(&latest.canonicalize().unwrap(), &tree).join("now");
    assert!(fs::read(&now).unwrap() == newer);
    // The session ends with the server.
    server.stop();
    server.start();
    let mut gone = 0;
    wait_until("what nobody holds back is gone", || {
        gone += server.home.json(&["prune"])["objects"].as_u64().unwrap();
        gone > 10
    });
    assert!(part(&two, LEN / 2, LEN / 2 + 4_096).is_err(), "never something else");
    assert!(fs::read(&now).unwrap() == newer);
    drop((one, two));
    let (status, said) = mount.umount();
    assert!(status.success(), "{said}");
    server.home.run(&["check", "--read-data"]).ok();
}

#[test]
fn whoever_is_not_root_mounts_by_the_helper_and_is_alone_in_it() {
    if Command::new("fusermount3").arg("-V").output().is_err() {
        return skipped("who is not root mounts by fusermount3");
    }
    let Some(apart) = Apart::new() else { return };
    let (dir, point) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let tree = dir.path().canonicalize().unwrap().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "what was saved").unwrap();
    let user = Home::unprivileged();
    user.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    let owner = fs::metadata(user.path()).unwrap();
    std::os::unix::fs::chown(point.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
    let mount = Mount::on_apart(&apart, &user, point.path());
    let list = |whose: &Home| {
        let mut find = apart.enter(whose, "find");
        find.arg(point.path()).args(["-name", "file", "-exec", "cat", "{}", ";"]);
        String::from_utf8(find.output().unwrap().stdout).unwrap()
    };
    assert_eq!(list(&user), "what was saved");
    assert_eq!(list(&Home::new()), "", "not even root looks into it");
    let mut unmount = apart.enter(&user, "fusermount3");
    unmount.arg("-u");
    let (status, said) = mount.umount_by(unmount);
    assert!(status.success() && said.contains("is unmounted"), "{said}");
}

#[test]
fn the_server_shows_all_clients_or_one_and_ends_when_told() {
    if !can_mount() {
        return;
    }
    let (dir, point) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = TestServer::new();
    for name in ["ana", "bea"] {
        let tree = dir.path().join(name);
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("mine"), name).unwrap();
        server.client(name, &[&tree]).run(&["-q", "backup"]).ok();
    }
    server.add("nobody-yet", &[]);
    let names = |path: &Path| -> Vec<String> {
        trees::names(path).into_iter().map(|name| name.into_string().unwrap()).collect()
    };
    let mount = Mount::on(&server.home, point.path(), &[]);
    assert_eq!(names(point.path()), ["ana", "bea", "nobody-yet"]);
    assert!(names(&point.path().join("nobody-yet")).is_empty());
    for name in ["ana", "bea"] {
        let latest = point.path().join(name).join("latest");
        let mine = within(&latest, &dir.path().canonicalize().unwrap()).join(name).join("mine");
        assert_eq!(fs::read_to_string(mine).unwrap(), name);
    }
    // Somebody is in it.
    let mut inside = Command::new("sleep").arg("100").current_dir(point.path().join("ana")).spawn().unwrap();
    let (status, said) = mount.terminate();
    inside.kill().unwrap();
    inside.wait().unwrap();
    assert!(status.success(), "{said}");

    let mount = Mount::on(&server.home, point.path(), &["--client", "bea"]);
    assert_eq!(names(point.path()), ["bea"]);
    drop(mount);
    fs::write(point.path().join("x"), b"").unwrap();
    let refused = server.home.run(&["mount", point.path().to_str().unwrap()]).expect(1);
    assert!(refused.err.contains("is not empty"), "{}", refused.err);
}
