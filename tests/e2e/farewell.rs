//! Whoever ends a session in full flow is heard: the reason arrives before the connection is gone, over a slow line, too.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use backhaul_tests::relay::{self, Relay};
use backhaul_tests::{Home, TestServer, free_port, wait_until};

/// A line on which what a client has ready to send takes most of a minute.
fn slow() -> relay::Path {
    relay::Path { rate_limit: Some(250_000), ..relay::Path::default() }
}

/// A server behind a line, and a client that has joined.
fn far_away() -> (Relay, TestServer, Home) {
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let relay = Relay::start(listen, relay::Path::default());
    let policy = TestServer::quiet_policy();
    let server = TestServer::at(&listen.to_string(), &relay.address().to_string(), &policy);
    let client = Home::new();
    let dir = tempfile::tempdir().unwrap();
    server.join(&client, "laptop", &[], &[dir.path()]);
    relay.set(slow());
    (relay, server, client)
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
