//! Forgotten snapshots go, their room becomes free, and nothing else is lost: beside a server that goes on.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use backhaul_tests::netns::skipped;
use backhaul_tests::volumes::Volume;
use backhaul_tests::{Daemon, Home, TestServer, trees, wait_until};
use serde_json::Value;

use crate::json::assert_fits;

/// A command some days from now. None, said aloud, where clocks cannot be turned.
pub fn in_days(days: u32, home: &Home, args: &[&str]) -> Option<Command> {
    let mut tool = Command::new("faketime");
    let shown = tool.args(["--exclude-monotonic", "-f", &format!("+{days}d"), "env"]).output();
    let Some(shown) = shown.ok().filter(|shown| shown.status.success()) else {
        skipped("there is no faketime");
        return None;
    };
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let wanted = |name: &str| ["LD_PRELOAD", "FAKETIME", "FAKETIME_DONT_FAKE_MONOTONIC"].contains(&name);
    let mut command = home.command(args);
    command.envs(text.lines().filter_map(|line| line.split_once('=')).filter(|(name, _)| wanted(name)));
    command.env("NO_FAKE_STAT", "1");
    Some(command)
}

pub fn json(mut command: Command) -> Value {
    let output = command.arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn write(dir: &Path, names: std::ops::Range<u64>) {
    fs::create_dir_all(dir).unwrap();
    names.for_each(|n| fs::write(dir.join(format!("{n:03}")), trees::noise(700_000, n)).unwrap());
}

fn assert_restores(client: &Home, tree: &Path) {
    let out = tempfile::tempdir().unwrap();
    client.run(&["restore", "latest", "-t", out.path().to_str().unwrap()]).ok();
    trees::assert_equal(tree, &out.path().join(tree.strip_prefix("/").unwrap()));
}

#[test]
fn what_is_forgotten_goes_beside_backups_and_its_room_is_free() {
    let policy = format!("{}keep = {{ last = 9, grace = \"1d\" }}\n", TestServer::quiet_policy());
    let (mut server, dir) = (TestServer::with_policy(&policy), tempfile::tempdir().unwrap());
    let tree = dir.path().join("tree");
    write(&tree, 0..40);
    let more = dir.path().join("more");
    write(&more, 25..70);
    let (client, second) = (server.client("desk", &[&tree]), server.client("laptop", &[&more]));
    let old = client.json(&["backup"])["snapshot"].as_str().unwrap().to_owned();
    fs::remove_dir_all(&tree).unwrap();
    write(&tree, 30..50);
    client.run(&["backup"]).ok();
    server.home.run(&["forget", &old]).ok();
    let pruned = server.home.json(&["prune"]);
    assert_fits("prune.json", &pruned);
    assert_eq!((&pruned["snapshots"], &pruned["objects"]), (&0.into(), &0.into()), "grace: {pruned}");
    let before = server.vault_bytes();

    server.stop();
    let Some(prune) = in_days(2, &server.home, &["prune"]) else { return };
    let pruned = json(prune);
    assert!(pruned["snapshots"] == 1 && pruned["objects_condemned"].as_u64() > Some(20), "{pruned}");
    let dry = json(in_days(3, &server.home, &["prune", "--dry-run"]).unwrap());
    assert_fits("prune.json", &dry);
    assert!(dry["objects"].as_u64() > Some(20) && dry["bytes_freed"].as_u64() > Some(20_000_000), "{dry}");
    assert_eq!(server.vault_bytes(), before, "nothing goes yet");

    // Beside a client that sends, some of it what is condemned.
    let running = Daemon::start(in_days(3, &server.home, &["-v", "server", "run"]).unwrap());
    let mut sending = second.command(&["-q", "backup"]).stderr(Stdio::null()).spawn().unwrap();
    let mut gone = 0;
    let mut prune = || gone += server.home.json(&["prune"])["objects"].as_u64().unwrap();
    while sending.try_wait().unwrap().is_none() {
        prune();
    }
    assert!(sending.wait().unwrap().success());
    (0..2).for_each(|_| prune());
    assert!(gone >= 20, "{gone}");
    assert_restores(&client, &tree);
    assert_restores(&second, &more);
    running.terminate();
    // 45 files are needed now, and none is there twice.
    assert!(server.vault_bytes() < 49 * 710_000, "{} before {before}", server.vault_bytes());
    server.home.run(&["check", "--read-data"]).ok();
    server.start();
    assert_restores(&client, &tree);
    let all = client.json(&["snapshots", "--all"]);
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
}

#[test]
fn a_client_may_not_prune() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let client = server.client("desk", &[dir.path()]);
    client.run(&["prune"]).expect(12);
    server.home.run(&["prune", "--limit", "fast"]).expect(2);
    let said = server.home.run(&["prune", "--limit", "20MB"]).ok().out;
    assert!(said.starts_with("gone: 0 forgotten snapshots"), "{said}");
}

/// A prune keeps to its rate, and one that is cut short by a server that stops has harmed nothing and is gone on with.
#[test]
fn a_slow_prune_is_slow_and_stops_with_the_server_and_goes_on_after() {
    let policy = format!("{}keep = {{ last = 9, grace = \"1d\" }}\n", TestServer::quiet_policy());
    let (mut server, dir) = (TestServer::with_policy(&policy), tempfile::tempdir().unwrap());
    let tree = dir.path().join("tree");
    write(&tree, 0..16);
    let client = server.client("desk", &[&tree]);
    let old = client.json(&["backup"])["snapshot"].as_str().unwrap().to_owned();
    // Most of the pack is dead then, and what is not must be written anew: some 3.5 MB are read, and as many written.
    (5..16).for_each(|n| fs::remove_file(tree.join(format!("{n:03}"))).unwrap());
    client.run(&["backup"]).ok();
    server.home.run(&["forget", &old]).ok();
    server.home.run(&["prune"]).ok();
    server.stop();
    let Some(prune) = in_days(2, &server.home, &["prune"]) else { return };
    assert_eq!(json(prune)["snapshots"], 1);
    let before = server.vault_bytes();
    let running = Daemon::start(in_days(3, &server.home, &["-v", "server", "run"]).unwrap());
    // At this rate it takes half a minute at least.
    let mut slow = server.home.command(&["prune", "--limit", "200KB"]);
    let slow = slow.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("it frees room", || {
        let chores = server.home.json(&["chores"]);
        chores.as_array().unwrap().iter().any(|chore| {
            chore["state"] == "running" && chore["words"].as_str().unwrap().starts_with("freeing room")
        })
    });
    running.terminate();
    let slow = slow.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&slow.stderr).into_owned();
    assert!(!slow.status.success() && said.contains("ended before it was done"), "{said}");
    server.home.run(&["check", "--read-data"]).ok();
    assert!(
        server.vault_bytes() + 200_000 > before,
        "nothing was removed before what is needed of it had a place"
    );

    // Somewhat faster, and to its end.
    let started = Instant::now();
    let pruned = json(in_days(3, &server.home, &["prune", "--limit", "2MB"]).unwrap());
    let moved = pruned["bytes_moved"].as_u64().unwrap();
    assert!(moved > 3_000_000 && pruned["packs_compacted"].as_u64() >= Some(1), "{pruned}");
    // What is moved is read, written, and read for its parity.
    let least = 3.0 * moved as f64 / 2_000_000.0;
    assert!(started.elapsed().as_secs_f64() > 0.9 * least, "{:?} of {least} s", started.elapsed());
    assert!(server.vault_bytes() < 6 * 710_000, "{}", server.vault_bytes());
    server.home.run(&["check", "--read-data"]).ok();
    server.start();
    assert_restores(&client, &tree);
}

/// What a chore does is done once; that it begins and how it ended is written down as soon as that can be.
#[test]
fn a_chore_that_cannot_be_written_down_for_a_while_is_done_and_told_all_the_same() {
    for state in ["running", "done"] {
        let server = TestServer::new();
        let db = rusqlite::Connection::open(server.home.path().join("server/fleet.sqlite")).unwrap();
        db.execute_batch(&format!(
            "CREATE TRIGGER refusal BEFORE UPDATE ON chores WHEN NEW.state = '{state}'
             BEGIN SELECT RAISE(ABORT, 'the disk refused'); END;"
        ))
        .unwrap();
        let mut prune = server.home.command(&["--json", "prune"]);
        let mut prune = prune.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        server.says("the disk refused");
        assert!(prune.try_wait().unwrap().is_none(), "it waits");
        db.execute_batch("DROP TRIGGER refusal").unwrap();
        wait_until("it is over", || prune.try_wait().unwrap().is_some());
        let done = prune.wait_with_output().unwrap();
        assert!(done.status.success(), "{state}: {}", String::from_utf8_lossy(&done.stderr));
        let chores = server.home.json(&["chores"]);
        let prunes = chores.as_array().unwrap().iter().filter(|chore| chore["kind"] == "prune");
        assert_eq!(prunes.map(|chore| chore["state"].as_str().unwrap()).collect::<Vec<_>>(), ["done"]);
        let said = server.said();
        assert_eq!(
            said.lines().filter(|line| line.contains("prune: ")).count(),
            1,
            "it was done once: {said}"
        );
        assert_eq!(said.matches("the disk refused").count(), 1, "and said once: {said}");
    }
}

/// Writes until there is no byte left.
fn fill(dir: &Path) {
    let mut ballast = fs::File::create(dir.join("ballast")).unwrap();
    let block = vec![0; 1 << 20];
    for size in [1 << 20, 4_096, 1] {
        while std::io::Write::write_all(&mut ballast, &block[..size]).is_ok() {}
    }
}

#[test]
fn on_a_disk_without_a_byte_left_forgetting_and_pruning_give_room_back() {
    let Some(volume) = Volume::new("tmpfs", 360, "") else { return };
    let policy = format!("{}keep = {{ last = 9, grace = \"1d\" }}\n", TestServer::quiet_policy());
    let (mut server, dir) = (TestServer::with_policy(&policy), tempfile::tempdir().unwrap());
    server.stop();
    let (place, home) = (server.home.path().join("server"), volume.path().join("server"));
    assert!(Command::new("cp").arg("-a").arg(&place).arg(&home).status().unwrap().success());
    fs::remove_dir_all(&place).unwrap();
    std::os::unix::fs::symlink(&home, &place).unwrap();
    server.start();
    let tree = dir.path().join("tree");
    write(&tree, 0..40);
    let client = server.client("desk", &[&tree]);
    let old = client.json(&["backup"])["snapshot"].as_str().unwrap().to_owned();
    fs::remove_dir_all(&tree).unwrap();
    write(&tree, 30..50);
    client.run(&["backup"]).ok();
    server.home.run(&["prune"]).ok();
    let reserve = home.join("vaults/main/reserve");
    assert!(reserve.exists(), "room is set aside");

    fill(&volume.path());
    server.home.run(&["forget", &old]).ok();
    assert!(!reserve.exists(), "and given back when there is no other");
    fs::remove_file(volume.path().join("ballast")).unwrap();
    server.home.run(&["prune"]).ok();
    assert!(reserve.exists(), "it is set aside again");
    fill(&volume.path());
    server.stop();
    let Some(prune) = in_days(2, &server.home, &["prune"]) else { return };
    assert!(json(prune)["objects_condemned"].as_u64() > Some(20));
    let before = server.vault_bytes();
    let gone = json(in_days(3, &server.home, &["prune"]).unwrap());
    assert!(gone["objects"].as_u64() > Some(20), "{gone}");
    assert!(server.vault_bytes() + 20_000_000 < before, "{gone}");
    fs::remove_file(volume.path().join("ballast")).unwrap();
    server.home.run(&["check", "--read-data"]).ok();
    server.start();
    assert_restores(&client, &tree);
}
