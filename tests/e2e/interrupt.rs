//! Power cuts on either side: the next run carries on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use backhaul_tests::{Home, TestServer, free_port, trees, wait_until};

/// Enough that a backup takes a while: 200 files of 1 MB that do not compress.
fn bulk(dir: &Path) -> PathBuf {
    let root = dir.join("bulk");
    fs::create_dir(&root).unwrap();
    for i in 0..200 {
        fs::write(root.join(format!("{i:03}")), trees::noise(1_000_000, i)).unwrap();
    }
    root
}

/// Objects of files of 1 MB have more bytes than this on average; a record of such a file in the client's notes has fewer.
const OBJECT: u64 = 500_000;
const RECORD: u64 = 400;

/// Bytes of what a running client has noted as done.
fn noted(client: &Home) -> u64 {
    let notes = trees::files(&client.path().join("agent/state"));
    notes.iter().filter_map(|path| path.metadata().ok()).map(|meta| meta.len()).sum()
}

#[test]
fn a_killed_client_carries_on_without_sending_again_what_was_durable() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = bulk(dir.path());
    let client = server.client("laptop", &[&tree]);
    let log = dir.path().join("log");
    let mut running = client.command(&["-q", "backup"]);
    running.env("RUST_LOG", "backhaul_agent=trace").stderr(fs::File::create(&log).unwrap());
    let mut running = running.spawn().unwrap();
    // How much of what has arrived is durable depends on the disk: what the client was told counts.
    let durable = || {
        let said = fs::read_to_string(&log).unwrap();
        let told = said.lines().filter_map(|line| line.split_once("frame < Durable ")?.1.parse::<u64>().ok());
        told.max().unwrap_or(0)
    };
    wait_until("half is durable", || durable() > 100 && noted(&client) > 20 * RECORD);
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(client.json(&["snapshots"]).as_array().unwrap().len(), 0, "no snapshot of half a tree");
    let report = client.json(&["backup"]);
    assert!(report["files_unmodified"].as_u64().unwrap() >= 20, "{report}");
    assert!(report["bytes_sent"].as_u64().unwrap() < 200_000_000 - durable() * OBJECT, "{report}");
    let out = tempfile::tempdir().unwrap();
    client.run(&["restore", "latest", "-t", out.path().to_str().unwrap()]).ok();
    trees::assert_equal(&tree, &out.path().join(tree.strip_prefix("/").unwrap()));
}

#[test]
fn a_killed_server_keeps_what_it_acknowledged_and_every_snapshot() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let client = server.client("laptop", &[&tree]);
    let first = client.json(&["backup"]);
    let more = bulk(&tree);
    let before = server.vault_bytes();
    let mut running = client.command(&["-q", "backup"]).stderr(Stdio::null()).spawn().unwrap();
    wait_until("half is there", || server.vault_bytes() > before + 100_000_000);
    server.kill();
    running.kill().unwrap();
    running.wait().unwrap();
    server.home.run(&["check", "--read-data"]).ok();
    server.start();
    let old = first["snapshot"].as_str().unwrap();
    let tiny = format!("{old}:{}", tree.join("tiny").display());
    assert_eq!(client.run(&["dump", &tiny]).ok().out, "tiny");
    let report = client.json(&["backup"]);
    assert!(report["bytes_sent"].as_u64().unwrap() < 180_000_000, "{report}");
    let out = tempfile::tempdir().unwrap();
    client.run(&["restore", "latest", "-t", out.path().to_str().unwrap()]).ok();
    trees::assert_equal(&more, &out.path().join(more.strip_prefix("/").unwrap()));
    server.stop();
    server.home.run(&["check", "--read-data"]).ok();
}

#[test]
fn a_run_goes_on_by_itself_when_the_server_comes_back() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = bulk(dir.path());
    let client = server.client("laptop", &[&tree]);
    let mut running = client.command(&["--json", "-v", "backup"]);
    let running = running.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("some is there", || server.vault_bytes() > 60_000_000);
    server.stop_at_once();
    server.start();
    let ended = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("stopping") && said.contains("the run goes on"), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    // One scan, each file read once; sent again only what was not acknowledged.
    assert_eq!((report["files_new"].as_u64(), report["bytes_read"].as_u64()), (Some(200), Some(200_000_000)));
    let stats = server.home.json(&["stats"]);
    assert!(stats["bytes_on_disk"].as_u64().unwrap() < 203_000_000, "{stats}");
    let out = tempfile::tempdir().unwrap();
    client.run(&["restore", "latest", "-t", out.path().to_str().unwrap()]).ok();
    trees::assert_equal(&tree, &out.path().join(tree.strip_prefix("/").unwrap()));
}

#[test]
fn a_run_whose_client_is_revoked_does_not_come_back() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = bulk(dir.path());
    let client = server.client("laptop", &[&tree]);
    let mut running = client.command(&["-q", "backup"]).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("some is there", || server.vault_bytes() > 10_000_000);
    server.home.run(&["client", "revoke", "laptop"]).ok();
    let start = std::time::Instant::now();
    let status = running.wait().unwrap();
    assert!(start.elapsed() < std::time::Duration::from_secs(60));
    // It may have been faster than the revocation.
    if !status.success() {
        let ended = running.wait_with_output().unwrap();
        assert!(String::from_utf8_lossy(&ended.stderr).contains("revoked"));
    }
}

#[test]
fn a_pulled_run_that_is_cut_goes_on_as_a_push() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = bulk(dir.path());
    let (home, address) = (Home::new(), format!("127.0.0.1:{}", free_port()));
    server.join(&home, "desk", &["--initiator", "server", "--address", &address], &[&tree]);
    let _agent = home.start(&["agent", "run", "--listen", &address]);
    server.home.run(&["client", "run", "desk"]).ok();
    wait_until("some is there", || server.vault_bytes() > 60_000_000);
    server.stop_at_once();
    server.start();
    let listed = || server.home.json(&["snapshots", "--client", "desk"]);
    wait_until("there is a snapshot", || listed().as_array().unwrap().len() == 1);
    let stats = server.home.json(&["stats"]);
    assert!(stats["bytes_on_disk"].as_u64().unwrap() < 203_000_000, "{stats}");
    let out = tempfile::tempdir().unwrap();
    home.run(&["restore", "latest", "-t", out.path().to_str().unwrap()]).ok();
    trees::assert_equal(&tree, &out.path().join(tree.strip_prefix("/").unwrap()));
}
