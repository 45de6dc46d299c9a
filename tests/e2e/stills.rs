//! Backups from snapshots of file systems: btrfs for real, LVM with tools that only play at it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use backhaul_tests::volumes::{Volume, tool};
use backhaul_tests::{Home, TestServer, trees, wait_until};

/// Replaces two files by their next versions, one after the other, until it is told to stop.
fn rewrite(first: &Path, second: &Path, stop: &AtomicBool) {
    let mut version = 0u64;
    while !stop.load(Ordering::Relaxed) {
        version += 1;
        for path in [first, second] {
            let part = path.with_extension("part");
            let file = fs::File::create(&part).unwrap();
            std::io::Write::write_all(&mut &file, version.to_string().as_bytes()).unwrap();
            file.sync_all().unwrap();
            fs::rename(&part, path).unwrap();
        }
    }
}

fn version(home: &Home, path: &Path) -> u64 {
    home.run(&["dump", &format!("latest:{}", path.display())]).ok().out.parse().unwrap()
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

#[test]
fn what_changes_together_is_saved_as_of_one_moment_and_what_does_not_costs_nothing() {
    let Some(volume) = Volume::new("btrfs", 512, "") else { return };
    let data = volume.path().join("data");
    let at = |name: &str| data.join(name);
    tool("btrfs", &[Path::new("subvolume"), Path::new("create"), &data]);
    fs::create_dir(at("folder")).unwrap();
    tool("btrfs", &[Path::new("subvolume"), Path::new("create"), &at("folder/inner")]);
    // So many that whoever reads the files as they change comes to the last long after the first.
    for i in 0..300 {
        fs::write(at(&format!("m{i:03}")), trees::noise(100_000, i)).unwrap();
    }
    fs::write(at("folder/inner/deep"), "deep").unwrap();
    fs::hard_link(at("m000"), at("folder/link")).unwrap();
    let home = Home::new();
    home.run(&["-q", "quickstart", at("folder").to_str().unwrap()]).ok();
    let stop = AtomicBool::new(false);
    let path = data.to_str().unwrap();
    let saved = std::thread::scope(|scope| {
        scope.spawn(|| rewrite(&at("a"), &at("z"), &stop));
        wait_until("both files are there", || at("z").exists());
        let saved = home.json(&["backup", path, "--limit-upload", "15MB"]);
        stop.store(true, Ordering::Relaxed);
        saved
    });
    assert_eq!((&saved["errors"], &saved["warnings"]), (&serde_json::json!([]), &serde_json::json!([])));
    let stills = [format!("{path} (btrfs)"), format!("{path}/folder/inner (btrfs)")];
    assert_eq!(saved["stills"], serde_json::json!(stills), "{saved}");
    let (first, second) = (version(&home, &at("a")), version(&home, &at("z")));
    assert!(first == second || first == second + 1, "{first} and {second} never were at the same time");

    // Read from stills or not, what has not changed is as it was, and the tree is the same.
    let read = |more: &[&str]| home.json(&[&["backup", path], more].concat());
    read(&[]);
    let (still, live) = (read(&["--still", "require"]), read(&["--still", "off"]));
    for one in [&still, &live] {
        assert_eq!((&one["files_unmodified"], &one["bytes_sent"]), (&one["files"], &0.into()), "{one}");
    }
    assert_eq!(still["root"], live["root"]);
    assert_eq!(live["stills"], serde_json::json!([]));
    let (to, out) = (tempfile::tempdir().unwrap(), format!("latest:{path}"));
    home.run(&["restore", &out, "-t", to.path().to_str().unwrap(), "--verify"]).ok();
    assert_eq!(fs::read_to_string(to.path().join("folder/inner/deep")).unwrap(), "deep");

    // The top, with all that is in it, but nothing of ours.
    home.run(&["-q", "backup", volume.path().to_str().unwrap(), "--still", "require"]).ok();
    let names = home.json(&["ls", &format!("latest:{}", volume.path().display())]);
    assert_eq!(names.as_array().unwrap().len(), 1, "{names}");
    assert!(
        is_empty(&volume.path().join(".backhaul-stills")) && !home.path().join("agent/stills.json").exists()
    );
}

#[test]
fn what_a_killed_run_has_left_the_next_one_removes() {
    let Some(volume) = Volume::new("btrfs", 256, "") else { return };
    let (server, data) = (TestServer::new(), volume.path().join("data"));
    tool("btrfs", &[Path::new("subvolume"), Path::new("create"), &data]);
    fs::write(data.join("f"), trees::noise(8 << 20, 1)).unwrap();
    let home = server.client("desk", &[&data]);
    let mut command = home.command(&["-q", "backup", "--limit-upload", "100kB"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let folder = volume.path().join(".backhaul-stills");
    wait_until("there is a still", || folder.exists() && !is_empty(&folder));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!is_empty(&folder) && home.path().join("agent/stills.json").exists());
    let off = home.json(&["backup", "--still", "off"]);
    assert_eq!((&off["warnings"], &off["errors"]), (&serde_json::json!([]), &serde_json::json!([])));
    assert!(is_empty(&folder) && !home.path().join("agent/stills.json").exists());
}

#[test]
fn without_a_file_system_that_can_there_is_no_backup_if_stills_are_required() {
    let Some(volume) = Volume::new("tmpfs", 16, "") else { return };
    fs::write(volume.path().join("f"), "f").unwrap();
    let home = Home::new();
    let path = volume.path();
    let path = path.to_str().unwrap();
    let auto = home.json(&["quickstart", path]);
    assert_eq!((&auto["stills"], &auto["warnings"]), (&serde_json::json!([]), &serde_json::json!([])));
    let refused = home.run(&["backup", path, "--still", "require"]).expect(1);
    assert!(refused.err.contains("tmpfs") && refused.err.contains(path), "{}", refused.err);
    assert_eq!(home.json(&["snapshots"]).as_array().unwrap().len(), 1);
}

/// `lvs`, `lvcreate` and `lvremove` as this program asks them, about one volume: a snapshot is a copy of its image.
const LVM: &str = r#"#!/bin/sh
tool=${0##*/}; for last; do :; done
echo "$tool $*" >> "$PLAY/log"
case $tool in
lvs)
    case $*:$last in
    *lv_path*) cat "$PLAY/path";;
    *lv_attr*) echo '  swi-aos---';;
    *:play/*) [ -e "$PLAY/path" ] && echo '  still';;
    *:$(cat "$PLAY/device")) echo "  play|home|33554432|$(cat "$PLAY/free")|";;
    *) echo "Failed to find logical volume" >&2; exit 5;;
    esac;;
lvcreate)
    sync; fsfreeze -f "$PLAY/at"; cp "$PLAY/image" "$PLAY/copy"; fsfreeze -u "$PLAY/at"
    losetup -f --show "$PLAY/copy" > "$PLAY/path";;
lvremove) losetup -d $(cat "$PLAY/path") && rm "$PLAY/path" "$PLAY/copy";;
esac
"#;

#[test]
fn a_logical_volume_is_saved_from_its_snapshot_or_with_a_warning_when_there_is_no_room() {
    let Some(volume) = Volume::new("ext4", 32, "") else { return };
    let play = tempfile::tempdir().unwrap();
    let at = |name: &str| play.path().join(name);
    for name in ["lvs", "lvcreate", "lvremove"] {
        fs::write(at(name), LVM).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(at("device"), volume.device()).unwrap();
    fs::write(at("free"), "67108864").unwrap();
    std::os::unix::fs::symlink(volume.image(), at("image")).unwrap();
    std::os::unix::fs::symlink(volume.path(), at("at")).unwrap();
    fs::write(volume.path().join("f"), trees::noise(100_000, 1)).unwrap();
    let home = Home::new();
    let path = volume.path();
    let path = path.to_str().unwrap();
    home.run(&["-q", "quickstart", path]).ok();
    let backup = |more: &[&str]| {
        let mut command = home.command(&[&["--json", "backup", path], more].concat());
        let search = format!("{}:{}", play.path().display(), std::env::var("PATH").unwrap());
        let output = command.env("PATH", search).env("PLAY", play.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let saved = backup(&["--still", "require"]);
    assert_eq!(saved["stills"], serde_json::json!([format!("{path} (LVM)")]), "{saved}");
    assert_eq!(
        (&saved["warnings"], &saved["files_unmodified"]),
        (&serde_json::json!([]), &1.into()),
        "{saved}"
    );
    let log = fs::read_to_string(at("log")).unwrap();
    assert!(log.contains("--size 6710784b -- play/home") && log.contains("lvremove"), "{log}");
    assert!(!at("path").exists(), "{log}");
    fs::write(at("free"), "1000000").unwrap();
    let saved = backup(&[]);
    assert!(saved["warnings"][0].as_str().unwrap().contains("no room"), "{saved}");
    assert_eq!(saved["stills"], serde_json::json!([]));
}
