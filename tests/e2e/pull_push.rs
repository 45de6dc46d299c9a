//! Two clients, one pulled and one pushed, on one server.

use std::fs;

use backhaul_tests::{TestServer, trees};
use serde_json::Value;

#[test]
fn both_directions_make_the_same_tree_and_the_second_copy_costs_nothing() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let (pulled, address) = server.listener("desk", &[&tree]);
    let _agent = pulled.start(&["agent", "run", "--listen", &address]);
    let run = server.home.json(&["client", "run", "desk", "--wait"]);
    assert_eq!((run[0]["state"].as_str(), run[0]["errors"].as_u64()), (Some("done"), Some(0)));

    let pushed = server.client("laptop", &[&tree]);
    let report = pushed.json(&["backup"]);
    let (sent, scanned) = (report["bytes_sent"].as_u64().unwrap(), report["bytes_scanned"].as_u64().unwrap());
    assert!(sent * 50 < scanned, "{report}");
    let desk = server.home.json(&["snapshots", "--client", "desk"]);
    let laptop = pushed.json(&["snapshots"]);
    assert_eq!(desk[0]["root"], laptop[0]["root"]);
    assert_ne!(desk[0]["id"], laptop[0]["id"]);

    for (home, more) in [(&pushed, &[][..]), (&server.home, &["--client", "desk"][..])] {
        let out = tempfile::tempdir().unwrap();
        home.run(&[&["restore", "latest", "-t", out.path().to_str().unwrap()], more].concat()).ok();
        trees::assert_equal(&tree, &out.path().join(tree.strip_prefix("/").unwrap()));
    }
}

#[test]
fn an_edit_is_a_second_snapshot_and_the_first_stays_as_it_was() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let client = server.client("laptop", &[&tree]);
    let first = client.json(&["backup", "--tag", "before"]);
    fs::write(tree.join("deep/er/005.txt"), b"edited").unwrap();
    fs::remove_file(tree.join("zeroes")).unwrap();
    let second = client.json(&["backup"]);
    let figures = |report: &Value, name: &str| report[name].as_u64().unwrap();
    assert_eq!(figures(&second, "files_changed"), 1, "{second}");
    assert!(figures(&second, "bytes_sent") < 60_000, "{second}");
    let (id, path) = (first["snapshot"].as_str().unwrap(), tree.join("deep/er/005.txt"));
    let out = dir.path().join("old");
    let what = format!("{}:{}", &id[..8], path.display());
    client.run(&["dump", &what, "-o", out.to_str().unwrap()]).ok();
    assert_eq!(fs::read(out).unwrap(), trees::noise(250, 7));
    assert_eq!(client.run(&["dump", &format!("latest:{}", path.display())]).ok().out, "edited");
    assert_eq!(client.json(&["snapshots"])[0]["tags"][0], "before");
    let status = server.home.json(&["status"]);
    assert_eq!(status[0]["state"], "protected", "{status}");
    server.home.run(&["status", "--check"]).ok();
}

#[test]
fn losing_the_local_state_costs_a_read_and_no_upload() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let client = server.client("laptop", &[&tree]);
    let first = client.json(&["backup"]);
    fs::remove_dir_all(client.path().join("agent/state")).unwrap();
    let second = client.json(&["backup"]);
    assert_eq!(second["bytes_read"], first["bytes_read"]);
    assert_eq!(second["root"], first["root"]);
    assert!(second["bytes_sent"].as_u64().unwrap() * 50 < first["bytes_sent"].as_u64().unwrap(), "{second}");
}

#[test]
fn a_client_reads_only_its_own() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let (ana, bea) = (server.client("ana", &[&tree]), server.client("bea", &[&tree]));
    ana.json(&["backup"]);
    assert_eq!(bea.json(&["snapshots"]).as_array().unwrap().len(), 0);
    let id = ana.json(&["snapshots"])[0]["id"].as_str().unwrap().to_owned();
    let refused = bea.run(&["ls", &id]).expect(1);
    assert!(refused.err.contains("no snapshot"), "{}", refused.err);
    bea.run(&["snapshots", "--client", "ana"]).expect(10);
}

#[test]
fn a_dry_run_counts_and_sends_nothing() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let client = server.client("laptop", &[&tree]);
    let before = server.vault_bytes();
    let report = client.json(&["backup", "--dry-run"]);
    assert!(report["files_new"].as_u64().unwrap() > 400 && report["snapshot"].is_null(), "{report}");
    assert_eq!(server.vault_bytes(), before);
    client.json(&["backup", "--exclude", "*.txt"]);
    let found = client.run(&["find", "*.txt"]).ok().out;
    assert_eq!(found, "");
}
