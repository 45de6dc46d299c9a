//! Whoever ends a session in full flow is heard: the reason arrives before the connection is gone, over a slow line, too.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use backhaul_tests::relay::{self, Relay};
use backhaul_tests::{Home, TestServer, free_port, trees, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::json::assert_fits;

/// A line on which what a client has ready to send takes most of a minute.
fn slow() -> relay::Path {
    relay::Path { rate_limit: Some(250_000), ..relay::Path::default() }
}

/// A server with one slot behind a line.
fn behind_a_line() -> (Relay, TestServer) {
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let relay = Relay::start(listen, relay::Path::default());
    let policy = format!("{}[admission]\nslots = 1\n", TestServer::quiet_policy());
    let server = TestServer::at(&listen.to_string(), &relay.address().to_string(), &policy);
    (relay, server)
}

/// The same, slow, and a client that has joined.
fn far_away() -> (Relay, TestServer, Home) {
    let (relay, server) = behind_a_line();
    let client = Home::new();
    let dir = tempfile::tempdir().unwrap();
    server.join(&client, "laptop", &[], &[dir.path()]);
    relay.set(slow());
    (relay, server, client)
}

/// So many files of a megabyte that do not compress.
fn bulk(dir: &Path, megabytes: u64) -> PathBuf {
    let root = dir.join("bulk");
    fs::create_dir(&root).unwrap();
    for i in 0..megabytes {
        fs::write(root.join(format!("{i}")), trees::noise(1_000_000, i)).unwrap();
    }
    root
}

/// Runs of a client of which the server knows that somebody has ended them.
fn interrupted(server: &TestServer, client: &str) -> Vec<Value> {
    let runs = server.home.json(&["runs", "--client", client]);
    assert_fits("runs.json", &runs);
    runs.as_array().unwrap().iter().filter(|run| run["state"] == "interrupted").cloned().collect()
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

/// Waits until a run has sent more than it can have in its hands only.
fn flows(relay: &Relay, server: &TestServer) {
    wait_until("it is a run", || server.home.json(&["runs"])[0]["state"] == "running");
    let before = relay.counts().up.bytes;
    wait_until("bytes arrive", || relay.counts().up.bytes > before + 1_000_000);
}

/// Backs up what a shell command writes.
fn backup_of(client: &Home, script: &str) -> std::process::Child {
    let mut running = client.command(&[
        "backup",
        "--stdin-from-command",
        "--stdin-filename",
        "x",
        "--",
        "sh",
        "-c",
        script,
    ]);
    running.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn an_agent_that_gives_up_in_full_flow_says_why_before_it_is_gone() {
    let (_relay, server, client) = far_away();
    let running = backup_of(&client, "head -c 14000000 /dev/urandom; exit 3");
    let mut found = None;
    wait_until("the server knows that it failed", || {
        let run = server.home.json(&["runs"])[0].clone();
        found = Some(run.clone());
        run["state"] == "failed"
    });
    let found = found.unwrap();
    assert!(found["why"].as_str().unwrap().contains("exit status: 3"), "{found}");
    let ended = running.wait_with_output().unwrap();
    assert!(!ended.status.success());
    // It can be done again at once.
    client.run(&["backup", "/etc/hostname"]).ok();
}

#[test]
fn a_client_that_is_revoked_in_full_flow_is_told_so() {
    let (relay, server, client) = far_away();
    let running = backup_of(&client, "head -c 40000000 /dev/urandom");
    flows(&relay, &server);
    server.home.run(&["client", "revoke", "laptop"]).ok();
    let start = Instant::now();
    let ended = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && said.contains("revoked"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn a_backup_that_is_interrupted_frees_its_slot_and_the_next_one_carries_on() {
    let ((relay, server), dir) = (behind_a_line(), tempfile::tempdir().unwrap());
    let client = Home::new();
    server.join(&client, "laptop", &[], &[&bulk(dir.path(), 80)]);
    relay.set(relay::Path { rate_limit: Some(4_000_000), ..relay::Path::default() });
    let running = client.command(&["backup"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("much is there", || server.vault_bytes() > 20_000_000);
    relay.set(slow());
    flows(&relay, &server);
    interrupt(&running);
    let ended = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("run the same command again"), "{said}");
    // Whoever only vanishes is waited for until its line is given up, and then for some minutes.
    wait_until("the server knows", || !interrupted(&server, "laptop").is_empty());
    let why = interrupted(&server, "laptop")[0]["why"].to_string();
    assert!(why.contains("cut short on the client: it was interrupted"), "{why}");
    assert_ne!(server.home.json(&["status"])[0]["obstacle"], "failing", "nobody has to look after that");
    relay.set(relay::Path::default());
    let report = client.json(&["backup"]);
    assert!(report["bytes_sent"].as_u64().unwrap() < 75_000_000, "{report}");
    let runs = server.home.json(&["runs"]);
    assert_eq!((runs.as_array().unwrap().len(), &runs[1]["state"]), (2, &"done".into()), "{runs}");
    let row = server.home.json(&["status"])[0].clone();
    assert_eq!(row["obstacle"], "none", "{row}");
}

#[test]
fn a_backup_ends_when_it_is_interrupted_though_the_server_does_not_answer() {
    let (_relay, server, client) = far_away();
    let running = backup_of(&client, "head -c 40000000 /dev/urandom");
    wait_until("it is a run", || server.home.json(&["runs"])[0]["state"] == "running");
    let frozen = Pid::from_raw(server.pid().unwrap() as i32).unwrap();
    kill_process(frozen, Signal::STOP).unwrap();
    interrupt(&running);
    let start = Instant::now();
    let ended = running.wait_with_output().unwrap();
    kill_process(frozen, Signal::CONT).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
    // A line is given up after a minute.
    assert!(start.elapsed() < Duration::from_secs(45), "{:?}", start.elapsed());
}

#[test]
fn an_agent_that_is_stopped_in_full_flow_says_goodbye() {
    let ((relay, server), dir) = (behind_a_line(), tempfile::tempdir().unwrap());
    let client = Home::new();
    server.join(&client, "laptop", &["--initiator", "hybrid"], &[&bulk(dir.path(), 40)]);
    let agent = client.start(&["-v", "agent", "run", "--no-listen"]);
    wait_until("it is linked", || server.home.json(&["status"])[0]["link"] == "standing");
    relay.set(slow());
    server.home.run(&["client", "run", "laptop"]).ok();
    flows(&relay, &server);
    agent.terminate();
    wait_until("the server knows", || !interrupted(&server, "laptop").is_empty());
    let why = interrupted(&server, "laptop")[0]["why"].to_string();
    assert!(why.contains("cut short on the client: the agent is stopping"), "{why}");
    relay.set(relay::Path::default());
    client.run(&["backup"]).ok();
}

#[test]
fn a_pause_ends_what_is_under_way_whoever_has_begun_it_and_the_client_hears_why() {
    let policy = format!("{}[admission]\nslots = 2\nbytes_per_s = \"500kB\"\n", TestServer::quiet_policy());
    let (server, dirs) = (TestServer::with_policy(&policy), [(); 2].map(|()| tempfile::tempdir().unwrap()));
    let (desk, address) = (Home::new(), format!("127.0.0.1:{}", free_port()));
    let pulled = ["--initiator", "server", "--address", &address];
    server.join(&desk, "desk", &pulled, &[&bulk(dirs[0].path(), 40)]);
    let laptop = server.client("laptop", &[&bulk(dirs[1].path(), 40)]);
    let agent = desk.start(&["-v", "agent", "run", "--listen", &address]);
    let pushing = laptop.command(&["-q", "backup"]).stderr(Stdio::piped()).spawn().unwrap();
    server.home.run(&["client", "run", "desk"]).ok();
    let running = |client: &str| {
        let runs = server.home.json(&["runs", "--client", client]);
        runs.as_array().unwrap().iter().any(|run| run["state"] == "running")
    };
    wait_until("both run", || running("desk") && running("laptop"));
    for client in ["desk", "laptop"] {
        let pause = server.home.json(&["client", "pause", client, "--for", "8h"]);
        wait_until("its run has ended", || !interrupted(&server, client).is_empty());
        let why = interrupted(&server, client)[0]["why"].to_string();
        assert!(why.contains("paused on the server"), "{why}");
        // It has not failed, and does not begin in the window that opens in the pause.
        let row = || {
            let all = server.home.json(&["status"]);
            all.as_array().unwrap().iter().find(|row| row["client"] == client).unwrap().clone()
        };
        wait_until("its next run is after the pause", || row()["next"].as_str() > pause["until"].as_str());
        let row = row();
        assert_ne!(row["obstacle"], "failing", "{row}");
        assert!(row["why"].as_str().unwrap().contains("paused on the server until"), "{row}");
    }
    let said = String::from_utf8(pushing.wait_with_output().unwrap().stderr).unwrap();
    assert!(said.contains("paused on the server"), "{said}");
    agent.says("paused on the server");
    // Whoever asks by hand means it; what was sent is not sent again.
    let file = server.home.path().join("fast.toml");
    fs::write(&file, TestServer::quiet_policy()).unwrap();
    server.home.run(&["policy", "apply", file.to_str().unwrap()]).ok();
    server.home.run(&["client", "run", "desk", "--wait"]).ok();
    assert!(!running("laptop"));
}

/// What a running command has said on standard error, line by line, until it says something.
fn until_it_says(child: &mut Child, words: &str) {
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(words)), "it never said {words:?}");
}

#[test]
fn a_restore_that_is_interrupted_says_goodbye_and_goes_on_where_it_was() {
    let ((relay, server), dir) = (behind_a_line(), tempfile::tempdir().unwrap());
    let (client, tree) = (Home::new(), bulk(dir.path(), 20));
    server.join(&client, "laptop", &[], &[&tree]);
    client.run(&["backup"]).ok();
    let out = tempfile::tempdir().unwrap();
    let args = ["restore", "latest", "-t", out.path().to_str().unwrap()];
    relay.set(slow());
    let before = relay.counts().down.bytes;
    let running = client.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("bytes arrive", || relay.counts().down.bytes > before + 1_000_000);
    interrupt(&running);
    let ended = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("the same command goes on from there"), "{said}");
    // Whoever only vanishes is waited for until its line is given up.
    server.says("cut short on the client: it was interrupted");
    relay.set(relay::Path::default());
    client.run(&args).ok();
    trees::assert_equal(&tree, &out.path().join(tree.strip_prefix("/").unwrap()));
}

#[test]
fn a_quickstart_that_is_interrupted_says_so_and_how_to_carry_on() {
    let (home, dir) = (Home::new(), tempfile::tempdir().unwrap());
    let (tree, begun) = (bulk(dir.path(), 2), dir.path().join("begun"));
    let again = ["quickstart", tree.to_str().unwrap()];
    home.run(&again).ok();
    let config = home.path().join("agent/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let hook = format!("before = [\"sh\", \"-c\", \"touch '{}'; exec sleep 10\"]", begun.display());
    fs::write(&config, text.replace("before = []", &hook)).unwrap();
    let running = home.command(&again).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the run has begun", || begun.exists());
    interrupt(&running);
    let ended = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("run the same command again"), "{said}");
    let runs = home.json(&["runs"]);
    let states: Vec<&str> = runs.as_array().unwrap().iter().filter_map(|run| run["state"].as_str()).collect();
    assert_eq!(states, ["done", "interrupted"], "{runs}");
    fs::write(&config, text).unwrap();
    let done = home.run(&again).ok();
    assert!(done.out.contains("compared with the originals: equal"), "{}", done.out);
}

#[test]
fn the_second_interrupt_ends_a_command_at_once() {
    let (relay, server, client) = far_away();
    client.run(&["backup", "/etc/hostname"]).ok();
    let frozen = Pid::from_raw(server.pid().unwrap() as i32).unwrap();
    // To a server that does not answer a goodbye takes three seconds, always: that is not waited for.
    let took = |_| {
        let before = relay.counts().up.bytes;
        let mut running = backup_of(&client, "head -c 40000000 /dev/urandom");
        wait_until("bytes leave", || relay.counts().up.bytes > before + 500_000);
        kill_process(frozen, Signal::STOP).unwrap();
        interrupt(&running);
        until_it_says(&mut running, "once more ends at once");
        let start = Instant::now();
        interrupt(&running);
        let status = running.wait().unwrap();
        kill_process(frozen, Signal::CONT).unwrap();
        assert_eq!(status.code(), Some(130));
        start.elapsed()
    };
    // A machine may be slow for a moment.
    let quickest = (0..4).map(took).find(|took| *took < Duration::from_secs(2));
    assert!(quickest.is_some(), "each time it was as slow as with one");
}
