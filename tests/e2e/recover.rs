//! A server is lost but for its data directory, and stands up again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use backhaul_tests::{Home, TestServer, free_port, trees};
use serde_json::Value;

use crate::json::assert_fits;

/// A server whose recovery key is known.
struct Known {
    home: Home,
    key: PathBuf,
    _keys: tempfile::TempDir,
}

fn made() -> Known {
    let (home, keys) = (Home::new(), tempfile::tempdir().unwrap());
    let listen = format!("127.0.0.1:{}", free_port());
    let made = home.json(&["server", "init", "--listen", &listen, "--name", "127.0.0.1"]);
    let key = keys.path().join("recovery-key");
    fs::write(&key, format!("{}\n", made["recovery_key"].as_str().unwrap())).unwrap();
    let policy = keys.path().join("policy.toml");
    fs::write(&policy, TestServer::quiet_policy()).unwrap();
    home.run(&["policy", "apply", policy.to_str().unwrap()]).ok();
    Known { home, key, _keys: keys }
}

fn joined(server: &Home, name: &str, tree: &Path) -> Home {
    let added = server.json(&["client", "add", name]);
    let client = Home::new();
    client.run(&["join", added["join_code"].as_str().unwrap(), tree.to_str().unwrap()]).ok();
    client
}

fn same(one: &Path, other: &Path) {
    let diff = Command::new("diff").args(["-r", "--no-dereference"]).arg(one).arg(other).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

#[test]
fn a_server_stands_up_again_from_its_data_directory_and_the_recovery_key() {
    let (lost, dir, out) = (made(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = grown(dir.path());
    let daemon = lost.home.start(&["server", "run"]);
    let client = joined(&lost.home, "desk", &tree);
    client.run(&["backup"]).ok();
    lost.home.run(&["pin", "latest", "--client", "desk"]).ok();
    let exported = lost.home.json(&["server", "export"]);
    assert_fits("export.json", &exported);
    // One that comes later is not in the export.
    let late = joined(&lost.home, "late", &tree);
    late.run(&["backup"]).ok();
    daemon.kill();

    // All that is left is the data directory, on a disk that is mounted elsewhere now.
    let disk = tempfile::tempdir().unwrap();
    let data = disk.path().join("data");
    fs::rename(lost.home.path().join("server/vaults/main"), &data)
        .or_else(|_| {
            Command::new("mv").arg(lost.home.path().join("server/vaults/main")).arg(&data).status().map(drop)
        })
        .unwrap();
    trim_exports(&data, exported["number"].as_u64().unwrap());
    fs::remove_dir_all(lost.home.path().join("server")).unwrap();
    let (data, key) = (data.to_str().unwrap(), lost.key.to_str().unwrap());

    let again = &lost.home;
    wrong_keys_are_refused(again, data, key);

    let recovered = again.json(&["server", "recover", data, "--recovery-key-file", key]);
    assert_fits("recover.json", &recovered);
    assert_eq!(
        (recovered["clients"].as_u64(), recovered["snapshots"].as_u64()),
        (Some(1), Some(2)),
        "{recovered}"
    );
    assert_eq!(recovered["unknown_clients"], serde_json::json!(["late"]));
    again.run(&["server", "recover", data, "--recovery-key-file", key]).expect(1);

    let daemon = again.start(&["server", "run"]);
    let backup = client.json(&["backup"]);
    assert_eq!(
        (&backup["files_unmodified"], backup["bytes_sent"].as_u64()),
        (&backup["files"], Some(0)),
        "{backup}"
    );
    let listed = client.json(&["snapshots"]);
    let pinned: Vec<bool> = listed.as_array().unwrap().iter().map(|row| row["pinned"] == true).collect();
    assert_eq!(pinned, [true, false], "{listed}");
    let of = |home: &Home, snapshot: &Value, to: &str| {
        let target = out.path().join(to);
        home.run(&["restore", snapshot["id"].as_str().unwrap(), "-t", target.to_str().unwrap()]).ok();
        same(&tree, &target.join(tree.strip_prefix("/").unwrap()));
    };
    of(&client, &listed[0], "first");
    of(&client, &listed[1], "second");
    late.run(&["backup"]).expect(12);
    assert!(again.run(&["policy", "show", "default"]).ok().out.contains("window"), "policies are back");
    daemon.terminate();
    again.run(&["check", "--read-data"]).ok();
}

fn wrong_keys_are_refused(again: &Home, data: &str, key: &str) {
    let keys = tempfile::tempdir().unwrap();
    let wrong = keys.path().join("wrong-key");
    for text in ["00000000-".repeat(8).trim_end_matches('-'), "not a key"] {
        fs::write(&wrong, text).unwrap();
        let recover = ["server", "recover", data, "--recovery-key-file", wrong.to_str().unwrap()];
        let refused = again.run(&recover).expect(12);
        assert!(refused.err.contains("recovery key"), "{}", refused.err);
    }
    assert!(!again.path().join("server/config.toml").exists());
    again.run(&["server", "recover", "/nowhere", "--recovery-key-file", key]).expect(10);
}

fn grown(dir: &Path) -> PathBuf {
    let tree = dir.join("tree");
    for number in 0..20 {
        let path = tree.join(format!("folder {}/file {number}", number % 3));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{number} ").repeat(number * 3_000)).unwrap();
    }
    tree
}

/// Removes exports that were made by themselves after the one that is wanted.
fn trim_exports(data: &Path, number: u64) {
    for path in trees::files(&data.join("exports")) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name.parse::<u64>().unwrap() > number {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_recovery_makes_a_lost_index_anew_and_passes_over_a_damaged_export() {
    let (lost, dir) = (made(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("letter"), "dear ana, ".repeat(30_000)).unwrap();
    let daemon = lost.home.start(&["server", "run"]);
    let client = joined(&lost.home, "desk", dir.path());
    client.run(&["backup"]).ok();
    daemon.terminate();
    // Without a running server, too.
    let first = lost.home.json(&["server", "export"]);
    let second = lost.home.json(&["server", "export"]);
    let data = lost.home.path().join("server/vaults/main");
    let path = second["path"].as_str().unwrap();
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
    for name in ["config.toml", "keyring", "master.key", "fleet.sqlite"] {
        fs::remove_file(lost.home.path().join("server").join(name)).unwrap();
    }
    fs::remove_dir_all(lost.home.path().join("server/tls")).unwrap();
    fs::remove_file(data.join("catalog.sqlite")).unwrap();
    fs::write(data.join("vault.desc"), b"BHVD and nothing more").unwrap();
    let recover =
        ["server", "recover", data.to_str().unwrap(), "--recovery-key-file", lost.key.to_str().unwrap()];
    let recovered = lost.home.json(&recover);
    assert_eq!(recovered["export"], first["path"], "{recovered}");
    assert_eq!(
        (recovered["rebuilt"].as_bool(), recovered["damaged_exports"].as_array().unwrap().len()),
        (Some(true), 1)
    );
    let _daemon = lost.home.start(&["server", "run"]);
    let backup = client.json(&["backup"]);
    // The state of the agent is of another index: it reads anew, and finds that all contents are there.
    assert_eq!(backup["objects_new"].as_u64(), Some(1), "only the snapshot itself: {backup}");
    assert!(backup["bytes_sent"].as_u64().unwrap() < 2_000, "{backup}");
    assert_eq!(client.json(&["snapshots"]).as_array().unwrap().len(), 2);
}

/// The disk with the packs is gone for good, and the catalog with it: what is left is who the clients are.
#[test]
fn a_recovery_without_packs_asks_first_and_the_next_backup_is_whole() {
    let (lost, dir, out) = (made(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = grown(dir.path());
    let daemon = lost.home.start(&["server", "run"]);
    let client = joined(&lost.home, "desk", &tree);
    client.run(&["backup"]).ok();
    daemon.terminate();
    lost.home.run(&["server", "export"]).ok();
    let disk = tempfile::tempdir().unwrap();
    let data = disk.path().join("data");
    let moved = Command::new("mv").arg(lost.home.path().join("server/vaults/main")).arg(&data).status();
    assert!(moved.unwrap().success());
    fs::remove_dir_all(lost.home.path().join("server")).unwrap();
    fs::remove_dir_all(data.join("packs")).unwrap();
    fs::remove_file(data.join("catalog.sqlite")).unwrap();
    let mut recover =
        vec!["server", "recover", data.to_str().unwrap(), "--recovery-key-file", lost.key.to_str().unwrap()];
    let refused = lost.home.run(&recover).expect(13);
    assert!(refused.err.contains("is it mounted?") && refused.err.contains("--packs-are-lost"));
    assert!(!lost.home.path().join("server/config.toml").exists());
    recover.push("--packs-are-lost");
    assert_eq!(lost.home.json(&recover)["clients"].as_u64(), Some(1));
    let _daemon = lost.home.start(&["server", "run"]);
    client.run(&["backup"]).ok();
    client.run(&["restore", "latest", "-t", out.path().to_str().unwrap()]).ok();
    same(&tree, &out.path().join(tree.strip_prefix("/").unwrap()));
}

/// Moves the data to another disk and loses the rest.
fn lose(home: &Home, disk: &Path) -> PathBuf {
    let data = disk.join("data");
    let moved = Command::new("mv").arg(home.path().join("server/vaults/main")).arg(&data).status();
    assert!(moved.unwrap().success());
    fs::remove_dir_all(home.path().join("server")).unwrap();
    data
}

/// Only the recovery key opens its part of the keyring: nobody misses it before the day on which the server is lost.
#[test]
fn a_damaged_recovery_wrap_is_put_right_from_an_export_or_no_export_is_made() {
    let (lost, disk) = (made(), tempfile::tempdir().unwrap());
    let keyring = lost.home.path().join("server/keyring");
    let whole = fs::read(&keyring).unwrap();
    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    let exports = lost.home.path().join("server/vaults/main/exports");
    // Nothing has it whole: it is said, and nothing is written.
    for damaged in [&flipped[..], &whole[..65]] {
        fs::write(&keyring, damaged).unwrap();
        let refused = lost.home.run(&["server", "export"]).expect(1);
        assert!(
            refused.err.contains("keyring: what the recovery key opens in it is damaged"),
            "{}",
            refused.err
        );
        assert!(refused.err.contains("put an older copy"), "{}", refused.err);
        assert!(!exports.exists() || trees::files(&exports).is_empty());
    }
    fs::write(&keyring, &whole).unwrap();
    lost.home.run(&["server", "export"]).ok();
    for damaged in [&flipped[..], &whole[..65]] {
        fs::write(&keyring, damaged).unwrap();
        lost.home.run(&["server", "export"]).ok();
        assert!(fs::read(&keyring).unwrap() == whole);
        assert!(fs::read(keyring.with_file_name("keyring.replaced")).unwrap() == damaged);
    }
    // A server that a version before has made has no digest noted: what was exported first is right.
    let fleet = rusqlite::Connection::open(lost.home.path().join("server/fleet.sqlite")).unwrap();
    assert_eq!(fleet.execute("DELETE FROM keys WHERE name = 'recovery-wrap'", []).unwrap(), 1);
    drop(fleet);
    fs::write(&keyring, &flipped).unwrap();
    for _ in 0..16 {
        lost.home.run(&["server", "export"]).ok();
    }
    let data = lose(&lost.home, disk.path());
    let recover =
        ["server", "recover", data.to_str().unwrap(), "--recovery-key-file", lost.key.to_str().unwrap()];
    lost.home.json(&recover);
    lost.home.run(&["server", "export"]).ok();
}

/// The brake has tripped after the last export: the server that stands up again judges the run by what is in the vault.
#[test]
fn a_brake_that_trips_after_the_last_export_holds_in_the_recovered_server_too() {
    let (lost, dir, disk) = (made(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let daemon = lost.home.start(&["server", "run"]);
    let client = joined(&lost.home, "desk", dir.path());
    let rewrite = |seed: u64| {
        for number in 0..60 {
            fs::write(dir.path().join(format!("{number}.txt")), trees::noise(40_000, seed + number)).unwrap();
        }
    };
    rewrite(0);
    for number in 0..6 {
        fs::write(dir.path().join("letter"), format!("version {number}")).unwrap();
        client.run(&["backup"]).ok();
    }
    let exported = lost.home.json(&["server", "export"]);
    rewrite(1_000);
    client.run(&["backup"]).ok();
    let brake = || lost.home.json(&["status"])[0]["brake"].clone();
    let why = brake();
    assert!(why.as_str().is_some_and(|why| why.contains("other contents")), "{why}");
    daemon.kill();
    let data = lose(&lost.home, disk.path());
    trim_exports(&data, exported["number"].as_u64().unwrap());
    lost.home.json(&[
        "server",
        "recover",
        data.to_str().unwrap(),
        "--recovery-key-file",
        lost.key.to_str().unwrap(),
    ]);
    let _daemon = lost.home.start(&["server", "run"]);
    assert!(brake().as_str().is_some_and(|why| why.contains("other contents")), "{}", brake());
    let alerts = lost.home.json(&["alerts"]);
    assert!(alerts.as_array().unwrap().iter().any(|alert| alert["kind"] == "brake"), "{alerts}");
    let held = lost.home.json(&["forget", "--policy"]);
    assert_eq!((held["forgotten"].as_u64(), held["held"].as_u64()), (Some(0), Some(1)), "{held}");
    assert_eq!(client.json(&["snapshots"]).as_array().unwrap().len(), 7);
}
